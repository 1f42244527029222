"""PLAN.toml: what a plan is expanded to, and what is wrong with one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.fleet.plan import plan

if TYPE_CHECKING:
    from pathlib import Path

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
entrants = ["haiku"]
styles = ["pure", "transform"]
repeat = 2
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def test_a_plan_is_expanded(path: Path) -> None:
    runs = plan(path)
    assert [str(run) for run in runs] == [
        *("libraries: toy on cpu", "libraries: seed on cpu"),
        *("libraries: toy on cpu in flax==0.12.0", "libraries: seed on cpu in flax==0.12.0"),
        *("compare2: seed on cpu", "compare2: seed on cpu (2)"),
    ]
    assert [run.table.cells for run in runs] == [2] * 6
    assert [run.table.budget for run in runs] == [60.0] * 4 + [30.0] * 2
    assert len({run.key for run in runs}) == 6
    assert runs[2].arguments == [
        *("--entrant=pure_jax,equinox", "--style=pure", "--workload=toy"),
        *("--backend=cpu", "--environment=flax==0.12.0", "--budget=60"),
    ]
    assert [run.key for run in runs] == [run.key for run in plan(path)]


def test_plans_include_others_whose_defaults_give_way(path: Path) -> None:
    (path.parent / "below").mkdir()
    (path.parent / "below" / "common.toml").write_text(
        "[defaults]\nbudget = 7\nworkloads = ['toy']\n"
        "[[compare]]\nname = 'shared'\nentrants = ['haiku', 'haiku']\n"
    )
    path.write_text("include = ['below/common.toml']\n[defaults]\nbudget = 9\n")
    [run] = plan(path)
    assert (run.table.name, run.workload, run.table.budget) == ("shared", "toy", 9.0)
    assert run.table.cells == 1


def test_a_plan_is_listed_with_its_cost(path: Path, bakeoff: Bakeoff) -> None:
    expected = {"runs": 6, "cells": 12, "seconds": 300.0, "with_too_little_budget": 0}
    assert json.loads(bakeoff("matrix", str(path), "--json").out) == expected
    path.write_text("[[compare]]\nname = 'short'\nentrants = ['haiku', 'equinox']\nbudget = 5\n")
    done = bakeoff("matrix", str(path))
    assert done.status == 0
    assert "short: seed on cpu, 2 cells, 5 s" in done.out
    assert "short: seed on cpu" in done.err


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "[[compare]]\nentrnts = ['haiku']": "unknown field `entrnts`",
        "[[compare]]\ndevices = [1]": "unknown field `devices`",
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
        "include = ['nowhere.toml']": "cannot read the plan",
        "include = ['plan.toml']": "plan.toml includes itself",
    }.items(),
)
def test_a_wrong_plan(text: str, message: str, path: Path, bakeoff: Bakeoff) -> None:
    path.write_text(text)
    done = bakeoff("matrix", str(path))
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
