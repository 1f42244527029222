"""Two run files of different hours compared: each cell's ratio to the baseline of its own run.

Seconds of two hours differ by 5 to 8 % on a shared machine, whatever the code does; ratios within a
run do not, for both sides of one were measured in turns.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cells import BASELINE, Cell
from bench.compare import between_run_variance, conditions
from bench.compare.comparison import Evidence, Origin, comparison_of, missing, varying
from bench.compare.gate import Gate
from bench.compare.trends import counted
from bench.estimates import beside, stored
from bench.metrics import METRICS
from bench.report import wording
from bench.runfile.reader import TIME, processor_model
from bench.stats.ratios import corrected
from common.errors import BakeoffError

if TYPE_CHECKING:
    import datetime
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from bench.compare.comparison import ComparedRow, Comparison, Key
    from bench.compare.conditions import ConditionChange
    from bench.runfile import Result
    from bench.runfile.reader import Run
    from bench.samples import Samples
    from bench.stats.ratios import Estimate

READING = (
    f"Each cell's ratio to {BASELINE[0]} in its own run is compared, new to base: 1.05 means 5 % "
    f"slower beside {BASELINE[0]} than before.",
    "In brackets: 95 % intervals, which include how much ratios vary from hour to hour, corrected "
    "for all rows of a metric at a workload.",
    f"Rows of {BASELINE[0]} are seconds of two hours, in which a machine changes more than most "
    "code does: only `bakeoff ab`, which measures both sides in turns, can tell whether they did.",
)
NO_DOUBT = "the file has neither samples nor a standard error"
SHA = 10
"""Characters of a commit that are shown."""


def compare(
    bases: Sequence[Run],
    new: Run,
    gate: Gate | None = None,
    allowed: Collection[str] = (),
    today: datetime.date | None = None,
) -> Comparison:
    """Return what a new run is beside a base run, or several of the same code.

    Raises:
        BakeoffError: a run has no cells of ours, the runs have none in common, one is given twice
            as a base, or they were made under different conditions that are not allowed.
    """
    runs = [*bases, new]
    alike = Counter(run.name for run in runs)
    names = [
        f"{run.name} ({number})" if alike[run.name] > 1 else run.name
        for number, run in enumerate(runs, 1)
    ]
    require_cells(runs, names)
    for number, name in enumerate(names[:-1]):
        if any(same(bases[number], other) for other in bases[:number]):
            raise BakeoffError(f"{name} is given twice as a base; give each run once")
    differing = conditions.check(runs, names, allowed)
    margin = max(run.section.plan.margin for run in runs)
    *older, base, ours = [evidence_of(run, name) for run, name in zip(runs, names, strict=True)]
    return comparison_of(
        base,
        ours,
        rows_of(bases, new, margin),
        gate=gate or Gate(),
        margin=margin,
        today=today,
        older=[each.origin for each in older],
        differences=differing,
        warnings=list(warned(bases, new, differing, names)),
        reading=READING,
    )


def cells(run: Run) -> dict[Cell, Result]:
    """Return the cells of a run by name."""
    return {cell.cell: cell for cell in run.section.cells}


def same(run: Run, other: Run) -> bool:
    """Tell whether two files are of one run."""
    return run.when == other.when and run.section == other.section


def require_cells(runs: Sequence[Run], names: Sequence[str]) -> None:
    """Raise BakeoffError for a run without anything in common with the last one."""
    last = runs[-1]
    for run, name in zip((last, *runs), (names[-1], *names), strict=True):
        if not run.section.cells or any(TIME in cell.metrics for cell in run.section.cells):
            raise BakeoffError(
                f"{name} has no cells; give what `pytest bench --benchmark-json` wrote. For what "
                "pytest-benchmark wrote alone, there is `pytest-benchmark compare`"
            )
        if not cells(run).keys() & cells(last).keys():
            each = [", ".join(wording.workloads(r.section.cells)) for r in (run, last)]
            raise BakeoffError(
                f"{name} and {names[-1]} have no cell in common (workloads {each[0]}, and {each[1]}"
                "); give runs of the same entrants, styles and workloads"
            )


def evidence_of(run: Run, name: str) -> Evidence:
    """Return what a run's side is, beside its times."""
    commit = str(run.commit.get("id") or "")[:SHA]
    dirty = ", changed since" if commit and run.commit.get("dirty") else ""
    origin = Origin(
        name,
        conditions.versions(run),
        processor_model(run.machine),
        commit + dirty,
        run.when.replace("T", " "),
    )
    facts = cells(run)
    failed = {cell: each.failure for cell, each in facts.items()}
    return Evidence(origin, list(facts), failed, exact(facts))


def rows_of(bases: Sequence[Run], new: Run, margin: float) -> Iterator[ComparedRow]:
    """Yield the metrics that vary, those that cannot be compared too."""
    theirs, ours = [measurements(run) for run in bases], measurements(new)
    before, after = cells(bases[-1]), cells(new)
    variations = {key: between_run_variance.variation(key, before, after) for key in ours}
    wobbles = between_run_variance.chosen(between_run_variance.between_runs(theirs, variations))
    families = Counter((metric, cell.baseline) for cell, metric in ours)
    for cell in [c for c in before if c in after]:
        if before[cell].failure is not None or after[cell].failure is not None:
            continue
        metrics = {**before[cell].metrics, **after[cell].metrics}
        for metric in [name for name in metrics if name in METRICS]:
            key = (cell, metric)
            base, now = before[cell].measured(metric), after[cell].measured(metric)
            known = [run[key] for run in theirs if key in run]
            if base is None or now is None:
                if base is not now:
                    side, facts = ("new", after) if now is None else ("base", before)
                    given = facts[cell].metrics.get(metric)
                    because = f": {given.missing}" if given else ""
                    yield missing(key, f"not measured in the {side} run{because}")
            elif not known or key not in ours:
                yield missing(key, NO_DOUBT)
            else:
                wobble, family = wobbles[variations[key]], families[metric, cell.baseline]
                estimate = between_run_variance.difference(known, ours[key], wobble, family)
                shown: dict[str, Any] = {"base": base.median, "new": now.median}
                if cell.is_baseline:
                    shown["absolute"] = True
                else:
                    ratio = ours[key].ratio
                    shown |= {"base_ratio": ratio / estimate.ratio, "new_ratio": ratio}
                yield varying(key, estimate, margin, **shown)


def measurements(run: Run) -> dict[Key, Estimate]:
    """Return the ratio of each cell's metric to the baseline, and the baseline's own log-seconds.

    They are worked out from the samples, by the statistics of today, and taken from the file where
    it has none.
    """
    good = {cell: facts for cell, facts in cells(run).items() if facts.failure is None}
    found: dict[Key, Estimate | None] = {}
    for group, arms in run.samples.items():
        alive = {c: blocks for c, blocks in arms.items() if c in good or c.is_control}
        found |= {(cell, group.metric): each for cell, each in beside(group, alive).items()}
        baseline = Cell(*BASELINE, *group[1:])
        if baseline in alive:
            found[baseline, group.metric] = absolute(alive[baseline])
    estimates = {
        (cell, metric): found.get((cell, metric)) or stored(row)
        for cell, facts in good.items()
        for metric in facts.metrics
        if metric in METRICS and (row := facts.measured(metric))
    }
    return {key: estimate for key, estimate in estimates.items() if estimate is not None}


def absolute(blocks: Sequence[Samples]) -> Estimate | None:
    """Return an arm's mean log-seconds; None where there are fewer than two processes."""
    by_process: dict[int, list[float]] = {}
    for block in blocks:
        values = [value for value in block.values if value > 0]
        if values:
            by_process.setdefault(block.process, []).append(math.log(float(np.median(values))))
    means = [float(np.mean(values)) for values in by_process.values()]
    if len(means) < 2:
        return None
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means))
    return corrected(float(np.mean(means)), error, len(means) - 1.0, len(blocks), len(means))


def exact(facts: Mapping[Cell, Result]) -> dict[Key, float]:
    """Return the numbers of a run that come out the same every time."""
    out: dict[Key, float] = {}
    for cell, each in facts.items():
        if each.failure is not None:
            continue
        out |= {(cell, name): n for name, n in each.exact.items() if n is not None}
        if each.final_loss:
            out[cell, "final_loss"] = each.final_loss.same_weights
            if each.final_loss.own is not None:
                out[cell, "final_loss_own"] = each.final_loss.own
    return out


def warned(
    bases: Sequence[Run], new: Run, differing: Sequence[ConditionChange], names: Sequence[str]
) -> Iterator[str]:
    """Yield what a reader has to know before believing a comparison."""
    last = bases[-1]
    if any(same(base, new) for base in bases):
        yield "a base and the new run are the same run: nothing can have changed"
    moved = list(dict.fromkeys(d.name for d in differing if d.name in conditions.BENEATH))
    if moved:
        yield (
            f"what differs ({wording.joined(moved)}) affects {BASELINE[0]} too: a ratio may have "
            "changed because the baseline did; `bakeoff ab` compares seconds"
        )
    kernels = [run.machine.get("release") for run in (last, new)]
    if all(kernels) and kernels[0] != kernels[1]:
        yield f"the kernels differ: {kernels[0]}, then {kernels[1]}"
    before, after = cells(last), cells(new)
    for cell in [c for c in before if c in after]:
        proofs = before[cell].proof, after[cell].proof
        same_program = [proof and proof.same_program_as_baseline for proof in proofs]
        if None not in same_program and same_program[0] != same_program[1]:
            said = "now compiles" if same_program[1] else "no longer compiles"
            name = f"{wording.name(after[cell])} at {after[cell].place}"
            yield f"{name} {said} to the same program as {BASELINE[0]}"
    for run, name in zip((last, new), names[-2:], strict=True):
        if run.section.warnings:
            count = counted(len(run.section.warnings), "warning")
            yield f"{name} has {count} of its own; `bakeoff report` shows them"
