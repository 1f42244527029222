"""`make results`: pages and the table of the README, made anew from the published files.

Each folder of `results/` that holds run files is a machine: it gets a page of them, the newest
first. README.md has the answer, between `<!-- answer FILE: STYLES -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.cli.report import make_document
from bench.report.markdown import table_lines
from bench.report.page import page
from bench.report.run import describe_origin, explain_marks
from bench.report.summary import list_views, make_table
from bench.report.table import Table
from bench.runfile.reader import NotARunError, Run, read
from bench.worker.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FOLDER = ROOT / "results"
README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- answer (\S+\.json): ([^>]*) -->\n).*?(<!-- end -->)", re.DOTALL)


def folders() -> Iterator[tuple[Path, list[Run]]]:
    """Yield each folder that holds run files, with these, the newest first."""
    for folder in sorted(path for path in FOLDER.iterdir() if path.is_dir()):
        runs = []
        for path in sorted(folder.glob("*.json")):
            try:
                runs.append(read(path, samples=False))
            except NotARunError:
                continue
        if runs:
            yield folder, sorted(runs, key=lambda run: run.when, reverse=True)


def insert_answer(text: str) -> str:
    """Return a Markdown text with the answer of the run that it names made anew."""

    def make_answer(match: re.Match[str]) -> str:
        lines = "\n".join(answer(read(ROOT / match[2], samples=False), match[3].split()))
        return f"{match[1]}\n{lines}\n\n{match[4]}"

    return MARKED.sub(make_answer, text)


def answer(run: Run, styles: Sequence[str]) -> Iterator[str]:
    """Yield the rows of some styles in a run's table of steps and calls, and where it was made."""
    table = make_table(list_views(run.results)[0])
    kept = [
        i for i, c in enumerate(table.columns) if c.title.startswith(("style", "step", "added"))
    ]
    rows = (
        replace(row, cells=tuple(row.cells[i] for i in kept))
        for row in table.rows
        if row.cells[0] in styles
    )
    yield from table_lines(Table(tuple(table.columns[i] for i in kept), tuple(rows)))
    yield f"\n{describe_origin(run)}. {' '.join(explain_marks(run.results))}"


def results() -> None:
    """Make pages and the table anew."""
    for folder, runs in folders():
        (folder / "page.html").write_text(page(*map(make_document, runs)), encoding="utf-8")
        print(folder / "page.html")
    README.write_text(insert_answer(README.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    results()
