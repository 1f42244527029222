"""How long do 500 characters take, once compiled?"""

from collections.abc import Callable

METRICS = ("sample",)


def test_sample(replay: Callable[[], None]) -> None:
    replay()
