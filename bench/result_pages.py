"""`make results`: pages, pictures and tables, made anew from the published files.

Each folder of `results/` that holds run files is a machine: it gets a page of them, the newest
first, and the charts of that one as pictures. README.md has the answer, between
`<!-- answer FILE -->` and `<!-- end -->`.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import impls
from bench.cells import BASELINE, PURE
from bench.cli.report import document_of, draw
from bench.metrics import STEP
from bench.report.choices import CHEAP
from bench.report.markdown import table_lines
from bench.report.page import page
from bench.report.table import Column, Row, Table, percent, words
from bench.report.view import views
from bench.runfile.reader import NoRunError, Run, read
from bench.worker.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.cells import Arm
    from bench.report.view import View

FOLDER = ROOT / "results"
README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- answer (\S+\.json) -->\n).*?(<!-- end -->)", re.DOTALL)
MOST_ROWS = 8
"""Rows of the answer, so that it fits the first screen."""


def folders() -> Iterator[tuple[Path, list[Run]]]:
    """Yield each folder that holds run files, with these, the newest first."""
    for folder in sorted(path for path in FOLDER.iterdir() if path.is_dir()):
        runs = []
        for path in sorted(folder.glob("*.json")):
            try:
                runs.append(read(path, samples=False))
            except NoRunError:
                continue
        if runs:
            yield folder, sorted(runs, key=lambda run: run.when, reverse=True)


def page_of(runs: Sequence[Run]) -> str:
    """Return the page of some runs."""
    return page(*(document_of(run) for run in runs))


def with_answer(text: str) -> str:
    """Return a Markdown text with its answer made anew, if the run that it names is published."""

    def anew(match: re.Match[str]) -> str:
        path = ROOT / match[2]
        if not path.exists():
            return match[0]
        lines = "\n".join(table_lines(answer(read(path, samples=False))))
        return f"{match[1]}\n{lines}\n\n{match[3]}"

    return MARKED.sub(anew, text)


def answer(run: Run) -> Table:
    """Return what a style adds to a call and to a step, from cheap to dear, in a few rows."""
    view = views(run.results)[0]
    hosts = {arm: host for arm, host in view.hosts().items() if is_for_use(arm)}
    arms = sorted(hosts, key=lambda arm: hosts[arm].value)
    cheap = [arm for arm in arms if is_cheap(view, arm)]
    base = [view.amount(BASELINE, workload, STEP) for workload in view.compared]
    rows = [Row((f"{_name(BASELINE)} (times)", "", *(step or "" for step in base)))]
    if cheap:
        most = max(hosts[arm].high or 0.0 for arm in cheap)
        within = [f"within ±{percent(view.margin)}"] * len(base)
        names = ", ".join(map(_name, cheap))
        rows.append(Row((names, f"at most {math.ceil(1e6 * most)} µs", *within)))
    dear = telling([arm for arm in arms if arm not in cheap], MOST_ROWS - len(rows))
    for arm in dear:
        ratios = [view.comparisons(workload, STEP).get(arm) for workload in view.compared]
        steps = [f"{ratio.value:.2f}" if ratio else "" for ratio in ratios]
        rows.append(Row((_name(arm), words(hosts[arm]), *steps)))
    heads = ["added to a call", *(f"step, `{workload}`" for workload in view.compared)]
    return Table((Column("style"), *(Column(head, number=True) for head in heads)), tuple(rows))


def is_for_use(arm: Arm) -> bool:
    """Tell whether an arm is one that somebody would choose, and written in JAX."""
    about = impls.readable(arm.entrant)
    return about.jax and arm.style not in about.references


def is_cheap(view: View, arm: Arm) -> bool:
    """Tell whether an arm is not shown to cost anything: next to nothing a call, no slower step."""
    high = view.hosts()[arm].high
    steps = [view.comparisons(workload, STEP).get(arm) for workload in view.compared]
    same = all(step is None or step.within(view.margin) for step in steps)
    return high is not None and high <= CHEAP and same


def telling(arms: list[Arm], most: int) -> list[Arm]:
    """Return the arms that tell most: `pure`, the cheapest and the dearest of each library first.

    Args:
        arms: From cheap to dear.
        most: Number of arms to return, in the same order.
    """
    dearest = {arm.entrant: arm for arm in arms}
    cheapest = {arm.entrant: arm for arm in reversed(arms)}
    first = [a for a in arms if a.style == PURE or a in (dearest[a.entrant], cheapest[a.entrant])]
    others = [arm for arm in reversed(arms) if arm not in first]
    recommended = [a for a in [*first, *others] if impls.readable(a.entrant).recommended]
    return [arm for arm in arms if arm in recommended[:most]]


def _name(arm: Arm) -> str:
    return f"{arm.entrant} `{arm.style}`"


def results() -> None:
    """Make pages, pictures and tables anew."""
    for folder, runs in folders():
        (folder / "page.html").write_text(page_of(runs), encoding="utf-8")
        print(folder / "page.html")
        draw(runs[:1], [document_of(runs[0])], folder / "pictures")
    README.write_text(with_answer(README.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    results()
