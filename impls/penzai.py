"""Character RNN in Penzai. Axes have names, and parameters are objects that unbind from a model."""

# /// script
# requires-python = ">=3.12"
# dependencies = ["penzai==0.2.5", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "521 MB"
# ///

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from penzai import pz
from penzai.toolshed import basic_training

from common.compatibility import make_program
from common.contract import Dense, Model, Weights, flat
from common.loss import scan_loss
from common.steps import load_adam, pure_style, save_adam

if TYPE_CHECKING:
    import optax
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Checkpoint, Chunk, Hidden, Program, State, TrainStep

DISTRIBUTION = "penzai"
COLOUR = "#7F7F7F"

type Params = tuple[pz.ParameterValue, ...]


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


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its frozen parameters; `unbound` holds the rest."""

    def init(key: PRNGKeyArray) -> Params:
        return pz.unbind_params(CharRNN.from_config(config, key), freeze=True)[1]

    unbound, _ = pz.unbind_params(CharRNN.from_config(config, jax.random.key(0)))
    structure = jax.tree.structure(jax.eval_shape(init, jax.random.key(0)))

    def step(params: Params, state: State, token: Int[Array, ""]) -> tuple[State, Array]:
        return pz.bind_variables(unbound, params)(state, token)

    def to_weights(params: Params) -> Weights:
        arrays = iter(jax.tree.leaves(params))
        *cells, readout = (Dense(kernel, next(arrays)) for kernel in arrays)
        return Weights(tuple(cells), readout)

    def from_weights(weights: Weights) -> Params:
        arrays = (jnp.asarray(array) for dense in flat(weights) for array in dense)
        return jax.tree.unflatten(structure, arrays)

    return Model(init, step, to_weights, from_weights)


def loss_fn(
    *,
    model: CharRNN,
    state: None,
    rng: PRNGKeyArray,  # noqa: ARG001 -- the trainer hands it out
    hidden: Hidden,
    chunk: Chunk,
) -> tuple[Array, None, tuple[Hidden, Array]]:
    """Return the loss, the trainer's state and a step's results, as the trainer wants them."""
    loss, after = scan_loss(model, hidden, chunk)
    return loss, state, (after, loss)


class Trained:
    """A training step around Penzai's trainer, whose parameters are updated in place."""

    def __init__(
        self, config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool
    ) -> None:
        self.pure, self.tx = build(config), optimiser
        model = CharRNN.from_config(config, jax.random.key(0))
        self.params = pz.unbind_params(model)[1]
        self.trainer = basic_training.StatefulTrainer.build(
            jax.random.key(0), model, optimiser, loss_fn, donate_states=donate
        )

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        params = self.pure.from_weights(checkpoint.weights)
        for parameter, value in zip(self.params, params, strict=True):
            parameter.update(value)
        opt_state = load_adam(self.tx, params, self.pure, checkpoint)
        self.trainer.state.value = basic_training.InternalTrainerState(
            step=checkpoint.updates, opt_state=opt_state, loss_fn_state=None
        )

    def save(self) -> Checkpoint:  # noqa: D102
        params = pz.freeze_params(self.params)
        return save_adam(params, self.trainer.state.value.opt_state, self.pure)

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Array]:  # noqa: D102
        return self.trainer.step(hidden=hidden, chunk=chunk)

    def program(self, hidden: Hidden, chunk: Chunk) -> Program:  # noqa: D102
        unbound, params = pz.unbind_params(self.trainer.model, freeze=True)
        arguments: dict[str, Any] = {
            "root_rng": self.trainer.root_rng,
            "state": self.trainer.state.value,
            "stateless_model": unbound,
            "trainable_params": params,
            "frozen_params": (),
            "state_vars": (),
            "loss_fn": self.trainer.loss_fn,
            "optimizer_def": self.trainer.optimizer_def,
            "kwargs": {"hidden": hidden, "chunk": chunk},
        }
        return make_program(self.trainer.step_fn, named=arguments)


def stateful_trainer(
    config: ModelConfig, optimiser: optax.GradientTransformation, *, donate: bool = False
) -> TrainStep:
    """`basic_training.StatefulTrainer`, which unbinds and updates the parameters in each call."""
    return Trained(config, optimiser, donate=donate)


STYLES = {"pure": pure_style(build), "stateful_trainer": stateful_trainer}
