"""What styles cost a model, as a document and as a page on which a reader gives the model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.cells import Arm
from bench.cost import advice, prediction
from bench.cost.prediction import Size
from bench.metrics import label
from bench.report import wording
from bench.report.table import (
    ADDED,
    EACH,
    Column,
    Document,
    Row,
    Section,
    Table,
    Value,
    amount,
)
from bench.stats.law import Range

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.cost.measure import MeasuredCost
    from bench.cost.table import CostTable, StyleCost

WAITING = {Arm("equinox", "filter_jit")}
"""Styles whose call returns when the device is done, so that nothing overlaps."""
MEANING = (
    "What a style adds to plain JAX's step, each call waited for. Where steps are not waited for, "
    "it costs less, and nothing at all if the device takes longer than the host; but "
    "`eqx.filter_jit` waits in each call."
)
SMALL = 0.01
"""Of a step: a cost below it does not matter."""


class Asked(NamedTuple):
    """A model, and the machine that runs it."""

    size: Size
    step_seconds: float
    """Of its training step, as plain JAX would take."""
    host: float = 1.0
    """How many times as long the machine's Python takes as the table's."""
    assumed: bool = False
    """Whether nobody has said how long the step takes."""


def document(
    costs: CostTable,
    asked: Asked,
    styles: Sequence[StyleCost],
    counted: Sequence[MeasuredCost] = (),
    *,
    check: bool = False,
) -> Document:
    """Return what some styles of a table cost a model; with how far that can be off, if asked.

    Args:
        costs: The table.
        asked: The model, and the machine.
        styles: Of the table.
        counted: The lines that the model's step runs in each style, or why a style cannot take it.
        check: Whether to say how far predictions of other models are off.
    """
    versions = (f"{name} {v}" for name, v in costs.versions.items() if name != "jax-bakeoff")
    names = {style.style for style in styles}
    counted = [each for each in counted if each.style in names]
    asked = with_lines(asked, counted)
    failed = {each.style for each in counted if each.failure}
    styles = [style for style in styles if style.style not in failed]
    added = {
        Arm(style.entrant, style.style): scaled(
            prediction.predicted(costs, style, asked.size), asked.host
        )
        for style in styles
    }
    found = answer(
        asked,
        added,
        (*reading(costs, asked, styles), *failures(counted)),
        f"Measured on {costs.machine}, {costs.when[:10]}, with {', '.join(versions)}.",
    )
    return replace(found, sections=(*found.sections, other_models(costs))) if check else found


def with_lines(asked: Asked, found: Sequence[MeasuredCost]) -> Asked:
    """Return a model with the lines that its step runs, if they were counted."""
    lines = {each.style: each.lines for each in found if each.lines is not None}
    return asked._replace(size=Size(asked.size.arrays, lines)) if lines else asked


def document_of_user(asked: Asked, found: Sequence[MeasuredCost]) -> Document:
    """Return what styles were measured to add to a step of a model with a user's structure."""
    from bench.cost.measure import WORKERS  # and with it jax

    lines = (
        MEANING,
        "Measured here with your model's modules and attributes; its arrays had one number each, "
        "and the loss was their sum of squares. With larger arrays a style costs somewhat more.",
    )
    how = f"Measured in {WORKERS} processes, each on one core, with 95 % intervals."
    added = {Arm(each.library, each.style): each.seconds for each in found if each.added}
    return answer(with_lines(asked, found), added, (*lines, *failures(found)), how)


def failures(found: Sequence[MeasuredCost]) -> Iterator[str]:
    """Yield which styles cannot take a model, and why."""
    yield from (f"{e.name} cannot take this model: {e.failure}" for e in found if e.failure)


def answer(
    asked: Asked, added: Mapping[Arm, Range], lines: tuple[str, ...], print_: str
) -> Document:
    """Return what styles cost a model, by what each adds to a step in seconds."""
    columns = (
        Column("style"),
        Column("Python lines", number=True, help="that a step runs beyond those of plain JAX's"),
        Column("added per step", number=True),
        Column("of your step", number=True, help="if nothing overlaps"),
        Column("at least", number=True, help="if host and device overlap wherever they can"),
        Column("below 1 %\nfrom", number=True, help="the step time from which it is below 1 %"),
    )
    rows = tuple(
        cost_row(arm, asked.size.lines.get(arm.full_style), found, asked.step_seconds)
        for arm, found in sorted(added.items(), key=lambda each: each[1].value)
    )
    return Document(
        title="What each style costs your model",
        subtitle=f"{asked.size.arrays} parameter arrays, {Value(asked.step_seconds, 's')} a step"
        f"{' (assumed: no --step-ms is given)' * asked.assumed}",
        sections=(Section("Cost of a step", lines, (Table(columns, rows).without_empty(),)),),
        fine_print=(print_,),
    )


def scaled(found: Range, factor: float) -> Range:
    """Return a value and its interval, multiplied."""
    return Range(*(factor * each for each in found))


def cost_row(arm: Arm, lines: int | None, found: Range, step_seconds: float) -> Row:
    """Return what one style costs."""
    hidden = 0.0 if arm in WAITING else step_seconds
    return Row(
        (
            wording.name(arm),
            "" if lines is None else Value(lines, ""),
            Value(found.value, ADDED, found.low, found.high),
            Value(max(0.0, found.value) / step_seconds, "fraction"),
            Value(max(0.0, found.value - hidden) / step_seconds, "fraction"),
            Value(found.value / SMALL, "s") if found.value > 0 else "any",
        )
    )


def reading(costs: CostTable, asked: Asked, styles: Sequence[StyleCost]) -> Iterator[str]:
    """Yield how to read it, and what it rests on."""
    yield MEANING
    by_lines = [style for style in styles if prediction.by_lines(style, asked.size)]
    by_arrays = [style for style in styles if style not in by_lines]
    most = (asked.size.lines[s.style] > s.counted[-1][0] for s in by_lines)
    if any(most) or (by_arrays and asked.size.arrays > costs.most_arrays):
        yield f"Up to {costs.most_arrays} arrays were measured: more is extrapolated."
    if costs.checked:
        yield (
            "Ranges are the RNN's own, wider by how far predictions of perceptrons, transformers "
            f"and convolutional networks were off, on {costs.checked_machine}."
        )
    if by_lines:
        yield (
            "By the lines of Python that a step runs, on the table's machine"
            f"{but(by_arrays)}. `--here` measures your model on yours."
        )
    elif asked.size.lines:
        yield (
            "By arrays alone: the table does not know what the RNN's lines cost. `--check` adds "
            "that to it; `--here` measures your model on your machine."
        )
    else:
        yield (
            "By arrays alone. Of a model in Equinox or NNX, `--model FILE.py:FUNCTION` counts the "
            "lines of Python that its step runs, which is closer."
        )
    if asked.host != 1.0:
        yield f"This machine's Python takes {asked.host:.2f} times as long as the table's."
    elif not asked.size.lines:
        yield (
            "It grows with the time that Python takes: `--here` measures that on this machine, in "
            "20 seconds."
        )


def but(styles: Sequence[StyleCost]) -> str:
    """Return which styles are predicted by arrays instead."""
    return f"; by arrays: {', '.join(style.name for style in styles)}" if styles else ""


def other_models(costs: CostTable) -> Section:
    """Return how far predictions of other models are off."""
    each = replace(prediction.each_model(costs), title="Each model and style", folded=True)
    return Section("Other models", tables=(prediction.table(costs), each))


def laws(costs: CostTable) -> Table:
    """Return the law of each style, the dearest array last."""
    return Table(
        (
            Column("style"),
            Column("each array", number=True, help="with a 95 % interval"),
            Column("fixed", number=True),
            Column("largest misfit", number=True, help="of a measured depth, from the law"),
        ),
        tuple(
            Row(
                (
                    style.name,
                    Value(style.each, EACH, *style.law.of_each[1:]),
                    Value(style.fixed, ADDED, *style.law.of_fixed[1:]),
                    Value(style.misfit, "fraction") if style.known else "",
                )
            )
            for style in sorted(costs.styles, key=lambda style: style.each)
        ),
    )


def repeated(costs: CostTable, again: CostTable) -> Table:
    """Return the cost of an array in two runs, of styles that are known well enough in both."""
    other = {style.name: style for style in again.styles}
    rows = []
    for style in sorted(costs.styles, key=lambda style: style.each):
        second = other.get(style.name)
        if second is not None and style.known and second.known:
            each = (Value(one.each, EACH, *one.law.of_each[1:]) for one in (style, second))
            rows.append(
                Row((style.name, *each, f"{round(100 * (second.each / style.each - 1)):+d} %"))
            )
    columns = (costs.when[:16].replace("T", " "), again.when[:16].replace("T", " "), "difference")
    return Table((Column("style"), *(Column(c, number=True) for c in columns)), tuple(rows))


def growth_table(costs: CostTable) -> Table:
    """Return the powers of depth that the times of a fresh process grow with."""
    metrics = list(dict.fromkeys(each.metric for each in costs.growth))
    found = {(each.name, each.metric): each for each in costs.growth}
    rows = []
    for name in dict.fromkeys(each.name for each in costs.growth):
        own = [found.get((name, metric)) for metric in metrics]
        cells = [
            ""
            if each is None
            else f"{each.power:.2f} ({each.low:.2f} to {each.high:.2f}), "
            f"{amount(each.seconds[1], 's')}"
            for each in own
        ]
        rows.append(Row((name, *cells)))
    most = max((each.layers[1] for each in costs.growth), default=0)
    return Table(
        (Column("style"), *(Column(label(metric), number=True) for metric in metrics)),
        tuple(rows),
        notes=(
            "Time grows as the depth to this power, with a 95 % interval; behind it, the time at "
            f"{most} layers. Styles with the same program share its compile time. Measured on "
            f"{costs.growth_machine}.",
        ),
    )


def page(costs: CostTable, asked: Asked, styles: Sequence[StyleCost]) -> str:
    """Return the page of a table: its first table follows what a reader enters."""
    from bench.report.page.parts import document_page, embedded, script

    whole = document(costs, asked, styles)
    more = (
        Section("The law of each style", tables=(laws(costs),)),
        Section("What to write instead", tables=(advice.table(costs),)),
        other_models(costs),
        Section("Deeper models", tables=(growth_table(costs),)),
    )
    kept = tuple(section for section in more if section.tables[0].rows)
    return document_page(
        replace(whole, sections=(*whole.sections, *kept)),
        "cost.html.jinja",
        js=script("cost.js"),
        data=embedded({"styles": [part(costs, style) for style in styles]}),
        arrays=asked.size.arrays,
        step_ms=f"{asked.step_seconds * 1e3:g}",
        host=f"{asked.host:.3g}",
    )


def part(costs: CostTable, style: StyleCost) -> dict[str, Any]:
    """Return what a page needs of a style: its law, and how far that is off."""
    return {
        "name": style.name,
        "waits": Arm(style.entrant, style.style) in WAITING,
        "off": prediction.off_by(costs, style, by_lines=False),
        "fixed": style.fixed,
        "each": style.each,
        "covariance": style.covariance,
        "t": style.t,
    }
