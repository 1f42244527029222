"""What styles cost a model of so many arrays, and what to write instead, as a document."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import impls
from bench.report.table import Column, Document, Row, Section, Table, amount, percent
from bench.report.wording import joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cost.table import CostTable, StyleCost
    from bench.estimates import Estimate

LARGE = 0.2
"""Half of an interval, relative to its value, up to which the value is more than noise."""
OTHER_MODELS = "between 44 % too low and 45 % too high"
"""How far the law by arrays was off for perceptrons, transformers and convolutional networks
(results/cost/README.md at commit f7034d8)."""
COLUMNS = (
    Column("style"),
    Column("added per step", number=True, help="with a 95 % interval"),
    Column("of your\nstep", number=True, help="if nothing overlaps"),
    Column("at\nleast", number=True, help="if host and device overlap wherever they can"),
    Column("write\ninstead", help="the cheapest style of the library, if one certainly costs less"),
    Column("per array", number=True, help="of what is added", needed=False),
)


class Step(NamedTuple):
    """A user's training step."""

    arrays: int
    """Parameter arrays of the model."""
    seconds: float
    """Of one step, as plain JAX would take."""
    assumed: bool = False
    """Whether the user has not said how long it takes."""


def document(costs: CostTable, step: Step, styles: Sequence[StyleCost]) -> Document:
    """Return what some styles of a table cost a step."""
    versions = (f"{name} {v}" for name, v in costs.versions.items() if name != "jax-bakeoff")
    fewest, most = costs.arrays
    extrapolated = f" ({step.arrays} are extrapolated)" * (step.arrays > most)
    certain = [s for s in styles if s.per_array.half_width < LARGE * s.per_array.value]
    misfit = max((style.law.misfit for style in certain), default=0.0)
    off = f", where a depth is up to {percent(misfit)} off the line" * bool(certain)
    return Document(
        title="What each style costs your model",
        subtitle=f"{step.arrays} parameter arrays, {amount(step.seconds, 's')} a step"
        f"{' (assumed: no --step-ms is given)' * step.assumed}",
        sections=(Section("Cost of a step", (caveat(styles),), (table(costs, step, styles),)),),
        fine_print=(
            f"Measured on one core of {costs.machine}, {costs.when[:10]}, with "
            f"{', '.join(versions)}.",
            f"Fitted to the character RNN with {fewest} to {most} arrays{extrapolated}{off}. Other "
            f"models were predicted {OTHER_MODELS}. It grows with the time that Python takes.",
            "Measure your own step: `bakeoff new mine --model equinox` begins its file, and "
            "`bakeoff cost mine.py` measures it.",
        ),
    )


def caveat(styles: Sequence[StyleCost]) -> str:
    """Return what the numbers hold for."""
    waiting = [f"`{style.arm.words}`" for style in styles if waits(style)]
    but = f", except {joined(waiting)}, which waits in each call" if waiting else ""
    return (
        "Added to plain JAX's step on a CPU, each call waited for. An accelerator, or a loop that "
        "does not wait, can hide it behind the device's work: then only the column `at least` "
        f"remains{but}."
    )


def waits(style: StyleCost) -> bool:
    """Tell whether a style's call returns only when the device has finished."""
    return style.style in impls.readable(style.entrant).waits


def table(costs: CostTable, step: Step, styles: Sequence[StyleCost]) -> Table:
    """Return a row for each style, the cheapest first, with what to write in its place."""
    rows, notes = [], dict[str, None]()
    for style in sorted(styles, key=lambda style: style.at(step.arrays).value):
        cost = style.at(step.arrays)
        hidden = 0.0 if waits(style) else step.seconds
        per_array = {s.style: s.per_array for s in costs.styles if s.entrant == style.entrant}
        other = cheaper(style.entrant, style.style, per_array)
        if other and (note := impls.caveat(style.entrant, style.style, other)):
            notes[f"{style.entrant} {other}: {note}."] = None
        shown = (cost.value, cost.value - hidden)
        parts = (percent(max(0.0, seconds) / step.seconds) for seconds in shown)
        instead = f"`{other}`" if other else ""
        rows.append(Row((style.arm.words, cost, *parts, instead, style.per_array)))
    return Table(COLUMNS, tuple(rows), notes=tuple(notes)).without_empty()


def cheaper(entrant: str, style: str, costs: Mapping[str, Estimate]) -> str:
    """Return the style of a library that costs least, of those that certainly cost less; or "".

    Styles that a run measures only if they are named are unusual: they count where there is no
    other. Styles for comparison alone never do. That two styles of the same workers vary together
    is left out, which asks for more than certainty.

    Args:
        entrant: The library's.
        style: The one that another may replace.
        costs: Seconds that styles of the library add, by their names.
    """
    about, before = impls.readable(entrant), costs[style]

    def saves(after: Estimate) -> bool:
        doubt = math.hypot(before.half_width, after.half_width)
        return after.value + doubt < before.value

    better = [s for s, cost in costs.items() if s not in about.references and saves(cost)]
    return min(better, key=lambda s: (s in about.if_named, costs[s].value), default="")
