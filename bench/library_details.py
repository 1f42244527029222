"""What an entrant costs besides time: lines of code, the size of an installation, releases.

Files are read, not run, and no network is used. Releases are read from `libraries.json`, which is
edited by hand and says when that was done.
"""

from __future__ import annotations

import ast
import json
import symtable
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import impls
from bench.report.choices import LIBRARIES
from bench.worker.source import code_line_numbers
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.environments.builder import Builder

    type Definitions = Mapping[str, list[ast.stmt]]

CORE = "core"
"""What `build` and the style `pure` need."""
COMMON = ("jax", "optax", "numpy")
"""Every worker imports these, so an installation's size leaves them out."""


def details(name: str, builder: Builder) -> dict[str, Any]:
    """Return the details of an entrant, ready for JSON; a part that is not known is None.

    Args:
        name: The entrant.
        builder: Of the environments of entrants.

    Returns:
        `lines` as `style_lines` returns them, `install` as `installation` does, `releases` with
        their number in the year before a day (`as_of`), the latest and its day. `problems` has a
        sentence for each part that is missing for a reason.
    """
    found: dict[str, Any] = {"lines": None, "install": None, "releases": None, "problems": []}
    try:
        about = impls.declared(name)
    except BakeoffError as error:
        return found | {"problems": [str(error)]}
    for part, measure in {
        "lines": lambda: style_lines(impls.source(name)),
        "install": lambda: installation(about.distribution, site_packages(name, builder)),
    }.items():
        try:
            found[part] = measure()
        except BakeoffError as error:
            found["problems"].append(str(error))
    known = json.loads(LIBRARIES.read_text("utf-8"))
    for library in known["libraries"].values():
        if library["distribution"] == about.distribution:
            fields = ("releases_in_a_year", "latest", "latest_on")
            found["releases"] = {"as_of": known["as_of"], **{f: library[f] for f in fields}}
    return found


def style_lines(path: Path) -> dict[str, int]:
    """Return how many lines of code the core of an entrant's file has, and each style adds.

    A style adds the top-level definitions that its entry in `STYLES` uses, directly or through
    others, and that the core does not use. Everything else is the core. Lines that two styles share
    count for both.

    Args:
        path: The file, which is read and not run.

    Raises:
        BakeoffError: it has no `STYLES` that can be read without running it.
    """
    tree = ast.parse(path.read_bytes(), str(path))
    if not style_values(tree):
        raise BakeoffError(
            f"the lines of entrant {path.stem!r} cannot be counted by style, for STYLES is not a "
            'dict that is written out; write STYLES = {"pure": pure_style(build), …}'
        )
    code = code_line_numbers(path)
    added = {style: code & line_numbers(found) for style, found in added_by_style(tree).items()}
    sizes = {style: len(lines) for style, lines in added.items()}
    return {CORE: len(code.difference(*added.values())), **sizes}


def added_by_style(tree: ast.Module) -> dict[str, set[ast.stmt]]:
    """Return the top-level definitions that each style adds to the core, as `style_lines` says."""
    styles, definitions = style_values(tree), definitions_of(tree)
    core = used([ast.Name("build", ast.Load()), *styles.pop("pure", [])], definitions)
    return {style: used(values, definitions) - core for style, values in styles.items()}


def definitions_of(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """Return the top-level statements that define each name but `STYLES`; imports are left out."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for name in names_of(statement)[0] - {"STYLES"}:
            found.setdefault(name, []).append(statement)
    return found


def styles_of(entrant: str) -> list[str]:
    """Return the styles that an entrant's file names; it is not imported, which takes seconds."""
    return list(style_values(ast.parse(impls.source(entrant).read_bytes())))


def style_values(tree: ast.Module) -> dict[str, list[ast.AST]]:
    """Return the expressions that `STYLES` has for each style; empty where it is not a literal."""
    styles: dict[str, list[ast.AST]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name("STYLES")], ast.Dict(keys, values)) | ast.AnnAssign(
                ast.Name("STYLES"), _, ast.Dict(keys, values)
            ):
                pairs = list(zip(keys, values, strict=True))
            case ast.Assign([ast.Subscript(ast.Name("STYLES"), key)], value):
                pairs = [(key, value)]
            case _:
                continue
        for style, expression in pairs:
            if isinstance(style, ast.Constant):
                styles.setdefault(str(style.value), []).append(expression)
    return styles


def names_of(code: ast.AST) -> tuple[set[str], set[str]]:
    """Return the global names that some code defines, imports left out, and those that it reads."""
    tables = [symtable.symtable(ast.unparse(code), "", "exec")]
    defined = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_assigned()}
    read = set()
    for table in tables:
        tables += table.get_children()
        found = (s for s in table.get_symbols() if s.is_referenced() and s.is_global())
        read |= {symbol.get_name() for symbol in found}
    return defined, read


def used(roots: Iterable[ast.AST], definitions: Definitions) -> set[ast.stmt]:
    """Return the definitions that some code uses, directly or through other definitions."""
    found: set[ast.stmt] = set()
    remaining = list(roots)
    while remaining:
        for name in names_of(remaining.pop())[1]:
            new = set(definitions.get(name, ())) - found
            found |= new
            remaining += new
    return found


def line_numbers(statements: Iterable[ast.stmt]) -> set[int]:
    """Return the numbers of the lines of statements, with those of their decorators."""
    found: set[int] = set()
    for statement in statements:
        first = [statement, *getattr(statement, "decorator_list", [])]
        found |= set(range(min(n.lineno for n in first), (statement.end_lineno or 0) + 1))
    return found


def site_packages(name: str, builder: Builder) -> Path | None:
    """Return where the packages of an entrant's own environment are; None if it has none.

    Raises:
        BakeoffError: it has not been built.
    """
    if not impls.declared(name).own_environment:
        return None
    path = builder.folder_of(name)
    if path is None:
        raise BakeoffError(
            f"{name} is not built; `bakeoff entrants --build {name}` builds its environment"
        )
    return next(path.glob("[lL]ib/**/site-packages"))


def installation(distribution: str, folder: Path | None = None) -> dict[str, Any]:
    """Return what a library and its requirements take on disk, without `COMMON` and their needs.

    Args:
        distribution: Its name in the package index.
        folder: The `site-packages` that has it; that of the running Python if None.

    Returns:
        `bytes` of all files but bytecode, and `packages`: the bytes of each package, by name, the
        largest first.

    Raises:
        BakeoffError: it is not installed there.
    """
    installed: dict[str, metadata.Distribution] = {}
    for found in metadata.distributions(path=sys.path if folder is None else [str(folder)]):
        installed.setdefault(canonicalize_name(found.name), found)
    if canonicalize_name(distribution) not in installed:
        raise BakeoffError(f"{distribution} is not installed here")
    names = required([distribution], installed) - required(COMMON, installed)
    sizes = {name: file_bytes(installed[name]) for name in names}
    packages = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
    return {"bytes": sum(sizes.values()), "packages": packages}


def required(
    distributions: Iterable[str], installed: Mapping[str, metadata.Distribution]
) -> set[str]:
    """Return the installed packages that distributions need, themselves included.

    Requirements count if their markers hold in the running Python; those of an extra if another
    package asks for that extra.
    """
    remaining = [(str(canonicalize_name(name)), "") for name in distributions]
    seen = set(remaining)
    while remaining:
        name, extra = remaining.pop()
        for text in (installed[name].requires if name in installed else None) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                package = str(canonicalize_name(needed.name))
                new = {(package, each) for each in ("", *needed.extras)} - seen
                seen |= new
                remaining += new
    return {name for name, _ in seen if name in installed}


def file_bytes(distribution: metadata.Distribution) -> int:
    """Return the bytes of a distribution's files, without bytecode, which is made later."""
    files = [f for f in distribution.files or () if "__pycache__" not in f.parts]
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file())
