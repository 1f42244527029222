"""Comparison of two sides: differences, whether they are worse, and changes that would show.

The sides are environments that alternated (`bakeoff ab`), or run files (`bakeoff compare`): the
results of both have the amounts of `base` and `new`, and rows of `new` against `base`.
"""

from __future__ import annotations

import math
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.estimates import COUNT, Estimate, Verdict, find_detectable_difference, group_by_key
from bench.metrics import HOST_PER_ARRAY, METRICS, Kind, label
from bench.report.table import amount, change, percent
from bench.report.wording import (
    MOST_NAMED,
    main_workload,
    name_constant_losses,
    name_few,
    place,
    sentence,
    sort_workloads,
)
from common.config import TRAJECTORY_TOLERANCE, is_real_step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bench.cells import Cell
    from bench.runfile import CellResult, Results

BASE, NEW = "base", "new"
"""Names of the two environments."""
ORDER = list(METRICS)
"""Names of metrics, the most important first."""
CHANGED_SUFFIX = ", changed since"
"""Text after a commit whose files were changed since, which no environment can be built of."""
SAME_LOSS = 0.01
"""Largest difference of two equal losses, in nats per character: a compiler may change the last
bits, and training makes these differences larger."""
SAME_STATE = 1e-3
"""Largest difference of two equal arrays of a user's state, as a fraction of their norm, for the
same reason."""
LARGEST_LIMIT = 1.0
"""Largest detectable difference that is reported, a fraction: above it, nothing is known."""
SLACK = 1e-9
"""Tolerance for rounding, a fraction: added to a margin, and the least divisor."""


class Status(IntEnum):
    """Outcome of a comparison: the exit status."""

    NOT_WORSE = 0
    WORSE = 1
    CANNOT_SAY = 2


class Comparison:
    """Views of the results of two sides."""

    def __init__(self, results: Results) -> None:
        self.results, self.margin = results, results.options.margin
        self.sides = tuple(results.environments[name] for name in (BASE, NEW))
        rows = [row for row in results.estimates if not row.cell.is_control]
        self.times = [row for row in rows if row.against == BASE and row.form == "ratio"]
        """Comparisons of times, and of memory."""
        self.amounts = {(r.environment, r.cell, r.metric): r for r in rows if r.form == "amount"}
        self.exact_pairs = [
            [row, self.amounts[NEW, cell, metric]]
            for (name, cell, metric), row in self.amounts.items()
            if name == BASE and is_exact(row) and (NEW, cell, metric) in self.amounts
        ]
        """Exact numbers that both sides have, in pairs: base, new."""
        self.counts = find_exact_changes(self.exact_pairs)
        """Exact numbers that changed."""
        cells = (row for row in results.cells if not row.cell.is_control)
        self.cells = {(row.environment, row.cell): row for row in cells}
        self.common_cells = [
            (row, self.cells[NEW, cell])
            for (name, cell), row in self.cells.items()
            if name == BASE and (NEW, cell) in self.cells
        ]
        """Results of the cells that both sides have, in pairs: base, new."""
        self.failures = [
            new
            for base, new in self.common_cells
            if new.failure is not None and base.failure is None
        ]
        """New results of cells that fail now, but not before."""

    @property
    def costlier_counts(self) -> list[Estimate]:
        """Counts of costs that rose; empty if `--metric` names the metrics that decide."""
        return [] if self.results.metrics else [row for row in self.counts if is_costlier(row)]

    @property
    def computation_sentences(self) -> Iterator[str]:
        """Sentences on a user's own step: whether both sides compute the same in ten steps."""
        same, changed, rounding = [], [], 0.0
        asked = {row.cell for row in self.results.estimates}
        for base, new in self.common_cells:
            if not is_real_step(base.cell.workload) or new.cell not in asked:
                continue
            pairs = list(zip(base.losses, new.losses, strict=False))
            away = [abs(a - b) / max(abs(a), abs(b), SLACK) for a, b in pairs]
            if first := next((i for i, d in enumerate(away, 1) if d > TRAJECTORY_TOLERANCE), 0):
                changed.append(
                    f"losses of {new.cell.arm} differ from step {first} on, by up to "
                    f"{max(away):.1g} of a loss in ten steps; the last ones are "
                    f"{pairs[-1][0]:.6g} and {pairs[-1][1]:.6g}"
                )
            elif words := describe_state_change(base, new):
                changed.append(f"the state of {new.cell.arm} differs after ten steps: {words}")
            elif away:
                same.append(str(new.cell.arm))
                rounding = max(rounding, *away)
        if same:
            to = f", to {rounding:.1g} of a loss" if rounding else ""
            yield f"Both sides have the same losses in ten steps{to}: {name_few(same)}."
        yield from map(sentence, changed)
        yield from name_constant_losses(new for _, new in self.common_cells if new.cell in asked)

    @property
    def is_measured(self) -> bool:
        """Whether one command measured both sides; if not, they are run files."""
        return self.results.spent.processes > 0

    def is_worse(self, row: Estimate) -> bool:
        """Tell whether a row is certainly slower, and by more than the margin."""
        return row.differs and row.value > 1 + self.margin + SLACK

    def is_faster(self, row: Estimate) -> bool:
        """Tell whether a row is certainly faster, and by more than the margin."""
        return row.differs and row.value < 1 - self.margin - SLACK

    def is_settled(self, row: Estimate) -> bool:
        """Tell whether it is known that a row differs, or that it does not by the margin."""
        return row.verdict not in (None, Verdict.INCONCLUSIVE)

    def find_gap(self, row: Estimate) -> str:
        """Return why a row cannot be compared, whatever its number of samples; or ""."""
        known = self.cells.get((NEW, row.cell))
        return known.missing.get(row.metric, "") if known else ""

    @cached_property
    def differing_times(self) -> list[Estimate]:
        """Times that certainly differ, the largest ratio (the worst) first."""
        return sorted((row for row in self.rows if row.differs), key=lambda row: -row.value)

    @property
    def other_times(self) -> list[Estimate]:
        """Times that are not known to differ, by metric, each with the baseline's first."""
        rows = (row for row in self.rows if not row.differs)
        return sorted(rows, key=lambda r: (ORDER.index(r.metric), not r.cell.is_baseline, r.cell))

    @property
    def rows(self) -> Iterable[Estimate]:
        """Times; those that all styles of a library share appear once."""
        return {find_key(row): row for row in reversed(self.times)}.values()

    @property
    def status(self) -> Status:
        """Outcome of the comparison.

        One settled row is enough to pass: otherwise one inconclusive row among a hundred would
        fail every day. Where times were compared and none is settled, counts alone do not pass.
        """
        if any(map(self.is_worse, self.times)) or self.costlier_counts or self.failures:
            return Status.WORSE
        if any(map(self.is_settled, self.times)):
            return Status.NOT_WORSE
        counts_alone = self.exact_pairs and not self.times and not self.results.metrics
        return Status.NOT_WORSE if counts_alone else Status.CANNOT_SAY

    def describe_amount(self, side: str, row: Estimate) -> str:
        """Return a side's amount of a row's cell and metric; empty if it is not known."""
        known = self.amounts.get((side, row.cell, row.metric))
        return amount(known.value, known.unit) if known else ""

    def describe_difference(self, row: Estimate) -> str:
        """Return by how much a row differs; an exact number by both of its values, `4 → 5`."""
        if row.form == "added":
            sides = [self.amounts[side, row.cell, row.metric] for side in (BASE, NEW)]
            words = [amount(side.value, side.unit) for side in sides]
            if words[0] == words[1]:  # too few digits to see it
                words = [amount(side.value, "") for side in sides]
            return " → ".join(words)
        base = self.amounts.get((BASE, row.cell, HOST_PER_ARRAY))
        if row.metric == HOST_PER_ARRAY and base:  # microseconds are what people can add up
            ends = {name: getattr(row, name) for name in ("value", "low", "high")}
            seconds = {n: end and base.value * (end - 1) for n, end in ends.items()}
            return change(replace(row, form="added", unit="s", **seconds))
        return change(row)

    @cached_property
    def limits(self) -> dict[str, str]:
        """Metric → the difference that each row of a workload would detect in four cases of five.

        The workload is the one that sentences name first. Metrics without a limit are left out.
        """
        limits = {}
        for metric in sorted({row.metric for row in self.times}, key=ORDER.index):
            rows = [row for row in self.times if row.metric == metric]
            workload = main_workload(row.cell.workload for row in rows)
            limit = max(
                (
                    find_detectable_difference([row])
                    for row in rows
                    if row.cell.workload == workload and not row.is_noiseless
                ),
                default=math.inf,
            )
            if limit > LARGEST_LIMIT:
                continue
            limits[metric] = f"{percent(limit)} ({label(metric)} at {place(workload)})"
            sides = [self.amounts.get((BASE, row.cell, metric)) for row in rows]
            times = [side.value for side in sides if side]
            if metric == HOST_PER_ARRAY and times:
                limits[metric] = f"{amount(limit * median(times), 's')} ({label(metric)})"
        return limits


def describe_state_change(base: CellResult, new: CellResult) -> str:
    """Return in words how the state of a user's own step differs; empty if it does not."""
    ours, theirs = (row.proof.state if row.proof else None for row in (base, new))
    if ours is None or theirs is None:  # an older run's, or a step that keeps its state to itself
        return ""
    if len(ours) != len(theirs):
        return f"it has {len(ours)} and {len(theirs)} arrays"
    away = [abs(a - b) / max(a, b, SLACK) for a, b in zip(ours, theirs, strict=True)]
    differing = [part for part in away if part > SAME_STATE]
    if not differing:
        return ""
    return f"{len(differing)} of {len(away)} arrays, by up to {percent(max(away))} of their norm"


def is_exact(row: Estimate) -> bool:
    """Tell whether a row is a number that is the same every time: a count, or a loss."""
    counted = row.kind in (Kind.EXACT, Kind.ONCE) and METRICS[row.metric].compared
    return row.form == "amount" and counted


def find_exact_changes(series: Iterable[Sequence[Estimate]]) -> list[Estimate]:
    """Return the changes of exact numbers along series, each as the amount that is added."""
    rows = [
        replace(
            after,
            form="added",
            value=after.value - before.value,
            against=before.environment,
            standard_error=0.0,
            settled_by=COUNT,
        )
        for points in series
        for before, after in pairwise(points)
        if abs(after.value - before.value) > (SAME_LOSS if after.unit == "nats" else 0)
    ]
    return sorted(rows, key=lambda row: (not is_costlier(row), ORDER.index(row.metric)))


def is_costlier(row: Estimate) -> bool:
    """Tell whether a cost rose."""
    return row.value > row.no_difference and not METRICS[row.metric].neutral


def describe_releases(pairs: Mapping[str, tuple[str | None, str | None]]) -> list[str]:
    """Return releases that differ in words: `flax 0.12.8 → 0.12.9`."""
    return [f"{name} {a or 'none'} → {b or 'none'}" for name, (a, b) in pairs.items()]


def describe_cells(cells: Iterable[Cell], most: int = MOST_NAMED) -> str:
    """Return cells as a list in a sentence: `haiku/pure at toy and seed`."""
    workloads = group_by_key((cell.arm, cell.workload) for cell in cells)
    arms = group_by_key(
        (name_few(sort_workloads(at), most), str(arm)) for arm, at in workloads.items()
    )
    return name_few([f"{name_few(names, most)} at {where}" for where, names in arms.items()], most)


def describe_by_reason(pairs: Iterable[tuple[str, Cell]]) -> Iterator[str]:
    """Yield each reason in a sentence with its cells: `haiku/pure at toy fails: not equal`."""
    for reason, cells in group_by_key(pairs).items():
        yield f"{describe_cells(cells)} {reason}"


def find_key(row: Estimate) -> tuple[Cell, str]:
    """Return a row's cell and metric, without the style if all styles of its library share it."""
    style = "" if METRICS[row.metric].of_library else row.cell.style
    return row.cell._replace(style=style), row.metric
