"""What does it cost before the first step? Trace, lower and compile, each in fresh processes.

Equinox's filter_jit cannot be traced apart: what of its time is lowering, JAX's event says.
"""

from collections.abc import Callable

import pytest

from bench.measure.cells import COLD


@pytest.mark.parametrize("metric", COLD)
def test_compile(replay: Callable[[], None]) -> None:
    replay()
