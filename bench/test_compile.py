"""What does it cost to get to the first step? Stages in turns, the whole in fresh processes.

What cannot be traced apart is told by JAX's own events.
"""

from collections.abc import Callable

METRICS = ("trace", "lower", "compile", "first_step", "startup")


def test_compile(replay: Callable[[], None]) -> None:
    replay()
