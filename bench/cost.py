"""What a style costs a model of yours: the law of host costs, fitted to a run, and what follows.

A run at several depths (`pytest bench --workload depth`) says what each style adds to a call with 8
to 194 parameter arrays. That is a fixed part and a part for each array, whatever the arrays hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bench.cells import BASELINE, TOGETHER, Arm
from bench.compare.conditions import versions
from bench.estimates import REFERENCE, Group, differences, table
from bench.estimates import added as added_seconds
from bench.metrics import HOST
from bench.report import wording
from bench.report.table import Column, Document, Row, Section, Table, Value, percent
from bench.runfile.reader import processor_model
from bench.stats.law import Law, Range, law
from common.config import WORKLOADS
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.estimates import Arms
    from bench.runfile.reader import Run

KIND, VERSION = "jax-bakeoff cost", 1
PUBLISHED = Path(__file__).parent.parent / "results" / "cost" / "host-cost.json"
SMALL = 0.01
"""Of a step: a cost below it does not matter."""
GAUGES, GAUGE_SECONDS = (("equinox", "filter_jit"), ("flax_nnx", "cached_partial")), 20.0
"""Styles by which this machine's Python is compared with the table's, and for how long."""


class Measured(msgspec.Struct, frozen=True):
    """What a style was measured to add to a call."""

    arrays: int
    seconds: float
    low: float
    high: float


class StyleCost(msgspec.Struct, frozen=True):
    """The law of one style: seconds added to a call of plain JAX."""

    entrant: str
    style: str
    fixed: float
    each: float
    """Seconds for each parameter array."""
    covariance: tuple[float, float, float]
    """Of both parts, as in `bench.stats.law.Law`."""
    workers: int
    misfit: float
    measured: tuple[Measured, ...] = ()
    devices: int = 0
    weak: bool = False

    @property
    def law(self) -> Law:
        """The law itself."""
        return Law(self.fixed, self.each, self.covariance, self.workers, self.misfit)

    @property
    def name(self) -> str:
        """The entrant, and its style where that needs a name."""
        return wording.name(self)


class CostTable(msgspec.Struct, frozen=True):
    """The laws of all styles on one machine."""

    kind: str
    version: int
    machine: str
    versions: dict[str, str]
    when: str
    run: str
    """Name of the run file."""
    baseline: StyleCost
    """Of a whole call of plain JAX: what it has to do too, and what its device takes there."""
    styles: tuple[StyleCost, ...]

    @property
    def most_arrays(self) -> int:
        """The largest number that was measured."""
        return max(point.arrays for style in self.styles for point in style.measured)


def arrays_of(workload: str) -> int:
    """Return the number of weight and bias arrays of a workload's model."""
    return 2 * (WORKLOADS[workload].layers + 1)


def cost_table(run: Run, backend: str = "cpu") -> CostTable:
    """Return the laws that a run's host costs at several depths follow.

    Raises:
        BakeoffError: it has host costs at fewer than two depths, or from too few workers.
    """
    groups = {
        workload: run.samples[group]
        for workload in TOGETHER["depth"]
        if (group := Group(HOST, workload, backend)) in run.samples
    }
    costs, levels, baseline = by_worker(groups)
    sizes = np.array([arrays_of(workload) for workload in groups], float)
    laws = {arm: law(sizes, rows, levels[arm]) for arm, rows in costs.items()}
    plain = law(sizes, baseline, np.nanmean(baseline, 0)) if groups else None
    if plain is None or not any(laws.values()):
        raise BakeoffError(
            f"{run.name} has no host costs at two depths from three workers; make one with "
            "`pytest bench --workload depth --metric host_cost --budget 900`"
        )
    measured = measured_at(groups)
    return CostTable(
        KIND,
        VERSION,
        processor_model(run.machine),
        versions(run),
        run.when,
        run.name,
        StyleCost(*BASELINE, *plain),
        tuple(
            StyleCost(arm.entrant, arm.full_style, *found, measured[arm])
            for arm, found in laws.items()
            if found is not None
        ),
    )


def by_worker(
    groups: Mapping[str, Arms],
) -> tuple[dict[Arm, np.ndarray], dict[Arm, np.ndarray], np.ndarray]:
    """Return what arms add to a call in each worker at each depth, and the references' calls.

    In each block it is a part of what the references take there, which a slow core slows down too.

    Returns:
        By arm, seconds, workers x depths, and the time of a whole call by depth; seconds of the
        references, workers x depths.
    """
    tables = {workload: table(arms) for workload, arms in groups.items()}
    workers = sorted({int(w) for each in tables.values() for w in each.worker})
    empty = np.full((len(workers), len(tables)), np.nan)
    costs: dict[Arm, np.ndarray] = {}
    level: dict[Arm, np.ndarray] = {}
    baseline = empty.copy()
    for column, each in enumerate(tables.values()):
        references, others = each.compared(REFERENCE)
        seconds = np.exp(each.logs)
        beside = seconds[:, references].mean(1)
        usual = float(np.nanmedian(beside))
        for row, worker in enumerate(workers):
            mine = (each.worker == worker) & ~np.isnan(beside)
            if not mine.any():
                continue
            baseline[row, column] = beside[mine].mean()
            for arm in others:
                parts = seconds[mine, arm] / beside[mine] - 1
                if not np.isnan(parts).all():
                    own = costs.setdefault(each.cells[arm].arm, empty.copy())
                    own[row, column] = usual * np.nanmean(parts)
        for arm, own in costs.items():
            known = own[:, column]
            whole = usual + (np.nanmean(known) if not np.isnan(known).all() else 0.0)
            level.setdefault(arm, np.full(len(tables), np.nan))[column] = whole
    return costs, level, baseline


def measured_at(groups: Mapping[str, Arms]) -> dict[Arm, tuple[Measured, ...]]:
    """Return what each arm was measured to add, by arm, the fewest arrays first."""
    found: dict[Arm, tuple[Measured, ...]] = {}
    for workload, arms in groups.items():
        estimates, reference = differences(arms)
        for cell, estimate in estimates.items():
            seconds = added_seconds(estimate, reference)
            point = Measured(arrays_of(workload), *seconds)
            found[cell.arm] = (*found.get(cell.arm, ()), point)
    return found


def read_table(path: Path = PUBLISHED) -> CostTable:
    """Return a table of costs from its file.

    Raises:
        BakeoffError: it cannot be read, or is none.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=CostTable)
    except OSError as error:
        raise BakeoffError(
            f"the table of costs {path} cannot be read ({error.strerror}); make one with "
            "`bakeoff cost --from RUN.json`"
        ) from error
    except msgspec.MsgspecError as error:
        raise BakeoffError(f"{path} is no table of costs ({error})") from error
    if (found.kind, found.version) != (KIND, VERSION):
        raise BakeoffError(f"{path} is {found.kind} {found.version}; {KIND} {VERSION} is needed")
    return found


def document(
    costs: CostTable,
    arrays: int,
    step_seconds: float,
    styles: Sequence[StyleCost],
    host: float = 1.0,
) -> Document:
    """Return what styles cost a model.

    Args:
        costs: The table that it rests on.
        arrays: Parameter arrays of the model.
        step_seconds: Of its training step on the device, without what a style adds.
        styles: Of the table.
        host: How many times as long this machine's Python takes as the table's.
    """
    columns = (
        Column("style"),
        Column("added per step", number=True),
        Column("of your step", number=True, help="if nothing overlaps"),
        Column("if all\noverlaps", number=True, help="if the device never waits for the host"),
        Column("below 1 %\nfrom", number=True, help="the step time from which it is below 1 %"),
    )
    rows = tuple(
        cost_row(style, costs, arrays, step_seconds, host)
        for style in sorted(styles, key=lambda style: style.law.at(arrays).value)
    )
    return Document(
        title="What each style costs your model",
        subtitle=f"{arrays} parameter arrays, {Value(step_seconds, 's')} a step",
        sections=(
            Section("", tables=(Table(columns, rows),)),
            Section("", tuple(reading(costs, arrays, host))),
        ),
        fine_print=(
            f"Measured on {costs.machine}, {costs.when[:10]}, with "
            f"{', '.join(f'{n} {v}' for n, v in costs.versions.items() if n != 'jax-bakeoff')}.",
        ),
    )


def cost_row(
    style: StyleCost, costs: CostTable, arrays: int, step_seconds: float, host: float
) -> Row:
    """Return what one style costs."""
    found = Range(*(host * end for end in style.law.at(arrays)))
    own = host * costs.baseline.law.at(arrays).value
    late = max(0.0, own + found.value - step_seconds) / step_seconds
    return Row(
        (
            style.name,
            Value(found.value, "added seconds", found.low, found.high),
            Value(max(0.0, found.value) / step_seconds, "fraction"),
            Value(late, "fraction"),
            Value(max(0.0, found.value) / SMALL, "s"),
        )
    )


def reading(costs: CostTable, arrays: int, host: float) -> Iterator[str]:
    """Yield how to read it, and what it rests on."""
    yield (
        "What a style adds to plain JAX's step, each call waited for: a fixed part and one for "
        "each weight and bias array. If the device is never waited for, a style costs time only "
        "where the host takes longer than the device."
    )
    if arrays > costs.most_arrays:
        yield f"Up to {costs.most_arrays} arrays were measured: more is extrapolated."
    if host != 1.0:
        yield f"This machine's Python takes {host:.2f} times as long as the table's."
    else:
        yield (
            "It grows with the time that Python takes: `--here` measures this machine, in 20 "
            "seconds."
        )
    worst = max(costs.styles, key=lambda style: style.misfit)
    yield f"The law misses what was measured by {percent(worst.misfit)} at most ({worst.name})."


def json_of(costs: CostTable) -> str:
    """Return a table as the content of its file."""
    return msgspec.json.format(msgspec.json.encode(costs), indent=1).decode() + "\n"


def is_table(path: Path) -> bool:
    """Tell whether a file claims to be a table of costs."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Claim).kind == KIND
    except (OSError, msgspec.MsgspecError):
        return False


class Claim(msgspec.Struct):
    """What a file says that it is."""

    kind: str = ""


def speed_here(costs: CostTable) -> float:
    """Return how many times as long this machine's Python takes for a call as the table's.

    Some styles' host costs are measured for 20 s at the fewest arrays of the table.

    Raises:
        BakeoffError: nothing could be measured.
    """
    from bench.engine.actions import ONE, Options
    from bench.engine.cores import one_core_lanes
    from bench.engine.driver import Driver
    from bench.engine.machine import only_one
    from bench.engine.run_plan import RunPlan
    from bench.estimates import groups_of

    workload = TOGETHER["depth"][0]
    cells = [Arm(*name).at(workload, "cpu") for name in (BASELINE, *GAUGES)]
    plan = RunPlan(
        {cell: {HOST} for cell in cells},
        Options(GAUGE_SECONDS, cores=ONE),
        lanes=one_core_lanes(),
    )
    with only_one():
        Driver(plan).run()
    state = plan.state
    arms = groups_of(state.cells).get(Group(HOST, workload, "cpu"), {})
    estimates, reference = differences(arms)
    known = {(style.entrant, style.style): style for style in costs.styles}
    ratios = [
        added_seconds(estimate, reference)[0] / known[cell.entrant, cell.style].measured[0].seconds
        for cell, estimate in estimates.items()
        if (cell.entrant, cell.style) in known
    ]
    if not ratios:
        failures = [found.failure for found in state.cells.values() if found.failure]
        why = failures[0] if failures else "no worker came to its end"
        raise BakeoffError(f"this machine's speed could not be measured: {why}")
    return float(np.exp(np.mean(np.log(ratios))))
