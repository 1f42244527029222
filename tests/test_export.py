"""Published runs in the forms of other trackers."""

from __future__ import annotations

import copy
import csv
import importlib.util
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.cli import main
from bench.compare import export
from bench.report.rows import COLUMNS
from bench.report.table import Value
from bench.runfile.reader import Run, read
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
XEON = ROOT / "results" / "xeon-2-cores" / "2026-11-26-default.json"
VALUES = {"value", "lower_value", "upper_value"}
"""Of a measure, in Bencher's own schema; the first is required."""


@pytest.fixture(scope="module")
def run() -> Run:
    return read(XEON)


def metric(run: Run, style: str, workload: str = "seed", name: str = "step") -> Any:
    return next(
        cell.metrics[name]
        for cell in run.section.cells
        if (cell.style, cell.workload) == (style, workload)
    )


def test_bencher(run: Run) -> None:
    found = json.loads(export.bencher([run]))
    for measure in (each for benchmark in found.values() for each in benchmark.values()):
        assert {"value"} <= measure.keys() <= VALUES
        assert all(isinstance(value, int | float) for value in measure.values())
    step, jit = found["flax_nnx-jit-seed-cpu"], metric(run, "jit")
    assert step["step"] == {"value": jit.median}
    ends = {"lower_value": jit.low, "upper_value": jit.high}
    assert step["step-ratio"] == {"value": jit.ratio, **ends}
    assert step["python-calls"]["value"] == 7227
    assert step["final-loss"]["value"] == pytest.approx(2.269, abs=1e-3)
    assert "step-ratio" not in found["pure_jax-pure-seed-cpu"]
    # Slugs, which is what identifies a measure, are lower case with hyphens and at most 64 long.
    assert all(re.fullmatch(r"[a-z0-9-]{1,64}", slug) for of in found.values() for slug in of)
    assert all(len(name) <= 1024 for name in found)


def test_github_action_benchmark(run: Run) -> None:
    found = json.loads(export.github([run]))
    by_name = {entry["name"]: entry for entry in found}
    assert len(by_name) == len(found) > 400
    jit = metric(run, "jit")
    seconds = by_name["flax_nnx-jit-seed-cpu step"]
    assert (seconds["unit"], seconds["value"]) == ("s", jit.median)
    counts = [f"{getattr(jit, name)} {name}" for name in ("samples", "blocks", "processes")]
    assert seconds["extra"] == ", ".join(counts)
    ratio = by_name["flax_nnx-jit-seed-cpu step ratio"]
    assert (ratio["unit"], ratio["value"]) == ("ratio to pure_jax", jit.ratio)
    half = (jit.high - jit.low) / 2
    assert float(ratio["range"].removeprefix("± ")) == pytest.approx(half, rel=0.01)
    assert ratio["extra"] == f"{Value.of_ratio(jit)}, slower"


def test_asv(run: Run) -> None:
    """The keys that asv's developer docs list; asv 0.6 was seen to load such a file."""
    found = json.loads(export.asv([run]))
    assert set(found) == {
        *("version", "commit_hash", "env_name", "date", "params", "python", "requirements"),
        *("env_vars", "result_columns", "results", "durations"),
    }
    assert (found["version"], found["python"]) == (2, "3.13")
    assert found["commit_hash"] == run.commit["id"]
    assert found["date"] == 1795680863000  # of the commit, in milliseconds
    assert found["params"].keys() >= {"machine", "os", "arch", "cpu", "num_cpu"}
    assert found["requirements"]["flax"] == "0.12.12"
    columns = found["result_columns"]
    by_name = {
        name: dict(zip(columns, values, strict=True)) for name, values in found["results"].items()
    }
    for name, row in by_name.items():
        count = math.prod(map(len, row["params"]))
        for column in ("result", *(c for c in columns if c.startswith("stats_"))):
            assert len(row[column]) == count, (name, column)
    step, ratio = by_name["bakeoff.step"], by_name["bakeoff.step_ratio"]
    styles, workloads, _ = step["params"]
    place = styles.index("'flax_nnx jit'") * len(workloads) + workloads.index("'seed'")
    jit = metric(run, "jit")
    assert step["result"][place] == jit.median
    assert step["stats_q_25"][place] < jit.median < step["stats_q_75"][place]
    assert step["stats_repeat"][place] == jit.samples
    ends = [ratio[f"stats_{end}"][place] for end in ("ci_99_a", "q_25", "q_75", "ci_99_b")]
    assert ends == sorted(ends)
    assert ends[0] < jit.ratio < ends[-1]
    assert ratio["result"][styles.index("'pure_jax pure'") * len(workloads)] is None


def test_parquet_has_the_rows_of_csv(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    path = tmp_path / "runs.parquet"
    assert main(["report", str(XEON), str(XEON), "-o", str(path)]) == 0
    table = pq.read_table(path)
    assert tuple(table.column_names) == COLUMNS
    capsys.readouterr()
    assert main(["report", str(XEON), str(XEON), "--format", "csv"]) == 0
    expected = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    rows = table.to_pylist()
    assert len(rows) == len(expected)
    for row, text in zip(rows, expected, strict=True):
        assert (row["entrant"], row["metric"] or "") == (text["entrant"], text["metric"])
        assert row["median"] == (float(text["median"]) if text["median"] else None)


@pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is not None, reason="the extra `parquet` is installed"
)
def test_without_pyarrow_it_says_what_to_install(run: Run) -> None:
    with pytest.raises(BakeoffError) as error:
        export.parquet([run])
    assert "pip install --editable '.[parquet]', or give --format csv" in str(error.value)


@pytest.mark.parametrize("form", [export.bencher, export.github, export.asv])
def test_failed_cells_are_left_out_and_a_form_is_of_one_run_with_numbers(
    run: Run, form: Callable[[list[Run]], str]
) -> None:
    def changed(entrants: set[str] | None) -> Run:
        """Return the run with cells of these entrants failed, or all, and no upper ends."""
        section = copy.deepcopy(run.section)
        for cell in section.cells:
            for found in cell.metrics.values():
                found.high = None
            if entrants is None or cell.entrant in entrants:
                cell.failure = "boom"
        return replace(run, section=section, samples={})

    assert json.loads(form([run]))
    text = form([changed({"haiku"})])
    assert "haiku pure" not in text
    assert "haiku-pure" not in text
    assert "NaN" not in text
    assert json.loads(text)
    with pytest.raises(BakeoffError, match="has no number to export"):
        form([changed(None)])
    with pytest.raises(BakeoffError, match=r"is about one run; .*2026-11-26-default, .* give"):
        form([run, run])
