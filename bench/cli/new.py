"""`bakeoff new`: begin an entrant."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """Examples:\n
bakeoff new mine\n
bakeoff new mine --into impls"""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the entrant: an identifier.")],
    into: Annotated[Path, typer.Option(help="Folder for the file.")] = Path(),
) -> None:
    """Write NAME.py, a commented skeleton; `bakeoff check NAME.py` then says what to write next."""
    from bench.check.skeleton import write

    path = write(name, into)
    print(f"wrote {path}; go on with: bakeoff check {shlex.quote(str(path))}")
