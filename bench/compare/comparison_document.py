"""A comparison as a document: the same for a terminal, a pull request and a page."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from bench.compare.comparison import (
    LOSSES,
    Compared,
    CountOutcome,
    ExactCount,
    FailedCell,
    Status,
)
from bench.compare.conditions import OWN
from bench.metrics import METRICS, label
from bench.report.table import Column, Document, Row, Section, Table, Value, amount, percent
from bench.report.wording import joined
from bench.report.wording import name as name_of
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.compare.comparison import CellRow, Comparison, Origin, Shift
    from bench.report.charts.drawn import Figure
    from bench.report.table import Content

MARKER = "<!-- bakeoff comparison -->"
"""First line of the Markdown, by which a later comment finds the one that it replaces."""
NAMED = 3
"""Of what is worse, as many as the headline names."""
LISTED = 8
"""Cells that are named one by one."""
MOST_SHIFTS = 60
"""In the table of changes, since a comment has limited room; what is worse comes first."""
STATUS = {Status.NOT_WORSE: "good", Status.WORSE: "bad", Status.CANNOT_SAY: "open"}
READING = (
    "Slower, faster: the interval leaves out 1 and is not inside the margin; =: it is inside the "
    "margin; ?: inconclusive; !: worse; ·: left out by the gate."
)


def document(comparison: Comparison, figures: Sequence[Figure] = ()) -> Document:
    """Return all that is said of a comparison.

    Args:
        comparison: To be shown.
        figures: Its charts, for a page.
    """
    base, new = comparison.base, comparison.new
    sections = (
        Section("Changes", tuple(counts(comparison)), (shift_table(comparison),)),
        Section("Intervals", figures=tuple(figures)),
        *matrices(comparison),
        Section("Not compared", tuple(lacking(comparison)), folded=True),
        Section("How to read this", (*comparison.reading, READING), folded=True),
    )
    return Document(
        title=f"{new.name} beside {base[-1].name}",
        subtitle=f"base: {', '.join(map(described, base))}\nnew:  {described(new)}",
        headline=headline(comparison),
        status=STATUS[comparison.status],
        warnings=comparison.warnings,
        sections=tuple(s for s in sections if s.lines or s.tables or s.figures),
        fine_print=tuple(conditions(comparison)),
    )


def headline(comparison: Comparison) -> str:
    """Return what a comparison comes to, in a sentence that begins with what was changed."""
    base, new = comparison.base[-1].versions, comparison.new.versions
    changed = [
        f"{package} {base.get(package, 'none')} → {new.get(package, 'none')}"
        for package in dict.fromkeys([*base, *new] if base and new else [])
        if base.get(package) != new.get(package)
    ]
    subject = f"{', '.join(changed)}: " if changed else ""
    worse = [shift for shift in comparison.shifts if shift.row.worse]
    if worse:
        said = [short(shift, comparison) for shift in worse[:NAMED]]
        more = [f"{len(worse) - NAMED} more"] if len(worse) > NAMED else []
        return f"{subject}Worse: {joined([*said, *more])}."
    if comparison.status is Status.NOT_WORSE:
        known = all(row.settled for row in comparison.judged)
        return f"{subject}{'Nothing is worse' if known else 'No regression found'}."
    widths = [half for found in half_widths(comparison).values() for half in found]
    if not widths:
        return f"{subject}Inconclusive: there are no times to compare."
    seen = percent(float(np.median(widths)))
    return f"{subject}Inconclusive: changes under about {seen} would not show."


def short(shift: Shift, comparison: Comparison) -> str:
    """Return what is worse, in a few words."""
    row = shift.row
    if isinstance(row, FailedCell):
        return f"{called(row)} {place(shift, comparison)} fails"
    if isinstance(row, Compared):
        ratio = Value(row.ratio, low=row.low, high=row.high)
        return f"{called(row)} {label(row.metric)} {place(shift, comparison)} {ratio}"
    before, after = amounts(row)
    return f"{called(row)} {label(row.metric)} {before} → {after}"


def counts(comparison: Comparison) -> Iterator[str]:
    """Yield how many rows there are of each verdict, and how precise they are."""
    rows = comparison.judged
    verdicts = Counter(row.verdict for row in rows)
    words = {
        Verdict.SLOWER: "slower",
        Verdict.FASTER: "faster",
        Verdict.EQUIVALENT: f"within ±{percent(comparison.margin)}",
        Verdict.INCONCLUSIVE: "inconclusive",
    }
    said = [f"{verdicts[verdict]} {word}" for verdict, word in words.items() if verdicts[verdict]]
    if said:
        allowed = sum(row.settled and row.verdict is Verdict.INCONCLUSIVE for row in rows)
        also = f" ({allowed} of them below the threshold)" if allowed else ""
        yield f"{many(len(rows), 'row')}: {joined(said)}{also}."
    outcomes = Counter(row.outcome for row in comparison.exact if not row.ignored)
    if outcomes:
        others = [f"{n} {each}" for each, n in outcomes.items() if each is not CountOutcome.EQUAL]
        equal = outcomes[CountOutcome.EQUAL]
        yield f"Exact counts: {joined([f'{equal} equal', *others])}."
    widths = [
        f"±{percent(float(np.median(found)))} ({group})"
        for group, found in half_widths(comparison).items()
        if found
    ]
    if widths:
        yield f"Median precision: {joined(widths)}."


def half_widths(comparison: Comparison) -> dict[str, list[float]]:
    """Return half the width of the intervals of steps and of other metrics, as fractions."""
    out: dict[str, list[float]] = {"steps": [], "other metrics": []}
    for row in comparison.judged:
        if row.ratio and row.low is not None and row.high is not None and not row.absolute:
            group = "steps" if row.metric == "step" else "other metrics"
            out[group].append((row.high - row.low) / 2 / row.ratio)
    return out


def shift_table(comparison: Comparison) -> Table:
    """Return what differs, what is worse first."""
    columns = (
        Column("cell"),
        Column("metric"),
        Column("base", number=True, needed=False),
        Column("new", number=True, needed=False),
        Column("new / base", number=True),
        Column("verdict", needed=False),
    )
    shifts = comparison.shifts
    rows = [shift_row(shift, comparison) for shift in shifts[:MOST_SHIFTS]]
    notes = [note for shift in shifts[:MOST_SHIFTS] if (note := reason(shift, comparison))]
    if len(shifts) > MOST_SHIFTS:
        notes.append(f"{len(shifts) - MOST_SHIFTS} more changes; `--format json` has all of them.")
    return Table(columns, tuple(rows), notes=tuple(notes))


def shift_row(shift: Shift, comparison: Comparison) -> Row:
    """Return a row of the table of changes."""
    row, where = shift.row, f"{called(shift.row)} {place(shift, comparison)}"
    mark = "! " if row.worse else ""
    if isinstance(row, FailedCell):
        said = "works again" if row.new is None else "fails"
        return Row((where, "", "", "", mark + said, "worse" if row.worse else ""), row.worse)
    before, after = amounts(row)
    cells: tuple[Content, ...]
    if isinstance(row, Compared):
        cells, said = (before, after, ratio_value(row)), str(row.verdict)
    else:
        cells = "", "", f"{mark}{before} → {after}"
        said = "more" if row.outcome is CountOutcome.WORSE else str(row.outcome)
    if row.worse:
        said = "worse"
    elif row.note:
        said += ", accepted" if row.accepted else ", allowed"
    return Row((where, label(row.metric), *cells, said), row.worse)


def reason(shift: Shift, comparison: Comparison) -> str:
    """Return why a cell failed, or what the gate's author wrote of a shift; else nothing."""
    row, where = shift.row, f"{called(shift.row)} {place(shift, comparison)}"
    if not isinstance(row, FailedCell):
        return f"{where}, {label(row.metric)}: {row.note}." if ": " in row.note else ""
    if row.new is None:
        return f"{where} no longer fails: it did ({row.base})."
    return f"{where} fails {'now' if row.base is None else 'on both sides'}: {row.new}"


def amounts(row: Compared | ExactCount) -> tuple[str, str]:
    """Return the sides of a row: ratios to the baseline where these are compared, or amounts."""
    if isinstance(row, ExactCount):
        unit = "nats" if row.metric in LOSSES else "count"
        return amount(row.base, unit), amount(row.new, unit)
    if row.base_ratio is not None and row.new_ratio is not None:
        return str(Value(row.base_ratio)), str(Value(row.new_ratio))
    if row.base is None or row.new is None:
        return "", ""
    return amount(row.base, row.unit), amount(row.new, row.unit)


def ratio_value(row: Compared) -> Value:
    """Return new to base with its interval."""
    return Value(
        row.ratio,
        low=row.low,
        high=row.high,
        verdict=row.verdict or "",
        marker="·" if row.ignored else "!" if row.worse else "",
        strong=row.worse,
        help=" → ".join(amounts(row)),
    )


def matrices(comparison: Comparison) -> Iterator[Section]:
    """Yield the ratios of each workload: a row for each style, a column for each metric."""
    compared = [row for row in comparison.rows if row.ratio is not None]
    for workload, backend in dict.fromkeys((row.workload, row.backend) for row in compared):
        here = {
            (row.cell, row.metric): row
            for row in compared
            if (row.workload, row.backend) == (workload, backend)
        }
        metrics = [metric for metric in METRICS if any(metric == key[1] for key in here)]
        cells = sorted(dict.fromkeys(key[0] for key in here), key=lambda cell: not cell.is_baseline)
        rows = []
        for cell in cells:
            found = [here.get((cell, metric)) for metric in metrics]
            values = [ratio_value(row) if row else "" for row in found]
            worse = any(row is not None and row.worse for row in found)
            rows.append(Row((name_of(cell.facts), *values), worse))
        columns = [Column(label(metric, "\n"), number=True) for metric in metrics]
        title = f"{workload} on {backend}: new / base"
        table = Table((Column("style"), *columns), tuple(rows), title)
        yield Section(title, tables=(table,), folded=True)


def lacking(comparison: Comparison) -> Iterator[str]:
    """Yield what is not compared and why."""
    missing: dict[str, list[Compared]] = {}
    for row in comparison.rows:
        if row.missing and not row.ignored:
            missing.setdefault(row.missing, []).append(row)
    for why, rows in missing.items():
        metrics = joined([label(metric) for metric in dict.fromkeys(row.metric for row in rows)])
        yield f"{many(len(rows), 'row')} ({metrics}): {why}"
    ignored = sum(row.ignored for row in (*comparison.rows, *comparison.exact))
    if ignored:
        yield f"{many(ignored, 'row')}: left out by the gate"
    for cells, side in ((comparison.only_base, "base"), (comparison.only_new, "new")):
        if cells:
            yield f"Only in the {side} run: {listed(cells)}"


def listed(cells: Sequence[CellRow]) -> str:
    """Return cells one by one, or how many there are of each workload."""
    if len(cells) <= LISTED:
        return joined([f"{called(row)} at {row.workload} on {row.backend}" for row in cells])
    found = Counter(f"{row.workload} on {row.backend}" for row in cells)
    return joined([f"{number} cells at {where}" for where, number in found.items()])


def conditions(comparison: Comparison) -> Iterator[str]:
    """Yield under which conditions both sides were measured, and what differs."""
    base, new = comparison.base[-1], comparison.new
    yield from dict.fromkeys(f"{one.machine}." for one in (base, new) if one.machine)
    same = [f"{n} {v}" for n, v in new.versions.items() if base.versions.get(n) == v and n != OWN]
    if same:
        yield f"Both sides: {', '.join(same)}."
    if comparison.differences:
        yield f"Differs: {'; '.join(map(str, comparison.differences))}."


def called(row: CellRow) -> str:
    """Return a cell's entrant and style."""
    return name_of(row.cell.facts)


def place(shift: Shift, comparison: Comparison) -> str:
    """Return where something changed: workloads, and the backend if there are several."""
    rows = (*comparison.rows, *comparison.exact, *comparison.failures)
    several = len({row.backend for row in rows}) > 1
    return f"at {joined(shift.workloads)}{f' on {shift.row.backend}' if several else ''}"


def described(origin: Origin) -> str:
    """Return what a side is: its name, when it was measured, its commit."""
    about = [origin.when, origin.commit and f"commit {origin.commit}"]
    said = ", ".join(filter(None, about))
    return f"{origin.name} ({said})" if said else origin.name


def many(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number} {what}{'' if number == 1 else 's'}"
