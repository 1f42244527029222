"""A project's own history: runs of many files as one time line for each machine.

Each run's ratios to its own baseline are compared along it: times of different hours differ by
several per cent where nothing has changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.compare import trends
from bench.compare.between_run_variance import BETWEEN, Variation
from bench.compare.filters import Filters
from bench.compare.run_scan import RunScan
from bench.compare.series import FAILURE, Numbers, Series, Timeline, changes, moves, order
from bench.metrics import METRICS, TINY, Kind
from bench.report.table import Document, Section
from bench.stats import windows
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from jaxtyping import Int

    from bench.compare.run_scan import Point, Progress
    from bench.compare.series import SeriesChange, SeriesKey

MOST_ERROR = 1.0
"""Standard error of a log-ratio that says anything."""


class KeptRuns(NamedTuple):
    """The time lines of all machines, and the files that were left out."""

    timelines: tuple[Timeline, ...]
    """The one with the newest run first."""
    problems: tuple[str, ...] = ()
    """Files that cannot be read, in sentences that name them."""
    notes: tuple[str, ...] = ()
    """Other remarks, in sentences."""

    @property
    def status(self) -> int:
        """The exit status: 1 where a file was skipped that may be a run."""
        return 1 if self.problems else 0


def kept_runs(
    folders: Sequence[Path],
    filters: Filters | None = None,
    *,
    usual: Sequence[str] = (),
    progress: Progress | None = None,
) -> KeptRuns:
    """Return the runs in folders and below as time lines.

    Args:
        folders: Hold run files; other files are passed over.
        filters: Which runs and series are shown.
        usual: Metrics that are shown where the filters name none; empty stands for all.
        progress: Shows how many files have been read.

    Raises:
        BakeoffError: a folder does not exist or holds no run, or no run passes the filters.
    """
    filters = filters or Filters()
    filters.check()
    where = f"--runs {', '.join(map(str, folders))}"
    scan = RunScan(lambda key: filters.takes(key, () if key.exact else usual))
    scan.read(folders, progress)
    notes = [
        f"{count} file{' that holds' if count == 1 else 's that each hold'} {what}"
        for count, what in (
            (scan.copies, "a run that is there already"),
            (scan.sides, "a stack of a history, or a side of an A/B"),
        )
        if count
    ]
    if not scan.moments:
        count = (
            f"none of {scan.files} JSON files is a run" if scan.files else "there is no JSON file"
        )
        also = [f" (the first problem: {scan.problems[0]})"] if scan.problems else []
        also += [f" ({note})" for note in notes]
        raise BakeoffError(
            f"{where}: {count}{''.join(also)}; give folders with what "
            "`pytest bench --benchmark-autosave` or --benchmark-json wrote"
        )
    check_names(filters, scan)
    timelines = [
        timeline
        for machine, runs in chosen_runs(filters, scan, where).items()
        if (timeline := of_machine(machine, runs, scan, filters, usual)) is not None
    ]
    if not timelines:
        raise BakeoffError(
            f"{where}: no run has what is asked for in all of the options at once; leave some out"
        )
    timelines.sort(key=lambda timeline: timeline.moments[-1].at, reverse=True)
    passed_over = tuple(f"Passed over: {note}." for note in notes)
    return KeptRuns(with_changes(timelines), tuple(scan.problems), passed_over)


def check_names(filters: Filters, scan: RunScan) -> None:
    """Raise BakeoffError if no run has a name that a filter gives."""
    keys = scan.present.values()
    for part, given in filters.names().items():
        known = {getattr(key, part) for key in keys if part != "metric" or key.metric != FAILURE}
        for name in given:
            if name not in known:
                raise unknown(part, name, sorted(filter(None, known)))
    machines = sorted({key.machine for key in keys})
    for given_part in filters.machines:
        if not any(given_part.casefold() in machine.casefold() for machine in machines):
            raise unknown("machine", given_part, machines)


def chosen_runs(filters: Filters, scan: RunScan, where: str) -> dict[str, list[int]]:
    """Return the numbers of the runs that are chosen by machine and time, in the order of time."""
    in_time = sorted(
        range(len(scan.moments)), key=lambda run: (scan.moments[run].at, scan.moments[run].path)
    )
    chosen: dict[str, list[int]] = {}
    for run in in_time:
        if filters.during(scan.moments[run].at):
            for machine in filter(filters.on, sorted(scan.machines[run])):
                chosen.setdefault(machine, []).append(run)
    if not chosen:
        first, last = (scan.moments[run].at for run in (in_time[0], in_time[-1]))
        raise BakeoffError(
            f"{where}: no run is of the time that is asked for; the {len(in_time)} there are from "
            f"{first} to {last}: give another --since or --until"
        )
    return chosen


def of_machine(
    machine: str, runs: Sequence[int], scan: RunScan, filters: Filters, usual: Sequence[str]
) -> Timeline | None:
    """Return the time line of a machine; None where none of its runs has a series that is shown.

    Args:
        machine: Its name.
        runs: Numbers of its runs, in the order of time.
        scan: Of all runs.
        filters: Which series are shown.
        usual: Metrics that are shown where the filters name none.
    """
    own = sorted((key for key in scan.points if key.machine == machine), key=order)
    shown = [key for key in own if filters.takes(key, usual)]
    having = {run for key in shown for run in scan.points[key]}
    kept = [run for run in runs if run in having][-(filters.last or 0) :]
    if not kept:
        return None
    series = [series_of(key, scan.points[key], kept) for key in own]
    moved = [move for each in series if each.key.exact for move in moves(each)]
    return Timeline(
        machine,
        moments=tuple(scan.moments[run] for run in kept),
        series=tuple(s for s in series if s.key in shown and (s.at.size or s.gaps)),
        moves=tuple(sorted(moved, key=lambda move: -move.after)),
    )


def series_of(key: SeriesKey, points: Mapping[int, Point], runs: Sequence[int]) -> Series:
    """Return the series of a key over some runs."""
    found = [(at, points[run]) for at, run in enumerate(runs) if run in points]
    known = [(at, point) for at, point in found if not isinstance(point, str)]
    numbers = np.array([point for _, point in known], float)
    return Series(
        key,
        np.array([at for at, _ in known], int),
        numbers.reshape(-1, len(Numbers._fields)),
        {at: point for at, point in found if isinstance(point, str)},
    )


def with_changes(timelines: Sequence[Timeline]) -> tuple[Timeline, ...]:
    """Return time lines with the changes of their series, the newest first.

    Summaries keep no proof, so arms with the baseline's own program, which vary less from run to
    run, are taken to vary as the others do. Exact metrics need no test.
    """
    known = {
        series.key: known_points(series)
        for timeline in timelines
        for series in timeline.series
        if not series.key.exact and series.compared and series.key.metric in METRICS
    }
    by_machine: dict[str, list[SeriesChange]] = {}
    for change in changes(known):
        by_machine.setdefault(change.key.machine, []).append(change)
    for several in by_machine.values():
        several.sort(key=lambda change: (-change.after, order(change.key)))
    return tuple(
        replace(timeline, changes=tuple(by_machine.get(timeline.name, ())))
        for timeline in timelines
    )


def known_points(series: Series) -> tuple[Int[np.ndarray, " known"], windows.Points]:
    """Return the points that have a ratio and its doubt, and what these vary by between runs."""
    names = ("ratio", "standard_error", "df")
    ratio, error, df = (series.column(name) for name in names)
    with np.errstate(invalid="ignore"):
        have = (ratio > 0) & np.isfinite(ratio) & (error < MOST_ERROR) & (df > 0)
    wobble = BETWEEN[variation(series.key)]
    shared = np.full(int(have.sum()), wobble.sd**2)
    values = np.log(ratio[have]), error[have] ** 2, df[have]
    return series.at[have], windows.Points(*values, shared, wobble.df)


def variation(key: SeriesKey) -> Variation:
    """Return how a series varies from run to run, as far as its name says it."""
    if key.metric == "peak_rss":
        return Variation.MEMORY
    if METRICS[key.metric].kind is Kind.COLD:
        return Variation.COLD
    if key.workload in TINY:
        return Variation.HOST
    return Variation.OTHER if key.cell.is_pure else Variation.SEVERAL


def document(found: KeptRuns, *, figures: bool = False) -> Document:
    """Return what time lines say.

    Args:
        found: The time lines.
        figures: Whether it is for a page, which has charts.
    """
    several = len(found.timelines) > 1
    parts: list[Section] = []
    for number, timeline in enumerate(found.timelines):
        machine = timeline.name if several else ""
        names = f"{number}-" if figures else None
        parts += trends.sections(timeline, machine=machine, names=names)
        parts += releases(timeline, machine)
    return Document(
        title="Time line",
        subtitle="\n".join(f"{t.name}: {trends.span(t)}" for t in found.timelines),
        headline=headline(found),
        warnings=tuple(f"skipped: {problem}" for problem in found.problems),
        sections=tuple(parts),
        fine_print=found.notes,
    )


def headline(found: KeptRuns) -> str:
    """Return how many times changed."""
    if all(len(timeline.moments) == 1 for timeline in found.timelines):
        return "One run of a machine: nothing to compare."
    count = sum(len(timeline.changes) for timeline in found.timelines)
    if not count:
        return "No time changed by more than runs of the same code differ."
    return f"{trends.counted(count, 'change')} of times, relative to the baseline."


def releases(timeline: Timeline, machine: str) -> Iterator[Section]:
    """Yield the section about the releases that runs were made with, if they ever changed."""
    names = trends.moments(timeline)
    rows = []
    for moment, changed in trends.releases(timeline):
        others = {name: pair for name, pair in changed.items() if name not in trends.PACKAGES}
        have = {name: pair[1] for name, pair in changed.items()}
        rows.append((names[moment], have, trends.versions_said(others, len(others))))
    if rows:
        title = f"Releases that runs were made with{f' on {machine}' if machine else ''}"
        folded = len(rows) > trends.FIRST
        table = trends.versions_table(rows[::-1], title, folded=folded)
        yield Section(title, tables=(table,))
