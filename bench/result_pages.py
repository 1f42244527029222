"""`make results`: pages, pictures and tables, made anew from the committed runs.

A folder of `results/` is a machine. Its page shows its newest whole run first, then the others.
Histories and bisections are in folders below `results/tracking/`. Tables stand in Markdown files
between `<!-- KIND RUN.json … -->` and `<!-- end -->`, where `KIND` is one of `MAKE`.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from bench import limit, tricks
from bench.compare import bisect_result, history_result
from bench.cost import advice, hidden
from bench.cost import document as costs
from bench.cost.table import read_table
from bench.report import answer, donation, scaling
from bench.report.charts import figures
from bench.report.markdown import markdown_table
from bench.report.page import page
from bench.report.page.parts import document_page
from bench.runfile.reader import Run, read
from bench.worker.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bench.report.charts import Figure
    from bench.report.table import Document, Table

FOLDER = ROOT / "results"
PAGE = "page.html"
PICTURES = "pictures"
HISTORY = "history.json"
TUNED = FOLDER / "tuned"
LIMIT = "limit.json"
"""Of a machine, below `TUNED`: what `python -m bench.limit --json` printed."""
COST, DONATION = FOLDER / "cost", FOLDER / "donation"
TEXTS = (ROOT / "README.md", *(f / "README.md" for f in (FOLDER, TUNED, COST, DONATION)))
TABLE = re.compile(
    r"(<!-- (?P<what>\w+) (?P<runs>\S+\.json(?: \S+\.json)*) -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def machines() -> Iterator[tuple[Path, list[Run]]]:
    """Yield the folders that hold runs, each with its runs, the one that its page is about first.

    That is the newest of those with most metrics: a whole run, and a sweep beside it.
    """
    for folder in sorted(FOLDER.iterdir()):
        if runs := [read(path) for path in sorted(folder.glob("*.json"))]:
            yield folder, sorted(runs, key=breadth_and_time, reverse=True)


def limits(folder: Path, runs: list[Run]) -> list[str]:
    """Return what is known of how fast a machine could be, beside its first run."""
    path = TUNED / folder.name / LIMIT
    return limit.sentences(runs[0], path) if path.exists() else []


def documents() -> Iterator[tuple[Path, Document]]:
    """Yield where the page of each history and bisection is, and what it shows."""
    for path in sorted(FOLDER.glob(f"*/*/{HISTORY}")):
        yield path.with_name(PAGE), history_result.document(history_result.read(path), figures=True)
    for path in sorted(FOLDER.glob("*/*/bisect-*.json")):
        found = msgspec.json.decode(path.read_bytes(), type=bisect_result.BisectResult)
        yield path.with_suffix(".html"), bisect_result.document(found, figures=True)


def pages() -> Iterator[tuple[Path, str]]:
    """Yield all pages."""
    for folder, runs in machines():
        yield folder / PAGE, page(runs, limits(folder, runs))
    for path, document in documents():
        yield path, document_page(document)
    table = read_table()
    yield COST / PAGE, costs.page(table, costs.Asked(100, 0.010), table.styles)


def pictures() -> Iterator[tuple[Path, list[Figure]]]:
    """Yield folders of pictures: charts of runs, and those of histories that show a change."""
    for folder, runs in machines():
        yield folder / PICTURES, figures(runs[0], runs[1:])
    for path, document in documents():
        if path.name == PAGE:
            changes = history_result.read(path.with_name(HISTORY)).changes
            where = {f"{change.metric}-{change.workload}" for change in changes}
            charts = [figure for section in document.sections for figure in section.figures]
            yield path.parent / PICTURES, [chart for chart in charts if chart.name in where]


def breadth_and_time(run: Run) -> tuple[int, str]:
    """Return how many metrics a run has, and when it was made."""
    return len({metric for cell in run.section.cells for metric in cell.metrics}), run.when


def refreshed(text: str) -> str:
    """Return a Markdown text with its tables made anew."""

    def anew(match: re.Match[str]) -> str:
        made = MAKE[match["what"]](*(ROOT / path for path in match["runs"].split()))
        return f"{match[1]}\n{made}\n\n{match['end']}"

    return TABLE.sub(anew, text)


def rendered(*tables: Table) -> str:
    """Return tables in Markdown, each below its title if it has one."""
    return "\n\n".join(
        "\n".join([*([f"**{table.title}**", ""] if table.title else []), *markdown_table(table)])
        for table in tables
    )


def diffs(path: Path) -> str:
    """Return the changes that save something, each as a diff."""
    return "\n\n".join(
        f"In place of {change.library} `{change.before}`, `{change.after}`, saves {value}:\n\n"
        f"```diff\n{advice.diff(change)}```"
        for change, value in advice.best(read_table(path))
    )


MAKE: Mapping[str, Callable[..., str]] = {
    "answer": lambda path: answer.table(read(path).section),
    "tricks": lambda path: tricks.table(read(path)),
    "scaling": lambda path: rendered(*scaling.tables(read(path).section)),
    "donation": lambda *paths: rendered(*donation.tables(*(read(p).section for p in paths))),
    "laws": lambda path: rendered(costs.laws(read_table(path))),
    "checked": lambda path: rendered(costs.checked_table(read_table(path))),
    "growth": lambda path: rendered(costs.growth_table(read_table(path))),
    "instead": lambda path: rendered(advice.table(read_table(path))),
    "diffs": diffs,
    "hidden": lambda path: rendered(hidden.table(read(path).section, read_table())),
}
"""What makes each kind of table, of one file or of several."""


def results() -> None:
    """Make pages, pictures and tables anew from the committed runs."""
    from bench.cli.report import draw

    texts = ((path, refreshed(path.read_text("utf-8"))) for path in TEXTS)
    for path, text in chain(pages(), texts):
        path.write_text(text, encoding="utf-8")
        print(path)
    for folder, charts in pictures():
        draw(charts, folder)


if __name__ == "__main__":
    from bench.cli import program, run_program

    run_program(program(results, "python -m bench.result_pages"))
