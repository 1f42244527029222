"""What is known of an entrant beside its code, without running it.

Of the project's entrants, that is a row of `impls/registry.toml`. A user's own is one file, which
has constants of the same names in capitals: Python's literals, which are plainest to write.

An entrant whose library is heavy or unmaintained lists its packages in a comment block, as Python
scripts do (PEP 723), and runs in an environment of its own; that has to be known before the import.
"""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_type_hints

from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = re.compile(r"^# /// script$\n((?:^#(?: .*)?$\n)+?)^# ///$", re.MULTILINE)
"""Pattern of a script's metadata (PEP 723)."""
BLOCK_FIELDS = {"requirements", "requires_python", "installed"}
"""Fields that are read from the block."""


@dataclass(frozen=True)
class Declaration:
    """An entrant's row in the registry, or a file's constants; and the packages that it needs."""

    distribution: str = "jax"
    """`DISTRIBUTION`: the library's distribution, whose version is measured."""
    packages: tuple[str, ...] = ()
    """`PACKAGES`: distributions that the library needs, and that a SPEC may pin as well."""
    models: str = ""
    """`MODELS`: the module that a user's step imports if its model is this library's."""
    jax: bool = True
    """`JAX`: False for an outside reference, which compiles nothing with JAX."""
    recommended: bool = True
    """`RECOMMENDED`: False if its authors advise new users against it; `NOTE` says how."""
    note: str = ""
    """`NOTE`: a sentence about the library that results repeat."""
    colour: str = ""
    """`COLOUR`: the entrant's colour in charts, `#RRGGBB`."""
    if_named: tuple[str, ...] = ()
    """`IF_NAMED`: styles that a run measures where they or the entrant are named."""
    references: tuple[str, ...] = ()
    """`REFERENCES`: styles for comparison alone, which a table of choices leaves out."""
    waits: tuple[str, ...] = ()
    """`WAITS`: styles whose call returns only when the device has finished."""
    names: dict[str, str] = field(default_factory=dict)
    """`NAMES`: by style, how sentences name it, if not by its entrant and style."""
    limits: dict[str, str] = field(default_factory=dict)
    """`LIMITS`: for styles that do not suit every model, which models they suit."""
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


TYPES: dict[str, Any] = get_type_hints(Declaration)
WORDS: dict[Any, str] = {
    str: "a string",
    bool: "True or False",
    tuple[str, ...]: "a tuple of strings",
    dict[str, str]: "a dict of strings",
}
"""Type of a constant → its name in messages."""


def parse(path: Path) -> tuple[str, ast.Module]:
    """Return the text of an entrant's file, and its tree.

    Raises:
        BakeoffError: it cannot be read or parsed.
    """
    try:
        source = path.read_bytes()
        return source.decode("utf-8", "replace"), ast.parse(source, str(path))
    except SyntaxError as error:
        raise BakeoffError(
            f"entrant {path.stem!r} has a syntax error in line {error.lineno}: {error.msg}"
        ) from error
    except (OSError, ValueError, MemoryError, RecursionError) as error:
        what = str(error) or type(error).__name__
        raise BakeoffError(f"entrant {path.stem!r} cannot be read: {what}") from error


def read_constants(path: Path) -> dict[str, Any]:
    """Return the fields of a `Declaration` that stand in an entrant's Python file.

    Raises:
        BakeoffError: the file cannot be read or parsed, or one of its constants is not a literal of
            the right type.
    """
    source, tree = parse(path)
    known = {name.upper() for name in TYPES.keys() - BLOCK_FIELDS}
    values = read_block(path, source)
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(
                ast.Name(name), _, ast.expr() as value
            ) if name in known:
                values[name.lower()] = read_literal(path, name, value)
    return values


def read_block(path: Path, source: str) -> dict[str, Any]:
    """Return the fields that the comment block of a file declares; empty if it has no block."""
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


def read_literal(path: Path, name: str, node: ast.expr) -> Any:
    """Return the value of a constant; raise BakeoffError if it has another type than its field."""
    expected = TYPES[name.lower()]
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        value = None
    value = tuple(value) if isinstance(value, list) else value
    if not is_of_type(value, expected):
        raise BakeoffError(
            f"entrant {path.stem!r}: {name} in line {node.lineno} has to be {WORDS[expected]}, "
            "written out, for it is read before the file can be run"
        )
    return value


def is_of_type(value: Any, expected: Any) -> bool:
    """Tell whether a value has the type of a field of `Declaration`, down to its items."""
    if isinstance(value, dict | tuple):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        container = dict[str, str] if isinstance(value, dict) else tuple[str, ...]
        return container == expected and all(type(item) is str for item in items)
    return type(value) is expected
