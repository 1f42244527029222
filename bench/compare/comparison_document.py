"""A comparison as a document: the same for a terminal, a pull request and a page."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.compare.comparison import CountOutcome, Status
from bench.compare.conditions import OWN, moved
from bench.compare.trends import counted
from bench.metrics import METRICS, label
from bench.report.table import Column, Document, Row, Section, Table, Value, percent
from bench.report.wording import few, joined
from bench.report.wording import name as name_of
from bench.stats.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.compare.comparison import ComparedRow, Comparison, Origin
    from bench.report.charts.figure import Figure

MARKER = "<!-- bakeoff comparison -->"
"""First line of the Markdown, by which a later comment finds the one that it replaces."""
NAMED = 3
"""Of what is worse, and of what is on one side alone, as many as a sentence names."""
MOST_SHIFTS = 60
"""In the table of changes, since a comment has limited room; what is worse comes first."""
STATUS = {Status.NOT_WORSE: "good", Status.WORSE: "bad", Status.CANNOT_SAY: "open"}
READING = (
    "Slower, faster: the interval leaves out 1 and is not inside the margin; =: it is inside the "
    "margin; ?: inconclusive; !: worse; ·: left out by the gate."
)


def document(comparison: Comparison, *, figures: bool = False) -> Document:
    """Return all that is said of a comparison; with charts for a page."""
    charts: tuple[Figure, ...] = ()
    if figures:
        from bench.compare import comparison_charts  # altair is needed for a page alone

        charts = tuple(comparison_charts.figures(comparison))
    base, new = comparison.base, comparison.new
    sections = (
        Section("Changes", tuple(counts(comparison)), (shift_table(comparison),)),
        Section("Intervals", figures=charts),
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
    pairs = moved(base, new) if base and new else {}
    changed = [f"{package} {a or 'none'} → {b or 'none'}" for package, (a, b) in pairs.items()]
    subject = f"{', '.join(changed)}: " if changed else ""
    worse = [short(row, where) for row, where in shifts(comparison) if row.worse]
    if worse:
        return f"{subject}Worse: {few(worse, NAMED)}."
    if comparison.status is Status.NOT_WORSE:
        known = all(row.settled for row in comparison.judged)
        return f"{subject}{'Nothing is worse' if known else 'No regression found'}."
    widths = [half for found in half_widths(comparison).values() for half in found]
    if not widths:
        return f"{subject}Inconclusive: there are no times to compare."
    seen = percent(float(np.median(widths)))
    return f"{subject}Inconclusive: changes under about {seen} would not show."


def shifts(comparison: Comparison) -> list[tuple[ComparedRow, str]]:
    """Return what differs, and where: what is worse first; failures, then the slowest, then counts.

    The same count of a style that changed in the same way at several workloads is one shift.
    """
    alike: dict[tuple[object, ...], list[ComparedRow]] = {}
    for row in comparison.exact:
        if row.changed:
            same = (row.cell.arm, row.backend, row.metric, row.base, row.new)
            alike.setdefault((*same, row.note), []).append(row)
    times = sorted((r for r in comparison.rows if r.changed), key=lambda row: -(row.ratio or 0.0))
    found = [*([row] for row in (*comparison.failures, *times)), *alike.values()]
    every = (*comparison.rows, *comparison.exact, *comparison.failures)
    several = len({row.backend for row in every}) > 1  # only then is the backend said
    return [
        (rows[0], f"at {joined([row.workload for row in rows])}{backend}")
        for rows in sorted(found, key=lambda rows: not rows[0].worse)
        for backend in [f" on {rows[0].backend}" if several else ""]
    ]


def short(row: ComparedRow, where: str) -> str:
    """Return what is worse, in a few words."""
    if not row.metric:
        return f"{row.arm} {where} fails"
    if row.outcome is None:
        return f"{row.arm} {label(row.metric)} {where} {ratio_value(row)}"
    return f"{row.arm} {label(row.metric)} {' → '.join(amounts(row))}"


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
        yield f"{counted(len(rows), 'row')}: {joined(said)}{also}."
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
    found = shifts(comparison)
    rows = [shift_row(*shift) for shift in found[:MOST_SHIFTS]]
    notes = [note for shift in found[:MOST_SHIFTS] if (note := reason(*shift))]
    if len(found) > MOST_SHIFTS:
        notes.append(f"{len(found) - MOST_SHIFTS} more changes; `--format json` has all of them.")
    return Table(columns, tuple(rows), notes=tuple(notes))


def shift_row(row: ComparedRow, where: str) -> Row:
    """Return a row of the table of changes."""
    where = f"{row.arm} {where}"
    mark = "! " if row.worse else ""
    if not row.metric:
        said = "works again" if row.new is None else "fails"
        return Row((where, "", "", "", mark + said, "worse" if row.worse else ""), row.worse)
    said = "more" if row.outcome is CountOutcome.WORSE else str(row.outcome or row.verdict)
    if row.worse:
        said = "worse"
    elif row.note:
        said += ", accepted" if row.accepted else ", allowed"
    if row.outcome is None:
        return Row((where, label(row.metric), *amounts(row), ratio_value(row), said), row.worse)
    change = mark + " → ".join(amounts(row))
    return Row((where, label(row.metric), "", "", change, said), row.worse)


def reason(row: ComparedRow, where: str) -> str:
    """Return why a cell failed, or what the gate's author wrote of a shift; else nothing."""
    where = f"{row.arm} {where}"
    if row.metric:
        return f"{where}, {label(row.metric)}: {row.note}." if ": " in row.note else ""
    if row.new is None:
        return f"{where} no longer fails: it did ({row.base})."
    return f"{where} fails {'now' if row.base is None else 'on both sides'}: {row.new}"


def amounts(row: ComparedRow) -> tuple[str, str]:
    """Return the sides of a row: ratios to the baseline where these are compared, or amounts."""
    if row.base_ratio is not None:
        return str(Value(row.base_ratio)), str(Value(row.new_ratio))
    sides: tuple[Any, Any] = (row.base, row.new)
    return str(Value(sides[0], row.unit)), str(Value(sides[1], row.unit))


def ratio_value(row: ComparedRow) -> Value:
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
            rows.append(Row((name_of(cell), *values), worse))
        columns = [Column(label(metric, "\n"), number=True) for metric in metrics]
        title = f"{workload} on {backend}: new / base"
        table = Table((Column("style"), *columns), tuple(rows), title)
        yield Section(title, tables=(table,), folded=True)


def lacking(comparison: Comparison) -> Iterator[str]:
    """Yield what is not compared and why."""
    missing: dict[str, list[ComparedRow]] = {}
    for row in comparison.rows:
        if row.missing and not row.ignored:
            missing.setdefault(row.missing, []).append(row)
    for why, rows in missing.items():
        metrics = joined([label(metric) for metric in dict.fromkeys(row.metric for row in rows)])
        yield f"{counted(len(rows), 'row')} ({metrics}): {why}"
    ignored = sum(row.ignored for row in (*comparison.rows, *comparison.exact))
    if ignored:
        yield f"{counted(ignored, 'row')}: left out by the gate"
    for cells, side in ((comparison.only_base, "base"), (comparison.only_new, "new")):
        arms: dict[str, list[str]] = {}
        for cell in cells:
            arms.setdefault(cell.place, []).append(cell.arm)
        if arms:
            said = (f"{few(names, NAMED)} at {place}" for place, names in arms.items())
            yield f"Only in the {side} run: {'; '.join(said)}"


def conditions(comparison: Comparison) -> Iterator[str]:
    """Yield under which conditions both sides were measured, and what differs."""
    base, new = comparison.base[-1], comparison.new
    yield from dict.fromkeys(f"{one.machine}." for one in (base, new) if one.machine)
    same = [f"{n} {v}" for n, v in new.versions.items() if base.versions.get(n) == v and n != OWN]
    if same:
        yield f"Both sides: {', '.join(same)}."
    if comparison.differences:
        yield f"Differs: {'; '.join(map(str, comparison.differences))}."


def described(origin: Origin) -> str:
    """Return what a side is: its name, when it was measured, its commit."""
    about = [origin.when, origin.commit and f"commit {origin.commit}"]
    said = ", ".join(filter(None, about))
    return f"{origin.name} ({said})" if said else origin.name
