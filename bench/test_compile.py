"""What does it cost to get to the first step? Each stage in fresh processes.

Equinox's filter_jit cannot be traced apart: what of its time is lowering, JAX's event says.
"""

from collections.abc import Callable

METRICS = ("trace", "lower", "compile", "first_step")


def test_compile(replay: Callable[[], None]) -> None:
    replay()
