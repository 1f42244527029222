"""What are more devices worth? The same streams shared between them, and as many on each."""

from collections.abc import Callable

METRICS = ("step", "compile")
OVER_DEVICES = True
"""Its cells are styles over devices: see `--devices`."""


def test_scaling(replay: Callable[[], None]) -> None:
    replay()
