"""What the machine did, corrections by Holm, and where a difference stops mattering."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.stats import health
from bench.stats.crossing import crossing
from bench.stats.ratios import Estimate, corrected
from bench.stats.windows import holm


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.5])) == pytest.approx([1, 1])
    assert holm(np.array([])).size == 0
    assert holm(np.array([0.01, 0.005]), more=2) == pytest.approx([0.03, 0.02])
    with pytest.raises(ValueError, match=r"between 0 and 1; found \[0.5, nan\]"):
        holm(np.array([0.5, math.nan]))


def test_holm_keeps_order_and_bounds() -> None:
    p = np.random.default_rng(0).uniform(size=50) ** 3
    adjusted = holm(p)
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert adjusted.min() == pytest.approx(50 * p.min())


def blocks_with(first: float, second: float = 1.0, slow: int = 20) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    blocks = [np.exp(random.normal(size=12) * 0.03) for _ in range(20)]
    for block in blocks[:slow]:
        block[:2] *= first, second
    return blocks


def test_slow_first_rounds() -> None:
    said = health.slow_first_rounds(blocks_with(1.3))
    assert said is not None
    assert said.startswith("The first round of a block took 3")
    assert "in 20 of 20 blocks" in said
    assert said.endswith("Warm up 1 more round before each block.")
    said = health.slow_first_rounds(blocks_with(1.5, 1.3))
    assert said is not None
    assert "first two rounds" in said
    assert "2 more rounds" in said
    for quiet in (
        blocks_with(1.0),
        blocks_with(1.05),
        blocks_with(1.3, slow=7),
        blocks_with(1.0, 1.3),
        blocks_with(1.3)[:4],
        [block[:3] for block in blocks_with(1.3)],
        [],
    ):
        assert health.slow_first_rounds(quiet) is None


def test_drift() -> None:
    random = np.random.default_rng(0)
    at = random.permutation(30) * 2.0
    noise = np.exp(random.normal(size=30) * 0.03)
    said = health.drift(noise * (1 + 0.3 * at / 60), at)
    assert said is not None
    assert "more time in the last third" in said
    assert "took 2" in said
    said = health.drift(noise * (1 - 0.3 * at / 60), at)
    assert said is not None
    assert "less time in the last third" in said
    said = health.drift(noise * np.where(at % 8 < 4, 1.0, 1.4), at)
    assert said is not None
    assert "two levels, 4" in said
    assert health.drift(noise * (1 + 0.04 * at / 60), at) is None
    assert health.drift(np.ones(30), at) is None
    assert health.drift(np.full(30, np.nan), at) is None
    assert health.drift(np.arange(1.0, 9.0), np.arange(8.0)) is None
    with pytest.raises(ValueError, match=r"shape \(3,\) and at \(2,\)"):
        health.drift(np.ones(3), np.ones(2))


@pytest.mark.parametrize("sd", [0.05, 0.3])
def test_noise_is_no_drift(sd: float) -> None:
    times = np.exp(np.random.default_rng(0).normal(size=(300, 20)) * sd)
    assert sum(health.drift(row, np.arange(20.0)) is not None for row in times) <= 6


def test_busy() -> None:
    assert health.busy(0.4, 2, 0.02, 0.1) is None
    assert health.busy(8.0, 64, math.nan, math.nan) is None
    said = health.busy(1.2, 2, 0.07, 0.25)
    assert said is not None
    for part in ("load average of 1.2 on 2 cores", "7% of the processor", "25% of the machine"):
        assert part in said
    said = health.busy(0, 2, 0.03, 0)
    assert said is not None
    assert "load" not in said
    with pytest.raises(ValueError, match="cores is 0"):
        health.busy(0, 0, 0, 0)


def test_compiled_from_source() -> None:
    assert health.compiled_from_source(0) is None
    said = health.compiled_from_source(512)
    assert said is not None
    assert "no bytecode of 512 modules" in said
    assert "PYTHONPYCACHEPREFIX" in said


def test_a_control_that_differs() -> None:
    said = health.control_differs("step at seed on cpu", 1.0312, 1.02, None)
    assert said.startswith("step at seed on cpu: the control, a second copy of the baseline, took")
    assert "1.0312 times" in said
    assert "above 1.0200" in said


@pytest.mark.parametrize(
    ("detectable", "advice"),
    [
        (0.019, None),
        (
            0.025,
            "differences under 2.5% would not be found: use --budget 600, or stop cc (0.9 cores).",
        ),
        (0.5, "use a quieter machine, or stop cc (0.9 cores)."),
        (None, "too few workers to know the noise: use a larger --budget."),
    ],
)
def test_noise_has_advice_that_can_be_followed(
    detectable: float | None, advice: str | None
) -> None:
    said = health.noisy("step at seed on cpu", detectable, 0.02, 300, "cc (0.9 cores)")
    assert said is None if advice is None else advice in (said or "")


def test_slow_calls_that_a_quantile_hides() -> None:
    quick = [0.0039] * 339
    assert health.slow_calls(quick) is None
    said = health.slow_calls([*quick, *[0.8] * 13])
    assert said is not None
    assert said.startswith("13 of 352 calls took over 50 times the median (3.9 ms; the mean is")
    assert health.slow_calls([0.001, 0.1]) is None  # of too few, nothing is said


def exactly(*log_ratios: float, error: float = 1e-9) -> list[Estimate]:
    """Return estimates with next to no doubt."""
    return [corrected(value, error, 50.0, 10, 5) for value in log_ratios]


def test_a_crossing_is_where_the_line_meets_the_margin() -> None:
    bound = math.log1p(0.02)
    found = crossing([10, 1000], exactly(3 * bound, -bound / 2), 0.02)
    assert found.at == pytest.approx(1000, rel=1e-6) or 10 < found.at < 1000
    found = crossing([10, 1000], exactly(3 * bound, 0), 0.02)
    assert found.at == pytest.approx(10 * 100 ** (2 / 3), rel=1e-6)
    assert found.low == pytest.approx(found.at, rel=1e-3)
    assert found.high == pytest.approx(found.at, rel=1e-3)


def test_a_crossing_for_good_is_after_the_last_size_outside() -> None:
    bound = math.log1p(0.02)
    found = crossing([8, 16, 32, 64], exactly(2 * bound, 0, 2 * bound, 0), 0.02)
    assert 32 < found.at < 64


def test_a_crossing_beyond_the_sizes_is_said_to_be() -> None:
    assert crossing([8, 16], exactly(0.3, 0.2), 0.02).at == math.inf
    assert crossing([8, 16], exactly(0.001, 0.2), 0.02).at == math.inf
    assert crossing([8, 16], exactly(0.001, -0.001), 0.02) == pytest.approx((8, 8, 8))


def test_the_interval_of_a_crossing_covers_it() -> None:
    bound, random, covered = math.log1p(0.02), np.random.default_rng(0), 0
    truth, sizes = np.array([4 * bound, 2 * bound, 0.5 * bound, 0]), [8, 32, 128, 512]
    exact = crossing(sizes, exactly(*truth), 0.02).at
    for _ in range(200):
        drawn = exactly(*(truth + random.normal(0, 0.004, 4)), error=0.004)
        low, high = crossing(sizes, drawn, 0.02)[1:]
        covered += low <= exact <= high
    assert covered >= 180


@pytest.mark.parametrize(
    ("sizes", "count", "margin", "message"),
    [
        ([8], 1, 0.02, "1 sizes and 1 estimates; two at least"),
        ([8, 16], 1, 0.02, "2 sizes and 1 estimates"),
        ([16, 8], 2, 0.02, "sizes must increase"),
        ([8, 16], 2, 0, "margin is 0; it must be above 0"),
    ],
)
def test_a_crossing_of_nothing(sizes: list[int], count: int, margin: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crossing(sizes, exactly(*[0.1] * count), margin)
