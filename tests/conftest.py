from __future__ import annotations

import copy
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import jax
import pytest

import impls
from bench.environments.uv import compiled, minor
from common.equality import Case, make
from common.errors import BakeoffError
from tests.commands import Done

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from common.contract import TrainStep
    from tests.commands import Bakeoff

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


@cache
def online() -> bool:
    """Tell whether uv reaches a package index."""
    try:
        compiled(["jmp==0.0.4"], minor())
    except BakeoffError:
        return False
    return True


@pytest.fixture(scope="session")
def needs_network() -> None:
    if not online():
        pytest.skip("uv reaches no package index")


@pytest.fixture(scope="session")
def heard() -> Callable[[list[str]], list[str]]:
    """Return what makes a command hear Ctrl-C even where a shell has it ignored."""
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return lambda command: [sys.executable, "-c", code, *command]


@pytest.fixture(scope="session")
def step_of() -> Callable[[str, str, Case], TrainStep]:
    """Return what makes an entrant's style's step; compiled once a session, so load it first."""

    @cache
    def made(entrant: str, style: str, case: Case) -> TrainStep:
        return make(impls.load(entrant).style(style), case)

    return made


@pytest.fixture(scope="session")
def many() -> Callable[[dict[str, Any], int, int, int], dict[str, Any]]:
    """Return what makes a large run of a small one."""
    return enlarged


def enlarged(data: dict[str, Any], entrants: int, styles: int, workloads: int) -> dict[str, Any]:
    """Return a run with more of everything, made of copies of what is there."""
    whole = copy.deepcopy(data)
    section = whole["bakeoff"]
    cells = [c for c in section["cells"] if c["workload"] == "seed"]
    own: dict[tuple[str, str], list[Any]] = {
        (b["extra_info"]["entrant"], b["extra_info"]["style"]): []
        for b in whole["benchmarks"]
        if b["extra_info"]["workload"] == "seed"
    }
    for benchmark in whole["benchmarks"]:
        info = benchmark["extra_info"]
        if info["workload"] == "seed":
            own[info["entrant"], info["style"]].append(benchmark)
    names = ["toy", "seed", "wide", "batched"][:workloads]
    section["cells"], whole["benchmarks"] = [], []
    for workload in names:
        for i in range(entrants):
            for j in range(styles):
                first = i == j == 0
                cell = cells[0] if first else cells[1 + (i * styles + j) % (len(cells) - 1)]
                entrant = "pure_jax" if i == 0 else f"entrant{i}"
                name = {
                    "entrant": entrant,
                    "style": f"style{j}" if j else "pure",
                    "workload": workload,
                }
                section["cells"].append(cell | name)
                for benchmark in own[cell["entrant"], cell["style"]]:
                    info = benchmark["extra_info"] | name
                    whole["benchmarks"].append(benchmark | {"extra_info": info})
    section["control"] = []
    return whole


@pytest.fixture
def bakeoff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bakeoff:
    """Run the command line in this process, in an empty folder, with an empty cache."""
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAKEOFF_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        return Done(main(list(arguments)), *capsys.readouterr())

    return run
