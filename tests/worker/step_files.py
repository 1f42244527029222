"""Files of training steps of a user's own, in the folder of a test."""

from pathlib import Path
from unittest.mock import Mock

from bench.cells import name_step
from bench.cli import main
from bench.offer import Offer
from bench.worker.offers import describe
from bench.worker.protocol import Describe
from bench.worker.step_arms import StepArms
from bench.worker.step_file import StepFile

MODEL = """
import jax
import jax.numpy as jnp
import numpy as np
import optax

def make_model():
    return {"w": jnp.full((4, 4), 0.1), "b": jnp.zeros((1, 4))}

def make_batch():
    return np.ones((2, 4), np.float32)

def loss(model, batch):
    return jnp.mean((batch @ model["w"] + model["b"] - 1) ** 2)
"""
WHOLE = """
import jax, jax.numpy as jnp, numpy as np

def make_batch():
    return np.ones(4, np.float32)

update = jax.jit(lambda w, batch: (w - 0.1 * jax.grad(lambda w: jnp.sum((w * batch - 1) ** 2))(w),
                                   jnp.sum((w * batch - 1) ** 2)))

def make_step():
    state = [jnp.zeros(4)]
    def step(batch):
        state[0], loss = update(state[0], batch)
        return loss
    return step
"""
DATA = """
def make_batch():
    random = np.random.default_rng(0)
    return random.normal(size=(8, 16)).astype(np.float32), random.integers(4, size=8)

def mean_loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
"""
PLAIN = (
    """
import jax, jax.numpy as jnp, numpy as np, optax

def make_model():
    return {"w": jnp.ones((16, 4)) / 4}, {"mean": jnp.zeros((1, 4))}

def loss(model, batch, *, state, key):
    logits = batch[0] @ model["w"]
    mean = 0.9 * state["mean"] + 0.1 * logits.mean(0, keepdims=True)
    keep = jax.random.bernoulli(key, 0.5, logits.shape)
    return mean_loss(jnp.where(keep, logits - mean, 0), batch[1]), {"mean": mean}
"""
    + DATA
)
"""A model of plain JAX with a state and dropout."""


def written(text: str, name: str = "mine") -> str:
    path = Path(f"{name}.py")
    path.write_text(text, "utf-8")
    return name_step(path)


def begun(library: str) -> str:
    main(["new", f"my_{library}", "--model", library])
    return name_step(Path(f"my_{library}.py"))


def arms_of(name: str) -> StepArms:
    return StepArms(StepFile(Path(f"{name}.py").resolve()), "cpu", donate=False)


def offered(name: str) -> Offer:
    return describe(Mock(), Describe([], {name: str(Path(f"{name}.py").resolve())}))
