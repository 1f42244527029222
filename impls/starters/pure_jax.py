"""My training step: `bakeoff cost NAME.py` says what each way to write it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

WIDTH, ARRAYS = 64, 8  # of layers; each has two arrays


def make_model():
    """Return the parameters, any pytree of arrays, drawn with a fixed seed."""
    layers, init = [], jax.nn.initializers.lecun_normal()
    for key in jax.random.split(jax.random.key(0), (ARRAYS + 1) // 2):
        layers.append({"kernel": init(key, (WIDTH, WIDTH)), "bias": jnp.zeros((1, WIDTH))})
    if ARRAYS % 2:
        del layers[-1]["bias"]
    return layers


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, WIDTH)).astype(np.float32), random.integers(8, size=32)


def loss(params, batch):
    """Return the mean loss, one number."""
    x, labels = batch
    for place, layer in enumerate(params):
        x = (jax.nn.relu(x) if place else x) @ layer["kernel"] + layer.get("bias", 0)
    return optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()


optimiser = optax.adamw(1e-3)


def train(steps=10):
    """Return the losses of some steps, as most users of JAX write them."""
    params, batches, losses = make_model(), [make_batch()] * steps, []
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params, opt_state, batch):
        grad_fn = jax.value_and_grad(loss)
        value, grads = grad_fn(params, batch)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    for batch in batches:
        params, opt_state, value = train_step(params, opt_state, batch)
        losses.append(float(value))
    return losses


if __name__ == "__main__":
    print(*train(), sep="\n")
