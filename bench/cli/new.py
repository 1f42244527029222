"""`bakeoff new`: begin an entrant."""

from __future__ import annotations

import keyword
import shlex
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from common.errors import BakeoffError, require_new
from common.files import atomic_write

EXAMPLES = """Examples:
bakeoff new mine
bakeoff new mine --into impls"""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The entrant: an identifier.")],
    into: Annotated[Path, typer.Option(help="Folder for the file.")] = Path(),
) -> None:
    """Write NAME.py, a commented skeleton; `bakeoff check NAME.py` then says what to write next."""
    path = into / f"{name}.py"
    require_name(name)
    require_new(path, "entrant file")
    template = resources.files("bench.check").joinpath("skeleton.py.txt")
    atomic_write(path, template.read_text("utf-8").replace("NAME", name))
    print(f"wrote {path}; next: bakeoff check {shlex.quote(str(path))}")


def require_name(name: str) -> None:
    """Raise BakeoffError if the name is not an identifier, or taken."""
    import impls

    if not name.isidentifier() or keyword.iskeyword(name):
        raise BakeoffError(
            f"entrant {name!r} is not a Python identifier; give a name of letters, digits and _"
        )
    if name in impls.RESERVED:
        raise BakeoffError(
            f"entrant {name!r}: {' and '.join(impls.RESERVED)} are reserved; give another name"
        )
    if name in impls.names():
        raise BakeoffError(
            f"there is an entrant {name!r} already; known: {', '.join(impls.names())}: "
            "give another name"
        )
