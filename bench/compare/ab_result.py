"""What an A/B found, as a comparison: the same rows and gate as those of run files."""

from __future__ import annotations

import datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from packaging.utils import canonicalize_name

from bench.compare.comparison import Assessor, Comparison, Evidence, Medians, Origin
from bench.compare.conditions import OWN, ConditionChange
from bench.compare.pairs import paired
from bench.engine.sides_plan import BASE, NEW
from bench.metrics import EXACT, METRICS
from bench.runfile import PlanOfRun
from bench.runfile.writer import run_data
from bench.watch import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cells import Cell
    from bench.compare.comparison import Key
    from bench.compare.experiment import Offered
    from bench.compare.gate import Gate
    from bench.engine.sides_plan import AB
    from bench.runfile import RunFile
    from bench.stats.ratios import Estimate

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
    today: datetime.date | None = None,
) -> Comparison:
    """Return what the new side is beside the base.

    Args:
        made: The schedule, when it has come to its end.
        sides: Both.
        selected: The cells that were asked for and that a side has, by side.
        gate: What counts as worse.
        margin: Inside of which, as a fraction, two times are equivalent.
        today: Decides whether an accepted shift still is.
    """
    base, new = (evidence_of(made, name, sides[name], selected[name]) for name in (BASE, NEW))
    found = paired(made.found(BASE), made.found(NEW), made.cells)
    times: dict[Key, tuple[Estimate, Medians]] = {}
    for (cell, metric), estimate in found.items():
        if metric in made.metrics:
            before, after = (
                float(np.median(made.found(name).cells[cell].values(metric)))
                for name in (BASE, NEW)
            )
            times[cell, metric] = estimate, Medians(before, after)
    failed = {cell for side in (base, new) for cell, why in side.failed.items() if why is not None}
    missing = {
        key: why for key, why in made.missing().items() if key not in times and key[0] not in failed
    }
    return Assessor(gate, margin, today or datetime.date.today()).comparison(
        base,
        new,
        times,
        missing,
        differences=differences(sides),
        warnings=warnings(made, sides),
        reading=(cores_used(made), *READING),
    )


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
    theirs, ours = releases(base), releases(new)
    names = theirs.keys() | ours.keys()
    if not (base.environment.pins and new.environment.pins):
        names = (
            (theirs.keys() & ours.keys()) | base.offer.versions.keys() | new.offer.versions.keys()
        )
    return [
        ConditionChange(name, name, theirs.get(name, "none"), ours.get(name, "none"))
        for name in sorted(names)
        if theirs.get(name) != ours.get(name) and name != OWN
    ]


def releases(side: Offered) -> dict[str, str]:
    """Return all releases of a side."""
    pins = dict(pin.split("==", 1) for pin in side.environment.pins)
    if not pins:
        found = metadata.distributions()
        pins = {str(canonicalize_name(each.metadata["Name"])): each.version for each in found}
    return pins | side.offer.versions


def warnings(made: AB, sides: Mapping[str, Offered]) -> list[str]:
    """Return reasons to doubt, in sentences."""
    notes = [f"{name}: {note}" for name in (BASE, NEW) for note in made.found(name).notes]
    gaps = [
        f"{side.environment.spec} has no {library}: {why}"
        for side in sides.values()
        for library, why in side.environment.gaps.items()
    ]
    pythons = [side.environment.python for side in sides.values()]
    if len(set(pythons)) > 1:
        gaps.append(f"the sides run on different Pythons, {' and '.join(pythons)}: none fits both")
    return [*notes, *gaps, *filter(None, machine(made.spent, sides[NEW].offer.conditions))]


def run_of(made: AB, name: str, side: Offered, margin: float, **about: Any) -> RunFile:
    """Return a side as an ordinary run file has it."""
    needed = {cell: {m for m in made.metrics if METRICS[m].applies(cell)} for cell in made.cells}
    options = made.options
    plan = PlanOfRun(margin=margin, seed=options.seed, budget_seconds=options.budget)
    commit = side.environment.commit
    return run_data(made.found(name), needed, side.offer, plan=plan, commit=commit, **about)
