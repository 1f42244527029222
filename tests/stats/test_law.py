"""The law of added time, by hand."""

import math

import pytest

from bench.cells import Arm
from bench.stats.law import Law, predict_added_time

CELL = Arm("equinox", "filter_jit").make_cell("depth", "cpu")
LAW = Law(fixed=1e-5, of_array=2e-6, covariance=(4e-12, -1e-13, 1e-14), workers=9, t=2.0, misfit=0)


def test_a_prediction_adds_the_arrays_to_the_fixed_part() -> None:
    row = predict_added_time(LAW, CELL, 10)
    error = math.sqrt(4e-12 - 2 * 10 * 1e-13 + 100 * 1e-14)
    assert (row.form, row.unit, row.against, row.df) == ("added", "s", "pure_jax/pure", 7)
    assert row.value == pytest.approx(3e-5)
    assert row.standard_error == pytest.approx(error)
    assert (row.low, row.high) == pytest.approx((3e-5 - 2 * error, 3e-5 + 2 * error))


def test_an_array_alone_has_its_own_error() -> None:
    row = predict_added_time(LAW, CELL, 1, fixed=0.0)
    assert (row.value, row.standard_error) == pytest.approx((2e-6, 1e-7))
