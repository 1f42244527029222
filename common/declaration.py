"""Metadata of an entrant's file, read without running it: its constants, and its packages.

An entrant whose library is heavy or old lists its packages in a comment block, as Python scripts do
(PEP 723), and runs in an environment of its own; that has to be known before the import.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = re.compile(r"^# /// script$\n((?:^#(?: .*)?$\n)+?)^# ///$", re.MULTILINE)
"""Metadata of a script (PEP 723)."""
OF_BLOCK = ("requirements", "requires_python", "installed")
"""Fields that are read from the block."""


@dataclass(frozen=True)
class Declaration:
    """An entrant's constants, each a literal of the same name in capitals, and its packages."""

    distribution: str = ""
    """`DISTRIBUTION`: name of the library's distribution, whose version is measured."""
    jax: bool = True
    """`JAX`: False for an outside reference, which compiles nothing with JAX."""
    note: str = ""
    """`NOTE`: a sentence that results say of it."""
    alone: tuple[str, ...] = ()
    """`ALONE`: styles measured in a worker of their own, for they set what a process has once."""
    if_named: tuple[str, ...] = ()
    """`IF_NAMED`: styles that a run measures where they or the entrant are named, and at depths."""
    requirements: tuple[str, ...] = ()
    """`dependencies` of the block: packages of an environment of its own; empty for none."""
    requires_python: str = ""
    """`requires-python` of the block: versions of Python that the environment may have."""
    installed: str = ""
    """`tool.bakeoff.installed` of the block: size of the environment on disk, as in `556 MB`."""

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
        source = path.read_bytes()
        tree = ast.parse(source, str(path))
    except SyntaxError as error:
        raise BakeoffError(
            f"entrant {path.stem!r} has a syntax error in line {error.lineno}: {error.msg}"
        ) from error
    except (OSError, ValueError, MemoryError, RecursionError) as error:
        what = str(error) or type(error).__name__
        raise BakeoffError(f"entrant {path.stem!r} cannot be read: {what}") from error
    known = {
        field.name.upper(): field for field in fields(Declaration) if field.name not in OF_BLOCK
    }
    found: dict[str, Any] = script_metadata(path, source.decode("utf-8", "replace"))
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], value) if name in known:
                found[known[name].name] = literal(path, name, value)
            case ast.AnnAssign(ast.Name(name), _, value) if name in known and value is not None:
                found[known[name].name] = literal(path, name, value)
    return Declaration(**found)


def script_metadata(path: Path, source: str) -> dict[str, Any]:
    """Return the requirements of the comment block in a file; empty if it has none."""
    block = BLOCK.search(source.replace("\r\n", "\n"))
    if block is None:
        return {}
    try:
        metadata = tomllib.loads("\n".join(line[2:] for line in block[1].splitlines()))
    except tomllib.TOMLDecodeError as error:
        raise BakeoffError(f"entrant {path.stem!r}: its block `# /// script`: {error}") from error
    requirements, python = metadata.get("dependencies", []), metadata.get("requires-python", "")
    texts = [*requirements, python] if isinstance(requirements, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise BakeoffError(
            f"entrant {path.stem!r}: in its block `# /// script`, dependencies has to be a list of "
            "strings, and requires-python a string"
        )
    installed = str(metadata.get("tool", {}).get("bakeoff", {}).get("installed", ""))
    return {"requirements": tuple(requirements), "requires_python": python, "installed": installed}


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
