"""Which library for me: an answer for each situation, by a rule that the reader can check."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.measure.cells import BASELINE, CONTROL, Cell
from bench.measure.metrics import METRICS
from bench.measure.summary import Group
from bench.report import tied, wording
from bench.report.wording import joined
from bench.stats.nested import unpaired
from bench.stats.verdict import tie_groups

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.report.runs import Run
    from bench.report.tied import Intervals
    from bench.report.wording import Facts

BEFORE = ("import", "init", "trace", "lower", "compile", "first_step")
"""What a process pays for before its second step."""
RECOMPILE = ("trace", "lower", "compile")
LIBRARIES = Path(__file__).with_name("libraries.json")
GROWING = 4
"""Releases in a year from which on a library is called maintained and growing."""
NOT_MEASURED = "This run did not measure it"
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
    cells = [c for c in run.section["cells"] if c["backend"] == backend and c["failure"] is None]
    if not cells:
        return []
    sizes, main = wording.workloads(cells), wording.main_workload(cells)
    return [
        cold(run, "A notebook with many short runs", BEFORE, main, backend),
        steps(run.section, cells, "Long training of a small model", sizes[0]),
        *(
            []
            if main == sizes[0]
            else [steps(run.section, cells, "Training at the tutorial's size", main)]
        ),
        wide(run.section, cells, sizes, main),
        cold(run, "Many recompilations: shapes that change", RECOMPILE, main, backend),
        cold(run, "Lowest memory", ("peak_rss",), main, backend),
        maintained(cells),
    ]


def wide(section: Facts, cells: Sequence[Facts], sizes: Sequence[str], main: str) -> Answer:
    """Return the answer for a large model: the widest workload, if it is wider than the main."""
    situation = "A large model"
    if wording.size(sizes[-1])[:1] <= wording.size(main)[:1]:
        return Answer(
            situation,
            f"{NOT_MEASURED}: --workload wide does",
            "The step at the widest workload, if that is wider than the tutorial's.",
            "",
        )
    return steps(section, cells, situation, sizes[-1])


def steps(section: Facts, cells: Sequence[Facts], situation: str, workload: str) -> Answer:
    """Return who has the fastest step at a workload."""
    rule = f"The smallest step at {wording.sized(workload)}, and all whose interval reaches it."
    here = [cell for cell in cells if cell["workload"] == workload]
    return ranked(situation, rule, tied.intervals(section, here, "step"))


def cold(run: Run, situation: str, metrics: Sequence[str], workload: str, backend: str) -> Answer:
    """Return who has the smallest sum of cold metrics, each process being one sample of it."""
    what = " + ".join(metric.replace("_", " ") for metric in metrics)
    summed = ", summed in each fresh process" if len(metrics) > 1 else ""
    rule = (
        f"The smallest {what} at {wording.sized(workload)}{summed}, and all whose interval "
        "reaches it."
    )
    return ranked(situation, rule, *sums(run, metrics, workload, backend))


def sums(
    run: Run, metrics: Sequence[str], workload: str, backend: str
) -> tuple[Intervals, dict[str, float]]:
    """Return ratios of sums of cold metrics to the baseline's, and the sums' medians."""
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
    if baseline not in totals:
        return {}, {}
    cells = [cell for cell in totals if cell[:2] != CONTROL]
    estimates = unpaired([np.array(totals[cell]) for cell in cells], cells.index(baseline))
    out: Intervals = {}
    for cell, estimate in zip(cells, estimates, strict=True):
        name = wording.name(cell._asdict())
        if cell == baseline:
            out[name] = (1.0, 1.0, 1.0)
        elif estimate is not None:
            out[name] = (estimate.ratio, *estimate.interval(tied.confidence(run.section)))
    medians = {wording.name(c._asdict()): float(np.median(totals[c])) for c in cells}
    return out, medians


def ranked(
    situation: str, rule: str, intervals: Intervals, medians: Mapping[str, float] | None = None
) -> Answer:
    """Return the fastest group as the answer, and the others as the evidence."""
    if len(intervals) < 2:
        return Answer(situation, NOT_MEASURED, rule, "")
    first, *others = tie_groups(intervals)
    names = list(first)
    if not others:
        return Answer(
            situation, "It does not matter here", rule, f"{joined(names)}: all intervals overlap"
        )
    answer = joined(names)
    rest = [name for group in others for name in group]

    def said(name: str) -> str:
        middle, low, high = intervals[name]
        ends = {"low": low, "high": None if high == float("inf") else high}
        return f"{name} {wording.ratio({'ratio': middle, **ends})}"

    best = said(names[0])
    if medians and names[0] in medians:
        unit = "B" if "peak rss" in rule else "s"
        best += f", {wording.amount(medians[names[0]], unit)}"
    evidence = f"Best: {best}. Behind: " + ", ".join(map(said, rest[:NAMED]))
    if len(rest) > NAMED:
        evidence += f" and {len(rest) - NAMED} more"
    return Answer(situation, answer, rule, f"{evidence}.")


def maintained(cells: Sequence[Facts]) -> Answer:
    """Return who is maintained and growing; the one answer that no run can measure."""
    known = json.loads(LIBRARIES.read_text("utf-8"))
    libraries = known["libraries"]
    here = [e for e in dict.fromkeys(cell["entrant"] for cell in cells) if e in libraries]
    good = [
        e
        for e in here
        if libraries[e]["releases_in_a_year"] >= GROWING
        and "maintenance" not in libraries[e]["says"]
    ]
    rule = (
        f"{GROWING} releases or more in the year before {known['as_of']} ({known['source']}), and "
        "its authors do not call it maintained only."
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
