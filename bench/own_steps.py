"""Users' own training steps: Python files with a model of a library, or with a whole step."""

from __future__ import annotations

import ast
import os
import sys
import sysconfig
from contextlib import suppress
from functools import cache, partial
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourcelessFileLoader,
)
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.workloads import SKELETON
from common.errors import BakeoffError
from impls import OwnLoader, import_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAKERS = frozenset({"make_model", "make_step"})
"""Functions that make a file a user's own training step; an entrant's has none of them."""
ROOT, PACKAGES = Path(__file__).parents[1], ("bench", "common", "impls")
"""This project's folder, and its packages."""
SITES = {"site-packages", "dist-packages"}
"""Folders that libraries are installed in; the second is that of Debian's Python."""


def find_step(files: Mapping[str, str]) -> str:
    """Return the name of the training step among users' own files; empty without one."""
    return next((name for name, file in files.items() if is_step(Path(file))), "")


def find_file(files: Mapping[str, str], workload: str) -> str | None:
    """Return the file of a user's own step or its skeleton; None at the project's workloads."""
    return files.get(workload.removesuffix(SKELETON))


def is_step(file: Path) -> bool:
    """Tell whether a file is a training step of a user's own; it is not run."""
    return bool(MAKERS & list_bindings(file))


def has_model(file: Path) -> bool:
    """Tell whether a user's own training step has a model; it is not run."""
    return "make_model" in list_bindings(file)


def list_bindings(file: Path) -> set[str]:
    """Return the names that a file defines, assigns or imports; none if it cannot be parsed."""
    names: set[str] = set()
    for node in parse(file).body:
        match node:
            case ast.FunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
    return names


def parse(file: Path) -> ast.Module:
    """Return the tree of a file; an empty one if it cannot be parsed."""
    try:
        return ast.parse(file.read_bytes(), str(file))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])  # loading it reports the problem


def list_imports(file: Path, folder: Path) -> Iterator[str]:
    """Yield the dotted names that a file below a folder imports, as seen from that folder."""
    package = ".".join(file.parent.relative_to(folder).parts)
    for node in ast.walk(parse(file)):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases, level=level):
                with suppress(ImportError):  # from above the folder
                    base = resolve_name("." * level + (module or ""), package)
                    yield from (f"{base}.{alias.name}" for alias in aliases)


def require_no_clash(file: Path) -> None:
    """Raise BakeoffError if a step, or what it imports beside it, imports a name of ours beside it.

    It would get this project's package. Nothing is run.
    """
    file = file.resolve()
    folder, sources = file.parent, [file]
    modules = (folder / f"{name}{suffix}" for name in PACKAGES for suffix in ("", ".py"))
    beside = {path.stem: path for path in modules if path.exists()}
    if folder == ROOT or not beside:
        return
    for source in sources:  # it grows
        for name in list_imports(source, folder):
            parts = name.split(".")
            if parts[0] in beside:
                raise BakeoffError(
                    f"{source.name} imports `{parts[0]}`, which is a package of jax-bakeoff here: "
                    f"rename {beside[parts[0]].name} beside {file.name}"
                )
            paths = [folder.joinpath(*parts[:number]) for number in range(1, len(parts) + 1)]
            files = [path for p in paths for path in (p.with_suffix(".py"), p / "__init__.py")]
            sources += [path for path in files if path.is_file() and path not in sources]


def import_step(file: Path) -> Any:
    """Return the module of a user's own step; it can import files beside its own."""
    if (folder := str(file.parent)) not in sys.path:
        sys.path.append(folder)  # last: it shadows no module of ours
    write_no_bytecode(file.parent)
    os.chdir(folder)  # it may read files beside its own
    return import_file(f"step_{file.stem}", file)


@cache
def write_no_bytecode(folder: Path) -> None:
    """Have modules in a user's folder, and in packages there, imported without leaving bytecode."""
    sys.path_hooks.insert(0, partial(find_beside, folder))
    sys.path_importer_cache.pop(str(folder), None)


def find_beside(folder: Path, path: str) -> FileFinder:
    """Return the finder of modules in a user's folder, or in a package there, for `OwnLoader`.

    As one of `sys.path_hooks`, it raises ImportError for other paths. Those of an environment in
    the folder (`.venv/lib/python3.13/site-packages`) have parts that no package's name can be.
    """
    inner = Path(path)
    if inner.is_relative_to(folder) and all(
        map(str.isidentifier, inner.parts[len(folder.parts) :])
    ):
        extensions = ExtensionFileLoader, EXTENSION_SUFFIXES
        bytecode = SourcelessFileLoader, BYTECODE_SUFFIXES
        return FileFinder(path, extensions, (OwnLoader, SOURCE_SUFFIXES), bytecode)
    raise ImportError(f"{path} is no package in {folder}", path=path)


def list_own_modules() -> dict[str, Path]:
    """Return name → file of the imported modules that are no library's, Python's or project's."""
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    paths = {name: Path(file) for name, file in files.items() if file and Path(file).is_file()}
    return {name: path for name, path in paths.items() if is_own(path)}


def is_own(path: Path) -> bool:
    """Tell whether a module's file is no library's, Python's or project's."""
    given = [Path(sysconfig.get_path("stdlib")), *(ROOT / name for name in PACKAGES)]
    return not SITES & {*path.parts} and not any(map(path.is_relative_to, given))


def find_late_imports(files: Iterable[Path]) -> dict[str, Path]:
    """Return name → file of own modules that functions of some files import when they are called.

    None is run: of a package, this is its first file.
    """
    late, left = dict[str, Path](), [*files]
    while left:
        for node in ast.walk(ast.parse(left.pop().read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - {*sys.modules, *late}:
                spec = find_spec(name)
                path = Path(spec.origin) if spec and spec.origin else Path()
                if path.is_file() and is_own(path):
                    late[name] = path
                    left += [path] * (path.suffix == ".py")
    return late


def list_modules_beside(file: Path) -> set[str]:
    """Return the names of imported modules that are beside a file, and not this project's."""
    folder = file.parent

    def is_beside(name: str, path: Path) -> bool:
        """Tell whether a module is one that the file can import: an environment's are deeper."""
        top = folder / name.partition(".")[0]
        own = top.with_suffix(".py").exists() or (top / "__init__.py").exists()
        return own and path.is_relative_to(folder)

    return {name for name, path in list_own_modules().items() if is_beside(name, path)}
