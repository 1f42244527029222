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

from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from bench.environments.builder import Builder

LISTED = 3
"""Kinds of operations that are named; the others are in `--json`."""

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
    from bench.details import details
    from bench.environments.builder import Builder
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


def describe(name: str, builder: Builder) -> dict[str, Any]:
    """Return what there is to say about an entrant; `problem` if it cannot be loaded.

    One with an environment of its own is asked there, if it has been built.
    """
    import impls
    from bench.worker.source import code_lines

    try:
        about = impls.declared(name)
        lines = code_lines(impls.source(name))
    except BakeoffError as error:
        return {
            "entrant": name,
            "library": "-",
            "styles": [],
            "code_lines": "-",
            "environment": "everybody's",
            "ready": False,
            "problem": str(error),
        }
    row: dict[str, Any] = {
        "entrant": name,
        "code_lines": lines,
        "library": about.distribution,
        "jax": about.jax,
        "note": about.note,
        "environment": "everybody's",
        "ready": True,
    }
    if about.own_environment:
        return row | apart(name, builder)
    try:
        entrant = impls.load(name)
    except BakeoffError as error:
        return row | {"styles": [], "problem": str(error)}
    version = metadata.version(entrant.distribution)
    return row | {"version": version, "styles": list(entrant.styles)}


def apart(name: str, builder: Builder) -> dict[str, Any]:
    """Return what there is to say about an entrant with an environment of its own."""
    import impls
    from bench.details import styles_of

    about = impls.declared(name)
    pins = dict(text.split("==") for text in about.requirements if text.count("==") == 1)
    row: dict[str, Any] = {
        "environment": "its own",
        "requirements": list(about.requirements),
        "styles": [],
        "ready": False,
    }
    try:
        row |= {
            "ready": builder.folder_of(name) is not None,
            "size": about.installed or None,
            "version": pins.get(about.distribution),
            "styles": styles_of(name),
        }
    except BakeoffError as error:
        row["problem"] = str(error)
    return row


def add_programs(rows: list[dict[str, Any]], workload: str, backend: str | None) -> None:
    """Have a worker prove and compile every style, and add the proof or the failure."""
    from bench.cells import BASELINE
    from bench.engine.processes import Worker, WorkerFailedError
    from common.devices import Device

    rows = [row for row in rows if row["environment"] == "everybody's"]
    arms = [[row["entrant"], style] for row in rows for style in row["styles"]]
    found = {}
    with Worker() as worker:
        try:
            worker.start()
            there = worker.ask({"do": "describe", "entrants": [BASELINE[0]], "outside": {}})
            backend = backend or there["backends"][0]
            if Device.of(backend).backend not in there["backends"]:
                raise unknown("backend", backend, there["backends"])
            load: dict[str, Any] = {"arms": arms, "outside": {}, "cache": None, "seed": 0}
            failures = worker.ask({"do": "load", **load})["failures"]
            for entrant, style in arms:
                note(f"{workload} on {backend}: proving {entrant} {style} equal")
                arm = f"{entrant}/{style}"
                where = {"workload": workload, "backend": backend, "arm": arm}
                record = {"failure": failures[arm], "stderr": ""} if arm in failures else None
                record = record or worker.ask({"do": "prove", **where})
                found[entrant, style] = record.get("proof", record)
        except WorkerFailedError as error:
            raise BakeoffError(f"{error.reason}: {error.stderr or 'nothing on stderr'}") from error
    for row in rows:
        row["programs"] = {style: found[row["entrant"], style] for style in row["styles"]}


def named(given: list[str] | None) -> list[str]:
    """Return entrants by their names, `all` being those with environments of their own."""
    import impls

    apart = [name for name in impls.names() if impls.readable(name).own_environment]
    if given and "all" in given:
        return apart
    for name in given or ():
        if not impls.declared(name).own_environment:
            raise BakeoffError(
                f"entrant {name!r} has no environment of its own; those that have: "
                f"{', '.join(apart)}; choose one of them"
            )
    return given or []


def note(line: str) -> None:
    """Say on a terminal what is going on."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of entrants."""
    out = Table("entrant", "library", "version", "styles", box=SIMPLE, padding=(0, 1, 0, 0))
    out.add_column("environment")
    out.add_column("code lines", justify="right")
    for row in rows:
        what = row.get("problem") or ", ".join(row["styles"]) or "-"
        cells = row["entrant"], row["library"], row.get("version") or "-", what, where(row)
        out.add_row(*cells, str(row["code_lines"]))
    return out


def where(row: dict[str, Any]) -> str:
    """Return where an entrant runs, whether that is there, and how large it is."""
    size = f", {row['size']}" if row.get("size") else ""
    if row["environment"] == "everybody's":
        return "everybody's"
    return f"its own{size}" if row["ready"] else f"would be built{size}"


def details_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of lines of code by style, of installations and of releases."""
    dates = {found["as_of"] for row in rows if (found := row["details"]["releases"])}
    caption = (
        "core: what `build` and the style pure need. A style's lines are those it adds to the "
        "core; styles that share lines count them each. Comments and docstrings are not counted.\n"
        "install: size on disk without jax, optax, numpy and their requirements.\n"
        f"releases: in the year before {', '.join(sorted(dates))}. "
        "docs/libraries.md lists libraries that no longer run."
    )
    out = Table("entrant", "code lines", box=SIMPLE, padding=(0, 1, 0, 0), caption=caption)
    out.caption_justify = "left"
    for name in ("install", "packages", "releases"):
        out.add_column(name, justify="right")
    out.add_column("latest release")
    for row in rows:
        lines, install, releases = (row["details"][k] for k in ("lines", "install", "releases"))
        counts = size = packages = in_a_year = latest = "-"
        if lines:
            counts = "\n".join(f"{part} {count}" for part, count in lines.items())
        if install:
            size, packages = decimal(install["bytes"]), str(len(install["packages"]))
        if releases:
            in_a_year = str(releases["releases_in_a_year"])
            latest = f"{releases['latest']} on {releases['latest_on']}"
        out.add_row(row["entrant"], counts, size, packages, in_a_year, latest)
    return out


def program_table(rows: list[dict[str, Any]], workload: str) -> Table:
    """Return the table of what each style compiles to."""
    title = f"compiled programs at workload {workload}"
    out = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), title_justify="left")
    out.add_column("entrant", no_wrap=True)
    out.add_column("style", no_wrap=True)
    for name in ("jaxpr\neqs", "HLO\ninstr", "flops", "temp\nbytes"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("finger-\nprint", no_wrap=True)
    out.add_column("beside\npure_jax")
    for row in rows:
        for style, proof in row.get("programs", {}).items():
            if proof.get("program", proof) is None:
                out.add_row(row["entrant"], style, *["-"] * 5, "not JAX")
                continue
            if "failure" in proof:
                out.add_row(row["entrant"], style, *[""] * 5, Text(proof["failure"], style="red"))
                continue
            found = proof["program"]
            out.add_row(
                row["entrant"],
                style,
                str(found["jaxpr_equations"]),
                str(sum(found["hlo_instructions"].values())),
                f"{found['flops']:.0f}",
                str(found["temp_bytes"]),
                found["fingerprint"][:6],
                beside(proof),
            )
    return out


def beside(proof: dict[str, Any]) -> str:
    """Return in words how a program differs from the baseline's."""
    if proof["same_program_as_baseline"]:
        return "the same"
    if not proof["program"]["whole"]:
        return "gradient alone"
    counts = proof["operations_beside_baseline"]
    if not counts:
        return "other wiring"
    if len(counts) > LISTED:
        return f"{sum(counts.values()):+d} operations"
    return ", ".join(f"{n:+d} {kind.removeprefix('stablehlo.')}" for kind, n in counts.items())
