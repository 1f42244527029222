"""Run files compared: two tables of estimates, joined.

Each row is a cell's comparison with the baseline of its own run: seconds of two hours differ by 5
to 8 % on a shared machine, whatever the code does, and amounts of memory by 12 %; relative to the
baseline they do not, since both were measured in turns.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.cells import BASELINE
from bench.estimates import MARGIN
from bench.runfile import ResultsWithSamples, RunOptions
from bench.stats.changes import difference
from bench.track import between_runs, conditions
from bench.track.comparison import BASE, NEW, shared
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from bench.cells import Cell
    from bench.estimates import Estimate
    from bench.runfile import EnvironmentInfo, Results
    from bench.runfile.reader import Run

    type Row = tuple[Cell, str]
    """A cell and a metric."""


def compare(
    bases: Sequence[Run], new: Run, *, allowed: Collection[str] = (), margin: float = MARGIN
) -> ResultsWithSamples:
    """Return what a new run is beside a base run, or several of the same code.

    Args:
        bases: In any order; the last one's amounts are shown.
        new: The other run.
        allowed: Names of conditions that may differ.
        margin: Fraction within which two times are equivalent.

    Raises:
        BakeoffError: the runs have no cell in common, one is given twice as a base, or they were
            made under different conditions that are not allowed.
    """
    runs = [*bases, new]
    names = names_of(runs)
    require_common(runs, names)
    differing = conditions.require_same(runs, names, allowed)
    base = bases[-1].results
    return ResultsWithSamples(
        kind="ab",
        base=BASE,
        options=RunOptions(margin=margin),
        environments={BASE: info(bases[-1], ", ".join(names[:-1])), NEW: info(new, names[-1])},
        conditions=new.results.conditions,
        cells=[
            replace(row, environment=side)
            for side, results in ((BASE, base), (NEW, new.results))
            for row in results.cells
        ],
        estimates=[
            *(
                replace(row, environment=side)
                for side, results in ((BASE, base), (NEW, new.results))
                for row in results.estimates
            ),
            *differences([run.results for run in bases], new.results, margin),
        ],
        warnings=list(warnings(bases, new, differing, names)),
    )


def names_of(runs: Sequence[Run]) -> list[str]:
    """Return what runs are called; those whose files have one name also have a number."""
    alike = Counter(run.name for run in runs)
    return [
        f"{run.name} ({number})" if alike[run.name] > 1 else run.name
        for number, run in enumerate(runs, 1)
    ]


def require_common(runs: Sequence[Run], names: Sequence[str]) -> None:
    """Raise BakeoffError for what is no ordinary run, has no cell in common, or is there twice."""
    cells = [{row.cell for row in run.results.cells} for run in runs]
    for run, name, own in zip(runs, names, cells, strict=True):
        if run.results.kind != "run":
            raise BakeoffError(
                f"{name} is a file of `bakeoff {run.results.kind}`, which has compared already: "
                "`bakeoff report` shows it; give what `pytest bench --benchmark-json` wrote"
            )
        if not own & cells[-1]:
            raise BakeoffError(
                f"{name} and {names[-1]} have no cell in common; give runs of the same entrants, "
                "styles and workloads"
            )
    for number, run in enumerate(runs[:-1]):
        if any(same(run, other) for other in runs[:number]):
            raise BakeoffError(f"{names[number]} is given twice as a base; give each run once")


def same(run: Run, other: Run) -> bool:
    """Tell whether two files are of one run."""
    return (run.when, run.results.estimates) == (other.when, other.results.estimates)


def info(run: Run, name: str) -> EnvironmentInfo:
    """Return what a side is: its file in place of a SPEC, its releases and its commit."""
    commit = str(run.commit.get("id") or "")
    dirty = ", changed since" if commit and run.commit.get("dirty") else ""
    first = next(iter(run.results.environments.values()))
    releases = conditions.releases(run)
    return replace(first, spec=name, versions=releases, pins={}, commit=f"{commit[:10]}{dirty}")


def relative(results: Results) -> dict[Row, Estimate]:
    """Return the comparisons of a run with its baseline, that of the control left out."""
    against = str(BASELINE)
    return {
        (row.cell, row.metric): row
        for row in results.estimates
        if row.against == against and not row.cell.is_control
    }


def levels(results: Results) -> dict[Row, float]:
    """Return the seconds of the baseline's call, of each row that is what an arm adds to it."""
    table = results.table
    return {
        key: level.value
        for key, row in relative(results).items()
        if row.form == "added" and (level := table.amount(row.cell.baseline, row.metric))
    }


def at_speed(results: Results, speed: Mapping[Row, float]) -> dict[Row, Estimate]:
    """Return the comparisons of a run as they would be with these seconds of a baseline's call."""
    own = levels(results)
    return {
        key: between_runs.at_speed(row, own.get(key, 0.0), speed.get(key, 0.0))
        for key, row in relative(results).items()
    }


def differences(bases: Sequence[Results], new: Results, margin: float) -> Iterator[Estimate]:
    """Yield a new run's rows against base runs': differences of logs, or of what is added."""
    speed, table = levels(bases[-1]), bases[-1].table
    before, after = [at_speed(results, speed) for results in bases], at_speed(new, speed)
    learned = between_runs.learned(before, speed) if len(bases) > 1 else {}
    between = between_runs.chosen(learned)
    common = {key: rows for key in after if (rows := [run[key] for run in before if key in run])}
    distinct = {shared(rows[-1]): rows[-1] for rows in common.values()}.values()
    families = Counter((row.metric, row.cell.baseline) for row in distinct)
    for key, rows in common.items():
        cell, metric = key
        if rows == [after[key]]:  # one run, beside itself
            after[key] = replace(after[key], standard_error=0.0)
            rows = [after[key]]
        call = table.amount(cell, metric)
        row = difference(
            rows,
            after[key],
            between_runs.spread(after[key], speed.get(key, 0.0), between),
            comparisons=families[metric, cell.baseline],
            level=call.value if call else 0.0,
            margin=margin,
        )
        yield replace(row, environment=NEW, against=BASE)


def warnings(
    bases: Sequence[Run], new: Run, differing: dict[str, str], names: Sequence[str]
) -> Iterator[str]:
    """Yield what a reader has to know before believing a comparison."""
    if any(same(base, new) for base in bases):
        yield "a base and the new run are the same run: nothing can have changed"
    beneath = list(dict.fromkeys(n for n in differing.values() if n in conditions.BENEATH))
    if beneath:
        yield (
            f"what differs ({', '.join(beneath)}) affects {BASELINE.entrant} too: a ratio may have "
            "changed because the baseline did; `bakeoff ab` compares seconds"
        )
    last = bases[-1]
    before = {row.cell: row.proof for row in last.results.cells if row.proof}
    for row in new.results.cells:
        old = before.get(row.cell)
        if row.proof and old and row.proof.same_program != old.same_program:
            said = "now compiles" if row.proof.same_program else "no longer compiles"
            yield (
                f"{row.cell.arm.words} at {row.cell.place} {said} to the same program as "
                f"{BASELINE.entrant}"
            )
    for run, name in ((last, names[-2]), (new, names[-1])):
        if run.results.warnings:
            count = len(run.results.warnings)
            plural = "" if count == 1 else "s"
            yield f"{name} has {count} warning{plural} of its own; `bakeoff report` shows them"
