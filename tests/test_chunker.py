from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from common.chunker import chunks, window
from common.config import DataConfig
from common.contract import Chunk

LENGTHS = [*range(2, 20), 33, 64, 65, 66, 100]
SIZES = [1, 2, 3, 5, 8, 16, 64, 200]
BATCHES = [1, 2, 3, 7, 32, 150]


def cuts() -> Iterator[tuple[np.ndarray, int, int, Chunk]]:
    """Yield texts without a repeated token, sizes and batches, and what they are cut into."""
    for length in LENGTHS:
        tokens = np.arange(100, 100 + length, dtype=np.int32)
        for size in SIZES:
            for batch in BATCHES:
                yield tokens, size, batch, chunks(tokens, size, batch)


def in_order(values: Any) -> np.ndarray:
    """Return `values` as they are read: stream after stream, chunk after chunk."""
    return np.asarray(values).transpose(2, 0, 1).reshape(-1)


def test_every_target_counts_once_and_in_order() -> None:
    for tokens, size, batch, cut in cuts():
        counted = in_order(cut.targets)[in_order(cut.mask) == 1]
        assert counted.tolist() == tokens[1:].tolist(), (len(tokens), size, batch)


def test_targets_are_inputs_shifted_by_one_within_and_across_chunks() -> None:
    for tokens, size, batch, cut in cuts():
        counts = cut.mask == 1
        assert (cut.targets[counts] == cut.inputs[counts] + 1).all(), (len(tokens), size, batch)
        streams = cut.inputs.transpose(2, 0, 1).reshape(batch, -1)
        counted = cut.mask.transpose(2, 0, 1).reshape(batch, -1)
        for stream, valid in zip(np.asarray(streams), np.asarray(counted), strict=True):
            assert all(b == a + 1 for a, b in pairwise(stream[valid == 1].tolist()))


def test_padding_is_token_zero_at_the_ends_of_streams_only() -> None:
    for tokens, size, batch, cut in cuts():
        pad = cut.mask == 0
        assert not cut.inputs[pad].any()
        assert not cut.targets[pad].any()
        counted = cut.mask.transpose(2, 0, 1).reshape(batch, -1)
        assert (np.diff(counted, axis=1) <= 0).all(), (len(tokens), size, batch)


def test_chunks_have_one_shape_and_none_is_masked_as_a_whole() -> None:
    for tokens, size, batch, cut in cuts():
        stream = -(-(len(tokens) - 1) // batch)
        shape = (-(-stream // size), size, batch)
        assert cut.inputs.shape == cut.targets.shape == cut.mask.shape == shape
        assert (cut.mask.sum(axis=(1, 2)) > 0).all(), (len(tokens), size, batch)
        assert cut.inputs.dtype == cut.targets.dtype == np.int32
        assert cut.mask.dtype == np.float32


def test_a_text_shorter_than_a_chunk_is_one_padded_chunk() -> None:
    cut = chunks(np.array([4, 5, 6], np.int32), size=5)
    assert cut.inputs[..., 0].tolist() == [[4, 5, 0, 0, 0]]
    assert cut.targets[..., 0].tolist() == [[5, 6, 0, 0, 0]]
    assert cut.mask[..., 0].tolist() == [[1, 1, 0, 0, 0]]


@pytest.mark.parametrize("length", [5, 9, 101])
def test_one_character_more_than_whole_chunks_needs_no_padding(length: int) -> None:
    cut = chunks(np.arange(length, dtype=np.int32), size=4)
    assert cut.mask.all()
    assert cut.mask.size == length - 1


def test_two_streams_are_two_halves() -> None:
    cut = chunks(np.arange(8, dtype=np.int32), size=2, batch=2)
    assert cut.inputs.tolist() == [[[0, 4], [1, 5]], [[2, 6], [3, 0]]]
    assert cut.targets.tolist() == [[[1, 5], [2, 6]], [[3, 7], [4, 0]]]
    assert cut.mask.tolist() == [[[1, 1], [1, 1]], [[1, 1], [1, 0]]]


def test_a_window_depends_on_seed_and_epoch_alone() -> None:
    tokens, config = np.arange(5000, dtype=np.int32), DataConfig(epoch_chars=100)

    def starts(seed: int) -> list[int]:
        found = [window(tokens, config, seed, epoch) for epoch in range(50)]
        for epoch, part in enumerate(found):
            assert part.tolist() == list(range(part[0], part[0] + 100))
            assert part[0] == window(tokens, config, seed, epoch)[0]
        return [int(part[0]) for part in found]

    first, second = starts(0), starts(1)
    assert len(set(first)) > 40
    assert not set(enumerate(first)) & set(enumerate(second))
    assert starts(0)[::-1] == first[::-1]


def test_windows_reach_both_ends_of_the_text() -> None:
    tokens, config = np.arange(12, dtype=np.int32), DataConfig(epoch_chars=10)
    found = {int(window(tokens, config, 0, epoch)[0]) for epoch in range(100)}
    assert found == {0, 1, 2}


@pytest.mark.parametrize("length", [2, 99, 100])
def test_a_text_no_longer_than_the_window_is_read_whole(length: int) -> None:
    tokens = np.arange(length, dtype=np.int32)
    assert window(tokens, DataConfig(epoch_chars=100), 3, 4).tolist() == tokens.tolist()
