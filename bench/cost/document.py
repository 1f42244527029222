"""What styles cost a model of so many arrays, and what to write instead, as a document."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import impls
from bench.estimates import Estimate
from bench.report.table import Column, Document, Row, Section, Table, amount, percent
from bench.report.wording import joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cost.table import CostTable, StyleCost

MATTERS = 0.01
"""Fraction of a step from which a cost matters."""
LARGE = 0.2
"""Half of an interval, relative to its value, up to which the value is more than noise."""
OTHER_MODELS = "between 44 % too low and 45 % too high"
"""How far the law by arrays was off for perceptrons, transformers and convolutional networks
(results/cost/README.md at commit f7034d8)."""


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
    instead = instead_table(costs, styles)
    return Document(
        title="What each style costs your model",
        subtitle=f"{step.arrays} parameter arrays, {amount(step.seconds, 's')} a step"
        f"{' (assumed: no --step-ms is given)' * step.assumed}",
        sections=(
            Section("Cost of a step", (caveat(styles),), (cost_table(step, styles),)),
            *([Section("What to write instead", tables=(instead,))] if instead.rows else []),
            Section("The law", tables=(law_table(styles),), folded=True, needed=False),
        ),
        fine_print=(
            f"Measured on one core of {costs.machine}, {costs.when[:10]}, with "
            f"{', '.join(versions)}.",
            f"Fitted to the character RNN with {fewest} to {most} arrays{extrapolated}. Other "
            f"models were predicted {OTHER_MODELS}. It grows with the time that Python takes.",
            "Measure it yourself: `pytest bench --workload depth --metric host_cost`, then "
            "`bakeoff cost --from RUN.json`.",
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


def cost_table(step: Step, styles: Sequence[StyleCost]) -> Table:
    """Return a row for each style, the cheapest first."""
    columns = (
        Column("style"),
        Column("added per step", number=True, help="with a 95 % interval"),
        Column("of your\nstep", number=True, help="if nothing overlaps"),
        Column("at\nleast", number=True, help="if host and device overlap wherever they can"),
        Column("below 1 %\nfrom", number=True, help="the step time from which it is below 1 %"),
    )
    added = sorted(((style.at(step.arrays), style) for style in styles), key=lambda c: c[0].value)
    return Table(
        columns,
        tuple(
            Row(
                (
                    style.arm.words,
                    cost,
                    percent(max(0.0, cost.value) / step.seconds),
                    percent(max(0.0, cost.value - hidden) / step.seconds),
                    amount(cost.value / MATTERS, "s") if cost.value > 0 else "any",
                )
            )
            for cost, style in added
            for hidden in [0.0 if waits(style) else step.seconds]
        ),
    )


def law_table(styles: Sequence[StyleCost]) -> Table:
    """Return the laws of some styles, the cheapest array first."""
    columns = (
        *(Column("style"), Column("per array", number=True), Column("fixed", number=True)),
        Column("misfit", number=True, help="largest distance of a measured depth from the law"),
    )
    return Table(
        columns,
        tuple(
            Row((s.arm.words, s.per_array, s.fixed, percent(s.law.misfit) if known(s) else ""))
            for s in sorted(styles, key=lambda style: style.law.each)
        ),
    )


def known(style: StyleCost) -> bool:
    """Tell whether a style's cost of an array is large enough to have a relative misfit."""
    return style.per_array.half_width < LARGE * style.per_array.value


def instead_table(costs: CostTable, styles: Sequence[StyleCost]) -> Table:
    """Return, for each style that has a cheaper one in its library, what that saves."""
    columns = (
        *(Column("in place of"), Column("write")),
        Column("changes each array by", number=True, help="with a 95 % interval"),
    )
    rows, notes = [], dict[str, None]()
    for style in sorted(styles, key=lambda style: -style.law.each):
        if better := cheaper(costs, style):
            other, saved = better
            rows.append(Row((style.arm.words, f"`{other.style}`", saved)))
            if note := impls.caveat(style.entrant, style.style, other.style):
                notes[f"{other.arm.words}: {note}."] = None
    return Table(columns, tuple(rows), notes=tuple(notes))


def cheaper(costs: CostTable, style: StyleCost) -> tuple[StyleCost, Estimate] | None:
    """Return the style that costs least of those that certainly save something, and how much.

    Styles that a run measures only if they are named are unusual: they count where there is no
    other. Styles for comparison alone never do.
    """
    about = impls.readable(style.entrant)
    better = {
        other: difference(style, other)
        for other in costs.styles
        if other.entrant == style.entrant and other.style not in about.references
    }
    better = {other: saved for other, saved in better.items() if saved.high and saved.high < 0}
    if not better:
        return None
    best = min(better, key=lambda other: (other.style in about.if_named, other.law.each))
    return best, better[best]


def difference(before: StyleCost, after: StyleCost) -> Estimate:
    """Return what an array costs more in one style than in another.

    The two were measured in the same workers; that they vary together is left out, which makes the
    interval too wide.
    """
    first, second = before.per_array, after.per_array
    half = math.hypot(first.half_width, second.half_width)
    value = second.value - first.value
    return Estimate(
        cell=second.cell,
        against=str(before.arm),
        metric=second.metric,
        unit="s",
        form="added",
        value=value,
        low=value - half,
        high=value + half,
        standard_error=math.hypot(first.standard_error or 0, second.standard_error or 0),
        df=min(first.df, second.df),
        workers=min(first.workers, second.workers),
    )
