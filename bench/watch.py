"""What the machine did during a run, in words: reasons to doubt the numbers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cells import BASELINE, CONTROL
from bench.stats import health

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.cells import Offer
    from bench.engine.found import State
    from bench.stats.nested import Estimate
    from bench.summary import Group

WATCHED = "step"
BASE = ("python", "jax", "jaxlib", "optax", "numpy")
"""What an environment of an entrant's own should have as everybody else does."""


def warnings(
    state: State,
    found: dict[Group, dict[Any, Estimate]],
    offer: Offer,
    margin: float,
    comparisons: int,
) -> list[str]:
    """Return plain sentences, none where there is nothing to warn of."""
    return [
        *state.notes,
        *filter(None, machine(state, offer.conditions)),
        *filter(None, [health.compiled_from_source(offer.uncached)]),
        *unlike(offer),
        *_baseline(state, found, margin, comparisons),
    ]


def machine(state: State, conditions: dict[str, Any]) -> Iterator[str | None]:
    """Yield what is to be said of the machine's load, or None."""
    cores = os.cpu_count() or 1  # of the machine, as are the times and the load
    wall, stolen, others = (
        sum(column) for column in zip(*state.spent.busy, (0.0, 0.0, 0.0), strict=True)
    )
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


def _baseline(
    state: State, found: dict[Group, dict[Any, Estimate]], margin: float, comparisons: int
) -> Iterator[str]:
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
    for group, cells in found.items() if comparisons else ():
        for cell, estimate in cells.items():
            if cell[:2] == CONTROL and group.metric == WATCHED:
                words = health.unstable(estimate, margin, comparisons)
                if words:
                    yield f"{group.metric} of {group.workload} on {group.backend}: {words}"
