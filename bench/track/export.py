"""Runs in the forms of other trackers: Bencher, github-action-benchmark, asv; and Parquet.

Seconds of two days say little of the code, so wherever a ratio to the baseline is known it stands
beside them, with its interval: that is what such a tracker should have its alerts on.
"""

from __future__ import annotations

import datetime
import io
import itertools
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import special

from bench.cells import BASELINE, Cell
from bench.estimates import Group
from bench.report import tied, wording
from bench.report.rows import COLUMNS, rows
from bench.report.runs import is_number, processor_model
from bench.report.wording import measured
from bench.track.conditions import versions
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bench.report.runs import Run
    from bench.report.wording import Facts
    from bench.stats.ratios import Estimate

RATIO = "ratio"
"""Added to a metric's name where it is the ratio to the baseline."""
ASV = 2
"""Version of asv's result files."""
ASV_COLUMNS = (
    *("result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b"),
    *("stats_q_25", "stats_q_75", "stats_number", "stats_repeat", "samples", "profile"),
)
DIGITS = 5
"""That asv keeps of its statistics."""
TEXTS = ("run", "when", *Cell._fields, "metric", "unit", "verdict", "missing")
COUNTS = ("samples", "blocks", "processes")


class Entry(NamedTuple):
    """One number of a run."""

    cell: Cell
    metric: str
    unit: str
    value: float
    found: Facts
    """What else is known of a metric that varies; empty for an exact one."""

    @property
    def estimate(self) -> Estimate | None:
        """The ratio to the baseline with its doubt."""
        return tied.estimate_of(self.found) if self.found else None


def entries(run: Run) -> Iterator[Entry]:
    """Yield every number of a run; what failed or was not measured has none."""
    for facts in run.section["cells"]:
        if facts["failure"] is not None:
            continue
        cell = Cell(*(facts[name] for name in Cell._fields))
        for metric in facts["metrics"]:
            found = measured(facts, metric)
            if found is not None:
                yield Entry(cell, metric, found["unit"], found["median"], found)
        for metric, value in facts["exact"].items():
            if is_number(value):
                unit = "B" if metric.endswith("_bytes") else "count"
                yield Entry(cell, metric, unit, value, {})
        if facts["final_loss"]:
            value = facts["final_loss"]["same_weights"]
            yield Entry(cell, "final_loss", "nats", value, {})


def one(runs: Sequence[Run], form: str) -> list[Entry]:
    """Return the numbers of the only run.

    Raises:
        BakeoffError: there is another one, or nothing was measured.
    """
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs)
        raise BakeoffError(f"--format {form} is about one run; {names} are given: give one")
    found = list(entries(runs[0]))
    if not found:
        raise BakeoffError(f"{runs[0].name} has no number to export; give a run that has")
    return found


def bencher(runs: Sequence[Run]) -> str:
    """Return a run in Bencher's metric format: benchmark, then measure, then its values.

    As https://bencher.dev/docs/reference/bencher-metric-format has it; give it to `bencher run
    --adapter json`. Measures are in seconds, bytes or counts; a ratio has its 95 % interval.
    """
    out: dict[str, dict[str, dict[str, float]]] = {}
    for entry in one(runs, "bencher"):
        measures = out.setdefault(str(entry.cell), {})
        slug = entry.metric.replace("_", "-")
        measures[slug] = {"value": entry.value}
        if entry.found.get("ratio") is not None:
            ends = {"lower_value": entry.found.get("low"), "upper_value": entry.found.get("high")}
            measures[f"{slug}-{RATIO}"] = {
                "value": entry.found["ratio"],
                **{name: end for name, end in ends.items() if end is not None},
            }
    return text(out)


def github(runs: Sequence[Run]) -> str:
    """Return a run as github-action-benchmark's `customSmallerIsBetter`: a list of numbers.

    As https://github.com/benchmark-action/github-action-benchmark has it; all metrics are costs.
    """
    out: list[dict[str, Any]] = []
    for entry in one(runs, "github-action-benchmark"):
        name = f"{entry.cell} {entry.metric}"
        about = {"extra": sampled(entry.found)} if entry.found else {}
        out.append({"name": name, "unit": entry.unit, "value": entry.value, **about})
        if entry.found.get("ratio") is not None:
            unit = f"{RATIO} to {BASELINE[0]}"
            ratio = {"name": f"{name} {RATIO}", "unit": unit, "value": entry.found["ratio"]}
            low, high = entry.found.get("low"), entry.found.get("high")
            if low is not None and high is not None:
                ratio["range"] = f"± {(high - low) / 2:.3g}"
            said = f"{wording.ratio(entry.found)}, {entry.found.get('verdict') or 'not judged'}"
            out.append({**ratio, "extra": said})
    return text(out)


def sampled(found: Facts) -> str:
    """Return how much was sampled."""
    known = [f"{found[name]} {name}" for name in COUNTS if found.get(name)]
    return ", ".join(known)


def asv(runs: Sequence[Run]) -> str:
    """Return a run as one of asv's result files, `results/MACHINE/COMMIT-ENV.json`.

    As https://asv.readthedocs.io/en/stable/dev.html has it. A metric is a benchmark with the
    parameters style, workload and backend, and so is its ratio to the baseline.
    """
    found = one(runs, "asv")
    run, started = runs[0], stamp(runs[0].when)
    python = ".".join(versions(run).get("python", "").split(".")[:2])
    packages = {name: v for name, v in versions(run).items() if name != "python"}
    columns = {
        "style": list(dict.fromkeys(f"{e.cell.entrant} {e.cell.style}" for e in found)),
        "workload": list(dict.fromkeys(e.cell.workload for e in found)),
        "backend": list(dict.fromkeys(e.cell.backend for e in found)),
    }
    params = [[repr(value) for value in values] for values in columns.values()]
    results = {}
    for metric in dict.fromkeys(entry.metric for entry in found):
        of = {
            (f"{e.cell.entrant} {e.cell.style}", e.cell.workload, e.cell.backend): e
            for e in found
            if e.metric == metric
        }
        each = [of.get((s, w, b)) for s, w, b in itertools.product(*columns.values())]
        quarters = [quartiles(run, entry) if entry else (None, None) for entry in each]
        counts = [entry and entry.found.get("samples") for entry in each]
        values = [entry and entry.value for entry in each]
        results[f"bakeoff.{metric}"] = row(params, started, values, [], quarters, counts)
        beside = [e.estimate if e else None for e in each]
        if any(beside):
            ends, half = ([interval(e, level) for e in beside] for level in (0.99, 0.5))
            ratios = [e.ratio if e else None for e in beside]
            counts = [count if e else None for e, count in zip(beside, counts, strict=True)]
            name = f"bakeoff.{metric}_{RATIO}"
            results[name] = row(params, started, ratios, ends, half, counts)
    return text(
        {
            "version": ASV,
            "commit_hash": str(run.commit.get("id") or ""),
            "env_name": f"bakeoff-py{python}",
            "date": stamp(str(run.commit.get("time") or run.when)),
            "params": machine(run),
            "python": python,
            "requirements": packages,
            "env_vars": dict(run.section["environment"].get("environment") or {}),
            "result_columns": list(ASV_COLUMNS),
            "results": {name: trimmed(values) for name, values in results.items()},
            "durations": {},
        }
    )


type Ends = tuple[float | None, float | None]


def row(
    params: list[list[str]],
    started: int | None,
    result: Sequence[float | None],
    ends: Sequence[Ends],
    quarters: Sequence[Ends],
    counts: Sequence[int | None],
) -> list[Any]:
    """Return the columns of a benchmark, by the order of its parameters."""
    statistics = [column(end[i] for end in of) for of in (ends, quarters) for i in (0, 1)]
    number = column(None if count is None else 1 for count in counts)
    return [list(result), params, None, started, None, *statistics, number, column(counts)]


def interval(estimate: Estimate | None, level: float) -> Ends:
    """Return an interval, where there is an estimate."""
    if estimate is None or not math.isfinite(estimate.standard_error):
        return None, None
    half = float(special.stdtrit(estimate.df, (1 + level) / 2)) * estimate.standard_error
    return math.exp(estimate.log_ratio - half), math.exp(estimate.log_ratio + half)


def column(values: Iterable[Any]) -> list[Any] | None:
    """Return a column with the digits that asv keeps; None where nothing of it is known."""
    out = [None if v is None or not np.isfinite(v) else float(f"{v:.{DIGITS}g}") for v in values]
    return out if any(value is not None for value in out) else None


def trimmed(values: list[Any]) -> list[Any]:
    """Return columns without the last ones that nothing is known of."""
    return list(reversed(list(itertools.dropwhile(lambda v: v is None, reversed(values)))))


def quartiles(run: Run, entry: Entry) -> Ends:
    """Return the quartiles of a metric's samples."""
    if not entry.found:
        return None, None
    group = Group(entry.metric, entry.cell.workload, entry.cell.backend)
    blocks = run.samples.get(group, {}).get(entry.cell, [])
    values = [value for block in blocks for value in block.values]
    if not values:
        return None, None
    low, high = np.quantile(values, [0.25, 0.75]).tolist()
    return low, high


def machine(run: Run) -> dict[str, str]:
    """Return what asv says of a machine."""
    about: Mapping[str, Any] = run.machine
    system = " ".join(str(about.get(name) or "") for name in ("system", "release")).strip()
    return {
        "machine": str(about.get("node") or ""),
        "os": system,
        "arch": str(about.get("machine") or ""),
        "cpu": processor_model(run.machine),
        "num_cpu": str((about.get("cpu") or {}).get("count") or ""),
    }


def stamp(when: str) -> int | None:
    """Return a time in milliseconds since 1970, as JavaScript has it; UTC where none is said."""
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
            "`jax-bakeoff[parquet]`, or give --format csv"
        ) from error
    kinds = {name: pa.string() for name in TEXTS} | {name: pa.int64() for name in COUNTS}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in COLUMNS])
    file = io.BytesIO()
    write_table(pa.Table.from_pylist(list(rows(runs)), schema=schema), file)
    return file.getvalue()


def text(data: Any) -> str:
    """Return data as a JSON text."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
