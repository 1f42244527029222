"""`bakeoff matrix --out`: runs on this machine, and on a Ray cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bench.cells import Cell
from bench.cli.matrix import write_index
from bench.estimates import Estimate
from bench.fleet import cluster
from bench.fleet.plan import CompareTable, PlannedRun, plan
from bench.fleet.process import measure_here
from bench.runfile import CellResult, ResultsWithSamples, SampleRow, Series
from common.errors import BakeoffError
from tests.commands import Bakeoff, command, how

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HAIKU = Cell("haiku", "pure", "seed", "cpu")
STEP = Estimate(cell=HAIKU, metric="step", form="amount", value=1e-3, unit="s")
SHORT = """
[[compare]]
entrants = ["pure_jax"]
workloads = ["toy"]
metrics = ["step"]
budget = 30
"""


def run_file(samples: int = 0) -> str:
    """Return a run file with one cell."""
    rows = [SampleRow(0, i, 0.0, 1e-3) for i in range(samples)]
    results = ResultsWithSamples(
        cells=[CellResult(cell=HAIKU)],
        estimates=[STEP],
        samples=[Series(cell=HAIKU, metric="step", rows=rows)],
    )
    return msgspec.json.encode({"bakeoff": results}).decode()


WRITER = (
    *(sys.executable, "-c"),
    f"import sys; open(sys.argv[-1].split('=')[1], 'w').write({run_file()!r})",
)
"""Stands for pytest: it writes a run file at once."""


def planned(name: str = "a", number: int = 0) -> PlannedRun:
    return PlannedRun(CompareTable(name, entrants=("haiku",)), "current", "cpu", "seed", number)


def test_runs_are_measured_one_after_another_and_indexed(tmp_path: Path) -> None:
    both, lines = [planned("a"), planned("b")], list[str]()
    for run, output in measure_here(both, tmp_path, lines.append, WRITER):
        assert output.file is not None
        (tmp_path / f"{run.key}.json").write_bytes(output.file)
    assert len(lines) == 2
    assert write_index(tmp_path, [*both, planned("not measured")]) == 2
    index = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert [(row["compare"], row["entrant"], row["failure"]) for row in index] == [
        *(("a", "haiku", None), ("b", "haiku", None)),
    ]
    assert [msgspec.convert(row, Estimate) for row in index[0]["estimates"]] == [STEP]
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".jsonl"}


def test_a_failed_run_goes_on_from_its_journal(
    tmp_path: Path, bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = "import pathlib as p; p.Path('.bakeoff').mkdir(); p.Path('.bakeoff/a.journal')"
    fails = (sys.executable, "-c", f"{begins}.write_text('x'); print('no'); raise SystemExit(3)")
    goes_on = (*WRITER[:2], f"{WRITER[2]}; assert '--resume' in sys.argv")
    (tmp_path / "plan.toml").write_text(SHORT)
    given = ("matrix", "plan.toml", "--out", "out", "--json")
    for measuring, status, suffixes in (
        (fails, 1, {".unfinished", ".txt", ".jsonl"}),
        (goes_on, 0, {".json", ".jsonl"}),
    ):
        monkeypatch.setattr(measure_here, "__defaults__", (measuring,))
        done = bakeoff(*given)
        assert done.status == status
        assert {path.suffix for path in (tmp_path / "out").iterdir()} == suffixes
        assert ("failed: no;" in done.err) == (status == 1)
    monkeypatch.setattr(measure_here, "__defaults__", (fails,))
    counts = json.loads(bakeoff(*given).out)
    assert counts == {"runs": 1, "done": 1, "failed": 0, "cells": 1}, "it is not measured again"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ray", "auto"], "--ray without --out; name the folder"),
        (["--out", "plan.toml"], "is not a folder"),
        (["--out", "out", "--ray", "auto"], "pip install --editable '.[ray]'"),
    ],
)
def test_wrong_use(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    bakeoff: Bakeoff,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    (tmp_path / "plan.toml").write_text(SHORT)
    done = bakeoff("matrix", "plan.toml", *arguments)
    assert done.status == 2
    assert message in done.err


def test_memory_does_not_grow_with_the_number_of_run_files(tmp_path: Path) -> None:
    peaks = []
    for count in (2, 10):
        runs = [planned(number=number) for number in range(count)]
        for run in runs:  # samples are most of a run file
            (tmp_path / f"{run.key}.json").write_text(run_file(20_000))
        tracemalloc.start()
        assert write_index(tmp_path, runs) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.slow
def test_an_interrupted_run_goes_on(
    tmp_path: Path, heard: Callable[[list[str]], list[str]]
) -> None:
    """Ctrl-C in the middle of a real run; the same command goes on from its journal."""
    (tmp_path / "plan.toml").write_text(SHORT)
    given = command("matrix", "plan.toml", "--out", "out")
    first = subprocess.Popen(heard(given), **how(tmp_path), stderr=subprocess.PIPE)
    end = time.monotonic() + 100
    while time.monotonic() < end and first.poll() is None:
        journals = list((tmp_path / "out").glob("*.unfinished/.bakeoff/*.journal"))
        if any('"block"' in journal.read_text() for journal in journals):
            break
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=60)
    assert first.returncode == 130, error
    assert "interrupted" in error
    assert list((tmp_path / "out").glob("*.unfinished/.bakeoff/*.journal"))
    second = subprocess.run(given, **how(tmp_path), capture_output=True, check=False, timeout=200)
    assert second.returncode == 0, second.stderr
    [path] = (tmp_path / "out").glob("compare1-*.json")
    assert json.loads(path.read_text())["bakeoff"]["cells"]
    assert not list((tmp_path / "out").glob("*.unfinished"))


# A Ray cluster

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is an extra: pip install --editable '.[ray]'",
)


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a Ray cluster on this machine, without nodes that measure."""
    from ray.cluster_utils import Cluster  # type: ignore[import-not-found,unused-ignore]

    for name in [name for name in os.environ if "XDIST" in name]:
        monkeypatch.delenv(name)  # or pytest-benchmark would switch itself off
    local = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield local
    local.shutdown()


@needs_ray
@pytest.mark.slow
def test_a_node_with_other_packages_is_left_out(local: Any, tmp_path: Path) -> None:
    other_jax = tmp_path / "jax-0.1.dist-info" / "METADATA"
    other_jax.parent.mkdir()
    other_jax.write_text("Metadata-Version: 2.1\nName: jax\nVersion: 0.1\n")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    local.add_node(num_cpus=1, env_vars={"PYTHONPATH": paths})
    runs, lines = [planned(number=number) for number in range(4)], list[str]()
    outputs = cluster.measure_on_cluster(runs, local.address, lines.append, WRITER)
    with closing(outputs), pytest.raises(BakeoffError, match="no node of the cluster can measure"):
        next(outputs)
    local.add_node(num_cpus=1)
    outputs = cluster.measure_on_cluster(runs, local.address, lines.append, WRITER)
    assert sorted(run.number for run, output in outputs if output.file) == [0, 1, 2, 3]
    assert lines
    assert all("left out: it has another jax" in line for line in lines)


@needs_ray
@pytest.mark.slow
def test_a_real_run_whose_node_is_killed(local: Any, tmp_path: Path) -> None:
    """Both nodes are on this machine; if the lost one was measuring, the other one starts anew."""
    path = tmp_path / "plan.toml"
    path.write_text(SHORT)
    first = local.add_node(num_cpus=1)
    local.add_node(num_cpus=1)
    threading.Timer(12, local.remove_node, [first], {"allow_graceful": False}).start()
    [(_, output)] = cluster.measure_on_cluster(plan(path), local.address, print)
    assert output.file is not None, output.log
