"""What does each style cost? A benchmark of each metric, which passes on what one run measured.

`-k step` chooses among them by their names, as in `test_metric[step-haiku-pure-seed-cpu]`.
"""

from collections.abc import Callable


def test_metric(replay: Callable[[], None]) -> None:
    replay()
