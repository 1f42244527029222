"""`bakeoff cost`: what does a library, and a way to write its step, cost a model of yours?"""

from __future__ import annotations

import importlib.util
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.documents import format_of, give, rendered, show
from bench.cli.turns import names
from common.config import check_size
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cost.table import CostTable

EXAMPLES = """Examples:\n
bakeoff cost --arrays 147 --step-ms 40\n
bakeoff cost --model weights.safetensors --step-ms 40 --style flax_nnx/jit\n
bakeoff cost --model mine.py:make_model --step-ms 3 --here\n
bakeoff cost --from run.json -o costs.json\n
bakeoff cost --from run.json --check --arrays 50 -o costs.html"""
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
            help="Count them in a file of weights, or in what a function of a Python file returns.",
            metavar="FILE.safetensors|FILE.py:FUNCTION",
        ),
    ] = None,
    step_ms: Annotated[
        float, typer.Option(help="Milliseconds of your training step, as plain JAX would take.")
    ] = 10.0,
    style: Annotated[
        list[str] | None,
        typer.Option(metavar="ENTRANT/STYLE", help="These only; again, or as a,b."),
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Measure for 20 s how fast this machine's Python is.")
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
            "--check", help="Measure other models too, in 12 minutes: does the law hold for them?"
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

    What it adds depends on the number of parameter arrays and on how fast Python runs, whatever
    the model computes and on whichever device.
    """
    from bench.cost.document import Asked, document, page
    from bench.cost.table import json_of

    chosen = format_of(format_, output, CostFormat)
    if not 0 < step_ms <= MOST_MILLISECONDS:  # NaN is not
        raise BakeoffError(
            f"--step-ms is {step_ms:g}; more than 0 and at most {MOST_MILLISECONDS:.0f} are "
            "allowed: give another one"
        )
    if chosen is not CostFormat.JSON and (arrays is None) == (model is None):
        raise BakeoffError(
            "give the number of your model's parameter arrays by --arrays, or a file by --model: "
            f"{'both are' if model else 'neither is'} given"
        )
    count = arrays_in(model) if model is not None else arrays
    if count is not None:
        check_size("--arrays", count, most=MOST_ARRAYS)
    costs = table_from(from_ or [])
    known = {f"{each.entrant}/{each.style}": each for each in costs.styles}
    asked = names(style)
    for name in asked:
        if name not in known:
            raise unknown("style", name, sorted(known))
    if check:
        costs = checked(costs)
    if chosen is CostFormat.JSON:
        give(json_of(costs), output)
        return 0
    host = 1.0
    if here:
        from bench.cost.speed import speed_here

        host = speed_here(costs)
    assert count is not None
    chosen_styles = [known[name] for name in asked or known]
    model_asked = Asked(count, step_ms / 1e3, host)
    if chosen is CostFormat.HTML:
        give(page(costs, model_asked, chosen_styles), output)
    elif output is None and chosen is CostFormat.TEXT:
        show(document(costs, model_asked, chosen_styles))
    else:
        give(rendered(lambda: document(costs, model_asked, chosen_styles), str(chosen)), output)
    return 0


def table_from(paths: Sequence[Path]) -> CostTable:
    """Return the table of a file of costs, or of runs that costs can be read from."""
    from bench.cost.table import PUBLISHED, is_table, read_table

    if not paths or is_table(paths[0]):
        return read_table(paths[0] if paths else PUBLISHED)
    from bench.cost.fit import cost_table
    from bench.runfile.reader import read

    return cost_table([read(path) for path in paths])


def checked(costs: CostTable) -> CostTable:
    """Return a table with models beside it that are measured now."""
    import msgspec

    from bench.cost.held_out import measured, models
    from bench.cost.table import Checked

    found = []
    for each in measured(models()):
        library, kind, depth = each.model
        about = f"{kind}, {depth} blocks", library, each.style
        found.append(Checked(*about, each.arrays, each.modules, *each.seconds))
        typer.echo(f"measured {', '.join(about)}", err=True)
    return msgspec.structs.replace(costs, checked=tuple(found))


def arrays_in(model: str) -> int:
    """Return the number of parameter arrays of a model.

    Raises:
        BakeoffError: the file is none, or the function raises or returns no arrays.
    """
    file, colon, function = model.partition(":")
    path = Path(file)
    if not path.is_file():
        raise BakeoffError(f"--model {model}: there is no file {file}; give FILE.py:FUNCTION")
    if not colon:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as weights:
                found = len(weights.keys())
        except SafetensorError as error:
            raise BakeoffError(
                f"--model {model} is no safetensors file ({error}); give one, or FILE.py:FUNCTION"
            ) from error
    else:
        found = len(arrays_of_function(path, function))
    if not found:
        raise BakeoffError(f"--model {model} has no arrays; give what holds parameters")
    return found


def arrays_of_function(path: Path, function: str) -> list[Any]:
    """Return the arrays of floating-point numbers that a function of a file returns."""
    import jax
    import jax.numpy as jnp

    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BakeoffError(f"{path} is no Python file; give FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        leaves = jax.tree.leaves(getattr(module, function)())
    except (Exception, SystemExit) as error:
        raise BakeoffError(
            f"--model {path}:{function} raised {type(error).__name__}: {error}; give a function "
            "that takes nothing and returns a model or its parameters"
        ) from error
    return [
        leaf
        for leaf in leaves
        if hasattr(leaf, "shape") and jnp.issubdtype(getattr(leaf, "dtype", bool), jnp.inexact)
    ]
