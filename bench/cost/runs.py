"""Tables of runs beside the law: costs in larger programs, in deeper models, and out of sight."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from bench.cells import BASELINE, CONTROL, Arm
from bench.metrics import EXACT, METRICS, label
from bench.report import wording
from bench.report.table import ADDED, Column, Row, Table, Value, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.report.table import Content
    from bench.runfile import BakeoffSection, Result

EXACT_ENOUGH = 0.5
"""Half of an interval of a hidden share that is worth printing."""
NOTE = (
    "Added to plain JAX's step, all cores: when each is waited for, and when only the last of 50 "
    "is. Hidden is the part of the first that the second does not have, with a 95 % interval; `?`: "
    "known too roughly to say."
)


def widths(section: BakeoffSection) -> Table:
    """Return what each style adds to a step at each workload of a run."""
    plain = {c.workload: c for c in section.cells if Arm(c.entrant, c.style) == Arm(*BASELINE)}
    return by_workload(section, (("", lambda cell: added(cell, plain[cell.workload], "step")),))


def depths(section: BakeoffSection) -> Table:
    """Return what else grows with the depth: Python's calls, and the memory of a call."""
    names = ("python_calls", "temp_bytes")
    counts = [(label(name), partial(count_of, name)) for name in names]
    return by_workload(section, counts, with_baseline=True)


def peaks(section: BakeoffSection) -> Table:
    """Return the peak memory of a process at each workload of a run."""
    title = label("peak_rss")
    return by_workload(section, ((title, partial(median_of, "peak_rss")),), with_baseline=True)


def median_of(name: str, cell: Result) -> Content:
    """Return the median of a metric."""
    found = cell.measured(name)
    return Value(found.median, METRICS[name].unit) if found else ""


def count_of(name: str, cell: Result) -> Content:
    """Return what was counted in a cell, of a whole step."""
    found = cell.exact.get(name)
    whole = name == "python_calls" or cell.proof is None or cell.proof.whole_step
    return Value(found, EXACT[name].unit) if found is not None and whole else ""


def by_workload(
    section: BakeoffSection,
    contents: Sequence[tuple[str, Callable[[Result], Content]]],
    *,
    with_baseline: bool = False,
) -> Table:
    """Return a table with a row for each style, and a column for each content and workload."""
    cells = {(Arm(c.entrant, c.style), c.workload): c for c in section.good}
    workloads = list(dict.fromkeys(workload for _, workload in cells))
    left_out = {Arm(*CONTROL), *(() if with_baseline else (Arm(*BASELINE),))}
    rows = []
    for arm in dict.fromkeys(arm for arm, _ in cells):
        if arm not in left_out:
            own = [cells.get((arm, workload)) for workload in workloads]
            made = (make(cell) if cell else "" for _, make in contents for cell in own)
            rows.append(Row((wording.name(arm), *made)))
    titles = (
        f"{title}, {wording.sized(workload)}".removeprefix(", ")
        for title, _ in contents
        for workload in workloads
    )
    columns = (Column("style"), *(Column(title, number=True) for title in titles))
    return Table(columns, tuple(rows)).without_empty()


def in_a_row(section: BakeoffSection) -> Table:
    """Return what each style adds to a step that is waited for and to one that is not."""
    plain = {c.workload: c for c in section.cells if Arm(c.entrant, c.style) == Arm(*BASELINE)}
    rows = []
    for cell in sorted(section.cells, key=lambda cell: cell.workload):
        arm = Arm(cell.entrant, cell.style)
        if arm not in (Arm(*BASELINE), Arm(*CONTROL)):
            both = [added(cell, plain[cell.workload], m) for m in ("step", "step_pipelined")]
            rows.append(Row((wording.name(arm), cell.workload, *both, hidden(*both))))
    columns = (
        *(Column("style"), Column("workload")),
        *(Column(t, number=True) for t in ("waited for", "in a row", "hidden")),
    )
    return Table(columns, tuple(rows), notes=(NOTE,))


def added(cell: Result, plain: Result, metric: str) -> Value:
    """Return the seconds that a style adds to a step, with their interval."""
    found, base = cell.compared(metric), plain.measured(metric)
    if not found or not base or found.ratio is None:
        return Value(None, ADDED)
    low, high = (base.median * ((end or found.ratio) - 1) for end in (found.low, found.high))
    return Value(base.median * (found.ratio - 1), ADDED, low, high)


def hidden(waited: Value, late: Value) -> str:
    """Return the hidden share of a cost, `none` if it is surely not above 0, or `?`.

    The interval is that of a ratio of two independent normal estimates, by the delta method.
    """
    cost, left = waited.number, late.number
    if cost is None or left is None or cost <= 0:
        return "?" if cost else ""
    ratio = left / cost
    doubt = math.hypot(half(late), ratio * half(waited)) / cost
    if 1 - ratio + doubt <= 0:
        return "none"
    if doubt > EXACT_ENOUGH:
        return "?"
    ends = (1 - ratio - doubt, 1 - ratio, 1 - ratio + doubt)
    low, middle, high = (percent(min(1.0, max(0.0, share))) for share in ends)
    return f"{middle} ({low} to {high})"


def half(value: Value) -> float:
    """Return half of an interval."""
    return (value.high - value.low) / 2 if value.low is not None and value.high is not None else 0.0
