from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest

import impls
from bench.corpus import TOY
from common import reference
from common.chunker import chunks, window
from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import Checkpoint, Chunk, fresh_checkpoint
from common.equality import random_weights
from common.sample import sample
from common.steps import adamw, move_to_host
from common.train import Epoch, epochs, make_chunk_loop
from common.vocab import Vocab

VOCAB = Vocab.from_text(TOY)
TOKENS = VOCAB.encode(TOY)
CONFIG = ModelConfig(len(VOCAB), width=8, layers=3)
START = fresh_checkpoint(random_weights(CONFIG))
NO_DECAY = OptimiserConfig(weight_decay=0.0)
CHUNK = 16
WINDOWS = DataConfig(chunk=CHUNK, epoch_chars=40)
"""39 targets, elsewhere in each epoch."""


@cache
def made(entrant: str) -> Any:
    """Return a training step, compiled once for all tests that ask for the same."""
    return impls.load(entrant).style("pure")(CONFIG, adamw(NO_DECAY))


def train(
    numbers: range,
    data: DataConfig = WINDOWS,
    start: Checkpoint = START,
    entrant: str = impls.BASELINE,
    seed: int = 0,
    by: Callable[[Any], Any] = make_chunk_loop,
) -> list[Epoch]:
    step = made(entrant)
    step.load(start)
    return list(epochs(by(step), step, TOKENS, CONFIG, data, seed, numbers))


def losses(done: Sequence[Epoch]) -> list[float]:
    return [epoch.loss for epoch in done]


def by_hand(numbers: range, *, carry: bool = True, reset: bool = True) -> list[float]:
    """Return epoch losses in float64: the reference's gradients and its AdamW, chunk by chunk."""
    zeros = [np.zeros((1, CONFIG.width))] * CONFIG.layers
    start, mu, nu = map(reference.double, START[:3])
    checkpoint, hidden, means = Checkpoint(start, mu, nu, START.updates), zeros, []
    for number in numbers:
        hidden = zeros if reset else hidden
        total = 0.0
        cut = chunks(window(TOKENS, WINDOWS, 0, number), CHUNK)
        for chunk in [Chunk(*arrays) for arrays in zip(*cut, strict=True)]:
            answer = reference.loss_and_grads(checkpoint.weights, hidden, chunk)
            hidden = list(answer.hidden) if carry else zeros
            checkpoint = reference.adamw(checkpoint, answer.grads, NO_DECAY)
            total += answer.loss * float(np.sum(chunk.mask))
        means.append(total / float(np.sum(cut.mask)))
    return means


def test_the_state_is_carried_within_an_epoch_and_zero_at_its_start() -> None:
    ours, numbers = losses(train(range(4))), range(4)
    assert ours == pytest.approx(by_hand(numbers), rel=1e-6)
    for other in (by_hand(numbers, carry=False), by_hand(numbers, reset=False)):
        assert np.max(np.abs(np.subtract(ours, other))) > 1e-3


def test_a_resumed_run_goes_on_exactly_and_elsewhere_nearly_so() -> None:
    """In another library; test_weights.py has a checkpoint in a file."""
    whole = train(range(6), seed=5)
    assert [epoch.number for epoch in whole] == [*range(6)]
    assert [epoch.checkpoint.updates for epoch in whole] == [3 * n for n in range(1, 7)]
    half = train(range(2), seed=5)[-1].checkpoint
    rest = train(range(2, 6), start=half, seed=5)
    assert losses(rest) == losses(whole)[2:]
    jax.tree.map(np.testing.assert_array_equal, rest[-1].checkpoint, whole[-1].checkpoint)
    other = train(range(2, 6), start=half, entrant="haiku", seed=5)
    np.testing.assert_allclose(losses(other), losses(whole)[2:], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_blogs_toy_figure() -> None:
    """Linen's own initialisers, Adam without decay, the whole text as one chunk."""
    model, last = impls.load("flax_linen").build(CONFIG), []
    for seed in range(20):
        start = fresh_checkpoint(move_to_host(model.to_weights(model.init(jax.random.key(seed)))))
        data = DataConfig(chunk=len(TOY))
        last.append(train(range(81), data, start, "flax_linen", seed)[-1])
    assert 0.35 < np.median(losses(last)) < 0.50
    texts = [
        sample(model, model.from_weights(epoch.checkpoint.weights), CONFIG, VOCAB, "a", 69)
        for epoch in last
    ]
    assert sum("abcd..." * 5 in text for text in texts) >= 15
