"""What devices are worth: which cells there are, ratios within blocks, a run from end to end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import runfile
from bench.cells import Arm, Cell, Offer, Selection
from bench.metrics import METRICS
from bench.report import wording
from bench.report.scaling import efficiency
from bench.runfile import Result
from bench.runfile.scaling import scaling
from bench.samples import Found, Samples
from bench.worker.workloads import use
from common.errors import BakeoffError
from tests.commands import how

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "results" / "xeon-2-cores" / "2026-11-26-default.json"
OFFER = Offer(
    styles={"pure_jax": ["pure", "tuned"], "torch": ["eager"]},
    problems={},
    backends=["cpu"],
    versions={},
    devices={"cpu": "cpu"},
    details={"cpu": {"count": 4}},
    foreign=["torch"],
)


def cell(style: str) -> Cell:
    return Arm.of(f"pure_jax/{style}").at("batched", "cpu")


def style_of(row: dict[str, Any]) -> str:
    """Return the style of a row of a file, with its devices."""
    return Cell.of(row).arm.full_style


def found(factor: float) -> Found:
    """Return four blocks of two processes, in which a step takes so many milliseconds."""
    blocks = [
        Samples(process, number, 0.0, [factor * (1 + 0.001 * i * number) for i in (1, 2)], 2)
        for process, number in ((1, 1), (1, 2), (2, 3), (2, 4))
    ]
    cold = [Samples(5, 5, 0.0, [0.5]), Samples(6, 6, 0.0, [0.7])]
    return Found(blocks={"step": blocks, "compile": cold})


def test_styles_over_devices_are_cells_beside_the_plain_ones() -> None:
    chosen = Selection(styles=("pure", "eager"), workloads=("batched",), devices=(1, 2))
    arms = [c.arm for c in chosen.cells(OFFER)]
    shared = [Arm("pure_jax", "pure", *mesh) for mesh in ((0,), (1,), (2,), (2, True))]
    assert arms == [*shared, Arm("torch", "eager")]
    assert list(map(str, arms))[2:4] == ["pure_jax/pure@2", "pure_jax/pure@2x"]


def test_rows_of_files_name_devices_only_where_there_are_some() -> None:
    assert cell("pure").facts.keys() == {"entrant", "style", "workload", "backend"}
    for style, name in {
        "pure": "pure_jax",
        "pure@1": "pure_jax on 1 device",
        "tuned@4": "pure_jax tuned on 4 devices",
        "pure@2x": "pure_jax on 2 devices (weak)",
    }.items():
        assert Cell.of({**cell(style).facts, "failure": None}) == cell(style)
        assert wording.name(cell(style)) == name


def test_the_baseline_knows_of_no_mesh() -> None:
    assert cell("pure").is_baseline
    shared = cell("pure@2")
    row = msgspec.convert(shared.facts, Result)
    assert {shared.is_baseline, row.is_baseline, shared.is_pure} == {False}
    assert row.cell == shared
    assert shared.baseline == cell("pure")
    sampled = [name for name, metric in METRICS.items() if metric.applies(shared)]
    assert "step" in sampled
    assert not {"sample", "epoch_by_scan"} & set(sampled), "these take the step that all share"


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (Selection(devices=(1, 8)), "devices is 8, and cpu has 4 here: give a number from 1 to 4"),
        (Selection(("pure_jax",), workloads=("toy",), devices=(1, 2)), "do not divide among 2"),
        (Selection(backends=("cpu:4",)), "cpu has 4 devices here: give cpu:0 to cpu:3"),
        (Selection(backends=("cpu:x",)), "backend is 'cpu:x'; give its name, or that and"),
        (Selection(backends=("npu",)), "unknown backend 'npu'; known: cpu"),
    ],
)
def test_devices_that_are_not_there(selection: Selection, words: str) -> None:
    with pytest.raises(BakeoffError, match=re.escape(words)):
        selection.cells(OFFER)


def test_a_device_is_named_by_its_index() -> None:
    chosen = Selection(styles=("pure",), workloads=("batched",), backends=("cpu:3",))
    assert {c.backend for c in chosen.cells(OFFER)} == {"cpu:3"}
    with pytest.raises(BakeoffError, match="cpu has 1 device here: give cpu:0"):
        use("cpu:1")
    use("cpu:0")


def test_efficiency_is_a_ratio_to_one_device() -> None:
    """Two devices take 0.6 of one's time, and 1.25 of it with as many streams on each."""
    times = {"pure": 1.0, "pure@1": 1.01, "pure@2": 0.606, "pure@2x": 1.2625}
    found_rows = scaling({cell(s): found(t) for s, t in times.items()})
    rows = {row.cell.arm.full_style: row for row in found_rows}
    assert list(rows) == ["pure@1", "pure@2", "pure@2x"]
    assert rows["pure@1"].ratio == pytest.approx(1.01)
    assert rows["pure@2"].ratio == pytest.approx(0.6)
    assert efficiency(rows["pure@2"]).number == pytest.approx(1 / 1.2)
    assert efficiency(rows["pure@2x"]).number == pytest.approx(0.8)
    assert rows["pure@2"].compile_seconds == pytest.approx(0.6)
    for row in rows.values():
        assert row.low
        assert row.high
        assert row.low <= row.ratio <= row.high


def test_what_failed_or_has_no_devices_is_no_row() -> None:
    cells = {cell("pure"): found(1.0), cell("pure@1"): found(1.0), cell("pure@2"): found(1.0)}
    cells[cell("pure@2")].failure = "batch 8 does not divide"
    assert [row.cell for row in scaling(cells)] == [cell("pure@1")]
    assert scaling({cell("pure"): found(1.0)}) == []


def measured(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks of scaling."""
    command = [sys.executable, "-m", "pytest", str(ROOT / "bench" / "test_scaling.py"), *options]
    return subprocess.run(command, **how(folder), capture_output=True, check=False, timeout=400)


@pytest.mark.slow
def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    chosen = ("--entrant=pure_jax", "--style=pure", "--workload=batched", "--backend=cpu")
    few = ("--processes=2", "--blocks=2", "--rounds=1", "--metric=step")
    done = measured(tmp_path, *chosen, *few, "--devices=2", "--benchmark-json=run.json")
    assert done.returncode == 0, done.stdout
    run: dict[str, Any] = json.loads((tmp_path / "run.json").read_text())
    msgspec.convert(run, runfile.RunFile)
    rows = run["bakeoff"]["scaling"]
    assert [style_of(row) for row in rows] == ["pure@1", "pure@2", "pure@2x"]
    steps = {style_of(c): c["metrics"].get("step", {}) for c in run["bakeoff"]["cells"]}
    assert steps["pure@2"]["ratio"] > 0
    assert not {"ratio", "verdict"} & steps["pure@2x"].keys(), "it does more work"
    assert steps["pure@2x"]["median"] > 0
    proofs = {style_of(c): c["proof"] for c in run["bakeoff"]["cells"]}
    assert proofs["pure@2"]["settings"] == {"devices": 2}
    assert proofs["pure@2"]["trajectory"] <= 1e-5
    assert run["bakeoff"]["environment"]["environment"]["JAX_NUM_CPU_DEVICES"] == "2"
    assert "as many" in done.stdout


@pytest.mark.slow
def test_devices_have_to_be_named(tmp_path: Path) -> None:
    done = measured(tmp_path, "--entrant=pure_jax", "--workload=batched")
    assert done.returncode == 2
    assert "test_scaling.py needs --devices, as in 1,2" in done.stdout + done.stderr
