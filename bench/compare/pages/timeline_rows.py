"""A time line for other programs: as flat rows, or as one object."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from bench.compare.line import known, verdict
from bench.compare.summaries import Key, Numbers
from bench.report.rows import safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.compare.line import Change, Line, Moved, Series, TimeLine
    from bench.compare.summaries import Summary

SCHEMA = 1
"""Of the JSON."""
RUN = ("run", "path", "when", "commit", "dirty")
"""Columns that say which run a row is of; its versions come last, one column for each library."""


def named(run: Summary) -> dict[str, Any]:
    """Return a run's name, place, time and commit."""
    values = (run.name, run.path, run.at, run.revision, run.dirty)
    return dict(zip(RUN, values, strict=True))


def column(library: str) -> str:
    """Return the column of a library's version."""
    return f"version of {library}"


def points(series: Series) -> Iterator[tuple[int, tuple[Any, ...] | str]]:
    """Yield the number of each run and its `Numbers`, or the reason why there are none."""
    names = Numbers._fields[:-1]
    columns = [list(map(known, getattr(series, name).tolist())) for name in names]
    verdicts = map(verdict, series.verdict.tolist())
    found: dict[int, tuple[Any, ...] | str] = dict(
        zip(series.at.tolist(), zip(*columns, verdicts, strict=True), strict=True)
    )
    found |= series.gaps
    for run in sorted(found):
        yield run, found[run]


def csv_parts(timeline: TimeLine) -> Iterator[str]:
    """Yield rows as CSV, a header first: one for each run, cell and metric that it has or lacks."""
    runs = [run for line in timeline.lines for run in line.runs]
    libraries = list(dict.fromkeys(name for run in runs for name in run.versions))
    header = [*RUN, *Key._fields, *Numbers._fields, "missing", *map(column, libraries)]
    yield lines_of([header])
    nothing = [None] * len(Numbers._fields)
    for line in timeline.lines:
        about = [list(map(safe, named(run).values())) for run in line.runs]
        versions = [[safe(run.versions.get(name)) for name in libraries] for run in line.runs]
        for series in line.series:
            key = list(map(safe, series.key))
            yield lines_of(
                [*about[run], *key, *nothing, safe(said), *versions[run]]
                if isinstance(said, str)
                else [*about[run], *key, *said, None, *versions[run]]
                for run, said in points(series)
            )


def lines_of(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as lines of CSV; what is not known is empty."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def as_csv(timeline: TimeLine) -> str:
    """Return rows as CSV with a header."""
    return "".join(csv_parts(timeline))


def as_json(timeline: TimeLine) -> str:
    """Return one object: machines with their runs, and series whose points name a run's place."""
    whole = {
        "schema": SCHEMA,
        "lines": [of_line(line) for line in timeline.lines],
        "skipped": timeline.problems,
        "notes": timeline.notes,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def of_line(line: Line) -> dict[str, Any]:
    """Return all that is known of a machine."""
    return {
        "machine": line.machine,
        "runs": [{**named(r), "versions": r.versions, "margin": r.margin} for r in line.runs],
        "releases": [release._asdict() for release in line.releases],
        "exact_changes": list(map(of_change, line.moved)),
        "changes": list(map(of_change, line.changes)),
        "series": [
            {**series.key._asdict(), "points": [of_point(*each) for each in points(series)]}
            for series in line.series
        ],
    }


def of_point(run: int, said: tuple[Any, ...] | str) -> dict[str, Any]:
    """Return a point, with the place of its run among the machine's."""
    if isinstance(said, str):
        return {"run": run, "missing": said}
    return {"run": run, **dict(zip(Numbers._fields, said, strict=True))}


def of_change(change: Moved | Change) -> dict[str, Any]:
    """Return a change, its cell and metric by name."""
    said = change._asdict()
    return {**said.pop("key")._asdict(), **said}
