"""`bakeoff matrix`: plans, the planner over made-up machines, and real runs on this one."""

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
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.cli import main
from bench.fleet.cost import least
from bench.fleet.drive import Event, Kind, collect, drive, file_of
from bench.fleet.here import Here
from bench.fleet.on_ray import HOST, about, unlike
from bench.fleet.plan import Comparison, plan
from bench.fleet.planner import ATTEMPTS, Machine, Planner
from bench.fleet.simulate import OVERHEAD, simulate
from bench.fleet.work import Done, measure
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.fleet.drive import Progress

ROOT = Path(__file__).parents[1]
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


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """Return a plan file."""
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def comparison(name: str = "a", budget: float = 10.0, backend: str = "cpu", number: int = 0) -> Any:
    return Comparison(name, ("haiku",), ("pure",), "seed", backend, "current", (), budget, number)


# Plans


def test_a_plan_is_expanded(planned: Path) -> None:
    found = plan(planned)
    assert [str(c) for c in found] == [
        *("libraries: toy on cpu", "libraries: seed on cpu"),
        *("libraries: toy on cpu in flax==0.12.0", "libraries: seed on cpu in flax==0.12.0"),
        *("compare2: seed on cpu", "compare2: seed on cpu (2)"),
    ]
    assert [c.cells for c in found] == [2] * 6
    assert [c.budget for c in found] == [60.0] * 4 + [30.0] * 2
    assert len({c.key for c in found}) == 6
    assert found[2].arguments == [
        *("--entrant=pure_jax,equinox", "--style=pure", "--workload=toy"),
        *("--backend=cpu", "--environment=flax==0.12.0", "--budget=60"),
    ]
    assert found == plan(planned)


def test_a_plan_over_devices(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("[[compare]]\nentrants = ['haiku']\ndevices = [1, 2, 4]\n")
    [found] = plan(path)
    assert "--devices=1,2,4" in found.arguments
    assert found.cells == 6, "none, 1, 2, 4, and as many streams on each of 2 and 4"
    path.write_text("[[compare]]\nentrants = ['haiku', 'haiku']\ndevices = [2, 2]\n")
    [found] = plan(path)
    assert found.cells == 4, "one device is always among them"


def test_a_budget_that_is_too_small_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("[[compare]]\nentrants = ['haiku', 'equinox']\nbudget = 5\n")
    assert main(["matrix", str(path)]) == 0
    found = capsys.readouterr()
    assert "1 of them have less budget than the fewest blocks take: compare1: seed" in found.err
    path.write_text("[[compare]]\nentrants = ['haiku', 'equinox']\nbudget = 60\n")
    assert main(["matrix", str(path)]) == 0
    assert capsys.readouterr().err == ""
    assert least(comparison()) < least(replace(comparison(), devices=(2,)))


def test_plans_include_others(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "common.toml").write_text(
        "[defaults]\nbudget = 7\nworkloads = ['toy']\n[[compare]]\nname = 'shared'\n"
    )
    path = tmp_path / "plan.toml"
    path.write_text("include = ['below/common.toml']\n[defaults]\nbudget = 9\n")
    [found] = plan(path)
    assert (found.name, found.workload, found.budget) == ("shared", "toy", 9.0)


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "[[compare]]\nentrnts = ['haiku']": "unknown field `entrnts`",
        "[[compre]]": "unknown field `compre`",
        "budget = ": "is not TOML",
        "": "has no cell; write at least one [[compare]]",
        "[[compare]]\nentrants = []": "has no cell",
        "[[compare]]\nentrants = ['flex']": "compare 1: unknown entrant 'flex'; known: pure_jax",
        "[[compare]]\nworkloads = ['huge']": "unknown workload 'huge'; known: toy",
        "[[compare]]\nstyles = ['pur']": "unknown style 'pur'; known: pure, tuned",
        "[[compare]]\nstyles = ['pure@2']": "style is 'pure@2'; give 'pure', and devices",
        "[[compare]]\nmetrics = ['stepp']": "unknown metric 'stepp'; known: ",
        "[[compare]]\nbackends = ['cppu']": "unknown backend 'cppu'; known: cpu, gpu, tpu",
        "[[compare]]\nbackends = ['cpu:0']": "unknown backend 'cpu:0'; known: cpu, gpu, tpu",
        "[[compare]]\nrepeat = 0": "repeat is 0; it must be a whole number from 1",
        "[[compare]]\nbudget = -1": "budget is -1.0; it must be a positive number",
        "[[compare]]\nbudget = 'long'": "Expected `float | null`, got `str` - at `$.compare",
        "[[compare]]\nenvironments = ['main']": "environment 'main' is a git revision",
        "[[compare]]\nenvironments = ['flx==1']": "unknown package 'flx'",
        "[[compare]]\nname = '../x'": "name is '../x'; give at most 40 letters",
        "[[compare]]\nrepeat = 0.5": "Expected `int | null`",
        "[[compare]]\ndevices = [0]": "devices is 0; it must be a whole number from 1",
        "include = ['nowhere.toml']": "cannot read the plan",
        "include = ['plan.toml']": "includes itself (plan.toml -> plan.toml): take one of them out",
        "[[compare]]\nrepeat = 10001": "repeat is 10001; it must be a whole number from 1",
    }.items(),
)
def test_a_plan_that_cannot_be(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    assert main(["matrix", str(path)]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_ten_thousand_cells_are_planned_at_once(tmp_path: Path) -> None:
    """How fast is measured by hand: a test of seconds fails on a busy machine."""
    path = tmp_path / "plan.toml"
    path.write_text(
        "[[compare]]\nentrants = ['pure_jax', 'haiku', 'equinox', 'flax_nnx', 'flax_linen']\n"
        "workloads = ['toy', 'seed']\nrepeat = 1000\n"
    )
    found = plan(path)
    assert (len(found), sum(c.cells for c in found)) == (2000, 10_000)


@pytest.mark.parametrize(
    ("arguments", "said"),
    {
        "--failures 1": "--failures is 1; give a part from 0 to less than 1",
        "--simulate 0": "--simulate is 0; give at least one machine",
        "--failures 0.1": "--failures without --simulate; say how many machines",
        "--simulate 9 --ray auto": "--simulate measures nothing; leave --out and --ray out",
        "--ray auto": "--ray without --out; name the folder",
    }.items(),
)
def test_wrong_use(
    arguments: str, said: str, planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["matrix", str(planned), *arguments.split()]) == 2
    assert said in capsys.readouterr().err


# The planner


def test_the_longest_begins_first_and_a_machine_has_one() -> None:
    planner = Planner()
    planner.add([comparison("short", 1), comparison("long", 9), comparison("middle", 5)])
    for name in ("x", "y"):
        planner.come(Machine(name))
    assert [(m.name, c.name) for m, c in planner.begun()] == [("x", "long"), ("y", "middle")]
    assert planner.begun() == []
    assert planner.ended("y").name == "middle"
    assert [(m.name, c.name) for m, c in planner.begun()] == [("y", "short")]
    assert planner.left == 2


def test_what_a_lost_machine_had_is_begun_elsewhere() -> None:
    planner = Planner()
    planner.add([comparison("a"), comparison("b", 5)])
    planner.come(Machine("x"))
    planner.come(Machine("y"))
    assert len(planner.begun()) == 2
    assert planner.gone("x") == comparison("a")
    planner.come(Machine("x"))
    assert planner.begun() == [], "not where it was lost, while there is another"
    planner.ended("y")
    assert [(m.name, c.name) for m, c in planner.begun()] == [("y", "a")]
    assert planner.gone("nobody") is None


def test_the_only_machine_of_a_backend_may_try_again() -> None:
    planner, only = Planner(), Machine("x", frozenset({"cpu", "gpu"}))
    planner.add([comparison(backend="gpu")])
    planner.come(only)
    planner.come(Machine("y"))
    assert [m.name for m, _ in planner.begun()] == ["x"]
    planner.gone("x")
    planner.come(only)
    assert [m.name for m, _ in planner.begun()] == ["x"]


def test_what_kills_machines_is_given_up() -> None:
    planner = Planner()
    planner.add([comparison()])
    for number in range(ATTEMPTS):
        planner.come(Machine(f"m{number}"))
        [(machine, _)] = planner.begun()
        planner.gone(machine.name)
    assert (planner.left, planner.given_up) == (0, [comparison()])


def test_a_backend_that_no_machine_has() -> None:
    planner = Planner()
    planner.add([comparison(backend="gpu"), comparison()])
    planner.come(Machine("x"))
    assert [c.backend for _, c in planner.begun()] == ["cpu"]
    assert planner.unservable() == {"gpu"}
    planner.come(Machine("y", frozenset({"cpu", "gpu"})))
    assert planner.unservable() == set()
    assert [c.backend for _, c in planner.begun()] == ["gpu"]


@pytest.mark.parametrize("seed", range(3))
def test_a_simulated_cluster_loses_nothing(seed: int) -> None:
    many = [comparison(budget=60.0 + 30 * (n % 5), number=n) for n in range(2000)]
    found = simulate(many, machines=100, failures=0.05, seed=seed)
    assert (found.done, found.twice, found.left) == (2000, 0, 0)
    assert found.lost > 0
    assert 1 <= found.ratio <= 1.2


def test_without_failures_the_bound_is_near() -> None:
    found = simulate([comparison(number=n) for n in range(10)], machines=5, failures=0)
    assert found.makespan == found.bound == 2 * (10 + OVERHEAD)


# From a plan to files


class Made:
    """A cluster that is told what happens."""

    busy = 0

    def __init__(self, events: Sequence[list[Event]]) -> None:
        self.coming, self.log, self.closed = list(events), list[tuple[str, str]](), False

    def begin(self, machine: Machine, comparison: Comparison) -> None:
        self.log.append((machine.name, comparison.name))

    def events(self, seconds: float) -> list[Event]:
        del seconds
        return self.coming.pop(0) if self.coming else []

    def close(self) -> None:
        self.closed = True


X, Y = Machine("x"), Machine("y")
OK = Done(0, zlib.compress(b"{}"), "")
BAD = Done(2, None, "unknown workload 'huge'\n")


def silent(what: str, progress: Progress) -> None:
    del what, progress


def test_lost_ended_failed_and_done_before(tmp_path: Path) -> None:
    all_ = [comparison("a", 4), comparison("b", 3), comparison("c", 2), comparison("old", 1)]
    file_of(tmp_path, all_[3]).write_text("{}")
    cluster = Made(
        [
            [Event(Kind.COME, X), Event(Kind.COME, Y)],
            [Event(Kind.GONE, X)],
            [Event(Kind.ENDED, Y, OK)],
            [Event(Kind.ENDED, Y, OK)],
            [Event(Kind.ENDED, Y, BAD)],
        ]
    )
    progress = drive(all_, cluster, tmp_path, silent)
    assert cluster.log == [("x", "a"), ("y", "b"), ("y", "a"), ("y", "c")]
    assert (progress.done, progress.failed, cluster.closed) == (3, 1, True)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".txt"}
    assert file_of(tmp_path, all_[0]).read_text() == "{}"
    assert "huge" in (tmp_path / f"{all_[2].key}.failed.txt").read_text()


def test_what_is_given_up_is_written_down(tmp_path: Path) -> None:
    machines = [Machine(f"m{number}") for number in range(ATTEMPTS)]
    events = [each for m in machines for each in ([Event(Kind.COME, m)], [Event(Kind.GONE, m)])]
    progress = drive([comparison()], Made(events), tmp_path, silent)
    assert (progress.done, progress.failed) == (0, 1)
    assert (
        f"{ATTEMPTS} machines were lost"
        in (tmp_path / f"{comparison().key}.failed.txt").read_text()
    )


def test_nobody_comes(tmp_path: Path) -> None:
    with pytest.raises(BakeoffError, match="no machine with cpu for 1 comparisons, and none has"):
        drive([comparison()], Made([]), tmp_path, silent, patience=0.0)
    gpu = Made([[Event(Kind.COME, X)]])
    with pytest.raises(BakeoffError, match="no machine with gpu for 1 comparisons"):
        drive([comparison(backend="gpu")], gpu, tmp_path, silent, patience=0.0)
    assert gpu.closed


def test_a_machine_that_is_refused_is_named(tmp_path: Path) -> None:
    said = list[str]()
    other = Event(Kind.REFUSED, Y, why="jax is 0.9 there and 0.12 here; make them the same")
    cluster = Made([[other, Event(Kind.COME, X)], [Event(Kind.ENDED, X, OK)]])
    progress = drive([comparison()], cluster, tmp_path, lambda what, _: said.append(what))
    assert (progress.done, progress.refused) == (1, [f"y is left out: {other.why}"])
    assert progress.refused[0] in said
    with pytest.raises(BakeoffError, match=r"y is left out: jax is 0\.9 there and 0\.12 here"):
        drive([comparison("b")], Made([[other]]), tmp_path, silent, patience=0.0)


def test_hosts_that_are_unlike_this_one() -> None:
    here = about()
    assert unlike(here) == ""
    assert unlike(here | {HOST: "another"}) == "", "machines differ, or there would be one"
    assert unlike(here | {"jax": "0.9"}) == (
        f"jax is 0.9 there and {here['jax']} here; make them the same"
    )
    lacking = {name: version for name, version in here.items() if name != "flax"}
    assert unlike(lacking).startswith("flax is missing there and ")


ECHO = (
    sys.executable,
    "-c",
    "import json, sys, time; a = sys.argv; time.sleep(float(a[-2].split('=')[1]) / 100); "
    "json.dump({'bakeoff': {'cells': [{'entrant': 'haiku', 'style': 'pure', 'workload': 'seed', "
    "'backend': 'cpu', 'failure': None, 'metrics': {'step': {'median': 1, 'ratio': 1, 'low': 1, "
    "'high': 1, 'verdict': 'equal'}, 'init': {'missing': 'x'}}}]}}, "
    "open(a[-1].split('=')[1], 'w'))",
)
"""Stands for pytest: it waits a hundredth of its budget, and writes a run file."""


def test_here_one_after_another(tmp_path: Path) -> None:
    all_ = [comparison("a"), comparison("b", 5)]
    cluster = Here({"cpu"}, tmp_path, ECHO)
    assert drive(all_, cluster, tmp_path, silent).done == 2
    assert collect(all_, tmp_path) == 2
    rows = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert [row["compare"] for row in rows] == ["a", "b"]
    assert rows[0]["metrics"] == {
        "step": {"median": 1, "ratio": 1, "low": 1, "high": 1, "verdict": "equal"}
    }
    again = Here({"cpu"}, tmp_path, (sys.executable, "-c", "raise SystemExit(9)"))
    assert drive(all_, again, tmp_path, silent).done == 2, "what has been measured is not again"


def peak(count: int, folder: Path) -> int:
    """Return the most bytes that Python has at once while so many run files are collected."""
    folder.mkdir()
    all_ = [comparison(number=number) for number in range(count)]
    cell = {"entrant": "haiku", "style": "pure", "workload": "seed", "backend": "cpu"}
    samples = [1.5] * 20_000  # as a run's own: most of its file
    text = json.dumps(
        {"bakeoff": {"cells": [{**cell, "failure": None, "metrics": {}}]}, "benchmarks": samples}
    )
    for each in all_:
        file_of(folder, each).write_text(text)
    tracemalloc.start()
    assert collect(all_, folder) == count
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_what_is_collected(tmp_path: Path) -> None:
    few, many = peak(5, tmp_path / "few"), peak(100, tmp_path / "many")
    assert many < 1.2 * few


def test_a_comparison_that_writes_nothing() -> None:
    done = measure(["a"], (sys.executable, "-c", "print('no'); raise SystemExit(3)"))
    assert (done.status, done.text, done.log, done.journal) == (3, None, "no", None)


def measured(folder: Path) -> bool:
    """Tell whether a block has been measured by a run whose journal is below a folder."""
    return any('"block"' in path.read_text() for path in folder.glob(".bakeoff/*.journal"))


@pytest.mark.slow
def test_real_comparisons_interrupted_and_taken_up(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a comparison: the same command goes on where it was."""
    (tmp_path / "plan.toml").write_text(
        "[[compare]]\nentrants = ['pure_jax']\nworkloads = ['toy']\nmetrics = ['step']\n"
        "budget = 60\n"
    )
    command = [sys.executable, "-m", "bench.cli", "matrix", "plan.toml", "--out", "out"]
    # They are no workers of the tests' own pytest: pytest-benchmark would switch itself off.
    env = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    env |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    first = subprocess.Popen(
        command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 100
    while not measured(tmp_path / "out") and time.monotonic() < end:
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert "interrupted; what was measured is in out, and the same command goes on" in said
    assert (tmp_path / "out" / "interrupted.json").exists()
    second = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=200
    )
    assert second.returncode == 0, second.stderr
    assert "1 of 1 comparisons, 1 cells in out/index.jsonl" in second.stdout
    assert not (tmp_path / "out" / "interrupted.json").exists()
    [path] = (tmp_path / "out").glob("compare1-*.json")
    assert json.loads(path.read_text())["bakeoff"]["cells"]


needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is an extra: pip install 'jax-bakeoff[ray]'",
)


@needs_ray
@pytest.mark.slow
def test_a_cluster_whose_node_is_killed(tmp_path: Path) -> None:
    """Three nodes of a local cluster, one of them killed while it measures."""
    from ray.cluster_utils import (  # type: ignore[import-not-found,unused-ignore]
        Cluster as Local,
    )

    from bench.fleet.on_ray import OnRay

    local = Local(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [local.add_node(num_cpus=1) for _ in range(3)]
    all_ = [comparison(str(n), 200.0) for n in range(6)]
    killed: list[str] = []

    def tell(what: str, progress: Progress) -> None:
        if progress.done == 1 and not killed:
            killed.append(what)
            local.remove_node(nodes[0], allow_graceful=False)

    try:
        progress = drive(all_, OnRay(local.address, ECHO, alone=False), tmp_path, tell)
    finally:
        local.shutdown()
    assert killed
    assert (progress.done, progress.failed) == (6, 0)


@needs_ray
@pytest.mark.slow
def test_real_benchmarks_on_a_cluster_whose_node_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both nodes are on this machine: one measures, and the other once the first is lost."""
    from ray.cluster_utils import (  # type: ignore[import-not-found,unused-ignore]
        Cluster as Local,
    )

    from bench.fleet.on_ray import OnRay

    for name in [name for name in os.environ if "XDIST" in name]:
        monkeypatch.delenv(name)  # or pytest-benchmark would switch itself off
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = tmp_path / "plan.toml"
    path.write_text(
        "[[compare]]\nentrants = ['pure_jax']\nworkloads = ['toy']\nmetrics = ['step']\n"
        "budget = 30\nrepeat = 2\n"
    )
    local = Local(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [local.add_node(num_cpus=1) for _ in range(2)]
    began, lost = list[str](), list[str]()

    def kill(name: str) -> None:
        [node] = [node for node in nodes if node.node_id == name]
        local.remove_node(node, allow_graceful=False)

    def tell(what: str, progress: Progress) -> None:
        del progress
        if " is lost" in what:
            lost.append(what)
        else:
            began.append(what.rpartition(" on ")[2])
            if len(began) == 1:
                threading.Timer(12, kill, began).start()

    try:
        progress = drive(plan(path), OnRay(local.address), tmp_path / "out", tell)
    finally:
        local.shutdown()
    assert (progress.done, progress.failed) == (2, 0)
    assert len(lost) == 1
    assert "begins anew" in lost[0]
    assert len(began) == 3
    assert began[0] not in began[1:]
    assert collect(plan(path), tmp_path / "out") == 2


def test_without_ray_a_line_says_what_to_install(
    planned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = str(planned.parent / "out")
    assert main(["matrix", str(planned), "--out", out, "--ray", "auto"]) == 2
    assert "pip install 'jax-bakeoff[ray]'" in capsys.readouterr().err
