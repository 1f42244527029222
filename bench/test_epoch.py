"""What does an epoch take, chunk by chunk and as one jitted scan? With its data on the way."""

from collections.abc import Callable

METRICS = ("epoch_by_chunk", "epoch_by_scan")


def test_epoch(replay: Callable[[], None]) -> None:
    replay()
