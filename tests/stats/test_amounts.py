"""Amounts: medians of samples, and differences of known ones."""

import math

import pytest

from bench.cells import BASELINE
from bench.metrics import METRICS, STEP
from bench.samples import Sample
from bench.stats.amounts import (
    estimate_amount,
    make_zero_cost,
    subtract_amount,
)
from tests.estimates import HAIKU, amount


def samples_of(metric: str, *values: float, median: float | None = None) -> list[Sample]:
    """Return a sample of each value, two of each worker."""
    return [
        Sample(HAIKU, metric, value, 20, median, worker=i // 2, block=i)
        for i, value in enumerate(values)
    ]


def test_an_amount_is_the_median_with_an_interval_over_workers() -> None:
    row = estimate_amount("new", HAIKU, METRICS[STEP], samples_of(STEP, 1, 1, 2, 2, 4, 4))
    assert (row.environment, row.unit, row.workers, row.blocks) == ("new", "s", 3, 6)
    error = math.log(2) / math.sqrt(3)  # of the mean of the workers' logarithms: 0, ln 2, 2 ln 2
    assert (row.value, row.standard_error, row.df) == pytest.approx((2, 2 * error, 2))
    half = 4.3027 * error
    assert (row.low, row.high) == pytest.approx((2 * math.exp(-half), 2 * math.exp(half)), rel=1e-4)


def test_an_amount_is_of_whole_calls_and_one_worker_has_no_interval() -> None:
    row = estimate_amount("", HAIKU, METRICS[STEP], samples_of(STEP, 1.0, 1.0, median=1.1))
    assert (row.value, row.low, row.high, row.df) == (1.1, None, None, 0)
    counts = samples_of("flops", 7.0, 7.0, 7.0, 7.0)
    exact = estimate_amount("", HAIKU, METRICS["flops"], counts)
    assert (exact.value, exact.low, exact.standard_error) == (7.0, None, None)


def test_differences_of_exact_amounts() -> None:
    calls = subtract_amount(*(amount(calls, "", metric="python_calls") for calls in (9.0, 4.0)))
    assert (calls.form, calls.value) == ("added", 5)
    zero = make_zero_cost(BASELINE.make_cell("mine", "cpu"))
    assert (zero.form, zero.value, zero.half_width) == ("added", 0, 0)
