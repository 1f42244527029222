"""Mean cross entropy of a chunk, through a `lax.scan` over its characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float, Int

    from common.contract import Chunk, Hidden, State

    type Step = Callable[[State, Int[Array, ""]], tuple[State, Float[Array, " vocab"]]]


def cross_entropy(logits: Float[Array, "time batch vocab"], chunk: Chunk) -> Float[Array, ""]:
    """Return the mean loss in nats per character over the targets that count."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, chunk.targets)
    return jnp.sum(losses * chunk.mask) / jnp.sum(chunk.mask)


def scan_loss(step: Step, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss in nats per character, and the hidden state after the chunk.

    `step` is one character of one stream, with its parameters bound; streams are mapped over here.
    The cross entropy is taken after the scan: its gradient scatters, and XLA:CPU treats loops
    with a scatter in them worse.
    """
    hidden, logits = jax.lax.scan(jax.vmap(step), hidden, jnp.asarray(chunk.inputs))
    return cross_entropy(logits, chunk), hidden
