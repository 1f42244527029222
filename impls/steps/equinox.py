"""Users' own steps with a model of Equinox."""

from __future__ import annotations

import equinox as eqx

from common.contract import Library
from impls.equinox import filter_jit, merge, split

MODELS = "equinox"
LIBRARY = Library(
    is_model=lambda model: isinstance(model, eqx.Module),
    split=split,
    merge=merge,
    styles={"filter_jit": filter_jit},
)
WRITE = {
    "filter_jit": """\
step = eqx.filter_jit(train_step)
model, opt_state, loss = step(model, opt_state, batch)""",
    "pure": """\
params, static = eqx.partition(model, eqx.is_inexact_array)
@jax.jit
def step(params, opt_state, batch):
    model = eqx.combine(params, static)
    model, opt_state, loss = train_step(model, opt_state, batch)
    return eqx.filter(model, eqx.is_inexact_array), opt_state, loss
params, opt_state, loss = step(params, opt_state, batch)""",
    "flat": """\
params, static = eqx.partition(model, eqx.is_inexact_array)
arrays, structure = jax.tree.flatten((params, opt_state))
@jax.jit
def step(arrays, batch):
    params, opt_state = jax.tree.unflatten(structure, arrays)
    model = eqx.combine(params, static)
    model, opt_state, loss = train_step(model, opt_state, batch)
    params = eqx.filter(model, eqx.is_inexact_array)
    return jax.tree.leaves((params, opt_state)), loss
arrays, loss = step(arrays, batch)""",
}
BEGIN = '''\
"""NAME: my training step. `bakeoff cost NAME.py` says what each way to write it costs."""

import equinox as eqx
import jax
import numpy as np
import optax


def make_model():
    """Return the model, drawn with a fixed seed."""
    return eqx.nn.MLP(in_size=64, out_size=10, width_size=128, depth=3, key=jax.random.key(0))


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, 64)).astype(np.float32), random.integers(10, size=32)


def loss(model, batch):
    """Return the mean loss, one number."""
    inputs, labels = batch
    logits = jax.vmap(model)(inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


optimiser = optax.adamw(1e-3)
'''
STACK = '''\
"""A stack of linear layers; with dropout, every second one is a normalisation that has it, too."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def make_layers(place, key):
    has_bias = place + 1 < ARRAYS
    if DROPOUT and place % 4:
        return [eqx.nn.LayerNorm(8, use_bias=has_bias), eqx.nn.Dropout(0.1)]
    return [eqx.nn.Linear(8, 8, has_bias, key=key)]


def make_model():
    places = range(0, ARRAYS, 2)
    keys = jax.random.split(jax.random.key(0), len(places))
    return eqx.nn.Sequential(sum(map(make_layers, places, keys), []))


def make_batch():
    return np.ones((2, 8), np.float32)


if DROPOUT:

    def loss(model, batch, *, key):
        keys = jax.random.split(key, len(batch))
        return jnp.mean(jax.vmap(lambda row, key: model(row, key=key))(batch, keys) ** 2)

else:

    def loss(model, batch):
        return jnp.mean(jax.vmap(model)(batch) ** 2)
'''
