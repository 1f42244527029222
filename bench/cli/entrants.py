"""`bakeoff entrants`: the entrants, their versions and environments."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

import impls
from bench.cells import parse_names, require_known
from bench.cli.commands import publish
from bench.report.table import Column, Document, Row, Section, Table
from bench.streams import say
from common.errors import BakeoffError

if TYPE_CHECKING:
    from bench.environments.builder import Builder

COLUMNS = ("entrant", "library", "version", "environment", "code lines", "styles")
EXAMPLES = """Examples:
bakeoff entrants
bakeoff entrants --build keras --build penzai"""


def entrants(
    build: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Build this entrant's own environment; all for all."),
    ] = None,
) -> None:
    """List entrants, their styles, versions, environments and lines of code.

    Heavy and unmaintained libraries have environments of their own, which uv builds when they are
    first measured, or with --build.
    """
    from bench.environments.builder import Builder

    isolated = [name for name in impls.names() if impls.find_declaration(name).own_environment]
    to_build = parse_names(build)
    require_known("entrant with an environment of its own", to_build, [*isolated, "all"])
    builder = Builder(notify=say)
    for name in isolated if "all" in to_build else to_build:
        builder.build_entrant(name)
    rows, problems = [], []
    for name in impls.names():
        try:
            rows.append(Row((name, *describe_entrant(name, builder))))
        except BakeoffError as error:
            rows.append(Row((name, *[""] * (len(COLUMNS) - 1))))
            problems.append(str(error))
    columns = tuple(Column(title, number=title == "code lines") for title in COLUMNS)
    sections = (Section("Entrants", tables=(Table(columns, tuple(rows)),)),)
    publish([Document("Entrants", sections=sections, warnings=tuple(problems))])


def describe_entrant(name: str, builder: Builder) -> tuple[str, ...]:
    """Return an entrant's cells of the table, but for its name.

    One with an environment of its own is not imported: its file and its pins are read.

    Raises:
        BakeoffError: it cannot be loaded.
    """
    from bench.worker.counts import count_code_lines

    about = impls.read_declaration(name)
    if about.own_environment:
        pins = dict(text.split("==") for text in about.requirements if text.count("==") == 1)
        version, styles = pins.get(about.distribution, ""), impls.list_styles(name)
        built = builder.find_folder(name) is not None
        environment = "own, built" if built else f"{about.installed} to build".lstrip()
    else:
        styles = list(impls.load(name).styles)
        version, environment = metadata.version(about.distribution), "shared"
    lines = count_code_lines(impls.source(name))
    return about.distribution, version, environment, str(lines), ", ".join(styles)
