"""How a budget is shared out: pure arithmetic on what one sample of each kind costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from scipy import special

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIN_BLOCKS = 4
"""Below this many blocks in all, a cell has no warm result."""
MIN_PROCESSES = 4
"""Workers that share the blocks of a run: with fewer, what a process adds is mostly a guess."""
MAX_PROCESSES = 30
MIN_COLD = 2
"""Below this many processes, a cell has no cold result."""
BLOCKS_SHARE = 0.25
"""Of the time, what is kept for blocks, besides what the fewest workers take; cold processes and
trainings get what is left, in this order."""
COLD_SHARE = 0.25
"""Of it, what more than the fewest cold processes may take."""
TRAINING_SHARE = 0.2
"""Of it, what trainings may take beside anything else."""
PREPARED_SHARE = 0.2
"""Of the warm time: what turns that compile programs of their own may cost together."""
BLOCK_SD, PROCESS_SD = 0.019, 0.007
"""Of a step's log-ratio at `seed`. Processes add next to nothing to programs that are the
baseline's, and 0.5 to 3 % to the others, whose intervals are the widest: this is in between. They
only steer how a budget is split; intervals come from the run itself."""


class Turn(NamedTuple):
    """Something warm to measure: a kind of turn at a workload."""

    workload: str
    kind: str


@dataclass(frozen=True)
class Costs:
    """Seconds that things take, as far as is known when the plan is made."""

    arms: int
    """Arms of the largest workload."""
    process: float
    """To start a worker and compile all steps in it."""
    lean: float
    """The same, of a worker beyond the fewest, which leaves tiny workloads out."""
    blocks: Mapping[Turn, float]
    """One block; only of turns that need nothing but the steps."""
    prepare: Mapping[Turn, float]
    """To compile what the other turns need, in `MIN_PROCESSES` workers, and one of their blocks."""
    training: Mapping[str, float]
    """All trainings of a workload."""
    sweeps: Mapping[str, float]
    """One cold process of each cell of a workload."""


@dataclass(frozen=True)
class Allotment:
    """Who gets what."""

    processes: int
    turns: tuple[Turn, ...]
    trainings: tuple[str, ...]
    """Workloads."""
    sweeps: Mapping[str, int]
    """Cold processes of each cell, by workload."""


def allot(seconds: float, costs: Costs, weights: Mapping[Turn, float]) -> Allotment:
    """Share out `seconds`; what would starve is left out, so that the rest does not.

    Args:
        seconds: What is left of the budget.
        costs: What each thing costs.
        weights: How the time for blocks is shared by turns that are all measured.
    """
    warm, trainings, left = bool(weights), [], seconds
    kept = (MIN_PROCESSES - 1) * costs.process + BLOCKS_SHARE * seconds if warm else 0.0
    fixed = max(0.0, seconds - kept)
    sweeps = cold_sweeps(fixed, min(fixed, COLD_SHARE * seconds if warm else seconds), costs.sweeps)
    spent = sum(costs.sweeps[workload] * count for workload, count in sweeps.items())
    allowed = fixed - spent
    if warm or sweeps:
        allowed = min(allowed, TRAINING_SHARE * seconds)
    for workload, cost in sorted(costs.training.items(), key=lambda item: item[1]):
        if cost <= allowed:
            trainings.append(workload)
            allowed -= cost
            spent += cost
    left -= spent
    processes = process_count(left, costs, weights)
    turns = [turn for turn in costs.blocks if turn in weights]
    allowed = PREPARED_SHARE * left if turns else left
    for turn, cost in sorted(costs.prepare.items(), key=lambda item: item[1]):
        if cost * MIN_PROCESSES <= allowed:
            turns.append(turn)
            allowed -= cost * MIN_PROCESSES
    return Allotment(processes, tuple(turns), tuple(trainings), sweeps)


def cold_sweeps(least: float, more: float, costs: Mapping[str, float]) -> dict[str, int]:
    """Return how many cold processes each cell of a workload gets; workloads by their order.

    Args:
        least: Seconds that the fewest of the first workload may take.
        more: Seconds that all of them may take, if they are more than that.
        costs: Of one cold process of each cell of a workload.
    """
    chosen: list[str] = []
    for workload, cost in costs.items():
        allowed = more if chosen else max(least, more)
        if cost and MIN_COLD * (sum(costs[w] for w in chosen) + cost) <= allowed:
            chosen.append(workload)
    total = sum(costs[workload] for workload in chosen)
    return dict.fromkeys(chosen, max(MIN_COLD, int(more // total))) if chosen else {}


def process_count(seconds: float, costs: Costs, weights: Mapping[Turn, float]) -> int:
    """Return how many workers give the narrowest interval of a step's ratio in `seconds`."""
    if not costs.blocks:
        return MIN_PROCESSES if weights else 1
    total = sum(weights[turn] for turn in costs.blocks)
    turn = max(costs.blocks, key=lambda turn: (weights[turn], costs.blocks[turn]))
    share = weights[turn] / total

    def half_width(processes: int) -> float:
        full = min(processes, MIN_PROCESSES) - 1  # the first is there already
        sampling = seconds - full * costs.process - max(0, processes - MIN_PROCESSES) * costs.lean
        each = sampling / processes
        if each < sum(costs.blocks.values()):  # every worker measures each turn once
            return math.inf
        blocks = max(1.0, share * each / costs.blocks[turn])
        variance = (PROCESS_SD**2 + BLOCK_SD**2 / blocks) / processes
        freedom = (processes - 1) * max(1.0, (costs.arms - 1) / 2)  # about what pooling gives
        return float(special.stdtrit(freedom, 0.975)) * math.sqrt(variance)

    enough = min(range(MIN_PROCESSES, MAX_PROCESSES + 1), key=half_width)
    if half_width(enough) < math.inf:
        return enough
    return min(range(2, MIN_PROCESSES), key=half_width)  # the best of what there is time for


def next_turn(used: Mapping[Turn, float], weights: Mapping[Turn, float]) -> Turn:
    """Return the turn that is furthest behind its share of the time."""
    return min(weights, key=lambda turn: used.get(turn, 0.0) / weights[turn])


def spread[Item](items: Sequence[Item], gaps: int) -> list[list[Item]]:
    """Cut `items` into `gaps` runs of nearly equal length, in order."""
    cuts = [round(i * len(items) / gaps) for i in range(gaps + 1)]
    return [list(items[a:b]) for a, b in pairwise(cuts)]
