"""Models in Equinox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bench.cost.models import (
    PLAIN,
    TOKENS,
    WIDTH,
    ModelSteps,
    functional,
    loss_of,
    optimiser,
    plain,
    shrunk,
    squares,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from bench.cost.models import Loss, Step


class Block(eqx.Module):
    """A normalised hidden layer with a residual connection."""

    norm: eqx.nn.LayerNorm
    linear: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        self.norm = eqx.nn.LayerNorm(WIDTH)
        self.linear = eqx.nn.Linear(WIDTH, WIDTH, key=key)

    def __call__(self, x: Float[Array, " width"]) -> Array:
        """Return the features of one row."""
        return x + jax.nn.gelu(self.linear(self.norm(x)))


class MLP(eqx.Module):
    """Blocks, and a readout."""

    blocks: list[Block]
    readout: eqx.nn.Linear

    def __init__(self, depth: int, key: PRNGKeyArray) -> None:
        *keys, last = jax.random.split(key, depth + 1)
        self.blocks = [Block(key) for key in keys]
        self.readout = eqx.nn.Linear(WIDTH, WIDTH, key=last)

    def __call__(self, rows: Float[Array, "rows width"]) -> Array:
        """Return one output for each row."""

        def one(x: Float[Array, " width"]) -> Array:
            for block in self.blocks:
                x = block(x)
            return self.readout(x)

        return jax.vmap(one)(rows)


class ConvBlock(eqx.Module):
    """A normalised convolution with a residual connection."""

    norm: eqx.nn.GroupNorm
    conv: eqx.nn.Conv1d

    def __init__(self, key: PRNGKeyArray) -> None:
        self.norm = eqx.nn.GroupNorm(2, WIDTH)
        self.conv = eqx.nn.Conv1d(WIDTH, WIDTH, 3, padding="SAME", key=key)

    def __call__(self, x: Float[Array, "width length"]) -> Array:
        """Return the features of all positions."""
        return x + jax.nn.gelu(self.conv(self.norm(x)))


class ConvNet(eqx.Module):
    """Blocks along a sequence, and a readout."""

    blocks: list[ConvBlock]
    readout: eqx.nn.Linear

    def __init__(self, depth: int, key: PRNGKeyArray) -> None:
        *keys, last = jax.random.split(key, depth + 1)
        self.blocks = [ConvBlock(key) for key in keys]
        self.readout = eqx.nn.Linear(WIDTH, WIDTH, key=last)

    def __call__(self, rows: Float[Array, "length width"]) -> Array:
        """Return one output for each position."""
        x = rows.T
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.readout)(x.T)


class Layer(eqx.Module):
    """A block of a transformer, normalised first."""

    norms: list[eqx.nn.LayerNorm]
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, key: PRNGKeyArray) -> None:
        attention, up, down = jax.random.split(key, 3)
        self.norms = [eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH)]
        self.attention = eqx.nn.MultiheadAttention(2, WIDTH, key=attention)
        self.up = eqx.nn.Linear(WIDTH, 2 * WIDTH, key=up)
        self.down = eqx.nn.Linear(2 * WIDTH, WIDTH, key=down)

    def __call__(self, x: Float[Array, "length width"]) -> Array:
        """Return the features of all positions."""
        normal = jax.vmap(self.norms[0])(x)
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
        x = x + self.attention(normal, normal, normal, mask)
        normal = jax.vmap(self.norms[1])(x)
        return x + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(normal)))


class Transformer(eqx.Module):
    """Embedding, layers, and a readout."""

    embedding: eqx.nn.Embedding
    layers: list[Layer]
    norm: eqx.nn.LayerNorm
    readout: eqx.nn.Linear

    def __init__(self, depth: int, key: PRNGKeyArray) -> None:
        first, *keys, last = jax.random.split(key, depth + 2)
        self.embedding = eqx.nn.Embedding(TOKENS, WIDTH, key=first)
        self.layers = [Layer(key) for key in keys]
        self.norm = eqx.nn.LayerNorm(WIDTH)
        self.readout = eqx.nn.Linear(WIDTH, TOKENS, key=last)

    def __call__(self, tokens: Int[Array, " length"]) -> Array:
        """Return the logits of each position's next token."""
        x = jax.vmap(self.embedding)(tokens)
        for layer in self.layers:
            x = layer(x)
        return jax.vmap(self.readout)(jax.vmap(self.norm)(x))


def model(kind: str, depth: int) -> Any:
    """Return a model of a kind."""
    kinds = {"mlp": MLP, "transformer": Transformer, "convnet": ConvNet}
    return kinds[kind](depth, jax.random.key(0))


def whole(kind: str, depth: int) -> ModelSteps:
    """Return a model of a kind, and styles of its own step."""

    def loss(model: Any, inputs: Array, targets: Array) -> Array:
        return loss_of(model(inputs), targets)

    return steps_of(model(kind, depth), loss)


def like(model: Any) -> ModelSteps:
    """Return a model with the structure of another one."""

    def loss(model: Any, inputs: Array, targets: Array) -> Array:
        del inputs, targets
        return squares(eqx.filter(model, eqx.is_inexact_array))

    return steps_of(shrunk(model), loss)


def steps_of(model: Any, model_loss: Loss) -> ModelSteps:
    """Return the styles of a step for a model."""
    tx = optimiser()
    params, static = eqx.partition(model, eqx.is_inexact_array)
    opt_state = tx.init(params)

    def loss(params: Any, inputs: Array, targets: Array) -> Array:
        return model_loss(eqx.combine(params, static), inputs, targets)

    def filter_jit() -> Step:
        @eqx.filter_jit
        def step(state: Any, inputs: Array, targets: Array) -> Any:
            model, opt_state = state
            value, grads = eqx.filter_value_and_grad(model_loss)(model, inputs, targets)
            updates, opt_state = tx.update(
                grads, opt_state, eqx.filter(model, eqx.is_inexact_array)
            )
            return (eqx.apply_updates(model, updates), opt_state), value

        return functional(step, (model, opt_state))

    def pure() -> Step:
        @jax.jit
        def step(state: Any, inputs: Array, targets: Array) -> Any:
            params, opt_state = state
            value, grads = jax.value_and_grad(loss)(params, inputs, targets)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (eqx.apply_updates(params, updates), opt_state), value

        return functional(step, (params, opt_state))

    def flat() -> Step:
        arrays, structure = jax.tree.flatten((params, opt_state))

        @jax.jit
        def step(arrays: list[Array], inputs: Array, targets: Array) -> Any:
            params, opt_state = jax.tree.unflatten(structure, arrays)
            value, grads = jax.value_and_grad(loss)(params, inputs, targets)
            updates, opt_state = tx.update(grads, opt_state, params)
            return jax.tree.leaves((eqx.apply_updates(params, updates), opt_state)), value

        return functional(step, arrays)

    own = (pure, filter_jit, flat)
    steps = {PLAIN: plain(loss, params, tx)} | {make.__name__: make for make in own}
    return ModelSteps(len(jax.tree.leaves(params)), steps)
