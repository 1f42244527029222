"""A project's own history: runs of many files as one time line for each machine.

What is compared along it is each run's ratio to its own baseline: times of different hours differ
by several per cent where nothing has changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cells import BASELINE
from bench.metrics import METRICS
from bench.report import wording
from bench.report.runs import TIME
from bench.track.entries import FAILURE, Entry, Key, Numbers, State, found_files, text
from bench.track.index import ask
from bench.track.line import Line, Moved, Recorded, Series, TimeLine
from bench.track.wanted import Wanted
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from jaxtyping import Float

    from bench.track.entries import Stamp
    from bench.track.index import Index, Step
    from bench.track.line import Change, FindChanges


def timeline(
    folders: Sequence[Path],
    wanted: Wanted | None = None,
    *,
    usual: Sequence[str] = (),
    find_changes: FindChanges | None = None,
    step: Step | None = None,
) -> TimeLine:
    """Return the runs in folders and below as time lines, without reading what is known already.

    Args:
        folders: Hold run files; those that are no runs are passed over.
        wanted: Which of them, and what of them.
        usual: Metrics that are meant where none is asked for; empty stands for all.
        find_changes: Tells which neighbours differ.
        step: Told how many of how many files have been read, when some have to be.

    Raises:
        BakeoffError: a folder is not there, holds no run, or nothing in it is what is asked for.
    """
    wanted = wanted or Wanted()
    wanted.check()
    found, problems = found_files(folders)
    notes: list[str] = []
    asked = Asked(wanted, tuple(usual), found, ", ".join(map(str, folders)))
    lines, more, copies = ask(found, asked.lines, roots=folders, step=step, say=notes.append)
    if copies:
        what = "1 file is a copy" if copies == 1 else f"{copies} files are copies"
        notes.append(f"{what} of a run that is there, and passed over.")
    if asked.sides:
        notes.append(f"{asked.sides_said()}, and passed over.")
    if find_changes is not None:
        changes = find_changes([series for line in lines for series in line.series])
        lines = [with_changes(line, changes) for line in lines]
    return TimeLine(tuple(lines), (*problems, *more), tuple(notes))


def with_changes(line: Line, changes: Sequence[Change]) -> Line:
    """Return a line with the changes of its series, in the order of time."""
    at = {series.key: series.at for series in line.series}
    own = [change for change in changes if change.key in at]
    own.sort(key=lambda change: (at[change.key][change.after], order(change.key)))
    return replace(line, changes=tuple(own))


@dataclass
class Asked:
    """A question to an index."""

    wanted: Wanted
    usual: tuple[str, ...]
    found: Mapping[str, Stamp]
    where: str
    """The folders, in an error."""
    sides: int = 0
    """Files that are of stacks measured beside others."""

    def lines(self, index: Index) -> tuple[list[Line], list[str], int]:
        """Return the lines, the problems, and how many files are copies of others."""
        files = index.files(self.found)
        self.sides = sum(entry.state is State.SIDE for _, _, entry in files)
        problems = [entry.problem for _, _, entry in files if entry.state is State.DAMAGED]
        runs, copies = distinct([each for each in files if each[2].state is State.RUN])
        if not runs:
            raise self.nothing(problems)
        on: dict[str, list[int]] = {}
        for machine, number in index.places():
            if number in runs:
                on.setdefault(machine, []).append(number)
        chosen = self.chosen(runs, on)
        every = dict(index.series())
        self.check_names(index, every, {n for numbers in on.values() for n in numbers})
        taken = {id_: key for id_, key in every.items() if self.wanted.takes(key, self.usual)}
        varying = {id_ for id_ in index.varying() if self.wanted.takes(every[id_])}
        points = {id_: table(index.points(id_)) for id_ in taken.keys() | varying}
        gaps = index.gaps()
        lines = []
        for machine, inside in chosen.items():
            own = {id_: key for id_, key in taken.items() if key.machine == machine}
            used = {int(number) for id_ in own for number in points[id_][:, 0]}
            used |= {number for id_ in own for number in gaps.get(id_, {})}
            place = self.newest([number for number in inside if number in used])
            if not place:
                continue
            series = [along(key, points[id_], gaps.get(id_, {}), place) for id_, key in own.items()]
            exact = [along(every[id_], points[id_], {}, place) for id_ in varying]
            moved = [m for one in exact if one.key.machine == machine for m in moves(one)]
            line = Line(
                machine,
                runs=tuple(as_recorded(*runs[number]) for number in place),
                series=tuple(sorted(filter(Series.filled, series), key=lambda s: order(s.key))),
                moved=tuple(sorted(moved, key=lambda m: (m.after, order(m.key)))),
            )
            lines.append(line)
        if not lines:
            raise BakeoffError(
                f"--runs {self.where}: no run has what is asked for in all of the options at once; "
                "leave some out"
            )
        return sorted(lines, key=lambda line: line.runs[-1].at, reverse=True), problems, copies

    def newest(self, numbers: Sequence[int]) -> dict[int, int]:
        """Return the places of the runs on the line."""
        kept = numbers[-self.wanted.last :] if self.wanted.last else numbers
        return {number: i for i, number in enumerate(kept)}

    def nothing(self, problems: Sequence[str]) -> BakeoffError:
        """Return the error for folders without a run."""
        count = len(self.found)
        there = f"none of {count} JSON files is a run" if count else "there is no JSON file"
        also = f" (the first problem: {problems[0]})" if problems else ""
        also += f" ({self.sides_said()})" if self.sides else ""
        return BakeoffError(
            f"--runs {self.where}: {there}{also}; give folders with what "
            "`pytest bench --benchmark-autosave` or --benchmark-json wrote"
        )

    def sides_said(self) -> str:
        """Return how many files are of other stacks, in words."""
        what = "1 file is" if self.sides == 1 else f"{self.sides} files are"
        return f"{what} of stacks in a history, or sides of an A/B: no runs of this code alone"

    def chosen(
        self, runs: Mapping[int, tuple[str, Entry]], on: Mapping[str, Sequence[int]]
    ) -> dict[str, list[int]]:
        """Return the runs that are asked for by machine and time, the oldest first."""
        for part in self.wanted.machines:
            if not any(part.casefold() in machine.casefold() for machine in on):
                raise unknown("machine", part, sorted(on))
        out = {}
        for machine in filter(self.wanted.on, on):
            inside = [n for n in on[machine] if self.wanted.during(runs[n][1].at)]
            inside.sort(key=lambda number: (runs[number][1].at, runs[number][0]))
            if inside:
                out[machine] = inside
        if not out:
            times = sorted(entry.at for _, entry in runs.values())
            raise BakeoffError(
                f"--runs {self.where}: no run is of the time that is asked for; the "
                f"{len(times)} there are from {times[0]} to {times[-1]}: give another "
                "--since or --until"
            )
        return out

    def check_names(self, index: Index, every: Mapping[int, Key], files: set[int]) -> None:
        """Raise BakeoffError if no run has what is asked for by a name."""
        for what, given in self.wanted.names():
            for name in given:
                having = [id_ for id_, key in every.items() if getattr(key, what) == name]
                if any(not files.isdisjoint(index.files_of(id_)) for id_ in having):
                    continue
                names = {
                    getattr(key, what): None
                    for id_, key in every.items()
                    if key.metric != FAILURE and not files.isdisjoint(index.files_of(id_))
                }
                raise unknown(what, name, sorted(filter(None, names)))


def distinct(
    files: Sequence[tuple[int, str, Entry]],
) -> tuple[dict[int, tuple[str, Entry]], int]:
    """Return each run once, by number, and how many files are copies.

    `--benchmark-json` beside `--benchmark-autosave` writes the same run twice.
    """
    seen: set[bytes] = set()
    kept = {}
    for number, path, entry in files:
        if not entry.digest or entry.digest not in seen:
            kept[number] = path, entry
        seen.add(entry.digest)
    return kept, len(files) - len(kept)


def as_recorded(path: str, entry: Entry) -> Recorded:
    """Return a run as the line has it."""
    return Recorded(
        entry.name,
        text(path),
        entry.at,
        entry.revision,
        bool(entry.dirty),
        json.loads(entry.versions),
        entry.margin or 0.0,
    )


def table(points: Sequence[tuple[Any, ...]]) -> Float[np.ndarray, " points columns"]:
    """Return points as numbers, NaN where there is none."""
    return np.array(points, float).reshape(-1, 1 + len(Numbers._fields))


def along(
    key: Key,
    points: Float[np.ndarray, " points columns"],
    gaps: Mapping[int, str],
    place: Mapping[int, int],
) -> Series:
    """Return the points of those runs that have a place, in the order of the places."""
    at = np.array([place.get(int(number), -1) for number in points[:, 0]], int)
    order = np.argsort(at, kind="stable")[np.count_nonzero(at < 0) :]
    numbers = dict(zip(Numbers._fields, points[order, 1:].T, strict=True))
    missing = {place[number]: reason for number, reason in gaps.items() if number in place}
    return Series(key=key, at=at[order], gaps=missing, **numbers)


def moves(series: Series) -> Iterator[Moved]:
    """Yield where an exact metric changed between neighbours."""
    for point in np.flatnonzero(np.diff(series.median)):
        before, after = series.at[point : point + 2].tolist()
        values = tuple(series.median[point : point + 2].tolist())
        yield Moved(series.key, before, after, values)


def order(key: Key) -> tuple[Any, ...]:
    """Return what sorts series: by metric, backend and size, the baseline first."""
    metrics = [TIME, *METRICS]
    metric = metrics.index(key.metric) if key.metric in metrics else len(metrics)
    pure = key.style != BASELINE[1]
    return (
        *(metric, key.metric, key.backend, wording.size(key.workload), key.workload),
        *(key.entrant != BASELINE[0], key.entrant, pure, key.style),
    )
