"""Kinds of work: what each samples, how long it takes at first, and the order of first answers."""

from __future__ import annotations

from typing import NamedTuple

from bench.metrics import COLD, HOST, METRICS, STAGES, STEP
from bench.worker import protocol
from bench.workloads import find_workload, is_skeleton, is_user_step

COLD_KIND, FURTHER_COLD = "cold", "further cold"
"""Cold processes of each library's first style, and of its further ones: these import the same, and
turns measure their stages."""


class TurnTraits(NamedTuple):
    """Traits of a kind of turns."""

    rounds: int
    """Least rounds in a block."""
    seconds_for_opening: float
    """Measuring time per second of opening a worker."""
    on_one_core: bool
    """Whether workers have one core each, several at a time, by default."""


TURNS = {
    HOST: TurnTraits(8, 0.9, on_one_core=True),
    STEP: TurnTraits(10, 2.0, on_one_core=False),
    "pipelined": TurnTraits(2, 2.0, on_one_core=False),
    STAGES: TurnTraits(1, 0.0, on_one_core=True),
}
"""Kind of turns → its traits. Of ten rounds of steps, three warm calls are a tenth. Host costs vary
more between workers than between blocks, so short visits tell most. So it is with stages: a worker
opens in a second, and a round in each of many workers tells most."""
SKELETON_FOR_OPENING = 0.5
"""Measuring time of a skeleton's worker per second of opening it: two workers differ by 2 %, and
calls of a round by 10 %, so that more than a hundred rounds tell hardly more."""
PAIR_FOR_OPENING = 1.0
"""The same for a pair of workers, whatever the kind of turns: pairs vary more than their blocks."""
LARGE_FOR_OPENING = 1 / 12
"""Factor on that time for workloads larger than the tutorial's beside it: their steps take ten
times as long, and people read the tutorial's first."""
FEW_ROUNDS = 3
"""Rounds in a block of steps larger than `seed`'s."""
CALLS = {
    kind: 1 + sum(series.calls for series in by_metric.values())
    for kind, by_metric in protocol.KINDS.items()
}
"""Kind of turns → calls in a turn, with the one that is not timed."""
SEED_STEP_SECONDS, LEAST_STEP_SECONDS, SKELETON_SECONDS = 4.5e-3, 2e-4, 3e-3
"""Guessed seconds of a step at `seed`, over all arms, of the smallest step, and of a skeleton's
call: a model of 150 arrays takes 1 to 20 ms, by its style."""
STAGES_SECONDS = 0.7
"""Guessed seconds of a turn of stages: an arm is made, traced, lowered and compiled."""
ASKED_OF = {kind: [m for m in METRICS.values() if m.turn == kind] for kind in TURNS}
ASKED_OF |= {kind: [METRICS[name] for name in COLD] for kind in (COLD_KIND, FURTHER_COLD)}
"""Kind of turns, or of cold processes → the metrics that it samples."""
ORDER = (STEP, HOST, STAGES, "count", COLD_KIND, "pipelined")
LATE = (FURTHER_COLD, "train")
"""Kinds of work in the order of their first answers, at all usual sizes before larger ones, and
those that come when all others have one: people ask about steps first, and trainings take a
minute."""
WEIGHTS = {HOST: 0.8, STEP: 1.0, "pipelined": 1.0, STAGES: 6.0, COLD_KIND: 3.0, FURTHER_COLD: 1.5}
"""Kind of work → weight of its numbers after first answers: the row with the largest weighted width
gets the next visit, so that time goes with the square of a weight. It is multiplied by the weight
of a row's metric, which is 3 for steps and calls and 0.3 for stages and cold processes."""
LARGE_WEIGHT = 0.35
"""Factor on the weight of workloads larger than the tutorial's beside it."""


class TurnKind(NamedTuple):
    """A kind of turns at a workload."""

    workload: str
    kind: str

    @property
    def pairs_calls(self) -> bool:
        """Whether a turn has one timed call, beside the reference's of the same round."""
        return is_user_step(self.workload) and self.kind == HOST

    @property
    def rounds(self) -> int:
        """Least rounds in a block."""
        long = find_workload(self.workload).work > find_workload("seed").work
        if self.pairs_calls:
            return protocol.LEAST_CALL_ROUNDS
        return FEW_ROUNDS if long and self.kind == STEP else TURNS[self.kind].rounds

    @property
    def seconds_for_opening(self) -> float:
        """Measuring time per second of opening a worker."""
        if is_skeleton(self.workload):
            return SKELETON_FOR_OPENING
        return TURNS[self.kind].seconds_for_opening

    @property
    def guess(self) -> float:
        """Guessed seconds of one arm's turn, for when none has been measured."""
        if self.kind == STAGES:
            return STAGES_SECONDS
        calls = 2 if self.pairs_calls else CALLS[self.kind]
        if is_skeleton(self.workload):
            return SKELETON_SECONDS * calls
        work = find_workload(self.workload).work / find_workload("seed").work
        return max(LEAST_STEP_SECONDS, SEED_STEP_SECONDS * work) * calls
