"""What does it cost before the first step? Trace, lower and compile, each in fresh processes."""

from collections.abc import Callable

import pytest

from bench.measure.cells import COLD


@pytest.mark.parametrize("metric", COLD)
def test_compile(replay: Callable[[], None]) -> None:
    replay()
