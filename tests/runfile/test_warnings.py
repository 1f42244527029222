"""Reasons to doubt the numbers, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec import structs

from bench.cells import BASELINE, CONTROL
from bench.environments.offers import Offer
from bench.runfile import EnvironmentInfo, TimeSpent, warnings
from bench.samples import Sample
from tests.report.runs import Planted, made_run

if TYPE_CHECKING:
    from bench.runfile.reader import Run

OFFER = Offer({}, {}, [], {}, {})


def given(run: Run, offer: Offer = OFFER, notes: tuple[str, ...] = ()) -> list[str]:
    return warnings.warnings(run.results, run.samples, offer, notes)


def test_a_quiet_run_warns_of_nothing() -> None:
    run = made_run({"haiku/pure": Planted(1.2)}, ("toy", "seed"))
    assert given(run) == []
    assert given(run, notes=("a remark",)) == ["a remark"]


def test_drift() -> None:
    random = np.random.default_rng(0)
    noise = np.exp(random.normal(size=30) * 0.03)
    time = np.linspace(0, 1, 30)
    assert warnings.drift(noise * (1 + 0.3 * time)) > 0.1
    assert warnings.drift(noise * (1 - 0.3 * time)) < -0.1
    assert warnings.drift(noise * (1 + 0.04 * time)) == 0
    assert warnings.drift(np.ones(30)) == 0
    assert warnings.drift(np.arange(1.0, 9.0)) == 0, "too few"
    for sd in (0.05, 0.3):
        times = np.exp(random.normal(size=(300, 20)) * sd)
        assert sum(warnings.drift(row) != 0 for row in times) <= 6
    cell = BASELINE.at("seed", "cpu")
    samples = [
        Sample("", cell, "step", 0, i, float(30 - i), 0, value)
        for i, value in enumerate(noise * (1 + 0.3 * time))
    ]
    [sentence] = warnings.drifts(samples)
    assert "less time in the last third" in sentence, "in the order of time"


@pytest.mark.parametrize(
    ("stolen", "others", "busiest", "words"),
    [
        (0.02, 0.1, "cc (0.9 cores)", ()),
        (0.07, 0.25, "cc (0.9 cores)", ("7% of the proc", "25% of the mach", "cc (0.9 cores)")),
        (0.03, 0.0, "", ("3% of the processor time",)),
    ],
)
def test_other_processes(
    stolen: float, others: float, busiest: str, words: tuple[str, ...]
) -> None:
    spent = TimeSpent(stolen=stolen, others=others, busiest=busiest)
    sentences = list(warnings.other_processes(spent))
    assert len(sentences) == bool(words)
    assert all(word in sentences[0] for word in words)


def test_environments() -> None:
    [sentence] = warnings.uncached(512)
    assert "no bytecode of 512 modules" in sentence
    run = made_run({"haiku/pure": Planted()})
    versions = {"python": "3.13.5", "jax": "0.4.0"}
    run.results.environments["keras"] = EnvironmentInfo(versions=versions)
    [sentence] = given(run)
    assert "keras runs in its own environment with jax 0.4.0 for 0.12.0.1:" in sentence


@pytest.mark.parametrize(
    ("noise", "workers", "busiest", "advice"),
    [
        (0.03, 5, "", "% (seed) would not be found: use --budget "),
        (0.5, 5, "cc (0.9 cores)", "use a quieter machine, or stop cc (0.9 cores)."),
        (0.03, 1, "", "Too few workers to know the noise at seed: use a larger --budget."),
    ],
)
def test_noise_has_advice_that_can_be_followed(
    noise: float, workers: int, busiest: str, advice: str
) -> None:
    run = made_run({"haiku/pure": Planted()}, noise=noise, workers=workers, cold=0)
    run.results.spent.busiest = busiest
    assert any(advice in sentence for sentence in given(run))


def test_a_control_that_differs_for_certain() -> None:
    run = made_run({"haiku/pure": Planted()})
    apart = [
        structs.replace(row, value=1.03, p=0.001, verdict="slower")
        if row.cell.arm == CONTROL and row.metric == "step" and row.form == "ratio"
        else row
        for row in run.results.estimates
    ]
    [sentence] = warnings.controls(apart)
    assert "step at seed on cpu: the control" in sentence
    by_chance = [structs.replace(row, p=0.03) if row.cell.arm == CONTROL else row for row in apart]
    assert not list(warnings.controls(by_chance)), "one of ten controls may have p = 0.03"


def test_slow_calls_of_many_arms_are_one_warning() -> None:
    arms = {f"haiku/style{i}": Planted() for i in range(5)}
    run = made_run(arms, ("seed", "wide"))
    slow = [
        s._replace(p95=8 * s.value)
        if s.cell.entrant == "haiku" and s.cell.workload == "seed"
        else s
        for s in run.samples
    ]
    [sentence] = warnings.slow_calls(slow)
    assert sentence.startswith(
        "At seed, one call in twenty takes 8 times the median or more: haiku"
    )
    assert "and 2 more" in sentence
    assert not list(warnings.slow_calls([s._replace(calls=4) for s in slow]))


def test_large_steps_on_one_core() -> None:
    run = made_run({"haiku/pure": Planted()}, ("seed", "wide"))
    pinned = [s._replace(cores=1) for s in run.samples]
    [sentence] = warnings.pinned(pinned)
    assert sentence.startswith("Steps at wide use several cores")
