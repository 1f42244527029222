"""The entrants, one file each; they are found by name and imported only when asked for."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Mapping
from functools import partial
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from common.config import WORKLOADS, Workload, is_own
from common.declaration import Declaration, declaration
from common.errors import BakeoffError, unknown
from common.versions import COMMON
from impls import older

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from common.config import ModelConfig
    from common.contract import Library, Model, Style

BASELINE = "pure_jax"
"""The entrant that ratios refer to, and that the others' ten steps are compared with."""

RESERVED = ("control", "all")
"""Names that no entrant may have: that of the baseline's copy, and the word for all entrants."""

MOST_STYLES = 1000
"""Most styles of an entrant: more are a mistake, such as a loop that makes millions."""

OUTSIDE: dict[str, Path] = {}
"""Entrant → its file, where that lies elsewhere."""

STEP_MAKERS = frozenset({"make_model", "make_step"})
"""Functions that make a file a user's own training step; an entrant's has none of them."""

SPARE_COLOURS = ("#DDCC77", "#AA4499", "#661100", "#6699CC")
"""Colours in charts for names without one, after Paul Tol; no entrant here has them."""


class Entrant(NamedTuple):
    """One library's implementation."""

    name: str
    build: Callable[[ModelConfig], Model]
    styles: Mapping[str, Style]
    distribution: str
    """Name of the library's distribution, whose version is measured."""
    missing: Mapping[str, str] = MappingProxyType({})
    """Style that this release of the library cannot have → why."""
    library: Library | None = None
    """Functions and styles for users' own models; None if the file has none."""

    def can_donate(self, name: str) -> bool:
        """Tell whether the style called `name` can be told to donate its state."""
        try:
            return "donate" in inspect.signature(self.styles[name]).parameters
        except (TypeError, ValueError):  # it is no function of Python's
            return False

    def style(self, name: str, *, donate: bool = False) -> Style:
        """Return the style called `name`.

        Args:
            name: A key of `STYLES`.
            donate: Whether it is to donate its state, if it can be told to; see `can_donate`.

        Raises:
            BakeoffError: there is no such style.
        """
        if name not in self.styles:
            raise unknown(f"style of {self.name}", name, self.styles)
        style: Any = self.styles[name]
        return partial(style, donate=True) if donate and self.can_donate(name) else style


def names() -> list[str]:
    """Return the ids of all entrants, the baseline first; none is imported."""
    modules = {module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg}
    return [BASELINE, *sorted(modules - {BASELINE}), *OUTSIDE]


def read_declaration(name: str) -> Declaration:
    """Return the declaration in an entrant's file, which is not run.

    Raises:
        BakeoffError: there is no such entrant, or its file is wrong.
    """
    if name not in names():
        raise unknown("entrant", name, names())
    return declaration(source(name))


def styles_of(name: str) -> list[str]:
    """Return the styles that an entrant's file names; it is not imported, which takes seconds.

    Raises:
        BakeoffError: there is no such entrant, or its file is wrong.
    """
    read_declaration(name)
    styles: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source(name).read_bytes())):
        match node:
            case ast.Assign([ast.Name("STYLES")], ast.Dict(keys)):
                styles += keys
            case ast.Assign([ast.Subscript(ast.Name("STYLES"), key)]):
                styles.append(key)
    return [str(style.value) for style in styles if isinstance(style, ast.Constant)]


def list_shared() -> list[str]:
    """Return the entrants that need no environment of their own, the baseline first.

    One whose file cannot be read is among them: loading it says what is wrong.
    """
    return [name for name in names() if not find_declaration(name).own_environment]


def list_usual() -> list[str]:
    """Return the entrants that take part unless others are named: shared ones that use JAX."""
    return [name for name in list_shared() if find_declaration(name).jax]


def libraries() -> list[str]:
    """Return the libraries of the shared environment: each is there for its own entrants alone."""
    distributions = dict.fromkeys(about.distribution for about in _list_declarations())
    return [name for name in distributions if name not in COMMON]


def list_pinnable() -> list[str]:
    """Return the packages that a SPEC may pin: the stack, then what its packages need."""
    needed = [package for about in _list_declarations() for package in about.packages]
    return list(dict.fromkeys([*COMMON[:2], *libraries(), *COMMON, *needed]))


def _list_declarations() -> list[Declaration]:
    """Return the declarations of the project's own entrants in the shared environment."""
    return [find_declaration(name) for name in list_shared() if name not in OUTSIDE]


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return the colour of each of some entrants in charts, as `#RRGGBB`; it is always the same.

    Entrants without one, and names of anything else, get spare ones in their order.
    """
    spare = cycle(SPARE_COLOURS)
    known = {name: find_declaration(name).colour for name in dict.fromkeys(names)}
    return {name: colour or next(spare) for name, colour in known.items()}


def caveat(name: str, before: str, after: str) -> str:
    """Return the caveat of replacing an entrant's style `before` by `after`; often empty."""
    about = find_declaration(name)
    parts = []
    if after in about.limits and about.limits.get(before) != about.limits[after]:
        parts.append(about.limits[after])
    if before in about.waits and after not in about.waits:
        parts.append(f"`{before}` waits for the device in each call, `{after}` does not")
    return "; ".join(parts)


def find_declaration(name: str) -> Declaration:
    """Return the declaration in an entrant's file; the defaults where it cannot be read."""
    try:
        return read_declaration(name)
    except BakeoffError:
        return Declaration()


def require_shared(name: str) -> None:
    """Raise BakeoffError unless there is such an entrant, and it runs in the shared environment.

    Only these can be compared between stacks: an environment of one's own is of neither stack.
    """
    if read_declaration(name).own_environment:
        raise BakeoffError(
            f"entrant {name!r} has an environment of its own, which is of no other day or release; "
            f"allowed: {', '.join(list_shared())}; choose one of them"
        )


def add(file: str | Path) -> str:
    """Let a file of a user's own take part; return its name. It is not imported yet.

    It is an entrant, or a training step, which is a workload of that name.

    Raises:
        BakeoffError: there is no such Python file, or its name is another entrant's.
    """
    path, given = Path(file).resolve(), f"entrant {str(file)!r}"
    if path.suffix != ".py" or not path.is_file():
        raise BakeoffError(f"no such {given}; give a name, or a Python file's path")
    name = path.stem
    if name in names() and path == source(name).resolve():
        return name
    if is_own(name) and WORKLOADS[name].file == str(path):
        return name
    problem = ""
    if not name.isidentifier():
        problem = "its name must be a Python identifier"
    elif name in RESERVED:
        problem = f"{name!r} has a meaning of its own"
    elif name in names() or name in WORKLOADS:
        problem = f"there is another {name!r}"
    if problem:
        raise BakeoffError(f"{given}: {problem}; rename the file")
    if is_step(path):
        WORKLOADS[name] = Workload(name, corpus="", width=128, chunk=256, file=str(path))
    else:
        OUTSIDE[name] = path
    return name


def is_step(path: Path) -> bool:
    """Tell whether a file is a training step of a user's own; it is not run."""
    return bool(STEP_MAKERS & list_bindings(path))


def list_bindings(path: Path) -> set[str]:
    """Return the names that a file defines, assigns or imports; none if it is no Python."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return set()  # loading it says what is wrong
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
    return names


def source(name: str) -> Path:
    """Return the file of an entrant."""
    return OUTSIDE.get(name, Path(__path__[0]) / f"{name}.py")


def load(name: str) -> Entrant:
    """Import one entrant.

    Raises:
        BakeoffError: there is no such entrant, or its library is not installed.
    """
    if name not in names():
        raise unknown("entrant", name, names())
    try:
        module = _import_entrant(name)
    except ModuleNotFoundError as error:
        advice = "; install it, or choose another entrant"
        if find_declaration(name).own_environment:
            advice = (
                " here, for it has an environment of its own: "
                f"`pytest bench --entrant {name}` builds that and measures in it; choose another "
                "entrant for anything else"
            )
        raise BakeoffError(
            f"entrant {name!r} needs the package {error.name!r}, which is not installed{advice}"
        ) from error
    if not isinstance(module.STYLES, Mapping) or len(module.STYLES) > MOST_STYLES:
        raise BakeoffError(
            f"entrant {name!r}: STYLES is not a mapping of at most {MOST_STYLES} names to styles"
        )
    for style in module.STYLES:
        if not isinstance(style, str) or not style.isidentifier():
            raise BakeoffError(
                f"entrant {name!r}: the style {style!r} is not a Python identifier; rename it"
            )
    missing = getattr(module, "MISSING", {})
    library = getattr(module, "LIBRARY", None)
    return Entrant(name, module.build, module.STYLES, module.DISTRIBUTION, missing, library)


def _import_entrant(name: str) -> Any:
    """Return an entrant's module; a file of its own is imported under the same kind of name."""
    qualified = f"impls.{name}"
    if name not in OUTSIDE:
        module = importlib.import_module(qualified)
        older.adapt(name, module)
        return module
    return _import_file(qualified, OUTSIDE[name])


def step_module(workload: str) -> Any:
    """Return the module of a user's own step, which can import what lies beside its file."""
    path = Path(WORKLOADS[workload].file)
    if (folder := str(path.parent)) not in sys.path:
        sys.path.append(folder)  # last: it hides nothing of ours
    os.chdir(folder)  # what it reads may lie beside it
    return _import_file(f"yours_{workload}", path)


def _import_file(qualified: str, path: Path) -> Any:
    """Return a file's module, imported under this name unless it was."""
    if qualified not in sys.modules:
        spec = importlib.util.spec_from_file_location(qualified, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[qualified] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[qualified]
            raise
    return sys.modules[qualified]
