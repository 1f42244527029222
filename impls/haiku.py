"""Character RNN in Haiku. Modules are made inside a function that `hk.transform` turns pure."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import haiku as hk
import jax
import jax.numpy as jnp

from common.contract import Dense, Model, Weights
from common.loss import cross_entropy
from common.steps import functional, pure_style, stages_of, state_argnums, update_of

if TYPE_CHECKING:
    import optax
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, State, TrainStep

DISTRIBUTION = "dm-haiku"
PACKAGES = ("jmp", "absl-py")
RECOMMENDED = False
NOTE = "Haiku is in maintenance mode."
COLOUR = "#E69F00"
NAMES = {"transform": "Haiku's own loss under one `hk.transform`"}

type Params = dict[str, dict[str, Array]]


class Cell(hk.RNNCore):
    """One tanh layer; takes one stream or a batch of them, as Haiku's cores do."""

    def __init__(self, width: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.width = width

    def __call__(self, x: Float[Array, "*batch in"], hidden: Float[Array, "*batch width"]) -> Any:
        """Return the layer's output and its new hidden state, which are the same."""
        hidden = jnp.tanh(hk.Linear(self.width)(jnp.concatenate([hidden, x], axis=-1)))
        return hidden, hidden

    def initial_state(self, batch_size: int | None) -> Array:
        """Return zeros; every RNNCore has to say where it starts."""
        return jnp.zeros((self.width,) if batch_size is None else (batch_size, self.width))


def char_rnn(config: ModelConfig) -> hk.DeepRNN:
    """Return one-hot, cells bottom up, and a readout; call it inside of a transform."""
    one_hot = partial(jax.nn.one_hot, num_classes=config.vocab_size)
    cells = [Cell(config.width, name=f"cell_{i}") for i in range(config.layers)]
    return hk.DeepRNN([one_hot, *cells, hk.Linear(config.vocab_size, name="readout")])


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over a dict: Haiku module name → arrays."""

    def forward(state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
        logits, new_state = char_rnn(config)(token, state)
        return new_state, logits

    rnn = hk.without_apply_rng(hk.transform(forward))
    names = [f"cell_{i}/linear" for i in range(config.layers)] + ["readout"]

    def init(key: PRNGKeyArray) -> Params:
        return rnn.init(key, (jnp.zeros(config.width),) * config.layers, jnp.int32(0))

    def to_weights(params: Params) -> Weights:
        *cells, readout = (Dense(params[name]["w"], params[name]["b"]) for name in names)
        return Weights(tuple(cells), readout)

    def from_weights(weights: Weights) -> Params:
        layers = zip(names, (*weights.cells, weights.readout), strict=True)
        return {name: {"w": jnp.asarray(w), "b": jnp.asarray(b)} for name, (w, b) in layers}

    return Model(init, rnn.apply, to_weights, from_weights)


def transform(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """One transformed loss of a whole sequence, which Haiku unrolls, as its RNN example does."""

    def sequence_loss(hidden: Hidden, chunk: Chunk) -> tuple[Array, Hidden]:
        logits, hidden = hk.dynamic_unroll(char_rnn(config), chunk.inputs, hidden)
        return cross_entropy(logits, chunk), hidden

    loss_fn = hk.without_apply_rng(hk.transform(sequence_loss)).apply

    update = jax.jit(update_of(loss_fn, optimiser), donate_argnums=state_argnums(donate))
    return functional(update, build(config), optimiser, stages_of(update))


STYLES = {"pure": pure_style(build), "transform": transform}
