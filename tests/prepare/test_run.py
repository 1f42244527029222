"""Environments of a run: the shared one, and those of entrants that have their own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.cells import Selection
from bench.engine.process import Interpreter
from bench.engine.task import Environment
from bench.environments.builder import Builder
from bench.environments.spec import Spec
from bench.offer import Offer
from bench.prepare import run as room
from bench.prepare.run import ask_environments
from bench.runfile import EnvironmentInfo

ISOLATED = """
# /// script
# requires-python = "{python}"
# dependencies = ["jmp==0.0.4"]
# ///
from impls.pure_jax import STYLES, build

DISTRIBUTION = "jmp"
"""


def test_an_entrant_that_cannot_be_built_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: str(tmp_path / f"{name}.py") for name in ("mine", "old")}
    for file, python in zip(files.values(), (">=3.12", "==2.7.*"), strict=True):
        Path(file).write_text(ISOLATED.format(python=python))

    asked: list[tuple[str, ...]] = []

    def ask(environment: Environment, entrants: tuple[str, ...], *_: Any) -> Environment:
        asked.append(entrants)
        backends = ["cpu"] if "mine" in environment.info.spec else ["cpu", "gpu"]
        offer = Offer({name: ["pure"] for name in entrants}, {}, backends)
        return replace(environment, offer=offer)

    def build(self: Builder, spec: Spec, *_: Any) -> Environment:
        info = EnvironmentInfo(spec=str(spec))
        return Environment(Interpreter(), info)

    monkeypatch.setattr(room, "ask_environment", ask)
    monkeypatch.setattr(Builder, "build", build)
    builder = Builder(tmp_path / "environments")
    sides = ask_environments(Selection(tuple(files), files=files), Spec("current"), builder)
    assert asked == [("pure_jax",), ("mine",)]
    specs = {name: side.info.spec for name, side in sides.items()}
    assert specs == {"": "current", "mine": "the environment of 'mine'"}
    for side in sides.values():
        assert side.offer.styles == {"pure_jax": ["pure"], "mine": ["pure"]}
        assert side.offer.lacking == {"mine": ["gpu"]}
        [problem] = side.offer.problems.values()
        assert problem.startswith("entrant 'old' requires Python '==2.7.*'; this project runs on")
