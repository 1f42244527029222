"""Costs of actions on this machine, in seconds: guesses until some have been measured."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import PURE
from bench.metrics import HOST, STAGES, STEP
from bench.worker import protocol
from bench.workloads import find_workload, is_skeleton, is_user_step

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from bench.cells import Cell
    from bench.engine.task import Group, GroupCell, SideState

LOAD_SECONDS, PROVE_SECONDS, OPEN_SECONDS, COLD_SECONDS = 3.0, 1.2, 0.2, 3.6
"""Guessed seconds to start a worker and import, to prove one arm, to open it once it is proven, and
of a cold process; on one core of an EPYC."""
STAGES_SECONDS = 0.7
"""Guessed seconds of a turn of stages: an arm is made, traced, lowered, and unless another one has
the same program compiled, however wide; one of 48 layers takes five times as long."""
SEED_STEP_SECONDS, LEAST_STEP_SECONDS, SKELETON_SECONDS = 4.5e-3, 2e-4, 3e-3
"""Guessed seconds of a step at `seed`, over all arms, of the smallest step, and of a skeleton's
call: a model of 150 arrays takes 1 to 20 ms, by its style."""


LATER_PROOF = 0.4
"""Seconds of a skeleton's proof, per second of its worker's first one, which makes the model and
traces its loss: 0.35 to 0.5 for 152 arrays, in Equinox and NNX."""


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
"""Kind of turns → its traits; host costs come first at a tiny size, where steps decide hardly
anything. Of ten rounds of steps, three warm calls are a tenth. Host costs vary more between workers
than between blocks, so short visits tell most. So it is with stages: a worker opens in a second,
and a round in each of many workers tells most."""
SKELETON_FOR_OPENING = 0.5
"""Measuring time of a skeleton's worker per second of opening it: two workers differ by 2 %, and
calls of a round by 10 %, so that more than a hundred rounds tell hardly more."""
FEW_ROUNDS = 3
"""Rounds in a block of steps larger than `seed`'s."""
CALLS = {
    kind: 1 + sum(series.calls for series in by_metric.values())
    for kind, by_metric in protocol.KINDS.items()
}
"""Kind of turns → calls in a turn, with the one that is not timed."""


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
        """Rounds in a block."""
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
        """Guessed seconds of one arm in a block, for when none has been measured."""
        if self.kind == STAGES:
            return STAGES_SECONDS * self.rounds
        calls = 2 if self.pairs_calls else CALLS[self.kind]
        if is_skeleton(self.workload):
            return SKELETON_SECONDS * calls * self.rounds
        work = find_workload(self.workload).work / find_workload("seed").work
        return max(LEAST_STEP_SECONDS, SEED_STEP_SECONDS * work) * calls * self.rounds


class Costs:
    """Measured costs so far, and what they lead to expect."""

    def __init__(self) -> None:
        self.turn_seconds: dict[tuple[SideState, TurnKind, str], float] = {}
        """Seconds per block of each arm."""
        self.round_seconds: dict[TurnKind, float] = {}
        """Seconds of a round of the last block, on all sides, without what comes before and after.
        """
        self.open_seconds: dict[tuple[SideState, Cell], float] = {}
        self.making_seconds: dict[tuple[Group, str], float] = {}
        """Seconds of the last making of a workload's steps, on all sides."""
        self.proof_seconds: dict[tuple[bool, bool], list[float]] = defaultdict(list)
        """Whether of a skeleton, and whether a worker's first one → seconds of each so far."""
        self.load_seconds: dict[SideState, float] = {}
        """Seconds until a side's worker has imported everything."""
        self.cold_seconds: dict[SideState, float] = {}
        """Seconds of a side's last cold process."""

    def note_proof(self, workload: str, seconds: float, *, is_first: bool) -> None:
        """Keep the seconds of a proof; a worker's first one has made the model, too."""
        self.proof_seconds[is_skeleton(workload), is_first].append(seconds)

    def list_proofs(self, *, of_skeletons: bool) -> list[float]:
        """Return the seconds of proofs so far; before any other, parts of workers' first ones."""
        part = LATER_PROOF if of_skeletons else 1.0
        first = [part * seconds for seconds in self.proof_seconds[of_skeletons, True]]
        return self.proof_seconds[of_skeletons, False] or first

    def has_proofs(self, workload: str) -> bool:
        """Tell whether a proof like those of a workload was timed."""
        return bool(self.list_proofs(of_skeletons=is_skeleton(workload)))

    def proof(self, workload: str) -> float:
        """Return the seconds of the proof of one arm: a real step's is not a skeleton's."""
        of_skeletons = self.list_proofs(of_skeletons=True) or [PROVE_SECONDS]
        seen = self.list_proofs(of_skeletons=is_skeleton(workload)) or of_skeletons
        return sum(seen) / len(seen)

    def load(self, side: SideState) -> float:
        """Return the seconds until a side's worker has imported everything."""
        return self.load_seconds.get(side, LOAD_SECONDS)

    def open(self, side: SideState, cell: Cell) -> float:
        """Return the seconds of opening a proven arm: its own, those of others, or by proofs."""
        seen = [s for (_, other), s in self.open_seconds.items() if other.workload == cell.workload]
        usual = (
            sum(seen) / len(seen)
            if seen
            else OPEN_SECONDS * self.proof(cell.workload) / PROVE_SECONDS
        )
        return self.open_seconds.get((side, cell), usual)

    def opening(
        self, group: Group, workload: str, kind: str, arms: Container[str] | None = None
    ) -> float:
        """Return the seconds to open proven arms on all sides at once; stages open none."""
        totals = []
        for side in group:
            cells = [] if kind == STAGES else side.list_live_cells(workload)
            seconds = (self.open(side, c) for c in cells if arms is None or str(c.arm) in arms)
            totals.append(self.load(side) + sum(seconds))
        return max(totals)

    def making(self, group: Group, workload: str, arms: Sequence[str]) -> float:
        """Return the seconds of making the steps of some arms anew, on all sides."""
        cells = [(s, s.cell(arm, workload)) for s in group for arm in arms]
        seconds = sum(self.open(*pair) for pair in cells)
        return self.making_seconds.get((group, workload), seconds / len(group))

    def proving(self, pairs: Iterable[GroupCell], lanes: int, *, alone: bool = True) -> float:
        """Return the seconds of proving the cells that are not proven yet, in so many lanes.

        `alone` means in workers that do nothing else, rather than in those that would open the
        arms.
        """
        unproven = {(s, c) for group, c in pairs for s in group if not s.is_proven(c)}
        seconds = sum(self.proof(cell.workload) for _, cell in unproven)
        if not alone:
            return seconds * (1 - OPEN_SECONDS / PROVE_SECONDS) / lanes
        loads = [self.load(side) for side in {side for side, _ in unproven}]
        loading = math.ceil(len(loads) / lanes) * max(loads, default=0.0)
        return loading + seconds / lanes

    def block(self, group: Group, turn: TurnKind, arms: Sequence[str]) -> float:
        """Return the seconds of a block of some arms, on all sides."""
        seen = [self.turn_seconds.get((side, turn, arm)) for side in group for arm in arms]
        known = [seconds for seconds in seen if seconds is not None]
        usual = sum(known) / len(known) if known else turn.guess * self.slowness
        return sum(usual if seconds is None else seconds for seconds in seen)

    def is_timed(self, group: Group, turn: TurnKind) -> bool:
        """Tell whether a block of a kind of turns was timed on all sides."""
        return {*group} <= {side for side, known, _ in self.turn_seconds if known == turn}

    @property
    def slowness(self) -> float:
        """Ratio of the measured to the guessed seconds of blocks; 1 before any."""
        guesses = sum(turn.guess for _, turn, _ in self.turn_seconds)
        return sum(self.turn_seconds.values()) / guesses if guesses else 1.0

    def training(self, side: SideState, cells: Sequence[Cell]) -> float:
        """Return the seconds of training some cells of a workload."""
        runs = sum(1 + protocol.OWN_SEEDS * (cell.style == PURE) for cell in cells)
        turn = TurnKind(cells[0].workload, STEP)
        block = self.block((side,), turn, [str(cells[0].arm)])
        return runs * protocol.FINAL_STEPS / (turn.rounds * CALLS[STEP]) * block

    def cold(self, group: Group) -> float:
        """Return the seconds of a cold process on each of a group's sides, added up."""
        seen = [self.cold_seconds[side] for side in group if side in self.cold_seconds]
        guess = COLD_SECONDS * max(map(self.load, group)) / LOAD_SECONDS
        guess += max(0.0, self.proof("") - PROVE_SECONDS)  # a large model compiles as long there
        usual = max(seen or self.cold_seconds.values(), default=guess)
        return sum(self.cold_seconds.get(side, usual) for side in group)
