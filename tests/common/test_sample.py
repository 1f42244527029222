from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import impls
from common.config import ModelConfig
from common.contract import Model, unflat
from common.equality import random_weights
from common.sample import sample
from common.vocab import Vocab

CONFIG = ModelConfig(vocab_size=6, width=8, layers=2)
VOCAB = Vocab("\n [abc")
WEIGHTS = random_weights(CONFIG, seed=1)
LENGTH = 40


@cache
def entrant(name: str = impls.BASELINE) -> tuple[Model, Any]:
    model = impls.load(name).build(CONFIG)
    return model, model.from_weights(WEIGHTS)


def write(prompt: str = "ab", name: str = impls.BASELINE, **options: Any) -> str:
    model, params = entrant(name)
    return sample(model, params, CONFIG, VOCAB, prompt, **{"length": LENGTH, **options})


@cache
def step_of_model(name: str) -> Any:
    return jax.jit(entrant(name)[0].step)


def greedy_loop(name: str, prompt: str, length: int) -> str:
    """Return what the likeliest characters are, one at a time and without a jitted scan."""
    params, step = entrant(name)[1], step_of_model(name)
    state: Any = tuple(jnp.zeros(CONFIG.width) for _ in range(CONFIG.layers))
    for token in VOCAB.encode(prompt):
        state, logits = step(params, state, jnp.int32(token))
    for _ in range(length):
        token = np.argmax(np.asarray(logits)).astype(np.int32)
        prompt += VOCAB.characters[token]
        state, logits = step(params, state, jnp.int32(token))
    return prompt


@pytest.mark.parametrize(
    ("name", "prompt"), [("haiku", "ab"), *((impls.BASELINE, p) for p in ("ab", "c", "[b\nca"))]
)
def test_greedy_is_a_loop_with_argmax(name: str, prompt: str) -> None:
    text = write(prompt, name)
    assert text == write(prompt, name, seed=1) == greedy_loop(name, prompt, LENGTH)
    assert len(set(text[2:])) > 2, "a text of one character would prove little"
    assert write(prompt, name, length=1) == text[: len(prompt) + 1]


def test_a_temperature_draws_by_the_seed() -> None:
    texts = [write(temperature=1.0, seed=seed) for seed in (*range(10), (1 << 31) - 1)]
    assert texts[3] == write(temperature=1.0, seed=3)
    assert len(set(texts)) == 11


def test_temperatures_at_the_limits() -> None:
    """A tiny one is greedy, a huge one draws every character alike."""
    assert {write(temperature=tiny) for tiny in (1e-4, 1e-44, 5e-324)} == {write()}
    for huge in (1e9, 1e308):
        text = write(temperature=huge, length=600)[2:]
        assert all(60 <= text.count(character) <= 140 for character in VOCAB.characters)


def test_draws_follow_the_softmax_of_the_logits_over_the_temperature() -> None:
    """With every kernel zero, logits are the bias; a tiny temperature makes them infinite."""
    model, bias = entrant()[0], np.array([0, 1, 2, -1, 0.5, 1.5], np.float32)
    zero = unflat(type(d)(d.kernel * 0, d.bias * 0) for d in (*WEIGHTS.cells, WEIGHTS.readout))

    def drawn(bias: np.ndarray, length: int, temperature: float) -> str:
        params = model.from_weights(zero._replace(readout=zero.readout._replace(bias=bias)))
        return sample(model, params, CONFIG, VOCAB, "a", length, temperature)[1:]

    assert drawn(bias * 30, LENGTH, temperature=1e-300) == VOCAB.characters[2] * LENGTH
    text = drawn(bias, 20_000, temperature=2.0)
    expected = np.exp(bias / 2) / np.exp(bias / 2).sum()
    shares = np.array([text.count(character) for character in VOCAB.characters]) / len(text)
    deviation = np.sqrt(expected * (1 - expected) / len(text))
    assert (np.abs(shares - expected) < 4 * deviation).all()


def test_an_empty_prompt_starts_from_a_character_drawn_with_the_seed() -> None:
    texts = [write("", seed=seed) for seed in range(30)]
    assert texts == [write("", seed=seed) for seed in range(30)]
    assert {text[0] for text in texts} == set(VOCAB.characters)
    assert all(text == write(text[0]) for text in texts)
