"""How much memory does a process need, with its program compiled and run once? In bytes."""

from collections.abc import Callable

METRICS = ("peak_rss",)


def test_memory(replay: Callable[[], None]) -> None:
    replay()
