"""`bakeoff cost`: what does each way to write a training step cost, yours or one of that size?"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- Typer reads the annotations
from typing import Annotated

import typer

from bench.cells import name_step, parse_names, require_known
from bench.cli import commands, parameters
from bench.cli.output import Output, finish, publish
from bench.cost.published import document, read_published
from bench.options import Options
from bench.streams import read_arguments
from common.config import check_rate, check_size
from common.errors import BakeoffError

EXAMPLES = """\
bakeoff cost mine.py
bakeoff cost mine.py --style jit,jit_partial --budget 120 -o mine.html
bakeoff cost --arrays 147 --step-ms 40"""
DEFAULT_BUDGET = 60.0
"""Default budget in seconds: enough for eight styles of a step of a few milliseconds."""
DEFAULT_STEP_MS = 10.0
"""Default step time in milliseconds: that of a small model on a CPU."""


def cost(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="A file with your model, batch and loss, as `bakeoff new mine --model equinox` "
            "begins one: each style's step is proven equal and measured here.",
            show_default=False,
        ),
    ] = None,
    style: parameters.StyleNames = None,
    backend: parameters.BackendName = None,
    budget: parameters.Budget = DEFAULT_BUDGET,
    arrays: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Without a file: parameter arrays of your model, for the published table.",
        ),
    ] = None,
    step_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="With --arrays: milliseconds of your step, as plain JAX would take.",
            show_default=f"{DEFAULT_STEP_MS:g}",
        ),
    ] = None,
    format_: parameters.Format = None,
    output: parameters.Output = None,
    resume: parameters.Resume = False,
    more: parameters.More = None,
    wait: parameters.Wait = False,
    with_: parameters.With = None,
) -> int:
    """Show what each style adds to your training step, and what to write instead.

    With a file, your own step is measured in every style of its library. With --arrays, the
    published table says what to expect: it grows with the number of the model's parameter arrays,
    and with the time that Python takes.

    Exit status: 0 done; 1 a style failed; 2 cannot say: there was no time to compare a style, or
    wrong use; 130 Ctrl-C.
    """
    shown = Output.choose(format_, output, details=False)
    styles = parse_names(style)
    if file is None:
        if backend is not None or budget != DEFAULT_BUDGET or resume or more is not None:
            raise BakeoffError(
                "--backend, --budget, --resume and --more are for measuring: name a file"
            )
        show_published(styles, arrays, step_ms, shown)
        return 0
    if arrays is not None or step_ms is not None:
        raise BakeoffError("a file is measured, and --arrays asks the table; leave one of them out")
    from bench.cost.step import find_status
    from bench.prepare.run import prepare_step

    extent = commands.check_options(Options(budget))
    name_step(file)  # what is wrong with it is told before anything is built
    builder = commands.make_builder(wait=wait, packages=with_, more=more)
    task = prepare_step(file, extent, styles, backend, builder, read_arguments())
    made = commands.measure_task(task, wait=wait, resume=resume, more=more)
    finish(made.results, shown, made.journal.path)
    return find_status(made.results)


def show_published(
    styles: tuple[str, ...], arrays: int | None, step_ms: float | None, output: Output
) -> None:
    """Show the published costs for a model of so many parameter arrays.

    Raises:
        BakeoffError: an option is missing, out of its limits, or unknown.
    """
    if arrays is None:
        raise BakeoffError(
            "nothing to look at: name the file of your step, as in `bakeoff cost mine.py`, or give "
            "--arrays, the number of your model's parameter arrays"
        )
    assumed = " (assumed: no --step-ms is given)" if step_ms is None else ""
    step_ms = DEFAULT_STEP_MS if step_ms is None else step_ms
    check_size("--arrays", arrays)
    check_rate("--step-ms", step_ms)
    if output.form == "json":
        raise BakeoffError("the table is JSON already, bench/cost/host-cost.json: choose another")
    costs = read_published()
    names = {cost: {cost.style, str(cost.arm)} for cost in costs.styles}
    require_known("style", styles, sorted(set.union(*names.values())))
    rows = [cost for cost, known in names.items() if not styles or known & {*styles}]
    publish([document(costs, arrays, step_ms / 1e3, rows, assumed)], output)
