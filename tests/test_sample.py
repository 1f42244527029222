import math
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
from common.errors import BakeoffError
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


@pytest.mark.parametrize("name", ["pure_jax", "haiku"])
def test_greedy_is_a_loop_with_argmax(name: str) -> None:
    text = write("ab", name)
    assert text == greedy_loop(name, "ab", LENGTH)
    assert len(set(text[2:])) > 2, "a text of one character would prove little"


def test_greedy_ignores_the_seed() -> None:
    assert write(seed=0) == write(seed=1)


def test_a_temperature_draws_by_the_seed() -> None:
    assert write(temperature=1.0, seed=3) == write(temperature=1.0, seed=3)
    assert len({write(temperature=1.0, seed=seed) for seed in range(10)}) == 10


@pytest.mark.parametrize("temperature", [1e-4, 1e-20, 1e-44, 1e-300, 5e-324])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    assert write(temperature=temperature) == write()


@pytest.mark.parametrize("temperature", [1e9, 1e39, 1e308])
def test_a_huge_temperature_draws_every_character_alike(temperature: float) -> None:
    text = write(temperature=temperature, length=600)[2:]
    assert all(60 <= text.count(character) <= 140 for character in VOCAB.characters)


def write_by_bias(bias: np.ndarray, length: int, temperature: float) -> str:
    """Return what is drawn where every kernel is zero, so that the logits are always `bias`."""
    model, _ = entrant()
    zero = unflat(type(d)(d.kernel * 0, d.bias * 0) for d in (*WEIGHTS.cells, WEIGHTS.readout))
    params = model.from_weights(zero._replace(readout=zero.readout._replace(bias=bias)))
    return sample(model, params, CONFIG, VOCAB, "a", length, temperature)[1:]


def test_draws_follow_the_softmax_of_the_logits_over_the_temperature() -> None:
    bias = np.array([0, 1, 2, -1, 0.5, 1.5], np.float32)
    text = write_by_bias(bias, 20_000, temperature=2.0)
    expected = np.exp(bias / 2) / np.exp(bias / 2).sum()
    found = np.array([text.count(character) for character in VOCAB.characters]) / len(text)
    deviation = np.sqrt(expected * (1 - expected) / len(text))
    assert (np.abs(found - expected) < 4 * deviation).all()


def test_a_tiny_temperature_takes_the_likeliest_of_large_logits() -> None:
    """Divided by so little they are infinite, and infinity less infinity is NaN."""
    bias = np.array([50, 40, -30, 70, 60, 50], np.float32)
    assert write_by_bias(bias, LENGTH, temperature=1e-300) == VOCAB.characters[3] * LENGTH


@pytest.mark.parametrize("prompt", ["c", "ca", "a c", "[b\nca"])
def test_all_of_the_prompt_is_read(prompt: str) -> None:
    assert write(prompt) == greedy_loop(impls.BASELINE, prompt, LENGTH)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_prompt_and_as_many_characters_as_asked_for(length: int) -> None:
    text = write("abc", length=length)
    assert text.startswith("abc")
    assert len(text) == 3 + length


def test_an_empty_prompt_starts_from_a_character_drawn_with_the_seed() -> None:
    texts = [write("", seed=seed) for seed in range(30)]
    assert texts == [write("", seed=seed) for seed in range(30)]
    assert {text[0] for text in texts} == set(VOCAB.characters)
    assert all(text == write(text[0]) for text in texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "abd"}, "the prompt has the character 'd' at position 2"),
        ({"length": 0}, "length is 0; it must be a whole number from 1 to 1048576"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be a positive number"),
        ({"temperature": math.nan}, "temperature is nan; it must be a positive number"),
        ({"temperature": math.inf}, "temperature is inf; it must be a positive number"),
        ({"seed": -1}, "seed is -1; it must be from 0 to 2147483647"),
        ({"seed": 1 << 31}, "seed is 2147483648; it must be from 0 to 2147483647"),
    ],
)
def test_what_is_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BakeoffError, match=f"^{message}"):
        write(**options)


def test_the_largest_seed_is_taken() -> None:
    assert len(write("", temperature=1.0, seed=(1 << 31) - 1)) == 1 + LENGTH
