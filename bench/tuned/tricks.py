"""Each trick on its own beside the shared step: a reader learns what matters more than a library.

An entrant from outside: `pytest bench --entrant pure_jax --entrant bench/tuned/tricks.py`. A style
is the shared step but for one thing. It is proven equal like everybody else's; and `donated` is the
only style of this project that donates: parameters and optimiser state, never the hidden state, so
that a second call with the same arguments is allowed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from common.contract import Checkpoint, Dense, Weights
from common.layerwise import in_groups, kernel_gradient, mean_loss
from common.loss import cross_entropy, scan_loss
from common.older import tree_get, tree_set
from common.steps import (
    FunctionalStep,
    functional,
    load_adam,
    on_host,
    pure_style,
    pure_update,
    save_adam,
    stages_of,
    update_of,
)
from impls.pure_jax import build, char_rnn

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, Params, State, Style, TrainStep
    from common.layerwise import Loss, Rows, Sequences

    type LayerLoss = Callable[[Weights, Hidden, Chunk], tuple[Loss, Hidden]]

DISTRIBUTION = "jax"
NOTE = "The shared step with one trick each; `donated` donates its own state."
UNROLL = 8
"""Characters that one iteration of `unrolled` works on."""


def by_loss(loss_of: LayerLoss) -> Style:
    """Return the shared step with another way to the same loss."""

    def style(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
        model = build(config)

        def loss(params: Params, hidden: Hidden, chunk: Chunk) -> tuple[Loss, Hidden]:
            return loss_of(model.to_weights(params), hidden, chunk)

        update = jax.jit(update_of(loss, optimiser))
        return functional(update, model, optimiser, stages_of(update))

    style.__doc__ = loss_of.__doc__
    return style


def by_layer(layer: Callable[[Dense, Rows, Sequences], Sequences], doc: str) -> Style:
    """Return the shared step with one scan for each layer, over one-hot characters at first."""

    def loss(weights: Weights, hidden: Hidden, chunk: Chunk) -> tuple[Loss, Hidden]:
        x, after = jax.nn.one_hot(chunk.inputs, weights.readout.bias.size), []
        for cell, state in zip(weights.cells, hidden, strict=True):
            x = layer(cell, state, x)
            after.append(x[-1])
        kernel, bias = weights.readout
        return cross_entropy(x @ kernel + bias[None, None], chunk), tuple(after)

    loss.__doc__ = doc
    return by_loss(loss)


def joined(cell: Dense, hidden: Rows, x: Sequences) -> Sequences:
    """Return one layer's states, the cell as the shared step has it: over `[hidden, x]`."""

    def step(hidden: Rows, x: Rows) -> tuple[Rows, Rows]:
        hidden = jnp.tanh(jnp.concatenate([hidden, x], axis=1) @ cell.kernel + cell.bias[None])
        return hidden, hidden

    return jax.lax.scan(step, hidden, x)[1]


def projected(cell: Dense, hidden: Rows, x: Sequences) -> Sequences:
    """Return one layer's states, what comes from below being one product before the scan."""
    own, other = jnp.split(cell.kernel, [hidden.shape[1]])

    def step(hidden: Rows, below: Rows) -> tuple[Rows, Rows]:
        hidden = jnp.tanh(hidden @ own + below)
        return hidden, hidden

    return jax.lax.scan(step, hidden, x @ other + cell.bias[None, None])[1]


@jax.custom_vjp
def by_hand(cell: Dense, hidden: Rows, x: Sequences) -> Sequences:
    """Return what `joined` does; its derivative by the kernel is one product after the scan."""
    return joined(cell, hidden, x)


def _forward(cell: Dense, hidden: Rows, x: Sequences) -> tuple[Sequences, Any]:
    states = joined(cell, hidden, x)
    return states, (cell.kernel, hidden, x, states)


def _backward(kept: Any, gradient: Sequences) -> tuple[Dense, Rows, Sequences]:
    kernel, hidden, x, states = kept
    width, transposed = hidden.shape[1], kernel.T

    def step(after: Rows, here: tuple[Rows, Rows]) -> tuple[Rows, tuple[Rows, Rows]]:
        gradient, state = here
        before = (gradient + after) * (1 - state * state)
        both = before @ transposed
        return both[:, :width], (before, both[:, width:])

    first, (sums, below) = jax.lax.scan(
        step, jnp.zeros_like(hidden), (gradient, states), reverse=True
    )
    read = jnp.concatenate([jnp.concatenate([hidden[None], states[:-1]]), x], axis=2)
    return Dense(kernel_gradient(read, sums), jnp.sum(sums, (0, 1))), first, below


by_hand.defvjp(_forward, _backward)


def gathered(weights: Weights, hidden: Hidden, chunk: Chunk) -> tuple[Loss, Hidden]:
    """Of the first kernel, the character's row is read: no product with a one-hot vector."""

    def step(state: State, token: Array) -> tuple[State, Float[Array, " vocab"]]:
        new: list[Array] = []
        for (kernel, bias), hidden in zip(weights.cells, state, strict=True):
            if new:
                total = jnp.concatenate([hidden, new[-1]]) @ kernel
            else:
                own, other = jnp.split(kernel, [hidden.size])
                total = hidden @ own + other[token]
            new.append(jnp.tanh(total + bias))
        return tuple(new), new[-1] @ weights.readout.kernel + weights.readout.bias

    return scan_loss(step, hidden, chunk)


def unrolled(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """One iteration of the loop does eight characters."""
    model = build(config)

    def loss(params: Params, hidden: Hidden, chunk: Chunk) -> tuple[Loss, Hidden]:
        step = jax.vmap(partial(char_rnn, params))
        hidden, logits = jax.lax.scan(step, hidden, jnp.asarray(chunk.inputs), unroll=UNROLL)
        return cross_entropy(logits, chunk), hidden

    update = jax.jit(update_of(loss, optimiser))
    return functional(update, model, optimiser, stages_of(update))


def grouped(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """More than eight streams are taken eight at a time, and gradients added up."""
    model = build(config)

    def loss_of(params: Params, hidden: Hidden, chunk: Chunk, total: Loss) -> tuple[Loss, Hidden]:
        step = jax.vmap(partial(char_rnn, params))
        hidden, logits = jax.lax.scan(step, hidden, jnp.asarray(chunk.inputs))
        return mean_loss(logits, chunk, total), hidden

    @jax.jit
    def update(state: tuple[Params, optax.OptState], hidden: Hidden, chunk: Chunk) -> Any:
        params, opt_state = state
        loss, hidden, grads = in_groups(loss_of, params, hidden, chunk)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), hidden, loss

    return functional(update, model, optimiser, stages_of(update))


def flat_optimiser(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """The optimiser works on one vector, as with `optax.flatten`, not on eight arrays."""
    model, vector = build(config), optax.flatten(optimiser)
    update = jax.jit(pure_update(model, vector))

    def flat(weights: Weights) -> Array:
        return ravel_pytree(model.from_weights(weights))[0]

    def load(checkpoint: Checkpoint) -> tuple[Params, optax.OptState]:
        params = model.from_weights(checkpoint.weights)
        moments = {"mu": flat(checkpoint.mu), "nu": flat(checkpoint.nu)}
        count = jnp.int32(checkpoint.updates)
        return params, tree_set(vector.init(params), **moments, count=count)

    def save(state: tuple[Params, optax.OptState]) -> Checkpoint:
        params, opt_state = state
        tree = ravel_pytree(params)[1]
        mu, nu = (tree(tree_get(opt_state, name)) for name in ("mu", "nu"))
        weights, mu, nu = (on_host(model.to_weights(each)) for each in (params, mu, nu))
        return Checkpoint(weights, mu, nu, int(tree_get(opt_state, "count")))

    return FunctionalStep(update, load, save, stages_of(update))


def donated(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """New parameters and moments take the old ones' memory."""
    model = build(config)
    update = jax.jit(pure_update(model, optimiser), donate_argnums=0)

    def load(checkpoint: Checkpoint) -> tuple[Params, optax.OptState]:
        params = model.from_weights(checkpoint.weights)
        state = params, load_adam(optimiser, params, model, checkpoint)
        return jax.tree.map(jnp.copy, state)  # the checkpoint's arrays are not ours to give away

    def save(state: tuple[Params, optax.OptState]) -> Checkpoint:
        return save_adam(*state, model)

    return FunctionalStep(update, load, save, stages_of(update))


def unjitted_optimiser(config: ModelConfig, optimiser: optax.GradientTransformation) -> TrainStep:
    """Only loss and gradient are one program; the optimiser runs operation by operation."""
    model = build(config)

    @jax.jit
    def gradient(params: Params, hidden: Hidden, chunk: Chunk) -> Any:
        def loss_fn(params: Params) -> tuple[Loss, Hidden]:
            return scan_loss(partial(char_rnn, params), hidden, chunk)

        return jax.value_and_grad(loss_fn, has_aux=True)(params)

    def update(state: tuple[Params, optax.OptState], hidden: Hidden, chunk: Chunk) -> Any:
        params, opt_state = state
        (loss, hidden), grads = gradient(params, hidden, chunk)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), hidden, loss

    stages = stages_of(gradient, whole=False)
    return functional(update, model, optimiser, lambda state, *rest: stages(state[0], *rest))


STYLES: dict[str, Style] = {
    "pure": pure_style(build),
    "layered": by_layer(joined, "One scan for each layer, and no more: what the others build on."),
    "hoisted": by_layer(projected, "One scan for each layer, the input's product before it."),
    "handwritten": by_layer(by_hand, "One scan for each layer, kernels' gradients after it."),
    "gathered": by_loss(gathered),
    "unrolled": unrolled,
    "grouped": grouped,
    "flat_optimiser": flat_optimiser,
    "donated": donated,
    "unjitted_optimiser": unjitted_optimiser,
}
