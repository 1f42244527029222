"""Lanes: several pieces of work at the same time, each on cores of its own, as one generator."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.engine.actions import Action, Cores, Lanes, Steps

type Supply = Callable[[Cores], Steps[Any] | None]
"""Gives a lane its next job, or None when there is nothing left to begin."""


def concurrently(lanes: Iterable[Steps[Any]]) -> Lanes:
    """Run lanes side by side: each has one action under way at any time.

    Which lane goes on is decided by which action ends, and by nothing else, so that the same
    outcomes in the same order give the same actions.
    """
    waiting: dict[int, Steps[Any]] = {}
    begin: list[Action] = []
    for lane in lanes:
        with suppress(StopIteration):
            action = next(lane)
            waiting[action.worker] = lane
            begin.append(action)
    while waiting:
        outcome = yield tuple(begin)
        lane, begin = waiting.pop(outcome.worker), []
        with suppress(StopIteration):
            action = lane.send(outcome)
            waiting[action.worker] = lane
            begin = [action]


def supplied(cores: Cores, supply: Supply) -> Steps[None]:
    """Do one job after another on these cores, until there is none."""
    while (job := supply(cores)) is not None:
        yield from job
