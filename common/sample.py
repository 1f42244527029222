"""Sampling: greedy as in the blog, or by temperature; one jitted scan instead of a Python loop."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from common.config import MAX_SEED, check_rate, check_size
from common.contract import zero_hidden

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Model, Params
    from common.vocab import Vocab


@partial(jax.jit, static_argnames=("model", "config", "length", "greedy"))
def _generate(
    params: Params,
    prompt: Int[Array, " prompt"],
    key: PRNGKeyArray,
    temperature: Float[Array, ""],
    *,
    model: Model,
    config: ModelConfig,
    length: int,
    greedy: bool,
) -> Int[Array, " length"]:
    step = partial(model.step, params)
    state = tuple(row[0] for row in zero_hidden(config))
    state, logits = jax.lax.scan(step, state, prompt)

    def body(carry: Any, key: PRNGKeyArray) -> tuple[Any, Int[Array, ""]]:
        state, logits = carry
        if greedy:
            token = jnp.argmax(logits)
        else:  # from the largest, so that a tiny temperature makes the others -inf, never NaN
            token = jax.random.categorical(key, (logits - jnp.max(logits)) / temperature)
        return step(state, token), token

    _, tokens = jax.lax.scan(body, (state, logits[-1]), jax.random.split(key, length))
    return tokens


def sample(
    model: Model,
    params: Params,
    config: ModelConfig,
    vocab: Vocab,
    prompt: str = "",
    length: int = 500,
    temperature: float | None = None,
    seed: int = 0,
) -> str:
    """Return the prompt and `length` characters that the model writes after it.

    Args:
        model: The entrant; built once, since a new one compiles anew.
        params: Its parameters.
        config: Its sizes.
        vocab: Characters that its ids stand for.
        prompt: An empty one starts from a character drawn with the seed.
        length: Characters to write.
        temperature: Divides the logits before a character is drawn; None takes the likeliest.
        seed: Seeds the drawing.

    Raises:
        BakeoffError: the prompt has a character that `vocab` lacks, or a number is out of range.
    """
    check_size("length", length)
    check_size("seed", seed, least=0, most=MAX_SEED)
    if temperature is not None:
        check_rate("temperature", temperature)
    limits = np.finfo(np.float32)
    if not prompt:
        prompt = vocab.characters[np.random.default_rng(seed).integers(len(vocab))]
    tokens = _generate(
        params,
        jnp.asarray(vocab.encode(prompt, "the prompt")),
        jax.random.key(seed),
        jnp.float32(np.clip(temperature or 1.0, limits.tiny, limits.max)),
        model=model,
        config=config,
        length=length,
        greedy=temperature is None,
    )
    return prompt + vocab.decode(np.asarray(tokens))
