"""Two run files of different hours compared: each cell's ratio to the baseline of its own run.

Seconds of two hours differ by 5 to 8 % on a shared machine, whatever the code does; ratios within a
run do not, for both sides of one were measured in turns.
"""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING

import numpy as np

from bench.cells import BASELINE, CONTROL, Cell
from bench.compare import between, conditions
from bench.compare.comparison import (
    Comparison,
    Side,
    Values,
    exact_rows,
    failures,
    only,
    time_rows,
)
from bench.compare.gate import Gate
from bench.estimates import beside
from bench.metrics import METRICS
from bench.report import tied, wording
from bench.report.runs import TIME, is_number, processor_model
from bench.report.wording import measured
from bench.stats.ratios import corrected
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from bench.compare.comparison import Key
    from bench.compare.conditions import Difference
    from bench.engine.state import Samples
    from bench.report.runs import Run
    from bench.report.wording import Facts
    from bench.stats.ratios import Estimate

READING = (
    f"Compared is each cell's ratio to {BASELINE[0]} in its own run, new to base: 1.05 says that "
    f"the cell has become 5 % slower beside {BASELINE[0]}.",
    "In brackets: 95 % intervals, which include how ratios wander from hour to hour, corrected for "
    "all rows of a metric at a workload.",
    "Slower, faster: the interval leaves out 1 and is not inside the margin; =: it is inside the "
    "margin; ?: inconclusive.",
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
        BakeoffError: a run has no cells of ours, the runs have none in common, or they were made
            under different conditions that are not allowed.
    """
    gate, today = gate or Gate(), today or datetime.date.today()
    bases, warnings = distinct(bases)
    runs = [*bases, new]
    names = called(runs)
    for run, name in zip(runs, names, strict=True):
        require_cells(run, name)
    require_common(bases, new, names)
    differing = conditions.check(runs, names, allowed)
    last = bases[-1]
    margin = max(run.section["plan"]["margin"] for run in runs)
    estimates, values, missing = compared(bases, new)
    rows = time_rows(estimates, values, gate, margin, today, missing)
    counted = exact_rows(exact(last), exact(new), gate, margin, today)
    known = [*((row.cell, row.metric) for row in rows), *((r.cell, r.metric) for r in counted)]
    warnings += [*gate.unmatched(known), *warned(bases, new, differing)]
    return Comparison(
        bases=tuple(side(base, name) for base, name in zip(bases, names, strict=False)),
        new=side(new, names[-1]),
        margin=margin,
        rows=rows,
        exact=counted,
        failures=failures(failed(last), failed(new), gate),
        only_base=only(list(cells(last)), list(cells(new))),
        only_new=only(list(cells(new)), list(cells(last))),
        differences=differing,
        warnings=tuple(warnings),
        reading=READING,
    )


def cells(run: Run) -> dict[Cell, Facts]:
    """Return the cells of a run by name."""
    return {Cell(*(cell[n] for n in Cell._fields)): cell for cell in run.section["cells"]}


def called(runs: Sequence[Run]) -> list[str]:
    """Return what runs are called: their files, told apart where two have one name."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names, 1)
    ]


def distinct(bases: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return the base runs without those that are given twice, and warnings that say so."""
    kept: list[Run] = []
    said = []
    for run in bases:
        if any(same(run, other) for other in kept):
            said.append(f"{run.name} is given twice as a base; it counts once")
        else:
            kept.append(run)
    return kept, said


def same(run: Run, other: Run) -> bool:
    """Tell whether two files are of one run."""
    return run.when == other.when and run.section == other.section


def require_cells(run: Run, name: str) -> None:
    """Raise BakeoffError for a run without anything that could be compared."""
    if not run.section["cells"]:
        raise BakeoffError(f"{name} has no cells; give a run that measured something")
    if any(TIME in cell["metrics"] for cell in run.section["cells"]):
        raise BakeoffError(
            f"{name} was written by pytest-benchmark alone, without intervals or a baseline; give "
            "what `pytest bench --benchmark-json` wrote, or use `pytest-benchmark compare`"
        )


def require_common(bases: Sequence[Run], new: Run, names: Sequence[str]) -> None:
    """Raise BakeoffError where a base has no cell in common with the new run."""
    for base, name in zip(bases, names, strict=False):
        if not cells(base).keys() & cells(new).keys():
            each = [", ".join(wording.workloads(r.section["cells"])) for r in (base, new)]
            raise BakeoffError(
                f"{name} and {names[-1]} have no cell in common (workloads {each[0]}, and {each[1]}"
                "); give runs of the same entrants, styles and workloads"
            )


def side(run: Run, name: str) -> Side:
    """Return what a run's side is."""
    commit = str(run.commit.get("id") or "")[:SHA]
    return Side(
        name=name,
        versions=conditions.versions(run),
        machine=processor_model(run.machine),
        commit=f"{commit}, changed since" if commit and run.commit.get("dirty") else commit,
        when=run.when.replace("T", " "),
    )


def compared(
    bases: Sequence[Run], new: Run
) -> tuple[dict[Key, Estimate], dict[Key, Values], dict[Key, str]]:
    """Return estimates and values of rows that can be compared, and why others cannot."""
    theirs, ours = [measurements(run) for run in bases], measurements(new)
    before, after = cells(bases[-1]), cells(new)
    kinds = {key: kind_of(key, before, after) for key in ours}
    wobbles = between.chosen(between.between_runs(theirs, kinds) if len(theirs) > 1 else {})
    estimates: dict[Key, Estimate] = {}
    values, missing = {}, {}
    for cell in [c for c in before if c in after]:
        if before[cell]["failure"] is not None or after[cell]["failure"] is not None:
            continue
        for metric in dict.fromkeys([*before[cell]["metrics"], *after[cell]["metrics"]]):
            key = (cell, metric)
            why = lacking(before[cell], after[cell], metric)
            if why is None:
                known = [run[key] for run in theirs if key in run]
                if not known or key not in ours:
                    missing[key] = NO_DOUBT
                    continue
                family = sum(1 for c, m in ours if m == metric and c[2:] == cell[2:])
                wobble = wobbles[kinds[key]]
                estimates[key] = between.difference(known, ours[key], wobble, family)
                values[key] = shown(before[cell], after[cell], metric, ours[key], estimates[key])
            elif why:
                missing[key] = why
    return estimates, values, missing


def lacking(base: Facts, new: Facts, metric: str) -> str | None:
    """Return why a metric is on one side alone; None if it is on both, nothing if on neither."""
    found = measured(base, metric), measured(new, metric)
    if None not in found:
        return None
    if found == (None, None):
        return ""
    which, facts = ("base", base) if found[0] is None else ("new", new)
    reason = facts["metrics"].get(metric, {}).get("missing")
    return f"not measured in the {which} run" + (f": {reason}" if reason else "")


def shown(base: Facts, new: Facts, metric: str, estimate: Estimate, ratio: Estimate) -> Values:
    """Return what is shown of a row: seconds of the baseline, else ratios to it as well."""
    medians = base["metrics"][metric]["median"], new["metrics"][metric]["median"]
    if wording.is_baseline(new):
        return Values(*medians, absolute=True)
    return Values(*medians, math.exp(estimate.log_ratio - ratio.log_ratio), estimate.ratio)


def kind_of(key: Key, *sides: Mapping[Cell, Facts]) -> between.Kind:
    """Return what a row wanders like."""
    cell, metric = key
    if cell[:2] == BASELINE and metric != "peak_rss":
        return between.Kind.ABSOLUTE
    having = [side for side in sides if cell in side]
    baseline = having[-1].get(Cell(*BASELINE, *cell[2:]))
    return between.kind(metric, *(side[cell] for side in having), baseline=baseline)


def measurements(run: Run) -> dict[Key, Estimate]:
    """Return the ratio of each cell's metric to the baseline, and the baseline's own log-seconds.

    They are worked out from the samples, by the statistics of today, and taken from the file where
    it has none.
    """
    good = {cell: facts for cell, facts in cells(run).items() if facts["failure"] is None}
    found: dict[Key, Estimate] = {}
    for group, arms in run.samples.items():
        alive = {c: blocks for c, blocks in arms.items() if c in good or c[:2] == CONTROL}
        ratios = beside(group, alive)
        found |= {(cell, group.metric): estimate for cell, estimate in ratios.items()}
        baseline = Cell(*BASELINE, *group[1:])
        if baseline in alive and (own := absolute(alive[baseline])) is not None:
            found[baseline, group.metric] = own
    out = {}
    for cell, facts in good.items():
        for metric in facts["metrics"]:
            row = measured(facts, metric)
            if row is not None and metric in METRICS:
                estimate = found.get((cell, metric)) or tied.estimate_of(row)
                if estimate is not None:
                    out[cell, metric] = estimate
    return out


def absolute(blocks: Sequence[Samples]) -> Estimate | None:
    """Return an arm's mean log-seconds; None where one process says nothing of others."""
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


def failed(run: Run) -> dict[Cell, str | None]:
    """Return why cells failed; None where they did not."""
    return {cell: facts["failure"] for cell, facts in cells(run).items()}


def exact(run: Run) -> dict[Key, float]:
    """Return the numbers of a run that come out the same every time."""
    out: dict[Key, float] = {}
    for cell, facts in cells(run).items():
        if facts["failure"] is not None:
            continue
        out |= {(cell, name): n for name, n in facts["exact"].items() if is_number(n)}
        final = facts["final_loss"]
        if final:
            out[cell, "final_loss"] = final["same_weights"]
            if final.get("own_initialiser"):
                out[cell, "final_loss_own"] = float(np.mean(final["own_initialiser"]))
    return out


def warned(bases: Sequence[Run], new: Run, differing: Sequence[Difference]) -> Iterator[str]:
    """Yield what a reader has to know before believing a comparison."""
    last = bases[-1]
    if any(same(base, new) for base in bases):
        yield "a base and the new run are the same run: nothing can have changed"
    moved = list(dict.fromkeys(d.name for d in differing if d.name in conditions.BENEATH))
    if moved:
        yield (
            f"{wording.joined(moved)} {'differs' if len(moved) == 1 else 'differ'} between the "
            f"runs, and {BASELINE[0]} stands on that too: a ratio may have moved because the "
            "baseline did; `bakeoff ab` measures both sides in seconds"
        )
    yield from conditions.remarks(last, new)
    before, after = cells(last), cells(new)
    for cell in [c for c in before if c in after]:
        proofs = before[cell]["proof"], after[cell]["proof"]
        same_program = [proof and proof.get("same_program_as_baseline") for proof in proofs]
        if None not in same_program and same_program[0] != same_program[1]:
            said = "now compiles" if same_program[1] else "no longer compiles"
            name = f"{wording.name(after[cell])} at {cell.workload} on {cell.backend}"
            yield f"{name} {said} to the same program as {BASELINE[0]}"
    for run, name in zip((last, new), called([last, new]), strict=True):
        count = len(run.section["warnings"])
        if count:
            many = "a warning" if count == 1 else f"{count} warnings"
            yield f"{name} has {many} of its own; `bakeoff report` shows them"
