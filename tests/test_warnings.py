"""What the machine did during a run, in words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.runfile import warnings
from bench.samples import Elsewhere, Spent


def test_drift() -> None:
    random = np.random.default_rng(0)
    at = random.permutation(30) * 2.0
    noise = np.exp(random.normal(size=30) * 0.03)
    for speed, words in (
        (1 + 0.3 * at / 60, "more time in the last third"),
        (1 - 0.3 * at / 60, "less time in the last third"),
    ):
        assert words in (warnings.drift(noise * speed, at) or "")
    assert warnings.drift(noise * (1 + 0.04 * at / 60), at) is None
    assert warnings.drift(np.ones(30), at) is None
    assert warnings.drift(np.arange(1.0, 9.0), np.arange(8.0)) is None


@pytest.mark.parametrize("sd", [0.05, 0.3])
def test_noise_is_no_drift(sd: float) -> None:
    times = np.exp(np.random.default_rng(0).normal(size=(300, 20)) * sd)
    assert sum(warnings.drift(row, np.arange(20.0)) is not None for row in times) <= 6


@pytest.mark.parametrize(
    ("load", "cores", "steal", "others", "words"),
    [
        (0.4, 2, 0.02, 0.1, ()),
        (8.0, 64, math.nan, math.nan, ()),
        (1.2, 2, 0.07, 0.25, ("average of 1.2 on 2 cores", "7% of the proc", "25% of the mach")),
        (0.0, 2, 0.03, 0.0, ("3% of the processor time",)),
    ],
)
def test_other_processes(
    load: float, cores: int, steal: float, others: float, words: tuple[str, ...]
) -> None:
    spent = Spent(elsewhere=Elsewhere(steal, others))
    said = list(warnings.machine(spent, {"load_average": [load]}, cores))
    assert len(said) == bool(words)
    assert all(word in said[0] for word in words)
    assert ("load" in "".join(said)) is (load / cores > warnings.LOAD)


def test_compiled_from_source() -> None:
    assert not list(warnings.compiled_from_source(0))
    [said] = warnings.compiled_from_source(512)
    assert "no bytecode of 512 modules" in said


@pytest.mark.parametrize(
    ("detectable", "advice"),
    [
        (0.019, None),
        (0.025, "under 2.5% would not be found: use --budget 600, or stop cc (0.9 cores)."),
        (0.5, "use a quieter machine, or stop cc (0.9 cores)."),
        (None, "too few workers to know the noise: use a larger --budget."),
    ],
)
def test_noise_has_advice_that_can_be_followed(
    detectable: float | None, advice: str | None
) -> None:
    said = warnings.noisy(detectable, 0.02, 300, "cc (0.9 cores)")
    assert said is None if advice is None else advice in (said or "")


def test_slow_calls_that_a_quantile_hides() -> None:
    quick = [0.0039] * 339
    assert warnings.slow_calls(quick) is None
    said = warnings.slow_calls([*quick, *[0.8] * 13])
    assert said is not None
    assert said.startswith("13 of 352 calls took over 50 times the median (3.9 ms; the mean is")
    assert warnings.slow_calls([0.001, 0.1]) is None  # of too few, nothing is said
