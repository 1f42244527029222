"""Which library for me: an answer for each situation, by a rule that the reader can check."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.cells import BASELINE, Cell
from bench.estimates import Group
from bench.metrics import METRICS, STARTUP, label
from bench.report import tied, wording
from bench.report.wording import joined, measured
from bench.stats import ratios
from common.config import SWEEP, WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from bench.report.runs import Run
    from bench.report.tied import Intervals
    from bench.report.wording import Facts

RECOMPILE = ("trace", "lower", "compile", "first_step")
"""The first step too: what runs outside of jit is compiled there, operation by operation."""
LIBRARIES = Path(__file__).with_name("libraries.json")
GROWING = 4
"""Releases in a year from which on a library is called maintained and growing."""
NOT_MEASURED = "This run did not measure it"
TOLD_APART = "with all not told apart from it or each other, or surely within the margin of it"
LIMITS = (("pure_jax", "tuned"),)
"""What is measured to say how far libraries are from what can be had."""
NAMED = 4
"""Slower ones that are named."""


class Answer(NamedTuple):
    """What to take in a situation."""

    situation: str
    answer: str
    rule: str
    evidence: str


def answers(run: Run, backend: str) -> list[Answer]:
    """Return an answer for each situation, from what was measured on one backend."""
    good = [c for c in run.section["cells"] if c["backend"] == backend and c["failure"] is None]
    cells = [cell for cell in good if a_choice(cell)]
    if not cells:
        return []
    found = [
        cold(run, "A notebook with many short runs", STARTUP, cells, backend),
        *(
            steps(run.section, cells, situation, at_width(cells, least, most), how)
            for situation, least, most, how in SIZES
        ),
        cold(run, "Many recompilations: shapes that change", RECOMPILE, cells, backend),
        cold(run, "Lowest memory", ("peak_rss",), cells, backend),
        maintained(cells),
    ]
    return [noted(answer, run.section.get("notes") or {}) for answer in found]


def noted(answer: Answer, notes: Mapping[str, str]) -> Answer:
    """Return an answer with what has to be said of those that it names: one may have ended."""
    named = [note for name, note in notes.items() if re.search(rf"\b{name}\b", answer.answer)]
    return answer._replace(evidence=" ".join([answer.evidence, *named]).strip())


def a_choice(cell: Facts) -> bool:
    """Tell whether a cell is a JAX library's: outside references and tuned code are no choice."""
    proof = cell["proof"]
    library = proof is None or wording.written_in_jax(proof)
    return library and (cell["entrant"], cell["style"]) not in LIMITS


SIZES = (
    ("Long training of a small model", 1, 32, "--workload toy"),
    ("Training at the tutorial's size", 128, 128, "--workload seed"),
    ("A larger model: the widest measured", 256, 1 << 20, "--workload wide"),
)
"""Situations, the widths that stand for them, and what measures one."""


def at_width(cells: Sequence[Facts], least: int, most: int) -> str | None:
    """Return the workload of one stream, measured, that stands for some widths.

    The smallest where the smallest is meant, else the widest; the project's own before a sweep's.
    """
    known = {
        name: WORKLOADS[name]
        for cell in cells
        if (name := cell["workload"]) in WORKLOADS and measured(cell, "step") is not None
    }
    fitting = [w for w in known.values() if least <= w.width <= most and w.batch == 1]
    sign = 1 if least == 1 else -1
    fitting.sort(key=lambda w: (sign * w.width, w in SWEEP))
    return fitting[0].name if fitting else None


def steps(
    section: Facts, cells: Sequence[Facts], situation: str, workload: str | None, how: str
) -> Answer:
    """Return who has the fastest step at a workload."""
    if workload is None:
        return Answer(situation, f"{NOT_MEASURED}: {how} does", "The smallest step.", "")
    rule = f"The smallest step at {wording.sized(workload)}, {TOLD_APART}."
    here = [cell for cell in cells if cell["workload"] == workload]
    margin = section["plan"]["margin"]
    found = tied.intervals(here, "step")
    backend = here[0]["backend"]
    groups = tied.groups(section, "step", workload, backend, found)
    return ranked(situation, rule, found, margin, groups=groups)


def cold(
    run: Run, situation: str, metrics: Sequence[str], cells: Sequence[Facts], backend: str
) -> Answer:
    """Return who has the smallest sum of cold metrics, each process being one sample of it."""
    having = [cell for cell in cells if measured(cell, metrics[0]) is not None]
    if not having:
        return Answer(situation, NOT_MEASURED, "The smallest time in fresh processes.", "")
    workload = wording.main_workload(having)
    what = " + ".join(label(metric) for metric in metrics)
    summed = ", summed in each fresh process" if len(metrics) > 1 else ""
    rule = f"The smallest {what} at {wording.sized(workload)}{summed}, {TOLD_APART}."
    margin = run.section["plan"]["margin"]
    chosen = {(cell["entrant"], cell["style"]) for cell in cells}
    found, medians = sums(run, metrics, workload, backend, chosen)
    unit = METRICS[metrics[0]].unit
    words = {name: wording.amount(median, unit) for name, median in medians.items()}
    return ranked(situation, rule, found, margin, words)


def sums(
    run: Run, metrics: Sequence[str], workload: str, backend: str, chosen: Set[tuple[str, str]]
) -> tuple[Intervals, dict[str, float]]:
    """Return ratios of sums of cold metrics to the baseline's, and the sums' medians.

    `chosen` are the entrants and styles that it is about.
    """
    assert all(metric in METRICS for metric in metrics)
    groups = [run.samples.get(Group(metric, workload, backend), {}) for metric in metrics]
    totals: dict[Cell, list[float]] = {}
    for cell in groups[0]:
        by_process: dict[int, list[float]] = defaultdict(list)
        for group in groups:
            for block in group.get(cell, []):
                by_process[block.process] += block.values
        whole = [sum(values) for values in by_process.values() if len(values) == len(metrics)]
        if whole:
            totals[cell] = whole
    baseline = Cell(*BASELINE, workload, backend)
    if baseline not in totals or BASELINE not in chosen:
        return {}, {}
    cells = [cell for cell in totals if cell[:2] in chosen]
    logs = [np.log(totals[cell]) for cell in cells]
    estimates = ratios.cold(logs, cells.index(baseline))
    out: Intervals = {}
    for cell, estimate in zip(cells, estimates, strict=True):
        name = wording.name(cell._asdict())
        if cell == baseline:
            out[name] = (1.0, 1.0, 1.0)
        elif estimate is not None:
            out[name] = (estimate.ratio, *estimate.interval)
    medians = {wording.name(c._asdict()): float(np.median(totals[c])) for c in cells}
    return out, medians


def ranked(
    situation: str,
    rule: str,
    intervals: Intervals,
    margin: float,
    medians: Mapping[str, str] | None = None,
    groups: list[list[str]] | None = None,
) -> Answer:
    """Return the fastest group as the answer, and the others as the evidence."""
    intervals = {name: ends for name, ends in intervals.items() if ends[2] < math.inf}
    if len(intervals) < 2:
        return Answer(situation, NOT_MEASURED, rule, "")
    known = [[name for name in group if name in intervals] for group in groups or []]
    first, *others = [group for group in known if group] or tied.overlapping(intervals)
    near = (1 + margin) * intervals[first[0]][0]
    behind = [name for group in others for name in group]
    names = [*first, *(name for name in behind if intervals[name][2] <= near)]
    rest = [name for name in behind if name not in names]
    if not rest:
        inside = all(
            1 - margin <= low and high <= 1 + margin for _, low, high in intervals.values()
        )
        within = f"within ±{wording.percent(margin)}" if inside else "their intervals overlap"
        answer = "It does not matter here" if inside else "This run cannot tell"
        return Answer(situation, answer, rule, f"{joined(names)}: {within}.")
    answer = joined(names)

    def said(name: str) -> str:
        middle, low, high = intervals[name]
        if low == high:
            return f"{name} ({wording.ratio({'ratio': middle})})"
        return f"{name} {wording.ratio({'ratio': middle, 'low': low, 'high': high})}"

    best = said(names[0])
    if medians and names[0] in medians:
        best += f", {medians[names[0]]}"
    evidence = f"Best: {best}. Behind: {', '.join(map(said, rest[:NAMED]))}"
    if len(rest) > NAMED:
        evidence += f" and {len(rest) - NAMED} more"
    evidence += f". Ratios to {BASELINE[0]}, intervals as wide as all comparisons ask for"
    return Answer(situation, answer, rule, f"{evidence}.")


def maintained(cells: Sequence[Facts]) -> Answer:
    """Return who is maintained and growing; the one answer that no run can measure."""
    known = json.loads(LIBRARIES.read_text("utf-8"))
    libraries = known["libraries"]
    here = [e for e in dict.fromkeys(cell["entrant"] for cell in cells) if e in libraries]
    good = [
        e
        for e in here
        if libraries[e]["releases_in_a_year"] >= GROWING and libraries[e]["recommended"]
    ]
    rule = (
        f"{GROWING} releases or more in the year before {known['as_of']} ({known['source']}), and "
        "its authors do not send new users elsewhere. No run can measure it."
    )
    said = list(told(libraries, here))
    answer = joined(good) if good else "None of those in this run is known to be"
    return Answer("Maintained and growing", answer, rule, "; ".join(said))


def told(libraries: Mapping[str, Facts], entrants: Sequence[str]) -> Iterator[str]:
    """Yield what is known of each library."""
    for entrant in entrants:
        one = libraries[entrant]
        says = f", {one['says']}" if one["says"] else ""
        yield (
            f"{entrant}: {one['releases_in_a_year']} releases of {one['distribution']}, the last "
            f"on {one['latest_on']}{says}"
        )
