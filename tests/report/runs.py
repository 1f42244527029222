"""Small runs that were never measured: samples with planted differences, and their estimates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.cells import CONTROL, Arm, Cell
from bench.metrics import COLD, EXACT
from bench.runfile import (
    CellResult,
    Conditions,
    EnvironmentInfo,
    Proof,
    ResultsWithSamples,
    RunOptions,
    TimeSpent,
    packed,
)
from bench.runfile.reader import Run
from bench.samples import Sample
from bench.stats.estimate import estimate, families_of_run
from bench.stats.settle import settled_by_program

STEP_SECONDS = {"toy": 1e-4, "width64": 1e-3, "seed": 4e-3, "width256": 8e-3, "wide": 4e-2}
HOST_SECONDS = 5e-5
COLD_VALUES = {"peak_rss": 3e8, "first_step": 0.01, "import": 0.5}
COUNTS = {"python_calls": 4, "jaxpr_equations": 290, "temp_bytes": 725_568, "compilations_warm": 0}


@dataclass(frozen=True)
class Planted:
    """How an arm differs from the baseline."""

    step: float | dict[str, float] = 1.0
    """Ratio of its step; by workload if it is not the same everywhere."""
    host: float | None = 0.0
    """Seconds added to a call; None where that is not measured."""
    cold: float = 1.0
    """Ratio of what happens once."""
    differs: dict[str, int] | None = None
    """Operations by which its program differs."""
    calls: int = 4
    proof: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    own_losses: tuple[float, ...] = ()
    failure: str | None = None
    missing: dict[str, str] = field(default_factory=dict)


BASELINE = {"pure_jax/pure": Planted(own_losses=(2.28, 2.30))}


def made_run(
    arms: dict[str, Planted],
    workloads: tuple[str, ...] = ("seed",),
    *,
    noise: float = 0.002,
    workers: int = 5,
    cold: int = 6,
    backend: str = "cpu",
    base: bool = True,
    **results: Any,
) -> Run:
    """Return a run of planted arms beside the baseline and its control.

    Args:
        arms: By `entrant/style`.
        workloads: At which they are measured; at `toy` host costs alone.
        noise: Standard deviation of the logarithm of a block's time.
        workers: Processes that measure three blocks each.
        cold: Fresh processes of each cell; 0 for none.
        backend: What it is called.
        base: Whether the baseline takes part.
        results: Further fields of the results.
    """
    rng = np.random.default_rng(7)
    planted = ({**BASELINE, str(CONTROL): Planted()} if base else {}) | arms
    samples: list[Sample] = []
    cells: list[CellResult] = []
    for workload in workloads:
        for name, arm in planted.items():
            cell = Arm.of(name).at(workload, backend)
            if cell.arm != CONTROL:
                cells.append(result_of(cell, arm))
            if arm.failure is None:
                samples += warm_samples(cell, arm, rng, noise, workers)
                samples += once_samples(cell, arm, rng, noise, cold)
    programs = {row.cell: row.program for row in cells}
    estimates = estimate(samples, families_of_run(samples), programs=programs)
    same = {row.cell for row in cells if row.proof and row.proof.same_program}
    made = ResultsWithSamples(
        arguments=["bench", "--budget", "60"],
        options=RunOptions(budget_seconds=60.0, seed=0),
        environments={"": EnvironmentInfo(versions={"python": "3.13.5", "jax": "0.12.0.1"})},
        conditions=Conditions(devices={backend: backend}, affinity=[0, 1]),
        cells=cells,
        estimates=settled_by_program(estimates, same, 0.02),
        spent=TimeSpent(wall_seconds=60.0, sampling_seconds=45.0, processes=11),
        samples=packed(samples),
    )
    for name, value in results.items():
        setattr(made, name, value)
    machine = {"cpu": {"brand_raw": "a processor", "count": 2}, "node": "host"}
    return Run("run", made, samples, machine, {"id": "0123456789abcdef"}, "2026-11-27T10:00:00")


def result_of(cell: Cell, arm: Planted) -> CellResult:
    proof = {"loss": 1e-8, "gradient": 2e-7, "trajectory": 0.0} | arm.proof
    counts = {f"stablehlo.{kind}": n for kind, n in (arm.differs or {}).items()}
    return CellResult(
        cell=cell,
        failure=arm.failure,
        stderr="\nfirst\n" * 9 + "last" if arm.failure else "",
        proof=Proof(
            same_program_as_baseline=arm.differs is None, operations_beside_baseline=counts, **proof
        ),
        program=f"{sorted(counts.items())}",
        missing=arm.missing,
    )


def warm_samples(
    cell: Cell, arm: Planted, rng: np.random.Generator, noise: float, workers: int
) -> list[Sample]:
    ratio = arm.step.get(cell.workload, 1.0) if isinstance(arm.step, dict) else arm.step
    metric, seconds = "step", STEP_SECONDS[cell.workload] * ratio
    if cell.workload == "toy":
        metric, seconds = "host_cost", HOST_SECONDS + (arm.host or 0.0)
        if arm.host is None:
            return []
    samples = []
    for worker in range(workers):
        for block in range(3):
            value = seconds * float(np.exp(noise * rng.normal()))
            number = 3 * worker + block
            at = 2.0 * number
            times = (value, 32, 1.02 * value, 1.2 * value)
            samples.append(Sample("", cell, metric, worker, number, at, 0, *times))
    return samples


def once_samples(
    cell: Cell, arm: Planted, rng: np.random.Generator, noise: float, cold: int
) -> list[Sample]:
    rows: list[tuple[str, int, float]] = []
    for metric in COLD:
        value = COLD_VALUES.get(metric, 0.1) * arm.cold
        rows += [(metric, i, value * float(np.exp(noise * rng.normal()))) for i in range(cold)]
    if cell.arm != CONTROL:
        counts = COUNTS | {"python_calls": arm.calls} | arm.counts
        rows += [(name, 0, float(value)) for name, value in counts.items() if name in EXACT]
        rows.append(("final_loss", 0, 2.269))
        rows += [("final_loss_own", i, loss) for i, loss in enumerate(arm.own_losses)]
    # Each arm's cold processes have numbers of their own.
    first = 1000 + 100 * (sum(map(ord, str(cell.arm))) % 97)
    return [
        Sample("", cell, metric, first + i, first + i, 0.0, 0, value) for metric, i, value in rows
    ]
