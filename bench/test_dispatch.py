"""What does a call cost the host? At a tiny size: not waited for, pipelined, and waited for."""

from collections.abc import Callable

METRICS = ("dispatch", "dispatch_pipelined", "dispatch_synchronised")


def test_dispatch(replay: Callable[[], None]) -> None:
    replay()
