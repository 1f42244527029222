"""What was asked for, what of it can be done, and how often it was done."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import BASELINE, PURE, REFERENCE, Cell
from bench.engine.costs import TURNS, TurnKind
from bench.engine.visits import living
from bench.estimates import MIN_COLD, MIN_WORKERS
from bench.metrics import COLD, METRICS, TOGETHER
from bench.options import MOST_COUNT
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from bench.engine.actions import Do
    from bench.engine.state import Group, SideState
    from bench.metrics import Metric
    from bench.options import Options
    from bench.runfile import CellResult
    from bench.samples import Cores, Sample

    type GroupCell = tuple[Group, Cell]
    """A cell, and the sides that it is measured on."""

TRIES = 3
"""Consecutive failed visits after which a kind of turns is given up: one death may be the system's
fault, two a style's, which then fails."""
LEAST_PAIRS = 2
"""Pairs of workers, and cold samples, that each day of a history gets first: all days tell together
what a pair varies by."""
REPORT_SECONDS, REPORT_SHARE = 1.0, 0.005
"""Time at the end of a run in which nothing begins, in seconds and as a fraction of the budget:
samples are estimated and shown, of which longer runs have more."""
FEW_GROUPS = 3
"""Pairs of environments that make a history: two are a comparison with one more side."""
COLD_KIND = "cold"
ASKED_OF = {kind: [m for m in METRICS.values() if m.turn == kind] for kind in TURNS}
ASKED_OF[COLD_KIND] = [METRICS[name] for name in COLD]
"""Metrics that each kind of turns samples, and those of a cold process."""


class WarmVisits(NamedTuple):
    """Workers to open and to measure in, one in each lane."""

    groups: Sequence[Group]
    turn: TurnKind
    cores: Sequence[Cores]
    seconds: float
    """Seconds of blocks in each worker."""
    rounds: int


class ColdSweeps(NamedTuple):
    """Cold processes of some cells, several times."""

    workload: str
    pairs: Sequence[GroupCell]
    sweeps: int


class OnceWork(NamedTuple):
    """Counts or trainings of some cells of one side and workload."""

    do: Do
    side: SideState
    cells: Sequence[Cell]


type Work = WarmVisits | ColdSweeps | OnceWork


class Agenda:
    """What was asked for, and how far it is.

    Args:
        groups: Sides whose workers take turns; all of one side, or all of two.
        options: How much is measured.
        lanes: A core for each worker that may run at the same time as others.
        base: Environment that others are compared with; empty where arms are compared.
    """

    def __init__(
        self, groups: Sequence[Group], options: Options, lanes: Sequence[Cores], base: str
    ) -> None:
        self.groups, self.options, self.lanes, self.base = list(groups), options, lanes, base
        self.sides = list(dict.fromkeys(side for group in groups for side in group))
        self.paired = any(len(group) > 1 for group in groups)
        self.history = self.paired and len(groups) >= FEW_GROUPS
        self.most_workers = options.processes or (1 if options.fixed else MOST_COUNT)
        budget = math.inf if options.fixed else options.budget
        self.end = (1 - REPORT_SHARE) * budget - REPORT_SECONDS
        """Second of the budget until which something may begin."""
        cells = [cell for side in self.sides for cell in side.needed]
        self.unasked = {str(BASELINE)} - {str(c.arm) for c in cells} if self.paired else set()
        """Arms that take part in blocks, but were not asked for."""
        work = {cell.workload: WORKLOADS[cell.workload].work for cell in cells}
        sweeps = [w for names in TOGETHER.values() for w in names if w in work]
        others = [w for w in work if w not in sweeps]
        others.sort(key=lambda w: (w != "seed", -work[w]))
        self.workloads = [*others, *sorted(sweeps, key=work.__getitem__)]
        """The tutorial's first: it is what people ask about. Sweeps come last and go up."""
        layers = {WORKLOADS[w].layers: w for w in sorted(work, key=work.__getitem__, reverse=True)}
        self.counted = [*layers.values()]
        """Workloads to count at: what Python does depends on the number of layers alone."""
        self.made: Counter[tuple[Group, TurnKind]] = Counter()
        """Workers, or pairs of them, that came to their end, or are measuring."""
        self.lost: Counter[tuple[Group, TurnKind]] = Counter()
        """Consecutive failed visits."""
        self.cold_samples = options.cold_samples or self.least(COLD_KIND)
        """Cold processes of each cell that are swept together."""
        self.least_cold = 1 if options.cold_samples else self.cold_samples
        """Cold samples with fewer of which a cell has no estimate."""
        self.cold: Counter[GroupCell] = Counter()
        """Cold processes of each cell that were begun."""
        self.finished_once: set[tuple[Do, SideState, Cell]] = set()
        """Counts and trainings that are done, failed, or too late."""

    @property
    def rows(self) -> list[CellResult]:
        """What is known of each cell of each side."""
        return [row for side in self.sides for row in side.cells.values()]

    def adopt(self, samples: Iterable[Sample]) -> None:
        """Count the workers and cold processes of a run that was cut off."""
        groups = {(self.compared(g).environment, g[0].backend): g for g in self.groups}
        blocks: set[tuple[Group, TurnKind, int, int]] = set()
        processes: set[tuple[Group, Cell, int]] = set()
        for s in samples:
            group, kind = groups.get((s.environment, s.cell.backend)), METRICS[s.metric].turn
            if group and s.metric in COLD:
                processes.add((group, s.cell, s.worker))
            elif group and kind in TURNS:
                blocks.add((group, TurnKind(s.cell.workload, kind), s.worker, s.block))
        for (group, turn, _), count in Counter(row[:3] for row in blocks).items():
            self.made[group, turn] += count >= (self.options.blocks or 1)
        self.cold.update(row[:2] for row in processes)

    def sweeps(self, pairs: Collection[GroupCell]) -> int:
        """Return the cold processes that each of some cells lacks, at most."""
        return self.cold_samples - min((self.cold[pair] for pair in pairs), default=0)

    def least(self, kind: str) -> int:
        """Return the workers, or cold samples, with fewer of which a number is not worth much."""
        if self.history:
            return LEAST_PAIRS
        return MIN_COLD if kind == COLD_KIND else MIN_WORKERS

    def compared(self, group: Group) -> SideState:
        """Return the side of a group whose numbers are looked at: not the base."""
        return next(side for side in group if not self.base or side.environment != self.base)

    def asked(self, group: Group, workload: str, kind: str) -> dict[Cell, list[Metric]]:
        """Return the metrics that a kind of turns was asked for, by cell alive on all sides."""
        alive = set(living(group, workload).values())
        return {
            cell: metrics
            for cell, names in self.compared(group).needed.items()
            if cell in alive
            and not any(side.given_up for side in group)
            and (
                metrics := [
                    m for m in ASKED_OF[kind] if m.name in names and m.applies(cell.workload)
                ]
            )
            and not any(m.name in side.cells[cell].missing for m in metrics for side in group)
        }

    def cores(self, group: Group, kind: str = COLD_KIND) -> Sequence[Cores]:
        """Return the cores of each lane: one each, or all for each."""
        if group[0].backend != "cpu":
            return [()]
        auto = self.options.cores == "auto" and (kind not in TURNS or TURNS[kind].on_one_core)
        return list(self.lanes) if auto or self.options.cores == "one" else [()] * len(self.lanes)

    def open_turns(self) -> list[tuple[TurnKind, list[Group]]]:
        """Return who can take a visit next: each group alone, or all days of a history together."""
        turns: dict[TurnKind, list[Group]] = defaultdict(list)
        for workload in self.workloads:
            for turn in (TurnKind(workload, kind) for kind in TURNS):
                for group in self.groups:
                    able = (
                        self.lost[group, turn] < TRIES
                        and self.made[group, turn] < self.most_workers
                    )
                    if able and self.asked(group, workload, turn.kind):
                        turns[turn].append(group)
        if self.history:
            return list(turns.items())
        return [(turn, [group]) for turn, groups in turns.items() for group in groups]

    def cold_cells(self, workload: str) -> list[GroupCell]:
        """Return the cells of cold sweeps: plain JAX's, entrants' shared style, others.

        Of several environments, the first one measures the reference. Where only what all styles of
        a library share was asked for, the first one stands for all.
        """
        pairs: list[GroupCell] = []
        for group in self.groups:
            asked = self.asked(group, workload, COLD_KIND)
            first = {cell.entrant: cell for cell in reversed(asked)}
            cells = [
                cell
                for cell, metrics in asked.items()
                if cell == first[cell.entrant] or not all(m.of_library for m in metrics)
            ]
            if cells and not self.paired:
                known = [cell for _, cell in pairs]
                reference = [arm.at(workload, group[0].backend) for arm in REFERENCE]
                cells = [c for c in dict.fromkeys([*reference, *cells]) if c not in known]
            pairs += [(group, cell) for cell in cells]
        pairs = [p for p in pairs if all(side.begins_cold(p[1]) for side in p[0])]
        return sorted(pairs, key=lambda p: (p[1].arm not in REFERENCE, p[1].style != PURE))

    def unswept_cells(self, workload: str) -> list[GroupCell]:
        """Return the cells that have fewer cold processes than are swept together."""
        cells = self.cold_cells(workload)
        return [pair for pair in cells if self.cold[pair] < self.cold_samples]

    def once(self) -> list[OnceWork]:
        """Return the counts and trainings that are not finished."""
        places: list[tuple[Do, str]] = [("count", workload) for workload in self.counted]
        places += [("train", workload) for workload in self.workloads]
        works = []
        for side, (do, workload) in product(self.sides, places):
            cells = [
                cell
                for cell in side.alive(workload)
                if not (cell.is_control or side.given_up or str(cell.arm) in self.unasked)
                and (do, side, cell) not in self.finished_once
                and (do == "count" or "final_loss" in side.needed.get(cell, ()))
            ]
            works += [OnceWork(do, side, cells)] if cells else []
        return works

    def given_work(self) -> Work | None:
        """Return what comes next where a number of blocks was given, however long it takes.

        That is a visit of what has fewest workers; then cold sweeps, counts, trainings.
        """
        if turns := self.open_turns():
            turn, groups = min(turns, key=lambda t: min(self.made[group, t[0]] for group in t[1]))
            groups = sorted(groups, key=lambda group: self.made[group, turn])
            cores = self.cores(groups[0], turn.kind)
            missing = self.most_workers - self.made[groups[0], turn]
            count = min(len(cores), len(groups) if len(groups) > 1 else missing)
            visits = [groups[i % len(groups)] for i in range(count)]
            return WarmVisits(visits, turn, cores[:count], math.inf, turn.rounds)
        if self.options.cold_samples:
            for workload in self.workloads:
                if pairs := self.unswept_cells(workload):
                    return ColdSweeps(workload, pairs, self.sweeps(pairs))
        return next(iter(self.once()), None)
