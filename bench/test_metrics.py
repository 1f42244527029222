"""What pytest sees: a benchmark for each selected cell and each of its metrics."""

from collections.abc import Callable


def test_metric(replay: Callable[[], None]) -> None:
    """Replay what workers have measured; the first benchmark has them measure."""
    replay()
