"""Runs and time lines for other programs: Bencher, github-action-benchmark, asv, Parquet, and more.

Times of two days differ for many reasons, so the ratio to the baseline, where it is known, is given
beside them with its interval: set a tracker's alerts on ratios.
"""

from __future__ import annotations

import datetime
import io
import json
import math
from collections import defaultdict
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from bench.cells import BASELINE, Cell
from bench.compare.conditions import versions
from bench.compare.series import UNITS, Point, SeriesKey
from bench.estimates import Group, stored
from bench.report.rows import COLUMNS, csv_text, rows
from bench.report.table import Value
from bench.runfile import Metric
from bench.runfile.reader import cpu_of, processor_model
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.compare.series import Moment, Move, SeriesChange
    from bench.compare.timeline import KeptRuns
    from bench.runfile.reader import Run
    from bench.stats.ratios import Estimate

RATIO = "ratio"
"""Added to a metric's name where it is the ratio to the baseline."""
ASV_VERSION = 2
ASV_COLUMNS = ("result", "params", "version", "started_at", "duration")
ASV_STATISTICS = (
    *("stats_ci_99_a", "stats_ci_99_b", "stats_q_25", "stats_q_75"),
    *("stats_number", "stats_repeat"),
)
TEXTS = (
    *("run", "when", "entrant", "style", "workload", "backend"),
    *("metric", "unit", "verdict", "cores", "settled_by", "missing"),
)
COUNTS = ("samples", "blocks", "processes")
FLAGS = ("weak", "preliminary")
TIMELINE_SCHEMA = 2
RUN = ("run", "path", "when", "commit", "dirty")
"""Columns of a time line that say which run a row is of; its versions come last."""


type Number = tuple[Cell, str, Metric]
"""One number of a run: its cell, its metric, and the metric as the run file has it."""


def numbers(runs: Sequence[Run], form: str) -> list[Number]:
    """Return every number of the only run; cells that failed have none.

    Raises:
        BakeoffError: there is another run, or nothing was measured.
    """
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs)
        raise BakeoffError(f"--format {form} is about one run; {names} are given: give one")
    out: list[Number] = []
    for row in runs[0].section.good:
        found = {metric: row.measured(metric) for metric in row.metrics}
        counted = dict(row.exact)
        if row.final_loss:
            counted["final_loss"] = row.final_loss.same_weights
        for metric, value in counted.items():
            if value is not None:
                found[metric] = Metric(median=value, unit=UNITS.get(metric) or "count")
        out += [(row.cell, metric, each) for metric, each in found.items() if each is not None]
    if not out:
        raise BakeoffError(f"{runs[0].name} has no number to export; give a run that has")
    return out


def bencher(runs: Sequence[Run]) -> str:
    """Return a run in Bencher's metric format: benchmark, then measure, then its values.

    As https://bencher.dev/docs/reference/bencher-metric-format has it; give it to `bencher run
    --adapter json`. Measures are in seconds, bytes or counts; a ratio has its 95 % interval.
    """
    out: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for cell, metric, found in numbers(runs, "bencher"):
        slug = metric.replace("_", "-")
        out[str(cell)][slug] = {"value": found.median}
        if found.ratio is not None:
            ends = {"lower_value": found.low, "upper_value": found.high}
            known = {name: end for name, end in ends.items() if end is not None}
            out[str(cell)][f"{slug}-{RATIO}"] = {"value": found.ratio} | known
    return json_text(out)


def github(runs: Sequence[Run]) -> str:
    """Return a run as github-action-benchmark's `customSmallerIsBetter`: a list of numbers.

    As https://github.com/benchmark-action/github-action-benchmark has it; all metrics are costs.
    """
    out: list[dict[str, Any]] = []
    for cell, metric, found in numbers(runs, "github-action-benchmark"):
        name = f"{cell} {metric}"
        counts = [f"{count} {kind}" for kind in COUNTS if (count := getattr(found, kind))]
        entry = {"name": name, "unit": found.unit, "value": found.median}
        out.append(entry | ({"extra": ", ".join(counts)} if counts else {}))
        if found.ratio is not None:
            said = f"{Value.of_ratio(found)}, {found.verdict or 'not judged'}"
            unit = f"{RATIO} to {BASELINE[0]}"
            entry = {"name": f"{name} {RATIO}", "unit": unit, "value": found.ratio, "extra": said}
            if found.low is not None and found.high is not None:
                entry["range"] = f"± {(found.high - found.low) / 2:.3g}"
            out.append(entry)
    return json_text(out)


def asv(runs: Sequence[Run]) -> str:
    """Return a run as one of asv's result files, `results/MACHINE/COMMIT-ENV.json`.

    As https://asv.readthedocs.io/en/stable/dev.html has it. A metric is a benchmark with the
    parameters style, workload and backend, and so is its ratio to the baseline.
    """
    found: dict[str, dict[tuple[str, ...], dict[str, float | None]]] = defaultdict(dict)
    for cell, metric, each in numbers(runs, "asv"):
        place = (str(cell.arm).replace("/", " "), cell.workload, cell.backend)
        samples = runs[0].samples.get(Group.of(metric, cell), {}).get(cell, [])
        values = [value for block in samples for value in block.values]
        sampled: dict[str, float | None] = {"result": each.median}
        if each.samples:
            sampled |= {"stats_number": 1, "stats_repeat": each.samples}
        if values:
            low, high = np.quantile(values, [0.25, 0.75]).tolist()
            sampled |= {"stats_q_25": low, "stats_q_75": high}
        found[f"bakeoff.{metric}"][place] = sampled
        estimate = stored(each)
        if estimate is not None and each.ratio is not None:
            found[f"bakeoff.{metric}_{RATIO}"][place] = of_ratio(each.ratio, estimate)
    run = runs[0]
    packages, about, commit = dict(versions(run)), run.machine, run.commit
    python = ".".join(packages.pop("python", "").split(".")[:2])
    known = [place for cells in found.values() for place in cells]
    params = [list(dict.fromkeys(values)) for values in zip(*known, strict=True)]
    places = list(product(*params))
    started = milliseconds(run.when)
    results = {
        name: [
            [cells.get(place, {}).get("result") for place in places],
            [[repr(value) for value in values] for values in params],
            *(None, started, None),  # version, started_at, duration
            *([cells.get(place, {}).get(column) for place in places] for column in ASV_STATISTICS),
        ]
        for name, cells in found.items()
    }
    return json_text(
        {
            "version": ASV_VERSION,
            "commit_hash": str(commit.get("id") or ""),
            "env_name": f"bakeoff-py{python}",
            "date": milliseconds(str(commit.get("time") or run.when)),
            "params": {
                "machine": str(about.get("node") or ""),
                "os": f"{about.get('system') or ''} {about.get('release') or ''}".strip(),
                "arch": str(about.get("machine") or ""),
                "cpu": processor_model(about),
                "num_cpu": str(cpu_of(about).get("count") or ""),
            },
            "python": python,
            "requirements": packages,
            "env_vars": run.section.environment.environment or {},
            "result_columns": [*ASV_COLUMNS, *ASV_STATISTICS],
            "results": results,
            "durations": {},
        }
    )


def of_ratio(ratio: float, estimate: Estimate) -> dict[str, float | None]:
    """Return asv's columns for a ratio, with its 99 % interval and its quartiles."""
    out: dict[str, float | None] = {"result": ratio}
    ends = ("stats_ci_99_a", "stats_q_25", "stats_q_75", "stats_ci_99_b")
    for name, quantile in zip(ends, (0.005, 0.25, 0.75, 0.995), strict=True):
        distance = float(special.stdtrit(estimate.df, quantile)) * estimate.standard_error
        out[name] = math.exp(estimate.log_ratio + distance)
    return out


def milliseconds(when: str) -> int | None:
    """Return a time in milliseconds since 1970; UTC where no zone is given, None of no time."""
    try:
        found = datetime.datetime.fromisoformat(when)
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
    return round(found.timestamp() * 1000)


def parquet(runs: Sequence[Run]) -> bytes:
    """Return the rows of runs, those of `--format csv`, as a Parquet file.

    Raises:
        BakeoffError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import write_table
    except ModuleNotFoundError as error:
        raise BakeoffError(
            "--format parquet needs the package 'pyarrow', which is not installed: install "
            "it, as with pip install --editable '.[parquet]', or give --format csv"
        ) from error
    kinds = {name: pa.string() for name in TEXTS} | {name: pa.bool_() for name in FLAGS}
    kinds |= {name: pa.int64() for name in (*COUNTS, "devices")}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in COLUMNS])
    file = io.BytesIO()
    write_table(pa.Table.from_pylist(list(rows(runs)), schema=schema), file)
    return file.getvalue()


def timelines_csv(found: KeptRuns) -> str:
    """Return a row for each run, cell and metric that it has or lacks, as CSV with a header."""
    runs = [run for timeline in found.timelines for run in timeline.moments]
    libraries = dict.fromkeys(f"version of {name}" for run in runs for name in run.versions)
    columns = (*RUN, *SeriesKey._fields, *Point._fields, *libraries)
    return csv_text(
        columns,
        (
            about_run(timeline.moments[at])
            | {f"version of {n}": said for n, said in timeline.moments[at].versions.items()}
            | series.key._asdict()
            | point._asdict()
            for timeline in found.timelines
            for series in timeline.series
            for at, point in series.found.items()
        ),
    )


def timelines_json(found: KeptRuns) -> str:
    """Return one object: machines with their runs, and series whose points name a run's place."""
    lines = [
        {
            "machine": timeline.name,
            "runs": [
                {**about_run(run), "versions": run.versions, "margin": run.margin}
                for run in timeline.moments
            ],
            "releases": [{"run": run, "changed": pairs} for run, pairs in timeline.releases],
            "exact_changes": list(map(about_change, timeline.moves)),
            "changes": list(map(about_change, timeline.changes)),
            "series": [
                {
                    **series.key._asdict(),
                    "points": [{"run": at, **p._asdict()} for at, p in series.found.items()],
                }
                for series in timeline.series
            ],
        }
        for timeline in found.timelines
    ]
    whole = {"schema": TIMELINE_SCHEMA, "lines": lines}
    return json_text(whole | {"skipped": found.problems, "notes": found.notes})


def about_run(run: Moment) -> dict[str, Any]:
    """Return a run's name, place, time and commit."""
    values = (run.name, run.path, run.at, run.revision, run.dirty)
    return dict(zip(RUN, values, strict=True))


def about_change(change: Move | SeriesChange) -> dict[str, Any]:
    """Return a change, its cell and metric by name, before and after as places of runs."""
    found = change._asdict()
    return {**found.pop("key")._asdict(), **found}


def json_text(data: Any) -> str:
    """Return data as a JSON text."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
