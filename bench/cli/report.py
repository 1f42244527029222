"""`bakeoff report`: the page, and other forms, of runs that were measured."""

from __future__ import annotations

import math
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.documents import format_of, give, rendered, show
from common.errors import BakeoffError, require_folder_to_be, require_new

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.report.charts import Figure
    from bench.runfile.reader import Run

EXAMPLES = """Examples:\n
bakeoff report run.json -o run.html\n
bakeoff report cpu.json gpu.json -o both.html\n
bakeoff report run.json --details\n
bakeoff report run.json --format md\n
bakeoff report run.json --format csv > run.csv\n
bakeoff report run.json --format bencher\n
bakeoff report run.json -o run.html --pictures pictures\n
bakeoff report equinox.jsonl haiku.jsonl -o curves.svg"""


class Format(StrEnum):
    """What a report can be."""

    HTML = "html"
    TEXT = "text"
    MD = "md"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    BENCHER = "bencher"
    GITHUB = "github-action-benchmark"
    ASV = "asv"


BY_ENDING = (Format.HTML, Format.MD, Format.JSON, Format.CSV, Format.PARQUET)
"""Formats that a file's ending asks for; the others are text, or JSON."""
OWN_FILE = (Format.HTML, Format.PARQUET)
"""Formats that do not go to standard output."""


def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN.json",
            help="What `pytest bench --benchmark-json` wrote; the first one is what the page is "
            "about. Or logs of `bakeoff train --log`, for their curves.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A new file.", show_default="the run's name, or standard output"
        ),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="html is one page that works offline; text and md are what `pytest bench` shows; "
            "json, csv and parquet have a row for each cell and metric; the others are the forms "
            "of other trackers.",
            show_default="by the output's ending, else html",
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Print all that a run says, as text.")
    ] = False,
    pictures: Annotated[
        Path | None, typer.Option(help="A folder for the page's charts as SVG and PNG.")
    ] = None,
    limit: Annotated[
        Path | None,
        typer.Option(
            metavar="LIMIT.json",
            help="What `python -m bench.limit --json` printed on the same machine, for the page.",
        ),
    ] = None,
) -> None:
    """Make a page of one or more runs, or a table, from their files alone."""
    if all(path.suffix == ".jsonl" for path in files):
        if format_ or details or pictures or limit:
            raise BakeoffError("of logs of training, their curves alone are drawn: give just -o")
        training(files, output)
        return
    from bench.report.run import document
    from bench.runfile.reader import read

    if details and (output or format_ not in (None, Format.TEXT)):
        raise BakeoffError("--details is for text on the terminal; other forms have all: leave it")
    chosen = format_of(Format.TEXT if details else format_, output, BY_ENDING) or Format.HTML
    if limit is not None and chosen is not Format.HTML:
        raise BakeoffError("--limit is for the page; leave it out, or give --format html")
    if output is None and chosen in OWN_FILE:
        output = Path(f"{files[0].stem}.{chosen}")
        require_new(output, "output")
    if pictures is not None:
        require_folder_to_be(pictures, "--pictures")
    runs = [read(path, samples=i == 0) for i, path in enumerate(files)]
    on_terminal = chosen is Format.TEXT and output is None
    made = "" if on_terminal else written(runs, chosen, limit)
    if pictures is not None:  # first, for they are more likely to go wrong
        from bench.report.charts import figures

        draw(figures(runs[0], runs[1:]), pictures)
    for run in runs if on_terminal else ():
        show(document(run), details=details)
    give(made, output)


def written(runs: list[Run], format_: Format, limit: Path | None) -> str | bytes:
    """Return a report as what a file of its format holds."""
    if format_ is Format.HTML:
        from bench.limit import sentences
        from bench.report.page import page

        return page(runs, sentences(runs[0], limit) if limit is not None else ())
    from bench.compare import export
    from bench.report import rows
    from bench.report.markdown import markdown
    from bench.report.run import document

    forms: dict[Format, Callable[[list[Run]], str | bytes]] = {
        Format.TEXT: lambda runs: "".join(rendered(partial(document, run), "text") for run in runs),
        Format.MD: lambda runs: "\n\n".join(markdown(document(r), most=math.inf) for r in runs),
        Format.JSON: rows.as_json,
        Format.CSV: rows.as_csv,
        Format.PARQUET: export.parquet,
        Format.BENCHER: export.bencher,
        Format.GITHUB: export.github,
        Format.ASV: export.asv,
    }
    return forms[format_](runs)


def draw(found: Sequence[Figure], folder: Path) -> None:
    """Write charts as pictures, each as SVG and PNG."""
    from bench.report.charts import picture

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for figure in found:
            made = picture(figure)
            made.save(str(folder / f"{figure.name}.svg"))
            made.save(str(folder / f"{figure.name}.png"), ppi=144)
            print(folder / f"{figure.name}.svg", file=sys.stderr)
    except OSError as error:
        raise BakeoffError(f"--pictures {folder}: {error.strerror}; name another one") from error


def training(logs: list[Path], output: Path | None) -> None:
    """Draw the loss curves of training logs, or print them as a table."""
    from bench.report import curves

    if output is not None:
        curves.check_picture(output)
        require_new(output, "output")
    read = [curves.read(path) for path in logs]
    if output is not None:
        curves.draw(read, output)
    print(output or curves.table(read))
