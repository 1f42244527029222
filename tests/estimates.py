"""Estimates that were never measured: of haiku's step at `seed`, unless told otherwise."""

import math
from typing import Any

from bench.cells import BASELINE, Arm
from bench.estimates import Estimate

PLAIN, HAIKU = (arm.make_cell("seed", "cpu") for arm in (BASELINE, Arm("haiku", "pure")))


def ratio(value: float, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    usual = {"cell": HAIKU, "metric": "step", "form": "ratio", "against": str(BASELINE)}
    return Estimate(value=value, low=low, high=high, **usual | more)


def ratio_within(value: float, half: float, **more: Any) -> Any:
    """Return a ratio whose interval has this half width, in logarithms."""
    error = {"standard_error": half / 2, "df": 50.0}
    return ratio(value, value * math.exp(-half), value * math.exp(half), **error | more)


def added(value: float, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    return ratio(value, low, high, **{"form": "added", "unit": "s"} | more)


def amount(value: float, unit: str = "s", **more: Any) -> Any:
    return ratio(value, form="amount", unit=unit, **{"against": ""} | more)
