"""My training step: `bakeoff cost NAME.py` says what each way to write it costs."""

import flax.linen as nn
import jax
import numpy as np
import optax
from flax.training.train_state import TrainState

WIDTH, ARRAYS = 64, 8  # of layers; each has two arrays


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        for place in range(0, ARRAYS, 2):
            x = nn.Dense(WIDTH, use_bias=place + 1 < ARRAYS)(nn.relu(x) if place else x)
        return x


def make_model():
    """Return the parameters, drawn with a fixed seed, and the function that applies them."""
    net = Net()
    return net.init(jax.random.key(0), np.zeros((1, WIDTH), np.float32))["params"], net.apply


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, WIDTH)).astype(np.float32), random.integers(8, size=32)


def loss(model, batch):
    """Return the mean loss, one number."""
    (params, apply), (inputs, labels) = model, batch
    logits = apply({"params": params}, inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


optimiser = optax.adamw(1e-3)


def train(steps=10):
    """Return the losses of some steps, as most users of Linen write them."""
    model, batches, losses = make_model(), [make_batch()] * steps, []
    params, apply = model
    state = TrainState.create(apply_fn=apply, params=params, tx=optimiser)

    @jax.jit
    def train_step(state, batch):
        def params_loss(params):
            return loss((params, state.apply_fn), batch)

        value, grads = jax.value_and_grad(params_loss)(state.params)
        return state.apply_gradients(grads=grads), value

    for batch in batches:
        state, value = train_step(state, batch)
        losses.append(float(value))
    return losses


if __name__ == "__main__":
    print(*train(), sep="\n")
