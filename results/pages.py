"""`make results`: pages and the table of the README, made anew from the published files.

Each folder of `results/` that holds run files is a machine: it gets a page of them, the newest
first. README.md has the answer, between `<!-- answer FILE -->` and `<!-- end -->`.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import impls
from bench.cells import BASELINE
from bench.cli.report import make_document
from bench.estimates import Verdict
from bench.metrics import STEP
from bench.report.findings import CHEAP_SECONDS, View, list_views
from bench.report.markdown import table_lines
from bench.report.page import page
from bench.report.table import Column, Row, Table, percent, words
from bench.runfile.reader import NotARunError, Run, read
from bench.worker.settings import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.cells import Arm

FOLDER = ROOT / "results"
README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- answer (\S+\.json) -->\n).*?(<!-- end -->)", re.DOTALL)


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
        lines = "\n".join(table_lines(answer(read(ROOT / match[2], samples=False))))
        return f"{match[1]}\n{lines}\n\n{match[3]}"

    return MARKED.sub(make_answer, text)


def answer(run: Run) -> Table:
    """Return what a style adds to a call and to a step, from cheap to dear.

    Styles that add next to nothing share a row. Of the others, those of libraries that their
    authors recommend have one, so that it fits the first screen.
    """
    view = next(list_views(run.results))
    hosts = dict(sorted(view.host_costs().items(), key=lambda item: item[1].value))
    cheap, dear = [], []
    for arm in hosts:
        about = impls.find_declaration(arm.entrant)
        if not about.jax or arm.style in about.references:
            continue
        if is_cheap(view, arm):
            cheap.append(arm)
        elif about.recommended and arm.entrant != BASELINE.entrant:
            dear.append(arm)
    base = [view.amount(BASELINE, workload, STEP) for workload in view.compared_workloads]
    rows = [Row((f"{BASELINE} (times)", "", *(step or "" for step in base)))]
    if cheap:
        most = max(hosts[arm].high or 0.0 for arm in cheap)
        within = [f"within ±{percent(view.margin)}"] * len(base)
        names = ", ".join(map(str, cheap))
        rows.append(Row((names, f"at most {math.ceil(1e6 * most)} µs", *within)))
    for arm in dear:
        ratios = [view.comparisons(workload, STEP).get(arm) for workload in view.compared_workloads]
        steps = [f"{ratio.value:.2f}" if ratio else "" for ratio in ratios]
        rows.append(Row((str(arm), words(hosts[arm]), *steps)))
    heads = ["added to a call", *(f"step, `{workload}`" for workload in view.compared_workloads)]
    return Table((Column("style"), *(Column(head, number=True) for head in heads)), tuple(rows))


def is_cheap(view: View, arm: Arm) -> bool:
    """Tell whether an arm is not shown to cost anything: next to nothing a call, no slower step."""
    high = view.host_costs()[arm].high
    steps = [view.comparisons(workload, STEP).get(arm) for workload in view.compared_workloads]
    same = all(step is None or step.verdict is Verdict.EQUIVALENT for step in steps)
    return high is not None and high <= CHEAP_SECONDS and same


def results() -> None:
    """Make pages and the table anew."""
    for folder, runs in folders():
        (folder / "page.html").write_text(page(*map(make_document, runs)), encoding="utf-8")
        print(folder / "page.html")
    README.write_text(insert_answer(README.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    results()
