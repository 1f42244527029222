"""`bakeoff entrants`: who takes part, and what each compiles to."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.errors import BakeoffError, unknown

LISTED = 3
"""Kinds of operations that are named; the others are in `--json`."""

EXAMPLES = """Examples:\n
bakeoff entrants\n
bakeoff entrants --programs --workload seed\n
bakeoff entrants --json"""


def entrants(
    programs: Annotated[
        bool,
        typer.Option("--programs", help="Prove and compile each style."),
    ] = False,
    workload: Annotated[str, typer.Option(help="Sizes for --programs.")] = "seed",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """List entrants, their styles, versions and lines of code."""
    import impls
    from common.config import WORKLOADS

    if workload not in WORKLOADS:
        raise unknown("workload", workload, WORKLOADS)
    rows = [describe(name) for name in impls.names()]
    if programs:
        add_programs(rows, workload)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    console = Console(highlight=False)
    console.print(table(rows))
    if programs:
        console.print(program_table(rows, workload))


def describe(name: str) -> dict[str, Any]:
    """Return what there is to say about an entrant; `problem` if it cannot be loaded."""
    import impls
    from bench.measure.source import code_lines

    spec = find_spec(f"impls.{name}")
    assert spec is not None
    assert spec.origin is not None
    row: dict[str, Any] = {"entrant": name, "code_lines": code_lines(Path(spec.origin))}
    try:
        entrant = impls.load(name)
    except BakeoffError as error:
        return row | {"styles": [], "problem": str(error)}
    version = metadata.version(entrant.distribution)
    return row | {
        "library": entrant.distribution,
        "version": version,
        "styles": list(entrant.styles),
    }


def add_programs(rows: list[dict[str, Any]], workload: str) -> None:
    """Have a worker prove and compile every style, and add the proof or the failure."""
    from bench.measure.process import Worker, WorkerFailedError

    arms = [[row["entrant"], style] for row in rows for style in row["styles"]]
    found = {}
    with Worker() as worker:
        try:
            worker.start()
            session = {"do": "session"}
            worker.ask({**session, "action": "load", "arms": arms, "outside": {}})
            backend = worker.ask({**session, "action": "backends"})["backends"][0]
            for index, (entrant, style) in enumerate(arms):
                note(f"{workload} on {backend}: proving {entrant} {style} equal")
                where = {"workload": workload, "backend": backend, "arm": index}
                record = worker.ask({**session, "action": "prove", **where})
                found[entrant, style] = record.get("proof", record)
        except WorkerFailedError as error:
            raise BakeoffError(f"{error.reason}: {error.stderr or 'nothing on stderr'}") from error
    for row in rows:
        row["programs"] = {style: found[row["entrant"], style] for style in row["styles"]}


def note(line: str) -> None:
    """Say on a terminal what is going on."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of entrants."""
    out = Table("entrant", "library", "version", "styles", box=SIMPLE, padding=(0, 1, 0, 0))
    out.add_column("code lines", justify="right")
    for row in rows:
        what = row.get("problem") or ", ".join(row["styles"])
        cells = row["entrant"], row.get("library", "-"), row.get("version", "-"), what
        out.add_row(*cells, str(row["code_lines"]))
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
        for style, proof in row["programs"].items():
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
