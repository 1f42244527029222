"""Time lines for other programs: as flat rows, or as one object."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from bench.compare.series import Numbers, SeriesKey
from bench.compare.trends import releases
from bench.report.rows import safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.compare.series import Moment, Move, Series, SeriesChange, Timeline
    from bench.compare.timeline import KeptRuns

SCHEMA = 2
"""Of the JSON."""
RUN = ("run", "path", "when", "commit", "dirty")
"""Columns that say which run a row is of; its versions come last, one column for each library."""


def about(run: Moment) -> dict[str, Any]:
    """Return a run's name, place, time and commit."""
    values = (run.name, run.path, run.at, run.revision, run.dirty)
    return dict(zip(RUN, values, strict=True))


def points(series: Series) -> Iterator[dict[str, Any]]:
    """Yield the points of a series, with the place of each one's run, and its gaps."""
    found = {run: series.record(point) for point, run in enumerate(series.at.tolist())}
    found |= {run: {"missing": reason} for run, reason in series.gaps.items()}
    for run in sorted(found):
        yield {"run": run, **found[run]}


def as_csv(found: KeptRuns) -> str:
    """Return a row for each run, cell and metric that it has or lacks, as CSV with a header."""
    runs = [run for timeline in found.timelines for run in timeline.moments]
    libraries = dict.fromkeys(f"version of {name}" for run in runs for name in run.versions)
    columns = [*RUN, *SeriesKey._fields, *Numbers._fields, "missing", *libraries]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for timeline in found.timelines:
        about_runs = [
            {name: safe(value) for name, value in about(run).items()}
            | {f"version of {name}": safe(version) for name, version in run.versions.items()}
            for run in timeline.moments
        ]
        for series in timeline.series:
            key = {name: safe(value) for name, value in series.key._asdict().items()}
            for point in points(series):
                row = about_runs[point.pop("run")] | key | point
                writer.writerow(row | {"missing": safe(point.get("missing"))})
    return out.getvalue()


def as_json(found: KeptRuns) -> str:
    """Return one object: machines with their runs, and series whose points name a run's place."""
    whole = {
        "schema": SCHEMA,
        "lines": [of_machine(timeline) for timeline in found.timelines],
        "skipped": found.problems,
        "notes": found.notes,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def of_machine(timeline: Timeline) -> dict[str, Any]:
    """Return all that is known of a machine."""
    return {
        "machine": timeline.name,
        "runs": [
            {**about(r), "versions": r.versions, "margin": r.margin} for r in timeline.moments
        ],
        "releases": [{"run": run, "changed": changed} for run, changed in releases(timeline)],
        "exact_changes": list(map(of_change, timeline.moves)),
        "changes": list(map(of_change, timeline.changes)),
        "series": [
            {**series.key._asdict(), "points": list(points(series))} for series in timeline.series
        ],
    }


def of_change(change: Move | SeriesChange) -> dict[str, Any]:
    """Return a change, its cell and metric by name, before and after as places of runs."""
    found = change._asdict()
    return {**found.pop("key")._asdict(), **found}
