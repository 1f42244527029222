"""How a budget is shared out: what things cost before they have been seen, and what fits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.samples import MIN_COLD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.cells import Cell

LOAD, LOADING, PROVE, COLD = 2.0, 3.0, 1.2, 3.6
"""Seconds on one core of a 2-core EPYC: to start a worker and import (of a side that nothing is
known of, with room to spare), to prove one arm at one workload, for a cold process."""
SEED_STEP, LEAST_STEP = 4.5e-3, 2e-4
"""Seconds of a step at `seed`, over all arms, and of the smallest step."""
OPEN_PART = 0.18
"""Of a proof, what opening the same arm takes in a worker that has a compilation cache."""
MOST_COLD = 15
LONG, SHORT = {False: 4.0, True: 2.0}, {False: 3.0, True: 0.9}
"""Seconds of blocks in a worker for each second that opening it takes, and as few as are sensible;
on all cores, and on one core each. A wide range is about as precise for the same time. Longer ones
leave more of it to samples; shorter ones give more degrees of freedom, which twenty seconds on one
core lack. Host cost varies from worker to worker: many short ones tell most."""
FEWEST_ROUNDS = 3


def usual(opening: float, in_a_row: int, *, side_by_side: bool, short: bool) -> float:
    """Return the seconds of blocks that a worker usually measures.

    Args:
        opening: Seconds that it takes to open workers.
        in_a_row: Of these, how many measure one after the other.
        side_by_side: Whether they measure at the same time instead.
        short: Whether it is to be as short as is sensible.
    """
    return (SHORT if short else LONG)[side_by_side] * opening / in_a_row


def sitting(
    seconds: float,
    opening: float,
    least: float,
    most: int,
    fewest: int = 1,
    *,
    side_by_side: bool,
    short: bool = False,
) -> tuple[int, float] | None:
    """Return how many workers to open at the same time, and seconds of blocks in each.

    Args:
        seconds: What there is.
        opening: Seconds that it takes to open workers, one or several at the same time.
        least: Seconds of one block of each turn.
        most: Workers at the same time.
        fewest: Sittings that the time is to be for, where it is long enough.
        side_by_side: Whether they measure at the same time too, or one after the other.
        short: Whether each is to be as short as is sensible, since more is to come.

    Returns:
        None where the time is too short for one.
    """
    for count in range(most, 0, -1):
        in_a_row = 1 if side_by_side else count
        if seconds < opening + in_a_row * least:
            continue
        wanted = max(least, usual(opening, in_a_row, side_by_side=side_by_side, short=short))
        if short:
            return count, min((seconds - opening) / in_a_row, wanted)
        possible = math.floor(seconds / (opening + in_a_row * least))
        usually = math.floor(seconds / (opening + in_a_row * wanted))
        sittings = max(1, usually, min(fewest, possible))
        return count, (seconds / sittings - opening) / in_a_row
    return None


def rounds_for(seconds: float, block: float, usual: int) -> int:
    """Return the rounds of a block: fewer than usual where two blocks would not fit.

    Args:
        seconds: For blocks.
        block: Seconds of one, with the usual number of rounds.
        usual: Rounds.
    """
    if not math.isfinite(seconds) or seconds >= 2 * block:
        return usual
    return max(min(FEWEST_ROUNDS, usual), int(usual * seconds / (2 * block)))


def cold_count(seconds: float, sweep: float, asked: int | None = None) -> int:
    """Return how many samples of each cell fit into a time: at least five, or none.

    Args:
        seconds: What they may take.
        sweep: Seconds of one sample of each cell.
        asked: A number that was given, whatever it takes.
    """
    if asked is not None:
        return asked
    count = int(seconds / sweep) if sweep else 0
    return min(MOST_COLD, count) if count >= MIN_COLD else 0


def cold_cells(
    groups: Iterable[Sequence[list[Cell]]], seconds: float, each: float, asked: int | None
) -> tuple[list[Cell], int]:
    """Return whose cold samples fit into a time, and how many of each.

    Args:
        groups: Of each, the first of its lists that fits is taken.
        seconds: What all of them may take.
        each: Seconds of one sample.
        asked: A number that was given, whatever it takes.
    """
    chosen: list[Cell] = []
    count = 0
    for lists in groups:
        for cells in filter(None, lists):
            if fits := cold_count(seconds, (len(chosen) + len(cells)) * each, asked):
                chosen, count = chosen + cells, fits
                break
    return chosen, count
