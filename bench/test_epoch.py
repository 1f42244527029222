"""What does a call cost beside its work? An epoch chunk by chunk, and as one jitted scan."""

from collections.abc import Callable

import pytest

STYLES = ("pure",)


@pytest.mark.parametrize("metric", ["epoch_by_chunk", "epoch_by_scan"])
def test_epoch(replay: Callable[[], None]) -> None:
    replay()
