"""What an A/B found, as a comparison: the same rows, gate and words as those of run files."""

from __future__ import annotations

import datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from packaging.utils import canonicalize_name

from bench.compare.comparison import Comparison, Side, Values, exact_rows, failures, only, time_rows
from bench.compare.conditions import OWN, Difference
from bench.compare.paired import paired
from bench.engine.sides_plan import BASE, NEW
from bench.metrics import EXACT, METRICS
from bench.runfile.writer import run_data
from bench.watch import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cells import Cell
    from bench.compare.comparison import Key
    from bench.compare.driven import Offered
    from bench.compare.gate import Gate
    from bench.engine.sides_plan import AB
    from bench.engine.state import State
    from bench.stats.ratios import Estimate

READING = (
    "Both sides were measured now, on this machine, their workers taking turns: seconds are "
    "compared with seconds, and a busy minute is on both sides.",
    "In brackets: 95 % intervals over pairs of fresh processes, corrected for all rows of a metric "
    "at a workload.",
    "Slower, faster: the interval leaves out 1 and is not inside the margin; =: it is inside the "
    "margin; ?: inconclusive.",
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
    today = today or datetime.date.today()
    base, new = made.found(BASE), made.found(NEW)
    estimates = estimates_of(made)
    values = {key: medians(base, new, *key) for key in estimates}
    missing = {key: why for key, why in made.missing().items() if key not in estimates}
    failed = [{cell: side.cells[cell].failure for cell in made.cells} for side in (base, new)]
    dead = {cell for each in failed for cell, why in each.items() if why is not None}
    rows = time_rows(
        estimates,
        values,
        gate,
        margin,
        today,
        {key: why for key, why in missing.items() if key[0] not in dead},
    )
    counted = exact_rows(exact(base, made), exact(new, made), gate, margin, today)
    known = [*((row.cell, row.metric) for row in rows), *((r.cell, r.metric) for r in counted)]
    return Comparison(
        bases=(described(sides[BASE]),),
        new=described(sides[NEW]),
        margin=margin,
        rows=rows,
        exact=counted,
        failures=failures(failed[0], failed[1], gate),
        only_base=only(selected[BASE], selected[NEW]),
        only_new=only(selected[NEW], selected[BASE]),
        differences=tuple(differences(sides)),
        warnings=(*gate.unmatched(known), *warnings(made, sides)),
        reading=(where(made), *READING),
    )


def where(made: AB) -> str:
    """Return on which cores workers measured, in a sentence."""
    samples = [
        each
        for found in made.found(NEW).cells.values()
        for several in found.blocks.values()
        for each in several
    ]
    if any(each.cores for each in samples):
        return "Workers kept to one core each: a step on all cores is another question."
    return "Workers used all cores, as users do; --cores one is more precise."


def estimates_of(made: AB) -> dict[Key, Estimate]:
    """Return each cell's ratio, new to base, of each metric that both sides have."""
    found = paired(made.found(BASE), made.found(NEW), made.cells)
    return {key: each for key, each in found.items() if key[1] in made.metrics}


def medians(base: State, new: State, cell: Cell, metric: str) -> Values:
    """Return the medians of both sides."""
    theirs, ours = (float(np.median(s.cells[cell].values(metric))) for s in (base, new))
    return Values(theirs, ours)


def exact(state: State, made: AB) -> dict[Key, float]:
    """Return the exact metrics of the cells that were asked for."""
    return {
        (cell, name): value
        for cell in made.cells
        for name, value in state.cells[cell].exact.items()
        if value is not None and name in EXACT
    }


def described(side: Offered) -> Side:
    """Return what a side is."""
    environment = side.environment
    return Side(
        name=str(environment.spec),
        versions={k: v for k, v in side.offer.versions.items() if k != OWN},
        commit=(environment.commit or "")[:10],
    )


def differences(sides: Mapping[str, Offered]) -> list[Difference]:
    """Return the releases that differ between the sides, what they stand on included.

    The environment at hand also has what is no part of the stack: tools, and what they need.
    """
    base, new = (sides[name] for name in (BASE, NEW))
    theirs, ours = releases(base), releases(new)
    names = theirs.keys() | ours.keys()
    if not (base.environment.pins and new.environment.pins):
        names = (
            (theirs.keys() & ours.keys()) | base.offer.versions.keys() | new.offer.versions.keys()
        )
    return [
        Difference(name, name, theirs.get(name, "none"), ours.get(name, "none"))
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
    if len({side.environment.python for side in sides.values()}) > 1:
        pythons = " and ".join(side.environment.python for side in sides.values())
        gaps.append(f"the sides run on different Pythons, {pythons}: no one fits both")
    return [*notes, *gaps, *filter(None, machine(made.spent, sides[NEW].offer.conditions))]


def run_of(made: AB, name: str, side: Offered, margin: float, **about: Any) -> dict[str, Any]:
    """Return a side as an ordinary run file has it."""
    needed = {cell: {m for m in made.metrics if METRICS[m].applies(cell)} for cell in made.cells}
    plan = {"seed": made.options.seed, "budget_seconds": made.options.budget}
    commit = side.environment.commit
    return run_data(
        made.found(name), needed, side.offer, margin=margin, commit=commit, plan=plan, **about
    )
