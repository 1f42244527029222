"""`make results`: pages, pictures and tables, made anew from the committed runs.

A folder of `results/` is a machine. Its page shows its newest whole run first, then the others.
Histories and bisections are in folders below `results/tracking/`. Tables stand in Markdown files
between `<!-- KIND FILE … -->` and `<!-- end -->`, where `KIND` is one of `MAKE`. Losses from
initialisers are in `results/initialisers/losses/`.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

import msgspec

from bench import limit, tricks
from bench.compare import bisect_result, history_result
from bench.cost import advice, prediction
from bench.cost import document as costs
from bench.cost import runs as of_runs
from bench.cost.table import read_table
from bench.initialisers import alternatives
from bench.initialisers import document as initialisers
from bench.initialisers.chart import figure as curves
from bench.initialisers.losses import read as read_losses
from bench.report import answer, donation, scaling
from bench.report.charts import figures
from bench.report.markdown import rendered, sentence
from bench.report.page import page
from bench.report.page.parts import document_page
from bench.report.table import Section
from bench.runfile.reader import Run, read
from bench.worker.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bench.report.charts import Figure
    from bench.report.table import Document, Table
    from bench.runfile import BakeoffSection

FOLDER = ROOT / "results"
PAGE = "page.html"
PICTURES = "pictures"
HISTORY = "history.json"
TUNED = FOLDER / "tuned"
LIMIT = "limit.json"
"""Of a machine, below `TUNED`: what `python -m bench.limit --json` printed."""
COST, DONATION, INITIALISERS = (FOLDER / name for name in ("cost", "donation", "initialisers"))
TEXTS = tuple(
    folder / "README.md" for folder in (ROOT, FOLDER, TUNED, COST, DONATION, INITIALISERS)
)
TABLE = re.compile(
    r"(<!-- (?P<what>\w+) (?P<of>\S+(?: \S+)*) -->\n).*?(?P<end><!-- end -->)",
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
    yield COST / PAGE, costs.page(table, costs.Asked(prediction.Size(100), 0.010), table.styles)


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
    losses = sorted(INITIALISERS.glob("losses/*.json"))
    yield INITIALISERS / PICTURES, [curves(read_losses(path)) for path in losses]


def breadth_and_time(run: Run) -> tuple[int, str]:
    """Return how many metrics a run has, and when it was made."""
    return len({metric for cell in run.section.cells for metric in cell.metrics}), run.when


def refreshed(text: str) -> str:
    """Return a Markdown text with its tables made anew."""

    def anew(match: re.Match[str]) -> str:
        made = MAKE[match["what"]](*match["of"].split())
        return f"{match[1]}\n{made}\n\n{match['end']}"

    return TABLE.sub(anew, text)


def of_losses(file: str, title: str) -> str:
    """Return the sentences and tables of a section about initialisers."""
    found = initialisers.document(read_losses(ROOT / file))
    [section] = [each for each in found.sections if each.title == title]
    head = [] if title else [f"**{sentence(found.headline)}**", ""]
    return "\n".join([*head, *rendered(section)]).rstrip()


def in_markdown(*tables: Table) -> str:
    """Return tables, each below its title if it has one."""
    return "\n".join(rendered(Section("", tables=tables))).rstrip()


def diffs(file: str) -> str:
    """Return the changes that save something, each as a diff."""
    return "\n\n".join(
        f"In place of {change.library} `{change.before}`, `{change.after}`, saves {value}:\n\n"
        f"```diff\n{advice.diff(change)}```"
        for change, value in advice.best(read_table(ROOT / file))
    )


def section(file: str) -> BakeoffSection:
    """Return what a run file says."""
    return read(ROOT / file).section


MAKE: Mapping[str, Callable[..., str]] = {
    "answer": lambda file: answer.table(section(file)),
    "tricks": lambda file: tricks.table(read(ROOT / file)),
    "scaling": lambda file: in_markdown(*scaling.tables(section(file))),
    "donation": lambda *files: in_markdown(*donation.tables(*map(section, files))),
    "laws": lambda file: in_markdown(costs.laws(read_table(ROOT / file))),
    "lines": lambda file: in_markdown(prediction.table(read_table(ROOT / file))),
    "repeated": lambda *files: in_markdown(
        costs.repeated(*(read_table(ROOT / file) for file in files))
    ),
    "agreement": lambda file: in_markdown(prediction.agreement(read_table(ROOT / file))),
    "checked": lambda file: in_markdown(prediction.each_model(read_table(ROOT / file))),
    "growth": lambda file: in_markdown(costs.growth_table(read_table(ROOT / file))),
    "instead": lambda file: in_markdown(advice.table(read_table(ROOT / file))),
    "diffs": diffs,
    "widths": lambda file: in_markdown(of_runs.widths(section(file))),
    "depths": lambda file: in_markdown(of_runs.depths(section(file))),
    "peaks": lambda file: in_markdown(of_runs.peaks(section(file))),
    "hidden": lambda file: in_markdown(of_runs.in_a_row(section(file))),
    "steps": lambda file: of_losses(file, ""),
    "start": lambda file: of_losses(file, "Why"),
    "diff": lambda name: f"```diff\n{alternatives.diff(alternatives.Named.of(name))}\n```",
}
"""What makes each kind of table, from the words behind its name."""


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
