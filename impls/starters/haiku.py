"""My training step: `bakeoff cost NAME.py` says what each way to write it costs."""

import haiku as hk
import jax
import numpy as np
import optax

WIDTH, ARRAYS = 64, 8  # of layers; each has two arrays


def forward(x):
    for place in range(0, ARRAYS, 2):
        x = hk.Linear(WIDTH, with_bias=place + 1 < ARRAYS)(jax.nn.relu(x) if place else x)
    return x


net = hk.without_apply_rng(hk.transform(forward))


def make_model():
    """Return the parameters, drawn with a fixed seed, and the function that applies them."""
    return net.init(jax.random.key(0), np.zeros((1, WIDTH), np.float32)), net.apply


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, WIDTH)).astype(np.float32), random.integers(8, size=32)


def loss(model, batch):
    """Return the mean loss, one number."""
    (params, apply), (inputs, labels) = model, batch
    logits = apply(params, inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


optimiser = optax.adamw(1e-3)


def train(steps=10):
    """Return the losses of some steps, as most users of Haiku write them."""
    model, batches, losses = make_model(), [make_batch()] * steps, []
    params, apply = model
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params, opt_state, batch):
        def params_loss(params):
            return loss((params, apply), batch)

        value, grads = jax.value_and_grad(params_loss)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    for batch in batches:
        params, opt_state, value = train_step(params, opt_state, batch)
        losses.append(float(value))
    return losses


if __name__ == "__main__":
    print(*train(), sep="\n")
