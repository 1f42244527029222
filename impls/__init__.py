"""The entrants, one file each; they are found by name and imported only when asked for.

A function of an entrant takes its name, a `str`, or the `Path` of a user's own file that is one.
Names may come from data files, which never name a file to import. Once a user's file has been
loaded, `load` takes its name as well.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import tomllib
from collections.abc import Mapping
from functools import cache, partial
from importlib.machinery import SourceFileLoader
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from common.config import WORKLOADS
from common.declaration import Declaration, parse, read_block, read_constants
from common.errors import BakeoffError, require_utf8, unknown
from common.versions import COMMON
from impls import older_releases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from common.config import ModelConfig
    from common.contract import Model, Style

BASELINE = "pure_jax"
"""The entrant that ratios refer to, and that the others' ten steps are compared with."""

RESERVED = ("control", "all")
"""Names that no entrant may have: that of the baseline's copy, and the word for all entrants."""

MOST_STYLES = 1000
"""Most styles of an entrant: more are a mistake, such as a loop that makes millions."""

FOLDER = Path(__path__[0])
"""Folder of the project's entrants."""

SPARE_COLOURS = ("#DDCC77", "#AA4499", "#661100", "#6699CC")
"""Colours in charts for names without one, after Paul Tol; no entrant here has them."""


class Entrant(NamedTuple):
    """One library's implementation."""

    name: str
    file: Path
    build: Callable[[ModelConfig], Model]
    styles: Mapping[str, Style]
    distribution: str
    """Name of the library's distribution, whose version is measured."""
    missing: Mapping[str, str] = MappingProxyType({})
    """Style that this release of the library cannot have → why."""

    def can_donate(self, name: str) -> bool:
        """Tell whether the style called `name` can be told to donate its state."""
        style: Any = self.styles[name]
        if hasattr(style, "can_donate"):
            return style.can_donate
        try:
            return "donate" in inspect.signature(style).parameters
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
    """Return the names of the project's entrants, the baseline first; none is imported."""
    modules = {module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg}
    return [BASELINE, *sorted(name for name in modules - {BASELINE} if name[0] != "_")]


def locate(name: str, files: Mapping[str, str]) -> str | Path:
    """Return an entrant as these functions take it: its name, or the file if it is a user's own.

    Args:
        name: Its name.
        files: Name → file of the users' own entrants that take part.
    """
    return Path(files[name]) if name in files else name


def source(entrant: str | Path) -> Path:
    """Return the file of an entrant."""
    return entrant if isinstance(entrant, Path) else FOLDER / f"{entrant}.py"


def read_declaration(entrant: str | Path) -> Declaration:
    """Return what the registry declares of an entrant, or the file of a user's own; none is run.

    Raises:
        BakeoffError: there is no such entrant, or its file is wrong.
    """
    if isinstance(entrant, Path):
        return Declaration(**read_constants(entrant))
    file = source(_require_known(entrant))
    if file.stem not in read_registry():
        raise BakeoffError(f"entrant {file.stem!r} has no row in impls/registry.toml; write one")
    row: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in read_registry()[file.stem].items()
    }
    return Declaration(**row, **read_block(file, parse(file)[0]))


@cache
def read_registry() -> dict[str, dict[str, Any]]:
    """Return name → row of the project's entrants: fields of a `Declaration`."""
    return tomllib.loads((FOLDER / "registry.toml").read_text("utf-8"))


def list_styles(entrant: str | Path) -> list[str]:
    """Return the styles that an entrant's file names; it is not imported, which takes seconds.

    Raises:
        BakeoffError: there is no such entrant, or its file is wrong.
    """
    if not isinstance(entrant, Path):
        _require_known(entrant)
    styles: list[ast.expr | None] = []
    for node in ast.walk(parse(source(entrant))[1]):
        match node:
            case ast.Assign([ast.Name("STYLES")], ast.Dict(keys)):
                styles += keys
            case ast.Assign([ast.Subscript(ast.Name("STYLES"), key)]):
                styles.append(key)
    return [str(style.value) for style in styles if isinstance(style, ast.Constant)]


def _require_known(name: str) -> str:
    """Return the name of one of the project's entrants; raise BakeoffError if it is none."""
    if name not in names():
        raise unknown("entrant", name, names())
    return name


def list_shared() -> list[str]:
    """Return the entrants that need no environment of their own, the baseline first."""
    return [name for name in names() if not find_declaration(name).own_environment]


def list_usual() -> list[str]:
    """Return the entrants that take part unless others are named: shared ones that use JAX."""
    return [name for name in list_shared() if find_declaration(name).jax]


def list_shared_libraries() -> list[str]:
    """Return the libraries of the shared environment: each is there for its own entrants alone."""
    distributions = dict.fromkeys(about.distribution for about in _list_declarations())
    return [name for name in distributions if name not in COMMON]


def list_pinnable() -> list[str]:
    """Return the packages that a SPEC may pin: the stack, then what its packages need."""
    needed = [package for about in _list_declarations() for package in about.packages]
    return list(dict.fromkeys([*COMMON[:2], *list_shared_libraries(), *COMMON, *needed]))


def _list_declarations() -> list[Declaration]:
    """Return the declarations of the entrants in the shared environment."""
    return [find_declaration(name) for name in list_shared()]


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return the colour of each of some entrants in charts, as `#RRGGBB`; it is always the same.

    Entrants without one, and names of anything else, get spare ones in their order.
    """
    spare = cycle(SPARE_COLOURS)
    known = {name: find_declaration(name).colour for name in dict.fromkeys(names)}
    return {name: colour or next(spare) for name, colour in known.items()}


def find_declaration(entrant: str | Path) -> Declaration:
    """Return the declaration in an entrant's file; the defaults where it cannot be read."""
    try:
        return read_declaration(entrant)
    except BakeoffError:
        return Declaration()


def require_shared(entrant: str | Path) -> None:
    """Raise BakeoffError unless there is such an entrant, and it runs in the shared environment.

    Only these can be compared between stacks: an isolated environment has a stack of its own.
    """
    if read_declaration(entrant).own_environment:
        raise BakeoffError(
            f"entrant {source(entrant).stem!r} has an environment of its own, whose releases are "
            f"fixed; allowed: {', '.join(list_shared())}; choose one of them"
        )


def read_name(file: str | Path) -> str:
    """Return the name of a user's own file, an entrant or a training step; it is not imported.

    Raises:
        BakeoffError: there is no such Python file, or its name has another meaning.
    """
    path, given = Path(file).resolve(), f"entrant {str(file)!r}"
    if path.suffix != ".py" or not path.is_file():
        raise BakeoffError(f"no such {given}; give a name, or a Python file's path")
    require_utf8(path, given)
    name = path.stem
    problem = ""
    if not name.isidentifier():
        problem = "its name must be a Python identifier"
    elif name in RESERVED:
        problem = f"{name!r} has a meaning of its own"
    elif (name in names() and path != source(name).resolve()) or name in WORKLOADS:
        problem = f"there is another {name!r}"
    if problem:
        raise BakeoffError(f"{given}: {problem}; rename the file")
    return name


def load(entrant: str | Path) -> Entrant:
    """Import one entrant.

    Raises:
        BakeoffError: there is no such entrant, or its library is not installed.
    """
    name = source(entrant).stem
    try:
        module = _import_entrant(entrant)
    except ModuleNotFoundError as error:
        advice = "; install it, or choose another entrant"
        if find_declaration(entrant).own_environment:
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
    missing, file = getattr(module, "MISSING", {}), Path(module.__file__)
    given = getattr(module, "DISTRIBUTION", Declaration.distribution)  # of a user's own
    distribution = read_registry().get(name, {"distribution": given})["distribution"]
    return Entrant(name, file, module.build, module.STYLES, distribution, missing)


def _import_entrant(entrant: str | Path) -> Any:
    """Return the module of an entrant; a user's own has another prefix than those of `impls`."""
    qualified = f"entrant_{source(entrant).stem}"
    if isinstance(entrant, Path):
        return import_file(qualified, entrant)
    if qualified in sys.modules:
        return sys.modules[qualified]
    module = importlib.import_module(f"impls.{_require_known(entrant)}")
    older_releases.adapt(entrant, module)
    return module


class OwnLoader(SourceFileLoader):
    """Loader of a user's own module: it leaves no bytecode in the user's folder."""

    def set_data(self, *_file: object, **_more: object) -> None:
        """Write nothing, where Python would write the bytecode."""


def import_file(qualified: str, path: Path) -> Any:
    """Return a user's own file's module, imported under this name unless it was."""
    if qualified not in sys.modules:
        loader = OwnLoader(qualified, str(path))
        spec = importlib.util.spec_from_file_location(qualified, path, loader=loader)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[qualified] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[qualified]
            raise
    return sys.modules[qualified]
