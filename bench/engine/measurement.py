"""One measurement from its task to its results, for `pytest bench`, `ab` and the others."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.engine.driver import Driver
from bench.engine.journal import FOLDER, SUFFIX, Journal, Part, open_journals
from bench.engine.machine import Watch, list_lanes, machine_lock
from bench.engine.plan import Plan
from bench.engine.state import RunState
from bench.engine.task import find_programs, find_same_programs, make_groups, note_twins
from bench.estimates import MIN_COLD, Estimate
from bench.metrics import HOST, HOST_PER_ARRAY, METRICS
from bench.options import METHOD
from bench.runfile import (
    LONGEST_TEXT,
    CellResult,
    Conditions,
    FileKind,
    ResultsWithSamples,
    RunOptions,
    TimeSpent,
    pack_samples,
)
from bench.runfile.warnings import collect_warnings
from bench.stats.changes import estimate_array_costs
from bench.stats.estimate import estimate, widen_intervals
from bench.stats.verdicts import (
    find_impossible,
    find_too_fast,
    find_unlike_skeletons,
    settle_by_program,
)
from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Action
    from bench.engine.task import Task
    from bench.offer import Offer
    from bench.options import Options
    from bench.samples import Sample

CODE = (
    *("bench/engine", "bench/worker", "bench/stats", "common", "impls"),
    *("bench/cells.py", "bench/estimates.py", "bench/metrics.py", "bench/samples.py"),
)
"""Folders and files of the code that a run's numbers depend on."""
SETUP_PARTS = {
    "options": "other options",
    "needed": "other cells or metrics",
    "outside": "other entrants or files of your own",
    "lanes": "other cores",
    "facts": "other releases, devices or settings",
    "code": "other code of entrants or of the engine",
}
"""Part of the setup that must stay the same to go on → words for a difference."""


@dataclass
class Measurement:
    """A measurement: its results, samples and journal."""

    results: ResultsWithSamples
    samples: list[Sample]
    journal: Journal
    """Journal, to be removed when its contents are written or shown."""
    interrupted: bool = False


def measure(
    task: Task,
    *,
    wait: bool = False,
    resume: str | None = None,
    on_progress: Callable[[Action, TimeSpent], None] = lambda _action, _spent: None,
    is_enough: Callable[[Sequence[Sample]], bool] = lambda _samples: False,
    partial: bool = False,
) -> Measurement:
    """Measure a task; every sample is in a journal first.

    The clock of its budget begins when it has the machine.

    Args:
        task: Cells to measure, and how.
        wait: Whether to wait for other runs on this machine.
        resume: A journal or run file to go on with; empty for the newest journal that fits.
        on_progress: Called before each action.
        is_enough: Called between visits, tells whether more samples would be a waste.
        partial: Whether Ctrl-C leaves a part of the results.

    Raises:
        BakeoffError: what it goes on with is of another task, or another run is measuring.
        DiskError: the disk is full; what was measured before is in the journal.
        KeyboardInterrupt: it was cut off, and no part of the results was asked for.
    """
    setup = digest_setup(task)
    earlier = None if resume is None else find_earlier(task.kind, setup, resume)
    with machine_lock(wait=wait):
        if earlier is not None and not earlier.has_ended:  # another run may have gone on with it
            journal = find_earlier(task.kind, setup, str(earlier.path))
            words = [w for w in task.arguments if not w.startswith("--resume")]
            journal.known.arguments = [w for w in words if not w.endswith(SUFFIX)]
        else:
            first = make_first_part(task, setup, earlier)
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}-{task.kind}{SUFFIX}"
            journal = Journal.create(FOLDER / name, first)
        state = RunState(
            make_groups(task), task.options, list_lanes(), task.base, calls_first=task.calls_first
        )
        journal.continue_run(state)
        plan = Plan(state, is_enough)
        driver = Driver(plan, journal, task, on_progress)
        watch, interrupted = Watch(), False
        try:
            driver.run()
        except KeyboardInterrupt:
            if not partial:
                raise
            interrupted = True
            state.note_missing()
        results, samples = collect_results(task, state, journal.known, watch)
        return Measurement(results, samples, journal, interrupted)


# journals


def make_first_part(task: Task, setup: dict[str, str], earlier: Journal | None) -> Part:
    """Return the beginning of a journal; with the contents of an ended run to go on with."""
    first = Part(
        kind=task.kind,
        arguments=list(task.arguments),
        environments={name: task.sides[name].info for name in task.needed},
        setup=setup,
    )
    if earlier is not None:
        known = earlier.known
        first.cells, first.samples, first.spent = known.cells, known.samples, known.spent
    return first


def find_earlier(kind: FileKind, setup: Mapping[str, str], path: str) -> Journal:
    """Open what a measurement goes on with: at a path, or the newest journal that fits.

    Raises:
        BakeoffError: there is none, or it is of another task.
    """
    problem = ""
    for journal in open_journals(kind, path):
        known = journal.known
        differing = describe_differences(known.setup, setup, SETUP_PARTS)
        if not differing:
            return journal
        what = f"{journal.path} is of another measurement ({differing})"
        if journal.has_ended:
            advice = f"; `{known.make_command()}` made it: give one of this measurement"
        else:
            command = known.make_command(f"--resume={journal.path}")
            advice = f": go on with it by its own command, `{command}`"
        problem = problem or f"{what}{advice}, or start anew without --resume"
    raise BakeoffError(problem)


def digest_setup(task: Task) -> dict[str, str]:
    """Return part of the setup → digest; they must be the same where a measurement goes on."""
    options = task.options
    parts = {
        "options": {name: getattr(options, name) for name in METHOD},
        "needed": {
            name: {str(cell): sorted(metrics) for cell, metrics in cells.items()}
            for name, cells in task.needed.items()
        },
        "outside": [
            {n: hashlib.sha256(Path(p).read_bytes()).hexdigest() for n, p in task.outside.items()},
            *(side.offer.modules for side in task.sides.values()),
        ],
        "lanes": list_lanes(),
        "facts": {
            name: (side.offer.facts, side.info.versions, side.info.pins, side.info.commit)
            for name, side in task.sides.items()
        },
        "code": digest_code(),
    }
    return {
        name: hashlib.sha256(msgspec.json.encode(part, order="sorted")).hexdigest()[:16]
        for name, part in parts.items()
    }


def describe_differences(
    before: Mapping[str, str], now: Mapping[str, str], same: Mapping[str, str]
) -> str:
    """Return in words which digests differ among those that must be the same."""
    return ", ".join(text for name, text in same.items() if before.get(name) != now[name])


def digest_code() -> str:
    """Return the SHA-256 of the code that a run's numbers depend on."""
    digest = hashlib.sha256()
    for part in map(ROOT.joinpath, CODE):
        for path in sorted(part.rglob("*.py")) or [part]:
            digest.update(f"{path.relative_to(ROOT).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


# results


def collect_results(
    task: Task, state: RunState, known: Part, watch: Watch
) -> tuple[ResultsWithSamples, list[Sample]]:
    """Return a run's results, with the samples of cells that have not failed."""
    cells = state.collect_cells()
    note_twins(cells)
    samples, estimates = estimate_sound_cells(task, state, cells)
    spent, usage, offer = state.spent, watch.usage(), next(iter(task.sides.values())).offer
    results = ResultsWithSamples(
        kind=task.kind,
        base=task.base,
        arguments=known.arguments,
        metrics=list(task.metrics),
        options=msgspec.convert(task.options, RunOptions, from_attributes=True),
        environments={name: side.info for name, side in task.sides.items()},
        setup=known.setup,
        conditions=describe_conditions(offer),
        cells=cells,
        estimates=estimates,
        notes=dict(task.notes),
        left_out=dict(task.left_out),
        spent=msgspec.structs.replace(
            spent,
            wall_seconds=spent.earlier_seconds + spent.wall_seconds,
            others=usage.others,
            stolen=usage.stolen,
            busiest=usage.busiest,
        ),
        samples=pack_samples(samples),
    )
    remarks = list(dict.fromkeys(note for side in state.sides for note in side.notes))
    results.warnings = collect_warnings(results, offer, remarks)
    return results, samples


def estimate_sound_cells(
    task: Task, state: RunState, cells: Sequence[CellResult]
) -> tuple[list[Sample], list[Estimate]]:
    """Return the samples and estimates of cells that have not failed.

    Cells whose estimates cannot be right fail here, and the others are estimated once more.
    """
    while True:  # each time, at least one more cell has failed
        failed = {(row.environment, row.cell) for row in cells if row.failure is not None}
        samples = [s for s in state.samples if (s.environment, s.cell) not in failed]
        samples = drop_too_fast(samples, cells)
        estimates = make_estimates(samples, cells, task.options, task.base, state.least_cold)
        if task.all_together:
            named = {*task.metrics} | {HOST_PER_ARRAY for name in task.metrics if name == HOST}
            estimates = [
                row
                for row in estimates
                if not named or row.metric in named or not METRICS[row.metric].varies
            ]
            estimates = widen_intervals(estimates, task.options.margin)
        impossible: Mapping[Cell, str] = {}
        if not task.base:
            impossible = find_impossible(estimates, find_same_programs(cells))
        unlike_skeletons = {} if impossible else find_unlike_skeletons(estimates)
        if not impossible and not unlike_skeletons:
            return samples, estimates
        for row in cells:
            why = impossible.get(row.cell) or unlike_skeletons.get((row.environment, row.cell))
            row.failure = row.failure or why


def drop_too_fast(samples: Sequence[Sample], cells: Sequence[CellResult]) -> list[Sample]:
    """Return samples without the rows that cannot be right, and note why these are missing."""
    too_fast = find_too_fast(samples)
    for row in cells:
        for (environment, cell, metric), why in too_fast.items():
            if cell == row.cell and environment in (row.environment, ""):
                row.missing[metric] = why
    return [s for s in samples if (s.environment, s.cell, s.metric) not in too_fast]


def describe_conditions(offer: Offer) -> Conditions:
    """Return the conditions of a run, as its environment tells them."""
    variables = offer.conditions.get("environment", {})
    conditions = {
        "devices": offer.devices,
        "device_details": offer.details,
        **offer.conditions,
        "variables": {name: value[:LONGEST_TEXT] for name, value in variables.items()},
    }
    return msgspec.convert(conditions, Conditions)


def make_estimates(
    samples: Sequence[Sample],
    cells: Sequence[CellResult],
    options: Options,
    base: str = "",
    least_cold: int = MIN_COLD,
) -> list[Estimate]:
    """Return the estimates of samples, compared with the baseline or with an environment.

    Cells with fewer cold samples than `least_cold` have no cold estimates.
    """
    margin, programs = options.margin, find_programs(cells)
    estimates = estimate(samples, base, margin=margin, programs=programs, least_cold=least_cold)
    if base:
        return [*estimates, *estimate_array_costs(estimates, base, margin)]
    return settle_by_program(estimates, find_same_programs(cells), margin)
