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
from bench.report import tied, wording
from bench.report.rows import COLUMNS, rows
from bench.report.runs import cpu_of, is_number, processor_model
from bench.report.wording import measured
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    """The metric as the run file has it; empty for an exact one."""

    @property
    def estimate(self) -> Estimate | None:
        """The ratio to the baseline with its standard error."""
        return tied.estimate_of(self.found) if self.found else None


def entries(run: Run) -> Iterator[Entry]:
    """Yield every number of a run; cells that failed have none."""
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
    entries, run = one(runs, "asv"), runs[0]
    packages = dict(versions(run))
    python = ".".join(packages.pop("python", "").split(".")[:2])
    found: dict[str, dict[tuple[str, ...], dict[str, float | None]]] = defaultdict(dict)
    for entry in entries:
        place = (f"{entry.cell.entrant} {entry.cell.style}", *entry.cell[2:])
        found[f"bakeoff.{entry.metric}"][place] = of_samples(entry, run)
        if entry.estimate is not None:
            ratio = of_ratio(entry.found["ratio"], entry.estimate)
            found[f"bakeoff.{entry.metric}_{RATIO}"][place] = ratio
    places = [place for cells in found.values() for place in cells]
    params = [list(dict.fromkeys(values)) for values in zip(*places, strict=True)]
    started = stamp(run.when)
    results = {
        name: benchmark(params, started, [cells.get(place, {}) for place in product(*params)])
        for name, cells in found.items()
    }
    about = run.machine
    return text(
        {
            "version": ASV,
            "commit_hash": str(run.commit.get("id") or ""),
            "env_name": f"bakeoff-py{python}",
            "date": stamp(str(run.commit.get("time") or run.when)),
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


def of_samples(entry: Entry, run: Run) -> dict[str, float | None]:
    """Return asv's columns for a number of a run, with the quartiles of its samples."""
    out: dict[str, float | None] = {"result": entry.value}
    if count := entry.found.get("samples"):
        out |= {"stats_number": 1, "stats_repeat": count}
    group = Group(entry.metric, entry.cell.workload, entry.cell.backend)
    blocks = run.samples.get(group, {}).get(entry.cell, []) if entry.found else []
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


def benchmark(
    params: list[list[str]], started: int | None, cells: Sequence[Mapping[str, float | None]]
) -> list[Any]:
    """Return an asv benchmark: `ASV_COLUMNS`, without the last ones that are not known.

    Args:
        params: The values of each parameter.
        started: Milliseconds since 1970.
        cells: Columns of each combination of parameters, in order.
    """
    row: dict[str, Any] = {
        "params": [[repr(value) for value in values] for values in params],
        "started_at": started,
    }
    for name in dict.fromkeys(name for cell in cells for name in cell):
        row[name] = [cell.get(name) for cell in cells]
    last = max(place for place, name in enumerate(ASV_COLUMNS) if row.get(name) is not None)
    return [row.get(name) for name in ASV_COLUMNS[: last + 1]]


def rounded(value: float) -> float | None:
    """Return a statistic with the digits that asv keeps; None for what is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def stamp(when: str) -> int | None:
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
    kinds = {name: pa.string() for name in TEXTS} | {name: pa.int64() for name in COUNTS}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in COLUMNS])
    file = io.BytesIO()
    write_table(pa.Table.from_pylist(list(rows(runs)), schema=schema), file)
    return file.getvalue()


def text(data: Any) -> str:
    """Return data as a JSON text."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
