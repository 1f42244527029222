"""Names of a library's API that a file uses: what somebody has to know to read it.

A name is an import of that library with the attributes that follow it, spelled in full whatever it
is imported as: `nnx.jit` is `flax.nnx.jit`. Methods of objects (`optimizer.update`) are not
counted, since a file does not say whose they are.
"""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING, NamedTuple

from bench.ergonomics.names import uses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OWN = ("bench", "common", "impls")
"""Packages of this project."""
TYPING = ("jaxtyping",)
"""Shapes in annotations are this project's habit, and no library's demand."""
APART = ("jax", "optax", "numpy")
"""What everybody uses is counted apart."""
WITHIN_JAX = "jax.example_libraries."
"""A library that JAX ships is not JAX's own API."""


class Concepts(NamedTuple):
    """Names in full, sorted."""

    library: tuple[str, ...]
    jax: tuple[str, ...]
    optax: tuple[str, ...]
    numpy: tuple[str, ...]

    def without(self, other: Concepts) -> Concepts:
        """Return the names that `other` does not have."""
        return Concepts(
            *(
                tuple(name for name in mine if name not in theirs)
                for mine, theirs in zip(self, other, strict=True)
            )
        )


def concepts(nodes: Iterable[ast.AST], tree: ast.Module, distribution: str = "") -> Concepts:
    """Return the names that some code uses.

    Args:
        nodes: The code, a part of `tree` or all of it.
        tree: The file, whose imports say what a name stands for.
        distribution: The entrant's own: NumPy's names are a library's where NumPy is the entrant.
    """
    imported = imports(tree)
    found: dict[str, set[str]] = {group: set() for group in Concepts._fields}
    for root, *attributes in uses(*nodes):
        if root in imported:
            name = ".".join([imported[root], *attributes])
            group = group_of(name, distribution)
            if group is not None:
                found[group].add(name)
    return Concepts(**{group: tuple(sorted(names)) for group, names in found.items()})


def imports(tree: ast.Module) -> Mapping[str, str]:
    """Return what each imported name stands for, in full; relative imports are the project's."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                for alias in names:
                    top = alias.name.split(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            case ast.ImportFrom(str(module), names, 0):
                for alias in names:
                    found[alias.asname or alias.name] = f"{module}.{alias.name}"
    return found


def group_of(name: str, distribution: str) -> str | None:
    """Return whose a name is; None for Python's own and this project's."""
    top = name.split(".")[0]
    if top in sys.stdlib_module_names or top in OWN or top in TYPING:
        return None
    if name.startswith(WITHIN_JAX) or (top == distribution and top != "jax"):
        return "library"
    return top if top in APART else "library"
