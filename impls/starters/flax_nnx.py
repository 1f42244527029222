"""My training step: `bakeoff cost NAME.py` says what each way to write it costs."""

import jax
import numpy as np
import optax
from flax import nnx

WIDTH, ARRAYS = 64, 8  # of layers; each has two arrays


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.Sequential(
            *(
                nnx.Linear(WIDTH, WIDTH, use_bias=place + 1 < ARRAYS, rngs=rngs)
                for place in range(0, ARRAYS, 2)
            )
        )

    def __call__(self, x):
        *layers, readout = self.layers.layers
        for layer in layers:
            x = jax.nn.relu(layer(x))
        return readout(x)


def make_model():
    """Return the model, drawn with a fixed seed."""
    return Net(nnx.Rngs(0))


def make_batch():
    """Return one batch with your shapes and types: the same in each call."""
    random = np.random.default_rng(0)
    return random.normal(size=(32, WIDTH)).astype(np.float32), random.integers(8, size=32)


def loss(model, batch):
    """Return the mean loss, one number."""
    inputs, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(model(inputs), labels).mean()


optimiser = optax.adamw(1e-3)


def train(steps=10):
    """Return the losses of some steps, as most users of NNX write them."""
    model, batches, losses = make_model(), [make_batch()] * steps, []
    optimizer = nnx.Optimizer(model, optimiser, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, batch):
        grad_fn = nnx.value_and_grad(loss)
        value, grads = grad_fn(model, batch)
        optimizer.update(model, grads)
        return value

    for batch in batches:
        value = train_step(model, optimizer, batch)
        losses.append(float(value))
    return losses


if __name__ == "__main__":
    print(*train(), sep="\n")
