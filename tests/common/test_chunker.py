from itertools import product
from typing import Any

import numpy as np

from common.chunker import chunks, window
from common.config import DataConfig


def in_order(values: Any) -> np.ndarray:
    """Return `values` stream after stream, as they are read."""
    return np.asarray(values).transpose(2, 0, 1).reshape(values.shape[2], -1)


def test_every_target_counts_once_and_in_order() -> None:
    lengths = [*range(2, 20), 33, 64, 65, 66, 100]
    for length, size, batch in product(lengths, [1, 2, 3, 5, 16, 200], [1, 2, 3, 7, 150]):
        tokens, about = np.arange(100, 100 + length, dtype=np.int32), (length, size, batch)
        cut = chunks(tokens, size, batch)
        stream = -(-(length - 1) // batch)
        shape = (-(-stream // size), size, batch)
        assert cut.inputs.shape == cut.targets.shape == cut.mask.shape == shape, about
        assert [array.dtype for array in cut] == [np.int32, np.int32, np.float32]
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


def test_a_window_depends_on_seed_and_epoch_alone() -> None:
    """It reaches both ends of the text; a shorter text is read whole."""
    tokens, config = np.arange(140, dtype=np.int32), DataConfig(epoch_chars=100)
    starts = {}
    for seed in (0, 1):
        parts = {epoch: window(tokens, config, seed, epoch) for epoch in reversed(range(400))}
        assert all(part.tolist() == [*range(part[0], part[0] + 100)] for part in parts.values())
        starts[seed] = [int(parts[epoch][0]) for epoch in range(400)]
        assert {*starts[seed]} == {*range(41)}
    assert starts[0] == [int(window(tokens, config, 0, epoch)[0]) for epoch in range(400)]
    assert sum(a == b for a, b in zip(*starts.values(), strict=True)) < 40
    for length in (2, 99, 100):
        assert window(tokens[:length], config, 3, 4).tolist() == [*range(length)]
