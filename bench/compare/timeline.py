"""A project's own history: runs of many files as one time line for each machine.

Each run's ratios to its own baseline are compared along it: times of different hours differ by
several per cent where nothing has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.compare import trends, windows
from bench.compare.between_run_variance import BETWEEN, Variation
from bench.compare.run_scan import RunScan
from bench.compare.series import FAILURE, Series, Timeline, changes, moves, order
from bench.metrics import METRICS, TINY, Kind
from bench.report.table import Document, Section
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jaxtyping import Int

    from bench.compare.run_scan import Progress
    from bench.compare.series import Moment, SeriesKey

ALL = "all"
"""Asks for every metric."""
EARLIEST = "0001-01-01T00:00:00"
LENGTHS = (4, 7, 10, 13, 16, 19)
"""Of a text that is a year, a month, a day, an hour, a minute or a second."""
MOST_ERROR = 1.0
"""Standard error of a log-ratio that says anything."""


@dataclass(frozen=True)
class Filters:
    """Which runs and series are shown; empty stands for everything."""

    entrants: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """`all` stands for every metric; empty for those that the format usually shows."""
    machines: tuple[str, ...] = ()
    """Parts of their names, in any case."""
    since: str = ""
    """A year, month, day or time of day (UTC): `2026`, `2026-01`, `2026-01-31`."""
    until: str = ""
    """The same; all of it is included."""
    last: int | None = None
    """Number of runs of each machine, the newest ones."""

    def __post_init__(self) -> None:
        """Raise BakeoffError if a time or a number is not valid."""
        for option, given in (("--since", self.since), ("--until", self.until)):
            if given and not is_moment(given):
                raise BakeoffError(
                    f"{option} {given!r} is no time; give a year, a month, a day or a time of day "
                    "(UTC), as in 2026, 2026-01, 2026-01-31 or 2026-01-31T12:00"
                )
        if self.last is not None and self.last < 1:
            raise BakeoffError(f"--last is {self.last}; it must be at least 1")
        if self.until and self.since[: len(self.until)] > self.until:
            raise BakeoffError(
                f"--since {self.since} is after --until {self.until}: give them the other way round"
            )

    def during(self, at: str) -> bool:
        """Tell whether a run of this time is shown."""
        return self.since <= at and (not self.until or at[: len(self.until)] <= self.until)

    def on(self, machine: str) -> bool:
        """Tell whether a machine is shown."""
        name = machine.casefold()
        return not self.machines or any(part.casefold() in name for part in self.machines)

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return the names that are asked for, by part of a key."""
        return {
            "entrant": self.entrants,
            "style": self.styles,
            "workload": self.workloads,
            "metric": () if ALL in self.metrics else self.metrics,
        }

    def takes(self, key: SeriesKey, usual: Sequence[str] = ()) -> bool:
        """Tell whether a series is shown; `usual` are the metrics where none is given."""
        asked = self.names()
        if key.metric == FAILURE:
            del asked["metric"]
        elif not self.metrics:
            asked["metric"] = tuple(usual)
        known = key._asdict() | {"style": key.cell.arm.full_style}
        return all(not given or known[part] in given for part, given in asked.items())


def is_moment(text: str) -> bool:
    """Tell whether a text is the beginning of a time."""
    try:
        found = datetime.fromisoformat(text + EARLIEST[len(text) :])
    except ValueError:
        return False
    return len(text) in LENGTHS and found.isoformat()[: len(text)] == text


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
    """Return the runs in folders and below as time lines; other files are passed over.

    `usual` are the metrics that are shown where the filters name none; empty stands for all.

    Raises:
        BakeoffError: a folder does not exist or holds no run, or no run passes the filters.
    """
    filters = filters or Filters()
    where = f"--runs {', '.join(map(str, folders))}"
    scan = RunScan(lambda key: filters.takes(key, () if key.exact else usual))
    scan.read(folders, progress)
    notes = [
        f"{count} file{' that holds' if count == 1 else 's that each hold'} {what}"
        for what, count in scan.passed_over.items()
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
        for machine, runs in chosen_runs(filters, scan.moments, where).items()
        if (timeline := of_machine(machine, runs, scan, filters, usual)) is not None
    ]
    if not timelines:
        raise BakeoffError(
            f"{where}: no run has what is asked for in all of the options at once; leave some out"
        )
    timelines.sort(key=lambda timeline: timeline.moments[-1].at, reverse=True)
    # Exact metrics need no test.
    tested = {
        series.key: known_points(series)
        for timeline in timelines
        for series in timeline.series
        if not series.key.exact and series.compared and series.key.metric in METRICS
    }
    found = sorted(changes(tested), key=lambda change: (-change.after, order(change.key)))
    return KeptRuns(
        tuple(
            replace(each, changes=tuple(c for c in found if c.key.machine == each.name))
            for each in timelines
        ),
        tuple(scan.problems),
        tuple(f"Passed over: {note}." for note in notes),
    )


def check_names(filters: Filters, scan: RunScan) -> None:
    """Raise BakeoffError if no run has a name that a filter gives."""
    for part, given in filters.names().items():
        known = {getattr(k, part) for k in scan.points if part != "metric" or k.metric != FAILURE}
        for name in given:
            if name not in known:
                raise unknown(part, name, sorted(filter(None, known)))
    machines = sorted({key.machine for key in scan.points})
    for given_part in filters.machines:
        if not any(given_part.casefold() in machine.casefold() for machine in machines):
            raise unknown("machine", given_part, machines)


def chosen_runs(filters: Filters, moments: Sequence[Moment], where: str) -> dict[str, list[int]]:
    """Return the numbers of the runs that are chosen by machine and time, in the order of time."""
    in_time = sorted(range(len(moments)), key=lambda run: (moments[run].at, moments[run].path))
    chosen: dict[str, list[int]] = {}
    for run in in_time:
        if filters.during(moments[run].at):
            for machine in filter(filters.on, sorted(moments[run].machines)):
                chosen.setdefault(machine, []).append(run)
    if not chosen:
        first, last = (moments[run].at for run in (in_time[0], in_time[-1]))
        raise BakeoffError(
            f"{where}: no run is of the time that is asked for; the {len(in_time)} there are from "
            f"{first} to {last}: give another --since or --until"
        )
    return chosen


def of_machine(
    machine: str, runs: Sequence[int], scan: RunScan, filters: Filters, usual: Sequence[str]
) -> Timeline | None:
    """Return the time line of a machine; None where none of its runs has a series that is shown.

    `runs` are the numbers of its runs, in the order of time.
    """
    own = {key: points for key, points in scan.points.items() if points and key.machine == machine}
    shown = {key for key in own if filters.takes(key, usual)}
    having = {run for key in shown for run in own[key]}
    kept = [run for run in runs if run in having][-(filters.last or 0) :]
    if not kept:
        return None
    series = [
        Series(key, {at: own[key][run] for at, run in enumerate(kept) if run in own[key]})
        for key in sorted(own, key=order)
    ]
    return Timeline(
        machine,
        moments=tuple(scan.moments[run] for run in kept),
        series=tuple(each for each in series if each.key in shown and each.found),
        moves=moves(each for each in series if each.key.exact),
    )


def known_points(series: Series) -> tuple[Int[np.ndarray, " known"], windows.Points]:
    """Return the points that have a ratio and its doubt, and what these vary by between runs."""
    ratio, error, df = (series.column(name) for name in ("ratio", "standard_error", "df"))
    with np.errstate(invalid="ignore"):
        have = (ratio > 0) & np.isfinite(ratio) & (error < MOST_ERROR) & (df > 0)
    wobble = BETWEEN[variation(series.key)]
    shared = np.full(int(have.sum()), wobble.sd**2)
    values = np.log(ratio[have]), error[have] ** 2, df[have]
    return series.at[have], windows.Points(*values, shared, wobble.df)


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
    rows = []
    for moment, changed in timeline.releases:
        others = {name: pair for name, pair in changed.items() if name not in trends.PACKAGES}
        have = {name: pair[1] for name, pair in changed.items()}
        rows.append((timeline.times[moment], have, trends.versions_said(others, len(others))))
    if rows:
        title = f"Releases that runs were made with{f' on {machine}' if machine else ''}"
        folded = len(rows) > trends.FIRST
        table = trends.versions_table(rows[::-1], title, folded=folded)
        yield Section(title, tables=(table,))
