"""What a comparison of two sides says: differences first, then all rows, then what is missing."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from bench.metrics import HOST, METRICS, STEP, label
from bench.report.charts import intervals
from bench.report.table import Column, Document, Row, Section, Table, change, percent
from bench.report.wording import few, joined, ordered, place, sentence
from bench.track.comparison import BASE, NEW, Comparison, Status
from bench.track.conditions import moved
from bench.track.moves import ORDER, cells_words, moves_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.cells import Cell
    from bench.estimates import Estimate
    from bench.report.charts import Figure
    from bench.runfile import Results

MARKER = "<!-- bakeoff comparison -->"
"""First line of the Markdown, by which a later comment finds the one that it replaces."""
NAMED = 3
"""Differences that a headline names; of more, their number is."""
FIRST = 2
"""Columns of a workload's table that a narrow terminal shows: a row is never split."""
MEASURED = (
    "Both sides were measured now, their workers taking turns. In brackets: 95 % intervals over "
    "pairs of processes, corrected for all rows of a metric at a workload."
)
JOINED = (
    "Rows compare what each style costs relative to plain JAX in its own run, since seconds of two "
    "hours differ whatever the code does. In brackets: 95 % intervals, which include how much the "
    "same code differs from run to run, corrected for all rows of a metric at a workload."
)


def document(results: Results) -> Document:
    """Return what a comparison says."""
    it = Comparison(results)
    base, new = it.sides
    sections = [
        Section("Differences", tuple(_counts(it)), (_difference_table(it),)),
        Section("Exact counts", tables=(moves_table(it.moves),) if it.moves else ()),
        Section("Failures", tuple(_failures(it)), status="bad" if it.failures else ""),
        *_matrices(it),
        Section("Intervals", figures=tuple(_charts(it))),
        Section("Not compared", tuple(_lacking(it))),
    ]
    return Document(
        title=f"{new.spec} beside {base.spec}",
        subtitle="\n".join(f"{name}: {_side(it, name)}" for name in (BASE, NEW)),
        headline=_headline(it),
        status={0: "good", 1: "bad", 2: "open"}[it.status],
        warnings=tuple(results.warnings),
        sections=tuple(section for section in sections if not section.empty),
        fine_print=(MEASURED if it.measured else JOINED, *_conditions(it)),
    )


def _headline(it: Comparison) -> str:
    """Return what a comparison comes to: the releases that changed, then what differs."""
    base, new = it.sides
    pairs = moved(base.versions, new.versions) if base.versions and new.versions else {}
    subject = ", ".join(f"{name} {a or 'none'} → {b or 'none'}" for name, (a, b) in pairs.items())
    worse = [_short(row) for row in it.differing if it.worse(row)]
    if it.failures:
        worse.append(f"{cells_words([row.cell for row in it.failures])} fails")
    for move in it.moves:
        if move.worse:
            where = cells_words([move.after.cell])
            worse.append(f"{label(move.after.metric)} of {where} {move.values}")
    faster = [_short(row) for row in reversed(it.differing) if it.faster(row)]
    within = [_short(r) for r in it.differing if not it.worse(r) and not it.faster(r)]
    parts = [
        f"{what}: {few(rows, NAMED)}."
        for what, rows in (
            ("Worse", worse),
            (f"Differs, within the margin of {percent(it.margin)}", within),
            ("Faster", faster),
        )
        if rows
    ]
    if not parts:
        known = it.status is not Status.CANNOT_SAY
        parts = ["No change found." if known else "Inconclusive: no row could be settled."]
    limits = [it.limits[name] for name in (STEP, HOST) if name in it.limits]
    limits = limits or list(it.limits.values())[:1]
    if limits:
        parts.append(f"Changes above {joined(limits)} would show.")
    if same := len(it.exact) - len(it.moves):
        parts.append(f"{same} exact counts are identical.")
    return " ".join([f"{subject}:" if subject else "", *parts]).strip()


def _short(row: Estimate) -> str:
    """Return a difference in a few words: `haiku step at seed +1.2 % (0.8 to 1.7)`."""
    return f"{row.cell.arm.words} {label(row.metric)} at {row.cell.workload} {change(row)}"


def _counts(it: Comparison) -> Iterator[str]:
    """Yield how many rows there are of each kind, and the change that each metric would show."""
    if it.times:
        inconclusive = sum(not it.settled(row) for row in it.times)
        rows = f"{len(it.times)} rows" if len(it.times) > 1 else "1 row"
        differ = sum(row.differs for row in it.times)
        yield f"{rows}: {differ} differ, {inconclusive} are inconclusive."
    if it.limits:
        yield f"Smallest change that would show: {', '.join(it.limits.values())}."


def _difference_table(it: Comparison) -> Table:
    columns = (
        Column("cell"),
        Column("metric"),
        Column("base", number=True, needed=False),
        Column("new", number=True, needed=False),
        Column("new / base"),
        Column("", needed=False),
    )
    rows = []
    for row in it.differing:
        name = f"{row.cell.arm.words} at {row.cell.workload}"
        sides = (it.amounts.get((side, row.cell, row.metric)) or "" for side in (BASE, NEW))
        within = not it.worse(row) and not it.faster(row)
        about = f"within the margin of {percent(it.margin)}" if within else ""
        rows.append(Row((name, label(row.metric), *sides, row, about), it.worse(row)))
    return Table(columns, tuple(rows))


def _matrices(it: Comparison) -> Iterator[Section]:
    """Yield the rows of each workload: a line for each style, a column for each metric."""
    for workload in ordered(row.cell.workload for row in it.times):
        here = {(r.cell, r.metric): r for r in it.times if r.cell.workload == workload}
        metrics = sorted({metric for _, metric in here}, key=ORDER.index)
        cells = dict.fromkeys(cell for cell, _ in here)
        rows = tuple(
            Row((cell.arm.words, *(here.get((cell, metric), "") for metric in metrics)))
            for cell in sorted(cells, key=lambda cell: not cell.is_baseline)
        )
        columns = [
            Column(label(metric, "\n"), help=METRICS[metric].help, needed=i < FIRST)
            for i, metric in enumerate(metrics)
        ]
        title = f"{place(workload)} on {it.results.backends[0]}: new / base"
        yield Section(title, tables=(Table((Column("style"), *columns), rows, title),))


def _charts(it: Comparison) -> Iterator[Figure]:
    """Yield a chart of intervals for each metric."""
    for metric in sorted({row.metric for row in it.times}, key=ORDER.index):
        rows = {
            f"{row.cell.arm.words} at {row.cell.workload}": row
            for row in it.times
            if row.metric == metric
        }
        differing = [name for name, row in rows.items() if row.differs]
        found = f"{few(differing, NAMED)} changed" if differing else "no change found"
        yield intervals(metric, sentence(f"{label(metric)}: {found}")[:-1], rows)


def _failures(it: Comparison) -> Iterator[str]:
    """Yield the cells that failed on one side or both, and why."""
    reasons: dict[str, list[Cell]] = defaultdict(list)
    for base, new in it.both:
        if new.failure is not None:
            on_both = "" if base.failure is None else " on both sides"
            reasons[f"fails{on_both}: {new.failure}"].append(new.cell)
        elif base.failure is not None:
            reasons[f"fails no more: it did ({base.failure})"].append(new.cell)
    yield from (f"{cells_words(cells)} {what}" for what, cells in reasons.items())


def _lacking(it: Comparison) -> Iterator[str]:
    """Yield what is not compared, and why."""
    reasons: dict[str, list[tuple[Cell, str]]] = defaultdict(list)
    compared = {(row.cell, row.metric) for row in it.times}
    for base, new in it.both:
        if base.failure is not None or new.failure is not None:
            continue
        for metric in METRICS:
            if (new.cell, metric) not in compared and (why := it.reason(base, new, metric)):
                reasons[why].append((new.cell, metric))
    for why, rows in reasons.items():
        metrics = sorted({metric for _, metric in rows}, key=ORDER.index)
        cells = list(dict.fromkeys(cell for cell, _ in rows))
        yield f"{joined([label(name) for name in metrics])} of {cells_words(cells)}: {why}"
    for name, other, info in ((BASE, NEW, it.sides[1]), (NEW, BASE, it.sides[0])):
        alone = [cell for side, cell in it.cells if side == name and (other, cell) not in it.cells]
        if alone:
            gaps = {info.gaps.get(str(cell.arm)) or info.gaps.get(cell.entrant) for cell in alone}
            why = "; ".join(filter(None, gaps))
            yield f"Only on the {name} side: {cells_words(alone)}{f' ({why})' if why else ''}"


def _side(it: Comparison, name: str) -> str:
    info = it.results.environments[name]
    return f"{info.spec} (commit {info.commit[:10]})" if info.commit else info.spec


def _conditions(it: Comparison) -> Iterator[str]:
    """Yield which releases both sides share, and all that differ."""
    base, new = it.sides
    same = [f"{n} {v}" for n, v in new.versions.items() if base.versions.get(n) == v]
    if same:
        yield f"Both sides: {', '.join(same)}."
    pins = [info.pins or info.versions for info in it.sides]
    pairs = (
        moved(*pins) if all(info.pins for info in it.sides) else moved(base.versions, new.versions)
    )
    differing = [f"{name} {a or 'none'}, then {b or 'none'}" for name, (a, b) in pairs.items()]
    if differing:
        yield f"Differs: {'; '.join(differing)}."
