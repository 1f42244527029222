"""`make results`: pages, pictures and tables, made anew from the committed runs.

A folder of `results/` is a machine. Its page is about its newest whole run, the others beside it.
Histories are folders below `results/tracking/`.
Tables stand in Markdown files between `<!-- table RUN.json -->` and `<!-- end -->`, those of the
tuned step's tricks after `<!-- tricks RUN.json -->`, of devices after `<!-- scaling RUN.json -->`.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

from bench import limit, tricks
from bench.compare import bisect_result
from bench.compare import history as history_file
from bench.report import first, scaling
from bench.report.markdown import table
from bench.report.page import page
from bench.report.page.parts import document_page
from bench.report.runs import Run, read
from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bench.report.charts import Figure
    from bench.report.wording import Facts

FOLDER = ROOT / "results"
PAGE = "page.html"
PICTURES = "pictures"
HISTORY = "history.json"
BISECTION = "bisect-*.json"
TUNED = FOLDER / "tuned"
LIMIT = "limit.json"
"""Of a machine, below `TUNED`: what `python -m bench.limit --json` printed."""
TEXTS = (
    ROOT / "README.md",
    FOLDER / "README.md",
    TUNED / "README.md",
    ROOT / "docs" / "scale.md",
)
TABLE = re.compile(
    r"(<!-- (?P<what>table|answer|tricks|scaling) (?P<run>\S+) -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def machines() -> Iterator[tuple[Path, list[Run]]]:
    """Yield the folders that hold runs, each with its runs, the one that its page is about first.

    That is the newest of those with most metrics: a whole run, and a sweep beside it.
    """
    for folder in sorted(FOLDER.iterdir()):
        runs = [read(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
        if runs:
            yield folder, sorted(runs, key=lambda run: (breadth(run), run.when), reverse=True)


def published() -> Iterator[Run]:
    """Yield every committed run that a text may take ratios from."""
    for _, runs in machines():
        yield from runs
    for path in sorted(TUNED.glob("*/*.json")):
        if path.name != LIMIT:
            yield read(path)


def limits(folder: Path, runs: list[Run]) -> list[str]:
    """Return what is known of how fast a machine could be, beside its first run."""
    path = TUNED / folder.name / LIMIT
    return limit.sentences(runs[0], path) if path.exists() else []


def histories() -> Iterator[tuple[Path, Facts]]:
    """Yield the folders that hold histories, and what these are."""
    for path in sorted(FOLDER.glob(f"*/*/{HISTORY}")):
        yield path.parent, json.loads(path.read_text("utf-8"))


def bisections() -> Iterator[tuple[Path, Facts]]:
    """Yield the files of bisections, and what these are."""
    for path in sorted(FOLDER.glob(f"*/*/{BISECTION}")):
        yield path, json.loads(path.read_text("utf-8"))


def changed(history: Facts) -> list[Figure]:
    """Return the charts of a history that show a change: those that become pictures."""
    where = {f"{c['metric']}-{c['workload']}" for c in history["changes"]}
    sections = history_file.document(history, figures=True).sections
    return [f for section in sections for f in section.figures if f.name in where]


def history_page(history: Facts) -> str:
    """Return the page of a history."""
    return document_page(history_file.document(history, figures=True))


def bisection_page(found: Facts) -> str:
    """Return the page of a bisection."""
    return document_page(bisect_result.document(found, figures=True))


def breadth(run: Run) -> int:
    """Return how many metrics a run has."""
    return len({metric for cell in run.section["cells"] for metric in cell["metrics"]})


def refreshed(text: str) -> str:
    """Return a Markdown text with its tables made anew."""

    def anew(match: re.Match[str]) -> str:
        run = read(ROOT / match["run"])
        made = MAKE[match["what"]](run)
        return f"{match[1]}\n{made}\n\n{match['end']}"

    return TABLE.sub(anew, text)


MAKE: Mapping[str, Callable[[Run], str]] = {
    "table": lambda run: table(run.section),
    "answer": lambda run: first.table(run.section),
    "tricks": tricks.table,
    "scaling": lambda run: scaling.markdown(run.section["scaling"]),
}
"""What makes each kind of table."""


def main() -> int:
    """Make everything anew; return the exit status."""
    from bench.cli.report import draw, draw_figures

    try:
        for folder, runs in machines():
            (folder / PAGE).write_text(page(runs, limits(folder, runs)), encoding="utf-8")
            print(folder / PAGE)
            draw(runs, folder / PICTURES)
        for folder, history in histories():
            (folder / PAGE).write_text(history_page(history), encoding="utf-8")
            print(folder / PAGE)
            draw_figures({figure.name: figure for figure in changed(history)}, folder / PICTURES)
        for path, found in bisections():
            path.with_suffix(".html").write_text(bisection_page(found), encoding="utf-8")
            print(path.with_suffix(".html"))
        for path in TEXTS:
            path.write_text(refreshed(path.read_text("utf-8")), encoding="utf-8")
            print(path)
    except BakeoffError as error:
        print(f"bakeoff: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
