"""What does each style cost? A benchmark of each metric, which passes on what one run measured.

`--metric` and the like choose among them; `-k` does so by their names, as in
`test_metric[step-haiku-pure-seed-cpu]`.
"""

from collections.abc import Callable


def test_metric(replay: Callable[[], None]) -> None:
    replay()
