"""What an entrant costs besides time: lines of code, the size of an installation, releases.

Files are read, not run, and no network is used. Releases are read from a dated file, which
`python -m bench.details` brings up to date by asking the package index.
"""

from __future__ import annotations

import ast
import json
import symtable
import sys
import tempfile
import tomllib
from datetime import UTC, date, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import impls
from bench.environments.uv import UnsolvableError, uv
from bench.report.choose import LIBRARIES
from bench.worker.source import code_line_numbers
from common.errors import BakeoffError
from common.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bench.environments.builder import Builder

    type Definitions = Mapping[str, list[ast.stmt]]
    type Distributions = Mapping[str, metadata.Distribution]
    type Release = tuple[str, date]
    """Version, and the day on which it was uploaded (UTC)."""

CORE = "core"
"""What `build` and the style `pure` need."""
COMMON = ("jax", "optax", "numpy")
"""Every worker imports these, so an installation's size leaves them out."""
YEAR = timedelta(days=365)


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
    try:
        found["lines"] = style_lines(impls.source(name))
    except BakeoffError as error:
        found["problems"].append(str(error))
    try:
        packages = site_packages(name, builder) if about.own_environment else None
        found["install"] = installation(about.distribution, packages)
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
    others, and that the core does not use. Everything else is the core, imports included. Lines
    that two styles share count for both.

    Args:
        path: The file, which is read and not run.

    Raises:
        BakeoffError: it has no `STYLES` that can be read without running it.
    """
    tree = ast.parse(path.read_bytes(), str(path))
    definitions: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for symbol in symbols(statement):
            if symbol.is_assigned() and symbol.get_name() != "STYLES":
                definitions.setdefault(symbol.get_name(), []).append(statement)
    styles = style_values(tree)
    if not styles:
        raise BakeoffError(
            f"the lines of entrant {path.stem!r} cannot be counted by style, for STYLES is not a "
            'dict that is written out; write STYLES = {"pure": pure_style(build), …}'
        )
    core = used([ast.Name("build", ast.Load()), *styles.pop("pure", [])], definitions)
    code = code_line_numbers(path)
    added = {
        style: code & line_numbers(used(values, definitions) - core)
        for style, values in styles.items()
    }
    sizes = {style: len(lines) for style, lines in added.items()}
    return {CORE: len(code.difference(*added.values())), **sizes}


def styles_of(entrant: str) -> list[str]:
    """Return the styles that an entrant's file names; it is not imported, which takes seconds."""
    return list(style_values(ast.parse(impls.source(entrant).read_bytes())))


def style_values(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Return the expressions that `STYLES` has for each style; empty where it is not a literal."""
    found: dict[str, list[ast.expr]] = {}
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
            if isinstance(style, ast.Constant) and isinstance(style.value, str):
                found.setdefault(style.value, []).append(expression)
    return found


def used(roots: Iterable[ast.AST], definitions: Definitions) -> set[ast.stmt]:
    """Return the definitions that some code uses, directly or through other definitions."""
    found: set[ast.stmt] = set()
    remaining = list(roots)
    while remaining:
        for symbol in symbols(remaining.pop(), nested=True):
            if symbol.is_global() and symbol.is_referenced():
                new = set(definitions.get(symbol.get_name(), ())) - found
                found |= new
                remaining += new
    return found


def symbols(node: ast.AST, *, nested: bool = False) -> Iterator[symtable.Symbol]:
    """Yield the symbols of a top-level statement or an expression, and of its scopes if nested."""
    tables = [symtable.symtable(ast.unparse(node), "entrant", "exec")]
    while tables:
        table = tables.pop()
        yield from table.get_symbols()
        if nested:
            tables += table.get_children()


def line_numbers(statements: Iterable[ast.stmt]) -> set[int]:
    """Return the numbers of the lines of statements, with those of their decorators."""
    found: set[int] = set()
    for statement in statements:
        first = [statement, *getattr(statement, "decorator_list", [])]
        found |= set(range(min(n.lineno for n in first), (statement.end_lineno or 0) + 1))
    return found


def site_packages(name: str, builder: Builder) -> Path:
    """Return the folder of the packages of an entrant that has an environment of its own.

    Raises:
        BakeoffError: it has not been built.
    """
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
    names = required(distribution, installed)
    for name in COMMON:
        names -= required(name, installed)
    sizes = {name: file_bytes(installed[name]) for name in names}
    packages = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
    return {"bytes": sum(sizes.values()), "packages": packages}


def required(distribution: str, installed: Distributions) -> set[str]:
    """Return the installed packages that a distribution needs, itself included.

    Requirements count if their markers hold in the running Python; those of an extra if another
    package asks for that extra.
    """
    remaining = [(str(canonicalize_name(distribution)), "")]
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


def cadence(releases: Iterable[Release], today: date) -> dict[str, Any]:
    """Return how often a library is released.

    Args:
        releases: The newest first; read until one is older than a year, and at least one.
        today: The day that ends the year.
    """
    recent = 0
    latest: Release | None = None
    for version, day in releases:
        latest = latest or (version, day)
        if day <= today - YEAR:
            break
        recent += 1
    assert latest is not None
    return {
        "releases_in_a_year": recent,
        "latest": latest[0],
        "latest_on": latest[1].isoformat(),
    }


def newest_release(requirement: str) -> Release:
    """Return the newest release that fits a requirement, and the day of its first upload (UTC).

    uv writes the times of uploads into a `pylock.toml` (PEP 751).

    Raises:
        UnsolvableError: no release fits.
        NetworkError: the index cannot be reached.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "pylock.toml"
        uv(
            *("pip", "compile", "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--python", sys.executable, "-o", str(out), "-"),
            input_=requirement,
        )
        [package] = tomllib.loads(out.read_text("utf-8"))["packages"]
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    first = min(file["upload-time"] for file in files)
    return package["version"], first.astimezone(UTC).date()


def releases_of(
    distribution: str, newest: Callable[[str], Release] = newest_release
) -> Iterator[Release]:
    """Yield the final releases of a library that have a wheel for this Python, the newest first.

    Args:
        distribution: Its name in the package index.
        newest: Returns the newest release that fits a requirement.

    Raises:
        NetworkError: the index cannot be reached.
    """
    version, day = newest(distribution)
    while True:
        yield version, day
        try:
            version, day = newest(f"{distribution}<{version}")
        except UnsolvableError:
            return


def main() -> None:
    """Bring the releases in `LIBRARIES` up to date; the rest of that file is written by hand."""
    known = json.loads(LIBRARIES.read_text("utf-8"))
    today = datetime.now(UTC).date()
    libraries = known["libraries"].values()
    for distribution in sorted({library["distribution"] for library in libraries}):
        found = cadence(releases_of(distribution), today)
        print(distribution, found["releases_in_a_year"], found["latest"])
        for library in libraries:
            if library["distribution"] == distribution:
                library.update(found)
    known["as_of"] = today.isoformat()
    atomic_write(LIBRARIES, json.dumps(known, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
