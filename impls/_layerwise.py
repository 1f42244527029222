"""Loss and gradient of a chunk layer by layer: the same function as `scan_loss`, written for speed.

A cell's kernel has two parts. The input from below is known for the whole chunk before a layer's
scan begins, so it is one matrix product; a one-hot row times a kernel is a row of it. Only the
part from the state before has to wait for it. Backwards, the scan hands on the state's gradient
alone, and the kernel's gradient is one matrix product after it; `lax.scan`'s own derivative adds
an outer product to it at every character. Many streams are cut into groups, one after another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

if TYPE_CHECKING:
    from jaxtyping import Array, Float

    from common.contract import Chunk, Hidden, Weights

    type Kernel = Float[Array, "in out"]
    type Bias = Float[Array, " out"]
    type Rows = Float[Array, "batch width"]
    type Sequences = Float[Array, "time batch width"]
    type Loss = Float[Array, ""]

GROUP = 8
"""Number of streams that are worked on together. More rows make the products of a scan no faster,
and the arrays kept for a derivative leave the cache; from 32 MB on, glibc also gives them back
after each step."""


def kernel_gradient(inputs: Sequences, outputs_gradient: Sequences) -> Kernel:
    """Return the gradient of a kernel, summed over all characters: one matrix product."""
    return jnp.einsum("tbi,tbo->io", inputs, outputs_gradient)


@jax.custom_vjp
def dense(x: Sequences, kernel: Kernel, bias: Bias) -> Sequences:
    """Return `x @ kernel + bias`; JAX's own gradient of the kernel is a slower product."""
    return x @ kernel + bias[None, None]


def _dense_forward(
    x: Sequences, kernel: Kernel, bias: Bias
) -> tuple[Sequences, tuple[Sequences, Kernel]]:
    return dense(x, kernel, bias), (x, kernel)


def _dense_backward(
    kept: tuple[Sequences, Kernel], gradient: Sequences
) -> tuple[Sequences, Kernel, Bias]:
    x, kernel = kept
    return gradient @ kernel.T, kernel_gradient(x, gradient), jnp.sum(gradient, (0, 1))


dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def recurrence(kernel: Kernel, hidden: Rows, below: Sequences) -> Sequences:
    """Return the state after each character: `tanh(hidden @ kernel + below)`, one after another."""

    def step(hidden: Rows, below: Rows) -> tuple[Rows, Rows]:
        hidden = jnp.tanh(hidden @ kernel + below)
        return hidden, hidden

    return jax.lax.scan(step, hidden, below)[1]


def _recurrence_forward(
    kernel: Kernel, hidden: Rows, below: Sequences
) -> tuple[Sequences, tuple[Kernel, Rows, Sequences]]:
    states = recurrence(kernel, hidden, below)
    return states, (kernel, hidden, states)


def _recurrence_backward(
    kept: tuple[Kernel, Rows, Sequences], gradient: Sequences
) -> tuple[Kernel, Rows, Sequences]:
    kernel, hidden, states = kept
    transposed = kernel.T

    def step(after: Rows, here: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
        gradient, state = here
        before = (gradient + after @ transposed) * (1 - state * state)
        return before, before

    first, all_ = jax.lax.scan(step, jnp.zeros_like(hidden), (gradient, states), reverse=True)
    # Either factor could be shifted by a character; XLA:CPU is slower with the other one
    later = jnp.concatenate([all_[1:], jnp.zeros_like(all_[:1])])
    return kernel_gradient(states, later) + hidden.T @ all_[0], first @ transposed, all_


recurrence.defvjp(_recurrence_forward, _recurrence_backward)


def layerwise_loss(
    weights: Weights, hidden: Hidden, chunk: Chunk, count: Loss
) -> tuple[Loss, Hidden]:
    """Return a group's part of the loss in nats per character, and its state after the chunk.

    Args:
        weights: JAX arrays; the first cell reads one-hot characters.
        hidden: Each layer's state before the chunk, `batch width`.
        chunk: Characters of the group's streams, `time batch`.
        count: Number of targets that count, in all groups: losses are summed, and divided by it.
    """
    x: Sequences | None = None
    after = []
    for (kernel, bias), state in zip(weights.cells, hidden, strict=True):
        recurrent, input_kernel = jnp.split(kernel, [state.shape[-1]])
        if x is None:
            below = input_kernel[jnp.asarray(chunk.inputs)] + bias[None, None]
        else:
            below = dense(x, input_kernel, bias)
        x = recurrence(recurrent, state, below)
        after.append(x[-1])
    logits = dense(x, *weights.readout)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(chunk.targets))
    return jnp.sum(losses * chunk.mask) / count, tuple(after)


def loss_and_gradient(
    weights: Weights, hidden: Hidden, chunk: Chunk
) -> tuple[Loss, Hidden, Weights]:
    """Return a chunk's mean loss, the state after it, and the loss's gradient by all weights.

    Streams are taken `GROUP` at a time, or as many as divide them, if they are not too few.
    """
    count = jnp.sum(chunk.mask)

    def group_gradient(hidden: Hidden, chunk: Chunk) -> tuple[tuple[Loss, Hidden], Weights]:
        return jax.value_and_grad(layerwise_loss, has_aux=True)(weights, hidden, chunk, count)

    batch = hidden[0].shape[0]
    size = max(size for size in range(1, GROUP + 1) if batch % size == 0)
    if size == batch or size < GROUP // 2:
        (loss, after), grads = group_gradient(hidden, chunk)
        return loss, after, grads

    def add(sums: tuple[Loss, Weights], part: tuple[Hidden, Chunk]) -> tuple[Any, Hidden]:
        (loss, after), grads = group_gradient(*part)
        return jax.tree.map(jnp.add, sums, (loss, grads)), after

    zeros = jax.tree.map(jnp.zeros_like, (count, weights))
    parts = (
        jax.tree.map(lambda rows: rows.reshape(-1, size, rows.shape[-1]), hidden),
        jax.tree.map(lambda times: jnp.stack(jnp.split(times, batch // size, axis=1)), chunk),
    )
    (loss, grads), after = jax.lax.scan(add, zeros, parts)
    return loss, jax.tree.map(lambda rows: rows.reshape(batch, -1), after), grads
