"""`bakeoff new`: begin an entrant."""

from __future__ import annotations

import keyword
import shlex
from pathlib import Path
from typing import Annotated

import typer

from common.errors import BakeoffError, require_new
from common.files import atomic_write

EXAMPLES = """Examples:\n
bakeoff new mine\n
bakeoff new mine --into impls\n
bakeoff new mine --from flax_nnx\n
bakeoff new mine --from pure_jax/tuned"""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The entrant: an identifier.")],
    into: Annotated[Path, typer.Option(help="Folder for the file.")] = Path(),
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ENTRANT[/STYLE]",
            help="Begin with a style of this entrant, to change it.",
            show_default="a skeleton of a whole library",
        ),
    ] = None,
) -> None:
    """Write NAME.py, a commented skeleton; `bakeoff check NAME.py` then says what to write next.

    With --from, copy an entrant's file with one of its styles instead, to change it.
    """
    from bench.check.skeleton import chosen_style, skeleton, style_file

    path = into / f"{name}.py"
    require_name(name)
    text = skeleton(name) if from_ is None else style_file(name, *chosen_style(from_))
    require_new(path, "entrant file")
    try:
        atomic_write(path, text)
    except OSError as error:
        raise BakeoffError(
            f"cannot write {path}: {error.strerror}; make room there, or name another folder with "
            "--into"
        ) from error
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
