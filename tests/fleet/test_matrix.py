"""`bakeoff matrix`: plans, what is wrong with one, and runs here and on a Ray cluster."""

import importlib.util
import os
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.fleet import CompareTable, read_plan
from bench.fleet.measurement import measure_here, measure_on_cluster
from bench.runfile.reader import read
from common.errors import BakeoffError
from tests.commands import Bakeoff

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
entrants = ["haiku", "haiku"]
styles = ["pure", "transform"]
repeat = 2
"""
WRITES = "import sys; open(sys.argv[-1].split('=')[1], 'w').write('a run file')"
"""Stands for pytest: it writes a run file at once."""
RESUMES = f"import sys; assert '--resume' in sys.argv; {WRITES}"
BEGINS = "import pathlib as p; p.Path('.bakeoff').mkdir(exist_ok=True); "
BEGINS += "p.Path('.bakeoff/a.journal').write_text('x'); "
INTERRUPTS = "import os, time; os.kill(os.getppid(), 2); time.sleep(60)"
"""Stands for somebody who presses Ctrl-C: the run is interrupted in its turn."""


def test_a_plan_is_expanded(tmp_path: Path, bakeoff: Bakeoff) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    runs = read_plan(path)
    assert runs[2].arguments == [
        *("--entrant=pure_jax,equinox", "--style=pure", "--workload=toy"),
        *("--backend=cpu", "--environment=flax==0.12.0", "--budget=60"),
    ]
    assert len({run.key for run in runs}) == 6
    assert [run.key for run in runs] == [run.key for run in read_plan(path)]
    done = bakeoff("matrix", "plan.toml")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        "  libraries: width 8 on cpu, 2 cells, 0:01:00",
        "  libraries: width 128 on cpu, 2 cells, 0:01:00",
        "  libraries: width 8 on cpu in flax==0.12.0, 2 cells, 0:01:00",
        "  libraries: width 128 on cpu in flax==0.12.0, 2 cells, 0:01:00",
        "  compare2: width 128 on cpu, 2 cells, 0:00:30",
        "  compare2: width 128 on cpu (2), 2 cells, 0:00:30",
        "6 runs of 12 cells take 0:05:00 on one machine.",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "budget = ": "is not a plan in TOML",
        "": "has no cell; write at least one [[compare]]",
        "[[compare]]\nentrnts = ['haiku']": "unknown field `entrnts`",
        "[[compare]]\nentrants = ['flex']": "compare 1: unknown entrant 'flex'; known: pure_jax",
        "[[compare]]\nworkloads = ['huge']": "unknown workload 'huge'; known: toy",
        "[[compare]]\nstyles = ['pur']": "unknown style 'pur'; known: pure, tuned",
        "[[compare]]\nbackends = ['cpu:0']": "unknown backend 'cpu:0'; known: cpu, gpu, tpu",
        "[[compare]]\nbudget = nan": "at `$.budget`",
        "[[compare]]\nenvironments = ['main']": "environment 'main' is a git revision",
        "[[compare]]\nname = '../x'": "at `$.name`",
    }.items(),
)
def test_a_wrong_plan(text: str, message: str, tmp_path: Path, bakeoff: Bakeoff) -> None:
    (tmp_path / "plan.toml").write_text(text)
    done = bakeoff("matrix", "plan.toml")
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_runs_are_measured_and_those_cut_off_go_on_from_their_journals(
    tmp_path: Path, bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.toml").write_text("[[compare]]\nrepeat = 2\n")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    for program, status, words, suffixes in (
        (BEGINS + INTERRUPTS, 130, "interrupted; results so far are in out", {".unfinished"}),
        (f"{BEGINS}raise SystemExit('no')", 1, "failed: no; 2 of 2", {".unfinished", ".txt"}),
        (RESUMES, 0, "2 of 2 runs are measured", {".json"}),
        ("raise SystemExit('it is not measured again')", 0, "2 of 2 runs are", {".json"}),
    ):
        monkeypatch.setattr(measure_here, "__defaults__", ((sys.executable, "-c", program),))
        done = bakeoff("matrix", "plan.toml", "--out", "out")
        assert done.status == status, done.err
        assert words in done.out + done.err
        assert {file.suffix for file in (tmp_path / "out").iterdir()} == suffixes
    signal.signal(signal.SIGINT, before)


def test_ray_is_an_extra(tmp_path: Path, bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plan.toml").write_text("[[compare]]\n")
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    done = bakeoff("matrix", "plan.toml", "--out", "out", "--ray", "auto")
    assert done.status == 2
    assert "which is not installed: .venv/bin/uv pip install --editable '.[ray]'" in done.err


@pytest.mark.slow
def test_a_plan_is_measured_by_pytest_bench(
    tmp_path: Path, bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if "XDIST" in name]:
        monkeypatch.delenv(name)  # or pytest-benchmark would switch itself off
    plan = 'entrants = ["pure_jax"]\nworkloads = ["toy"]\nmetrics = ["step"]\nbudget = 15'
    (tmp_path / "plan.toml").write_text(f"[[compare]]\n{plan}\n")
    done = bakeoff("matrix", "plan.toml", "--out", "out")
    assert done.status == 0, done.err
    [path] = (tmp_path / "out").glob("*.json")
    assert {sample.metric for sample in read(path).samples} >= {"step"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")
def test_a_cluster_measures_also_where_a_node_is_lost_and_refuses_another_jax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster  # type: ignore[import-not-found,unused-ignore]

    for name in [name for name in os.environ if "XDIST" in name]:
        monkeypatch.delenv(name)  # or pytest-benchmark would switch itself off
    runs = [*CompareTable("a", entrants=("haiku",), repeat=4).list_runs()]
    local: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        lost = local.add_node(num_cpus=1)
        local.add_node(num_cpus=1)
        threading.Timer(8, local.remove_node, [lost], {"allow_graceful": False}).start()
        writer = (sys.executable, "-c", f"import time; time.sleep(6); {WRITES}")
        outputs = measure_on_cluster(runs, local.address, writer)
        assert {run.key for run, output in outputs if output.file} == {run.key for run in runs}
        other_jax = tmp_path / "jax-0.1.dist-info" / "METADATA"
        other_jax.parent.mkdir()
        other_jax.write_text("Metadata-Version: 2.1\nName: jax\nVersion: 0.1\n")
        paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        local.remove_node(local.worker_nodes.copy().pop())
        local.add_node(num_cpus=1, env_vars={"PYTHONPATH": paths})
        outputs = measure_on_cluster(runs, local.address, writer)
        with closing(outputs), pytest.raises(BakeoffError, match="another jax; make it like"):
            next(outputs)
    finally:
        local.shutdown()
