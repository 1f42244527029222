"""`bakeoff compare`: what became slower or faster between runs, and whether a gate is passed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.documents import format_of, give, rendered, show
from bench.cli.turns import names
from common.errors import BakeoffError

if TYPE_CHECKING:
    from bench.compare.comparison import Comparison

EXAMPLES = """Examples:\n
bakeoff compare before.json after.json\n
bakeoff compare before.json after.json --allow flax\n
bakeoff compare monday.json tuesday.json wednesday.json new.json\n
bakeoff compare before.json after.json --format md -o comment.md\n
bakeoff compare before.json after.json --config gate.toml --format json"""
FORMATS = ("text", "md", "json", "html")
Config = Annotated[
    Path | None,
    typer.Option(
        help=r"A TOML file with the gate, \[tool.bakeoff.gate].",
        show_default="pyproject.toml, if there is one",
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="A new file.", show_default="standard output")
]
Form = Annotated[
    Literal["text", "md", "json", "html"] | None,
    typer.Option(
        "--format",
        help="text for a terminal, md for a pull request, html for a page, json for programs.",
        show_default="by the output's ending, else text",
    ),
]


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASE.json... NEW.json",
            help="What `pytest bench --benchmark-json` wrote. The last one is new; several base "
            "runs of the same code show how much runs differ anyway.",
        ),
    ],
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="What may differ beside the code: machine, devices, python, flags, measuring, "
            "workload, or a package (jax, jaxlib, flax, …); with commas, or all.",
            show_default="nothing",
        ),
    ] = None,
    config: Config = None,
    output: Output = None,
    format_: Form = None,
) -> int:
    """Compare runs of different hours: each cell's ratio to plain JAX in its own run.

    Exit status: 0 nothing is worse; 1 something is: a row is slower by more than its threshold (the
    margin, 2 %, unless the gate says otherwise), an exact number is higher, or a cell fails that
    did not; 2 cannot say: the runs are not comparable, or no time could be settled (shown to
    differ, or to be within its threshold). An inconclusive row does not fail, and one settled row
    is enough to pass: the summary says how many of each there are.
    """
    from bench.compare.compare import compare as compare_runs
    from bench.compare.gate import read_gate
    from bench.runfile.reader import read

    chosen = format_of(format_, output, FORMATS)
    if len(files) < 2:
        raise BakeoffError(f"one run is given, {files[0]}; give two: BASE.json NEW.json")
    *bases, new = [read(path) for path in files]
    entrants = [cell.entrant for run in (*bases, new) for cell in run.section.cells]
    found = compare_runs(bases, new, read_gate(config, entrants), names(allow))
    return finish(found, chosen, output)


def finish(found: Comparison, format_: str | None, output: Path | None) -> int:
    """Write a comparison to a new file or to standard output; return the exit status."""
    from bench.compare.comparison_document import document

    if output is None and format_ in (None, "text"):
        made = document(found)
        show(replace(made, sections=tuple(replace(each, folded=False) for each in made.sections)))
    else:
        give(written(found, format_ or "text"), output)
    return int(found.status)


def written(found: Comparison, format_: str) -> str:
    """Return a comparison as the content of a file."""
    from bench.compare.comparison import comparison_data
    from bench.compare.comparison_document import MARKER, document, headline
    from bench.compare.export import json_text

    if format_ == "json":
        return json_text(comparison_data(found, headline(found)))
    return rendered(partial(document, found), format_, MARKER)
