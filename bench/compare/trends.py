"""What a time line says: sentences about its changes, and tables and charts of its series."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

import impls
from bench.compare.series import DAY, FAILURE, version_changes
from bench.metrics import label
from bench.report import wording
from bench.report.table import Column, Row, Section, Table, Value, amount, percent
from bench.runfile.reader import TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jaxtyping import Float, Int

    from bench.cells import Cell
    from bench.compare.series import Series, SeriesChange, SeriesKey, Timeline
    from bench.report.charts.figure import Figure

FIRST = 12
"""Sentences, and rows about exact metrics, that are read without asking for details."""
NAMED = 3
"""Cells, or libraries, that a sentence names."""
PACKAGES = ("jax", "flax", "dm-haiku", "equinox", "optax", "numpy")
"""That have a column of their versions."""
SHARED = ("python", "jax", "jaxlib", "numpy", "optax")
"""Distributions that are in the times of every entrant."""
SHORT = 10
"""Digits of a commit."""
LEVELS = "▁▂▃▄▅▆▇"
"""An odd number: what wobbles around the middle stays in it."""
BLOCKS = 24
"""Characters of a series as a line of blocks."""
HOURS = 0.1
"""By what part the same code's times may differ from hour to hour: they fill no more height."""
HALF = 4
"""Half-widths of an interval that fill the height, if nothing moved by more."""


def sections(
    timeline: Timeline, of: str = "", *, names: str | None = None, folded: bool = False
) -> Iterator[Section]:
    """Yield the sections of a time line: what changed, then each metric.

    Args:
        timeline: The series and their changes.
        of: What titles end with: ` on MACHINE`, where there are several.
        names: What the names of charts begin with; None for no charts.
        folded: Whether the tables of series are for those who look closer.
    """
    said = [*sentences(timeline), *failures(timeline)]
    moves = moves_table(timeline)
    yield Section(f"What changed{of}", tuple(said[:FIRST]), (moves,) if moves.rows else ())
    if said[FIRST:]:
        title = f"{counted(len(said) - FIRST, 'more change')}{of}"
        yield Section(title, tuple(said[FIRST:]), folded=True)
    for metric, several in groupby(groups(timeline), lambda group: group[0].key.metric):
        listed = list(several)
        figures: list[Figure | None] = []
        if names is not None:
            from bench.compare.trend_chart import figure

            figures = [figure(group, timeline, names) for group in listed]
        yield Section(
            f"{sentence(label(metric))}{of}",
            tables=tuple(series_table(group, timeline, of, folded=folded) for group in listed),
            figures=tuple(filter(None, figures)),
        )


def counted(count: int, what: str) -> str:
    """Return a number of things."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def sentence(text: str) -> str:
    """Return a text with a capital at its beginning."""
    return f"{text[:1].upper()}{text[1:]}"


def span(timeline: Timeline) -> str:
    """Return how many runs of which time."""
    days = dict.fromkeys(timeline.moments[i].at[:DAY] for i in (0, -1))
    return f"{counted(len(timeline.moments), 'run')}, {' to '.join(days)}"


def place(key: SeriesKey, timeline: Timeline, *, sized: bool = False) -> str:
    """Return where a metric was measured, with the size of the model if that is asked for."""
    if key.metric == TIME:
        return f"in {key.workload}"
    several = len({series.key.backend for series in timeline.series}) > 1
    workload = wording.sized(key.workload) if sized else key.workload
    return f"at {workload}{f' on {key.backend}' if several and key.backend else ''}"


def base(metric: str, timeline: Timeline) -> str:
    """Return what ratios of a metric are relative to."""
    return "the first of each group" if metric == TIME else timeline.base


def sentences(timeline: Timeline) -> Iterator[str]:
    """Yield the changes as sentences, one for all entrants that changed alike."""
    for several in alike(timeline.changes):
        first, names = several[0], [change.key.name for change in several]
        about = causes(first.before, first.after, timeline, {c.key.entrant for c in several})
        means = f", by the means of {first.width} before and after" if first.width > 1 else ""
        yield f"{amount_and_place(several, timeline)}{about}{means}: {', '.join(names)}."


def alike(found: Iterable[SeriesChange]) -> list[list[SeriesChange]]:
    """Return changes in groups: of one metric and place, at one time, in one direction."""
    groups: dict[tuple[object, ...], list[SeriesChange]] = defaultdict(list)
    for change in found:
        where = change.key.metric, change.key.workload, change.key.backend
        groups[*where, change.before, change.after, change.width, change.ratio > 1].append(change)
    return list(groups.values())


def amount_and_place(several: Sequence[SeriesChange], timeline: Timeline) -> str:
    """Return by how much a metric changed, where and when, in words."""
    first, names = several[0], timeline.times
    interval = (first.low, first.high) if len(several) == 1 else None
    return (
        f"{sentence(label(first.key.metric))} {place(first.key, timeline)} "
        f"{growth([change.ratio for change in several], interval)} "
        f"between {names[first.before]} and {names[first.after]}"
    )


def growth(ratios: Sequence[float], interval: tuple[float, float] | None = None) -> str:
    """Return by how much a cost rose or fell: in per cent, and from double or half by a factor.

    Examples: `rose by 30 % (20–41 %)`, `rose by a factor of 2.1–2.4`, `fell by 13–14 %`.

    Args:
        ratios: Of the later to the earlier cost, all above 1 or all below.
        interval: Of the only ratio.
    """
    factor = min(max(ratio, 1 / ratio) for ratio in ratios) >= 2

    def span(ends: tuple[float, float]) -> str:
        ordered = sorted(ends, key=lambda ratio: abs(math.log(ratio)))
        if factor:
            return "–".join(dict.fromkeys(f"{max(end, 1 / end):.3g}" for end in ordered))
        parts = dict.fromkeys(percent(abs(end - 1)).removesuffix(" %") for end in ordered)
        return f"{'–'.join(parts)} %"

    verb = "rose" if ratios[0] > 1 else "fell"
    by = f"{verb} by {'a factor of ' if factor else ''}{span((min(ratios), max(ratios)))}"
    return f"{by} ({span(interval)})" if interval else by


def causes(before: int, after: int, timeline: Timeline, entrants: Iterable[str]) -> str:
    """Return in brackets what is known to differ between two moments and can be the cause.

    The libraries of other entrants than those whose change it is are no cause.
    """
    old, new = timeline.moments[before], timeline.moments[after]
    others = {series.key.entrant for series in timeline.series} - {*entrants}
    own = {distribution(name) for name in entrants}
    foreign = {distribution(name) for name in others} - own - {*SHARED}
    moved = {
        name: change
        for name, change in version_changes(old.versions, new.versions).items()
        if name not in foreign
    }
    found = [versions_said(moved)] if moved else []
    if old.revision and new.revision and old.revision != new.revision:
        found.append(f"commit {old.revision[:SHORT]} → {new.revision[:SHORT]}")
    if not found and old.versions and new.versions:
        found.append("with the same libraries")
    return f" ({'; '.join(found)})" if found else ""


def distribution(entrant: str) -> str:
    """Return the distribution of an entrant's library, or its own name where it is not known."""
    known = entrant in impls.names()
    return (impls.declared(entrant).distribution if known else "") or entrant


def versions_said(changed: Mapping[str, tuple[str, str]], most: int = NAMED) -> str:
    """Return which libraries changed, in words."""
    said = [f"{library} {' → '.join(pair)}" for library, pair in [*changed.items()][:most]]
    more = len(changed) - most
    return ", ".join([*said, f"{more} more"] if more > 0 else said)


def failures(timeline: Timeline) -> Iterator[str]:
    """Yield which cells failed in the newest run they took part in."""
    newest: dict[Cell, int] = defaultdict(lambda: -1)
    for series in timeline.series:
        newest[series.key.cell] = max(newest[series.key.cell], *series.at.tolist(), -1)
    for series in timeline.series:
        if series.key.metric == FAILURE and (last := max(series.found)) > newest[series.key.cell]:
            where = f"{series.key.name} {place(series.key, timeline)}"
            yield f"{where} failed on {timeline.times[last]}: {series.found[last].missing}"


def moves_table(timeline: Timeline) -> Table:
    """Return where exact metrics changed, a row for all cells that changed alike."""
    alike: dict[tuple[str, int, int, tuple[float, float]], list[str]] = defaultdict(list)
    for move in timeline.moves:
        cell = f"{move.key.name} {place(move.key, timeline)}"
        alike[move.key.metric, move.before, move.after, move.values].append(cell)
    rows = []
    for (metric, before, after, values), cells in alike.items():
        said = " → ".join(amount(value, "count") for value in values)
        between = f"{timeline.times[before]} to {timeline.times[after]}"
        more = [f"{len(cells) - NAMED} more"] if len(cells) > NAMED else []
        where = wording.joined([*cells[:NAMED], *more])
        rows.append(Row((label(metric), said, between, where)))
    columns = (Column("metric"), Column("change"), Column("between"), Column("of"))
    return Table(columns, tuple(rows), "Exact metrics that changed", folded=len(rows) > FIRST)


def groups(timeline: Timeline) -> Iterator[list[Series]]:
    """Yield the series that are shown together: of one metric, backend and workload."""
    having = [s for s in timeline.series if s.key.metric != FAILURE and s.at.size]
    for _, group in groupby(having, lambda s: (s.key.metric, s.key.backend, s.key.workload)):
        yield list(group)


def series_table(group: Sequence[Series], timeline: Timeline, of: str, *, folded: bool) -> Table:
    """Return a row for each series of a group: where it is now, and where it has been."""
    key = group[0].key
    runs = np.unique(np.concatenate([series.at for series in group]))
    columns = (
        Column(""),
        Column("newest", number=True),
        Column("over time", needed=False),
        Column("range", number=True, needed=False),
        Column("points", number=True, needed=False),
        Column("newest on", needed=False),
    )
    rows = []
    for series in group:
        shape, count = blocks(series, runs, timeline), Value(series.at.size, "count")
        newest = series.key.name, series.value(-1)
        rows.append(Row((*newest, shape, reach(series), count, timeline.times[series.at[-1]])))
    ratios = any(series.compared for series in group)
    to = f", relative to {base(key.metric, timeline)}" if ratios else ""
    title = f"{sentence(label(key.metric))} {place(key, timeline, sized=True)}{of}{to}"
    return Table(columns, tuple(rows), title, folded=folded)


def reach(series: Series) -> str:
    """Return the least and the most, one of them where they read the same."""
    values = series.values[np.isfinite(series.values)]
    if not values.size:
        return ""
    return "–".join(dict.fromkeys(str(series.amount(v)) for v in (values.min(), values.max())))


def blocks(series: Series, runs: Int[np.ndarray, " runs"], timeline: Timeline) -> str:
    """Return a series as blocks, a place for each of `runs`; what is within its doubt is flat."""
    if runs.size < 2:
        return ""
    least = 0.0 if series.key.exact else HOURS
    if series.compared:
        ends = np.array([series.column("low"), series.column("high")])
        halves = np.diff(np.log(ends[:, (ends > 0).all(0)]), axis=0) / 2
        doubt = HALF * float(np.median(halves)) if halves.size else HOURS
        least = max(2 * timeline.moments[-1].margin, doubt)
    return sparkline(series.values, np.searchsorted(runs, series.at), runs.size, least)


def sparkline(
    values: Float[np.ndarray, " points"],
    at: Int[np.ndarray, " points"],
    places: int,
    least: float,
) -> str:
    """Return values as a line of blocks, a blank where there is none.

    Several places share a character, as their mean, where there are more than `BLOCKS`. The scale
    is logarithmic if all values are positive.

    Args:
        values: NaN where there is none.
        at: The place of each value.
        places: Of the whole line.
        least: Distance, of logarithms if they are taken, that fills the height at least.
    """
    there = np.isfinite(values)
    if not there.any():
        return ""
    heights = values[there]
    if (heights > 0).all():
        heights = np.log(heights)
    width = min(BLOCKS, places)
    columns = at[there] * width // places
    counts = np.bincount(columns, minlength=width)
    sums = np.bincount(columns, heights, minlength=width)
    means = np.divide(sums, counts, out=np.full(width, np.nan), where=counts > 0)
    low, high = np.nanmin(means), np.nanmax(means)
    extra = max(0.0, least - (high - low)) / 2
    low, high = low - extra, high + extra
    scale = (len(LEVELS) - 1) / (high - low) if high > low else 0.0
    middle = (len(LEVELS) - 1) // 2 if not scale else 0
    return "".join(
        " " if np.isnan(mean) else LEVELS[middle + round((mean - low) * scale)] for mean in means
    )


def versions_table(
    rows: Iterable[tuple[str, Mapping[str, str], str]], title: str, *, folded: bool
) -> Table:
    """Return which versions there were when: rows of that, and what else is to be said."""
    made = tuple(Row((at, *(have.get(n, "") for n in PACKAGES), note)) for at, have, note in rows)
    columns = (Column("from"), *map(Column, PACKAGES), Column("also"))
    return Table(columns, made, title, folded=folded)
