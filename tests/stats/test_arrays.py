"""Host cost per array: its interval covers, and what a call costs by itself is none of it."""

import math
from typing import Any

import numpy as np
import pytest

from bench.estimates import Estimate
from bench.stats.arrays import estimate_array_costs
from tests.estimates import HAIKU, amount, ratio

ARRAYS = {"toy": 8, "depth12": 26}
CALL, ARRAY = 60e-6, 2e-6
"""Seconds that a call costs by itself, and for each array."""


def rows(
    rng: np.random.Generator, call: float, array: float, error: float = 0.01
) -> list[Estimate]:
    """Return what a comparison measures where the new side costs so many seconds more."""
    out = []
    for workload, arrays in ARRAYS.items():
        cell, before = HAIKU._replace(workload=workload), CALL + ARRAY * arrays
        log = math.log1p((call + array * arrays) / before) + rng.normal(0, error)
        for side in ("base", "new"):
            about: dict[str, Any] = {"cell": cell, "environment": side}
            out.append(amount(before, metric="host_cost", **about))
            out.append(amount(arrays, "", metric="parameter_arrays", **about))
        about |= {"metric": "host_cost", "against": "base", "workers": 4, "blocks": 9}
        known = error * math.sqrt(rng.chisquare(8) / 8)
        out.append(ratio(math.exp(log), standard_error=known, df=8.0, **about))
    return out


@pytest.mark.parametrize(("call", "array"), [(0.0, 0.0), (10e-6, 0.0), (0.0, 0.2e-6)])
def test_the_interval_of_a_ratio_covers(call: float, array: float) -> None:
    rng, times, inside = np.random.default_rng(0), 400, 0
    for _ in range(times):
        *amounts, ratio = estimate_array_costs(rows(rng, call, array), "base", 0.02)
        assert [row.environment for row in amounts] == ["base", "new"]
        assert (ratio.metric, ratio.cell.workload) == ("host_cost_per_array", "depth12")
        assert ratio.low is not None
        assert ratio.high is not None
        inside += ratio.low <= 1 + array / ARRAY <= ratio.high
    assert inside / times > 0.93  # 95 %, and two standard errors
    base, new, ratio = estimate_array_costs(rows(rng, call, array, error=1e-6), "base", 0.02)
    assert base.value == pytest.approx(ARRAY)
    assert new.value == pytest.approx(ARRAY + array, rel=1e-3)
    assert ratio.value == pytest.approx(1 + array / ARRAY, rel=1e-3)
    assert (ratio.workers, ratio.blocks) == (4, 9)


def test_one_depth_or_a_cost_that_falls_with_arrays_has_none() -> None:
    rng = np.random.default_rng(1)
    one = [row for row in rows(rng, 0.0, 0.0) if row.cell.workload == "toy"]
    assert not [*estimate_array_costs(one, "base", 0.02)]
    falling = rows(rng, 0.0, -1.5 * ARRAY)
    assert not [*estimate_array_costs(falling, "base", 0.02)]
