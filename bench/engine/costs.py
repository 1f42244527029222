"""What actions take here, in seconds: guesses until some have been seen, then what was seen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import PURE
from bench.metrics import HOST, STAGES, STEP
from bench.worker import protocol
from common.config import WORKLOADS, is_own

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.cells import Cell
    from bench.engine.agenda import GroupCell
    from bench.engine.state import Group, SideState

LOAD_SECONDS, PROVE_SECONDS, OPEN_SECONDS, COLD_SECONDS = 3.0, 1.2, 0.2, 3.6
"""Guesses of what it takes to start a worker and import, to prove one arm, to open it once it is
proven, and of a cold process; on one core of an EPYC."""
STAGES_SECONDS = 0.7
"""Guess of what a turn of stages takes: an arm is made, traced, lowered, and unless another one has
the same program compiled, however wide; one of 48 layers takes five times as long."""
SEED_STEP_SECONDS, LEAST_STEP_SECONDS = 4.5e-3, 2e-4
"""Guesses of a step at `seed`, over all arms, and of the smallest step."""


class TurnTraits(NamedTuple):
    """How a kind of turns is measured."""

    rounds: int
    """Rounds in a block, at least."""
    seconds_for_opening: float
    """Measuring time per second of opening a worker."""
    on_one_core: bool
    """Whether workers have one core each, several at a time, where nothing else was asked for."""


TURNS = {
    HOST: TurnTraits(8, 0.9, on_one_core=True),
    STEP: TurnTraits(10, 2.0, on_one_core=False),
    "pipelined": TurnTraits(2, 2.0, on_one_core=False),
    STAGES: TurnTraits(1, 0.0, on_one_core=True),
}
"""Kinds of turns; host costs come first at a tiny size, where steps decide hardly anything. Of
ten rounds of steps, three warm calls are a tenth. A worker adds
more to a host cost than its blocks vary by, so there short visits tell most. So it is with stages:
a worker opens in a second, and a round in each of many workers tells most."""
FEW_ROUNDS = 3
"""Rounds in a block of steps that do more than `seed`'s: there a round takes seconds."""
CALLS = {
    kind: 1 + sum(series.calls for series in by_metric.values())
    for kind, by_metric in protocol.KINDS.items()
}
"""Calls that a turn makes, by its kind, with the one that is not timed."""


class TurnKind(NamedTuple):
    """A kind of turns at a workload."""

    workload: str
    kind: str

    @property
    def rounds(self) -> int:
        """Rounds in a block."""
        long = WORKLOADS[self.workload].work > WORKLOADS["seed"].work
        if is_own(self.workload) and self.kind == HOST:
            return FEW_ROUNDS  # its steps take far longer than a tiny model's
        return FEW_ROUNDS if long and self.kind == STEP else TURNS[self.kind].rounds

    @property
    def guess(self) -> float:
        """Seconds of one arm in a block, before any has been seen."""
        if self.kind == STAGES:
            return STAGES_SECONDS * self.rounds
        work = WORKLOADS[self.workload].work / WORKLOADS["seed"].work
        return max(LEAST_STEP_SECONDS, SEED_STEP_SECONDS * work) * CALLS[self.kind] * self.rounds


class Costs:
    """What was seen so far, and what is to be expected after that."""

    def __init__(self) -> None:
        self.turn_seconds: dict[tuple[SideState, TurnKind, str], float] = {}
        """Of an arm in a whole block."""
        self.open_seconds: dict[tuple[SideState, Cell], float] = {}
        self.making_seconds: dict[tuple[Group, str], float] = {}
        """Of the last time that a workload's steps were made anew, on all sides."""
        self.proof_seconds: list[float] = []
        """Of all proofs so far."""
        self.load_seconds: dict[SideState, float] = {}
        """Until a side's worker has imported everything."""
        self.cold_seconds: dict[SideState, float] = {}
        """Of a side's last cold process."""

    @property
    def proof(self) -> float:
        """Seconds of the proof of one arm."""
        seen = self.proof_seconds or [PROVE_SECONDS]
        return sum(seen) / len(seen)

    def load(self, side: SideState) -> float:
        """Return the seconds until a side's worker has imported everything."""
        return self.load_seconds.get(side, LOAD_SECONDS)

    def opening(self, group: Group, workload: str, kind: str) -> float:
        """Return what it takes to open proven arms on all sides at once; stages open none."""
        totals = []
        for side in group:
            cells = [] if kind == STAGES else side.alive(workload)
            seconds = (self.open_seconds.get((side, cell), OPEN_SECONDS) for cell in cells)
            totals.append(self.load(side) + sum(seconds))
        return max(totals)

    def making(self, group: Group, workload: str, arms: Sequence[str]) -> float:
        """Return the seconds in which the steps of some arms are made anew, on all sides."""
        cells = [(s, s.cell(arm, workload)) for s in group for arm in arms]
        seconds = sum(self.open_seconds.get(pair, OPEN_SECONDS) for pair in cells)
        return self.making_seconds.get((group, workload), seconds / len(group))

    def proving(self, pairs: Iterable[GroupCell], lanes: int, *, alone: bool = True) -> float:
        """Return what it takes to prove what is not proven yet, in so many lanes.

        In workers that do nothing else, or else in those that open it otherwise.
        """
        unproven = {(s, c) for group, c in pairs for s in group if not s.proven(c)}
        if not alone:
            return len(unproven) * (self.proof - OPEN_SECONDS) / lanes
        loads = [self.load(side) for side in {side for side, _ in unproven}]
        loading = math.ceil(len(loads) / lanes) * max(loads, default=0.0)
        return loading + len(unproven) * self.proof / lanes

    def block(self, group: Group, turn: TurnKind, arms: Sequence[str]) -> float:
        """Return what a block of these arms takes, on all sides."""
        seen = [self.turn_seconds.get((side, turn, arm)) for side in group for arm in arms]
        known = [seconds for seconds in seen if seconds is not None]
        usual = sum(known) / len(known) if known else turn.guess * self.slowness
        return sum(usual if seconds is None else seconds for seconds in seen)

    @property
    def slowness(self) -> float:
        """How much longer blocks have taken here than was guessed."""
        guesses = sum(turn.guess for _, turn, _ in self.turn_seconds)
        return sum(self.turn_seconds.values()) / guesses if guesses else 1.0

    def training(self, side: SideState, cells: Sequence[Cell]) -> float:
        """Return what the trainings of some cells of a workload take."""
        runs = sum(1 + protocol.OWN_SEEDS * (cell.style == PURE) for cell in cells)
        turn = TurnKind(cells[0].workload, STEP)
        block = self.block((side,), turn, [str(cells[0].arm)])
        return runs * protocol.FINAL_STEPS / (turn.rounds * CALLS[STEP]) * block

    def cold(self, group: Group) -> float:
        """Return what a cold process takes on each of a group's sides."""
        seen = [self.cold_seconds[side] for side in group if side in self.cold_seconds]
        guess = COLD_SECONDS * max(map(self.load, group)) / LOAD_SECONDS
        usual = max(seen or self.cold_seconds.values(), default=guess)
        return sum(self.cold_seconds.get(side, usual) for side in group)
