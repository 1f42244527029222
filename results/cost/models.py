"""Models in five libraries, as step files, on which check.py checks `bakeoff cost`.

Two are Vision Transformers of what their packages bring. The others are
perceptrons, whose layers are residual, so that gradients of 150 of them are neither zero nor
infinite; with a `norm`, each has a BatchNorm (statistics are state) and there is dropout (keys).
"""

from __future__ import annotations

from typing import NamedTuple

from results.cost.transformers import VIT_EQUINOX, VIT_NNX


class Model(NamedTuple):
    """A step file."""

    library: str
    layers: int
    """Below the readout."""
    width: int
    batch: int
    styles: tuple[str, ...]
    norm: bool = False
    accumulate: bool = False
    """Whether two batches make one update: truth.py times the calls that make none, which are the
    fast ones, and so does `bakeoff cost`."""
    written: str = ""
    """Name of a model that is not a perceptron."""

    @property
    def name(self) -> str:
        """Name of the file, which says all of a perceptron."""
        if self.written:
            return self.written
        more = "_norm" * self.norm + "_accumulate" * self.accumulate
        return f"{self.library}_{self.layers}x{self.width}x{self.batch}{more}"

    def file(self) -> str:
        """Return the text of the file."""
        if self.written:
            return WRITTEN[self.written].format(**self._asdict())
        head = HEAD.format(imports=IMPORTS[self.library], **self._asdict())
        body = (NORM if self.norm else PLAIN)[self.library]
        plain = "optimiser = optax.adamw(1e-3)\n"
        steps = "optimiser = optax.MultiSteps(optax.adamw(1e-3), every_k_schedule=2)\n"
        return head + (steps if self.accumulate else plain) + body


OWN = ("pure", "step")
EQUINOX = ("pure", "filter_jit", "step")
LINEN = ("pure", "train_state", "step")
NNX = ("jit", "cached_partial", "jit_tree", "jit_partial", "jax_jit", "pure")
MODELS = (
    Model("pure_jax", 3, 16, 8, ("step",)),
    Model("pure_jax", 49, 32, 16, ("step",)),
    Model("equinox", 3, 16, 8, EQUINOX),
    Model("equinox", 16, 64, 32, EQUINOX[:2], norm=True),
    Model("equinox", 89, 32, 16, EQUINOX, accumulate=True),
    Model("flax_linen", 9, 64, 32, LINEN),
    Model("flax_linen", 16, 32, 32, LINEN[:2], norm=True),
    Model("flax_linen", 154, 16, 8, LINEN),
    Model("haiku", 34, 32, 16, OWN, accumulate=True),
    Model("haiku", 6, 128, 64, OWN[:1], norm=True),
    Model("flax_nnx", 3, 16, 8, NNX),
    Model("flax_nnx", 16, 64, 32, NNX[:5], norm=True),
    Model("flax_nnx", 49, 128, 64, NNX),
    Model("equinox", 12, 192, 4, EQUINOX[:2], written="vit_equinox"),
    Model("flax_nnx", 9, 192, 4, NNX[:5], written="vit_nnx"),
)
"""45 steps. A model of NNX has all of its styles, for these are furthest apart."""

WRITTEN = {"vit_equinox": VIT_EQUINOX, "vit_nnx": VIT_NNX}
IMPORTS = {
    "pure_jax": "",
    "equinox": "import equinox as eqx",
    "flax_linen": "import flax.linen as nn",
    "haiku": "import haiku as hk",
    "flax_nnx": "from flax import nnx",
}
HEAD = """\
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
{imports}

LAYERS, WIDTH, BATCH = {layers}, {width}, {batch}


def make_batch():
    random = np.random.default_rng(0)
    return random.normal(size=(BATCH, WIDTH)).astype(np.float32), random.integers(10, size=BATCH)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


"""
DONATING = """

def make_step():
    (params, apply), batch = make_model(), make_batch()
    state = params, optimiser.init(params)

    @partial(jax.jit, donate_argnums=0)
    def update(state, batch):
        params, opt_state = state
        value, grads = jax.value_and_grad(lambda params: loss((params, apply), batch))(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    def step(batch):
        nonlocal state
        state, value = update(state, batch)
        return value

    return step
"""
PLAIN = {
    "pure_jax": '''
def make_model():
    sizes = [(WIDTH, WIDTH)] * LAYERS + [(WIDTH, 10)]
    keys = jax.random.split(jax.random.key(0), len(sizes))
    return [
        {"w": jax.random.normal(key, size) / WIDTH**0.5, "b": jnp.zeros(size[1])}
        for key, size in zip(keys, sizes)
    ]


def apply(params, x):
    *layers, readout = params
    for layer in layers:
        x = x + jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ readout["w"] + readout["b"]


def loss(params, batch):
    inputs, labels = batch
    return cross_entropy(jax.vmap(partial(apply, params))(inputs), labels)


def make_step():
    """Return gradient and update as two programs."""
    params = make_model()
    opt_state = optimiser.init(params)
    grad = jax.jit(jax.value_and_grad(loss))

    @jax.jit
    def update(params, opt_state, grads):
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def step(batch):
        nonlocal params, opt_state
        value, grads = grad(params, batch)
        params, opt_state = update(params, opt_state, grads)
        return value

    return step
''',
    "equinox": '''
class Net(eqx.Module):
    layers: list
    readout: eqx.nn.Linear

    def __init__(self, key):
        *keys, last = jax.random.split(key, LAYERS + 1)
        self.layers = [eqx.nn.Linear(WIDTH, WIDTH, key=key) for key in keys]
        self.readout = eqx.nn.Linear(WIDTH, 10, key=last)

    def __call__(self, x):
        for layer in self.layers:
            x = x + jnp.tanh(layer(x))
        return self.readout(x)


def make_model():
    return Net(jax.random.key(0))


def loss(model, batch):
    inputs, labels = batch
    return cross_entropy(jax.vmap(model)(inputs), labels)


def make_step():
    """Return a step that donates all but its first argument."""
    model = make_model()
    state = model, optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit(donate="all-except-first")
    def update(batch, state):
        model, opt_state = state
        value, grads = eqx.filter_value_and_grad(loss)(model, batch)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return (eqx.apply_updates(model, updates), opt_state), value

    def step(batch):
        nonlocal state
        state, value = update(batch, state)
        return value

    return step
''',
    "flax_linen": """
class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(LAYERS):
            x = x + jnp.tanh(nn.Dense(WIDTH)(x))
        return nn.Dense(10)(x)


def make_model():
    net = Net()
    return net.init(jax.random.key(0), np.zeros((1, WIDTH), np.float32))["params"], net.apply


def loss(model, batch):
    (params, apply), (inputs, labels) = model, batch
    return cross_entropy(apply({"params": params}, inputs), labels)
""",
    "haiku": """
def forward(x):
    for _ in range(LAYERS):
        x = x + jnp.tanh(hk.Linear(WIDTH)(x))
    return hk.Linear(10)(x)


net = hk.without_apply_rng(hk.transform(forward))


def make_model():
    return net.init(jax.random.key(0), np.zeros((1, WIDTH), np.float32)), net.apply


def loss(model, batch):
    (params, apply), (inputs, labels) = model, batch
    return cross_entropy(apply(params, inputs), labels)
""",
    "flax_nnx": """
class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(WIDTH, WIDTH, rngs=rngs) for _ in range(LAYERS)])
        self.readout = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = x + jnp.tanh(layer(x))
        return self.readout(x)


def make_model():
    return Net(nnx.Rngs(0))


def loss(model, batch):
    inputs, labels = batch
    return cross_entropy(model(inputs), labels)
""",
}
PLAIN["flax_linen"] += DONATING
PLAIN["haiku"] += DONATING
NORM = {
    "equinox": """
class Net(eqx.Module):
    layers: list
    norms: list
    dropout: eqx.nn.Dropout
    readout: eqx.nn.Linear

    def __init__(self, key):
        *keys, last = jax.random.split(key, LAYERS + 1)
        self.layers = [eqx.nn.Linear(WIDTH, WIDTH, use_bias=False, key=key) for key in keys]
        self.norms = [eqx.nn.BatchNorm(WIDTH, axis_name="batch", mode="batch") for _ in keys]
        self.dropout = eqx.nn.Dropout(0.1)
        self.readout = eqx.nn.Linear(WIDTH, 10, key=last)

    def __call__(self, x, state, key):
        for layer, norm in zip(self.layers, self.norms):
            y, state = norm(layer(x), state)
            x = x + jnp.tanh(y)
        return self.readout(self.dropout(x, key=key)), state


def make_model():
    return eqx.nn.make_with_state(Net)(jax.random.key(0))


def loss(model, batch, *, state, key):
    inputs, labels = batch
    keys = jax.random.split(key, BATCH)
    apply = jax.vmap(model, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))
    logits, state = apply(inputs, state, keys)
    return cross_entropy(logits, labels), state
""",
    "flax_linen": """
class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(LAYERS):
            y = nn.Dense(WIDTH, use_bias=False)(x)
            x = x + jnp.tanh(nn.BatchNorm(use_running_average=False)(y))
        return nn.Dense(10)(nn.Dropout(0.1, deterministic=False)(x))


def make_model():
    net, keys = Net(), {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return net.init(keys, np.zeros((1, WIDTH), np.float32)), net.apply


def loss(model, batch, *, state, key):
    (params, apply), (inputs, labels) = model, batch
    variables, rngs = {"params": params, **state}, {"dropout": key}
    logits, state = apply(variables, inputs, mutable=["batch_stats"], rngs=rngs)
    return cross_entropy(logits, labels), state
""",
    "haiku": """
def forward(x):
    for _ in range(LAYERS):
        y = hk.Linear(WIDTH, with_bias=False)(x)
        x = x + jnp.tanh(hk.BatchNorm(True, True, decay_rate=0.9)(y, True))
    return hk.Linear(10)(hk.dropout(hk.next_rng_key(), 0.1, x))


net = hk.transform_with_state(forward)


def make_model():
    params, state = net.init(jax.random.key(0), np.zeros((1, WIDTH), np.float32))
    return (params, net.apply), state


def loss(model, batch, *, state, key):
    (params, apply), (inputs, labels) = model, batch
    logits, state = apply(params, state, key, inputs)
    return cross_entropy(logits, labels), state
""",
    "flax_nnx": """
class Net(nnx.Module):
    def __init__(self, rngs):
        layers = [nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=rngs) for _ in range(LAYERS)]
        self.layers = nnx.List(layers)
        self.norms = nnx.List([nnx.BatchNorm(WIDTH, rngs=rngs) for _ in range(LAYERS)])
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.readout = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, x):
        for layer, norm in zip(self.layers, self.norms):
            x = x + jnp.tanh(norm(layer(x)))
        return self.readout(self.dropout(x))


def make_model():
    return Net(nnx.Rngs(0))


def loss(model, batch):
    inputs, labels = batch
    return cross_entropy(model(inputs), labels)
""",
}
