"""`bakeoff entrants`: who takes part, and in which environment."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.errors import BakeoffError

if TYPE_CHECKING:
    from bench.environments.builder import Builder
    from bench.report.table import Document

    type Entrant = dict[str, Any]
    """What there is to say of an entrant, ready for JSON."""

EXAMPLES = """Examples:\n
bakeoff entrants\n
bakeoff entrants --build keras --build penzai\n
bakeoff entrants --json"""


def entrants(
    build: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Build this entrant's own environment; all for all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List entrants, their styles, versions, environments and lines of code.

    Heavy and unmaintained libraries have environments of their own, which uv builds when they are
    first measured, or with --build.
    """
    import impls
    from bench.cli.documents import show
    from bench.environments.builder import Builder

    builder = Builder(notify=lambda line: print(line, file=sys.stderr))
    for name in named(build):
        builder.place_of(name)
    rows = [describe(name, builder) for name in impls.names()]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        show(document(rows))


def named(given: list[str] | None) -> list[str]:
    """Return entrants by their names; `all` stands for those with environments of their own."""
    import impls

    isolated = [name for name in impls.names() if impls.readable(name).own_environment]
    for name in given or ():
        if name != "all" and not impls.declared(name).own_environment:
            raise BakeoffError(
                f"entrant {name!r} has no environment of its own; those that have: "
                f"{', '.join(isolated)}; choose one of them"
            )
    return isolated if given and "all" in given else given or []


def describe(name: str, builder: Builder) -> Entrant:
    """Return what there is to say of an entrant; `problem` if it cannot be loaded.

    One with an environment of its own is not imported: its file and its pins are read.
    """
    import impls
    from bench.worker.source import code_lines

    entrant: Entrant = {"entrant": name, "library": "", "styles": [], "code_lines": None}
    entrant |= {"environment": "shared", "ready": True}
    try:
        about = impls.declared(name)
        entrant |= {"library": about.distribution, "jax": about.jax, "note": about.note}
        entrant["code_lines"] = code_lines(impls.source(name))
        if not about.own_environment:
            entrant["styles"] = list(impls.load(name).styles)
            return entrant | {"version": metadata.version(about.distribution)}
        pins = dict(text.split("==") for text in about.requirements if text.count("==") == 1)
        entrant |= {
            "environment": "its own",
            "requirements": list(about.requirements),
            "ready": builder.folder_of(name) is not None,
            "size": about.installed or None,
            "styles": impls.styles_of(name),
            "version": pins.get(about.distribution),
        }
    except BakeoffError as error:
        entrant |= {"problem": str(error), "ready": False}
    return entrant


def document(rows: list[Entrant]) -> Document:
    """Return the table of entrants, and a warning for each that cannot be loaded."""
    from bench.report.table import Column, Document, Row, Section, Table

    names = ("entrant", "library", "version", "environment", "code lines", "styles")
    columns = tuple(Column(name, number=name == "code lines") for name in names)
    cells = []
    for row in rows:
        where = row["environment"]
        if "requirements" in row:
            where = "own, built" if row["ready"] else f"{row['size'] or ''} to build".lstrip()
        version, lines = row.get("version") or "", str(row["code_lines"] or "")
        styles = ", ".join(row["styles"])
        cells.append(Row((row["entrant"], row["library"], version, where, lines, styles)))
    return Document(
        "Entrants",
        sections=(Section("Entrants", tables=(Table(columns, tuple(cells)),)),),
        warnings=tuple(row["problem"] for row in rows if "problem" in row),
    )
