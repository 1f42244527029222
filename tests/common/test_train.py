import math
from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Any
from unittest.mock import Mock

import jax
import numpy as np
import pytest

import impls
from common import reference
from common.chunker import chunks, window
from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import Checkpoint, Chunk, Dense, Model, fresh_checkpoint
from common.corpus import TOY
from common.equality import random_weights
from common.sample import sample
from common.steps import adamw, on_host
from common.train import DivergedError, Epoch, by_chunk, by_scan, epochs
from common.vocab import Vocab

VOCAB = Vocab.of(TOY)
TOKENS = VOCAB.encode(TOY)
CONFIG = ModelConfig(len(VOCAB), width=8, layers=3)
START = fresh_checkpoint(random_weights(CONFIG))
CHUNK = 16
WHOLE = DataConfig(chunk=CHUNK)
"""69 targets: four whole chunks and one with five targets."""
WINDOWS = DataConfig(chunk=CHUNK, epoch_chars=40)
"""39 targets, elsewhere in each epoch."""


@cache
def made(entrant: str, decay: float = 1e-7) -> Any:
    """Return a training step, compiled once for all tests that ask for the same."""
    optimiser = adamw(OptimiserConfig(weight_decay=decay))
    return impls.load(entrant).style("pure")(CONFIG, optimiser)


@cache
def model_of(entrant: str) -> Model:
    return impls.load(entrant).build(CONFIG)


def train(
    numbers: range,
    data: DataConfig = WHOLE,
    start: Checkpoint = START,
    entrant: str = impls.BASELINE,
    seed: int = 0,
    decay: float = 1e-7,
) -> list[Epoch]:
    step = made(entrant, decay)
    step.load(start)
    return list(epochs(by_chunk(step), step, TOKENS, CONFIG, data, seed, numbers))


def losses(done: Sequence[Epoch]) -> list[float]:
    return [epoch.loss for epoch in done]


def zeros() -> list[np.ndarray]:
    return [np.zeros((1, CONFIG.width)) for _ in range(CONFIG.layers)]


def by_hand(numbers: range, *, carry: bool = True, reset: bool = True) -> list[float]:
    """Return epoch losses in float64: the reference's gradients and its AdamW, chunk by chunk."""
    checkpoint, hidden, means = START, zeros(), []
    for number in numbers:
        hidden = zeros() if reset else hidden
        total = 0.0
        cut = chunks(window(TOKENS, WINDOWS, 0, number), CHUNK)
        for chunk in [Chunk(*arrays) for arrays in zip(*cut, strict=True)]:
            answer = reference.loss_and_grads(checkpoint.weights, hidden, chunk)
            hidden = list(answer.hidden) if carry else zeros()
            checkpoint = reference.adamw(checkpoint, answer.grads, OptimiserConfig())
            total += answer.loss * float(np.sum(chunk.mask))
        means.append(total / float(np.sum(cut.mask)))
    return means


def test_the_state_is_carried_within_an_epoch_and_zero_at_its_start() -> None:
    ours, numbers = losses(train(range(4), WINDOWS)), range(4)
    assert ours == pytest.approx(by_hand(numbers), rel=1e-6)
    for other in (by_hand(numbers, carry=False), by_hand(numbers, reset=False)):
        assert np.max(np.abs(np.subtract(ours, other))) > 1e-3


@pytest.mark.parametrize("entrant", ["pure_jax", "haiku"])
def test_an_epoch_as_one_scan_has_the_losses_of_chunk_by_chunk(entrant: str) -> None:
    expected = train(range(5), WINDOWS, entrant=entrant)
    step = made(entrant)
    step.load(START)
    done = list(epochs(by_scan(step), step, TOKENS, CONFIG, WINDOWS, 0, range(5)))
    np.testing.assert_allclose(losses(done), losses(expected), rtol=1e-6)
    assert done[-1].checkpoint.updates == expected[-1].checkpoint.updates == 15


def test_a_resumed_run_goes_on_exactly() -> None:
    """In another library too; that a file keeps a checkpoint to the bit is in test_weights.py."""
    whole = train(range(6), WINDOWS, seed=5)
    assert [epoch.number for epoch in whole] == [*range(6)]
    assert all(epoch.seconds > 0 for epoch in whole)
    assert [epoch.checkpoint.updates for epoch in whole] == [3 * n for n in range(1, 7)]
    half = train(range(2), WINDOWS, seed=5)[-1].checkpoint
    rest = train(range(2, 6), WINDOWS, half, seed=5)
    assert losses(rest) == losses(whole)[2:]
    jax.tree.map(np.testing.assert_array_equal, rest[-1].checkpoint, whole[-1].checkpoint)
    other = train(range(2, 6), WINDOWS, half, "haiku", seed=5)
    np.testing.assert_allclose(losses(other), losses(whole)[2:], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("loss", math.nan, "the loss became nan"),
        ("weights", math.nan, "a weight, or a moment of Adam, became NaN or infinite"),
        ("nu", math.inf, "a weight, or a moment of Adam, became NaN or infinite"),
    ],
)
def test_divergence_is_named_with_its_epoch(field: str, value: float, problem: str) -> None:
    """Moments too: a file with an infinite one could not be resumed."""
    done = count()
    good_and_bad: Any = Mock()  # a step whose third epoch is bad
    bad = START.weights._replace(readout=Dense(np.zeros((8, 5)), np.full(5, value)))
    wrong = START if field == "loss" else Checkpoint(**{**START._asdict(), field: bad})
    good_and_bad.save.side_effect = [START, START, wrong]

    def run(hidden: object, epoch: Chunk) -> np.ndarray:
        return np.full(len(epoch.mask), value if field == "loss" and next(done) == 2 else 1.0)

    good: list[Epoch] = []
    with pytest.raises(DivergedError) as caught:
        good.extend(epochs(run, good_and_bad, TOKENS, CONFIG, WHOLE, 0, range(9)))
    assert [epoch.number for epoch in good] == [0, 1]
    assert str(caught.value) == (
        f"{problem} in epoch 2; training stopped there. A smaller learning rate may help"
    )


@pytest.mark.slow
def test_the_blogs_toy_figure() -> None:
    """Linen's own initialisers, Adam without decay, the whole text as one chunk."""
    model, data, seeds, last = model_of("flax_linen"), DataConfig(chunk=len(TOY)), range(20), []
    for seed in seeds:
        start = fresh_checkpoint(on_host(model.to_weights(model.init(jax.random.key(seed)))))
        last.append(train(range(81), data, start, "flax_linen", seed, decay=0.0)[-1])
    assert 0.35 < np.median(losses(last)) < 0.50
    texts = [
        sample(model, model.from_weights(epoch.checkpoint.weights), CONFIG, VOCAB, "a", 69)
        for epoch in last
    ]
    assert sum("abcd..." * 5 in text for text in texts) >= 15
