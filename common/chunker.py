"""Chunks of one shape, cut from the tokens of a window; every target counts once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from common.contract import Chunk

if TYPE_CHECKING:
    from jaxtyping import Int

    from common.config import DataConfig


def chunks(tokens: Int[np.ndarray, " characters"], size: int, batch: int = 1) -> Chunk:
    """Cut `tokens` into chunks of `size` characters in `batch` contiguous streams.

    Returns:
        One Chunk with a leading axis: `chunks time batch`. Targets are inputs shifted by one. The
        ends of the streams are padded with token 0, which is masked; no chunk is empty.
    """
    targets = len(tokens) - 1
    assert targets >= 1, "a window has at least two characters"
    stream = -(-targets // batch)
    count = -(-stream // size)

    def lay(values: np.ndarray) -> np.ndarray:
        rows = np.zeros((batch, count * size), values.dtype)
        rows[:, :stream] = np.pad(values, (0, batch * stream - targets)).reshape(batch, stream)
        return np.ascontiguousarray(rows.reshape(batch, count, size).transpose(1, 2, 0))

    return Chunk(lay(tokens[:-1]), lay(tokens[1:]), lay(np.ones(targets, np.float32)))


def window(
    tokens: Int[np.ndarray, " characters"], config: DataConfig, seed: int, epoch: int
) -> Int[np.ndarray, " window"]:
    """Return the part of `tokens` that an epoch reads: another one for each epoch.

    It depends on the seed and on the epoch's number alone, so that a resumed run reads the same.
    """
    spare = len(tokens) - config.epoch_chars
    if spare <= 0:
        return tokens
    start = np.random.default_rng((seed, epoch)).integers(spare + 1)
    return tokens[start : start + config.epoch_chars]
