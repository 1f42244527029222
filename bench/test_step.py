"""How long is one training step? All entrants interleaved, each call synchronised, or in a row."""

from collections.abc import Callable

METRICS = ("step", "step_pipelined", "cores_used")


def test_step(replay: Callable[[], None]) -> None:
    replay()
