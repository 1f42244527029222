"""What the machine did during a run, in words: reasons to doubt the numbers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cells import BASELINE, CONTROL
from bench.engine.actions import work
from bench.metrics import TINY
from bench.stats import health
from common.config import WORKLOADS

type Facts = dict[str, Any]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.cells import Offer
    from bench.engine.others import Busy
    from bench.engine.state import Spent, State

WATCHED = "step"
BASE = ("python", "jax", "jaxlib", "optax", "numpy")
"""What an environment of an entrant's own should have as everybody else does."""


def warnings(state: State, said: Facts, offer: Offer, busiest: Busy | None = None) -> list[str]:
    """Return plain sentences, none where there is nothing to warn of.

    Args:
        state: What was found.
        said: The `bakeoff` section of the run.
        offer: What the environment has, and under which conditions.
        busiest: The process that used the machine most, beside the run.
    """
    return [
        *state.notes,
        *filter(None, machine(state.spent, offer.conditions)),
        *filter(None, [health.compiled_from_source(offer.uncached)]),
        *unlike(offer),
        *_baseline(state),
        *_control(said, busiest),
        *_slow_calls(state),
        *pinned(state),
    ]


def pinned(state: State) -> Iterator[str]:
    """Yield whether steps that use several cores were measured on one."""
    large = work(WORKLOADS["seed"])
    where = dict.fromkeys(
        block.workload
        for block in state.blocks
        if block.cores and block.kind == WATCHED and work(WORKLOADS[block.workload]) > large
    )
    if where:
        yield (
            f"Steps at {' and '.join(where)} use several cores, and were measured on one: they "
            "take longer than users see. --cores all measures what they see."
        )


def machine(spent: Spent, conditions: dict[str, Any]) -> Iterator[str | None]:
    """Yield what is to be said of the machine's load, or None."""
    cores = os.cpu_count() or 1  # of the machine, as are the times and the load
    wall = sum(busy.wall for busy in spent.busy)
    stolen = sum(busy.stolen for busy in spent.busy)
    others = sum(busy.others for busy in spent.busy)
    load = conditions.get("load_average", [0.0])[0]
    if wall:
        yield health.busy(load, cores, stolen / (wall * cores), others / (wall * cores))


def unlike(offer: Offer) -> Iterator[str]:
    """Yield in which environments something beside the library differs from everybody's."""
    for name, versions in offer.apart.items():
        differs = [
            f"{what} {versions.get(what)} for {offer.versions.get(what)}"
            for what in BASE
            if versions.get(what) != offer.versions.get(what)
        ]
        if differs:
            yield (
                f"{name} runs in an environment of its own with {', '.join(differs)}: ratios are to"
                " the baseline in there, cold ones to the baseline here."
            )


def _baseline(state: State) -> Iterator[str]:
    """Yield what the baseline's blocks say of the machine."""
    for cell, row in state.cells.items():
        blocks = row.blocks.get(WATCHED, [])
        if cell[:2] != BASELINE or not blocks:
            continue
        seconds = np.array([np.median(block.values) for block in blocks])
        said = (
            health.slow_first_rounds(
                [np.median(np.reshape(b.values, (b.rounds, -1)), axis=1) for b in blocks]
            ),
            health.drift(seconds, np.array([block.at for block in blocks])),
        )
        yield from (f"{cell.workload} on {cell.backend}: {words}" for words in said if words)


def _control(said: Facts, busiest: Busy | None) -> Iterator[str]:
    """Yield where the control differs from the baseline, and where a run is too noisy."""
    plan = said["plan"]
    for control in said["control"]:
        place = f"{control['metric']} at {control['workload']} on {control['backend']}"
        if control["differs"] and control["verdict"] != "equivalent":
            yield health.control_differs(place, control["ratio"], control["low"], control["high"])
        only = all(c["workload"] in TINY for c in said["control"])
        if control["metric"] == WATCHED and (only or control["workload"] not in TINY):
            stop = f"{busiest.name} ({busiest.cores:.1f} cores)" if busiest else ""
            budget = plan.get("budget_seconds")
            words = health.noisy(place, control["detectable"], plan["margin"], budget, stop)
            if words:
                yield words


def _slow_calls(state: State) -> Iterator[str]:
    """Yield which arms have a mean far above their median."""
    for cell, row in state.cells.items():
        words = health.slow_calls(row.values(WATCHED)) if row.failure is None else None
        if words and cell[:2] != CONTROL:
            yield f"{cell.entrant} {cell.style} at {cell.workload}: {words}"
