"""Results of simulated samples, made by the code that makes results of real ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cells import BASELINE, CONTROL, Arm
from bench.runfile import (
    CellResult,
    Conditions,
    EnvironmentInfo,
    Proof,
    ResultsWithSamples,
    RunFile,
    RunOptions,
    TimeSpent,
    packed,
)
from bench.runfile.reader import Run
from bench.samples import Sample
from bench.stats.estimate import estimate, families_of_environments, families_of_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bench.runfile import FileKind

    type Factors = Mapping[Arm, float]
    """How many times as long an arm takes as it usually does."""

HAIKU, FILTER_JIT, BLOG = (
    Arm("haiku", "pure"),
    Arm("equinox", "filter_jit"),
    Arm.of("flax_linen/blog"),
)
ARMS = (BASELINE, HAIKU, FILTER_JIT, BLOG)
STEP = {BASELINE: 4e-3, CONTROL: 4e-3, HAIKU: 4e-3, FILTER_JIT: 4.2e-3, BLOG: 7.6e-3}
"""Seconds of a step at `seed`."""
ADDED = {BASELINE: 0.0, CONTROL: 0.0, HAIKU: 1e-6, FILTER_JIT: 140e-6, BLOG: 900e-6}
"""Seconds that an arm adds to a call of 100 µs at `toy`."""
CALLS = {BASELINE: 4, HAIKU: 4, FILTER_JIT: 1537, BLOG: 6100}
VERSIONS = {"python": "3.13.5", "jax": "0.12.0", "jaxlib": "0.12.0", "flax": "0.12.8"}
MACHINE = {
    "cpu": {"brand_raw": "CPU X", "family": 6, "count": 2},
    "system": "Linux",
    "machine": "x86_64",
    "python_implementation": "CPython",
}


def samples(
    rng: np.random.Generator,
    factors: Factors | None = None,
    *,
    environment: str = "",
    speed: float = 1.0,
    arms: Iterable[Arm] = (*ARMS, CONTROL),
    first_worker: int = 1,
    workers: int = 6,
    mood: np.random.Generator | None = None,
) -> Iterator[Sample]:
    """Yield steps and compile times at `seed`, host costs at `toy`, and counts of one environment.

    Args:
        rng: The noise of this environment.
        factors: By arm.
        environment: Its name.
        speed: Of the machine: larger is slower.
        arms: That are measured.
        first_worker: Number of the first worker; blocks follow from it.
        workers: How many there are.
        mood: What disturbs a block of all arms alike, of two environments too.
    """
    factors, mood = factors or {}, mood or rng
    for number in range(workers):
        worker = first_worker + number
        luck = {arm: rng.normal(0, 0.003) for arm in (*ARMS, CONTROL)}
        for block in range(4 * worker, 4 * worker + 4):
            busy = mood.normal(0, 0.05)
            for arm in arms:
                noise = busy + luck[arm] + rng.normal(0, 0.006)
                for metric, workload, seconds in (
                    ("step", "seed", STEP[arm]),
                    ("host_cost", "toy", 1e-4 + ADDED[arm]),
                ):
                    level = speed * seconds * factors.get(arm, 1.0) * math.exp(noise)
                    cell = arm.at(workload, "cpu")
                    yield Sample(environment, cell, metric, worker, block, 0.0, 0, level, 8, level)
    for number in range(8):
        cold = 1000 * first_worker + number
        for arm in arms:
            level = 0.4 * speed * factors.get(arm, 1.0) * math.exp(rng.normal(0, 0.02))
            cell = arm.at("seed", "cpu")
            yield Sample(environment, cell, "compile", cold, cold, 0.0, 0, level)
            memory = 3e8 * speed * math.exp(rng.normal(0, 0.002))
            yield Sample(environment, cell, "peak_rss", cold, cold, 0.0, 0, memory)


def counts(
    changed: Mapping[tuple[Arm, str], float] | None = None,
    environment: str = "",
    arms: Iterable[Arm] = ARMS,
) -> Iterator[Sample]:
    """Yield exact numbers of each arm at `seed`, some of them others than usual."""
    for arm in arms:
        usual: dict[str, float] = {
            "python_calls": CALLS.get(arm, 4),
            "temp_bytes": 1216,
            "code_lines": 43,
        }
        usual |= {"parameters": 98752, "final_loss": 2.269}
        for metric, value in usual.items():
            value = (changed or {}).get((arm, metric), value)
            cell = arm.at("seed", "cpu")
            yield Sample(environment, cell, metric, 0, 0, 0.0, 0, float(value))


def cells(of: Sequence[Sample], failures: Mapping[Arm, str] | None = None) -> list[CellResult]:
    """Return what is known of the cells of samples; some of them failed."""
    rows = {}
    for environment, cell in dict.fromkeys((s.environment, s.cell) for s in of):
        same = cell.arm in (BASELINE, CONTROL, HAIKU)
        proof = Proof(loss=1e-8, gradient=1e-7, trajectory=0.0, same_program_as_baseline=same)
        proof.whole_step = cell.arm != BLOG
        failure = (failures or {}).get(cell.arm)
        rows[environment, cell] = CellResult(
            cell=cell, environment=environment, proof=proof, failure=failure
        )
    return list(rows.values())


def results(
    of: Sequence[Sample],
    kind: FileKind = "run",
    *,
    base: str = "",
    environments: Mapping[str, EnvironmentInfo] | None = None,
    failures: Mapping[Arm, str] | None = None,
    **about: Any,
) -> ResultsWithSamples:
    """Return samples as results."""
    known = cells(of, failures)
    failed = {(row.environment, row.cell) for row in known if row.failure}
    alive = [sample for sample in of if (sample.environment, sample.cell) not in failed]
    families = families_of_environments(alive, base) if base else families_of_run(alive)
    return ResultsWithSamples(
        kind=kind,
        base=base,
        arguments=[kind, "--some", "a b"],
        environments=dict(environments or {"": EnvironmentInfo(versions=VERSIONS)}),
        conditions=Conditions(devices={"cpu": "cpu"}, variables={"X": "1"}, affinity=[0, 1]),
        cells=known,
        estimates=estimate(alive, families),
        samples=packed(alive),
        spent=TimeSpent(wall_seconds=60, sampling_seconds=30, processes=12),
        **about,
    )


def a_run(
    seed: int,
    factors: Factors | None = None,
    *,
    speed: float = 1.0,
    changed: Mapping[tuple[Arm, str], float] | None = None,
    when: str = "2026-01-01T12:00:00",
    name: str = "run",
    commit: str = "c0ffee" * 6,
    arms: Sequence[Arm] = ARMS,
    failures: Mapping[Arm, str] | None = None,
    **versions: str,
) -> Run:
    """Return a run; arguments are those of `samples` and `counts`."""
    rng = np.random.default_rng(seed)
    of = [*samples(rng, factors, speed=speed, arms=(*arms, CONTROL)), *counts(changed, arms=arms)]
    made = results(
        of,
        environments={"": EnvironmentInfo(versions=VERSIONS | versions)},
        failures=failures,
        options=RunOptions(),
    )
    return Run(name, made, [], dict(MACHINE), {"id": commit, "dirty": False}, when)


def file_of(run: Run) -> RunFile:
    """Return a run as its file has it."""
    made = run.results
    assert isinstance(made, ResultsWithSamples)
    return RunFile(
        machine_info=run.machine,
        commit_info=run.commit,
        benchmarks=[],
        datetime=f"{run.when}.123456+00:00",
        version="5",
        bakeoff=made,
    )


def two_sides(
    seed: int,
    factors: Factors | None = None,
    changed: Mapping[tuple[Arm, str], float] | None = None,
    *,
    workers: int = 6,
    arms: Sequence[Arm] = ARMS,
    **versions: str,
) -> ResultsWithSamples:
    """Return an A/B: two sides in one mood, whose new one has some arms changed."""
    of: list[Sample] = []
    for number, (side, by, others) in enumerate((("base", {}, {}), ("new", factors, changed))):
        own, mood = np.random.default_rng([seed, number]), np.random.default_rng([seed, 9])
        of += samples(own, by, environment=side, mood=mood, arms=arms, workers=workers)
        of += counts(others, side, arms)
    environments = {
        "base": EnvironmentInfo(spec="flax==0.12.8", versions=VERSIONS),
        "new": EnvironmentInfo(spec="current", versions=VERSIONS | versions, commit="abc" * 9),
    }
    return results(of, "ab", base="base", environments=environments)


def of_days(
    seed: int,
    days: Mapping[str, Factors],
    versions: Sequence[Mapping[str, str]] = (),
    *,
    workers: int = 4,
    arms: Sequence[Arm] = ARMS,
) -> ResultsWithSamples:
    """Return a history: days in turns with a reference, each with its factors."""
    of: list[Sample] = []
    environments = {}
    for number, (day, factors) in enumerate(days.items()):
        for side, (name, by) in enumerate(((day, factors), ("reference", {}))):
            rng, mood = (np.random.default_rng([seed, number, x]) for x in (side, 9))
            first = 1 + number * workers
            about: dict[str, Any] = {"arms": arms, "first_worker": first, "workers": workers}
            of += samples(rng, by, environment=name, mood=mood, **about)
        of += counts(None, day, arms)
        other = versions[number] if versions else {}
        environments[day] = EnvironmentInfo(spec=f"@{day}", versions=VERSIONS | dict(other))
    environments["reference"] = replace_spec(environments[day], "reference")
    return results(of, "history", base="reference", environments=environments)


def replace_spec(info: EnvironmentInfo, spec: str) -> EnvironmentInfo:
    """Return an environment under another name."""
    return EnvironmentInfo(spec=spec, versions=info.versions)
