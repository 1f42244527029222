"""The state of a run: the requested work, what of it is done, and its samples so far."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from bench.cells import BASELINE, REFERENCE, Cell
from bench.engine.planner.durations import Durations
from bench.engine.planner.kinds import (
    ASKED_OF,
    COLD_KIND,
    FURTHER_COLD,
    LATE,
    ORDER,
    TURNS,
    TurnKind,
)
from bench.engine.task import find_live_cells
from bench.estimates import MIN_COLD, MIN_WORKERS
from bench.metrics import COLD, METRICS, STAGES, TRAINED, WORKLOAD_GROUPS
from bench.runfile import DISTURBED, TimeSpent
from bench.workloads import find_workload, is_real_step, is_skeleton, is_user_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.engine.task import Group, GroupCell, SideState
    from bench.metrics import Metric
    from bench.options import Options
    from bench.runfile import CellResult
    from bench.samples import Cores, Sample

TRIES = 3
"""Consecutive failed visits after which a kind of turns is given up: one death may be the system's
fault, two a style's, which then fails."""
LEAST_PAIRS = 2
"""Pairs of workers, and cold samples, that each pair of environments gets first where they share a
variance."""
REPORT_SECONDS, REPORT_SHARE = 1.0, 0.005
"""Time at the end of a run in which nothing begins, in seconds and as a fraction of the budget:
estimates and the report take it, and longer runs have more samples."""
MANY_GROUPS = 3
"""Least number of pairs of environments that share one variance between pairs of workers; with
fewer, each has its own."""


class Work(NamedTuple):
    """A row of the table of work: a kind of visit at a workload, and who takes part."""

    workload: str
    kind: str
    """Kind of turns or of cold processes; `count` or `train` for what is done once."""
    groups: tuple[Group, ...]

    @property
    def turn(self) -> TurnKind:
        """Its kind of turns."""
        return TurnKind(self.workload, self.kind)


def find_counted(workload: str) -> str | int:
    """Return what Python's work depends on: the number of layers, or a user's file or skeleton."""
    return workload if is_user_step(workload) else find_workload(workload).layers


class RunState:
    """The requested work of a run, and what is known by now.

    Args:
        groups: Sides whose workers alternate; all of one side, or all of two.
        options: How long is measured, and how.
        lanes: A core for each worker that may run at the same time as others.
        base: Environment that others are compared with; empty where arms are compared.
    """

    def __init__(
        self, groups: Sequence[Group], options: Options, lanes: Sequence[Cores], base: str
    ) -> None:
        self.groups, self.options, self.lanes, self.base = list(groups), options, lanes, base
        self.sides = list(dict.fromkeys(side for group in groups for side in group))
        self.samples: list[Sample] = []
        self.durations = Durations()
        self.spent = TimeSpent()
        self.rng = random.Random()  # noqa: S311 -- an order is no secret
        self.is_paired = any(len(group) > 1 for group in groups)
        self.shares_variance = self.is_paired and len(groups) >= MANY_GROUPS
        self.end = (1 - REPORT_SHARE) * options.budget - REPORT_SECONDS
        """Second of the budget until which something may begin."""
        cells = [cell for side in self.sides for cell in side.needed]
        self.unrequested_arms = (
            {str(BASELINE)} - {str(c.arm) for c in cells} if self.is_paired else set()
        )
        """Arms that take part in blocks without having been requested."""
        work = {cell.workload: find_workload(cell.workload).work for cell in cells}
        sweeps = [w for names in WORKLOAD_GROUPS.values() for w in names if w in work]
        others = [w for w in work if w not in sweeps]
        others.sort(key=lambda w: (not is_skeleton(w), w != "seed", -work[w]))
        self.workloads = [*others, *sorted(sweeps, key=work.__getitem__)]
        """Workloads in order: a skeleton, which takes a second; the tutorial's, which people ask
        about; sweeps last, going up."""
        self.table = self.make_table()
        self.visit_counts: Counter[tuple[Group, TurnKind]] = Counter()
        """Numbers of workers, or pairs, that have come to their end, or are measuring."""
        self.failed_visits: Counter[tuple[Group, TurnKind]] = Counter()
        """Consecutive failed visits."""
        self.disturbed: set[tuple[str, str]] = set()
        """Workloads with the kinds of work that other processes disturbed when last done."""
        self.cold_counts: Counter[GroupCell] = Counter()
        """Numbers of cold processes of each cell that were begun."""
        self.finished_once: set[tuple[str, SideState, Cell]] = set()
        """Counts and trainings that are done, failed, or too late."""

    @property
    def spent_seconds(self) -> float:
        """Seconds of the budget spent so far."""
        return self.spent.wall_seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until nothing begins any more."""
        return max(0.0, self.end - self.spent_seconds)

    @property
    def rows(self) -> list[CellResult]:
        """Results of each cell of each side."""
        return [row for side in self.sides for row in side.cells.values()]

    # the table of work

    def make_table(self) -> list[Work]:
        """Return all work that was asked for, in the order of its first answers."""
        counted = dict[str | int, str]()
        for workload in sorted(self.workloads, key=lambda w: find_workload(w).work, reverse=True):
            counted[find_counted(workload)] = workload  # the smallest that tells as much
        table = []
        for backend in dict.fromkeys(group[0].backend for group in self.groups):
            groups = [group for group in self.groups if group[0].backend == backend]
            for workload, kind in product(self.workloads, (*ORDER, *LATE)):
                if kind == "count":
                    wanted = groups if workload in counted.values() else []
                elif kind == "train":
                    wanted = [g for g in groups if any(self.is_trained(s, workload) for s in g)]
                elif self.is_counted(TurnKind(workload, kind)):
                    wanted = []
                else:
                    wanted = [g for g in groups if self.find_metrics(g, workload, kind)]
                if wanted:
                    table.append(Work(workload, kind, tuple(wanted)))
        return sorted(table, key=self.rank)

    def rank(self, work: Work) -> tuple[bool, bool, int]:
        """Return the place of some work among first answers; lower is earlier."""
        kinds = (*ORDER, *LATE)
        is_first = is_skeleton(work.workload)
        is_late = work.kind in LATE or self.is_large(work.workload)
        return not is_first, is_late, kinds.index(work.kind)

    def is_large(self, workload: str) -> bool:
        """Tell whether a workload is larger than the tutorial's, and that is measured too."""
        larger = find_workload(workload).work > find_workload("seed").work
        return larger and "seed" in self.workloads

    def is_trained(self, side: SideState, workload: str) -> bool:
        """Tell whether a side trains some cell of a workload."""
        return any(
            cell.workload == workload and names.intersection(TRAINED)
            for cell, names in side.needed.items()
        )

    def is_counted(self, turn: TurnKind) -> bool:
        """Tell whether a skeleton's counts give the numbers of a kind of turns, too.

        What tracing takes is told, and compared between two environments alone.
        """
        return turn.kind == STAGES and is_skeleton(turn.workload) and not self.is_paired

    def find_visits_needed(self, kind: str) -> int:
        """Return the number of workers, or cold samples, below which a number is preliminary."""
        if self.shares_variance:
            return LEAST_PAIRS
        return MIN_COLD if kind in (COLD_KIND, FURTHER_COLD) else MIN_WORKERS

    def find_compared_side(self, group: Group) -> SideState:
        """Return the side of a group whose numbers are estimated: the one that is not the base."""
        return next(side for side in group if not self.base or side.environment != self.base)

    def find_metrics(self, group: Group, workload: str, kind: str) -> dict[Cell, list[Metric]]:
        """Return cell → requested metrics of a kind of work, for cells alive on all sides."""
        alive = set(find_live_cells(group, workload).values())
        if any(side.given_up for side in group):
            return {}
        asked: dict[Cell, list[Metric]] = {}
        for cell, names in self.find_compared_side(group).needed.items():
            metrics = [m for m in ASKED_OF[kind] if m.name in names and m.is_measured_at(workload)]
            is_known = any(m.name in side.cells[cell].missing for m in metrics for side in group)
            if cell in alive and metrics and not is_known:
                asked[cell] = metrics
        return asked

    def find_arms(self, group: Group, turn: TurnKind) -> dict[str, Cell]:
        """Return arm → cell, for arms that a kind of turns measures, and references.

        They are alive on all sides, whether they are proven or not.
        """
        asked = self.find_metrics(group, *turn)
        arms = find_live_cells(group, turn.workload)
        return {arm: c for arm, c in arms.items() if c in asked or c.arm in REFERENCE}

    def find_open_groups(self, work: Work) -> list[Group]:
        """Return the groups that a kind of turns can visit."""
        turn = work.turn
        return [
            group
            for group in work.groups
            if self.failed_visits[group, turn] < TRIES and self.find_metrics(group, *turn)
        ]

    def find_cold_cells(self, work: Work) -> list[GroupCell]:
        """Return the cells of cold processes: plain JAX's first, then those of some styles.

        These are each library's first style, and others only where a metric was requested that a
        library's styles do not share. Of several environments, the first measures the reference.
        """
        pairs: list[GroupCell] = []
        for group in work.groups:
            asked = self.find_metrics(group, work.workload, work.kind)
            first = {cell.entrant: cell for cell in reversed(asked)}
            cells = [
                cell
                for cell, metrics in asked.items()
                if (cell == first[cell.entrant]) == (work.kind == COLD_KIND)
                and (cell == first[cell.entrant] or not all(m.of_library for m in metrics))
            ]
            if cells and not self.is_paired:
                known = [cell for _, cell in pairs]
                reference = [arm.make_cell(work.workload, group[0].backend) for arm in REFERENCE]
                cells = [c for c in dict.fromkeys([*reference, *cells]) if c not in known]
            pairs += [(group, cell) for cell in cells]
        pairs = [p for p in pairs if all(side.may_begin_cold(p[1]) for side in p[0])]
        return sorted(pairs, key=lambda pair: pair[1].arm not in REFERENCE)

    def find_unfinished(self, do: str, side: SideState, workload: str) -> list[Cell]:
        """Return a side's cells of a workload that are not counted, or not trained, yet."""
        return [
            cell
            for cell in side.list_live_cells(workload)
            if not (cell.is_control or side.given_up or str(cell.arm) in self.unrequested_arms)
            and (do, side, cell) not in self.finished_once
            and (side.is_proven(cell) or not is_real_step(workload))
            and (do == "count" or side.needed.get(cell, frozenset()).intersection(TRAINED))
        ]

    def cores(self, group: Group, kind: str = COLD_KIND) -> Sequence[Cores]:
        """Return each lane's cores: its own, or `()` for all."""
        if group[0].backend != "cpu":
            return [()]
        auto = self.options.cores == "auto" and (kind not in TURNS or TURNS[kind].on_one_core)
        return list(self.lanes) if auto or self.options.cores == "one" else [()] * len(self.lanes)

    # what is done

    def note_disturbance(self, work: tuple[str, str], *, is_disturbed: bool) -> None:
        """Note whether other processes disturbed a workload's kind of work that was just done."""
        (self.disturbed.add if is_disturbed else self.disturbed.discard)(work)

    def count_earlier_work(self, samples: Iterable[Sample]) -> None:
        """Count the workers and cold processes of a run that was cut off."""
        groups = {(self.find_compared_side(g).environment, g[0].backend): g for g in self.groups}
        workers: set[tuple[Group, TurnKind, int]] = set()
        processes: set[tuple[Group, Cell, int]] = set()
        for s in samples:
            group, kind = groups.get((s.environment, s.cell.backend)), METRICS[s.metric].turn
            if group and s.metric in COLD:
                processes.add((group, s.cell, s.worker))
            elif group and kind in TURNS:
                workers.add((group, TurnKind(s.cell.workload, kind), s.worker))
        self.visit_counts.update((group, turn) for group, turn, _ in workers)
        self.cold_counts.update((group, cell) for group, cell, _ in processes)

    def collect_cells(self) -> list[CellResult]:
        """Return the result of each cell; of a run's baseline, one for all environments."""
        rows: dict[tuple[str, Cell], CellResult] = {}
        for row in self.rows:
            key = row.environment if self.base else "", row.cell
            if rows.setdefault(key, row).failure is not None and row.failure is None:
                rows[key] = row
        return list(rows.values())

    def note_missing(self, needs: Mapping[tuple[str, str], float] | None = None) -> None:
        """Note for each cell and metric without a number why it has none.

        `needs` has (workload, kind of work) → seconds that it takes, as far as that is known.
        """
        programs = {(row.environment, row.cell): row.program for row in self.rows}

        def pool(environment: str, cell: Cell, metric: str) -> tuple[str, str, str]:
            shares = str(cell)  # what shares samples: styles of a library, cells of a program
            if METRICS[metric].of_library:
                shares = str(cell._replace(style=""))
            elif METRICS[metric].of_program and not self.is_paired:
                shares = programs[environment, cell] or shares
            return environment, shares, metric

        have = Counter(pool(s.environment, s.cell, s.metric) for s in self.samples)
        for side in self.sides:
            for cell, metrics in side.needed.items():
                result = side.cells[cell]
                for name in metrics:
                    count = have[pool(side.environment, cell, name)]
                    fewest = self.find_visits_needed(COLD_KIND) if name in COLD else 1
                    if (
                        count < fewest
                        and METRICS[name].is_measured_at(cell.workload)
                        and result.failure is None
                    ):
                        reason = "not measured within the budget"
                        kind = COLD_KIND if name in COLD else METRICS[name].turn
                        if seconds := (needs or {}).get((cell.workload, kind)):
                            reason = f"not measured (about {float(f'{seconds:.2g}'):.0f} s needed)"
                        at = product((str(cell.arm), ""), (cell.workload, ""))
                        if death := next(filter(None, map(side.deaths.get, at)), ""):
                            reason = f"{death}, and there was no time to try again"
                        elif (cell, kind) in side.disturbed:
                            reason = DISTURBED
                        elif count:
                            reason = f"{count} of the {fewest} samples it takes fitted the budget"
                        result.missing.setdefault(name, reason)
