"""Differences of older releases of JAX and optax, each with its release.

They are settled when a module is imported or a step is made, never in a timed call. Differences of
one library are in `impls/older_releases/`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import jax

try:
    from optax.tree import get as tree_get
    from optax.tree import set as tree_set
except ImportError:  # before optax 0.2.5
    from optax.tree_utils import tree_get, tree_set

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "TRACES",
    "analyse_costs",
    "parse_release",
    "read_attributes",
    "tree_get",
    "tree_set",
]


def parse_release(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: `0.12.1.dev3` is (0, 12, 1)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


JAX = parse_release(jax.__version__)
TRACES = JAX >= (0, 4, 30)
"""Whether functions of `jax.jit` have tracing as a stage of their own, before lowering."""


def analyse_costs(compiled: jax.stages.Compiled) -> Mapping[str, float]:
    """Return XLA's cost analysis of a program."""
    analysis: Any = compiled.cost_analysis()
    if JAX < (0, 5, 0):  # a list, with one analysis for each program
        [analysis] = analysis
    return analysis


def read_attributes(operation: Any) -> dict[str, Any]:
    """Return the attributes of an operation of StableHLO by their names."""
    if JAX < (0, 8, 1):  # pairs
        return {pair.name: pair.attr for pair in operation.attributes}
    return {name: operation.attributes[name] for name in operation.attributes}
