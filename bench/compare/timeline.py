"""A project's own history: runs of many files as one time line for each machine.

Each run's ratios to its own baseline are compared along it: times of different hours differ by
several per cent where nothing has changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cells import BASELINE
from bench.compare.filters import Filters
from bench.compare.line import Line, Moved, Series, TimeLine
from bench.compare.own_changes import find_changes
from bench.compare.summaries import FAILURE, Key, Numbers, State, found_files, summaries
from bench.metrics import METRICS
from bench.report import wording
from bench.report.runs import TIME
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jaxtyping import Bool, Int

    from bench.compare.line import Change
    from bench.compare.summaries import Step, Summary

ORDER = (TIME, *METRICS)
"""Of metrics."""


def timeline(
    folders: Sequence[Path],
    filters: Filters | None = None,
    *,
    usual: Sequence[str] = (),
    step: Step | None = None,
) -> TimeLine:
    """Return the runs in folders and below as time lines, without reading known files again.

    Args:
        folders: Hold run files; other files are passed over.
        filters: Which runs and series are shown.
        usual: Metrics that are shown where the filters name none; empty stands for all.
        step: Told how many of how many files have been read, when some have to be.

    Raises:
        BakeoffError: a folder does not exist or holds no run, or no run passes the filters.
    """
    filters = filters or Filters()
    filters.check()
    where = f"--runs {', '.join(map(str, folders))}"
    notes: list[str] = []
    stamps, problems = found_files(folders)
    keys, found = summaries(stamps, step=step, notify=notes.append)
    problems += [each.problem for each in found.values() if each.state is State.DAMAGED]
    runs, told = distinct(found)
    if not runs:
        count = f"none of {len(found)} JSON files is a run" if found else "there is no JSON file"
        also = [f" (the first problem: {problems[0]})"] if problems else []
        also += [f" ({note})" for note in told]
        raise BakeoffError(
            f"{where}: {count}{''.join(also)}; give folders with what "
            "`pytest bench --benchmark-autosave` or --benchmark-json wrote"
        )
    points = Points(keys, runs)
    check_names(filters, points.present)
    chosen = chosen_runs(filters, runs, where)
    lines = [
        line
        for machine, inside in chosen.items()
        if (line := line_of(machine, inside, points, runs, filters, usual)) is not None
    ]
    if not lines:
        raise BakeoffError(
            f"{where}: no run has what is asked for in all of the options at once; leave some out"
        )
    lines.sort(key=lambda line: line.runs[-1].at, reverse=True)
    changes = find_changes([series for line in lines for series in line.series])
    return TimeLine(
        tuple(with_changes(line, changes) for line in lines),
        tuple(problems),
        (*notes, *(f"Passed over: {note}." for note in told)),
    )


class Points:
    """All points of some runs, found by the place of their key.

    Args:
        keys: The table of keys.
        runs: In the order of time; points are numbered by them.
    """

    def __init__(self, keys: Sequence[Key], runs: Sequence[Summary]) -> None:
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
        columns = dict(zip(Numbers._fields, self.numbers[rows].T, strict=True))
        gaps = {
            int(positions[run]): reason
            for run, reason in self.gaps.get(place, {}).items()
            if positions[run] >= 0
        }
        return Series(key=self.present[place], at=positions[self.run[rows]], gaps=gaps, **columns)


def distinct(found: dict[Path, Summary]) -> tuple[list[Summary], list[str]]:
    """Return each run once, in the order of time, and which files are left out.

    `--benchmark-json` beside `--benchmark-autosave` writes the same run twice.
    """
    runs = [found[path] for path in sorted(found) if found[path].state is State.RUN]
    kept: dict[bytes | str, Summary] = {}
    for run in runs:
        kept.setdefault(run.digest or run.path, run)
    copies = len(runs) - len(kept)
    sides = sum(each.state is State.SIDE for each in found.values())
    told = [f"{files(copies)} a run that is there already"] if copies else []
    told += [f"{files(sides)} a stack of a history, or a side of an A/B"] if sides else []
    return sorted(kept.values(), key=lambda run: (run.at, run.path)), told


def files(count: int) -> str:
    """Return the beginning of a sentence about the content of some files."""
    return "1 file that holds" if count == 1 else f"{count} files that each hold"


def check_names(filters: Filters, present: dict[int, Key]) -> None:
    """Raise BakeoffError if no run has a name that a filter gives."""
    for part, given in filters.names():
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
        for machine in run.machines if filters.during(run.at) else ():
            if filters.on(machine):
                chosen.setdefault(machine, []).append(number)
    if not chosen:
        raise BakeoffError(
            f"{where}: no run is of the time that is asked for; the {len(runs)} there are from "
            f"{runs[0].at} to {runs[-1].at}: give another --since or --until"
        )
    return chosen


def line_of(
    machine: str,
    inside: Sequence[int],
    points: Points,
    runs: Sequence[Summary],
    filters: Filters,
    usual: Sequence[str],
) -> Line | None:
    """Return the line of a machine; None where none of its runs has a series that is shown.

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
    moved = [each for place in exact for each in moves(points.series(place, positions))]
    return Line(
        machine,
        runs=tuple(runs[number] for number in kept),
        series=tuple(sorted(filter(Series.filled, series), key=lambda each: order(each.key))),
        moved=tuple(sorted(moved, key=lambda each: (each.after, order(each.key)))),
    )


def moves(series: Series) -> Iterator[Moved]:
    """Yield where an exact metric changed between neighbours."""
    for point in np.flatnonzero(np.diff(series.median)):
        before, after = series.at[point : point + 2].tolist()
        old, new = series.median[point : point + 2].tolist()
        yield Moved(series.key, before, after, (old, new))


def with_changes(line: Line, changes: Sequence[Change]) -> Line:
    """Return a line with the changes of its series, in the order of time."""
    at = {series.key: series.at for series in line.series}
    own = [change for change in changes if change.key in at]
    own.sort(key=lambda change: (at[change.key][change.after], order(change.key)))
    return replace(line, changes=tuple(own))


def order(key: Key) -> tuple[Any, ...]:
    """Return what sorts series: by metric, backend and size, the baseline first."""
    metric = ORDER.index(key.metric) if key.metric in ORDER else len(ORDER)
    pure = key.style != BASELINE[1]
    return (
        *(metric, key.metric, key.backend, wording.size(key.workload), key.workload),
        *(key.entrant != BASELINE[0], key.entrant, pure, key.style),
    )
