"""`pytest bench` as a whole, with an entrant that computes something else and one that crashes."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.conftest import Replay
from bench.measure.cells import Cell, Found, Offer, Selection
from bench.measure.run import Run, WorkerFailedError, records
from bench.measure.source import code_lines
from bench.report import curves, markdown
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
    assert loss["unit"] == "s"
    assert loss["value_unit"] == "nats per character"
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
    assert machine["xla_flags"] == ""
    assert machine["environment"]["JAX_ENABLE_COMPILATION_CACHE"] == "false"


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


def pytest_bench(*options: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "bench", "--style=pure", "--workload=toy", *options]


def test_save_and_compare(tmp_path: Path) -> None:
    options = ["--entrant=pure_jax", "--workload=toy", "-kstep", "--blocks=1", "--rounds=3"]
    options += [f"--benchmark-storage={tmp_path / 'saved'}", f"--rootdir={ROOT}"]
    options[:0] = [str(ROOT / "bench")]
    for more in ("--benchmark-save=first", "--benchmark-compare=0001"):
        # In a folder of its own: pytest-benchmark wants its storage below the current one.
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "machine_info is different" not in done.stdout + done.stderr
    assert "(0001_first)" in done.stdout


def test_interrupting_a_run_keeps_what_was_measured(tmp_path: Path) -> None:
    """Ctrl-C reaches the whole process group, once a cold process is at work."""
    path = tmp_path / "run.json"
    with subprocess.Popen(
        pytest_bench("--entrant=pure_jax", "--cold-samples=50", f"--benchmark-json={path}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "cold process 2 of" in line:
                os.killpg(process.pid, signal.SIGINT)
        status = process.wait()
    output = "".join(seen)
    assert status == 2, output
    assert "Traceback" not in output
    assert "INTERNALERROR" not in output
    assert "interrupted: what was measured is reported" in output
    found = json.loads(path.read_text())
    by_metric = {b["extra_info"]["metric"]: b["stats"]["rounds"] for b in found["benchmarks"]}
    assert by_metric["step"] == 200
    assert by_metric["compile"] >= 1
    assert found["bakeoff"]["failed"] == {}


def test_markdown_table(run: tuple[subprocess.CompletedProcess[str], Any]) -> None:
    head, _, row, *failed = markdown.table(run[1]).splitlines()
    assert row.startswith("| [pure_jax](impls/pure_jax.py) `pure` | ")
    assert "| 1.00 (1.00–1.00), 0." in row
    assert row.count("|") == head.count("|")
    assert any(line.startswith("| crashing-pure-toy-cpu | failed: import") for line in failed)


def test_curves_on_top_of_each_other(tmp_path: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 0.25)):
        losses = [{"epoch": i, "loss": 3.0 - i + shift} for i in range(3)]
        lines = [{"run": {"entrant": name, "style": "pure"}}, *losses]
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert curves.table([curves.read(tmp_path / name) for name in "ab"]).splitlines() == [
        "| epoch | a pure | b pure | spread |",
        "|--:|--:|--:|--:|",
        "| 0 | 3.0000 | 3.2500 | 2.5e-01 |",
        "| 1 | 2.0000 | 2.2500 | 2.5e-01 |",
        "| 2 | 1.0000 | 1.2500 | 2.5e-01 |",
    ]


def test_the_parent_imports_no_library_under_test() -> None:
    code = (
        "import sys, bench.conftest; print({'jax', 'flax', 'haiku', 'equinox'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_every_style_has_three_cold_times() -> None:
    # filter_jit cannot trace alone: its split comes from JAX's events, the others' from a clock.
    job = {"job": "cold", "entrant": "equinox", "style": "filter_jit"}
    found = list(records(job | {"workload": "toy", "backend": "cpu"}))
    assert [record["metric"] for record in found] == ["lower", "trace", "compile"]
    assert all(record["seconds"][0] > 0 for record in found)


def script(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


@pytest.mark.parametrize(
    ("worker", "seconds", "message"),
    [
        ("import sys; sys.exit('out of cheese')", 60, r"exit status 1\): out of cheese"),
        ("print('hello')", 60, r"wrote 'hello', which is not JSON"),
        ("import os; os.abort()", 60, "exit status -6"),
        ("import time; time.sleep(60)", 0.5, "silent for 0.5 s"),
        ("pass", 60, "exit status 0"),
    ],
)
def test_a_worker_that_fails(worker: str, seconds: float, message: str) -> None:
    with pytest.raises(WorkerFailedError, match=message):
        list(records({}, seconds, script(worker)))


GOOD, BAD, BASE = (Cell(n, "pure", "toy", "cpu") for n in ("haiku", "equinox", "pure_jax"))


def made(monkeypatch: pytest.MonkeyPatch, needed: set[str], fake: Any) -> Run:
    """Return a run of a good and a bad cell whose workers are a function's."""
    monkeypatch.setattr("bench.measure.run.records", fake)
    needs = dict.fromkeys((GOOD, BAD), needed)
    return Run(needs, OFFER, 1, 1, cold_samples=3, say=lambda _: None)


def test_a_failing_cold_worker_costs_its_own_cell_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if job["job"] == "warm":
            for name in job["cells"]:
                yield {"cell": [*name, "toy", "cpu"], "metric": "proof", "facts": {}}
        elif job["entrant"] == "equinox":
            raise WorkerFailedError("worker failed (exit status -9)")
        else:
            yield {"cell": [job[n] for n in Cell._fields], "metric": "trace", "seconds": [1.0]}

    run = made(monkeypatch, {"trace"}, fake)
    assert run.result(BAD).failure == "worker failed (exit status -9)"
    assert run.result(GOOD).failure is None
    assert run.result(GOOD).seconds["trace"] == [[1.0]] * 3


def test_who_kills_a_shared_worker_is_left_out_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = []

    def fake(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        jobs.append([name[0] for name in job["cells"]])
        for name in job["cells"]:
            yield {"cell": [*name, "toy", "cpu"], "starts": True}
            if name[0] == "equinox":
                raise WorkerFailedError("worker failed (exit status -6)")
            yield {"cell": [*name, "toy", "cpu"], "metric": "proof", "facts": {}}
        for name in job["cells"]:
            yield {"cell": [*name, "toy", "cpu"], "metric": "step", "seconds": [2.0]}

    run = made(monkeypatch, {"step"}, fake)
    assert run.result(BAD).failure == "worker failed (exit status -6)"
    assert run.result(GOOD).failure is None
    assert run.result(GOOD).seconds["step"] == [[2.0]]
    assert run.baseline(GOOD).seconds["step"] == [[2.0]]
    assert jobs == [["pure_jax", "haiku", "equinox"], ["pure_jax", "haiku"]]


def test_a_worker_that_dies_late_leaves_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"cell": list(GOOD), "metric": "proof", "facts": {}}
        yield {"phase": "timing"}
        yield {"cell": list(GOOD), "metric": "step", "seconds": [2.0]}
        raise WorkerFailedError("worker failed (silent for 300 s)")

    run = made(monkeypatch, {"step"}, fake)
    assert run.result(GOOD).failure is None
    assert run.result(BAD).failure == "worker failed (silent for 300 s)"


def test_proven_cells_without_warm_metrics_outlive_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fake(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if job["job"] == "cold":
            yield {"cell": [job[n] for n in Cell._fields], "metric": "trace", "seconds": [1.0]}
            return
        yield {"cell": list(GOOD), "metric": "proof", "facts": {}}
        yield {"phase": "timing"}
        raise WorkerFailedError("worker failed (exit status -9)")

    run = made(monkeypatch, {"trace"}, fake)
    assert run.result(GOOD).failure is None
    assert run.result(GOOD).seconds["trace"] == [[1.0]] * 3
    assert run.result(BAD).failure == "worker failed (exit status -9)"


def test_a_workload_measures_its_own_metrics_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def fake(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        asked[job["workload"]] = job["metrics"]
        yield from ()

    monkeypatch.setattr("bench.measure.run.records", fake)
    seed = GOOD._replace(workload="seed")
    run = Run({GOOD: {"step"}, seed: {"sample"}}, OFFER, 1, 1, 1, say=lambda _: None)
    run.result(GOOD)
    run.result(seed)
    assert asked == {"toy": ["step"], "seed": ["sample"]}


def test_interrupting_programs_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.measure.run.records", fake)
    monkeypatch.setattr("bench.measure.run.offer", lambda: OFFER)
    assert main(["entrants", "--programs", "--workload", "toy"]) == 130
    assert capsys.readouterr().err == "bakeoff: interrupted\n"


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
