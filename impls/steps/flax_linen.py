"""Users' own steps with a model of Flax Linen: parameters, and a module's `apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn

from common.contract import Library
from impls.flax_linen import train_state
from impls.steps import is_pair, merge_pair, split_pair

if TYPE_CHECKING:
    from impls.flax_linen import AnyModel

MODELS = "flax.linen"


def split_variables(made: tuple[Any, Any]) -> tuple[AnyModel, Any]:
    """Split what `init` returned: parameters, and other collections, if any."""
    variables, apply = made
    state = {name: value for name, value in variables.items() if name != "params"}
    if "params" not in variables or not state:
        return made, ()
    return (variables["params"], apply), state


def is_linen(model: Any) -> bool:
    """Tell whether a model is a pair: parameters and a method of a Linen module."""
    return is_pair(model) and isinstance(getattr(model[1], "__self__", None), nn.Module)


LIBRARY = Library(
    is_model=is_linen,
    split=split_pair,
    merge=merge_pair,
    styles={"train_state": train_state},
    split_state=split_variables,
    carrying=("train_state",),
)
WRITE = {
    "blog": "compute_grads = jax.jit(jax.value_and_grad(loss_of))\n"
    "loss, grads = compute_grads(params, batch)\n"
    "updates, opt_state = optimiser.update(grads, opt_state, params)\n"
    "params = optax.apply_updates(params, updates)",
    "train_state": "state = TrainState.create(apply_fn=model.apply, params=params, tx=optimiser)\n"
    "step = jax.jit(train_step)\n"
    "state, loss = step(state, batch)",
    "pure": "step = jax.jit(train_step)\nparams, opt_state, loss = step(params, opt_state, batch)",
}
BEGIN = '''\
"""NAME: my training step. `bakeoff cost NAME.py` says what each way to write it costs."""

import flax.linen as nn
import jax
import numpy as np
import optax


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(10)(x)


def make_model():
    """Return the parameters, drawn with a fixed seed, and the function that applies them."""
    net = Net()
    return net.init(jax.random.key(0), np.zeros((1, 64), np.float32))["params"], net.apply


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, 64)).astype(np.float32), random.integers(10, size=32)


def loss(model, batch):
    """Return the mean loss, one number."""
    (params, apply), (inputs, labels) = model, batch
    logits = apply({"params": params}, inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


optimiser = optax.adamw(1e-3)
'''
STACK = '''\
"""A stack of linear layers; with dropout, every second one is a normalisation that has it, too."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def make_layers(place):
    has_bias = place + 1 < ARRAYS
    if DROPOUT and place % 4:
        return [nn.LayerNorm(use_bias=has_bias), nn.Dropout(0.1, deterministic=False)]
    return [nn.Dense(8, use_bias=has_bias)]


def make_model():
    net = nn.Sequential(sum(map(make_layers, range(0, ARRAYS, 2)), []))
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return net.init(rngs, np.ones((1, 8), np.float32))["params"], net.apply


def make_batch():
    return np.ones((2, 8), np.float32)


if DROPOUT:

    def loss(model, batch, *, key):
        params, apply = model
        return jnp.mean(apply({"params": params}, batch, rngs={"dropout": key}) ** 2)

else:

    def loss(model, batch):
        return jnp.mean(model[1]({"params": model[0]}, batch) ** 2)
'''
