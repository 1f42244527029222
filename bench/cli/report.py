"""`bakeoff report`: the page, and other forms, of what was measured, from its files alone."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.documents import format_of, give, rendered, show
from common.errors import BakeoffError, require_folder_to_be, require_new

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.table import Document
    from bench.runfile.reader import Run

EXAMPLES = """Examples:\n
bakeoff report run.json -o run.html\n
bakeoff report cpu.json gpu.json -o both.html\n
bakeoff report run.json --details\n
bakeoff report ab.json --format md\n
bakeoff report run.json --format csv > run.csv\n
bakeoff report run.json -o run.html --pictures pictures"""


class Format(StrEnum):
    """What a report can be."""

    HTML = "html"
    TEXT = "text"
    MD = "md"
    CSV = "csv"
    JSON = "json"


def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.json",
            help="What `pytest bench --benchmark-json`, or `-o` of ab, bisect or history, wrote.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A new file.",
            show_default="the first file's name with .html, or standard output",
        ),
    ] = None,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="html is one page that works offline; text and md are what commands show; csv and "
            "json have a row for each estimate.",
            show_default="by the output's ending, else html",
        ),
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Print all that the files say, as text.")
    ] = False,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A folder for the charts as SVG and PNG."),
    ] = None,
) -> None:
    """Make a page of runs, A/Bs, bisections or histories, or a table, from their files alone."""
    from bench.runfile.reader import read

    if details and (output or format_ not in (None, Format.TEXT)):
        raise BakeoffError(
            "--details is for text on the terminal; other forms have everything: leave it out"
        )
    if output is None and format_ is None and not details:
        format_ = Format.HTML
    chosen = format_of(Format.TEXT if details else format_, output, Format) or Format.HTML
    if output is None and chosen is Format.HTML:
        output = Path(f"{files[0].stem}.html")
        require_new(output, "output")
    if pictures is not None:
        require_folder_to_be(pictures, "--pictures")
    runs = [read(path, samples=False) for path in files]
    of_numbers = chosen in (Format.CSV, Format.JSON) and pictures is None
    documents = [] if of_numbers else [document_of(run) for run in runs]
    if pictures is not None:
        draw(runs, documents, pictures)
    if chosen is Format.TEXT and output is None:
        for document in documents:
            show(document, details=details)
    else:
        give(written(runs, documents, chosen), output)


def document_of(run: Run) -> Document:
    """Return a file as a document of the command that wrote it."""
    match run.results.kind:
        case "run":
            from bench.report.run import document

            return document(run)
        case "ab":
            from bench.track import ab

            return ab.document(run.results)
        case "bisect":
            from bench.track import bisect

            return bisect.document(run.results)
        case "history":
            from bench.track import history

            return history.document(run.results)


def draw(runs: Sequence[Run], documents: Sequence[Document], folder: Path) -> None:
    """Write the charts of documents as pictures; of several files, with the file's name before."""
    from bench.report.charts import save

    for run, document in zip(runs, documents, strict=True):
        several = f"{run.name}-" if len(runs) > 1 else ""
        figures = [figure for section in document.sections for figure in section.figures]
        save([replace(f, name=f"{several}{f.name}") for f in figures], folder)


def written(runs: Sequence[Run], documents: Sequence[Document], format_: Format) -> str:
    """Return a report as the content of a file."""
    if format_ is Format.HTML:
        from bench.report.page import page

        return page(*documents)
    if format_ in (Format.CSV, Format.JSON):
        from bench.report.csv import csv_text, json_text, run_rows

        return (csv_text if format_ is Format.CSV else json_text)(run_rows(runs))
    return "\n".join(rendered(document, format_, comment=False) for document in documents)
