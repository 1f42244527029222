"""The state of a run: the requested work, what of it is done, its samples and its costs so far."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from itertools import product
from typing import TYPE_CHECKING

from bench.cells import BASELINE, PURE, REFERENCE, Cell
from bench.engine.costs import TURNS, Costs, TurnKind
from bench.engine.task import find_group_arms, find_live_cells
from bench.estimates import MIN_COLD, MIN_WORKERS
from bench.metrics import COLD, HOST, METRICS, STAGES, TINY, TRAINED, WORKLOAD_GROUPS
from bench.options import MOST_COUNT
from bench.runfile import DISTURBED, TimeSpent
from bench.workloads import find_workload, is_real_step, is_skeleton, is_user_step

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from bench.engine.actions import Do
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
COLD_KIND = "cold"
ASKED_OF = {kind: [m for m in METRICS.values() if m.turn == kind] for kind in TURNS}
ASKED_OF[COLD_KIND] = [METRICS[name] for name in COLD]
"""Kind of turns, or `COLD_KIND` → the metrics that it samples."""


def find_counted(workload: str) -> str | int:
    """Return what Python's work depends on: the number of layers, or a user's file or skeleton."""
    return workload if is_user_step(workload) else find_workload(workload).layers


class RunState:
    """The requested work of a run, and what is known by now.

    Args:
        groups: Sides whose workers alternate; all of one side, or all of two.
        options: How much is measured.
        lanes: A core for each worker that may run at the same time as others.
        base: Environment that others are compared with; empty where arms are compared.
        calls_first: Whether times of calls at a tiny size go before all else.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        options: Options,
        lanes: Sequence[Cores],
        base: str,
        *,
        calls_first: bool = False,
    ) -> None:
        self.groups, self.options, self.lanes, self.base = list(groups), options, lanes, base
        self.calls_first = calls_first
        self.sides = list(dict.fromkeys(side for group in groups for side in group))
        self.samples: list[Sample] = []
        self.costs = Costs()
        self.spent = TimeSpent()
        self.rng = random.Random()  # noqa: S311 -- an order is no secret
        self.is_paired = any(len(group) > 1 for group in groups)
        self.shares_variance = self.is_paired and len(groups) >= MANY_GROUPS
        self.most_workers = options.processes or (1 if options.is_fixed else MOST_COUNT)
        budget = math.inf if options.is_fixed else options.budget
        self.end = (1 - REPORT_SHARE) * budget - REPORT_SECONDS
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
        if calls_first:
            others.sort(key=lambda w: TINY.index(w) if w in TINY else len(TINY))
        self.workloads = [*others, *sorted(sweeps, key=work.__getitem__)]
        """Workloads in order: a skeleton, which takes a second; tiny ones if calls go first; the
        tutorial's, which people ask about; sweeps last, going up."""
        going_down = sorted(work, key=work.__getitem__, reverse=True)
        self.counted_workloads = [
            *{find_counted(workload): workload for workload in going_down}.values()
        ]
        """Workloads to count at."""
        self.worker_counts: Counter[tuple[Group, TurnKind]] = Counter()
        """Numbers of workers, or pairs, that have come to their end, or are measuring."""
        self.failed_visits: Counter[tuple[Group, TurnKind]] = Counter()
        """Consecutive failed visits."""
        self.disturbed: set[tuple[str, str]] = set()
        """Workloads with the kinds of work that other processes disturbed when last done."""
        self.cold_samples = options.cold_samples or self.find_workers_needed(COLD_KIND)
        """Cold processes of each cell that are swept together."""
        self.least_cold = 1 if options.cold_samples else self.cold_samples
        """Cold samples below which a cell has no cold estimate."""
        self.cold_counts: Counter[GroupCell] = Counter()
        """Numbers of cold processes of each cell that were begun."""
        self.finished_once: set[tuple[Do, SideState, Cell]] = set()
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

    def collect_cells(self) -> list[CellResult]:
        """Return the result of each cell; of a run's baseline, one for all environments."""
        rows: dict[tuple[str, Cell], CellResult] = {}
        for row in self.rows:
            key = row.environment if self.base else "", row.cell
            if rows.setdefault(key, row).failure is not None and row.failure is None:
                rows[key] = row
        return list(rows.values())

    def count_earlier_work(self, samples: Iterable[Sample]) -> None:
        """Count the workers and cold processes of a run that was cut off."""
        groups = {(self.find_compared_side(g).environment, g[0].backend): g for g in self.groups}
        blocks: set[tuple[Group, TurnKind, int, int]] = set()
        processes: set[tuple[Group, Cell, int]] = set()
        for s in samples:
            group, kind = groups.get((s.environment, s.cell.backend)), METRICS[s.metric].turn
            if group and s.metric in COLD:
                processes.add((group, s.cell, s.worker))
            elif group and kind in TURNS:
                blocks.add((group, TurnKind(s.cell.workload, kind), s.worker, s.block))
        blocks_needed = self.options.blocks or 1
        blocks_of_worker = Counter((group, turn, worker) for group, turn, worker, _ in blocks)
        for (group, turn, _), count in blocks_of_worker.items():
            if count >= blocks_needed:
                self.worker_counts[group, turn] += 1
        self.cold_counts.update((group, cell) for group, cell, _ in processes)

    def count_sweeps(self, pairs: Collection[GroupCell]) -> int:
        """Return the most cold processes that any of some cells lacks."""
        return self.cold_samples - min((self.cold_counts[pair] for pair in pairs), default=0)

    def find_workers_needed(self, kind: str) -> int:
        """Return the number of workers, or cold samples, below which a number is preliminary."""
        if self.shares_variance:
            return LEAST_PAIRS
        return MIN_COLD if kind == COLD_KIND else MIN_WORKERS

    def find_compared_side(self, group: Group) -> SideState:
        """Return the side of a group whose numbers are estimated: the one that is not the base."""
        return next(side for side in group if not self.base or side.environment != self.base)

    def note_disturbance(self, work: tuple[str, str], *, is_disturbed: bool) -> None:
        """Note whether other processes disturbed a workload's kind of work that was just done."""
        (self.disturbed.add if is_disturbed else self.disturbed.discard)(work)

    def find_metrics(self, group: Group, workload: str, kind: str) -> dict[Cell, list[Metric]]:
        """Return cell → requested metrics of a kind of turns, for cells alive on all sides."""
        alive = set(find_live_cells(group, workload).values())
        return {
            cell: metrics
            for cell, names in self.find_compared_side(group).needed.items()
            if cell in alive
            and not any(side.given_up for side in group)
            and (
                metrics := [
                    m for m in ASKED_OF[kind] if m.name in names and m.is_measured_at(cell.workload)
                ]
            )
            and not any(m.name in side.cells[cell].missing for m in metrics for side in group)
        }

    def proves_before(self, turn: TurnKind) -> bool:
        """Tell whether workers that do nothing else prove the arms of a kind of turns."""
        return self.is_paired or turn.kind == STAGES or is_skeleton(turn.workload)

    def is_main(self, turn: TurnKind) -> bool:
        """Tell whether a kind of turns answers the main question, which goes before all else."""
        is_call = self.calls_first and turn == TurnKind(TINY[0], HOST)
        return is_call or is_skeleton(turn.workload)

    def is_counted(self, turn: TurnKind) -> bool:
        """Tell whether a skeleton's counts give the numbers of a kind of turns, too.

        What tracing takes is told, and compared between two environments alone.
        """
        return turn.kind == STAGES and is_skeleton(turn.workload) and not self.is_paired

    def find_arms(self, group: Group, turn: TurnKind, *, unproven: bool) -> dict[str, Cell]:
        """Return arm → cell, for arms that a kind of turns measures, and references.

        They are alive on all sides; `unproven` says whether those that are not proven count, too.
        """
        asked = self.find_metrics(group, *turn)
        arms = find_group_arms(group, turn.workload, unproven=unproven)
        return {arm: c for arm, c in arms.items() if c in asked or c.arm in REFERENCE}

    def cores(self, group: Group, kind: str = COLD_KIND) -> Sequence[Cores]:
        """Return each lane's cores: its own, or `()` for all."""
        if group[0].backend != "cpu":
            return [()]
        auto = self.options.cores == "auto" and (kind not in TURNS or TURNS[kind].on_one_core)
        return list(self.lanes) if auto or self.options.cores == "one" else [()] * len(self.lanes)

    def find_open_turns(self) -> list[tuple[TurnKind, list[Group]]]:
        """Return the turns open to a visit, with one group, or all that share a variance."""
        turns: dict[TurnKind, list[Group]] = defaultdict(list)
        for workload in self.workloads:
            for turn in (TurnKind(workload, kind) for kind in TURNS):
                for group in self.groups:
                    able = (
                        not self.is_counted(turn)
                        and self.failed_visits[group, turn] < TRIES
                        and self.worker_counts[group, turn] < self.most_workers
                    )
                    if able and self.find_metrics(group, workload, turn.kind):
                        turns[turn].append(group)
        if self.shares_variance:
            return list(turns.items())
        return [(turn, [group]) for turn, groups in turns.items() for group in groups]

    def find_cold_cells(self, workload: str) -> list[GroupCell]:
        """Return the cells of cold sweeps: plain JAX's, entrants' shared style, others.

        Of several environments, the first one measures the reference. Where only metrics that all
        styles of a library share were requested, its first style stands for all.
        """
        pairs: list[GroupCell] = []
        for group in self.groups:
            requested = self.find_metrics(group, workload, COLD_KIND)
            first = {cell.entrant: cell for cell in reversed(requested)}
            cells = [
                cell
                for cell, metrics in requested.items()
                if cell == first[cell.entrant] or not all(m.of_library for m in metrics)
            ]
            if cells and not self.is_paired:
                known = [cell for _, cell in pairs]
                reference = [arm.make_cell(workload, group[0].backend) for arm in REFERENCE]
                cells = [c for c in dict.fromkeys([*reference, *cells]) if c not in known]
            pairs += [(group, cell) for cell in cells]
        pairs = [p for p in pairs if all(side.may_begin_cold(p[1]) for side in p[0])]
        return sorted(pairs, key=lambda p: (p[1].arm not in REFERENCE, p[1].style != PURE))

    def find_unswept_cells(self, workload: str) -> list[GroupCell]:
        """Return the cells that have fewer cold processes than are swept together."""
        cells = self.find_cold_cells(workload)
        return [pair for pair in cells if self.cold_counts[pair] < self.cold_samples]

    def find_once_cells(self) -> list[tuple[Do, SideState, list[Cell]]]:
        """Return the counts and trainings that are not finished: cells of a side and workload."""
        once: list[tuple[Do, str]] = [("count", workload) for workload in self.counted_workloads]
        once += [("train", workload) for workload in self.workloads]
        works: list[tuple[Do, SideState, list[Cell]]] = []
        for side, (do, workload) in product(self.sides, once):
            cells = [
                cell
                for cell in side.list_live_cells(workload)
                if not (cell.is_control or side.given_up or str(cell.arm) in self.unrequested_arms)
                and (do, side, cell) not in self.finished_once
                and (side.is_proven(cell) or not is_real_step(workload))
                and (do == "count" or side.needed.get(cell, frozenset()).intersection(TRAINED))
            ]
            works += [(do, side, cells)] if cells else []
        return works

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
                    fewest = self.least_cold if name in COLD else 1
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
