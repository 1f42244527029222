"""Turns of programs that need more than a step: an epoch, and writing a text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

import impls
from bench.worker.turns import End, timed
from common.chunker import chunks
from common.contract import Chunk, fresh_checkpoint, zero_hidden
from common.equality import make, random_weights
from common.errors import BakeoffError
from common.sample import sample
from common.steps import FunctionalStep
from common.train import by_chunk, by_scan
from common.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.worker.arms import Arms
    from bench.worker.turns import Fresh, Unit
    from common.contract import Hidden

EPOCH_CHUNKS = 39
"""As many whole chunks as the blog's epoch has, or as the text has."""
SAMPLE_LENGTH = 500


@dataclass
class EpochTurn:
    """One epoch chunk by chunk and one as a jitted scan."""

    steps: dict[str, FunctionalStep]
    runs: dict[str, Callable[..., np.ndarray]]
    hidden: Hidden
    epoch: Chunk
    losses: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def __call__(self) -> dict[str, list[float]]:
        """Take the turn."""
        found = {}
        for metric, run in self.runs.items():
            seconds, losses = timed(partial(run, self.hidden, self.epoch))
            found[metric] = [seconds]
            self.losses.setdefault(metric, []).append(losses)
        return found

    def ends(self) -> dict[str, End]:
        """Return where both steps have got to."""
        return {
            metric: End(sum(map(len, losses)), float(losses[-1][-1]), self.steps[metric].save())
            for metric, losses in self.losses.items()
        }


@dataclass
class SampleTurn:
    """Writing a text."""

    call: Callable[[], str]
    expected: str
    """What it writes."""

    def __call__(self) -> dict[str, list[float]]:
        """Take the turn."""
        seconds, text = timed(self.call)
        if text != self.expected:
            raise BakeoffError("another text was written than before")
        return {"sample": [seconds]}

    def ends(self) -> dict[str, End]:
        """Return nothing: nothing is trained."""
        return {}


def epoch_turn(entrant: str, style: str, arms: Arms) -> Fresh:
    """Return what gives turns of one epoch chunk by chunk and one as a jitted scan, compiled.

    They run as `bakeoff train` runs them: the text's way to the device is part of both.
    """
    case = arms.case
    size = EPOCH_CHUNKS * case.chunk * case.batch + 1
    epoch = chunks(arms.tokens[:size], case.chunk, case.batch)
    steps, runs, losses = {}, {}, {}
    for metric, mode in (("epoch_by_chunk", by_chunk), ("epoch_by_scan", by_scan)):
        step = make(impls.load(entrant).style(style), case)
        assert isinstance(step, FunctionalStep), "these styles thread their state"
        step.load(fresh_checkpoint(arms.weights))
        steps[metric], runs[metric] = step, mode(step)
        losses[metric] = runs[metric](zero_hidden(case.model, case.batch), epoch)
    away = float(np.max(np.abs(losses["epoch_by_scan"] - losses["epoch_by_chunk"])))
    if not away <= EPOCH_TOLERANCE:
        raise BakeoffError(f"an epoch as one scan is off by {away:.2g} nats from chunk by chunk")

    def fresh() -> Unit:
        for step in steps.values():
            arms.load(step)
        return EpochTurn(steps, runs, zero_hidden(case.model, case.batch), epoch)

    return fresh


EPOCH_TOLERANCE = 1e-3
"""In nats per character: rounding that an unstable training has blown up stays below it."""


def sample_turn(entrant: str, style: str, arms: Arms) -> Fresh:
    """Return what gives turns of writing `SAMPLE_LENGTH` characters, compiled."""
    del style
    config = arms.case.model
    vocab = Vocab("".join(map(chr, range(64, 64 + config.vocab_size))))
    model = impls.load(entrant).build(config)

    def fresh() -> Unit:
        params = model.from_weights(random_weights(config))
        call = partial(sample, model, params, config, vocab, "A", SAMPLE_LENGTH)
        return SampleTurn(call, call())

    fresh()
    return fresh


PREPARED: dict[str, Callable[[str, str, Arms], Fresh]] = {
    "epoch": epoch_turn,
    "sample": sample_turn,
}
"""Turns that compile programs of their own first, and then have fresh buffers in each block."""
