"""My training step: `bakeoff cost NAME.py` says what each way to write it costs."""

import equinox as eqx
import jax
import numpy as np
import optax

WIDTH, ARRAYS = 64, 8  # of layers; each has two arrays


class Net(eqx.Module):
    layers: list

    def __init__(self, key):
        keys = jax.random.split(key, (ARRAYS + 1) // 2)
        biases = [2 * place + 1 < ARRAYS for place in range(len(keys))]
        self.layers = [
            eqx.nn.Linear(WIDTH, WIDTH, bias, key=key) for bias, key in zip(biases, keys)
        ]

    def __call__(self, x):
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


def make_model():
    """Return the model, drawn with a fixed seed."""
    return Net(jax.random.key(0))


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, WIDTH)).astype(np.float32), random.integers(8, size=32)


def loss(model, batch):
    """Return the mean loss, one number."""
    inputs, labels = batch
    logits = jax.vmap(model)(inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


optimiser = optax.adamw(1e-3)


def train(steps=10):
    """Return the losses of some steps, as most users of Equinox write them."""
    model, batches, losses = make_model(), [make_batch()] * steps, []
    opt_state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def train_step(model, opt_state, batch):
        grad_fn = eqx.filter_value_and_grad(loss)
        value, grads = grad_fn(model, batch)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return eqx.apply_updates(model, updates), opt_state, value

    for batch in batches:
        model, opt_state, value = train_step(model, opt_state, batch)
        losses.append(float(value))
    return losses


if __name__ == "__main__":
    print(*train(), sep="\n")
