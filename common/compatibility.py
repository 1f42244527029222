"""What older releases of JAX and optax do otherwise: each difference here, with its release.

Decided when a module is imported or a step is made, never in a call that is timed. What is one
library's alone is in `impls/older/`.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import jax

from common.contract import Program

try:
    from optax.tree import get as tree_get
    from optax.tree import set as tree_set
except ImportError:  # before optax 0.2.5
    from optax.tree_utils import tree_get, tree_set

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from jax.sharding import AbstractMesh, Mesh

__all__ = [
    "TRACES",
    "abstract_mesh",
    "attributes_of",
    "costs",
    "program_of",
    "release",
    "set_mesh",
    "tree_get",
    "tree_set",
]


def release(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: `0.12.1.dev3` is (0, 12, 1)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


JAX = release(jax.__version__)
TRACES = JAX >= (0, 4, 30)
"""Whether what `jax.jit` returns can do more than lower: tracing is a stage of its own."""


def program_of(
    jitted: Any, *arguments: Any, named: Mapping[str, Any] | None = None, whole: bool = True
) -> Program:
    """Return the stages of a call of a function that `jax.jit` returned.

    Args:
        jitted: The function.
        arguments: Those of the call.
        named: Those of the call that are given by name.
        whole: Whether a call of the step runs nothing else.
    """
    named = named or {}
    if TRACES:
        return Program.traced(lambda: jitted.trace(*arguments, **named), whole=whole)
    return Program(
        lambda: jitted.lower(*arguments, **named),
        lambda: jax.make_jaxpr(jitted)(*arguments, **named),
        trace=None,
        whole=whole,
    )


def costs(compiled: jax.stages.Compiled) -> Mapping[str, float]:
    """Return XLA's cost analysis of a program."""
    found: Any = compiled.cost_analysis()
    if JAX < (0, 5, 0):  # of several programs
        [found] = found
    return found


def attributes_of(operation: Any) -> dict[str, Any]:
    """Return the attributes of an operation of StableHLO by their names."""
    if JAX < (0, 8, 1):  # pairs
        return {pair.name: pair.attr for pair in operation.attributes}
    return {name: operation.attributes[name] for name in operation.attributes}


SHARES = JAX >= (0, 8, 0)
"""Whether JAX's context has a mesh, and `shard_map` knows what differs between its devices."""


def set_mesh(mesh: Mesh) -> AbstractContextManager[Any]:
    """Return a context whose mesh `abstract_mesh` tells those who are traced in it."""
    return jax.set_mesh(mesh) if SHARES else nullcontext()


def abstract_mesh() -> AbstractMesh | None:
    """Return the mesh of JAX's context, if it has one."""
    mesh = jax.sharding.get_abstract_mesh() if SHARES else None
    return None if mesh is None or mesh.empty else mesh
