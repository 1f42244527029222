"""A history: estimates along time, their changes, and its document.

Each environment is a moment: a day, measured now beside the last day's stack, or a kept run,
compared with its own baseline. The same rule finds changes in both. The document has a table of
changes first, then a chart of each metric.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cache, cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import impls
from bench.cells import BASELINE, Cell
from bench.estimates import ALPHA, Estimate, group_by_key
from bench.metrics import HOST, HOST_PER_ARRAY, METRICS, STEP, label
from bench.report.charts import draw_lines
from bench.report.table import Column, Document, Figure, Row, Section, Table, change, percent
from bench.report.wording import (
    join_words,
    main_workload,
    name_few,
    place,
    pluralise,
    sentence,
    sort_workloads,
    suggest_more,
)
from bench.runfile import find_differing_releases
from bench.runfile.warnings import SHARED_PACKAGES
from bench.stats.changes import NO_SPREAD, find_shifts, find_spread
from bench.track.comparison import (
    ORDER,
    describe_by_reason,
    describe_releases,
    find_exact_changes,
    is_costlier,
    is_exact,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.runfile import EnvironmentInfo, Results

DAY, MINUTE = 10, 16
"""Number of characters of a time up to its day, and up to its minute."""
CHARTS = ("trace", "compile")
"""Metrics whose charts are shown unfolded, beside the step's and the host cost's; all charts are,
if none of these was measured."""
FIRST_CHANGES = 12
"""Number of changes that are shown unfolded."""
COLUMNS = Column("what"), Column("change", number=True), Column("between")
"""First columns of a table of changes; those of packages, of the commit and of styles follow."""
FACTOR = 2.0
"""Ratio from which a change is a factor, no longer a percentage."""
LEAST_SHARE = 0.01
"""Ratio below which a change is a fraction: 99.6 % less says little."""


class Timeline:
    """Views of the results of a history."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.is_measured = bool(results.base)
        """Whether its days were measured beside a reference; if not, its moments are kept runs."""
        base, against = results.base, results.base or str(BASELINE)
        rows = [r for r in results.estimates if r.environment != base and not r.cell.is_control]
        self.series = sort_series(r for r in rows if r.against == against and r.form == "ratio")
        """Cell and metric → comparisons along time."""
        self.counts = sort_series(filter(is_exact, rows))
        """Cell and metric → exact numbers along time."""
        points = [*self.series.values(), *self.counts.values()]
        present = {row.environment for rows in points for row in rows}
        self.moments = [name for name in results.environments if name in present]
        self.comparisons = sum(len(rows) - 1 for rows in points)
        """Number of neighbours in time that are compared."""
        self.backends = {cell.backend for cell, _ in (*self.series, *self.counts)}

    @cached_property
    def differences(self) -> list[Estimate]:
        """Differences of neighbouring stretches of one level; p is corrected for all places."""
        of_runs = (lambda _: NO_SPREAD) if self.is_measured else find_spread
        margin = self.results.options.margin
        return find_shifts(self.series.values(), of_runs, pooled=self.is_measured, margin=margin)

    @cached_property
    def changes(self) -> list[list[Estimate]]:
        """Changes in groups: of one metric and place, at one time, in one direction.

        The largest come first; in a history of runs, the newest. Exact numbers need no test.
        Metrics that decide nothing, such as the length of a program, are left out.
        """
        groups: dict[tuple[object, ...], list[Estimate]] = defaultdict(list)
        for row in (*self.differences, *find_exact_changes(self.counts.values())):
            if METRICS[row.metric].weight and not METRICS[row.metric].neutral:
                at = row.cell.workload if row.form == "ratio" else ""  # all sizes count alike
                what = row.metric, at, row.cell.backend
                groups[*what, row.against, row.environment, is_costlier(row)].append(row)
        if self.is_measured:
            return sorted(groups.values(), key=lambda rows: -max(map(find_factor, rows)))
        return sorted(groups.values(), key=lambda rows: rows[0].environment, reverse=True)

    def describe_place(self, cell: Cell) -> str:
        """Return a cell's workload in words, and its backend where there are several."""
        return f"{place(cell.workload)}{f' on {cell.backend}' if len(self.backends) > 1 else ''}"


def sort_series(rows: Iterable[Estimate]) -> dict[tuple[Cell, str], list[Estimate]]:
    """Return each cell's and metric's series along time: by metric, then by the model's size."""
    by_time = sorted(rows, key=lambda row: row.environment)
    series = group_by_key(((row.cell, row.metric), row) for row in by_time)
    sizes = sort_workloads(cell.workload for cell, _ in series)

    def rank(key: tuple[Cell, str]) -> tuple[object, ...]:
        cell, metric = key
        where = ORDER.index(metric), cell.backend, sizes.index(cell.workload)
        return *where, not cell.is_baseline, cell

    return {key: series[key] for key in sorted(series, key=rank)}


def find_factor(row: Estimate) -> float:
    """Return the factor of a change, at least 1; 0 for exact numbers, which come last."""
    return max(row.value, 1 / row.value) if row.form == "ratio" else 0.0


def describe_moment(moment: str) -> str:
    """Return the time of a moment: its day, or its minute where it is a run."""
    return moment[:MINUTE].replace("T", " ")


def document(results: Results) -> Document:
    """Return the document of a history."""
    it = Timeline(results)
    first, more = (
        (_make_table(part, it),) if part else ()
        for part in (it.changes[:FIRST_CHANGES], it.changes[FIRST_CHANGES:])
    )
    charts = dict(_draw_charts(it))
    host = HOST_PER_ARRAY if HOST_PER_ARRAY in charts else HOST
    shown = [name for name in (STEP, host, *CHARTS) if name in charts] or list(charts)
    others = tuple(figure for name, figure in charts.items() if name not in shown)
    ends = dict.fromkeys(name[:DAY] for name in it.moments[:1] + it.moments[-1:])
    days = " to ".join(ends)
    about = [pluralise(len(it.moments), "stack" if it.is_measured else "run"), days]
    return Document(
        title=f"{days}: what became slower, and when",
        subtitle=", ".join([*about, *results.conditions.devices.values()]),
        headline=_make_headline(it),
        warnings=tuple(results.warnings),
        sections=(
            Section("What changed", tuple(describe_by_reason(_find_failures(it))), first),
            Section("More changes", tables=more, folded=True),
            Section("Searches for the release", tuple(_list_searches(it)), folded=True),
            Section("Charts", figures=tuple(charts[name] for name in shown)),
            Section("More charts", figures=others, folded=True),
            Section("What is missing", tuple(_describe_gaps(it)), folded=True),
        ),
        fine_print=tuple(_explain_method(it)),
    )


def _make_headline(it: Timeline) -> str:
    if not it.comparisons:
        more = ", and a --budget for all of them" if it.is_measured else ""
        return f"Nothing could be compared: this needs a metric at two moments{more}."
    rows = [row for rows in it.changes for row in rows]
    kinds = [text for worse in (True, False) if (text := _summarise(rows, worse=worse))]
    if exact := sum(row.form != "ratio" for row in rows):
        kinds.append(pluralise(exact, "changed count"))
    count = join_words(kinds) or "No change"
    first = f" {sentence(_describe_changes(it.changes[0], it))}" if it.changes else ""
    late = {row.environment for row in it.results.cells if row.missing}
    late -= {it.results.base, *it.moments}
    rest = f" There was no time for {pluralise(len(late), 'day')}: give --budget." if late else ""
    return f"{count} found in {pluralise(it.comparisons, 'comparison')}.{first}{rest}"


def _summarise(rows: Iterable[Estimate], *, worse: bool) -> str:
    """Return how many times and sizes became worse or better, by how much, and the mean."""
    ratios = [r.value for r in rows if r.form == "ratio" and is_costlier(r) is worse]
    if not ratios:
        return ""
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))  # geometric
    what = f"{pluralise(len(ratios), 'change')} for the {'worse' if worse else 'better'}"
    return f"{what} ({describe_range(ratios)}, mean {describe_range([mean])})"


def _make_table(groups: Sequence[Sequence[Estimate]], it: Timeline) -> Table:
    """Return a row for each group of changes, with a column for each package that may be why."""
    differing = [find_differing(changes, it) for changes in groups]
    packages = dict.fromkeys(name for pairs in differing for name in pairs)
    rows = []
    for changes, pairs in zip(groups, differing, strict=True):
        releases = (
            f"{pairs[n][0] or 'none'} → {pairs[n][1] or 'none'}" if n in pairs else ""
            for n in packages
        )
        *first, styles = _describe_change(changes, it)
        cells = (*first, *releases, find_commits(changes, it), styles)
        rows.append(Row(cells, is_costlier(changes[0])))
    further = (Column(name, needed=False) for name in (*packages, "commit", "styles"))
    return Table((*COLUMNS, *further), tuple(rows)).drop_empty_columns()


def _describe_change(changes: Sequence[Estimate], it: Timeline) -> tuple[str, str, str, str]:
    """Return what changed in a group, by how much, when, and of which styles."""
    first = changes[0]
    between = " to ".join(map(describe_moment, (first.against, first.environment)))
    styles = name_few([str(row.cell.arm) for row in changes])
    places = [*dict.fromkeys(it.describe_place(row.cell) for row in changes)]
    what = f"{label(first.metric)} at {name_few(places)}"
    return what, describe_growth(changes), between, styles


def _list_searches(it: Timeline) -> Iterator[str]:
    """Yield for each change of a time or size the command that finds the release."""
    for changes in it.changes:
        if it.is_measured and METRICS[changes[0].metric].varies:
            what, by, between, _ = _describe_change(changes, it)
            yield f"{what}, {by}, {between}: `{write_search(changes[0])}`"


def write_search(change: Estimate) -> str:
    """Return the command that finds which release made a change."""
    cell, good, bad = change.cell, change.against, change.environment
    if not is_costlier(change):
        good, bad = bad, good
    metric = HOST if change.metric == HOST_PER_ARRAY else change.metric  # which needs two sizes
    backend = f" --backend {cell.backend}" * (cell.backend != "cpu")
    where = f"--workload {cell.workload}{backend} --entrant {cell.entrant} --style {cell.style}"
    return f"bakeoff bisect --metric {metric} {where} --good @{good} --bad @{bad}"


def _describe_changes(changes: Sequence[Estimate], it: Timeline) -> str:
    (what, by, between, styles), why = _describe_change(changes, it), find_causes(changes, it)
    return f"{what} {by}, {between}{f' ({why})' if why else ''}: {styles}"


def describe_growth(changes: Sequence[Estimate]) -> str:
    """Return by how much a cost changed: `+30 % (20 to 41)`; of several cells, `50 to 97 % more`.

    So a range over styles cannot be taken for an interval.
    """
    if len(changes) == 1:
        return change(changes[0])
    if changes[0].form == "ratio":
        return describe_range([row.value for row in changes])
    ends = sorted(changes, key=lambda row: abs(row.value))
    return " to ".join(dict.fromkeys(map(change, (ends[0], ends[-1]))))


def describe_range(ratios: Sequence[float]) -> str:
    """Return ratios on one side of 1 in words, as in `63 to 79 % less` and `2.1 times as much`."""
    if max(ratios) >= FACTOR:
        ends, rest = (f"{end:.3g}" for end in (min(ratios), max(ratios))), " times as much"
    elif max(ratios) < LEAST_SHARE:
        ends, rest = (f"1/{1 / end:.3g}" for end in (max(ratios), min(ratios))), " of it"
    else:
        parts = sorted(abs(ratio - 1) for ratio in ratios)
        ends = (percent(part).removesuffix(" %") for part in (parts[0], parts[-1]))
        rest = f" % {'more' if ratios[0] > 1 else 'less'}"
    return " to ".join(dict.fromkeys(ends)) + rest


def find_causes(changes: Sequence[Estimate], it: Timeline) -> str:
    """Return the releases and commits that differ between two moments and can be the cause."""
    pairs, commits = find_differing(changes, it), find_commits(changes, it)
    parts = [name_few(describe_releases(pairs))] if pairs else []
    parts += [f"commit {commits}"] if commits else []
    if not parts and all(info.versions for info in _find_sides(changes, it)):
        parts.append("with the same libraries")
    return "; ".join(parts)


def find_differing(
    changes: Sequence[Estimate], it: Timeline
) -> dict[str, tuple[str | None, str | None]]:
    """Return package → its releases before and after a change, if they differ and may be why.

    The libraries of entrants without such a change are no cause.
    """
    before, after = _find_sides(changes, it)
    changed = {_find_distribution(row.cell.entrant) for row in changes}
    others = {_find_distribution(cell.entrant) for cell, _ in (*it.series, *it.counts)} - changed
    return {
        name: pair
        for name, pair in find_differing_releases(before.versions, after.versions).items()
        if name in SHARED_PACKAGES or name not in others
    }


def find_commits(changes: Sequence[Estimate], it: Timeline) -> str:
    """Return the commits before and after a change, if they differ."""
    before, after = (info.commit for info in _find_sides(changes, it))
    return f"{before} → {after}" if before and after and before != after else ""


def _find_sides(changes: Sequence[Estimate], it: Timeline) -> list[EnvironmentInfo]:
    return [it.results.environments[m] for m in (changes[0].against, changes[0].environment)]


@cache
def _find_distribution(entrant: str) -> str:
    """Return the distribution of an entrant's library; its file is read once."""
    known = entrant in impls.names()
    return (impls.read_declaration(entrant).distribution if known else "") or entrant


def _find_failures(it: Timeline) -> Iterator[tuple[str, Cell]]:
    """Yield each failure later than its cell's last measured moment, with the cell."""
    last: dict[Cell, str] = {}
    for (cell, _), rows in (*it.series.items(), *it.counts.items()):
        last[cell] = max(last.get(cell, ""), rows[-1].environment)
    for row in it.results.cells:
        if row.failure is not None and row.environment > last.get(row.cell, ""):
            yield f"failed on {describe_moment(row.environment)}: {row.failure}", row.cell


def _draw_charts(it: Timeline) -> Iterator[tuple[str, Figure]]:
    """Yield metrics, each with its chart at the workload that sentences name first."""
    places = group_by_key((metric, cell.workload) for cell, metric in it.series)
    for (metric, at), keys in groupby(it.series, lambda key: (key[1], key[0].place)):
        cells = [cell for cell, _ in keys if len(it.series[cell, metric]) > 1]
        if not cells or cells[0].workload != main_workload(places[metric]):
            continue
        drawn = {
            cell.arm: {row.environment: row for row in it.series[cell, metric]} for cell in cells
        }
        here = [r for r in it.changes if (r[0].metric, r[0].cell.place) == (metric, at)]
        title = f"{label(metric)} at {it.describe_place(cells[0])}: no change found"
        title = sentence(_describe_changes(here[0], it) if here else title)[:-1]
        marks = sorted({rows[0].environment for rows in here})
        yield metric, draw_lines(title, drawn, marks=marks)


def _describe_gaps(it: Timeline) -> Iterator[str]:
    """Yield which libraries and styles moments lack, and why."""
    gaps = group_by_key(
        (f"{name or 'all'}: {why}", describe_moment(moment))
        for moment, info in it.results.environments.items()
        for name, why in info.gaps.items()
    )
    for gap, moments in gaps.items():
        yield f"{gap} ({name_few(moments)})"


def _explain_method(it: Timeline) -> Iterator[str]:
    by = (
        "Each day alternated with the newest one."
        if it.is_measured
        else f"Values are relative to {BASELINE} in the same run; differences include how "
        "much the same code differs from run to run."
    )
    yield (
        f"{by} A change is a step between two stretches that are steady, corrected for all days, "
        f"styles and metrics: the probability of any false one is {percent(ALPHA)}. Exact "
        "counts need no test."
    )
    if it.is_measured:
        yield from suggest_more(it.results.estimates)
    if it.results.arguments:
        yield f"To repeat it: `{it.results.make_command()}`"
