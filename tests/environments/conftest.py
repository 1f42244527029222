from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import impls
from bench.environments.builder import Builder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TWIN = """
# /// script
# requires-python = "{python}"
# dependencies = ["{requirement}"]
# ///
from common.steps import pure_style
from impls.pure_jax import build as build
import jmp

DISTRIBUTION = "jmp"
STYLES = {{"pure": pure_style(build)}}
"""


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "environments")


@pytest.fixture
def twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that adds `mine.py`, an entrant with an environment of its own."""
    monkeypatch.setattr(impls, "OUTSIDE", {})

    def make(requirement: str = "jmp==0.0.4", python: str = ">=3.12") -> str:
        path = tmp_path / "mine.py"
        path.write_text(TWIN.format(requirement=requirement, python=python))
        return impls.add(path)

    return make
