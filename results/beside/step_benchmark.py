"""The task as pytest-benchmark has it."""

import os
from typing import Any

from results.beside.task import make_step


def test_step(benchmark: Any) -> None:
    """Time a side's step."""
    benchmark(make_step(float(os.environ["BESIDE_WAIT"])))
