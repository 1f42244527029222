"""Run files as results: two sides compared, or the history of one machine.

Each row is a cell's comparison with the baseline of its own run: seconds of two hours differ by 5
to 8 % on a shared machine, whatever the code does, and amounts of memory by 12 %; relative to the
baseline they do not, since a run alternates between both.
"""

from __future__ import annotations

import dataclasses
import math
from collections import ChainMap, Counter
from itertools import combinations
from statistics import stdev
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from bench.cells import BASELINE, Cell
from bench.engine.costs import TURNS
from bench.estimates import MARGIN, Estimate, group_by_key
from bench.metrics import METRICS, Kind
from bench.options import METHOD
from bench.runfile import (
    CellResult,
    EnvironmentInfo,
    Results,
    ResultsWithSamples,
    RunOptions,
    find_differing_releases,
)
from bench.runfile.reader import NotARunError, Run, read
from bench.runfile.warnings import SHARED_PACKAGES
from bench.stats.changes import NO_SPREAD, Spread, compare_ratios, find_spread, log_ratio
from bench.streams import one_line
from bench.track.comparison import BASE, CHANGED_SUFFIX, NEW, find_key, is_exact
from bench.wording import describe_releases, make_printable, name_few, name_place, pluralise
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

DETAILS = ("driver", "matmul_precision")
"""Details of a device that change measurements."""
SHORT_SECONDS = 1e-3
"""Seconds of a call below which, on all cores, two runs of the same code differ by more than their
errors say: waking a thread on another core takes up to 0.1 ms. Of a step of 0.04 ms, the intervals
of 6 in 10 pairs of runs were right, of one of 2.4 ms those of 35 in 35 (results/beside); a busy
hour makes the first one 0.4 ms long (results/selftest/aa). The limit lies between."""
ON_ALL_CORES = "not comparable on all cores (use `--cores=one`)"
"""Reason why two runs of a short call are not compared, and what to do."""
LEAST_RUNS = 3
"""Base runs that show how much runs of the same code differ."""
UNKNOWN_SPREAD = Spread(math.inf, 0.0)
"""Spread of rows about which two runs say nothing."""
SKIPPED_FOLDERS = {".git", ".venv", "node_modules", "__pycache__"}
"""Folders that hold many files and no run."""
SKIPPED_PREFIX = "skipped: "
"""Beginning of the warning about a file that cannot be read."""


def compare(bases: Sequence[Run], new: Run, margin: float = MARGIN) -> ResultsWithSamples:
    """Return the comparison of a new run with a base run, or with several of the same code.

    Base runs may be in any order; the last one's amounts are shown. Equal names are numbered.

    Raises:
        BakeoffError: the runs have no cell in common, one is given twice, or they were measured on
            other machines or in another way.
    """
    alike = Counter(run.name for run in (*bases, new))
    *bases, new = runs = [
        dataclasses.replace(run, name=f"{run.name} ({number})") if alike[run.name] > 1 else run
        for number, run in enumerate((*bases, new), 1)
    ]
    require_comparable(runs)
    together = name_few([run.name for run in bases])
    results = ResultsWithSamples(
        kind="ab",
        base=BASE,
        options=RunOptions(margin=margin),
        conditions=new.results.conditions,
        warnings=list(warn_of_differences(runs)),
    )
    for side, run in ((BASE, dataclasses.replace(bases[-1], name=together)), (NEW, new)):
        results.environments[side] = describe_environment(run)
        results.estimates += [replace(row, environment=side) for row in run.results.estimates]
        results.cells += [replace(row, environment=side) for row in run.results.cells]
    unsteady = {key for run in runs for key in find_unsteady(run.results)}
    rows = [*compare_rows([run.results for run in bases], new.results, margin, unsteady)]
    results.estimates += rows
    unknown = (row for row in rows if row.standard_error is None)
    gaps = group_by_key((r.cell, r.metric) for r in unknown if (r.cell, r.metric) in unsteady)
    results.cells = [
        replace(row, missing=row.missing | dict.fromkeys(gaps.get(row.cell, ()), ON_ALL_CORES))
        for row in results.cells
    ]
    return results


def require_comparable(runs: Sequence[Run]) -> None:
    """Raise BakeoffError unless all are ordinary runs, given once each and measured alike."""
    *bases, new = runs
    cells = {row.cell for row in new.results.cells}
    for run in runs:
        if run.results.kind != "run":
            raise BakeoffError(
                f"{run.name} is a file of `bakeoff {run.results.kind}`, which has compared "
                "already: `bakeoff report` shows it; give what `pytest bench --benchmark-json` "
                "wrote"
            )
        if not cells & {row.cell for row in run.results.cells}:
            raise BakeoffError(
                f"{run.name} and {new.name} have no cell in common; give runs of the same "
                "entrants, styles and workloads"
            )
    for run, other in combinations(runs, 2):
        if (run.when, run.results.estimates) == (other.when, other.results.estimates):
            raise BakeoffError(f"{run.name} and {other.name} are the same run; give each run once")
    after = list_conditions(new)
    for run in bases:
        differing = [
            f"{what} {before}, then {after[what]}"
            for what, before in list_conditions(run).items()
            if after.get(what, before) != before
        ]
        if differing:
            raise BakeoffError(
                f"{run.name} and {new.name} were made under different conditions: "
                f"{'; '.join(differing)}; measure again, or measure both sides now with "
                "`bakeoff ab`"
            )


def list_conditions(run: Run) -> dict[str, str]:
    """Return condition → its value, for those that are known and that two runs must share.

    They are the machine and the way of measuring, whose changes are no changes of a program.
    """
    machine, about, options = run.machine, run.results.conditions, run.results.options
    values: dict[str, Any] = {
        "processor": machine.processor_model,
        "cores": len(about.affinity or ()) or None,
        "system": " ".join(filter(None, (machine.system, machine.machine))),
        "garbage collector": about.garbage_collector,
        "datum of a block": about.datum,
        "threads": about.threads,
    }
    method = {f"--{name}": getattr(options, name) for name in METHOD}
    values |= {name: "default" if value is None else value for name, value in method.items()}
    values |= {f"{backend} device": kind for backend, kind in about.devices.items()}
    for backend, details in about.device_details.items():
        values |= {f"{n.replace('_', ' ')} on {backend}": details.get(n) for n in DETAILS}
    for row in run.results.estimates:
        if row.metric == "parameters" and row.cell.is_baseline:
            values[f"parameters at {name_place(row.cell)}"] = int(row.value)
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def describe_environment(run: Run) -> EnvironmentInfo:
    """Return a run's environment: its name in place of a SPEC, its releases and its commit."""
    commit = (run.commit.id or "")[:10]
    if commit and run.commit.dirty:
        commit += CHANGED_SUFFIX
    environments = [*run.results.environments.values()] or [EnvironmentInfo()]
    versions = dict(ChainMap(*(info.versions for info in environments)))
    return replace(environments[0], spec=run.name, versions=versions, pins={}, commit=commit)


def list_known_commits(environments: Iterable[EnvironmentInfo]) -> list[str]:
    """Return the known commits of runs, each once, in their order."""
    return list(dict.fromkeys(info.commit for info in environments if info.commit))


def make_relative(results: Results) -> dict[tuple[Cell, str], Estimate]:
    """Return a run's comparisons with its baseline as ratios, without that of the control.

    The time that an arm adds to a call was measured as a fraction of the baseline's call, and is
    one here again: seconds of two hours differ by 5 to 8 %, added ones as well.
    """
    out = {}
    for row in results.estimates:
        if row.against != str(BASELINE) or row.cell.is_control:
            continue
        if row.form == "added":
            if not (level := row.level) or row.value <= -level:
                continue
            low, high = (end if end is None else 1 + end / level for end in (row.low, row.high))
            error = row.standard_error and row.standard_error / (level + row.value)
            ends = {"value": 1 + row.value / level, "low": low, "high": high}
            row = replace(row, form="ratio", unit="", standard_error=error, **ends)
        out[row.cell, row.metric] = row
    return out


def find_unsteady(results: Results) -> Iterator[tuple[Cell, str]]:
    """Yield the cells and metrics whose ratios vary from run to run by more than their errors say.

    They are short calls that may use several cores.
    """
    cores, affinity, table = results.options.cores, results.conditions.affinity, results.table
    if cores == "one" or (affinity and len(affinity) == 1):
        return
    for cell, metric in make_relative(results):
        about = METRICS[metric]
        pinned = cores == "auto" and about.turn in TURNS and TURNS[about.turn].on_one_core
        if about.kind is Kind.WARM and cell.backend == "cpu" and not pinned:
            amounts = (table.amount(each, metric) for each in (cell, cell.baseline))
            if min((row.value for row in amounts if row), default=math.inf) < SHORT_SECONDS:
                yield cell, metric


def compare_rows(
    bases: Sequence[Results], new: Results, margin: float, unsteady: Collection[tuple[Cell, str]]
) -> Iterator[Estimate]:
    """Yield a new run's ratios to the baseline, relative to those of base runs.

    If three or more base runs differ by more than their errors, so may the new one; two say little,
    and nothing of `unsteady` cells and metrics.
    """
    *before, after = [make_relative(results) for results in (*bases, new)]
    common = {key: rows for key in after if (rows := [run[key] for run in before if key in run])}
    unknown = {key for key, rows in common.items() if key in unsteady and len(rows) < LEAST_RUNS}
    # For all metrics together: corrected for each alone, 2 of 48 pairs of the same code were called
    number = len({find_key(rows[-1]) for key, rows in common.items() if key not in unknown})
    for key, rows in common.items():
        row, is_unsteady, least = after[key], key in unsteady, NO_SPREAD
        spread = find_spread(row)
        if len(rows) >= LEAST_RUNS:
            least = Spread(math.sqrt(2) * stdev(map(log_ratio, rows)), len(rows) - 1)
        elif is_unsteady:
            least = UNKNOWN_SPREAD
        if is_unsteady and len(rows) >= LEAST_RUNS:  # the runs' own errors are worth no more
            spread = spread._replace(df=least.df)
            *rows, row = (replace(r, df=least.df) for r in (*rows, row))
        made = compare_ratios(
            rows,
            [row],
            spread,
            comparisons=max(1, number),
            pooled=is_unsteady,
            margin=margin,
            least=least,
        )
        yield replace(made, environment=NEW, against=BASE)


def warn_of_differences(runs: Sequence[Run]) -> Iterator[str]:
    """Yield warnings: of releases and variables that change the baseline, and of the runs' own."""
    *bases, new = runs
    differing: dict[str, tuple[str | None, str | None]] = {}
    if len(commits := list_known_commits(map(describe_environment, bases))) > 1:
        yield f"base runs come from {len(commits)} commits and are pooled: {name_few(commits)}"
    for run in bases:
        packages = find_differing_releases(*(describe_environment(r).versions for r in (run, new)))
        differing |= {name: pair for name, pair in packages.items() if name in SHARED_PACKAGES}
        differing |= find_differing_releases(*(r.results.conditions.variables for r in (run, new)))
    if differing:
        yield (
            f"What differs ({', '.join(describe_releases(differing))}) affects {BASELINE.entrant} "
            "too: a ratio may have changed because the baseline did; `bakeoff ab` compares seconds"
        )
    for run in runs[-2:]:
        if run.results.warnings:
            its = pluralise(len(run.results.warnings), "warning")
            yield f"{run.name} has {its} of its own; `bakeoff report` shows them"


def read_history(paths: Sequence[Path]) -> ResultsWithSamples:
    """Return the runs in files, and in folders and below, as the history of one machine.

    The machine is that of the newest run. Warnings name unreadable files and runs left out.

    Raises:
        BakeoffError: a file or folder is not there, or none holds a run.
    """
    results = ResultsWithSamples(kind="history")
    files = list(dict.fromkeys(file for path in paths for file in list_json_files(path)))
    runs = sorted(read_runs(files, results.warnings), key=lambda run: run.when)
    if not runs:
        first = f" (the first problem: {results.warnings[0]})" if results.warnings else ""
        raise BakeoffError(
            f"{', '.join(map(str, paths))}: none of {len(files)} JSON files is a run{first}; give "
            "what `pytest bench --benchmark-autosave` or --benchmark-json wrote"
        )
    conditions, others = dict[str, str](), Counter[str]()
    for run in reversed(runs):
        there = list_conditions(run)
        if differing := [f"{w} {v}" for w, v in there.items() if conditions.get(w, v) != v]:
            others[", ".join(differing)] += 1
            continue
        conditions |= there
        results.conditions.devices = run.results.conditions.devices | results.conditions.devices
        moment = run.when
        if moment in results.environments:  # two runs may have the same second
            moment += f".{len(results.environments):03}"
        rows = (*make_relative(run.results).values(), *filter(is_exact, run.results.estimates))
        failed = (r for r in run.results.cells if r.failure is not None and not r.cell.is_control)
        unsteady = group_by_key(find_unsteady(run.results)).items()
        results.environments[moment] = describe_environment(run)
        results.estimates += [replace(row, environment=moment) for row in rows]
        results.cells += [replace(row, environment=moment) for row in failed]
        results.cells += [
            CellResult(cell=c, environment=moment, missing=dict.fromkeys(metrics, ON_ALL_CORES))
            for c, metrics in unsteady
        ]
        margin = max(results.options.margin, run.results.options.margin)
        results.options = replace(results.options, margin=margin)
    for other, count in others.items():
        results.warnings.append(
            f"{count} × a run with {other} left out: give its files alone to see it"
        )
    results.environments = dict(sorted(results.environments.items()))
    results.conditions.devices |= {"cpu": runs[-1].processor or "unknown processor"}
    return results


def list_json_files(path: Path) -> list[Path]:
    """Return the JSON files in a folder and below, or the one file that is given."""
    if not path.exists():
        raise BakeoffError(f"there is no {path}; give run files, or folders that hold them")
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    return [f for f in files if f.is_file() and not SKIPPED_FOLDERS & {*f.relative_to(path).parts}]


def read_runs(paths: Iterable[Path], warnings: list[str]) -> Iterator[Run]:
    """Yield the runs among files, each once: autosave may have copied a run.

    Warnings are added about files that cannot be read, and about those of other commands.
    """
    known: set[int] = set()
    for path in paths:
        try:
            run = read(path, samples=False)
            if not run.when:
                raise BakeoffError(f"{path} has no date")
        except NotARunError:
            continue
        except BakeoffError as error:
            warnings.append(f"{SKIPPED_PREFIX}{' '.join(make_printable(str(error)).split())}")
            continue
        kind, values = run.results.kind, (row.value for row in run.results.estimates)
        content = hash((run.commit.id, *values))
        if kind != "run":
            warnings.append(
                f"{one_line(path.name)} left out: it is the result of `bakeoff {kind}`, no run"
            )
        elif content not in known:
            known.add(content)
            yield run
