"""What a wrong loss would be right for: the usual mistakes, tried out on the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from common import reference
from common.contract import Dense, Weights, flat, unflat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from common.contract import AnyArray, Chunk

    type Given = tuple[Weights, Sequence[AnyArray], Chunk]
    type Loss = Callable[[Weights, Sequence[AnyArray], Chunk], float]

NEAR = 2e-5
"""Relative difference within which a mistake explains a loss."""


def loss(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the reference's loss."""
    return reference.loss_and_grads(weights, hidden, chunk).loss


def input_first(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the loss where kernels' rows are taken in the order of `concat([x, hidden])`."""
    width = weights.readout.kernel.shape[0]
    cells = [
        Dense(np.concatenate([kernel[-width:], kernel[:-width]]), bias)
        for kernel, bias in weights.cells
    ]
    return loss(unflat([*cells, weights.readout]), hidden, chunk)


def no_bias(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the loss without any bias."""
    bare = [Dense(kernel, np.zeros_like(bias)) for kernel, bias in flat(weights)]
    return loss(unflat(bare), hidden, chunk)


def no_hidden(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the loss from a zero state."""
    return loss(weights, [np.zeros(np.shape(rows)) for rows in hidden], chunk)


def no_mask(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the loss over padding too."""
    return loss(weights, hidden, chunk._replace(mask=np.ones(np.shape(chunk.mask))))


def summed(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the sum of losses."""
    return loss(weights, hidden, chunk) * float(np.sum(np.asarray(chunk.mask)))


def by_time(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the loss divided by the chunk's length, padding included."""
    mask = np.asarray(chunk.mask)
    return loss(weights, hidden, chunk) * float(mask.sum()) / mask.size


def own_inputs(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the loss where a character predicts itself."""
    return loss(weights, hidden, chunk._replace(targets=chunk.inputs))


def ignored_inputs(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the loss where every input is character 0."""
    return loss(weights, hidden, chunk._replace(inputs=np.zeros_like(np.asarray(chunk.inputs))))


def in_bits(weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> float:
    """Return the loss in bits."""
    return loss(weights, hidden, chunk) / float(np.log(2))


MISTAKES: dict[str, Loss] = {
    "kernels are applied to concatenate([x, hidden]), not to concatenate([hidden, x])": input_first,
    "biases are not added": no_bias,
    "the hidden state that a call is given is not used": no_hidden,
    "the mask is not used: padding counts": no_mask,
    "losses are summed, where the mean is asked for": summed,
    "the sum is divided by the chunk's length, not by the targets that count": by_time,
    "inputs stand where the targets belong": own_inputs,
    "inputs are not used: each one is taken for character 0": ignored_inputs,
    "it is in bits, where nats are asked for": in_bits,
}


def explained(seen: float, weights: Weights, hidden: Sequence[AnyArray], chunk: Chunk) -> str:
    """Return which mistake would give the loss that was seen, after a semicolon; or nothing."""
    for words, mistaken in MISTAKES.items():
        if abs(seen / mistaken(weights, hidden, chunk) - 1) <= NEAR:
            return f"; that is the loss where {words}"
    return ""
