"""Character RNN in Penzai: axes have names, and parameters are objects that unbind from a model.

It has no recurrent layers and no scan over time of its own.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["penzai==0.2.5", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "521 MB"
# ///

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from penzai import pz
from penzai.toolshed import basic_training

from common.contract import Dense, Model, Weights, flat, unflat
from common.loss import cross_entropy
from common.steps import Rnn
from impls.libraries.penzai import LIBRARY

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, ModelLoss, Optimiser, State, StepAndState

type Params = tuple[pz.ParameterValue, ...]

# The model


def affine(name: str, rows: int, columns: int, key: PRNGKeyArray) -> pz.nn.Affine:
    """Return a Linear and an AddBias over the axis of features."""
    return pz.nn.Affine.from_config(name, key, {"features": rows}, {"features": columns})


@pz.pytree_dataclass
class CharRNN(pz.nn.Layer):
    """Cells bottom up, and a readout."""

    cells: list[pz.nn.Sequential]
    readout: pz.nn.Affine

    @classmethod
    def from_config(cls, config: ModelConfig, key: PRNGKeyArray) -> CharRNN:
        """Return a model whose parameters are derived from the key and their names."""
        cells = [
            pz.nn.Sequential(
                [affine(f"cell_{i}", rows, config.width, key), pz.nn.Elementwise(jnp.tanh)]
            )
            for i, rows in enumerate(config.in_features)
        ]
        return cls(cells, affine("readout", config.width, config.vocab_size, key))

    def __call__(self, state: State, token: Int[Array, ""]) -> tuple[State, Float[Array, " vocab"]]:
        """Return the new states and the logits of the next character."""
        x, new_state = pz.nx.wrap(jax.nn.one_hot(token, self.vocab_size), "features"), []
        for cell, hidden in zip(self.cells, state, strict=True):
            x = cell(pz.nx.concatenate([pz.nx.wrap(hidden, "features"), x], "features"))
            new_state.append(x.unwrap("features"))
        return tuple(new_state), self.readout(x).unwrap("features")

    @property
    def vocab_size(self) -> int:
        """Length of the logits."""
        return self.readout.sublayers[-1].bias.value.named_shape["features"]


# The loss


def loss_fn(model: CharRNN, hidden: Hidden, chunk: Chunk) -> tuple[Float[Array, ""], Hidden]:
    """Return the mean loss over a chunk of characters, and the hidden state after it."""
    hidden, logits = jax.lax.scan(jax.vmap(model), hidden, chunk.inputs)
    return cross_entropy(logits, chunk), hidden


# Training steps


def pure(model: CharRNN, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`jax.jit` over the model's frozen parameters; `unbound` holds the rest of it."""
    unbound, params = pz.unbind_params(model, freeze=True)
    opt_state = optimiser.init(params)

    @jax.jit
    def train_step(params: Params, opt_state: Any, hidden: Hidden, chunk: Chunk) -> Any:
        def params_loss(params: Params) -> Any:
            return loss_fn(pz.bind_variables(unbound, params), hidden, chunk)

        (loss, hidden), grads = jax.value_and_grad(params_loss, has_aux=True)(params)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, hidden, loss

    return train_step, (params, opt_state)


def stateful_trainer(model: CharRNN, loss_fn: ModelLoss, optimiser: Optimiser) -> StepAndState:
    """`basic_training.StatefulTrainer`, which unbinds and updates the parameters in each call."""

    def trainer_loss_fn(
        *,
        model: CharRNN,
        state: None,
        rng: Any,  # noqa: ARG001 -- the trainer hands it out
        hidden: Hidden,
        chunk: Chunk,
    ) -> Any:
        loss, hidden = loss_fn(model, hidden, chunk)
        return loss, state, (hidden, loss)

    trainer = basic_training.StatefulTrainer.build(
        jax.random.key(0), model, optimiser, trainer_loss_fn
    )

    def train_step(hidden: Hidden, chunk: Chunk) -> Any:
        return trainer.step(hidden=hidden, chunk=chunk)

    return train_step, (model, trainer)


# Weights in and out, and the styles for the harness


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its frozen parameters; `unbound` holds the rest."""

    def init(key: PRNGKeyArray) -> Params:
        return pz.unbind_params(CharRNN.from_config(config, key), freeze=True)[1]

    unbound, _ = pz.unbind_params(CharRNN.from_config(config, jax.random.key(0)))
    structure = jax.tree.structure(jax.eval_shape(init, jax.random.key(0)))

    def step(params: Params, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return pz.bind_variables(unbound, params)(state, token)

    def to_weights(params: Params) -> Weights:
        arrays = jax.tree.leaves(params)
        return unflat(map(Dense, arrays[::2], arrays[1::2]))

    def from_weights(weights: Weights) -> Params:
        arrays = (jnp.asarray(array) for dense in flat(weights) for array in dense)
        return jax.tree.unflatten(structure, arrays)

    return Model(init, step, to_weights, from_weights)


rnn = Rnn(build, lambda config: CharRNN.from_config(config, jax.random.key(0)), loss_fn, LIBRARY)
STYLES = {
    "pure": rnn.threaded(pure),
    "stateful_trainer": rnn.in_place(stateful_trainer, bound=True),
}
