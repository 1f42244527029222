"""`bakeoff matrix`: plans, comparisons on this machine, and on a Ray cluster."""

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

import pytest

from bench.cli import main
from bench.fleet import cluster
from bench.fleet.plan import CompareTable, PlannedComparison, plan
from bench.fleet.process import measure_here, run_file, save, write_index
from common.errors import BakeoffError
from tests.commands import command, how

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAN = """
[defaults]
budget = 60

[[compare]]
name = "libraries"
entrants = ["pure_jax", "equinox"]
workloads = ["toy", "seed"]
environments = ["current", "flax==0.12.0"]

[[compare]]
budget = 30
entrants = ["haiku"]
styles = ["pure", "transform"]
repeat = 2
"""
CELL = {"entrant": "haiku", "style": "pure", "workload": "seed", "backend": "cpu", "failure": None}
METRICS = {"step": {"median": 1, "ratio": 1, "low": 1, "high": 1, "verdict": "equivalent"}}
RUN = {"bakeoff": {"cells": [CELL | {"metrics": METRICS, "proof": "not kept"}]}}
SHORT = """
[[compare]]
entrants = ["pure_jax"]
workloads = ["toy"]
metrics = ["step"]
budget = 30
"""
WRITER = (
    *(sys.executable, "-c"),
    f"import json, sys; json.dump({RUN!r}, open(sys.argv[-1].split('=')[1], 'w'))",
)
"""Stands for pytest: it writes a run file at once."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a plan file."""
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def comparison(name: str = "a", number: int = 0) -> PlannedComparison:
    return PlannedComparison(CompareTable(name, entrants=("haiku",)), "seed", number=number)


# Plans


def test_a_plan_is_expanded(path: Path) -> None:
    found = plan(path)
    assert [str(c) for c in found] == [
        *("libraries: toy on cpu", "libraries: seed on cpu"),
        *("libraries: toy on cpu in flax==0.12.0", "libraries: seed on cpu in flax==0.12.0"),
        *("compare2: seed on cpu", "compare2: seed on cpu (2)"),
    ]
    assert [c.cells for c in found] == [2] * 6
    assert [c.table.budget for c in found] == [60.0] * 4 + [30.0] * 2
    assert len({c.key for c in found}) == 6
    assert found[2].arguments == [
        *("--entrant=pure_jax,equinox", "--style=pure", "--workload=toy"),
        *("--backend=cpu", "--environment=flax==0.12.0", "--budget=60"),
    ]
    assert found == plan(path)


def test_plans_include_others(path: Path) -> None:
    (path.parent / "below").mkdir()
    (path.parent / "below" / "common.toml").write_text(
        "[defaults]\nbudget = 7\nworkloads = ['toy']\n"
        "[[compare]]\nname = 'shared'\nentrants = ['haiku', 'haiku']\ndevices = [1, 2, 4]\n"
    )
    path.write_text("include = ['below/common.toml']\n[defaults]\nbudget = 9\n")
    [found] = plan(path)
    assert (found.table.name, found.workload, found.table.budget) == ("shared", "toy", 9.0)
    assert "--devices=1,2,4" in found.arguments
    assert found.cells == 6, "without devices, 1, 2, 4, and weak scaling over 2 and 4"


def test_a_plan_is_listed_with_its_cost(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", str(path), "--json"]) == 0
    expected = {"comparisons": 6, "cells": 12, "seconds": 300, "with_too_little_budget": 0}
    assert json.loads(capsys.readouterr().out) == expected
    path.write_text("[[compare]]\nname = 'short'\nentrants = ['haiku', 'equinox']\nbudget = 5\n")
    assert main(["matrix", str(path)]) == 0
    found = capsys.readouterr()
    assert "short: seed on cpu, 2 cells, 5 s" in found.out
    assert "short: seed on cpu" in found.err


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "[[compare]]\nentrnts = ['haiku']": "unknown field `entrnts`",
        "budget = ": "is not a plan in TOML",
        "": "has no cell; write at least one [[compare]]",
        "[[compare]]\nentrants = []": "length >= 1 - at `$.entrants`",
        "[[compare]]\nentrants = ['flex']": "compare 1: unknown entrant 'flex'; known: pure_jax",
        "[[compare]]\nworkloads = ['huge']": "unknown workload 'huge'; known: toy",
        "[[compare]]\nstyles = ['pur']": "unknown style 'pur'; known: pure, tuned",
        "[[compare]]\nmetrics = ['stepp']": "unknown metric 'stepp'; known: ",
        "[[compare]]\nbackends = ['cpu:0']": "unknown backend 'cpu:0'; known: cpu, gpu, tpu",
        "[[compare]]\nrepeat = 0": ">= 1 - at `$.repeat`",
        "[[compare]]\nbudget = nan": "at `$.budget`",
        "[[compare]]\nbudget = inf": "at `$.budget`",
        "[[compare]]\nbudget = 'long'": "got `str` - at `$.budget`",
        "[[compare]]\nenvironments = ['main']": "environment 'main' is a git revision",
        "[[compare]]\nenvironments = ['flx==1']": "unknown package 'flx'",
        "[[compare]]\nname = '../x'": "at `$.name`",
        "[[compare]]\ndevices = [0]": "at `$.devices[0]`",
        "include = ['nowhere.toml']": "cannot read the plan",
        "include = ['plan.toml']": "plan.toml includes itself",
    }.items(),
)
def test_a_wrong_plan(
    text: str, message: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(text)
    assert main(["matrix", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_wrong_use(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    for arguments, message in (
        (["--ray", "auto"], "--ray without --out; name the folder"),
        (["--out", str(path)], "is not a folder"),
        (["--out", str(path.parent), "--ray", "auto"], "pip install --editable '.[ray]'"),
    ):
        assert main(["matrix", str(path), *arguments]) == 2
        assert message in capsys.readouterr().err


# Comparisons on this machine


def test_measured_one_after_another_and_indexed(tmp_path: Path) -> None:
    both, lines = [comparison("a"), comparison("b")], list[str]()
    for done, result in measure_here(both, tmp_path, lines.append, WRITER):
        save(tmp_path, done, result)
    assert len(lines) == 2
    assert write_index(tmp_path, [*both, comparison("not measured")]) == 2
    index = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert [row["compare"] for row in index] == ["a", "b"]
    assert index[0]["metrics"] == METRICS
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".jsonl"}


def test_a_failed_comparison_goes_on_from_its_journal(tmp_path: Path) -> None:
    begins = "import pathlib as p; p.Path('.bakeoff').mkdir(); p.Path('.bakeoff/a.journal')"
    fails = (sys.executable, "-c", f"{begins}.write_text('x'); print('no'); raise SystemExit(3)")
    goes_on = (*WRITER[:2], f"{WRITER[2]}; assert '--resume' in sys.argv")
    for measuring, suffixes in ((fails, {".unfinished", ".txt"}), (goes_on, {".json"})):
        for done, result in measure_here([comparison()], tmp_path, print, measuring):
            save(tmp_path, done, result)
            assert result.log == {fails: "no", goes_on: "exit status 0"}[measuring]
        assert {path.suffix for path in tmp_path.iterdir()} == suffixes


def test_what_has_a_run_file_is_not_measured_again(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = path.parent / "out"
    out.mkdir()
    for each in plan(path):
        run_file(out, each).write_text(json.dumps(RUN))
    assert main(["matrix", str(path), "--out", str(out), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts == {"comparisons": 6, "done": 6, "failed": 0, "cells": 6}


def test_memory_does_not_grow_with_the_number_of_run_files(tmp_path: Path) -> None:
    peaks = []
    for count in (2, 20):
        many = [comparison(number=number) for number in range(count)]
        for each in many:  # samples are most of a run file
            run_file(tmp_path, each).write_text(json.dumps(RUN | {"benchmarks": [1.5] * 20_000}))
        tracemalloc.start()
        assert write_index(tmp_path, many) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on(
    tmp_path: Path, heard: Callable[[list[str]], list[str]]
) -> None:
    """Ctrl-C in the middle of a real comparison; the same command goes on from its journal."""
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


def test_a_comparison_asks_for_all_of_the_smallest_node() -> None:
    having = {"CPU": 8, "GPU": 2}, {"CPU": 4, "GPU": 1}, {"CPU": 8}
    nodes = [{"Resources": resources} for resources in having]
    options = cluster.requirements(nodes, {})
    assert (options["num_cpus"], options["num_gpus"]) == (4, 0)
    assert "label_selector" not in options
    options = cluster.requirements(nodes[:2], ["x", "y"])
    assert options["num_gpus"] == 1
    assert options["label_selector"] == {"ray.io/node-id": "!in(x,y)"}


def test_a_node_that_differs_from_this_host() -> None:
    here = cluster.about()
    assert cluster.difference(here, here) == ""
    assert cluster.difference(here | {"jax": "0.9"}, here) == (
        f"jax is 0.9 there and {here['jax']} here"
    )
    lacking = {name: version for name, version in here.items() if name != "flax"}
    assert "flax is missing there" in cluster.difference(lacking, here)


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
    some, lines = [comparison(number=number) for number in range(4)], list[str]()
    results = cluster.measure_on_cluster(some, local.address, lines.append, WRITER)
    with closing(results), pytest.raises(BakeoffError, match="no node of the cluster can measure"):
        next(results)
    local.add_node(num_cpus=1)
    results = cluster.measure_on_cluster(some, local.address, lines.append, WRITER)
    assert sorted(done.number for done, result in results if result.run) == [0, 1, 2, 3]
    assert len(lines) == 2
    assert all("left out: jax is 0.1 there and" in line for line in lines)


@needs_ray
@pytest.mark.slow
def test_a_real_comparison_whose_node_is_killed(local: Any, tmp_path: Path) -> None:
    """Both nodes are on this machine; if the lost one was measuring, the other one starts anew."""
    path = tmp_path / "plan.toml"
    path.write_text(SHORT)
    first = local.add_node(num_cpus=1)
    local.add_node(num_cpus=1)
    threading.Timer(12, local.remove_node, [first], {"allow_graceful": False}).start()
    for done, result in cluster.measure_on_cluster(plan(path), local.address, print):
        save(tmp_path, done, result)
        assert result.run is not None, result.log
    assert write_index(tmp_path, plan(path)) == 1
