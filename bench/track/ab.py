"""The document of a comparison: differences first, then all rows, then missing numbers."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import impls
from bench.environments.spec import PACKAGES
from bench.estimates import Estimate, group_by_key
from bench.metrics import HOST, HOST_PER_ARRAY, STEP, label
from bench.prepare.sides import IN_TURNS
from bench.report.table import Column, Document, Row, Section, Table, percent
from bench.report.wording import MOST_NAMED, join_words, name_few, suggest_more
from bench.runfile.releases import find_differing_releases
from bench.track.comparison import (
    BASE,
    CHANGED_SUFFIX,
    NEW,
    ORDER,
    Comparison,
    Status,
    cells_words,
    releases_words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.cells import Cell
    from bench.runfile import Results

MARKER = "<!-- bakeoff comparison -->"
COLOURS = {Status.NOT_WORSE: "good", Status.WORSE: "bad", Status.CANNOT_SAY: "open"}
MEASURED_NOTE = (
    "Both sides were measured now, their workers taking turns. In brackets: 95 % intervals over "
    "pairs of processes, corrected for all rows together, with most of the odds for steps and host "
    "costs."
)
JOINED_NOTE = (
    "Rows compare what each style costs relative to plain JAX in its own run, since seconds of two "
    "hours differ whatever the code does. In brackets: 95 % intervals, which include how much the "
    "same code differs from run to run, corrected for all rows together."
)


def document(results: Results) -> Document:
    """Return the document of a comparison."""
    it = Comparison(results)
    base, new = it.sides
    known = it.status is not Status.CANNOT_SAY
    return Document(
        title=f"{new.spec} beside {base.spec}",
        subtitle="\n".join(
            f"{name}: {side.spec}{f' (commit {side.commit[:10]})' if side.commit else ''}"
            for name, side in ((BASE, base), (NEW, new))
        ),
        headline=_headline(it),
        status=COLOURS[it.status],
        warnings=tuple(results.warnings),
        sections=(
            Section("Differences", tables=(*_times(it, it.differing_times), *_counts(it))),
            Section("What is computed", tuple(it.computation_sentences)),
            Section("Failures", tuple(_failures(it)), status="bad" if it.failures else ""),
            Section(
                "Without a certain difference", tables=_times(it, it.other_times), folded=known
            ),
            Section("Not compared", tuple(_explain_gaps(it))),
        ),
        fine_print=tuple(_fine_print(it)),
        marker=MARKER,
    )


def _headline(it: Comparison) -> str:
    """Return a comparison in a few sentences: the releases that changed, then the differences."""
    base, new = it.sides
    pairs = (
        find_differing_releases(base.versions, new.versions)
        if base.versions and new.versions
        else {}
    )
    subject = ", ".join(releases_words(pairs))
    worse = [_short_words(row, it) for row in it.differing_times if it.is_worse(row)]
    if it.failures:
        worse.append(f"{cells_words(row.cell for row in it.failures)} fails")
    worse += [_short_words(row, it) for row in it.costlier_counts]
    faster = [_short_words(row, it) for row in reversed(it.differing_times) if it.is_faster(row)]
    within = [
        _short_words(r, it)
        for r in it.differing_times
        if not it.is_worse(r) and not it.is_faster(r)
    ]
    parts = [
        f"{what}: {name_few(rows)}."
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
    host = HOST_PER_ARRAY if HOST_PER_ARRAY in it.limits else HOST
    limits = [it.limits[name] for name in (STEP, host) if name in it.limits]
    limits = limits or list(it.limits.values())[:1]
    if limits:
        parts.append(f"Changes above {join_words(limits)} would show.")
    if same := len(it.exact_pairs) - len(it.counts):
        parts.append(f"{same} exact counts are identical.")
    return " ".join([f"{subject}:" if subject else "", *parts]).strip()


def _short_words(row: Estimate, it: Comparison) -> str:
    """Return a difference in a few words: `haiku/pure step at seed +1.2 % (0.8 to 1.7)`."""
    return f"{row.cell.arm} {label(row.metric)} at {row.cell.workload} {it.difference(row)}"


def _times(it: Comparison, rows: Iterable[Estimate]) -> tuple[Table, ...]:
    """Return the table of some times, on both sides and as ratios; none without rows."""
    lines = []
    for row in rows:
        name = f"{row.cell.arm} at {row.cell.workload}"
        sides = (it.amount(side, row) for side in (BASE, NEW))
        lines.append(Row((name, label(row.metric), *sides, row), it.is_worse(row)))
    amounts = (Column(name, number=True, needed=False) for name in (BASE, NEW))
    columns = Column("cell"), Column("metric"), *amounts, Column("new / base")
    return (Table(columns, tuple(lines)),) if lines else ()


def _counts(it: Comparison) -> Iterator[Table]:
    """Yield the table of exact numbers that changed, with equal changes in one row."""
    if alike := group_by_key(((label(row.metric), it.difference(row)), row) for row in it.counts):
        counts = [
            Row(
                (f"{name} of {cells_words((r.cell for r in group), 1)}", by),
                group[0] in it.costlier_counts,
            )
            for (name, by), group in alike.items()
        ]
        yield Table((Column("count"), Column("change")), tuple(counts), "Exact counts that changed")


def _failures(it: Comparison) -> Iterator[str]:
    """Yield the cells that failed on one side or both, and why."""
    reasons: dict[str, list[Cell]] = defaultdict(list)
    for base, new in it.common_cells:
        if new.failure is not None:
            on_both = "" if base.failure is None else " on both sides"
            reasons[f"fails{on_both}: {new.failure}"].append(new.cell)
        elif base.failure is not None:
            reasons[f"fails no more: it did ({base.failure})"].append(new.cell)
    yield from (f"{cells_words(cells)} {what}" for what, cells in reasons.items())


def _explain_gaps(it: Comparison) -> Iterator[str]:
    """Yield the metrics and cells that are not compared, and why."""
    compared, other = {(row.cell, row.metric) for row in it.times}, {BASE: NEW, NEW: BASE}
    lacking: dict[tuple[str, Cell], dict[str, None]] = defaultdict(dict)
    for (name, cell), row in it.cells.items():
        opposite = it.cells.get((other[name], cell))
        for metric, why in row.missing.items():
            if (cell, metric) not in compared:
                on_both = opposite is not None and opposite.missing.get(metric) == why
                lacking[why if on_both else f"{why}, on the {name} side", cell][metric] = None
    alike: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for (why, cell), metrics in lacking.items():
        names = join_words([label(name) for name in sorted(metrics, key=ORDER.index)])
        alike[names, why].append(cell)
    yield from (f"{names} of {cells_words(cells)}: {why}" for (names, why), cells in alike.items())
    for name, info in zip(other, reversed(it.sides), strict=True):  # why the other one lacks it
        alone = [c for side, c in it.cells if side == name and (other[name], c) not in it.cells]
        if alone:
            gaps = {info.gaps.get(str(cell.arm)) or info.gaps.get(cell.entrant) for cell in alone}
            why = "; ".join(filter(None, gaps))
            yield f"Only on the {name} side: {cells_words(alone)}{f' ({why})' if why else ''}"


def _settling_command(it: Comparison) -> Iterator[str]:
    """Yield the command that settles the open rows of two files, if both sides can be built."""
    unsettled = [row for row in it.rows if not it.is_settled(row) and row.metric in IN_TURNS]
    base, new = it.sides
    pairs = find_differing_releases(base.versions, new.versions).items()
    pins = {name: pair for name, pair in pairs if name in PACKAGES and all(pair)}
    specs = [",".join(f"{name}=={pair[i]}" for name, pair in pins.items()) for i in (0, 1)]
    if not pins and base.commit != new.commit:
        specs = [base.commit, new.commit]  # revisions, each with its own lock
    if not unsettled or not all(specs) or any(CHANGED_SUFFIX in spec for spec in specs):
        return
    names = {
        "entrant": {row.cell.entrant for row in unsettled} & {*impls.names()},
        "workload": {row.cell.workload for row in unsettled},
        "metric": {row.metric for row in unsettled},
    }
    given = [
        f" --{what} {','.join(sorted(s))}" for what, s in names.items() if 0 < len(s) <= MOST_NAMED
    ]
    yield f"To settle what is open: `bakeoff ab --base {specs[0]} --new {specs[1]}{''.join(given)}`"


def _fine_print(it: Comparison) -> Iterator[str]:
    """Yield the method, the smallest changes that would show, and equal and differing releases."""
    yield MEASURED_NOTE if it.is_measured else JOINED_NOTE
    if it.limits:
        yield f"Smallest change that would show: {', '.join(it.limits.values())}."
    if it.is_measured:
        yield from suggest_more(it.times)
    else:
        yield from _settling_command(it)
    base, new = it.sides
    same = [f"{n} {v}" for n, v in new.versions.items() if base.versions.get(n) == v]
    if same:
        yield f"Both sides: {', '.join(same)}."
    pinned = all(side.pins for side in it.sides)
    pairs = find_differing_releases(*(side.pins if pinned else side.versions for side in it.sides))
    differing = [f"{name} {a or 'none'}, then {b or 'none'}" for name, (a, b) in pairs.items()]
    if differing:
        yield f"Differs: {'; '.join(differing)}."
