"""A project's own history: runs of many files as one time line for each machine.

Each run's ratios to its own baseline are compared along it: times of different hours differ by
several per cent where nothing has changed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.compare import trends, windows
from bench.compare.between_run_variance import BETWEEN, Variation
from bench.compare.run_scan import RunScan
from bench.compare.series import DAY, FAILURE, Series, Timeline, moves, order
from bench.metrics import METRICS, TINY, Kind
from bench.report.table import Document, Section
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from bench.compare.run_scan import Progress
    from bench.compare.series import Moment, Point, SeriesKey
    from bench.report.table import Table

MOST_ERROR = 1.0
"""Standard error of a log-ratio that says anything."""


@dataclass(frozen=True)
class Filters:
    """Which runs and series are shown; empty stands for everything."""

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By part of a key: `entrant`, `style`, `workload`, `metric`."""
    machines: tuple[str, ...] = ()
    """Parts of their names, in any case."""
    since: date = date.min
    until: date = date.max
    """All of it is included (UTC)."""
    last: int | None = None
    """Number of runs of each machine, the newest ones."""

    def during(self, at: str) -> bool:
        """Tell whether a run of this time is shown."""
        return str(self.since) <= at[:DAY] <= str(self.until)

    def on(self, machine: str) -> bool:
        """Tell whether a machine is shown."""
        name = machine.casefold()
        return not self.machines or any(part.casefold() in name for part in self.machines)

    def takes(self, key: SeriesKey, usual: Sequence[str] = ()) -> bool:
        """Tell whether a series is shown; `usual` are the metrics where none is given."""
        known = parts(key)
        asked = {**self.names, "metric": self.names.get("metric") or usual}
        if key.metric == FAILURE:
            del asked["metric"]
        return all(not given or known[part] in given for part, given in asked.items())


def parts(key: SeriesKey) -> dict[str, Any]:
    """Return the parts of a key as filters name them."""
    return key._asdict() | {"style": key.cell.arm.full_style}


class KeptRuns(NamedTuple):
    """The time lines of all machines, and the files that were left out."""

    timelines: tuple[Timeline, ...]
    """The one with the newest run first."""
    problems: tuple[str, ...] = ()
    """Files that cannot be read, in sentences that name them."""
    notes: tuple[str, ...] = ()
    """Other remarks, in sentences."""


def kept_runs(
    folders: Sequence[Path],
    filters: Filters | None = None,
    *,
    usual: Sequence[str] = (),
    progress: Progress = iter,
) -> KeptRuns:
    """Return the runs in folders and below as time lines; other files are passed over.

    `usual` are the metrics that are shown where the filters name none; empty stands for all.

    Raises:
        BakeoffError: a folder does not exist or holds no run, or no run passes the filters.
    """
    filters = filters or Filters()
    where = f"--runs {', '.join(map(str, folders))}"
    scan = RunScan()
    scan.read(folders, progress)
    notes = [
        f"{count} file{' that holds' if count == 1 else 's that each hold'} {what}"
        for what, count in scan.passed_over.items()
    ]
    if not scan.runs:
        also = [*(f"the first problem: {problem}" for problem in scan.problems[:1]), *notes]
        raise BakeoffError(
            f"{where}: none of {scan.files} JSON files is a run"
            f"{f' ({"; ".join(also)})' if also else ''}; give folders with what "
            "`pytest bench --benchmark-autosave` or --benchmark-json wrote"
        )
    in_time = sorted(scan.runs, key=lambda run: (run.at, run.path))
    keys = dict.fromkeys(key for run in in_time for key in run.points)
    check_names(filters, keys)
    runs = [run for run in in_time if filters.during(run.at)]
    if not runs:
        first, last = in_time[0].at, in_time[-1].at
        raise BakeoffError(
            f"{where}: no run is of the time that is asked for; the {len(in_time)} there are from "
            f"{first} to {last}: give another --since or --until"
        )
    machines = filter(filters.on, dict.fromkeys(key.machine for key in keys))
    timelines = [of_machine(machine, runs, filters, usual) for machine in machines]
    timelines = [timeline for timeline in timelines if timeline.moments]
    timelines.sort(key=lambda timeline: timeline.moments[-1].at, reverse=True)
    if not timelines:
        raise BakeoffError(
            f"{where}: no run has what is asked for in all of the options at once; leave some out"
        )
    # Exact metrics need no test.
    tested = {
        series.key: known_points(series)
        for timeline in timelines
        for series in timeline.series
        if not series.key.exact and series.compared and series.key.metric in METRICS
    }
    changed = sorted(windows.changes(tested), key=lambda change: (-change.after, order(change.key)))
    return KeptRuns(
        tuple(
            replace(each, changes=tuple(c for c in changed if c.key.machine == each.name))
            for each in timelines
        ),
        tuple(scan.problems),
        tuple(f"Passed over: {note}." for note in notes),
    )


def check_names(filters: Filters, keys: Collection[SeriesKey]) -> None:
    """Raise BakeoffError if no series has a name that a filter gives."""
    for part, given in filters.names.items():
        known = sorted({parts(key)[part] for key in keys} - {"", FAILURE})
        for name in given:
            if name not in known:
                raise unknown(part, name, known)
    machines = sorted({key.machine for key in keys})
    for name in filters.machines:
        if not any(name.casefold() in machine.casefold() for machine in machines):
            raise unknown("machine", name, machines)


def of_machine(
    machine: str, runs: Sequence[Moment], filters: Filters, usual: Sequence[str]
) -> Timeline:
    """Return the time line of a machine, empty where none of its runs has a series that is shown.

    `runs` are in the order of time.
    """

    @cache
    def shown(key: SeriesKey) -> bool:
        return key.machine == machine and filters.takes(key, usual)

    kept = [run for run in runs if any(map(shown, run.points))][-(filters.last or 0) :]
    found: dict[SeriesKey, dict[int, Point]] = defaultdict(dict)
    for at, run in enumerate(kept):
        for key, point in run.points.items():
            if key.machine == machine:
                found[key][at] = point
    series = [Series(key, found[key]) for key in sorted(found, key=order)]
    return Timeline(
        machine,
        moments=tuple(kept),
        series=tuple(each for each in series if shown(each.key)),
        moves=moves(each for each in series if each.key.exact and filters.takes(each.key)),
    )


def known_points(series: Series) -> windows.Points:
    """Return the points that have a ratio and its doubt, and what these vary by between runs."""
    ratio, error, df = (series.column(name) for name in ("ratio", "standard_error", "df"))
    with np.errstate(invalid="ignore"):
        have = (ratio > 0) & np.isfinite(ratio) & (error < MOST_ERROR) & (df > 0)
    wobble = BETWEEN[variation(series.key)]
    shared = np.full(int(have.sum()), wobble.sd**2)
    values = np.log(ratio[have]), error[have] ** 2, df[have]
    return windows.Points(series.at[have], *values, shared, wobble.df)


def variation(key: SeriesKey) -> Variation:
    """Return how a series varies from run to run, as far as its name says it.

    Summaries keep no proof, so arms with the baseline's own program, which vary less from run to
    run, are taken to vary as the others do.
    """
    if key.metric == "peak_rss":
        return Variation.MEMORY
    if METRICS[key.metric].kind is Kind.COLD:
        return Variation.COLD
    if key.workload in TINY:
        return Variation.HOST
    return Variation.OTHER if key.cell.is_pure else Variation.SEVERAL


def document(found: KeptRuns, *, figures: bool = False) -> Document:
    """Return what time lines say; with charts for a page."""
    several = len(found.timelines) > 1
    sections: list[Section] = []
    for number, timeline in enumerate(found.timelines):
        of = f" on {timeline.name}" if several else ""
        names = f"{number}-" if figures else None
        sections += trends.sections(timeline, of, names=names)
        table = releases(timeline, of)
        sections += [Section(table.title, tables=(table,))] if table.rows else []
    return Document(
        title="Time line",
        subtitle="\n".join(f"{t.name}: {trends.span(t)}" for t in found.timelines),
        headline=headline(found),
        warnings=tuple(f"skipped: {problem}" for problem in found.problems),
        sections=tuple(sections),
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


def releases(timeline: Timeline, of: str) -> Table:
    """Return the releases that runs were made with, the newest first."""
    rows = []
    for moment, changed in reversed(timeline.releases):
        others = {name: pair for name, pair in changed.items() if name not in trends.PACKAGES}
        have = {name: pair[1] for name, pair in changed.items()}
        rows.append((timeline.times[moment], have, trends.versions_said(others, len(others))))
    title = f"Releases that runs were made with{of}"
    return trends.versions_table(rows, title, folded=len(rows) > trends.FIRST)
