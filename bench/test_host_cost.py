"""What does a call cost the host? On one core, at a tiny size: waited for, and in a row."""

from collections.abc import Callable

METRICS = ("host_cost", "host_cost_pipelined")


def test_host_cost(replay: Callable[[], None]) -> None:
    replay()
