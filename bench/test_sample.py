"""How long do 500 characters take, once compiled?"""

from collections.abc import Callable

import pytest

STYLES = ("pure",)


@pytest.mark.parametrize("metric", ["sample"])
def test_sample(replay: Callable[[], None]) -> None:
    replay()
