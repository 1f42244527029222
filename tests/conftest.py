from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import jax
import pytest

import impls
from common.equality import Case, make

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import TrainStep

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(scope="session")
def step_of() -> Callable[[str, str, Case], TrainStep]:
    """Return what makes an entrant's style's step; compiled once a session, so load it first."""

    @cache
    def made(entrant: str, style: str, case: Case) -> TrainStep:
        return make(impls.load(entrant).style(style), case)

    return made
