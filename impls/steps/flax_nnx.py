"""Users' own steps with a model of Flax NNX."""

from __future__ import annotations

import jax
from flax import nnx

from common.contract import Library
from impls.flax_nnx import cached_partial, jax_jit, jit, jit_partial, jit_tree, merge, split

MODELS = "flax.nnx"
MOST_PLACES = 3
"""Most places of a shared Variable that a sentence names; it counts the others. An `Rngs` that all
modules keep is in dozens of places."""


def find_unsuited(model: nnx.Module) -> dict[str, str]:
    """Return the styles that cannot take a model with a shared Variable, and why."""
    find = getattr(nnx, "find_duplicates", None)  # since 0.11.2; the styles that need it are newer
    shared = find(model) if find else []
    # A module without Variables may be in two places
    if not shared or len(jax.tree.leaves(model)) == len(jax.tree.leaves(nnx.state(model))):
        return {}
    places = [f"`{'.'.join(map(str, path))}`" for path in shared[0]]
    if len(places) > MOST_PLACES + 1:
        places[MOST_PLACES:] = [f"{len(places) - MOST_PLACES} more"]
    named = f"{', '.join(places[:-1])} and {places[-1]}"
    return dict.fromkeys(LIMITS, f"{named} share a Variable")


LIBRARY = Library(
    is_model=lambda model: isinstance(model, nnx.Module),
    split=split,
    merge=merge,
    styles={
        "jit": jit,
        "jit_tree": jit_tree,
        "cached_partial": cached_partial,
        "jit_partial": jit_partial,
        "jax_jit": jax_jit,
    },
    find_unsuited=find_unsuited,
    replace_others=nnx.update,
)
LIMITS = {
    "jit_tree": "only models in which no two places share a Variable",
    "jit_partial": "only models in which no two places share a Variable",
    "jax_jit": "only models in which no two places share a Variable",
}
WRITE = {
    "jit": """\
step = nnx.jit(train_step)
loss = step(model, optimizer, batch)""",
    "jit_tree": """\
step = nnx.jit(train_step, graph=False)
loss = step(model, optimizer, batch)""",
    "cached_partial": """\
step = nnx.cached_partial(nnx.jit(train_step), model, optimizer)
loss = step(batch)""",
    "jit_partial": """\
step = nnx.jit_partial(train_step, model, optimizer, graph=False)
loss = step(batch)""",
    "jax_jit": """\
@jax.jit
def step(model, optimizer, batch):
    loss = train_step(model, optimizer, batch)
    return model, optimizer, loss
model, optimizer, loss = step(model, optimizer, batch)""",
    "flat": """\
graphdef, params, others = nnx.split(model, nnx.Param, ...)
opt_state = optimiser.init(params)
arrays, structure = jax.tree.flatten((params, others, opt_state))
@jax.jit
def step(arrays, batch):
    params, others, opt_state = jax.tree.unflatten(structure, arrays)
    model = nnx.merge(graphdef, params, others)
    loss, grads = nnx.value_and_grad(loss_of)(model, batch)
    updates, opt_state = optimiser.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    others = nnx.state(model, nnx.Not(nnx.Param))
    return jax.tree.leaves((params, others, opt_state)), loss
arrays, loss = step(arrays, batch)""",
    "pure": """\
graphdef, params, others = nnx.split(model, nnx.Param, ...)
opt_state = optimiser.init(params)
@jax.jit
def step(params, others, opt_state, batch):
    model = nnx.merge(graphdef, params, others)
    loss, grads = nnx.value_and_grad(loss_of)(model, batch)
    updates, opt_state = optimiser.update(grads, opt_state, params)
    others = nnx.state(model, nnx.Not(nnx.Param))
    return optax.apply_updates(params, updates), others, opt_state, loss
params, others, opt_state, loss = step(params, others, opt_state, batch)""",
}
BEGIN = '''\
"""NAME: my training step. `bakeoff cost NAME.py` says what each way to write it costs."""

import jax
import numpy as np
import optax
from flax import nnx


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(64, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.readout = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.first(x))
        return self.readout(jax.nn.relu(self.second(x)))


def make_model():
    """Return the model, drawn with a fixed seed."""
    return Net(nnx.Rngs(0))


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, 64)).astype(np.float32), random.integers(10, size=32)


def loss(model, batch):
    """Return the mean loss, one number."""
    inputs, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()


optimiser = optax.adamw(1e-3)
'''
STACK = '''\
"""A stack of linear layers; with dropout, every second one is a normalisation that has it, too."""

import jax.numpy as jnp
import numpy as np
from flax import nnx


def make_layers(place, rngs):
    has_bias = place + 1 < ARRAYS
    if DROPOUT and place % 4:
        return [nnx.LayerNorm(8, use_bias=has_bias, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)]
    return [nnx.Linear(8, 8, use_bias=has_bias, rngs=rngs)]


def make_model():
    rngs = nnx.Rngs(0)
    return nnx.Sequential(*sum([make_layers(i, rngs) for i in range(0, ARRAYS, 2)], []))


def make_batch():
    return np.ones((2, 8), np.float32)


def loss(model, batch):
    return jnp.mean(model(batch) ** 2)
'''
