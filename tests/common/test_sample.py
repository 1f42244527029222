from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import impls
from common.config import ModelConfig
from common.contract import Model, map_arrays
from common.equality import random_weights
from common.sample import sample
from common.vocab import Vocab

CONFIG = ModelConfig(vocab_size=6, width=8, layers=2)
VOCAB = Vocab("\n [abc")
WEIGHTS = random_weights(CONFIG, seed=1)
LENGTH = 40


@cache
def entrant(name: str) -> tuple[Model, Any]:
    model = impls.load(name).build(CONFIG)
    return model, model.from_weights(WEIGHTS)


def write(prompt: str = "ab", name: str = impls.BASELINE, **options: Any) -> str:
    return sample(*entrant(name), CONFIG, VOCAB, prompt, LENGTH, **options)


@pytest.mark.parametrize(("name", "prompt"), [("haiku", "ab"), (impls.BASELINE, "[b\nca")])
def test_greedy_takes_the_likeliest_character(name: str, prompt: str) -> None:
    """As a loop does, one at a time and without a jitted scan; the seed changes nothing."""
    text, (model, params) = write(prompt, name), entrant(name)
    state: Any = tuple(jnp.zeros(CONFIG.width) for _ in range(CONFIG.layers))
    likeliest = []
    for token in VOCAB.encode(text):
        state, logits = model.step(params, state, jnp.int32(token))
        likeliest.append(int(jnp.argmax(logits)))
    assert text[len(prompt) :] == VOCAB.decode(np.array(likeliest[len(prompt) - 1 : -1]))
    assert text == write(prompt, name, seed=1)
    assert text.startswith(prompt)
    assert len(text) == len(prompt) + LENGTH
    assert len(set(text[2:])) > 2, "a text of one character would prove little"


def test_the_seed_draws_the_characters_and_where_there_is_no_prompt_the_first_one() -> None:
    assert len({write(temperature=1.0, seed=seed) for seed in (*range(10), (1 << 31) - 1)}) == 11
    texts = [write("", seed=seed) for seed in range(30)]
    assert {text[0] for text in texts} == set(VOCAB.characters)
    assert all(text == write(text[0]) for text in texts)


def test_draws_follow_the_softmax_of_the_logits_over_the_temperature() -> None:
    """With every kernel zero, logits are the bias; a tiny temperature makes them infinite."""
    model, bias = entrant(impls.BASELINE)[0], np.array([0, 1, 2, -1, 0.5, 1.5], np.float32)
    zero = map_arrays(np.zeros_like, WEIGHTS)

    def drawn(bias: np.ndarray, length: int, temperature: float) -> str:
        params = model.from_weights(zero._replace(readout=zero.readout._replace(bias=bias)))
        return sample(model, params, CONFIG, VOCAB, "a", length, temperature)[1:]

    assert drawn(bias * 30, LENGTH, temperature=1e-300) == VOCAB.characters[2] * LENGTH
    text = drawn(bias, 20_000, temperature=2.0)
    expected = np.exp(bias / 2) / np.exp(bias / 2).sum()
    shares = np.array([text.count(character) for character in VOCAB.characters]) / len(text)
    deviation = np.sqrt(expected * (1 - expected) / len(text))
    assert (np.abs(shares - expected) < 4 * deviation).all()
