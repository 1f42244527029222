"""Where does training get to? From the same weights, and from each library's own initialiser."""

from collections.abc import Callable

METRICS = ("final_loss",)


def test_loss(replay: Callable[[], None]) -> None:
    replay()
