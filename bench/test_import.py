"""What does it take before anything is compiled? The import and the library's initialiser."""

from collections.abc import Callable

METRICS = ("import", "init")


def test_import(replay: Callable[[], None]) -> None:
    replay()
