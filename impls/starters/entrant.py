"""Character RNN in NAME: describe the library's quirk in one line.

`bakeoff check NAME.py` says what to write next: correct its first finding, and run it again. The
shortest complete entrant is impls/pure_jax.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from common.contract import Dense, Model, Weights
from common.steps import pure_style

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import State

# 1. contract. The library's distribution, as `pip show` names it; results give its version.
DISTRIBUTION = "name-of-the-package"

# Parameters may be any pytree: nested dicts, a list, the library's own class.
type Params = Any


def build(config: ModelConfig) -> Model:
    """Return the model as four pure functions; `config` has vocab_size, width and layers."""

    def init(key: PRNGKeyArray) -> Params:
        # 2. shapes. Make the parameters with the library's default initialisers: for each of
        #    config.layers cells an affine map from width + input size (config.in_features has the
        #    sums) to width, then the readout from width to vocab_size.
        raise NotImplementedError("write init: make the parameters")

    def step(
        params: Params, state: State, token: Int[Array, ""]
    ) -> tuple[State, Float[Array, " vocab"]]:
        # 4. shapes again. One character of one stream, no batch:
        #        x = one_hot(token)
        #        for each cell, bottom up:
        #            x = hidden = tanh(concatenate([hidden, x]) @ kernel + bias)
        #        logits = x @ kernel + bias, of the readout
        #    Return the new hidden state of each cell, as a tuple, and the logits; no softmax.
        raise NotImplementedError("write step: read one character")

    def to_weights(params: Params) -> Weights:
        # 3. shapes. Return the parameters in neutral form: kernels are (in, out), and the rows of a
        #    cell's kernel are the hidden state's, then those of its input. Transpose them if the
        #    library stores (out, in).
        #        return Weights(cells=(Dense(kernel, bias), …), readout=Dense(kernel, bias))
        raise NotImplementedError("write to_weights: give the weights out")

    def from_weights(weights: Weights) -> Params:
        # 5. weights. The inverse: the structure that init makes, with these numbers in it, as
        #    jax.numpy arrays.
        raise NotImplementedError("write from_weights: take weights in")

    return Model(init, step, to_weights, from_weights)


# 6. equality, ten-steps and the others. `pure` is the step that every entrant has: one
#    jax.jit over pure parameters. Add your library's own way of writing a training step as another
#    style: a function of (config, optimiser) that returns a step with load, save, a call, and
#    program; see `transform` in impls/haiku.py.
STYLES = {"pure": pure_style(build)}
