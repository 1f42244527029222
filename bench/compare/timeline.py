"""A project's own history: runs of many files as one time line for each machine.

Each run's ratios to its own baseline are compared along it: times of different hours differ by
several per cent where nothing has changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.cells import BASELINE
from bench.compare.between import BETWEEN, Kind
from bench.compare.filters import Filters
from bench.compare.series import FAILURE, Numbers, Series, Timeline, changes, moves, order
from bench.compare.summaries import found_files, summaries
from bench.metrics import METRICS, TINY
from bench.metrics import Kind as Sampling
from bench.stats import windows
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jaxtyping import Bool, Int

    from bench.compare.series import SeriesChange, SeriesKey
    from bench.compare.summaries import Progress, Summary
    from bench.report.table import Document, Section

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
    """Return the runs in folders and below as time lines, without reading known files again.

    Args:
        folders: Hold run files; other files are passed over.
        filters: Which runs and series are shown.
        usual: Metrics that are shown where the filters name none; empty stands for all.
        progress: Shows how many files have been read, when some have to be.

    Raises:
        BakeoffError: a folder does not exist or holds no run, or no run passes the filters.
    """
    filters = filters or Filters()
    filters.check()
    where = f"--runs {', '.join(map(str, folders))}"
    stamps, problems = found_files(folders)
    keys, found, notes = summaries(stamps, progress)
    problems += [each.problem for each in found.values() if each.kind == "damaged"]
    runs, left_out = distinct(found)
    if not runs:
        count = f"none of {len(found)} JSON files is a run" if found else "there is no JSON file"
        also = [f" (the first problem: {problems[0]})"] if problems else []
        also += [f" ({note})" for note in left_out]
        raise BakeoffError(
            f"{where}: {count}{''.join(also)}; give folders with what "
            "`pytest bench --benchmark-autosave` or --benchmark-json wrote"
        )
    points = PointTable(keys, runs)
    check_names(filters, points.present)
    timelines = [
        timeline
        for machine, inside in chosen_runs(filters, runs, where).items()
        if (timeline := of_machine(machine, inside, points, runs, filters, usual)) is not None
    ]
    if not timelines:
        raise BakeoffError(
            f"{where}: no run has what is asked for in all of the options at once; leave some out"
        )
    timelines.sort(key=lambda timeline: timeline.moments[-1].at, reverse=True)
    notes += [f"Passed over: {note}." for note in left_out]
    return KeptRuns(with_changes(timelines), tuple(problems), tuple(notes))


class PointTable:
    """All points of some runs, found by the place of their key.

    Args:
        keys: The table of keys.
        runs: In the order of time; points are numbered by them.
    """

    def __init__(self, keys: Sequence[SeriesKey], runs: Sequence[Summary]) -> None:
        at = np.frombuffer(b"".join(run.keys for run in runs), np.int32)
        numbers = np.frombuffer(b"".join(run.numbers for run in runs))
        self.numbers = numbers.reshape(-1, len(Numbers._fields))
        counts = [len(run.keys) // at.itemsize for run in runs]
        self.runs = len(runs)
        self.run = np.repeat(np.arange(self.runs), counts)
        self.order = np.argsort(at, kind="stable")  # by key, then in time
        self.ends = np.searchsorted(at, np.arange(len(keys) + 1), sorter=self.order)
        self.gaps: dict[int, dict[int, str]] = {}
        for number, run in enumerate(runs):
            for place, reason in run.gaps.items():
                self.gaps.setdefault(place, {})[number] = reason
        self.present = {
            place: key
            for place, key in enumerate(keys)
            if self.ends[place] < self.ends[place + 1] or place in self.gaps
        }
        """The keys that a run has a point of, or a gap."""

    def inside(self, place: int) -> Int[np.ndarray, " points"]:
        """Return the rows of a key's points."""
        return self.order[self.ends[place] : self.ends[place + 1]]

    def runs_with(self, places: Sequence[int]) -> Bool[np.ndarray, " runs"]:
        """Tell which runs have a point or a gap of one of these keys."""
        having = np.zeros(self.runs, bool)
        for place in places:
            having[self.run[self.inside(place)]] = True
            having[list(self.gaps.get(place, {}))] = True
        return having

    def series(self, place: int, positions: Int[np.ndarray, " runs"]) -> Series:
        """Return the series of a key.

        Args:
            place: Of the key.
            positions: Of each run on the line, -1 for a run that is not on it.
        """
        rows = self.inside(place)
        rows = rows[positions[self.run[rows]] >= 0]
        gaps = {
            int(positions[run]): reason
            for run, reason in self.gaps.get(place, {}).items()
            if positions[run] >= 0
        }
        return Series(self.present[place], positions[self.run[rows]], self.numbers[rows], gaps)


def distinct(found: dict[Path, Summary]) -> tuple[list[Summary], list[str]]:
    """Return each run once, in the order of time, and which files are left out.

    `--benchmark-json` beside `--benchmark-autosave` writes the same run twice.
    """
    runs = [found[path] for path in sorted(found) if found[path].kind == "run"]
    kept: dict[bytes, Summary] = {}
    for run in runs:
        kept.setdefault(run.digest, run)
    copies = len(runs) - len(kept)
    sides = sum(each.kind == "side" for each in found.values())
    notes = [f"{files(copies)} a run that is there already"] if copies else []
    notes += [f"{files(sides)} a stack of a history, or a side of an A/B"] if sides else []
    return sorted(kept.values(), key=lambda run: (run.moment.at, run.moment.path)), notes


def files(count: int) -> str:
    """Return the beginning of a sentence about the content of some files."""
    return "1 file that holds" if count == 1 else f"{count} files that each hold"


def check_names(filters: Filters, present: dict[int, SeriesKey]) -> None:
    """Raise BakeoffError if no run has a name that a filter gives."""
    for part, given in filters.names().items():
        for name in given:
            if all(getattr(key, part) != name for key in present.values()):
                known = {getattr(key, part) for key in present.values() if key.metric != FAILURE}
                raise unknown(part, name, sorted(filter(None, known)))


def chosen_runs(filters: Filters, runs: Sequence[Summary], where: str) -> dict[str, list[int]]:
    """Return the numbers of the runs that are chosen by machine and time, in the order of time."""
    machines = {machine for run in runs for machine in run.machines}
    for part in filters.machines:
        if not any(part.casefold() in machine.casefold() for machine in machines):
            raise unknown("machine", part, sorted(machines))
    chosen: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        for machine in run.machines if filters.during(run.moment.at) else ():
            if filters.on(machine):
                chosen.setdefault(machine, []).append(number)
    if not chosen:
        raise BakeoffError(
            f"{where}: no run is of the time that is asked for; the {len(runs)} there are from "
            f"{runs[0].moment.at} to {runs[-1].moment.at}: give another --since or --until"
        )
    return chosen


def of_machine(
    machine: str,
    inside: Sequence[int],
    points: PointTable,
    runs: Sequence[Summary],
    filters: Filters,
    usual: Sequence[str],
) -> Timeline | None:
    """Return the time line of a machine; None where none of its runs has a series that is shown.

    Args:
        machine: Its name.
        inside: Numbers of its runs, in the order of time.
        points: Of all runs.
        runs: All runs.
        filters: Which series are shown.
        usual: Metrics that are shown where the filters name none.
    """
    own = {place: key for place, key in points.present.items() if key.machine == machine}
    shown = [place for place, key in own.items() if filters.takes(key, usual)]
    having = points.runs_with(shown)
    kept = [number for number in inside if having[number]]
    if filters.last is not None:
        kept = kept[-filters.last :]
    if not kept:
        return None
    positions = np.full(len(runs), -1)
    positions[kept] = np.arange(len(kept))
    series = [points.series(place, positions) for place in shown]
    exact = [place for place, key in own.items() if key.exact and filters.takes(key)]
    moved = [move for place in exact for move in moves(points.series(place, positions))]
    return Timeline(
        machine,
        moments=tuple(runs[number].moment for number in kept),
        series=tuple(
            sorted((s for s in series if s.at.size or s.gaps), key=lambda each: order(each.key))
        ),
        moves=tuple(sorted(moved, key=lambda move: (-move.after, order(move.key)))),
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
    wobble = BETWEEN[kind(series.key)]
    shared = np.full(int(have.sum()), wobble.sd**2)
    values = np.log(ratio[have]), error[have] ** 2, df[have]
    return series.at[have], windows.Points(*values, shared, wobble.df)


def kind(key: SeriesKey) -> Kind:
    """Return how a series varies from run to run, as far as its name says it."""
    if key.metric == "peak_rss":
        return Kind.MEMORY
    if METRICS[key.metric].kind is Sampling.COLD:
        return Kind.COLD
    if key.workload in TINY:
        return Kind.HOST
    return Kind.OTHER if key.style == BASELINE[1] else Kind.SEVERAL


def document(found: KeptRuns, *, figures: bool = False) -> Document:
    """Return what time lines say.

    Args:
        found: The time lines.
        figures: Whether it is for a page, which has charts.
    """
    from bench.compare import trends
    from bench.report.table import Document

    several = len(found.timelines) > 1
    parts = []
    for number, timeline in enumerate(found.timelines):
        machine = timeline.name if several else ""
        names = f"{number}-" if figures else None
        parts += trends.sections(timeline, machine=machine, names=names)
        parts += releases(timeline, machine)
    count = sum(len(timeline.changes) for timeline in found.timelines)
    return Document(
        title="Time line",
        subtitle="\n".join(f"{t.name}: {trends.span(t)}" for t in found.timelines),
        headline=(
            f"{trends.counted(count, 'change')} of times, relative to the baseline."
            if count
            else "No time changed by more than runs of the same code differ."
        ),
        warnings=tuple(f"skipped: {problem}" for problem in found.problems),
        sections=tuple(parts),
        fine_print=found.notes,
    )


def releases(timeline: Timeline, machine: str) -> Iterator[Section]:
    """Yield the section about the releases that runs were made with, if they ever changed."""
    from bench.compare import trends
    from bench.report.table import Section

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
