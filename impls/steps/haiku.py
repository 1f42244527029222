"""Users' own steps with a model of Haiku: parameters, and the `apply` of `hk.transform`."""

from __future__ import annotations

from common.contract import Library
from impls.steps import is_pair, merge_pair, split_pair

MODELS = "haiku"
LIBRARY = Library(
    is_model=lambda model: is_pair(model) and model[1].__module__.startswith("haiku."),
    split=split_pair,
    merge=merge_pair,
)
WRITE = {
    "pure": "step = jax.jit(train_step)\nparams, opt_state, loss = step(params, opt_state, batch)",
}
BEGIN = '''\
"""NAME: my training step. `bakeoff cost NAME.py` says what each way to write it costs."""

import haiku as hk
import jax
import numpy as np
import optax


def forward(inputs):
    return hk.nets.MLP([64, 64, 64, 10])(inputs)


net = hk.without_apply_rng(hk.transform(forward))


def make_model():
    """Return the parameters, drawn with a fixed seed, and the function that applies them."""
    return net.init(jax.random.key(0), np.zeros((1, 64), np.float32)), net.apply


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, 64)).astype(np.float32), random.integers(10, size=32)


def loss(model, batch):
    """Return the mean loss, one number."""
    (params, apply), (inputs, labels) = model, batch
    logits = apply(params, inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


optimiser = optax.adamw(1e-3)
'''
STACK = '''\
"""A stack of linear layers; with dropout, every second one is a normalisation that has it, too."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np


def drop(inputs):
    return hk.dropout(hk.next_rng_key(), 0.1, inputs)


def make_layers(place):
    has_bias = place + 1 < ARRAYS
    if DROPOUT and place % 4:
        return [hk.LayerNorm(-1, create_scale=True, create_offset=has_bias), drop]
    return [hk.Linear(8, with_bias=has_bias)]


def forward(inputs):
    return hk.Sequential(sum(map(make_layers, range(0, ARRAYS, 2)), []))(inputs)


net = hk.transform(forward)


def make_model():
    return net.init(jax.random.key(0), np.ones((1, 8), np.float32)), net.apply


def make_batch():
    return np.ones((2, 8), np.float32)


if DROPOUT:

    def loss(model, batch, *, key):
        return jnp.mean(model[1](model[0], key, batch) ** 2)

else:

    def loss(model, batch):
        return jnp.mean(model[1](model[0], None, batch) ** 2)
'''
