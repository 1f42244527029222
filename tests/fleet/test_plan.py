"""PLAN.toml: what a plan is expanded to, and what is wrong with one."""

from pathlib import Path

import pytest

from bench.fleet import read_plan
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
        "  libraries: toy on cpu, 2 cells, 0:01:00",
        "  libraries: seed on cpu, 2 cells, 0:01:00",
        "  libraries: toy on cpu in flax==0.12.0, 2 cells, 0:01:00",
        "  libraries: seed on cpu in flax==0.12.0, 2 cells, 0:01:00",
        "  compare2: seed on cpu, 2 cells, 0:00:30",
        "  compare2: seed on cpu (2), 2 cells, 0:00:30",
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
