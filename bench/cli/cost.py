"""`bakeoff cost`: what does a library, and a way to write its step, cost a model of yours?"""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.documents import format_of, give, rendered, show
from bench.cli.turns import names
from common.config import check_size
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.cost.document import Asked
    from bench.cost.measure import MeasuredCost
    from bench.cost.models import ModelSteps
    from bench.cost.table import CostTable
    from bench.report.table import Document

EXAMPLES = """Examples:\n
bakeoff cost --arrays 147 --step-ms 40\n
bakeoff cost --model weights.safetensors --step-ms 40 --style flax_nnx/jit\n
bakeoff cost --model mine.py:make_model --step-ms 3 --here\n
bakeoff cost --from run.json -o costs.json\n
bakeoff cost --from run.json --check --arrays 50 -o costs.html"""
MOMENTS = ("mu.", "nu.")
"""What names of arrays begin with that `common.weights` keeps beside parameters."""
STEP_MS = 10.0
MOST_ARRAYS = 1_000_000
MOST_MILLISECONDS = 86_400_000.0


class CostFormat(StrEnum):
    """What costs can be written as."""

    TEXT = "text"
    MD = "md"
    HTML = "html"
    JSON = "json"


def cost(
    arrays: Annotated[
        int | None, typer.Option(help="Parameter arrays of your model: weights, biases, scales.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Count them in a file of weights or in what a function returns; of a model in "
            "Equinox or NNX, the lines of Python that its step runs.",
            metavar="FILE.safetensors|FILE.py:FUNCTION",
        ),
    ] = None,
    step_ms: Annotated[
        float | None,
        typer.Option(
            help="Milliseconds of your training step, as plain JAX would take.",
            show_default=f"{STEP_MS:g}",
        ),
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(metavar="ENTRANT/STYLE", help="These only; again, or as a,b."),
    ] = None,
    here: Annotated[
        bool,
        typer.Option(
            "--here",
            help="Measure on this machine: a model of FILE.py in each style of its library; for "
            "others, how fast Python is, in 20 s.",
        ),
    ] = False,
    from_: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A table of costs, or runs of `pytest bench --workload depth`.",
            show_default="the published table",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Measure other models here, in an hour: how far are predictions off?",
        ),
    ] = False,
    format_: Annotated[
        CostFormat | None,
        typer.Option("--format", show_default="by the output's ending, else text"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file.", show_default="standard output"),
    ] = None,
) -> int:
    """Say what each style adds to a step of your model, and from which step time on it matters.

    What it adds depends on how many lines of Python a step runs, which grow with the number of the
    model's parameter arrays, and on how fast Python is.
    """
    from bench.cost.document import Asked, document, page
    from bench.cost.prediction import Size
    from bench.cost.table import json_of
    from bench.cost.user_model import TREE

    chosen = format_of(format_, output, CostFormat)
    if step_ms is not None and not 0 < step_ms <= MOST_MILLISECONDS:  # NaN is not
        raise BakeoffError(
            f"--step-ms is {step_ms:g}; more than 0 and at most {MOST_MILLISECONDS:.0f} are "
            "allowed: give another one"
        )
    if check and here:
        raise BakeoffError("--check and --here are given; give one of them")
    if chosen is CostFormat.JSON:
        if any(each is not None for each in (arrays, model, step_ms)) or style or here:
            raise BakeoffError(
                "JSON has the whole table, for any model: leave --arrays, --model, --step-ms, "
                "--style and --here out, or choose another --format"
            )
        costs = table_from(from_ or [])
        give(json_of(checked(costs) if check else costs), output)
        return 0
    if (arrays is None) == (model is None):
        raise BakeoffError(
            "give the number of your model's parameter arrays by --arrays, or a file by --model: "
            f"{'both are' if model else 'neither is'} given"
        )
    own = None if model is None else steps_of(model)
    number = own[1].arrays if own else arrays if model is None else arrays_in(model)
    assert number is not None
    check_size("--arrays", number, most=MOST_ARRAYS)
    asked = Asked(Size(number), (step_ms or STEP_MS) / 1e3, assumed=step_ms is None)
    html = None
    if here and own:
        if from_:
            raise BakeoffError("--here measures --model itself, without a table: leave --from out")
        made = measured_here(str(model), own, asked, names(style))
    else:
        costs = table_from(from_ or [])
        library = own[0] if own and own[0] != TREE else None
        known = {name: name for name in costs.by_style if library in (None, name[0])}
        asked_for = known_styles(known, names(style))
        found = lines_of(str(model), library) if library else []
        if check:
            costs = checked(costs)
        styles = [costs.by_style[name] for name in asked_for]
        if here:
            from bench.cost.speed import speed_here

            asked = asked._replace(host=speed_here(costs))
        made = document(costs, asked, styles, found, check=check)
        if not found:
            html = partial(page, costs, asked, styles)
    if chosen is CostFormat.HTML:
        give(html() if html else rendered(lambda **_: made, str(chosen)), output)
    elif output is None and chosen is CostFormat.TEXT:
        show(made)
    else:
        give(rendered(lambda **_: made, str(chosen)), output)
    return 0


def known_styles[T](known: Mapping[tuple[str, str], T], asked: Sequence[str]) -> list[T]:
    """Return what is known of the styles that are asked for; of all if none is.

    Raises:
        BakeoffError: one of them is unknown.
    """
    by_name = {f"{entrant}/{style}": each for (entrant, style), each in known.items()}
    for name in asked:
        if name not in by_name:
            raise unknown("style", name, sorted(by_name))
    return [by_name[name] for name in asked or by_name]


def measured_here(
    model: str, own: tuple[str, ModelSteps], asked: Asked, styles: Sequence[str]
) -> Document:
    """Return what styles add to a step of a user's model, measured now."""
    from bench.cost.document import document_of_user
    from bench.cost.measure import ModelSpec, measured
    from bench.cost.models import PLAIN

    library, made = own
    chosen = known_styles({(library, name): name for name in made.steps if name != PLAIN}, styles)
    found = [e for e in measured({library: [ModelSpec(model)]}, tell) if e.style in chosen]
    return document_of_user(asked, found)


def lines_of(model: str, library: str) -> list[MeasuredCost]:
    """Return the lines that a step of a user's model runs in each style of its library.

    There are none where its step cannot be made, which is said.
    """
    from bench.cost.measure import ModelSpec, counted

    tell(f"counting the lines of Python that a step of {model} runs in each style of {library}")
    try:
        return counted(library, ModelSpec(model))
    except BakeoffError as error:
        tell(f"{error}; so what follows is by arrays")
        return []


def tell(text: str) -> None:
    """Say what is done, beside what is asked for."""
    typer.echo(text, err=True)


def table_from(paths: Sequence[Path]) -> CostTable:
    """Return the table of a file of costs, or of runs that costs can be read from."""
    from bench.cost.table import PUBLISHED, is_table, read_table

    if not paths:
        return read_table(PUBLISHED)
    if tables := [path for path in paths if is_table(path)]:
        if len(paths) > 1:
            raise BakeoffError(f"--from {tables[0]} is a table of costs: give it alone, or runs")
        return read_table(tables[0])
    from bench.cost.fit import cost_table
    from bench.runfile.reader import read

    return cost_table([read(path) for path in paths])


def checked(costs: CostTable) -> CostTable:
    """Return a table with models beside it that are measured now.

    Raises:
        BakeoffError: the table is of other versions, or a model could not be measured.
    """
    from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

    from bench.cost.measure import CHECK_WORKERS, MODELS, measured, with_check
    from bench.runfile.reader import processor_model
    from common.versions import versions

    now = versions()
    for what in now.keys() & costs.versions.keys() - {"jax-bakeoff", "python"}:
        if now[what] != costs.versions[what]:
            raise BakeoffError(
                f"--check measures with {what} {now[what]}, and the table is of {what} "
                f"{costs.versions[what]}: give another table or runs, or install that"
            )
    machine = processor_model(pytest_benchmark_generate_machine_info())
    return with_check(costs, list(measured(MODELS, tell, CHECK_WORKERS)), machine)


def steps_of(model: str) -> tuple[str, ModelSteps] | None:
    """Return whose styles a user's model is for, and its structure; None for a file of weights.

    Raises:
        BakeoffError: there is no such file, or its function raises or returns no arrays.
    """
    from bench.cost import user_model

    function = user_model.is_function(model)
    path = Path(model.rpartition(":")[0] if function else model)
    if not path.is_file():
        raise BakeoffError(
            f"--model {model}: there is no file {path}; give FILE.safetensors or FILE.py:FUNCTION"
        )
    return user_model.steps_of(model) if function else None


def arrays_in(model: str) -> int:
    """Return the number of parameter arrays in a file of weights.

    Raises:
        BakeoffError: it is none, or it has no arrays.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(model, framework="np") as weights:
            found = sum(is_parameter(weights, name) for name in weights.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise BakeoffError(
            f"--model {model} is no safetensors file ({error}); give one, or FILE.py:FUNCTION"
        ) from error
    if not found:
        raise BakeoffError(f"--model {model} has no arrays; give what holds parameters")
    return found


def is_parameter(weights: Any, name: str) -> bool:
    """Tell whether an array of a safetensors file is a model's parameter.

    Integers are none, nor are the moments of Adam, which `bakeoff train --save` keeps as well.
    """
    ours = (weights.metadata() or {}).get("format", "").startswith("jax-bakeoff")
    return not (ours and name.startswith(MOMENTS)) and "F" in weights.get_slice(name).get_dtype()
