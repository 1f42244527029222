"""`pytest bench` as a whole, with an entrant that computes something else and one that crashes."""

import io
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bench.conftest import Replay
from bench.measure.cells import Cell, Found, Offer, Selection
from bench.measure.run import Run, WorkerFailedError, work
from bench.measure.source import code_lines
from bench.report.terminal import tables
from bench.stats.ratios import ratio_to_baseline
from common.errors import BakeoffError

ROOT = Path(__file__).parents[1]
OFFER = Offer(
    styles={"pure_jax": ["pure"], "equinox": ["pure", "filter_jit"]},
    problems={"gone": "entrant 'gone' needs the package 'gone'"},
    backends=["cpu"],
    versions={},
    devices={},
)

PLANTED = """
from impls import pure_jax
DISTRIBUTION = "jax"

def build(config):
    import jax
    model = pure_jax.build(config)
    def step(params, state, token):
        state, logits = model.step(params, state, token)
        return state, logits * 1.001
    return model._replace(step=step)

from common.steps import pure_style
STYLES = {"pure": pure_style(build)}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run the benchmarks of a copy of this project that has two bad entrants more."""
    copy = tmp_path_factory.mktemp("clone")
    for name in ("impls", "common", "bench"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "impls" / "planted.py").write_text(PLANTED)
    (copy / "impls" / "crashing.py").write_text("raise OSError('no such planet')\n")
    options = ["--style=pure", "--workload=toy", "--blocks=2", "--rounds=3", "--cold-samples=1"]
    options += ["--entrant=planted,crashing", "--entrant=pure_jax"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "bench", "--benchmark-json=run.json", *options],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (copy / "run.json").exists(), done.stdout + done.stderr
    return done, json.loads((copy / "run.json").read_text())


def test_another_function_is_a_failed_cell_and_the_others_go_on(
    run: tuple[subprocess.CompletedProcess[str], Any],
) -> None:
    done, found = run
    assert done.returncode == 1
    assert "planted-pure-toy-cpu: not equal: loss off by" in done.stdout
    assert "relative to the float64 reference (allowed: 1e-06)" in done.stdout
    assert "crashing-pure-toy-cpu: import failed: OSError: no such planet" in done.stdout
    assert {b["extra_info"]["entrant"] for b in found["benchmarks"]} == {"pure_jax"}
    assert set(found["bakeoff"]["failed"]) == {"planted-pure-toy-cpu", "crashing-pure-toy-cpu"}


def test_entries_say_what_they_are(run: tuple[subprocess.CompletedProcess[str], Any]) -> None:
    found = run[1]
    by_metric = {b["extra_info"]["metric"]: b for b in found["benchmarks"]}
    assert set(by_metric) == {
        *("trace", "lower", "compile", "step", "final_loss"),
        *("epoch_by_chunk", "epoch_by_scan", "sample"),
    }
    for benchmark in found["benchmarks"]:
        info = benchmark["extra_info"]
        assert {"entrant", "style", "workload", "backend", "metric", "unit", "proof"} <= set(info)
        assert 0 <= info["proof"]["loss"] <= 1e-6
        assert benchmark["stats"]["median"] > 0
    assert by_metric["step"]["stats"]["rounds"] == 6
    assert by_metric["compile"]["stats"]["rounds"] == 1
    assert by_metric["compile"]["extra_info"]["program"]["alias_bytes"] == 0
    loss = by_metric["final_loss"]["extra_info"]
    assert loss["unit"] == "nats per character"
    assert loss["entropy"] == 0.0
    assert len(loss["own_initialiser"]) == 3
    scan = by_metric["epoch_by_scan"]["extra_info"]
    assert scan["largest_loss_difference_to_chunk_by_chunk"] < 1e-5


def test_a_run_says_how_it_was_made(run: tuple[subprocess.CompletedProcess[str], Any]) -> None:
    machine = run[1]["machine_info"]
    assert {"jax", "flax", "dm-haiku", "equinox", "optax", "numpy"} <= set(machine["versions"])
    assert machine["devices"]["cpu"]
    assert machine["affinity"]
    assert len(machine["load_average"]) == 3
    assert "XLA_FLAGS" in machine["environment"]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(entrants=("flex",)), "unknown entrant 'flex'; known: pure_jax, equinox, gone;"),
        (Selection(styles=("jti",)), "unknown style 'jti'; known: filter_jit, pure;"),
        (
            Selection(workloads=("tiny",)),
            "unknown workload 'tiny'; known: toy, seed, wide, batched",
        ),
        (Selection(backends=("gpu",)), "unknown backend 'gpu'; known: cpu;"),
        (
            Selection(entrants=("pure_jax",), styles=("filter_jit",)),
            "unknown style of pure_jax 'filter_jit'; known: pure;",
        ),
    ],
)
def test_unknown_names(selection: Selection, message: str) -> None:
    with pytest.raises(BakeoffError) as caught:
        selection.cells(OFFER)
    assert str(caught.value).startswith(message)


def test_selection() -> None:
    cells = Selection(workloads=("toy",)).cells(OFFER)
    assert [c[:2] for c in cells] == [
        ("pure_jax", "pure"),
        ("equinox", "pure"),
        ("equinox", "filter_jit"),
        ("gone", "pure"),
    ]
    assert Selection(("equinox",), ("pure",), ("toy",)).cells(OFFER) == [
        Cell("equinox", "pure", "toy", "cpu")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--blocks=0"], "--blocks is 0; it must be a whole number from 1 to 100000"),
        (["--cold-samples=-1"], "--cold-samples is -1; it must be a whole number from 1"),
        (["--workload=tiny"], "unknown workload 'tiny'; known: toy, seed, wide, batched"),
        (["--benchmark-json=pyproject.toml"], "pyproject.toml exists already; files are never"),
        (["--benchmark-json=nowhere/run.json"], "there is no folder nowhere; make it first"),
    ],
)
def test_bad_options_end_with_one_line_and_status_2(options: list[str], message: str) -> None:
    before = (ROOT / "pyproject.toml").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "bench", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert (ROOT / "pyproject.toml").read_bytes() == before


def test_the_parent_imports_no_library_under_test() -> None:
    code = (
        "import sys, bench.conftest; print({'jax', 'flax', 'haiku', 'equinox'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_every_style_has_three_cold_times() -> None:
    # filter_jit cannot trace alone: its split comes from JAX's events, the others' from a clock.
    job = {"job": "cold", "entrant": "equinox", "style": "filter_jit"}
    records = work(job | {"workload": "toy", "backend": "cpu"})
    assert [record["metric"] for record in records] == ["lower", "trace", "compile"]
    assert all(record["seconds"][0] > 0 for record in records)


def script(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


@pytest.mark.parametrize(
    ("worker", "seconds", "message"),
    [
        ("import sys; sys.exit('out of cheese')", 60, r"exit status 1\): out of cheese"),
        ("print('hello')", 60, r"wrote 'hello', which is not JSON"),
        ("import os; os.abort()", 60, "exit status -6"),
        ("import time; time.sleep(60)", 0.5, "no end after 0 s"),
        ("pass", 60, "exit status 0"),
    ],
)
def test_a_worker_that_fails(worker: str, seconds: float, message: str) -> None:
    with pytest.raises(WorkerFailedError, match=message):
        work({}, seconds, script(worker))


def test_a_failing_worker_costs_its_own_cells_only(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = (Cell(name, "pure", "toy", "cpu") for name in ("pure_jax", "equinox"))

    def fake(job: dict[str, Any]) -> list[dict[str, Any]]:
        if job["job"] == "warm":
            return [{"cell": list(cell), "metric": "proof", "facts": {}} for cell in (good, bad)]
        cell = [job[name] for name in Cell._fields]
        if job["entrant"] == "equinox":
            raise WorkerFailedError("worker failed (exit status -9)", [])
        return [{"cell": cell, "metric": "trace", "seconds": [1.0]}]

    monkeypatch.setattr("bench.measure.run.work", fake)
    run = Run({good: {"trace"}, bad: {"trace"}}, OFFER, 1, 1, cold_samples=3, say=lambda _: None)
    assert run.result(bad).failure == "worker failed (exit status -9)"
    assert run.result(good).failure is None
    assert run.result(good).seconds["trace"] == [[1.0]] * 3


def test_replay_gives_back_the_samples() -> None:
    clock = Replay([0.5, 0.25])
    taken = []
    for _ in range(3):
        start = clock()
        clock.step()
        taken.append(clock() - start)
    assert taken == [0.5, 0.25, 0.5]


def test_ratio_is_taken_block_by_block() -> None:
    # The machine is twice as slow in the second block: a ratio of overall medians would not be 1.1.
    ratio = ratio_to_baseline([[1.1, 1.1], [2.2, 2.2, 9.9]], [[1.0, 1.0], [2.0, 2.0, 2.0]])
    assert ratio == pytest.approx((1.1, 1.1, 1.1))
    assert ratio_to_baseline([[2.0], [8.0]], [[1.0], [1.0]]) == pytest.approx((4.0, 2.0, 8.0))


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_fits(width: int) -> None:
    from rich.console import Console

    proof = {
        "program": {"whole": True},
        "same_program_as_baseline": False,
        "operations_beside_baseline": {"add": -49},
    }
    loss = {"same_weights": 2.3456, "own_initialiser": [2.5, 3.5], "entropy": 0.9}
    found = Found(
        seconds={name: [[0.012345678]] for name in ("step", "trace", "lower", "compile", "sample")},
        facts={"proof": proof, "final_loss": loss},
    )
    rows = {
        Cell("pure_jax", "pure", "seed", "cpu"): found,
        Cell("flax_nnx", "cached_partial", "seed", "cpu"): found,
        Cell("equinox", "pure", "seed", "cpu"): Found(failure="not equal: [loss] differs"),
    }
    console = Console(width=width, record=True, file=io.StringIO())
    for part in tables(rows):
        console.print(part)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for expected in ("12.346", "1.00 (1.00-1.00)", "2.346", "3.000", " 49", "0.9000"):
        assert expected in text
    assert "FAILED equinox-pure-seed-cpu: not equal: [loss] differs" in text


def test_code_lines_are_counted_without_comments_and_docstrings(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        '"""Doc\nstring."""\n\n# comment\nx = """a\nb"""\n\n\ndef f():\n    "d"\n    return x\n'
    )
    assert code_lines(path) == 4
