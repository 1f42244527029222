"""`bakeoff new`: begin a training step of your own, or an entrant."""

from __future__ import annotations

import keyword
import shlex
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

import impls
from bench.cells import require_known
from common.config import WORKLOADS
from common.errors import BakeoffError, require_new
from common.files import atomic_write

EXAMPLES = """Examples:
bakeoff new mine --model equinox
bakeoff new mylib --into impls"""
WHOLE_STEP = "make_step"
"""Value of `--model` in place of a library, for a file with a whole step."""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the file: an identifier.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="LIBRARY",
            help="Begin a training step of your own. The model's library: equinox, flax_nnx, "
            "flax_linen, haiku or pure_jax; make_step: no model, but a whole step.",
            show_default="begin an entrant",
        ),
    ] = None,
    into: Annotated[Path, typer.Option(help="Folder for the file.")] = Path(),
) -> None:
    """Write NAME.py: a training step of your own, or a commented skeleton of an entrant.

    `bakeoff cost NAME.py` measures a step; `bakeoff check NAME.py` says what to write next of an
    entrant.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BakeoffError(
            f"{name!r} is not a Python identifier; give a name of letters, digits and _"
        )
    taken = {
        "a workload": WORKLOADS,
        "an entrant": impls.names(),
        "a reserved name": impls.RESERVED,
    }
    for kind, known in taken.items():
        if name in known:
            raise BakeoffError(f"there is {kind} {name!r} already; give another name")
    path = into / f"{name}.py"
    require_new(path, "file")
    if name in ("conftest", "__main__") or find_spec(name):
        raise BakeoffError(f"a file {name}.py would hide the module {name}; give another name")
    begin = {n: text for n in impls.list_shared() if (text := impls.find_declaration(n).begin)}
    if model in begin:
        next_command, text = "cost", begin[model]
    else:
        require_known("model", [model or WHOLE_STEP], [*begin, WHOLE_STEP])
        skeleton = WHOLE_STEP if model else "skeleton"
        text = resources.files("bench.check").joinpath(f"{skeleton}.py.txt").read_text("utf-8")
        next_command = "ab --base @-30d --step" if model else "check"
    atomic_write(path, text.replace("NAME", name))
    print(f"wrote {path}; next: bakeoff {next_command} {shlex.quote(str(path))}")
