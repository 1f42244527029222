"""Users' own steps in plain JAX: a model is a pytree of arrays, or that and an `apply`."""

from __future__ import annotations

from numbers import Number
from typing import Any

import jax
import numpy as np

from common.contract import Library
from impls.steps import is_pair, merge_pair, split_pair

MODELS = "jax"


def has_only_numbers(leaves: list[Any]) -> bool:
    """Tell whether there are leaves, and each is an array or a number."""
    return bool(leaves) and all(isinstance(n, jax.Array | np.ndarray | Number) for n in leaves)


LIBRARY = Library(
    is_model=lambda model: is_pair(model) or has_only_numbers(jax.tree.leaves(model)),
    split=lambda model: split_pair(model) if is_pair(model) else (model, (), None),
    merge=lambda params, _, apply: merge_pair(params, _, apply) if apply else params,
)
WRITE = {
    "pure": "step = jax.jit(train_step)\nparams, opt_state, loss = step(params, opt_state, batch)",
}
BEGIN = '''\
"""NAME: my training step. `bakeoff cost NAME.py` says what each way to write it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def make_model():
    """Return the parameters, any pytree of arrays, drawn with a fixed seed."""
    keys = jax.random.split(jax.random.key(0), 4)
    init = jax.nn.initializers.lecun_normal()
    sizes = [(64, 64), (64, 64), (64, 64), (64, 10)]
    return [
        {"kernel": init(key, size), "bias": jnp.zeros(size[1])} for key, size in zip(keys, sizes)
    ]


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, 64)).astype(np.float32), random.integers(10, size=32)


def loss(model, batch):
    """Return the mean loss, one number."""
    x, labels = batch
    for layer in model[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"][None])
    logits = x @ model[-1]["kernel"] + model[-1]["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


optimiser = optax.adamw(1e-3)
'''
