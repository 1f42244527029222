"""What an entrant's file says of itself in constants, read without running it.

An entrant whose library is heavy or old declares what it needs, and runs in an environment of its
own; that has to be known before anything can be imported.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Declaration:
    """An entrant's constants; each is a literal of the same name in capitals."""

    distribution: str = ""
    """`DISTRIBUTION`: name of the library's distribution, whose version is measured."""
    requirements: tuple[str, ...] = ()
    """`REQUIREMENTS`: what an environment of its own is built from; empty for everybody's."""
    python: str = ""
    """`PYTHON`: minor version that the environment needs, as in `3.12`; empty for any."""
    jax: bool = True
    """`JAX`: False for an outside reference, which compiles nothing with JAX."""
    note: str = ""
    """`NOTE`: a sentence that results say of it."""
    alone: tuple[str, ...] = ()
    """`ALONE`: styles measured in a worker of their own, for they set what a process has once."""

    @property
    def own_environment(self) -> bool:
        """Whether it runs in an environment of its own."""
        return bool(self.requirements)


def declaration(path: Path) -> Declaration:
    """Return what the Python file of an entrant declares.

    Raises:
        BakeoffError: the file cannot be read or parsed, or one of its constants is not the literal
            that it has to be.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise BakeoffError(
            f"entrant {path.stem!r} has a syntax error in line {error.lineno}: {error.msg}"
        ) from error
    except (OSError, ValueError, MemoryError, RecursionError) as error:
        what = str(error) or type(error).__name__
        raise BakeoffError(f"entrant {path.stem!r} cannot be read: {what}") from error
    known = {field.name.upper(): field for field in fields(Declaration)}
    found: dict[str, Any] = {}
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], value) if name in known:
                found[known[name].name] = literal(path, name, value)
            case ast.AnnAssign(ast.Name(name), _, value) if name in known and value is not None:
                found[known[name].name] = literal(path, name, value)
    return Declaration(**found)


def literal(path: Path, name: str, node: ast.expr) -> Any:
    """Return the value of a constant, whose type has to be its default's."""
    expected: Any = getattr(Declaration(), name.lower())
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        value = None
    if isinstance(value, list):
        value = tuple(value)
    fits = type(value) is type(expected)
    if isinstance(value, tuple) and not all(isinstance(each, str) for each in value):
        fits = False
    if not fits:
        kind = {tuple: "a tuple of strings", bool: "True or False"}.get(type(expected), "a string")
        raise BakeoffError(
            f"entrant {path.stem!r}: {name} in line {node.lineno} has to be {kind}, written out, "
            "for it is read before the file can be run"
        )
    return value
