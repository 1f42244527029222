"""Small runs that were never measured: samples with planted differences, and their estimates."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.cells import CONTROL, REFERENCE, Arm, Cell
from bench.metrics import COLD, METRICS, STAGES
from bench.report.table import Document, Section
from bench.runfile import (
    CellResult,
    Conditions,
    EnvironmentInfo,
    ResultsWithSamples,
    RunOptions,
    TimeSpent,
    pack_samples,
)
from bench.runfile.reader import Commit, Machine, Processor, Run
from bench.samples import Proof, Sample
from bench.stats.estimate import estimate
from bench.stats.verdicts import settle_by_program

STEP_SECONDS = {"toy": 1e-4, "width64": 1e-3, "seed": 4e-3, "width256": 8e-3, "wide": 4e-2}
HOST_SECONDS = 5e-5
COLD_VALUES = {"peak_rss": 3e8, "first_step": 0.01, "import": 0.5, "startup": 0.9}
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
    failure: str | None = None
    missing: dict[str, str] = field(default_factory=dict)


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
    """Return a run of planted arms beside the baseline and its control; at `toy` host costs alone.

    `noise` is the standard deviation of the logarithm of a block's time, `cold` the number of
    fresh processes of each cell; without `base`, there is no baseline. `results` are other fields.
    """
    rng = np.random.default_rng(7)
    planted = (dict.fromkeys(map(str, REFERENCE), Planted()) if base else {}) | arms
    samples: list[Sample] = []
    cells: list[CellResult] = []
    for workload in workloads:
        for name, arm in planted.items():
            cell = Arm.parse(name).make_cell(workload, backend)
            if cell.arm != CONTROL:
                cells.append(result_of(cell, arm))
            if arm.failure is None:
                samples += samples_of(cell, arm, rng, noise, workers, cold)
    programs = {row.cell: row.program for row in cells}
    estimates = estimate(samples, programs=programs)
    same = {row.cell for row in cells if row.proof and row.proof.same_program}
    about: dict[str, Any] = {
        "arguments": ["bench", "--budget", "60"],
        "options": RunOptions(budget=60.0),
        "environments": {"": EnvironmentInfo(versions={"python": "3.13.5", "jax": "0.12.0.1"})},
        "conditions": Conditions(devices={backend: backend}, affinity=[0, 1]),
        "spent": TimeSpent(wall_seconds=60.0, sampling_seconds=45.0, processes=11),
        "cells": cells,
        "estimates": settle_by_program(estimates, same, 0.02),
        "samples": pack_samples(samples),
    }
    made = ResultsWithSamples(**about | results)
    machine = Machine(node="host", cpu=Processor("a processor", count=2))
    return Run("run", made, samples, machine, Commit("0123456789abcdef"), "2026-11-27T10:00:00")


def section(shown: Document, title: str) -> Section:
    [part] = [part for part in shown.sections if part.title == title]
    return part


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


def samples_of(
    cell: Cell, arm: Planted, rng: np.random.Generator, noise: float, workers: int, cold: int
) -> Iterator[Sample]:
    """Yield what was timed in blocks, three of each worker, in cold processes, and counted."""
    metric, seconds = "step", STEP_SECONDS[cell.workload]
    seconds *= arm.step.get(cell.workload, 1.0) if isinstance(arm.step, dict) else arm.step
    if cell.workload == "toy":
        metric, seconds = "host_cost", HOST_SECONDS + (arm.host or 0.0)
    for block in range(0 if metric == "host_cost" and arm.host is None else 3 * workers):
        value = seconds * float(np.exp(noise * rng.normal()))
        calls = 32, 1.02 * value, 1.2 * value
        yield Sample(cell, metric, value, *calls, worker=block // 3, block=block, at=2.0 * block)
    # Each arm's cold processes have numbers of their own; stages are in turns.
    first = 1000 + 100 * (sum(map(ord, str(cell.arm))) % 97)
    for name in (*COLD, *(name for name in METRICS if METRICS[name].turn == STAGES)):
        value, start = COLD_VALUES.get(name, 0.1) * arm.cold, first if name in COLD else 500
        for i in range(start, start + cold):
            noisy = value * float(np.exp(noise * rng.normal()))
            yield Sample(cell, name, noisy, worker=i, block=i)
    if cell.arm != CONTROL:
        for name, count in (COUNTS | {"python_calls": arm.calls} | arm.counts).items():
            yield Sample(cell, name, float(count), worker=first, block=first)
