"""`bakeoff ergonomics`: what each library asks of who writes with it, counted."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path  # noqa: TC003 -- typer reads it
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = """Examples:\n
bakeoff ergonomics\n
bakeoff ergonomics --entrant flax_nnx,equinox --verbose\n
bakeoff ergonomics --run run.json --format markdown\n
bakeoff ergonomics --json"""


SITE_PACKAGES = "[lL]ib/**/site-packages"
"""In an environment, on any system."""


class Form(StrEnum):
    """How the tables are written."""

    TEXT = "text"
    MARKDOWN = "markdown"


def ergonomics(
    entrant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE.py",
            help="Entrants to count, or Python files, as a,b. A file is read, not run.",
            show_default="all of this project",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN.json", help="A run whose import times are shown beside."),
    ] = None,
    format_: Annotated[
        Form, typer.Option("--format", help="markdown is for a README.")
    ] = Form.TEXT,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List the names that each file uses.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines; has all names.")] = False,
) -> None:
    """Count lines, tokens and names of entrants and styles, and what their libraries install.

    Nothing is run or timed, and no network is used. Releases are from a dated file.
    """
    from bench.ergonomics import tables
    from bench.ergonomics.rows import ergonomics as count
    from bench.report.runs import read

    if as_json and format_ is not Form.TEXT:
        raise BakeoffError(f"--json and --format {format_} are two forms; give one of them")
    measured = None if run is None else read(run, samples=False)
    found = count(named(entrant), site_packages, measured)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    said = [*(tables.listed(found) if verbose else []), *tables.problems(found)]
    if format_ is Form.MARKDOWN:
        print("\n".join(map(tables.markdown, tables.grids(found))).rstrip())
        for line in said:
            print(f"\n{line}")
        return
    console = Console(highlight=False)
    for grid in tables.grids(found):
        for part in tables.rich(grid, console.width):
            console.print(part)
    for line in said:
        console.print(Text(f"\n{line}"))


def named(given: Sequence[str] | None) -> list[str]:
    """Return the entrants that are asked for, each once; a path lets its file take part.

    Raises:
        BakeoffError: there is no such entrant or file.
    """
    import impls

    names = [name for text in given or [] for name in text.split(",") if name]
    if given and not names:
        raise BakeoffError("--entrant is empty; give names of entrants, or leave it out")
    out = []
    for name in names:
        chosen = impls.add(name) if name.endswith(".py") else name
        if chosen not in impls.names():
            raise unknown("entrant", name, impls.names())
        out.append(chosen)
    return list(dict.fromkeys(out)) or impls.names()


def site_packages(name: str) -> Path | None:
    """Return where an entrant's own environment has its packages; None if it was not built."""
    from bench.environments.own import Homes, asked, pythons
    from bench.environments.store import whole

    about = asked(name)
    paths = [Homes().path(name, about, python) for python in pythons(about)]
    folders = [f for path in paths if whole(path) for f in sorted(path.glob(SITE_PACKAGES))]
    return folders[0] if folders else None
