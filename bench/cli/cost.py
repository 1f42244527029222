"""`bakeoff cost`: what does each way to write a training step cost a model of yours?"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import Annotated, Literal

import typer

from bench.cli.documents import format_of, give, rendered, show
from bench.options import Output, names_of
from common.config import check_size
from common.errors import BakeoffError, unknown

EXAMPLES = """Examples:
bakeoff cost --arrays 147 --step-ms 40
bakeoff cost --arrays 147 --step-ms 40 --style flax_nnx/jit
bakeoff cost --from run.json --arrays 147 -o costs.html
bakeoff cost --from run.json -o costs.json"""
STEP_MS = 10.0
"""Milliseconds of a step unless they are given: a small model on a CPU."""
MOST_ARRAYS = 1_000_000
MOST_MILLISECONDS = 86_400_000.0
"""A day."""

FORMATS = ("text", "md", "html", "json")


def cost(
    arrays: Annotated[
        int | None,
        typer.Option(metavar="N", help="Parameter arrays of your model: weights, biases, scales."),
    ] = None,
    step_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="Milliseconds of your training step, as plain JAX would take.",
            show_default=f"{STEP_MS:g}",
        ),
    ] = None,
    style: Annotated[
        list[str] | None,
        typer.Option(metavar="ENTRANT/STYLE", help="These only; again, or as a,b."),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A table of costs, or a run of `pytest bench --workload depth`.",
            show_default="the published table",
        ),
    ] = None,
    format_: Annotated[
        Literal["text", "md", "html", "json"] | None,
        typer.Option(
            "--format",
            help="json is the whole table, for --from.",
            show_default="by the output's ending, else text",
        ),
    ] = None,
    output: Output = None,
) -> int:
    """Show what each style adds to a step of your model, and what to write instead.

    It grows with the number of the model's parameter arrays, and with the time that Python takes.
    """
    from bench.cost.document import Step, document
    from bench.cost.table import PUBLISHED, read_table

    chosen = format_of(format_, output, FORMATS)
    if chosen == "json":
        if arrays is not None or step_ms is not None or style:
            raise BakeoffError(
                "JSON has the whole table, for any model: leave --arrays, --step-ms and --style "
                "out, or choose another --format"
            )
        give(read_table(from_ or PUBLISHED).json, output)
        return 0
    if arrays is None:
        raise BakeoffError("--arrays is missing; give the number of your model's parameter arrays")
    check_size("--arrays", arrays, most=MOST_ARRAYS)
    if step_ms is not None and not 0 < step_ms <= MOST_MILLISECONDS:  # NaN is not
        raise BakeoffError(
            f"--step-ms is {step_ms:g}; more than 0 and at most {MOST_MILLISECONDS:.0f} are "
            "allowed: give another one"
        )
    costs = read_table(from_ or PUBLISHED)
    for name in (names := names_of(style)):
        if name not in costs.by_style:
            raise unknown("style", name, sorted(costs.by_style))
    step = Step(arrays, (step_ms or STEP_MS) / 1e3, assumed=step_ms is None)
    made = document(costs, step, [costs.by_style[name] for name in names or costs.by_style])
    if output is None and chosen == "text":
        show(made)
    else:
        give(rendered(made, str(chosen)), output)
    return 0
