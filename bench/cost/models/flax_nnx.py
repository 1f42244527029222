"""Models in Flax NNX."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

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
    from jaxtyping import Array, Float, Int

    from bench.cost.models import Loss, Step


class Block(nnx.Module):
    """A normalised hidden layer with a residual connection."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: Float[Array, "rows width"]) -> Array:
        """Return the features of all rows."""
        return x + nnx.gelu(self.linear(self.norm(x)))


class MLP(nnx.Module):
    """Blocks, and a readout."""

    def __init__(self, depth: int, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List([Block(rngs) for _ in range(depth)])
        self.readout = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: Float[Array, "rows width"]) -> Array:
        """Return one output for each row."""
        for block in self.blocks:
            x = block(x)
        return self.readout(x)


class ConvBlock(nnx.Module):
    """A normalised convolution with a residual connection."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.GroupNorm(WIDTH, num_groups=2, rngs=rngs)
        self.conv = nnx.Conv(WIDTH, WIDTH, kernel_size=(3,), rngs=rngs)

    def __call__(self, x: Float[Array, "1 length width"]) -> Array:
        """Return the features of all positions."""
        return x + nnx.gelu(self.conv(self.norm(x)))


class ConvNet(nnx.Module):
    """Blocks along a sequence, and a readout."""

    def __init__(self, depth: int, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List([ConvBlock(rngs) for _ in range(depth)])
        self.readout = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, rows: Float[Array, "length width"]) -> Array:
        """Return one output for each position."""
        x = rows[None]
        for block in self.blocks:
            x = block(x)
        return self.readout(x[0])


class Layer(nnx.Module):
    """A block of a transformer, normalised first."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norms = nnx.List([nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(2, WIDTH, decode=False, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x: Float[Array, "length width"]) -> Array:
        """Return the features of all positions."""
        mask = nnx.make_causal_mask(jnp.ones(len(x)))
        x = x + self.attention(self.norms[0](x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norms[1](x))))


class Transformer(nnx.Module):
    """Embedding, layers, and a readout."""

    def __init__(self, depth: int, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(TOKENS, WIDTH, rngs=rngs)
        self.layers = nnx.List([Layer(rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.readout = nnx.Linear(WIDTH, TOKENS, rngs=rngs)

    def __call__(self, tokens: Int[Array, " length"]) -> Array:
        """Return the logits of each position's next token."""
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.readout(self.norm(x))


def model(kind: str, depth: int) -> Any:
    """Return a model of a kind."""
    kinds = {"mlp": MLP, "transformer": Transformer, "convnet": ConvNet}
    return kinds[kind](depth, nnx.Rngs(0))


def whole(kind: str, depth: int) -> ModelSteps:
    """Return a model of a kind, and styles of its own step."""

    def loss(model: Any, inputs: Array, targets: Array) -> Array:
        return loss_of(model(inputs), targets)

    return steps_of(model(kind, depth), loss)


def like(model: Any) -> ModelSteps:
    """Return a model with the structure of another one."""

    def loss(model: Any, inputs: Array, targets: Array) -> Array:
        del inputs, targets
        return squares(nnx.state(model, nnx.Param))

    return steps_of(nnx.merge(nnx.graphdef(model), shrunk(nnx.state(model))), loss)


def steps_of(own_model: Any, model_loss: Loss) -> ModelSteps:
    """Return the styles of a step for a model."""
    tx = optimiser()

    def train_step(
        model: nnx.Module, optimizer: nnx.Optimizer, inputs: Array, targets: Array
    ) -> Array:
        loss, grads = nnx.value_and_grad(model_loss)(model, inputs, targets)
        optimizer.update(model, grads)
        return loss

    def objects() -> tuple[Any, nnx.Optimizer]:
        model = nnx.clone(own_model)
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    parts: Any = nnx.split(own_model, nnx.Param, ...)
    graphdef, params, rest = parts

    def loss(params: Any, inputs: Array, targets: Array) -> Array:
        return model_loss(nnx.merge(graphdef, params, rest), inputs, targets)

    def jit() -> Step:
        model, optimizer = objects()
        return partial(nnx.jit(train_step), model, optimizer)

    def jit_tree() -> Step:
        model, optimizer = objects()
        return partial(nnx.jit(train_step, graph=False), model, optimizer)

    def cached_partial() -> Step:
        model, optimizer = objects()
        return nnx.cached_partial(nnx.jit(train_step), model, optimizer)

    def jit_partial() -> Step:
        model, optimizer = objects()
        return nnx.jit_partial(train_step, model, optimizer, graph=False)

    def jax_jit() -> Step:
        model, optimizer = objects()

        @jax.jit
        def step(pair: Any, inputs: Array, targets: Array) -> Any:
            model, optimizer = pair
            value = train_step(model, optimizer, inputs, targets)
            return (model, optimizer), value

        return functional(step, (model, optimizer))

    def flat() -> Step:
        model, optimizer = objects()
        arrays, structure = jax.tree.flatten((model, optimizer))

        @jax.jit
        def step(arrays: list[Array], inputs: Array, targets: Array) -> Any:
            model, optimizer = jax.tree.unflatten(structure, arrays)
            value = train_step(model, optimizer, inputs, targets)
            return jax.tree.leaves((model, optimizer)), value

        return functional(step, arrays)

    def pure() -> Step:
        @jax.jit
        def step(state: Any, inputs: Array, targets: Array) -> Any:
            params, opt_state = state
            value, grads = jax.value_and_grad(loss)(params, inputs, targets)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        return functional(step, (params, tx.init(params)))

    own = (pure, jit, jit_tree, cached_partial, jit_partial, jax_jit, flat)
    steps = {PLAIN: plain(loss, params, tx)} | {make.__name__: make for make in own}
    return ModelSteps(len(jax.tree.leaves(params)), steps)
