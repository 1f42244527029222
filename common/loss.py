"""Mean cross entropy of a chunk, through a `lax.scan` over its characters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from common.shares import divided, over_devices, total

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float, Int

    from common.contract import Chunk, Hidden, State

    type Step = Callable[[State, Int[Array, ""]], tuple[State, Float[Array, " vocab"]]]


def cross_entropy(logits: Float[Array, "time batch vocab"], chunk: Chunk) -> Float[Array, ""]:
    """Return the mean loss in nats per character over the targets that count."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, chunk.targets)
    return total(jnp.sum(losses * chunk.mask)) / total(jnp.sum(chunk.mask))


def scan_loss(step: Step, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss in nats per character, and the hidden state after the chunk.

    `step` is one character of one stream, with its parameters bound; streams are mapped over here.
    The cross entropy is taken after the scan: its gradient scatters, and XLA:CPU treats loops
    with a scatter in them worse.

    Over devices, what `step` has bound is made an argument, for its gradient has to be each
    device's own: see `common.shares`.
    """
    if not over_devices():
        return loss_of_scan(step, hidden, chunk)
    # Traced twice: here to find what is bound, there as one device sees it
    _, bound = unbound(step, hidden, chunk)

    def loss(bound: list[Array], hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
        free, _ = unbound(step, hidden, chunk)
        return loss_of_scan(lambda *row: free(*row, *bound), hidden, chunk)

    return divided(loss)(bound, hidden, chunk)


def unbound(step: Step, hidden: Hidden, chunk: Chunk) -> tuple[Callable[..., Any], list[Array]]:
    """Return a step that is also given what `step` has bound, and that."""
    row = tuple(rows[0] for rows in hidden), chunk.inputs[0, 0]
    # A function anew: what is converted is remembered, and modules are no keys
    return jax.closure_convert(lambda *row: step(*row), *row)


def loss_of_scan(step: Step, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the loss and the state after the chunk, of all streams that a device has."""
    hidden, logits = jax.lax.scan(jax.vmap(step), hidden, jnp.asarray(chunk.inputs))
    return cross_entropy(logits, chunk), hidden
