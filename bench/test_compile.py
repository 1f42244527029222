"""What does it cost to get to the first step? Stages interleaved, the whole in fresh processes.

JAX's own events time the stages of steps that cannot be traced separately.
"""

from collections.abc import Callable

METRICS = ("trace", "lower", "compile", "first_step", "startup")


def test_compile(replay: Callable[[], None]) -> None:
    replay()
