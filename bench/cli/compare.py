"""`bakeoff compare`: what became slower or faster between runs, and whether a gate is passed."""

from __future__ import annotations

import gc
import io
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import BakeoffError, require_new
from common.files import read_regular

if TYPE_CHECKING:
    from bench.compare.comparison import Comparison
    from bench.compare.gate import Gate
    from bench.report.runs import Run

CONFIG = "pyproject.toml"
MOST_BYTES = 1 << 30
"""Of a file that may be a comparison."""
WIDTH = 100
"""Of a text that is written to a file."""
EXAMPLES = """Examples:\n
bakeoff compare before.json after.json\n
bakeoff compare before.json after.json --allow flax\n
bakeoff compare monday.json tuesday.json wednesday.json new.json\n
bakeoff compare before.json after.json --format md -o comment.md\n
bakeoff compare before.json after.json --config gate.toml --format json"""


class Format(StrEnum):
    """What a comparison can be written as."""

    TEXT = "text"
    MD = "md"
    JSON = "json"
    HTML = "html"


ENDINGS = {
    ".txt": Format.TEXT,
    ".md": Format.MD,
    ".markdown": Format.MD,
    ".json": Format.JSON,
    ".html": Format.HTML,
    ".htm": Format.HTML,
}


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASE.json... NEW.json",
            help="What `pytest bench --benchmark-json` wrote. The last one is new; of several base "
            "runs of the same code is learned how much runs differ anyway.",
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
    config: Annotated[
        Path | None,
        typer.Option(
            help=r"A TOML file with the gate, \[tool.bakeoff.gate].",
            show_default=f"{CONFIG}, if there is one",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file.", show_default="standard output"),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="text for a terminal, md for a pull request, html for a page, json for programs.",
            show_default="by the output's ending, else text",
        ),
    ] = None,
) -> int:
    """Compare runs of different hours: each cell's ratio to plain JAX in its own run.

    Exit status: 0 nothing is worse; 1 something is: a row is slower by more than its threshold (the
    margin, 2 %, unless the gate says otherwise), an exact number is higher, or a cell fails that
    did not; 2 cannot say: the runs are not comparable, or none of their times could be settled
    (told to differ, or surely to be within what is allowed). A row that is not told apart does not
    fail, and one that is settled is enough to pass: the summary says how many of each there are.
    """
    chosen = format_ or by_ending(output)
    if output is not None:
        require_new(output, "output")
    if len(files) < 2:
        raise BakeoffError(f"one run is given, {files[0]}; give two: BASE.json NEW.json")
    gc.disable()  # a run is many small lists and no cycle
    try:
        found = compared(files, split(allow), config)
        text = written(found, chosen, terminal=output is None)
    finally:
        gc.enable()
    if output is not None:
        from bench.cli.report import put

        put(output, text)
        print(output)
    elif text:
        sys.stdout.write(text)
    return int(found.status)


def split(allow: list[str] | None) -> list[str]:
    """Return the names of `--allow`, which may be given more than once, and with commas."""
    return [name.strip() for given in allow or () for name in given.split(",") if name.strip()]


def by_ending(output: Path | None) -> Format:
    """Return the format that a file's name asks for."""
    if output is None:
        return Format.TEXT
    if output.suffix.lower() not in ENDINGS:
        raise BakeoffError(
            f"output {output} ends in {output.suffix or 'nothing'}; {', '.join(ENDINGS)} are "
            "known: name it so, or give --format"
        )
    return ENDINGS[output.suffix.lower()]


def compared(files: list[Path], allow: list[str], config: Path | None) -> Comparison:
    """Return the comparison of run files."""
    from bench.compare.compare import compare as of_runs

    *bases, new = [read(path) for path in files]
    return of_runs(bases, new, gate([*bases, new], config), allow)


def read(path: Path) -> Run:
    """Return a run; a comparison is none, and is told so."""
    from bench.compare.as_json import KIND
    from bench.report.runs import read as run

    try:
        return run(path)
    except BakeoffError as error:
        try:
            found = json.loads(read_regular(path, MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            raise error from None
        if isinstance(found, dict) and found.get("kind") == KIND:
            raise BakeoffError(
                f"{path} is a comparison that was made already, and no run; give the runs that "
                "`pytest bench --benchmark-json` wrote"
            ) from error
        raise


def gate(runs: list[Run], config: Path | None) -> Gate:
    """Return the gate of a file, or the usual one."""
    from bench.compare import gatefile

    entrants = dict.fromkeys(cell["entrant"] for run in runs for cell in run.section["cells"])
    return gatefile.read(config or Path(CONFIG), entrants, needed=config is not None)


def written(found: Comparison, format_: Format, *, terminal: bool) -> str:
    """Return a comparison as text; nothing where it has been printed."""
    match format_:
        case Format.MD:
            from bench.compare.markdown import markdown

            return markdown(found)
        case Format.JSON:
            from bench.compare.as_json import as_json

            return as_json(found)
        case Format.HTML:
            from bench.compare.pages.comparison_page import page

            return page(found)
        case Format.TEXT:
            return printed(found, terminal=terminal)


def printed(found: Comparison, *, terminal: bool) -> str:
    """Print a comparison to the terminal, or return it as it is printed."""
    from rich.console import Console

    from bench.compare.terminal import parts

    file = None if terminal else io.StringIO()
    console = Console(highlight=False, file=file, width=None if terminal else WIDTH)
    for part in parts(found):
        console.print(part)
    return file.getvalue() if file else ""
