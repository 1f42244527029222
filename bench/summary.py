"""From what was found to what can be said: the `bakeoff` section of a run file."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import batched
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.cells import BASELINE, CONTROL, Cell
from bench.engine.planner import MIN_BLOCKS, MIN_COLD
from bench.engine.scheduler import STARVED
from bench.metrics import METRICS, Kind
from bench.stats.nested import Estimate, block_log_ratios, nested_all, unpaired_all
from bench.stats.verdict import Judgement, detectable, judge
from common.devices import Over

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from bench.engine.found import Block, Found, State

SCHEMA = 2
CONFIDENCE = 0.95
MOST_PAIRS = 1_000_000
"""Of calls, whose ratios are held at a time."""


class Group(NamedTuple):
    """What is compared with each other: one metric at one workload on one backend."""

    metric: str
    workload: str
    backend: str


type Arms = dict[Cell, list[Block]]
"""The blocks of each cell that is compared within a group."""


def estimates(state: State) -> dict[Group, dict[Cell, Estimate]]:
    """Return the ratio to the baseline of each cell that has one, by group."""
    groups: dict[Group, Arms] = defaultdict(dict)
    for cell, found in state.cells.items():
        if found.failure is None:
            for metric, blocks in found.blocks.items():
                groups[Group(metric, *cell[2:])][cell] = blocks
    out = {}
    for group, arms in groups.items():
        found_ = ratios(group, arms, [BASELINE])
        if BASELINE in found_:
            out[group] = found_[BASELINE]
    return out


def ratios(
    group: Group, arms: Arms, baselines: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], dict[Cell, Estimate]]:
    """Return each cell's ratio to each baseline that is in the group, by baseline."""
    cells = list(arms)
    known = [name for name in baselines if Cell(*name, *group[1:]) in arms]
    columns = [cells.index(Cell(*name, *group[1:])) for name in known]
    if METRICS[group.metric].kind is Kind.COLD:
        samples = [np.array([v for b in arms[c] for v in b.values if v > 0]) for c in cells]
        found = unpaired_all(samples, columns)
    else:
        found = nested_all(*layout([arms[c] for c in cells]), columns)
    return {
        name: {cell: e for cell, e in zip(cells, each, strict=True) if e is not None}
        for name, each in zip(known, found, strict=True)
    }


def layout(arms: list[list[Block]]) -> tuple[np.ndarray, np.ndarray]:
    """Return each block's log-ratios, arms x arms, NaN where there is none, and its process."""
    by_number: dict[int, dict[int, Block]] = defaultdict(dict)
    for arm, blocks in enumerate(arms):
        for block in blocks:
            by_number[block.number][arm] = block
    process, alike = [], defaultdict(list)
    for i, (_, measured) in enumerate(sorted(by_number.items())):
        first = next(iter(measured.values()))
        samples = np.full((len(arms), first.rounds, len(first.values) // first.rounds), np.nan)
        for arm, block in measured.items():
            samples[arm] = np.reshape(block.values, samples.shape[1:])
        process.append(first.process)
        alike[samples.shape[1:]].append((i, samples))
    ratios = np.empty((len(process), len(arms), len(arms)))
    for (rounds, calls), several in alike.items():
        for some in batched(several, max(1, MOST_PAIRS // (len(arms) * rounds * calls**2))):
            where, samples_ = zip(*some, strict=True)
            ratios[list(where)] = block_log_ratios(np.array(samples_))
    return ratios, np.array(process)


def section(
    state: State,
    needed: Mapping[Cell, set[str]],
    *,
    margin: float,
    enforce: bool = True,
    **about: Any,
) -> dict[str, Any]:
    """Return all that a run says beyond its samples, as JSON has it.

    Args:
        state: What was found.
        needed: The metrics that were asked for, by cell.
        margin: Inside of which, as a fraction, two times are called equivalent.
        enforce: Whether a cell with too few blocks or processes counts as not measured; a run
            whose numbers of blocks were given says what it has.
        about: Further entries.
    """
    found = estimates(state)
    asked = with_baselines(needed)
    family = compared(state, found, asked, enforce=enforce)
    # Nobody asks whether the control differs: it is judged apart, and costs the others nothing.
    controls = [(group, cell) for group, cell in family if cell[:2] == CONTROL]
    others = [each for each in family if each not in controls]
    judged: dict[tuple[Group, Cell], Judgement] = {}
    for each in (controls, others):
        judgements = judge([found[group][cell] for group, cell in each], margin) if each else []
        judged |= dict(zip(each, judgements, strict=True))
    seen = {
        group: by_side(state, group, found[group][cell], max(1, len(others)))
        for group, cell in controls
    }

    def result(cell: Cell, metric: str) -> dict[str, Any]:
        row, group = state.cells[cell], Group(metric, *cell[2:])
        reason = state.missing.get((cell, metric))
        values = row.values(metric)
        few = enforce and values and starved(row, metric)
        if not values or few:
            return {"missing": reason or STARVED}
        out: dict[str, Any] = {
            "unit": METRICS[metric].unit,
            "median": float(np.median(values)),
            "samples": len(values),
            "blocks": len(row.blocks[metric]),
            "processes": len({block.process for block in row.blocks[metric]}),
            "ratio": None,
            "low": None,
            "high": None,
            "p": None,
            "verdict": None,
            "more_blocks": None,
            "detectable": number(smallest(seen[group], row.blocks[metric]))
            if group in seen
            else None,
        }
        if (group, cell) in judged:
            estimate, judgement = found[group][cell], judged[group, cell]
            low, high = estimate.interval(CONFIDENCE)
            out |= {
                "ratio": estimate.ratio,
                "low": number(low),
                "high": number(high),
                "standard_error": number(estimate.standard_error),
                "df": number(estimate.df),
                "p": judgement.p_adjusted,
                "verdict": str(judgement.verdict),
                "more_blocks": judgement.more_blocks,
            }
        return out

    cells = []
    for cell, metrics in asked.items():
        row = state.cells[cell]
        names = [m for m in METRICS if m in metrics and METRICS[m].kind is not Kind.ONCE]
        cells.append(
            {
                **cell._asdict(),
                "failure": row.failure,
                "stderr": row.stderr,
                "proof": row.proof and {k: v for k, v in row.proof.items() if k != "program"},
                "exact": row.exact,
                "final_loss": row.training,
                "metrics": {}
                if row.failure is not None
                else {m: result(cell, m) for m in names if METRICS[m].applies(cell)},
            }
        )
    return {
        "schema": SCHEMA,
        **about,
        "plan": {"margin": margin, **about.get("plan", {}), "backends": state.plan},
        "spent": spent(state),
        "comparisons": len(others),
        "control": [
            {
                **group._asdict(),
                **result(cell, group.metric),
                **blocks_of(state.cells[cell].blocks[group.metric]),
                "data": state.cells[cell].values(group.metric),
            }
            for group, cell in controls
        ],
        "beside": [
            {**cell._asdict(), "metric": metric, **blocks_of(blocks), "data": row.values(metric)}
            for cell, row in state.cells.items()
            for metric, blocks in row.blocks.items()
            if (Group(metric, *cell[2:]), cell) not in controls
            and not handed_over(row, metric, needed.get(cell, set()), enforce=enforce)
        ],
        "cells": cells,
    }


type Seen = list[tuple[frozenset[int], float]]
"""Processes of one side, and the smallest difference that they could show."""


def by_side(state: State, group: Group, control: Estimate, comparisons: int) -> Seen:
    """Return the smallest difference that each side of a run could have seen.

    Sides are workers that share no arms but the baseline and its control; each is shown by the
    blocks of the control that are its own.
    """
    whole = [(frozenset[int](), detectable(control, comparisons))]
    if METRICS[group.metric].kind is Kind.COLD:
        return whole
    blocks = {
        cell: found.blocks[group.metric]
        for cell, found in state.cells.items()
        if cell[2:] == group[1:] and found.failure is None and found.blocks.get(group.metric)
    }
    sides: list[frozenset[int]] = []
    for cell, own in blocks.items():
        if cell[:2] in (BASELINE, CONTROL):
            continue
        processes = frozenset(block.process for block in own)
        touched = [side for side in sides if side & processes]
        sides = [side for side in sides if side not in touched]
        sides.append(processes.union(*touched))
    if len(sides) < 2:
        return whole
    found: Seen = []
    for side in sides:
        arms = {
            cell: [block for block in own if block.process in side]
            for cell, own in blocks.items()
            if cell[:2] in (BASELINE, CONTROL)
        }
        if all(arms.values()):
            known = ratios(group, arms, [BASELINE]).get(BASELINE, {})
            estimate = known.get(Cell(*CONTROL, *group[1:]))
            if estimate is not None:
                found.append((side, detectable(estimate, comparisons)))
    return found or whole


def smallest(seen: Seen, blocks: Sequence[Block]) -> float:
    """Return what the side of some blocks could have seen; of several sides, the worst."""
    processes = {block.process for block in blocks}
    return max([least for side, least in seen if not side or side & processes], default=math.inf)


def handed_over(found: Found, metric: str, needed: Set[str], *, enforce: bool) -> bool:
    """Tell whether a cell's samples are those of a benchmark of the run.

    Others are the baseline's where only other entrants were asked for, and those of cells that
    failed or starved: what has been measured is in the file.
    """
    few = enforce and starved(found, metric)
    return metric in needed and found.failure is None and not few


def compared(
    state: State,
    found: Mapping[Group, Mapping[Cell, Estimate]],
    asked: Mapping[Cell, set[str]],
    *,
    enforce: bool,
) -> list[tuple[Group, Cell]]:
    """Return what is judged together: the asked metrics of all cells that have enough of them.

    Of the control, that is what the baseline is asked for. A style that gives each device as many
    streams does more work, so that it is neither slower nor faster: see `bench.scaling`.
    """

    def metrics(cell: Cell) -> set[str]:
        return asked.get(Cell(*BASELINE, *cell[2:]) if cell[:2] == CONTROL else cell, set())

    return [
        (group, cell)
        for group, cells in found.items()
        for cell in cells
        if group.metric in metrics(cell)
        and not Over.of(cell.style).weak
        and not (enforce and starved(state.cells[cell], group.metric))
    ]


def blocks_of(blocks: Sequence[Block]) -> dict[str, list[int]]:
    """Return which samples of a list belong to which block, and that to which process."""
    return {
        "rounds_by_block": [block.rounds for block in blocks],
        "samples_by_block": [len(block.values) for block in blocks],
        "process_by_block": [block.process for block in blocks],
        "number_by_block": [block.number for block in blocks],
    }


def with_baselines(needed: Mapping[Cell, set[str]]) -> dict[Cell, set[str]]:
    """Return what is needed, and of each baseline whatever is needed beside it."""
    out: dict[Cell, set[str]] = {}
    for cell, metrics in needed.items():
        out.setdefault(Cell(*BASELINE, *cell[2:]), set()).update(metrics - {"final_loss"})
        out.setdefault(cell, set()).update(metrics)
    return out


def starved(found: Found, metric: str) -> bool:
    """Tell whether there are too few blocks to say anything."""
    blocks = found.blocks.get(metric, [])
    if METRICS[metric].kind is Kind.COLD:
        return len(blocks) < MIN_COLD
    return len(blocks) < MIN_BLOCKS or len({block.process for block in blocks}) < 2


def spent(state: State) -> dict[str, Any]:
    """Return where the time went."""
    wall = state.spent.wall
    return {
        "wall_seconds": wall,
        "sampling_seconds": state.spent.sampling,
        "sampling_share": state.spent.sampling / wall if wall else 0.0,
        "processes": state.spent.processes,
    }


def number(value: float | None) -> float | None:
    """Return what JSON can hold: None for what is infinite, or not there."""
    return value if value is not None and math.isfinite(value) else None
