"""Results of simulated samples, made by the code that makes results of real ones."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from bench.cells import BASELINE, CONTROL, Arm
from bench.estimates import MARGIN
from bench.runfile import (
    CellResult,
    Conditions,
    EnvironmentInfo,
    FileKind,
    ResultsWithSamples,
    TimeSpent,
    pack_samples,
)
from bench.runfile.reader import Commit, Machine, Run
from bench.samples import Sample
from bench.stats.estimate import estimate, widen_intervals

type Factors = Mapping[Arm, float]
"""How many times as long an arm takes as it usually does."""

HAIKU, FILTER_JIT, BLOG = map(Arm.parse, ("haiku/pure", "equinox/filter_jit", "flax_linen/blog"))
ARMS = (BASELINE, HAIKU, FILTER_JIT, BLOG)
STEP = {BASELINE: 4e-3, CONTROL: 4e-3, HAIKU: 4e-3, FILTER_JIT: 4.2e-3, BLOG: 7.6e-3}
"""Seconds of a step at `seed`."""
ADDED = {BASELINE: 0.0, CONTROL: 0.0, HAIKU: 1e-6, FILTER_JIT: 140e-6, BLOG: 900e-6}
"""Seconds that an arm adds to a call of 100 µs at `toy`."""
CALLS = {BASELINE: 4.0, CONTROL: 4.0, HAIKU: 4.0, FILTER_JIT: 1537.0, BLOG: 6100.0}
COUNTS = {"python_calls": 0.0, "temp_bytes": 1216.0, "code_lines": 43.0, "parameters": 98752.0}
COUNTS |= {"final_loss": 2.269}
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
    arms: Iterable[Arm] = ARMS,
    workers: Sequence[int] = range(1, 7),
    mood: np.random.Generator | None = None,
    changed: Mapping[tuple[Arm, str], float] | None = None,
    median: float = 1.0,
) -> Iterator[Sample]:
    """Yield steps and cold samples at `seed`, host costs at `toy`, and counts of one environment.

    Args:
        rng: The noise of this environment.
        factors: By arm.
        environment: Its name.
        speed: Of the machine: larger is slower.
        arms: That are measured.
        workers: Their numbers; blocks follow from them.
        mood: What disturbs a block of all arms alike, of two environments too.
        changed: Exact numbers that are others than usual.
        median: Median of a block's calls, relative to the low quantile that is compared.
    """

    def sample(arm: Arm, workload: str, metric: str, value: float, **about: Any) -> Sample:
        cell = arm.make_cell(workload, "cpu")
        return Sample(cell, metric, value, environment=environment, **about)

    factors, mood = factors or {}, mood or rng
    for worker in workers:
        luck = {arm: rng.normal(0, 0.003) for arm in (*ARMS, CONTROL)}
        for block in range(4 * worker, 4 * worker + 4):
            busy = mood.normal(0, 0.05)
            for arm in arms:
                noise = math.exp(busy + luck[arm] + rng.normal(0, 0.006))
                factor = speed * factors.get(arm, 1.0) * noise
                about: Any = {"calls": 8, "worker": worker, "block": block}
                step, host = STEP[arm] * factor, (1e-4 + ADDED[arm]) * factor
                yield sample(arm, "seed", "step", step, median=median * step, **about)
                yield sample(arm, "toy", "host_cost", host, median=median * host, **about)
    for cold in range(1000 * workers[0], 1000 * workers[0] + 8):
        for arm in arms:
            level = 0.4 * speed * factors.get(arm, 1.0) * math.exp(rng.normal(0, 0.02))
            memory = 3e8 * speed * math.exp(rng.normal(0, 0.002))
            yield sample(arm, "seed", "compile", level, worker=cold, block=cold)
            yield sample(arm, "seed", "peak_rss", memory, worker=cold, block=cold)
    for arm in arms:
        counts = COUNTS | {"python_calls": CALLS[arm]}
        counts |= {metric: value for (by, metric), value in (changed or {}).items() if by == arm}
        if arm != CONTROL:
            yield from (sample(arm, "seed", *count) for count in counts.items())


def results(
    of: Sequence[Sample],
    kind: FileKind,
    environments: dict[str, EnvironmentInfo],
    base: str = "",
    failures: Mapping[Arm, str] = MappingProxyType({}),
) -> ResultsWithSamples:
    """Return samples as results; arms that fail have none."""
    known = dict.fromkeys((sample.environment, sample.cell) for sample in of)
    alive = [sample for sample in of if sample.cell.arm not in failures]
    estimates = estimate(alive, base)
    return ResultsWithSamples(
        kind=kind,
        base=base,
        arguments=[kind, "--some", "a b"],
        environments=environments,
        conditions=Conditions(devices={"cpu": "cpu"}, variables={"X": "1"}, affinity=[0, 1]),
        cells=[
            CellResult(cell=cell, environment=name, failure=failures.get(cell.arm))
            for name, cell in known
        ],
        estimates=widen_intervals(estimates, MARGIN) if kind == "ab" else estimates,
        samples=pack_samples(alive),
        spent=TimeSpent(wall_seconds=60, sampling_seconds=30, processes=12),
    )


def a_run(
    seed: int,
    factors: Factors | None = None,
    *,
    when: str = "2026-01-01T12:00:00",
    name: str = "run",
    commit: str = "c0ffee" * 6,
    versions: Mapping[str, str] | None = None,
    arms: Sequence[Arm] = ARMS,
    failures: Mapping[Arm, str] = MappingProxyType({}),
    **about: Any,
) -> Run:
    """Return a run; `about` are arguments of `samples`."""
    of = [*samples(np.random.default_rng(seed), factors, arms=(*arms, CONTROL), **about)]
    shared = {"": EnvironmentInfo(versions=VERSIONS | dict(versions or {}))}
    made = results(of, "run", shared, failures=failures)
    return Run(name, made, [], msgspec.convert(MACHINE, Machine), Commit(commit), when)


def file_of(run: Run) -> dict[str, Any]:
    """Return a run as its file has it."""
    when = f"{run.when}.123456+00:00"
    about = {"machine_info": run.machine, "commit_info": run.commit, "datetime": when}
    return {**about, "benchmarks": [], "bakeoff": run.results}


def two_sides(seed: int, factors: Factors | None = None, **versions: str) -> ResultsWithSamples:
    """Return an A/B: two sides in one mood, whose new one has some arms changed."""
    of: list[Sample] = []
    for number, (side, by) in enumerate((("base", {}), ("new", factors))):
        rng, mood = np.random.default_rng([seed, number]), np.random.default_rng([seed, 9])
        of += samples(rng, by, environment=side, mood=mood)
    environments = {
        "base": EnvironmentInfo(spec="flax==0.12.8", versions=VERSIONS),
        "new": EnvironmentInfo(spec="current", versions=VERSIONS | versions, commit="abc" * 9),
    }
    return results(of, "ab", environments, "base")


def of_days(
    seed: int, days: Mapping[str, Factors], versions: Sequence[Mapping[str, str]] = ()
) -> ResultsWithSamples:
    """Return a history: days in turns with a reference, each with its factors."""
    of: list[Sample] = []
    environments = {}
    for number, (day, factors) in enumerate(days.items()):
        for side, (name, by) in enumerate(((day, factors), ("reference", {}))):
            rng, mood = (np.random.default_rng([seed, number, x]) for x in (side, 9))
            workers = range(1 + 4 * number, 5 + 4 * number)
            of += samples(rng, by, environment=name, workers=workers, mood=mood)
        other = versions[number] if versions else {}
        environments[day] = EnvironmentInfo(spec=f"@{day}", versions=VERSIONS | dict(other))
    environments["reference"] = EnvironmentInfo(spec="reference")
    return results(of, "history", environments, "reference")
