"""The document of a history: a table of changes first, then a chart of each metric.

Each environment is a moment: a day, measured together with the last day's stack, or a kept run,
compared with its own baseline. The same rule finds changes in both.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.cells import BASELINE
from bench.estimates import ALPHA, MARGIN, find_detectable_difference, group_by_key
from bench.metrics import HOST, HOST_PER_ARRAY, METRICS, STEP, label
from bench.numbers import percent, range_words, several_words, words
from bench.report.charts import draw_lines
from bench.report.sentences import LARGEST_LIMIT, describe_by_reason, suggest_more
from bench.report.table import Column, Document, Row, Section, Table
from bench.track.comparison import is_costlier
from bench.track.run_files import ON_ALL_CORES, list_known_commits
from bench.track.timeline import Timeline
from bench.wording import (
    describe_releases,
    join_words,
    main_workload,
    name_few,
    pluralise,
    sentence,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.cells import Arm, Cell
    from bench.estimates import Estimate
    from bench.report.table import Figure
    from bench.runfile import Results, SearchRecord
    from bench.track.timeline import Change

DAY, MINUTE = 10, 16
"""Number of characters of a time up to its day, and up to its minute."""
CHARTS = ("trace", "compile")
"""Metrics whose charts are shown unfolded, as are those of the step and the host cost. If none of
these was measured, all charts are shown unfolded."""
FIRST_CHANGES = 12
"""Number of changes that are shown unfolded."""
COLUMNS = (
    Column("release", help="found by a search; else all that differ, likeliest first", wraps=True),
    Column("effect", wraps=True, coloured=True),
    Column("between", wraps=True),
)
"""Columns of a table of changes."""
SERIES_COLUMNS = (
    Column("series"),
    Column("over time", help="lowest: smallest value; highest: largest value; a dot: no value"),
    Column("last / first", number=True),
    Column("would show", number=True, help="smallest change from first to last found in 4 of 5"),
)
FIRST_SERIES = 12
"""Number of series that are shown unfolded."""
BLOCKS, NO_VALUE = "▁▂▃▄▅▆▇█", "·"
MOST_STYLES = 2
"""Most styles that are named; more are counted."""
MOST_RELEASES, MOST_EFFECTS = 3, 2
"""Most releases, and effects of each, that the headline names."""
END_METRICS = STEP, HOST, "compile", "first_step"
"""Metrics whose change from the first day to the last is reported; the headline has the first."""


def describe_moment(moment: str) -> str:
    """Return the time of a moment: its day, or its minute where it is a run."""
    return moment[:MINUTE].replace("T", " ")


def describe_history(results: Results, searches: Iterable[SearchRecord] = ()) -> Document:
    """Return the document of a history; searches name the releases of its changes."""
    it = Timeline(results, searches)
    changes = it.distinct_changes
    first, more = (
        (_make_changes_table(part, it),) if part else ()
        for part in (changes[:FIRST_CHANGES], changes[FIRST_CHANGES:])
    )
    charts, series = dict(_draw_charts(it)), _make_series_table(it)
    host = HOST_PER_ARRAY if HOST_PER_ARRAY in charts else HOST
    shown = [name for name in (STEP, host, *CHARTS) if name in charts] or list(charts)
    others = tuple(figure for name, figure in charts.items() if name not in shown)
    ends = dict.fromkeys(name[:DAY] for name in it.moments[:1] + it.moments[-1:])
    days = " to ".join(ends)
    commits = list_known_commits(results.environments[moment] for moment in it.moments)
    of = f" of {len(commits)} commits" if len(commits) > 1 else ""
    about = [pluralise(len(it.moments), "stack" if it.is_measured else "run") + of, days]
    return Document(
        title=f"{days}: what became slower, and when",
        subtitle=", ".join([*about, *results.conditions.devices.values()]),
        headline=_make_headline(it),
        warnings=tuple(results.warnings),
        sections=(
            Section(
                "What changed",
                (
                    *describe_by_reason(_find_failures(it)),
                    *describe_by_reason(
                        (f"({label(n)}): {ON_ALL_CORES}", c) for c, n in it.untested
                    ),
                    *_count_changes(it),
                    *_compare_days(it, 0),
                ),
                first,
            ),
            Section("More changes", tables=more, folded=True),
            Section("Searches for the release", tuple(_list_searches(it)), folded=True),
            Section("Charts", figures=tuple(charts[name] for name in shown)),
            Section("More charts", figures=others, folded=True),
            Section("Series", tables=(series,), folded=len(series.rows) > FIRST_SERIES),
            Section("What is missing", tuple(_describe_gaps(it)), folded=True),
        ),
        fine_print=tuple(_explain_method(it)),
    )


def _make_headline(it: Timeline) -> str:
    """Return what releases changed, how the ends differ, what is untested and what had no time.

    If releases and ends say nothing, as with kept runs, it is the newest change.
    """
    if not it.comparisons:
        why = ON_ALL_CORES if it.untested else "a comparison needs a metric at two moments"
        return " ".join(filter(None, [f"Nothing could be compared: {why}.", _ask_for_time(it)]))
    parts = [*_name_releases(it), *_compare_days(it, 1)]
    if not parts and it.changes:
        change = it.changes[0]
        what, styles, by, between = describe_change(change, it)
        why = name_few(list_causes(change, it))
        parts = [sentence(f"{what}: {by}, {between}{f' ({why})' * bool(why)}; {styles}")]
    rest = ""
    if it.untested:
        rest = f"{len(it.untested)} of {len(it.series)} times are {ON_ALL_CORES}."
    return " ".join(filter(None, [*(parts or ["No change was found."]), rest, _ask_for_time(it)]))


def _name_releases(it: Timeline) -> Iterator[str]:
    """Yield the effects of the releases that searches found, the largest effects first.

    Effects that a later release undid come last.
    """
    lasting = sorted(it.changes, key=lambda change: bool(change.repair))
    effects = [effect for change in lasting for effect in it.find_effects(change.rows)]
    releases = group_by_key((e.release, _describe_effect(e.row, it)) for e in effects)
    for release, texts in [*releases.items()][:MOST_RELEASES]:
        yield f"{release} made {join_words([*dict.fromkeys(texts)][:MOST_EFFECTS])}."
    if rest := [*releases][MOST_RELEASES:]:
        yield sentence(f"searches also found {name_few(rest)}")


def _describe_effect(row: Estimate, it: Timeline) -> str:
    """Return what a release did, and where: `the step 81 % shorter (width 128)`."""
    where = [it.describe_place(row.cell)]
    where += [f"{row.cell.arm}"] if not row.cell.is_baseline else []
    growth = range_words([row.value], METRICS[row.metric].unit)
    return f"the {label(row.metric)} {growth} ({', '.join(where)})"


def _compare_days(it: Timeline, most: int) -> Iterator[str]:
    """Yield how the last day's stack differs from the first one's, in a sentence."""
    ends = [*_compare_ends(it)] if it.is_measured and it.comparisons else []
    if ends:
        yield f"From {it.moments[0]} to {it.moments[-1]}, {'; '.join(ends[: most or None])}."


def _ask_for_time(it: Timeline) -> str:
    """Return for how many days there was no time, and the budget for all; or nothing.

    A day takes what each of the others took, on average.
    """
    late = _find_late(it)
    if not late:
        return ""
    measured = len(it.moments)
    needed = it.results.spent.wall_seconds * (1 + len(late) / max(1, measured))
    return (
        f"There was no time for {len(late)} of {pluralise(len(late) + measured, 'day')}: give a "
        f"--budget of {float(f'{needed:.1e}'):.0f} or more."
    )


def _find_late(it: Timeline) -> set[str]:
    """Return the days for which there was no time."""
    late = {row.environment for row in it.results.cells if row.missing}
    return late - {it.results.base, *it.moments}


def _compare_ends(it: Timeline) -> Iterator[str]:
    """Yield how a metric of a measured history differs between the first day and the last."""
    metrics = group_by_key(
        ((row.metric, row.cell.backend), row)
        for row in it.last_to_first
        if row.metric in END_METRICS
    )
    for (metric, _), rows in metrics.items():
        workload = main_workload(row.cell.workload for row in rows)
        here = [row for row in rows if row.cell.workload == workload and row.differs]
        measured = it.list_arms(metric, {row.place for row in here})
        parts = []
        for worse in (True, False):
            if of_direction := [row for row in here if is_costlier(row) is worse]:
                arms = [row.cell.arm for row in of_direction]
                styles = f" ({_name_styles(arms, measured)})" if len(arms) < len(measured) else ""
                parts.append(f"{several_words(of_direction)}{styles}")
        if parts:
            yield f"{label(metric)} at {it.describe_place(here[0].cell)}: {', '.join(parts)}"


def _count_changes(it: Timeline) -> Iterator[str]:
    """Yield how many changes there are for the worse and for the better, and how large they are."""
    rows = [row for change in it.distinct_changes for row in (*change.rows, *change.repair)]
    kinds = [text for worse in (True, False) if (text := _summarise(rows, worse=worse))]
    if exact := sum(row.form != "ratio" for row in rows):
        kinds.append(pluralise(exact, "changed count"))
    if it.comparisons:
        count = join_words(kinds) or "No change"
        yield f"{count} found in {pluralise(it.comparisons, 'comparison')}."


def _summarise(rows: Iterable[Estimate], *, worse: bool) -> str:
    """Return how many times and sizes became worse or better, by how much, and the mean."""
    ratios = [r.value for r in rows if r.form == "ratio" and is_costlier(r) is worse]
    if not ratios:
        return ""
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))  # geometric
    what = f"{pluralise(len(ratios), 'change')} for the {'worse' if worse else 'better'}"
    return f"{what} ({range_words(ratios)}, mean {range_words([mean])})"


def _make_changes_table(changes: Sequence[Change], it: Timeline) -> Table:
    """Return a row for each change: the release, or all that differ; what it did; and when."""
    rows = []
    for change in changes:
        what, styles, by, between = describe_change(change, it)
        end = change.repair[0].environment if change.repair else ""
        undone = f"; undone by {describe_moment(end)}" if end else ""
        effect = f"{what}: {by}; {styles}{undone}"
        worse = is_costlier(change.first)
        rows.append(Row((", ".join(list_causes(change, it)), effect, between), worse=worse))
    return Table(COLUMNS, tuple(rows)).drop_empty_columns()


def list_causes(change: Change, it: Timeline) -> list[str]:
    """Return the releases that searches found, with their effects; else all that differ.

    If a later change undid this one, its release is named, too. The likeliest cause comes first.
    """
    if parts := [f"{e.release}: {words(e.row)}" for e in it.find_effects(change.rows)]:
        return parts + [f"undone by {e.release}" for e in it.find_effects(change.repair)]
    releases = describe_releases(it.find_differing(change.rows))
    commits = it.find_commits(change.rows)
    return releases + [f"commit {commits}"] * bool(commits)


def describe_change(change: Change, it: Timeline) -> tuple[str, str, str, str]:
    """Return what changed, of which styles, by how much, and when."""
    first = change.first
    between = " to ".join(map(describe_moment, (first.against, first.environment)))
    measured = it.list_arms(first.metric, {row.place for row in change.rows})
    styles = _name_styles([row.cell.arm for row in change.rows], measured)
    places = [*dict.fromkeys(it.describe_place(row.cell) for row in change.rows)]
    what = f"{label(first.metric)} at {name_few(places)}"
    return what, styles, several_words(change.rows), between


def _name_styles(arms: Iterable[Arm], measured: Iterable[Arm]) -> str:
    """Return some of the measured styles in a few words."""
    named, others = dict.fromkeys(arms), dict.fromkeys(measured)
    rest = [arm for arm in others if arm not in named]
    if len(named) <= MOST_STYLES:
        return join_words([*map(str, named)])
    if len(rest) <= 1:
        return f"all but {rest[0]}" if rest else f"all {len(named)} styles"
    return f"{len(named)} of {len(others)} styles"


def _list_searches(it: Timeline) -> Iterator[str]:
    """Yield for each change of a time or size the command that finds the release."""
    for change in it.distinct_changes:
        if it.is_measured and METRICS[change.first.metric].varies:
            what, _, by, between = describe_change(change, it)
            yield f"{what}, {by}, {between}: `{write_search(change.first)}`"


def write_search(change: Estimate) -> str:
    """Return the command that finds which release made a change."""
    cell, good, bad = change.cell, change.against, change.environment
    if not is_costlier(change):
        good, bad = bad, good
    metric = HOST if change.metric == HOST_PER_ARRAY else change.metric  # which needs two sizes
    backend = f" --backend {cell.backend}" * (cell.backend != "cpu")
    where = f"--workload {cell.workload}{backend} --entrant {cell.entrant} --style {cell.style}"
    return f"bakeoff bisect --metric {metric} {where} --good @{good} --bad @{bad}"


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
        against = str(BASELINE)
        if it.is_measured:
            against = it.results.environments[it.results.base].spec.removeprefix("@")
        drawn = {
            cell.arm: {
                row.environment: replace(row, against=against) for row in it.series[cell, metric]
            }
            for cell in cells
        }
        here = [c for c in it.changes if (c.first.metric, c.first.cell.place) == (metric, at)]
        title = f"{label(metric)} at {it.describe_place(cells[0])}: no change found"
        ends = it.last_to_first if it.is_measured else []  # runs differ by more than their errors
        limit = find_detectable_difference(
            row for row in ends if (row.metric, row.cell.place) == (metric, at)
        )
        if math.isfinite(limit):
            title += f"; {percent(limit, up=True)} between the first day and the last would show"
        if here:
            what, styles, by, between = describe_change(here[0], it)
            title = f"{what}: {by}, {between}; {styles}"
        marks = {
            rows[0].environment: join_words(
                [*dict.fromkeys(e.release for e in it.find_effects(rows))]
            )
            for change in here
            for rows in (change.rows, change.repair)
            if rows
        }
        yield metric, draw_lines(sentence(title)[:-1], drawn, marks=marks)


def _make_series_table(it: Timeline) -> Table:
    """Return a row for each series: a line of its values, its ends, what would show."""
    is_known = it.is_measured and bool(it.series)
    ends = {(row.cell, row.metric): row for row in it.last_to_first} if is_known else {}
    rows = []
    for (cell, metric), points in it.series.items():
        if len(points) < 2:
            continue
        end = ends.get((cell, metric))
        limit = find_detectable_difference([end]) if end else math.inf
        name = f"{cell.arm} {label(metric)} at {it.describe_place(cell)}"
        shown = percent(limit, up=True) if limit <= LARGEST_LIMIT else ""
        rows.append(Row((name, draw_line(points, it.moments), words(end) if end else "", shown)))
    return Table(SERIES_COLUMNS, tuple(rows)).drop_empty_columns()


def draw_line(points: Sequence[Estimate], moments: Sequence[str]) -> str:
    """Return a series as a line of blocks, one for each moment; a dot where it has no value.

    The lowest block is the smallest value, the highest the largest. If all values differ by less
    than the margin, all blocks have the same height.
    """
    logs = {row.environment: math.log(row.value) for row in points}
    low, high = min(logs.values()), max(logs.values())
    if high - low < math.log1p(MARGIN):
        return "".join(BLOCKS[3] if name in logs else NO_VALUE for name in moments)
    steps = len(BLOCKS) - 1
    heights = {name: round(steps * (log - low) / (high - low)) for name, log in logs.items()}
    return "".join(BLOCKS[heights[name]] if name in heights else NO_VALUE for name in moments)


def _describe_gaps(it: Timeline) -> Iterator[str]:
    """Yield which libraries and styles moments lack, and why."""
    gaps = group_by_key(
        (f"{name or 'all'}: {why}", describe_moment(moment))
        for moment, info in it.results.environments.items()
        for name, why in info.gaps.items()
    )
    late = _find_late(it)
    reasons = group_by_key(
        (f"{describe_moment(row.environment)}: {why}", label(metric))
        for row in it.results.cells
        if row.environment in late
        for metric, why in row.missing.items()
    )
    for gap, moments in gaps.items():
        yield f"{gap} ({name_few(moments)})"
    for reason, metrics in reasons.items():
        yield f"{reason}: {name_few(list(dict.fromkeys(metrics)))}"


def _explain_method(it: Timeline) -> Iterator[str]:
    by = (
        "Each day's stack alternated with the newest one."
        if it.is_measured
        else f"Values are relative to {BASELINE} in the same run; tests allow for the variation of "
        "the same code from run to run."
    )
    yield (
        f"{by} A change is a jump between two steady periods. Over all days, styles and metrics, "
        f"the probability of any false change is {percent(ALPHA)}. Exact counts need no test."
    )
    if len(list_known_commits(map(it.results.environments.__getitem__, it.moments))) > 1:
        yield "Runs of different commits form one series: a change may come from this project."
    if it.is_measured:
        yield "The first and the last day are compared separately, corrected for all metrics."
        yield from suggest_more(it.results.estimates)
    if it.results.arguments:
        yield f"To repeat it: `{it.results.make_command()}`"
