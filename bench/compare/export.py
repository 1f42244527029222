"""Runs in the forms of other trackers: Bencher, github-action-benchmark, asv; and Parquet.

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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import special

from bench.cells import BASELINE, Cell
from bench.compare.conditions import versions
from bench.estimates import Group
from bench.report import tied
from bench.report.rows import COLUMNS, rows
from bench.report.table import Value
from bench.report.wording import measured
from bench.runfile.reader import cpu_of, is_number, processor_model
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.wording import Facts
    from bench.runfile.reader import Run
    from bench.stats.ratios import Estimate

RATIO = "ratio"
"""Added to a metric's name where it is the ratio to the baseline."""
ASV_VERSION = 2
ASV_COLUMNS = (
    *("result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b"),
    *("stats_q_25", "stats_q_75", "stats_number", "stats_repeat"),
)
DIGITS = 5
"""That asv keeps of its statistics."""
TEXTS = (
    *("run", "when", "entrant", "style", "workload", "backend"),
    *("metric", "unit", "verdict", "cores", "settled_by", "missing"),
)
COUNTS = ("samples", "blocks", "processes")
FLAGS = ("weak", "preliminary")


class ExportedNumber(NamedTuple):
    """One number of a run."""

    cell: Cell
    metric: str
    unit: str
    value: float
    found: Facts
    """The metric as the run file has it; empty for an exact one."""

    @property
    def ratio(self) -> float | None:
        """To the baseline, where it is known."""
        return self.found.get("ratio")


def numbers(runs: Sequence[Run], form: str) -> list[ExportedNumber]:
    """Return every number of the only run; cells that failed have none.

    Raises:
        BakeoffError: there is another run, or nothing was measured.
    """
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs)
        raise BakeoffError(f"--format {form} is about one run; {names} are given: give one")
    found = []
    for facts in runs[0].section["cells"]:
        if facts["failure"] is not None:
            continue
        cell = Cell.of(facts)
        for metric in facts["metrics"]:
            row = measured(facts, metric)
            if row is not None:
                found.append(ExportedNumber(cell, metric, row["unit"], row["median"], row))
        for metric, value in facts["exact"].items():
            if is_number(value):
                unit = "B" if metric.endswith("_bytes") else "count"
                found.append(ExportedNumber(cell, metric, unit, value, {}))
        if facts["final_loss"]:
            value = facts["final_loss"]["same_weights"]
            found.append(ExportedNumber(cell, "final_loss", "nats", value, {}))
    if not found:
        raise BakeoffError(f"{runs[0].name} has no number to export; give a run that has")
    return found


def bencher(runs: Sequence[Run]) -> str:
    """Return a run in Bencher's metric format: benchmark, then measure, then its values.

    As https://bencher.dev/docs/reference/bencher-metric-format has it; give it to `bencher run
    --adapter json`. Measures are in seconds, bytes or counts; a ratio has its 95 % interval.
    """
    out: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for each in numbers(runs, "bencher"):
        slug = each.metric.replace("_", "-")
        out[str(each.cell)][slug] = {"value": each.value}
        if each.ratio is not None:
            ends = {"lower_value": each.found.get("low"), "upper_value": each.found.get("high")}
            known = {name: end for name, end in ends.items() if end is not None}
            out[str(each.cell)][f"{slug}-{RATIO}"] = {"value": each.ratio} | known
    return text(out)


def github(runs: Sequence[Run]) -> str:
    """Return a run as github-action-benchmark's `customSmallerIsBetter`: a list of numbers.

    As https://github.com/benchmark-action/github-action-benchmark has it; all metrics are costs.
    """
    out: list[dict[str, Any]] = []
    for each in numbers(runs, "github-action-benchmark"):
        name, found = f"{each.cell} {each.metric}", each.found
        entry = {"name": name, "unit": each.unit, "value": each.value}
        if found:
            sampled = [f"{found[kind]} {kind}" for kind in COUNTS if found.get(kind)]
            entry["extra"] = ", ".join(sampled)
        out.append(entry)
        if each.ratio is not None:
            low, high = found.get("low"), found.get("high")
            unit = f"{RATIO} to {BASELINE[0]}"
            entry = {"name": f"{name} {RATIO}", "unit": unit, "value": each.ratio}
            if low is not None and high is not None:
                entry["range"] = f"± {(high - low) / 2:.3g}"
            value = Value(each.ratio, low=low, high=high)
            entry["extra"] = f"{value}, {found.get('verdict') or 'not judged'}"
            out.append(entry)
    return text(out)


def asv(runs: Sequence[Run]) -> str:
    """Return a run as one of asv's result files, `results/MACHINE/COMMIT-ENV.json`.

    As https://asv.readthedocs.io/en/stable/dev.html has it. A metric is a benchmark with the
    parameters style, workload and backend, and so is its ratio to the baseline.
    """
    found: dict[str, dict[tuple[str, ...], dict[str, float | None]]] = defaultdict(dict)
    for each in numbers(runs, "asv"):
        place = (str(each.cell.arm).replace("/", " "), each.cell.workload, each.cell.backend)
        found[f"bakeoff.{each.metric}"][place] = of_samples(each, runs[0])
        estimate = tied.estimate_of(each.found) if each.found else None
        if estimate is not None:
            ratio = of_ratio(each.found["ratio"], estimate)
            found[f"bakeoff.{each.metric}_{RATIO}"][place] = ratio
    run = runs[0]
    packages, about, commit = dict(versions(run)), run.machine, run.commit
    python = ".".join(packages.pop("python", "").split(".")[:2])
    known = [place for cells in found.values() for place in cells]
    params = [list(dict.fromkeys(values)) for values in zip(*known, strict=True)]
    places = list(product(*params))
    shared: dict[str, Any] = {
        "params": [[repr(value) for value in values] for values in params],
        "version": None,
        "started_at": milliseconds(run.when),
        "duration": None,
    }
    results = {
        name: [
            shared[column]
            if column in shared
            else [cells.get(place, {}).get(column) for place in places]
            for column in ASV_COLUMNS
        ]
        for name, cells in found.items()
    }
    return text(
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
            "env_vars": dict(run.section["environment"].get("environment") or {}),
            "result_columns": list(ASV_COLUMNS),
            "results": results,
            "durations": {},
        }
    )


def of_samples(each: ExportedNumber, run: Run) -> dict[str, float | None]:
    """Return asv's columns for a number of a run, with the quartiles of its samples."""
    out: dict[str, float | None] = {"result": each.value}
    if count := each.found.get("samples"):
        out |= {"stats_number": 1, "stats_repeat": count}
    group = Group(each.metric, each.cell.workload, each.cell.backend)
    blocks = run.samples.get(group, {}).get(each.cell, []) if each.found else []
    if values := [value for block in blocks for value in block.values]:
        low, high = np.quantile(values, [0.25, 0.75])
        out |= {"stats_q_25": rounded(low), "stats_q_75": rounded(high)}
    return out


def of_ratio(ratio: float, estimate: Estimate) -> dict[str, float | None]:
    """Return asv's columns for a ratio, with its intervals."""
    out: dict[str, float | None] = {"result": ratio}
    if math.isfinite(estimate.standard_error):
        for level, low, high in (
            (0.99, "stats_ci_99_a", "stats_ci_99_b"),
            (0.5, "stats_q_25", "stats_q_75"),
        ):
            half = float(special.stdtrit(estimate.df, (1 + level) / 2)) * estimate.standard_error
            out[low] = rounded(np.exp(estimate.log_ratio - half))
            out[high] = rounded(np.exp(estimate.log_ratio + half))
    return out


def rounded(value: float) -> float | None:
    """Return a statistic with the digits that asv keeps; None for what is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def milliseconds(when: str) -> int | None:
    """Return a time in milliseconds since 1970; UTC where no zone is given."""
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


def text(data: Any) -> str:
    """Return data as a JSON text."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
