"""What an A/B found, as a comparison: the same rows and gate as those of run files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.compare.comparison import (
    Comparison,
    Evidence,
    Origin,
    comparison_of,
    missing,
    varying,
)
from bench.compare.conditions import OWN, ConditionChange, moved
from bench.compare.experiment import doubts
from bench.compare.pairs import paired
from bench.engine.sides_plan import BASE, NEW
from bench.metrics import EXACT, METRICS
from bench.runfile import PlanOfRun
from bench.runfile.writer import run_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.cells import Cell
    from bench.compare.comparison import ComparedRow
    from bench.compare.experiment import Offered
    from bench.compare.gate import Gate
    from bench.engine.sides_plan import AB
    from bench.runfile import RunFile

READING = (
    "Both sides were measured now, on this machine, their workers taking turns: seconds are "
    "compared with seconds, and a busy minute affects both sides.",
    "In brackets: 95 % intervals over pairs of fresh processes, corrected for all rows of a metric "
    "at a workload.",
)


def comparison(
    made: AB,
    sides: Mapping[str, Offered],
    selected: Mapping[str, Sequence[Cell]],
    gate: Gate,
    margin: float,
) -> Comparison:
    """Return what the new side is beside the base, once the schedule has come to its end.

    `selected` are the cells that were asked for and that a side has, by side.
    """
    base, new = (evidence_of(made, name, sides[name], selected[name]) for name in (BASE, NEW))
    return comparison_of(
        base,
        new,
        rows_of(made, margin),
        gate=gate,
        margin=margin,
        differences=differences(sides),
        warnings=[
            *(
                f"{side.environment.spec} has no {library}: {why}"
                for side in sides.values()
                for library, why in side.environment.gaps.items()
            ),
            *doubts(made, sides, NEW),
        ],
        reading=(cores_used(made), *READING),
    )


def rows_of(made: AB, margin: float) -> Iterator[ComparedRow]:
    """Yield the metrics that vary, those that cannot be compared too."""
    states = made.found(BASE), made.found(NEW)
    known = set()
    for key, estimate in paired(*states, made.cells).items():
        cell, metric = key
        if metric in made.metrics:
            base, new = (float(np.median(state.cells[cell].values(metric))) for state in states)
            known.add(key)
            yield varying(key, estimate, margin, base=base, new=new)
    for key, why in made.missing().items():
        if key not in known and not any(state.cells[key[0]].failure for state in states):
            yield missing(key, why)


def evidence_of(made: AB, name: str, side: Offered, selected: Sequence[Cell]) -> Evidence:
    """Return what a side is, beside its times."""
    environment, cells = side.environment, made.found(name).cells
    origin = Origin(
        name=str(environment.spec),
        versions={k: v for k, v in side.offer.versions.items() if k != OWN},
        commit=(environment.commit or "")[:10],
    )
    exact = {
        (cell, metric): value
        for cell in made.cells
        for metric, value in cells[cell].exact.items()
        if value is not None and metric in EXACT
    }
    return Evidence(origin, selected, {cell: cells[cell].failure for cell in made.cells}, exact)


def cores_used(made: AB) -> str:
    """Return on which cores workers measured, in a sentence."""
    found = [each.blocks.values() for each in made.found(NEW).cells.values()]
    if any(samples.cores for blocks in found for several in blocks for samples in several):
        return "Workers kept to one core each; with all cores, steps may differ in another way."
    return "Workers used all cores, as users do; --cores one is more precise."


def differences(sides: Mapping[str, Offered]) -> list[ConditionChange]:
    """Return the releases that differ between the sides, of their dependencies too.

    The environment at hand also has tools and what they need, which are not part of the stack.
    """
    base, new = (sides[name] for name in (BASE, NEW))
    theirs, ours = base.releases, new.releases
    names = theirs.keys() | ours.keys()
    if not (base.environment.pins and new.environment.pins):
        names = (
            (theirs.keys() & ours.keys()) | base.offer.versions.keys() | new.offer.versions.keys()
        )
    return [
        ConditionChange(name, name, before or "none", after or "none")
        for name, (before, after) in sorted(moved(theirs, ours).items())
        if name in names and name != OWN
    ]


def runs_of(
    made: AB, sides: Mapping[str, Offered], margin: float, arguments: Sequence[str]
) -> dict[str, RunFile]:
    """Return each side as an ordinary run file has it."""
    needed = {cell: {m for m in made.metrics if METRICS[m].applies(cell)} for cell in made.cells}
    options = made.options
    plan = PlanOfRun(margin=margin, seed=options.seed, budget_seconds=options.budget)
    return {
        name: run_data(
            made.found(name),
            needed,
            side.offer,
            plan=plan,
            commit=side.environment.commit,
            arguments=arguments,
            spec=str(side.environment.spec),
        )
        for name, side in sides.items()
    }
