"""From blocks and cold samples to ratios: one family for each metric at one workload."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from bench.cells import BASELINE, CONTROL, Arm, Cell
from bench.metrics import METRICS, Kind
from bench.stats import ratios, verdicts
from bench.stats.ratios import Estimate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from jaxtyping import Float, Int

    from bench.runfile import Metric
    from bench.samples import Found, Samples, State, Turn
    from bench.stats.ratios import Contrasts

QUANTILE = 0.1
"""Of an arm's calls in a block: their datum. Noise only ever adds time, so a low quantile varies
far less than a median; which one was chosen by A/A runs, see docs/measuring.md."""
HOST_SECONDS, HOST_FRACTION = 3e-6, 0.02
"""To either side of a host cost whose interval is narrow enough: seconds, or a part of it."""
MOST_HOST_WORKERS = 60
"""After so many, an arm's host cost gets no more time however wide its interval is: it narrows with
the root of the workers, and a default run of 300 s on two cores has 18. Arms that cost a call
milliseconds may never be known to `HOST_FRACTION`, and steps need the time."""

type Arms = Mapping[Cell, Sequence[Samples]]
"""The samples of each cell that is compared within a group, by block."""
REFERENCE = (Arm(*BASELINE), Arm(*CONTROL))
"""Arms of one program, which together are what others are compared with."""


class Group(NamedTuple):
    """What is compared with each other: one metric at one workload on one backend."""

    metric: str
    workload: str
    backend: str

    @classmethod
    def of(cls, metric: str, cell: Cell) -> Self:
        """Return the group of a cell's metric."""
        return cls(metric, cell.workload, cell.backend)


class BlockTable(NamedTuple):
    """The data of a group."""

    cells: list[Cell]
    logs: Float[np.ndarray, "blocks arms"]
    """Log of each arm's datum; NaN where it took no part."""
    worker: Int[np.ndarray, " blocks"]

    def columns(self, *arms: Arm) -> list[int]:
        """Return the columns of some arms, of those that are there."""
        return [i for i, cell in enumerate(self.cells) if cell.arm in arms]

    def compared(self, reference: Iterable[Arm]) -> tuple[list[int], list[int]]:
        """Return the columns of a reference, and of the family that is compared with it."""
        columns = self.columns(*reference)
        left_out = self.columns(*reference, Arm(*CONTROL))
        return columns, [i for i in range(len(self.cells)) if i not in left_out]

    def by_cell(self, found: Sequence[Estimate | None]) -> dict[Cell, Estimate]:
        """Return the estimates of columns that have one."""
        return {c: e for c, e in zip(self.cells, found, strict=True) if e is not None}


def groups_of(cells: Mapping[Cell, Found]) -> dict[Group, Arms]:
    """Return the samples of all cells that have not failed, by group."""
    found: dict[Group, dict[Cell, Sequence[Samples]]] = defaultdict(dict)
    for cell, each in cells.items():
        if each.failure is None:
            for metric, samples in each.blocks.items():
                if samples:
                    found[Group.of(metric, cell)][cell] = samples
    return pooled(found, {c: each.facts.get("fingerprint", "") for c, each in cells.items()})


def pooled(groups: Mapping[Group, Arms], programs: Mapping[Cell, str]) -> dict[Group, Arms]:
    """Return groups in which cells share what belongs to their library, or to their program.

    Args:
        groups: The samples of each cell.
        programs: Fingerprint of what each cell compiles, where it is known.

    Returns:
        The same, with one list of samples, one of each process, for all cells that share it. The
        control shares with no cell.
    """
    out: dict[Group, Arms] = {}
    for group, arms in groups.items():
        metric = METRICS[group.metric]
        pools: dict[str, dict[int, Samples]] = defaultdict(dict)
        keys = {
            cell: cell.entrant if metric.of_library else programs.get(cell, "")
            for cell in arms
            if (metric.of_library or metric.of_program) and not cell.is_control
        }
        for cell, key in keys.items():
            pools[key].update({one.process: one for one in arms[cell]})
        lists = {key: list(pool.values()) for key, pool in pools.items()}
        out[group] = {cell: lists[keys[cell]] if keys.get(cell) else arms[cell] for cell in arms}
    return out


def datum(values: Sequence[float]) -> float:
    """Return what a block says of an arm: a low quantile of its calls."""
    return float(np.quantile(values, QUANTILE))


def table(arms: Arms) -> BlockTable:
    """Return the data of a group's blocks."""
    numbers: dict[int, int] = {}
    worker: dict[int, int] = {}
    for samples in arms.values():
        for each in samples:
            numbers.setdefault(each.number, len(numbers))
            worker[each.number] = each.process
    logs = np.full((len(numbers), len(arms)), np.nan)
    for column, samples in enumerate(arms.values()):
        for each in samples:
            logs[numbers[each.number], column] = math.log(datum(each.values))
    return BlockTable(list(arms), logs, np.array([worker[n] for n in numbers], int))


def beside(
    group: Group, arms: Arms, reference: Collection[Arm] = REFERENCE
) -> dict[Cell, Estimate]:
    """Return each cell's ratio to a reference, with intervals that are corrected for the group."""
    if not any(cell.arm in reference for cell in arms):
        return {}
    if METRICS[group.metric].added:
        return differences(arms, reference)[0]
    if METRICS[group.metric].kind is Kind.COLD:
        return fresh(arms, reference)
    whole = table(arms)
    columns, members = whole.compared(reference)
    return whole.by_cell(ratios.many_to_one(whole.logs, whole.worker, columns, members=members))


def fresh(arms: Arms, reference: Collection[Arm]) -> dict[Cell, Estimate]:
    """Return the same of samples that are one a process; cells may share the reference's."""
    pools = {id(samples): samples for samples in arms.values()}
    own = [id(samples) for cell, samples in arms.items() if cell.arm in reference]
    others = [key for key in pools if key not in own]

    def logs(keys: Iterable[int]) -> Float[np.ndarray, " samples"]:
        return np.log([v for key in keys for each in pools[key] for v in each.values])

    first = logs(dict.fromkeys(own))
    estimates = ratios.cold([first, *(logs([key]) for key in others)], 0)[1:]
    found = dict(zip(others, estimates, strict=True))
    same = Estimate(0.0, 0.0, math.inf, 0.0, 0.0, 1.0, first.size, first.size)
    return {
        cell: each
        for cell, samples in arms.items()
        if cell.arm not in reference
        if (each := same if id(samples) in own else found[id(samples)]) is not None
    }


def differences(
    arms: Arms, reference: Collection[Arm] = REFERENCE
) -> tuple[dict[Cell, Estimate], float]:
    """Return each cell's ratio to a reference, known from what it adds, and that one's seconds."""
    whole = table(arms)
    columns, members = whole.compared(reference)
    if not columns:
        return {}, math.nan
    found, level = ratios.added(np.exp(whole.logs), whole.worker, columns, members=members)
    return whole.by_cell(found), level


def control(group: Group, arms: Arms) -> Estimate | None:
    """Return the control's ratio to the baseline: what differs between the two is noise."""
    baseline, control_ = REFERENCE
    if METRICS[group.metric].kind is Kind.COLD:
        own = {cell: samples for cell, samples in arms.items() if cell.arm in REFERENCE}
        return beside(group, own, [baseline]).get(Cell(*CONTROL, *group[1:]))
    whole = table(arms)
    columns, members = whole.columns(baseline), whole.columns(control_)
    if not columns or not members:
        return None
    return ratios.many_to_one(whole.logs, whole.worker, columns, members=members)[members[0]]


def contrasts(group: Group, arms: Arms) -> tuple[list[Cell], Contrasts] | None:
    """Return how any two arms of a group differ; None without a reference."""
    whole = table(arms)
    columns = whole.columns(*REFERENCE)
    if not columns:
        return None
    if METRICS[group.metric].added:
        found = beside(group, arms)
        known = [found.get(cell) for cell in whole.cells]
        return whole.cells, ratios.of_added(known, columns)
    return whole.cells, ratios.pairwise(whole.logs, whole.worker, columns)


def added(estimate: Estimate, reference: float) -> tuple[float, float, float]:
    """Return the seconds that an arm adds to a call, and the ends of their interval.

    Args:
        estimate: Of `differences`.
        reference: Seconds of that, as they came with it.
    """
    low, high = estimate.interval
    return reference * (estimate.ratio - 1), reference * (low - 1), reference * (high - 1)


def stored(found: Metric) -> Estimate | None:
    """Return the estimate that a ratio in a file is, if its doubt is known.

    Its interval is a single comparison's.
    """
    if found.ratio is None or found.standard_error is None:
        return None
    error, df = found.standard_error, found.df or 1.0
    blocks, workers = found.blocks or 1, found.processes or 1
    return ratios.corrected(math.log(found.ratio), error, df, blocks, workers)


class Settled:
    """Says which arms of a turn need no more time; asked between visits."""

    def __init__(self, margin: float) -> None:
        self.margin = margin
        self.known: dict[tuple[int, Turn, int], frozenset[str]] = {}

    def __call__(self, state: State, turn: Turn) -> frozenset[str]:
        """Return the arms whose verdict is beyond doubt, or whose host cost is known.

        Args:
            state: What was found on one backend; it gets more while this lives.
            turn: Told by its first metric.
        """
        key = (id(state), turn, len(state.blocks))
        if key not in self.known:
            metric = next(metric for metric in METRICS.values() if metric.turn == turn.kind)
            backend = next(iter(state.cells)).backend
            group = Group(metric.name, turn.workload, backend)
            arms = groups_of(state.cells).get(group, {})
            if metric.added:
                found, seconds = differences(arms)
                enough = [cell for cell, each in found.items() if known(each, seconds)]
            else:
                found = beside(group, arms)
                enough = [cell for cell, e in found.items() if verdicts.decided(e, self.margin)]
            self.known[key] = frozenset(str(cell.arm) for cell in enough if not cell.is_control)
        return self.known[key]


def known(estimate: Estimate, reference: float) -> bool:
    """Tell whether a host cost is known well enough, or as well as is worth its time.

    See `HOST_SECONDS` and `MOST_HOST_WORKERS`.
    """
    seconds, low, high = added(estimate, reference)
    enough = max(HOST_SECONDS, HOST_FRACTION * abs(seconds))
    narrow = estimate.workers >= verdicts.WORKERS and (high - low) / 2 <= enough
    return narrow or estimate.workers >= MOST_HOST_WORKERS
