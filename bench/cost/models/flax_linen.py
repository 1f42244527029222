"""Models in Flax Linen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from bench.cost.models import (
    PLAIN,
    TOKENS,
    WIDTH,
    ModelSteps,
    data,
    functional,
    is_parameter,
    loss_of,
    optimiser,
    plain,
    shrunk,
    squares,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int

    from bench.cost.models import Loss, Step


class Block(nn.Module):
    """A normalised hidden layer with a residual connection."""

    @nn.compact
    def __call__(self, x: Float[Array, "rows width"]) -> Array:
        """Return the features of all rows."""
        return x + nn.gelu(nn.Dense(WIDTH)(nn.LayerNorm()(x)))


class MLP(nn.Module):
    """Blocks, and a readout."""

    depth: int

    @nn.compact
    def __call__(self, x: Float[Array, "rows width"]) -> Array:
        """Return one output for each row."""
        for _ in range(self.depth):
            x = Block()(x)
        return nn.Dense(WIDTH)(x)


class ConvBlock(nn.Module):
    """A normalised convolution with a residual connection."""

    @nn.compact
    def __call__(self, x: Float[Array, "1 length width"]) -> Array:
        """Return the features of all positions."""
        return x + nn.gelu(nn.Conv(WIDTH, kernel_size=(3,))(nn.GroupNorm(num_groups=2)(x)))


class ConvNet(nn.Module):
    """Blocks along a sequence, and a readout."""

    depth: int

    @nn.compact
    def __call__(self, rows: Float[Array, "length width"]) -> Array:
        """Return one output for each position."""
        x = rows[None]
        for _ in range(self.depth):
            x = ConvBlock()(x)
        return nn.Dense(WIDTH)(x[0])


class Layer(nn.Module):
    """A block of a transformer, normalised first."""

    @nn.compact
    def __call__(self, x: Float[Array, "length width"]) -> Array:
        """Return the features of all positions."""
        mask = nn.make_causal_mask(jnp.ones(len(x)))
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x), mask=mask)
        return x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(2 * WIDTH)(nn.LayerNorm()(x))))


class Transformer(nn.Module):
    """Embedding, layers, and a readout."""

    depth: int

    @nn.compact
    def __call__(self, tokens: Int[Array, " length"]) -> Array:
        """Return the logits of each position's next token."""
        x = nn.Embed(TOKENS, WIDTH)(tokens)
        for _ in range(self.depth):
            x = Layer()(x)
        return nn.Dense(TOKENS)(nn.LayerNorm()(x))


def module(kind: str, depth: int) -> Any:
    """Return a module of a kind."""
    return {"mlp": MLP, "transformer": Transformer, "convnet": ConvNet}[kind](depth)


def model(kind: str, depth: int) -> Any:
    """Return the parameters of a module of a kind."""
    return module(kind, depth).init(jax.random.key(0), data(kind)[0])


def whole(kind: str, depth: int) -> ModelSteps:
    """Return a model of a kind, and styles of its own step."""
    own = module(kind, depth)

    def loss(params: Any, inputs: Array, targets: Array) -> Array:
        return loss_of(own.apply(params, inputs), targets)

    return steps_of(model(kind, depth), loss)


def like(params: Any) -> ModelSteps:
    """Return parameters with the structure of others; of Linen's variables, the parameters."""

    def loss(params: Any, inputs: Array, targets: Array) -> Array:
        del inputs, targets
        return squares(params)

    own = params.get("params", params) if isinstance(params, Mapping) else params
    arrays = jax.tree.map(lambda x: x if is_parameter(x) else None, own)
    return steps_of(shrunk(arrays), loss)


def steps_of(params: Any, loss: Loss) -> ModelSteps:
    """Return the styles of a step for parameters."""
    tx = optimiser()

    def pure() -> Step:
        @jax.jit
        def step(state: Any, inputs: Array, targets: Array) -> Any:
            params, opt_state = state
            value, grads = jax.value_and_grad(loss)(params, inputs, targets)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        return functional(step, (params, tx.init(params)))

    def train_state() -> Step:
        @jax.jit
        def step(state: TrainState, inputs: Array, targets: Array) -> Any:
            value, grads = jax.value_and_grad(loss)(state.params, inputs, targets)
            return state.apply_gradients(grads=grads), value

        return functional(step, TrainState.create(apply_fn=loss, params=params, tx=tx))

    steps = {PLAIN: plain(loss, params, tx), "pure": pure, "train_state": train_state}
    return ModelSteps(len(jax.tree.leaves(params)), steps)
