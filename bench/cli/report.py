"""`bakeoff report`: a page of results, or another form, from their files alone."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path  # noqa: TC003 -- Typer reads the types
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from bench.cells import Cell
from bench.cli.output import Output, publish
from bench.cli.parameters import Details  # noqa: TC001 -- Typer reads the types
from bench.estimates import Estimate
from bench.report.documents import make_documents
from bench.runfile.reader import read
from bench.wording import make_printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.runfile.reader import Run

EXAMPLES = """\
bakeoff report run.json
bakeoff report run.json -o run.html
bakeoff report cpu.json gpu.json -o both.html
bakeoff report past.json step.json -o past.html
bakeoff report run.json --details
bakeoff report ab.json --format md
bakeoff report run.json --format csv > run.csv"""

FORMATS = ("html", "text", "md", "csv")
FIELDS = tuple(name for name in Estimate.__struct_fields__ if name != "cell")
COLUMNS = ("run", "when", *Cell._fields, *FIELDS, "missing")
"""Columns of the CSV: the fields of an estimate's cell, and its other fields. `missing` says why
there is no number."""
FORMULA = tuple("=+-@\t\r")
"""Beginnings of a text that a spreadsheet would compute."""


def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.json",
            help="Files that `pytest bench --benchmark-json`, or `-o` of cost, ab, bisect or "
            "history wrote. Files of bisect name the releases behind a history's changes.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A new file, or an earlier page to replace.",
            show_default="standard output",
        ),
    ] = None,
    format_: Annotated[
        Literal["html", "text", "md", "csv"] | None,
        typer.Option(
            "--format",
            help="html: one page that works offline; text: the answer, with --details all "
            "tables; md: everything; csv: a row for each estimate.",
            show_default="by the output's ending, else text",
        ),
    ] = None,
    details: Details = False,
) -> None:
    """Show the results in files of any command, or make a page of them; measure nothing."""
    shown = Output.choose(format_, output, details=details, forms=FORMATS, anew=True)
    runs = [read(path, samples=False) for path in files]
    if shown.form == "csv":
        shown.write(make_csv(runs))
        return
    documents = make_documents(runs)
    if shown.file is not None:
        for document in documents:
            print(make_printable(document.headline), file=sys.stderr)
    publish(documents, shown)


def make_csv(runs: Iterable[Run]) -> str:
    """Return runs as CSV: their estimates, then failed and missing numbers with the reasons.

    An unknown field is empty.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        rows = [msgspec.structs.asdict(row) | row.cell._asdict() for row in run.results.estimates]
        for result in run.results.cells:
            where = {"environment": result.environment} | result.cell._asdict()
            if result.failure is not None:
                rows.append(where | {"missing": f"failed: {result.failure}"})
            rows += [where | {"metric": n, "missing": why} for n, why in result.missing.items()]
        for row in rows:
            about = {"run": run.name, "when": run.when} | row
            writer.writerow({name: _make_safe(value) for name, value in about.items()})
    return file.getvalue()


def _make_safe(value: Any) -> Any:
    """Return a value that a spreadsheet shows and does not compute."""
    if not isinstance(value, str):
        return value
    text = make_printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text
