from itertools import product
from typing import Any

import numpy as np
import pytest

from common.chunker import chunks, window
from common.config import DataConfig


def in_order(values: Any) -> np.ndarray:
    """Return `values` stream after stream, as they are read."""
    return np.asarray(values).transpose(2, 0, 1).reshape(values.shape[2], -1)


@pytest.mark.parametrize("length", [*range(2, 20), 33, 64, 65, 66, 100])
def test_every_target_counts_once_and_in_order(length: int) -> None:
    tokens = np.arange(100, 100 + length, dtype=np.int32)  # no token comes twice
    for size, batch in product([1, 2, 3, 5, 8, 16, 64, 200], [1, 2, 3, 7, 32, 150]):
        cut, about = chunks(tokens, size, batch), (size, batch)
        stream = -(-(length - 1) // batch)
        shape = (-(-stream // size), size, batch)
        assert cut.inputs.shape == cut.targets.shape == cut.mask.shape == shape, about
        assert cut.inputs.dtype == cut.targets.dtype == np.int32
        assert cut.mask.dtype == np.float32
        inputs, targets, mask = map(in_order, cut)
        counts = mask == 1
        assert targets[counts].tolist() == tokens[1:].tolist(), about
        # Targets are inputs shifted by one, within and across chunks.
        assert (targets[counts] == inputs[counts] + 1).all(), about
        assert (np.diff(inputs, axis=1)[counts[:, 1:]] == 1).all(), about
        # Padding is token zero at the ends of streams only, and masks no chunk as a whole.
        assert not inputs[~counts].any(), about
        assert not targets[~counts].any(), about
        assert (np.diff(mask, axis=1) <= 0).all(), about
        assert (cut.mask.sum(axis=(1, 2)) > 0).all(), about


def test_two_streams_are_two_halves() -> None:
    cut = chunks(np.arange(8, dtype=np.int32), size=2, batch=2)
    assert cut.inputs.tolist() == [[[0, 4], [1, 5]], [[2, 6], [3, 0]]]
    assert cut.targets.tolist() == [[[1, 5], [2, 6]], [[3, 7], [4, 0]]]
    assert cut.mask.tolist() == [[[1, 1], [1, 1]], [[1, 1], [1, 0]]]


def test_a_window_depends_on_seed_and_epoch_alone() -> None:
    tokens, config = np.arange(5000, dtype=np.int32), DataConfig(epoch_chars=100)
    starts: dict[int, list[int]] = {}
    for seed, epoch in product((0, 1), range(50)):
        part = window(tokens, config, seed, epoch)
        assert part.tolist() == list(range(part[0], part[0] + 100))
        starts.setdefault(seed, []).append(int(part[0]))
    again = [int(window(tokens, config, 0, epoch)[0]) for epoch in reversed(range(50))]
    assert again[::-1] == starts[0]
    assert len(set(starts[0])) > 40
    assert not set(enumerate(starts[0])) & set(enumerate(starts[1]))


def test_windows_reach_both_ends_of_the_text() -> None:
    tokens, config = np.arange(12, dtype=np.int32), DataConfig(epoch_chars=10)
    assert {int(window(tokens, config, 0, epoch)[0]) for epoch in range(100)} == {0, 1, 2}


@pytest.mark.parametrize("length", [2, 99, 100])
def test_a_text_no_longer_than_the_window_is_read_whole(length: int) -> None:
    tokens = np.arange(length, dtype=np.int32)
    assert window(tokens, DataConfig(epoch_chars=100), 3, 4).tolist() == tokens.tolist()
