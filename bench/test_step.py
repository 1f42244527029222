"""How long is one training step? All entrants interleaved, each call synchronised."""

from collections.abc import Callable

METRICS = ("step",)


def test_step(replay: Callable[[], None]) -> None:
    replay()
