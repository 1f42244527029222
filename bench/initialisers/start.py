"""What an initialiser makes: the size of each layer's arrays, and what they do with a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import impls
from bench.initialisers.losses import Layer
from common.contract import flat, zero_hidden

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Array, Float, Int

    from common.config import ModelConfig
    from common.contract import State, Weights

ALIKE = 0.01
"""Level of the test of whether two starts have the same distributions, all arrays together."""


def layers(
    seeds: Sequence[Weights], config: ModelConfig, tokens: Int[np.ndarray, " characters"]
) -> list[Layer]:
    """Return what each layer is at the start: means over seeds.

    Args:
        seeds: Weights, by seed.
        config: Sizes of the model.
        tokens: Characters that it reads, from a state of zeros.
    """
    found = [_layers(weights, config, tokens) for weights in seeds]
    return [_mean(same) for same in zip(*found, strict=True)]


def _layers(
    weights: Weights, config: ModelConfig, tokens: Int[np.ndarray, " characters"]
) -> list[Layer]:
    out = []
    for number, ((kernel, bias), activation) in enumerate(
        zip(flat(weights), activations(weights, config, tokens), strict=True)
    ):
        of_cell = number < config.layers
        own, below = np.split(np.asarray(kernel), [config.width if of_cell else 0])
        out.append(
            Layer(
                kernel=float(np.std(kernel)),
                bias=float(np.sqrt(np.mean(np.square(bias)))),
                recurrent=largest_singular_value(own) if of_cell else None,
                below=largest_singular_value(below),
                activation=float(np.sqrt(np.mean(np.var(activation, axis=0)))),
            )
        )
    return out


def largest_singular_value(matrix: np.ndarray) -> float:
    """Return by how much a matrix can stretch a vector at most."""
    return float(np.linalg.norm(matrix, 2))


def activations(
    weights: Weights, config: ModelConfig, tokens: Int[np.ndarray, " characters"]
) -> list[Float[np.ndarray, "time units"]]:
    """Return what each layer gives for each character; the readout's logits are last."""
    model = impls.load(impls.BASELINE).build(config)
    params = model.from_weights(weights)

    def step(state: State, token: Int[Array, ""]) -> tuple[State, tuple[Array, ...]]:
        state, logits = model.step(params, state, token)
        return state, (*state, logits)

    state = tuple(rows[0] for rows in zero_hidden(config))
    return [np.asarray(each) for each in jax.lax.scan(step, state, jnp.asarray(tokens))[1]]


def _mean(same: Sequence[Layer]) -> Layer:
    def mean(name: str) -> float:
        return float(np.mean([getattr(layer, name) for layer in same]))

    return Layer(
        *(
            None if getattr(same[0], name) is None else mean(name)  # type: ignore[arg-type]
            for name in Layer.__struct_fields__
        )
    )


def alike(starts: Mapping[str, Sequence[Weights]]) -> dict[str, str]:
    """Return, for each start, the first one whose arrays have the same distribution, or nothing.

    Each array's entries, of all seeds, are compared by the two-sample Kolmogorov-Smirnov test; the
    level is divided by the number of arrays (Bonferroni).
    """
    pooled = {name: _arrays(seeds) for name, seeds in starts.items()}
    out: dict[str, str] = {}
    for name, arrays in pooled.items():
        firsts = [other for other, like in out.items() if not like]
        same = (other for other in firsts if _same(arrays, pooled[other]))
        out[name] = next(same, "")
    return out


def _arrays(seeds: Sequence[Weights]) -> list[Float[np.ndarray, " entries"]]:
    """Return the entries of each array, of all seeds."""
    leaves = [jax.tree.leaves(weights) for weights in seeds]
    return [np.concatenate([np.ravel(a) for a in same]) for same in zip(*leaves, strict=True)]


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    p = [stats.ks_2samp(a, b, method="asymp").pvalue for a, b in zip(one, other, strict=True)]
    return bool(min(p) * len(p) > ALIKE)
