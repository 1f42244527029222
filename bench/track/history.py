"""What a history says: a table of changes, then a chart of each metric, then the rest, folded."""

from __future__ import annotations

import shlex
from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

import impls
from bench.cells import BASELINE
from bench.metrics import HOST, STEP, label
from bench.report.charts import lines
from bench.report.table import (
    Column,
    Document,
    Row,
    Section,
    Table,
    amount,
    change,
    percent,
    timed,
    words,
)
from bench.report.wording import few, joined, main_workload, place, sentence
from bench.stats.changes import ALPHA
from bench.track.conditions import moved
from bench.track.moves import NAMED, cells_words, moves_table
from bench.track.timeline import Timeline, is_rise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.cells import Cell
    from bench.estimates import Estimate
    from bench.report.charts import Figure
    from bench.runfile import Results

FIRST = 12
"""Changes that are read without asking for details."""
PACKAGES = ("jax", "flax", "dm-haiku", "equinox", "optax", "numpy")
"""Packages that have a column of their versions."""
SHARED = ("python", "jax", "jaxlib", "numpy", "optax")
"""Packages that are part of the times of every entrant."""


def document(results: Results) -> Document:
    """Return what a history says."""
    it = Timeline(results)
    changes = [_change_row(rows, it) for rows in it.changes]
    columns = (
        Column("what"),
        Column("change", number=True),
        Column("between"),
        Column("releases", needed=False),
        Column("styles", needed=False),
    )
    first, more = (Table(columns, tuple(rows)) for rows in (changes[:FIRST], changes[FIRST:]))
    counts = moves_table(it.moves, it.times)
    sections = [
        Section("What changed", tuple(_failures(it)), (first,) if first.rows else ()),
        Section("More changes", tables=(more,) if more.rows else (), folded=True),
        Section("Charts", figures=tuple(_charts(it))),
        Section(
            "Exact counts", tables=(counts,) if counts.rows else (), folded=len(counts.rows) > FIRST
        ),
        Section("Every series", tables=tuple(_series_tables(it)), folded=it.measured),
        Section("Releases, and what is missing", tables=(_releases_table(it),), folded=True),
    ]
    days = " to ".join(
        dict.fromkeys(it.times[name][:10] for name in it.moments[:1] + it.moments[-1:])
    )
    about = [_counted(len(it.moments), "stack" if it.measured else "run"), days]
    return Document(
        title=f"{days}: what became slower, and when",
        subtitle=", ".join([*about, *results.conditions.devices.values()]),
        headline=_headline(it),
        warnings=tuple(results.warnings),
        sections=tuple(section for section in sections if not section.empty),
        fine_print=tuple(_fine_print(it)),
    )


def _headline(it: Timeline) -> str:
    if not it.neighbours:
        return "Nothing could be compared: that takes a metric at two moments."
    count = _counted(len(it.changes), "change") if it.changes else "No change"
    first = f" {sentence(_sentence_of(it.changes[0], it))}" if it.changes else ""
    return f"{count} found in {_counted(len(it.neighbours), 'comparison')}.{first}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _change_row(rows: Sequence[Estimate], it: Timeline) -> Row:
    """Return changes that are alike as a row: what, by how much, when, why and of which styles."""
    first = rows[0]
    several = len({cell.backend for cell, _ in it.series}) > 1
    where = f"{place(first.cell.workload)}{f' on {first.cell.backend}' if several else ''}"
    when = " and ".join(it.times[moment] for moment in (first.against, first.environment))
    styles = few([row.cell.arm.words for row in rows], NAMED)
    what = f"{label(first.metric)} at {where}"
    return Row((what, growth(rows), when, causes(rows, it), styles), worse=is_rise(first))


def _sentence_of(rows: Sequence[Estimate], it: Timeline) -> str:
    what, by, when, why, styles = _change_row(rows, it).cells
    return f"{what} {by} between {when}{f' ({why})' if why else ''}: {styles}"


def growth(rows: Sequence[Estimate]) -> str:
    """Return by how much a cost rose or fell; one that more than doubled, to how many times.

    Examples are `rose by 30 % (20 to 41)`, `rose to 2.1–2.4 times` and `fell by 75 %`.
    """
    first, *_, last = sorted([rows[0], *rows], key=lambda row: abs(row.value))
    verb = "rose" if is_rise(first) else "fell"
    if first.form == "added":
        ends = dict.fromkeys(amount(abs(row.value), row.unit) for row in (first, last))
        return f"{verb} by {' to '.join(ends)}"
    if first.value >= 2:
        ends = dict.fromkeys(f"{row.value:.3g}" for row in (first, last))
        return f"rose to {'–'.join(ends)} times"
    if len(rows) == 1 and is_rise(first):
        return f"rose by {change(first)[1:]}"
    parts = sorted(abs(row.value - 1) for row in (first, last))
    ends = dict.fromkeys(percent(part).removesuffix(" %") for part in parts)
    return f"{verb} by {'–'.join(ends)} %"


def causes(rows: Sequence[Estimate], it: Timeline) -> str:
    """Return the releases and commits that differ between two moments and can be the cause.

    The libraries of other entrants than those whose change it is are no cause.
    """
    before, after = (it.results.environments[m] for m in (rows[0].against, rows[0].environment))
    ours = {_distribution(row.cell.entrant) for row in rows}
    others = {_distribution(name) for name in it.entrants()} - ours - {*SHARED}
    pairs = {n: p for n, p in moved(before.versions, after.versions).items() if n not in others}
    parts = [_versions_words(pairs)] if pairs else []
    if before.commit and after.commit and before.commit != after.commit:
        parts.append(f"commit {before.commit} → {after.commit}")
    if not parts and before.versions and after.versions:
        parts.append("with the same libraries")
    return "; ".join(parts)


def _distribution(entrant: str) -> str:
    known = entrant in impls.names()
    return (impls.declared(entrant).distribution if known else "") or entrant


def _versions_words(pairs: Mapping[str, tuple[str | None, str | None]]) -> str:
    return few([f"{n} {old or 'none'} → {new or 'none'}" for n, (old, new) in pairs.items()], NAMED)


def _failures(it: Timeline) -> Iterator[str]:
    """Yield the cells that failed at the newest moment that they took part in."""
    last: dict[Cell, str] = {}
    for (cell, _), rows in (*it.series.items(), *it.counts.items()):
        last[cell] = max(last.get(cell, ""), rows[-1].environment)
    reasons: dict[str, list[Cell]] = defaultdict(list)
    for row in it.results.cells:
        if row.failure is not None and row.environment > last.get(row.cell, ""):
            when = it.times.get(row.environment, row.environment)
            reasons[f"failed on {when}: {row.failure}"].append(row.cell)
    yield from (f"{cells_words(cells)} {what}" for what, cells in reasons.items())


def _groups(it: Timeline) -> Iterator[tuple[str, str, str, dict[Cell, list[Estimate]]]]:
    """Yield the series of each metric, workload and backend."""
    for (metric, workload, backend), rows in groupby(
        it.series, lambda row: (row[1], row[0].workload, row[0].backend)
    ):
        yield metric, workload, backend, {cell: it.series[cell, metric] for cell, _ in rows}


def _charts(it: Timeline) -> Iterator[Figure]:
    """Yield a chart for each metric, at the workload that is spoken about first."""
    places: dict[str, list[str]] = defaultdict(list)
    for cell, metric in it.series:
        places[metric].append(cell.workload)
    for metric, workload, backend, series in _groups(it):
        drawn = {
            cell.arm: {row.environment: row for row in rows}
            for cell, rows in series.items()
            if len(rows) > 1
        }
        if not drawn or workload != main_workload(places[metric]):
            continue
        here = [
            rows
            for rows in it.changes
            if (rows[0].metric, rows[0].cell.workload) == (metric, workload)
        ]
        title = f"{label(metric)} at {place(workload)}: no change found"
        title = sentence(_sentence_of(here[0], it) if here else title)[:-1]
        marks = sorted({rows[0].environment for rows in here})
        yield lines(f"{metric}-{workload}-{backend}", title, drawn, marks=marks)


def _series_tables(it: Timeline) -> Iterator[Table]:
    """Yield the series of each metric and workload: where each is now, and where it has been."""
    columns = (
        Column("style"),
        Column("newest", number=True),
        Column("first", number=True, needed=False),
        Column("range", number=True, needed=False),
        Column("moments", number=True, needed=False),
    )
    to = "the newest day" if it.measured else BASELINE.entrant
    for metric, workload, backend, series in _groups(it):
        rows = []
        for cell, points in series.items():
            by_value = sorted(points, key=lambda row: row.value)
            texts = dict.fromkeys(map(_value, (by_value[0], by_value[-1])))
            about = points[-1], _value(points[0]), " to ".join(texts), str(len(points))
            rows.append(Row((cell.arm.words, *about)))
        title = f"{label(metric)} at {place(workload)} on {backend}, relative to {to}"
        folded = metric not in (STEP, HOST)
        yield Table(columns, tuple(rows), sentence(title)[:-1], folded=folded)


def _value(row: Estimate) -> str:
    return (timed(row) if row.form == "ratio" else words(row)).partition(" (")[0]


def _releases_table(it: Timeline) -> Table:
    """Return the releases of each moment at which they changed, and what it lacks."""
    rows: list[Row] = []
    before: dict[str, str] = {}
    for moment, info in it.results.environments.items():
        if moment == it.results.base:
            continue
        pairs = moved(before, info.versions) if before and info.versions else {}
        also = {name: pair for name, pair in pairs.items() if name not in PACKAGES}
        if pairs or info.gaps or not before:
            texts = [_versions_words(also), *_gaps(info.gaps)]
            have = (info.versions.get(name, "") for name in PACKAGES)
            about = "; ".join(filter(None, texts))
            rows.append(Row((it.times.get(moment, moment), *have, about)))
        before = info.versions or before
    return Table((Column("from"), *map(Column, PACKAGES), Column("also")), tuple(rows))


def _gaps(gaps: Mapping[str, str]) -> Iterator[str]:
    """Yield what a moment lacks, in words; without a name it is the whole of it."""
    same: dict[str, list[str]] = defaultdict(list)
    for name, why in gaps.items():
        same[why].append(name or "could not be built")
    yield from (f"{joined(names)}: {why}" for why, names in same.items())


def _fine_print(it: Timeline) -> Iterator[str]:
    by = (
        "Each day took turns with the newest one."
        if it.measured
        else f"Values are relative to {BASELINE.entrant} in the same run; differences include how "
        "much the same code differs from run to run."
    )
    yield (
        f"{by} A change is a difference between neighbours that remains after Holm's correction: "
        f"the odds of any false one are {percent(ALPHA)}."
    )
    spent = it.results.spent
    if spent.processes:
        yield (
            f"It took {spent.wall_seconds:.0f} s, {spent.sampling_seconds:.0f} s of it for "
            f"samples, in {spent.processes} processes."
        )
    if it.results.arguments:
        yield f"To repeat it: `bakeoff {shlex.join(it.results.arguments)}`"
