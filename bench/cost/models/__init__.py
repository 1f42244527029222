"""Other models than the character RNN, such as people train.

Each module has one library's models, written as its own tutorials write them, and the styles of its
entrant, for any model. Sizes of arrays are tiny; what counts is how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

if TYPE_CHECKING:
    from jaxtyping import Array

WIDTH, LENGTH, TOKENS = 8, 8, 16
"""Features, examples or positions, and distinct tokens."""
PLAIN = "plain"
"""The same program over tuples of arrays, under one `jax.jit`."""

type Loss = Callable[[Any, Array, Array], Array]
"""Of a whole model, for inputs and targets."""
type Step = Callable[[Array, Array], Array]
"""A training step that keeps its own state: inputs and targets to the loss before it."""


class ModelSteps(NamedTuple):
    """One model in one library, and ways to write its training step."""

    arrays: int
    """Of parameters."""
    steps: dict[str, Callable[[], Step]]
    """By style, what makes a step; `PLAIN` is the one that the others are compared with."""


def data(kind: str) -> tuple[Array, Array]:
    """Return inputs and targets: `LENGTH` rows of features, or tokens and those after them."""
    rng = np.random.default_rng(0)
    if kind != "transformer":
        rows = rng.normal(size=(2, LENGTH, WIDTH)).astype(np.float32)
        return jnp.asarray(rows[0]), jnp.asarray(rows[1])
    tokens = rng.integers(0, TOKENS, LENGTH + 1)
    return jnp.asarray(tokens[:-1]), jnp.asarray(tokens[1:])


def loss_of(outputs: Array, targets: Array) -> Array:
    """Return the mean squared error of rows, or the cross-entropy of tokens."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
    return jnp.mean((outputs - targets) ** 2)


def squares(params: Any) -> Array:
    """Return a loss that takes next to no time, of real or complex parameters."""
    leaves = jax.tree.leaves(params)
    return sum((jnp.sum(jnp.abs(each) ** 2) for each in leaves), start=jnp.zeros(()))


def shrunk(tree: Any) -> Any:
    """Return a tree with parameters of one number each, and arrays where there were shapes."""

    def small(leaf: Any) -> Any:
        if is_parameter(leaf):
            return jnp.ones((1,) * len(leaf.shape), leaf.dtype)
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(0), leaf.shape)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.map(small, tree)


def is_parameter(leaf: Any) -> bool:
    """Tell whether a leaf of a tree is an array of floating-point numbers, or the shape of one."""
    kind = getattr(leaf, "dtype", None)
    return hasattr(leaf, "shape") and kind is not None and jnp.issubdtype(kind, jnp.inexact)


def optimiser() -> optax.GradientTransformation:
    """Return the optimiser of every model."""
    return optax.adamw(1e-3)


def functional(update: Callable[..., Any], state: Any) -> Step:
    """Return a step around a function of state, inputs and targets to new state and loss."""
    box = [state]

    def step(inputs: Array, targets: Array) -> Array:
        box[0], loss = update(box[0], inputs, targets)
        return loss

    return step


def updated(loss: Loss, optimiser: optax.GradientTransformation) -> Callable[..., Any]:
    """Return the update of `(params, opt_state)` by a loss."""

    def update(state: Any, inputs: Array, targets: Array) -> Any:
        params, opt_state = state
        value, grads = jax.value_and_grad(loss)(params, inputs, targets)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return update


def plain(loss: Loss, params: Any, optimiser: optax.GradientTransformation) -> Callable[[], Step]:
    """Return what makes the same step over tuples of tuples, one for each module, as `pure_jax`'s.

    The library's own structure is put together while tracing only, so that the program is the same.
    """
    paths, structure = jax.tree.flatten_with_path(params)
    modules: dict[Any, list[Any]] = {}
    for path, array in paths:
        modules.setdefault(path[:-1], []).append(array)
    number = {module: n for n, module in enumerate(modules)}
    grouped = sorted(paths, key=lambda each: number[each[0][:-1]])
    place = {path: n for n, (path, _) in enumerate(grouped)}
    places = [place[path] for path, _ in paths]

    def inside(tree: tuple[tuple[Any, ...], ...], inputs: Array, targets: Array) -> Array:
        arrays = [array for module in tree for array in module]
        return loss(jax.tree.unflatten(structure, [arrays[i] for i in places]), inputs, targets)

    tree = tuple(map(tuple, modules.values()))
    return lambda: functional(jax.jit(updated(inside, optimiser)), (tree, optimiser.init(tree)))
