"""`bakeoff entrants`: who takes part, what each costs besides time, and what it compiles to."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from bench.report.wording import operations
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from bench.environments.builder import Builder

    type Row = dict[str, Any]

EXAMPLES = """Examples:\n
bakeoff entrants\n
bakeoff entrants --details\n
bakeoff entrants --programs --workload seed\n
bakeoff entrants --build keras --build penzai\n
bakeoff entrants --json"""


def entrants(
    show_details: Annotated[
        bool,
        typer.Option("--details", help="Lines of each style, install size, release cadence."),
    ] = False,
    programs: Annotated[
        bool,
        typer.Option("--programs", help="Prove and compile each style."),
    ] = False,
    workload: Annotated[str, typer.Option(help="Sizes for --programs.")] = "seed",
    backend: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of --programs.", show_default="the first there is"),
    ] = None,
    build: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Build this entrant's own environment; all for all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List entrants, their styles, versions, environments and lines of code.

    Heavy and old libraries have environments of their own, which uv builds when they are first
    measured, or with --build.
    """
    import impls
    from bench.environments.builder import Builder
    from bench.library_details import details
    from common.config import WORKLOADS

    if workload not in WORKLOADS:
        raise unknown("workload", workload, WORKLOADS)
    builder = Builder(notify=note)
    for name in named(build):
        builder.place_of(name)
    rows = [describe(name, builder) for name in impls.names()]
    if show_details:
        for row in rows:
            row["details"] = details(row["entrant"], builder)
    if programs:
        add_programs(rows, workload, backend)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    console = Console(highlight=False)
    console.print(table(rows))
    if show_details:
        console.print(details_table(rows))
        for problem in [text for row in rows for text in row["details"]["problems"]]:
            console.print(Text(problem))
    if programs:
        console.print(program_table(rows, workload))


def describe(name: str, builder: Builder) -> Row:
    """Return what there is to say about an entrant; `problem` if it cannot be loaded.

    One with an environment of its own is asked there, if it has been built.
    """
    import impls
    from bench.library_details import styles_of
    from bench.worker.source import code_lines

    row: Row = {"entrant": name, "library": "-", "styles": [], "code_lines": "-"}
    row |= {"environment": "everybody's", "ready": True}
    try:
        about = impls.declared(name)
        row |= {"library": about.distribution, "jax": about.jax, "note": about.note}
        row["code_lines"] = code_lines(impls.source(name))
        if not about.own_environment:
            styles = list(impls.load(name).styles)
            return row | {"version": metadata.version(about.distribution), "styles": styles}
        row |= {"environment": "its own", "requirements": list(about.requirements), "ready": False}
        row["size"] = about.installed or None
        row["styles"] = styles_of(name)
        pins = dict(text.split("==") for text in about.requirements if text.count("==") == 1)
        row["version"] = pins.get(about.distribution)
        row["ready"] = builder.folder_of(name) is not None
    except BakeoffError as error:
        row |= {"problem": str(error), "ready": False}
    return row


def add_programs(rows: list[Row], workload: str, backend: str | None) -> None:
    """Have a worker prove and compile every style, and add the proof or the failure."""
    from bench.cells import BASELINE
    from bench.engine.processes import Worker, WorkerFailedError
    from common.devices import Device

    rows = [row for row in rows if row["environment"] == "everybody's"]
    for row in rows:
        row["programs"] = {}
    arms = [[row["entrant"], style] for row in rows for style in row["styles"]]
    try:
        with Worker() as worker:
            worker.start()
            there = worker.ask({"do": "describe", "entrants": [BASELINE[0]], "outside": {}})
            backend = backend or there["backends"][0]
            if Device.of(backend).backend not in there["backends"]:
                raise unknown("backend", backend, there["backends"])
            load: Row = {"arms": arms, "outside": {}, "cache": None, "seed": 0}
            failures = worker.ask({"do": "load", **load})["failures"]
            for row in rows:
                for style in row["styles"]:
                    arm = f"{row['entrant']}/{style}"
                    note(f"{workload} on {backend}: proving {arm} equal")
                    found = {"failure": failures[arm], "stderr": ""} if arm in failures else None
                    where = {"workload": workload, "backend": backend, "arm": arm}
                    found = found or worker.ask({"do": "prove", **where})
                    row["programs"][style] = found.get("proof", found)
    except WorkerFailedError as error:
        raise BakeoffError(f"{error.reason}: {error.stderr or 'nothing on stderr'}") from error


def named(given: list[str] | None) -> list[str]:
    """Return entrants by their names, `all` being those with environments of their own."""
    import impls

    own = [name for name in impls.names() if impls.readable(name).own_environment]
    if given and "all" in given:
        return own
    for name in given or ():
        if not impls.declared(name).own_environment:
            raise BakeoffError(
                f"entrant {name!r} has no environment of its own; those that have: "
                f"{', '.join(own)}; choose one of them"
            )
    return given or []


def note(line: str) -> None:
    """Say on a terminal what is going on."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def plain_table(*left: str, right: tuple[str, ...] = (), **settings: Any) -> Table:
    """Return an empty table: columns aligned to the left, then those aligned to the right."""
    out = Table(box=SIMPLE, padding=(0, 1, 0, 0), title_justify="left", **settings)
    for name in left:
        out.add_column(name, overflow="fold")
    for name in right:
        out.add_column(name, justify="right", no_wrap=True)
    return out


def table(rows: list[Row]) -> Table:
    """Return the table of entrants."""
    out = plain_table(
        *("entrant", "library", "version", "styles", "environment"), right=("code\nlines",)
    )
    for row in rows:
        where = row["environment"]
        if where != "everybody's":
            where = where if row["ready"] else "would be built"
            where += f", {row['size']}" if row.get("size") else ""
        styles = row.get("problem") or ", ".join(row["styles"]) or "-"
        version = row.get("version") or "-"
        lines = str(row["code_lines"])
        out.add_row(row["entrant"], row["library"], version, Text(styles), where, lines)
    return out


def details_table(rows: list[Row]) -> Table:
    """Return the table of lines of code by style, of installations and of releases."""
    dates = {found["as_of"] for row in rows if (found := row["details"]["releases"])}
    caption = (
        "core: what `build` and the style pure need. A style's lines are those it adds to the "
        "core; styles that share lines count them each. Comments and docstrings are not counted.\n"
        "install: size on disk without jax, optax, numpy and their requirements.\n"
        f"releases: in the year before {', '.join(sorted(dates))}. "
        "docs/libraries.md lists libraries that no longer run."
    )
    out = plain_table("entrant", "code lines", "latest release", caption=caption)
    out.caption_justify = "left"
    for name in ("install", "packages", "releases"):
        out.add_column(name, justify="right")
    for row in rows:
        lines, install, releases = (row["details"][k] for k in ("lines", "install", "releases"))
        counts = "\n".join(f"{part} {count}" for part, count in (lines or {}).items()) or "-"
        latest = f"{releases['latest']} on {releases['latest_on']}" if releases else "-"
        size = decimal(install["bytes"]) if install else "-"
        packages = str(len(install["packages"])) if install else "-"
        in_a_year = str(releases["releases_in_a_year"]) if releases else "-"
        out.add_row(row["entrant"], counts, latest, size, packages, in_a_year)
    return out


def program_table(rows: list[Row], workload: str) -> Table:
    """Return the table of what each style compiles to."""
    out = plain_table(
        *("entrant", "style", "finger-\nprint", "against\npure_jax"),
        right=("jaxpr\neqs", "HLO\ninstr", "flops", "temp\nbytes"),
        title=f"compiled programs at workload {workload}",
    )
    for column in out.columns[:3]:
        column.no_wrap = True
    for row in rows:
        for style, proof in row.get("programs", {}).items():
            program = proof.get("program")
            if program is None:
                failure = proof.get("failure", "not JAX")
                out.add_row(row["entrant"], style, "-", Text(failure))
                continue
            instructions = sum(program["hlo_instructions"].values())
            out.add_row(
                *(row["entrant"], style, program["fingerprint"][:6], difference(proof)),
                *(str(program["jaxpr_equations"]), str(instructions)),
                *(f"{program['flops']:.0f}", str(program["temp_bytes"])),
            )
    return out


def difference(proof: Row) -> str:
    """Return in words how a program differs from the baseline's."""
    if proof["same_program_as_baseline"]:
        return "the same"
    if not proof["program"]["whole"]:
        return "gradient alone"
    return operations(proof["operations_beside_baseline"])
