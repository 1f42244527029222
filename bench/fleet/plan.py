"""PLAN.toml: which cells are compared with each other, and for how long.

    include = ["common.toml"]

    [defaults]
    budget = 600

    [[compare]]
    name = "libraries"
    entrants = ["pure_jax", "equinox", "haiku"]
    workloads = ["seed", "batched"]
    backends = ["cpu"]
    environments = ["current", "@2025-12-01"]

What stands in one `compare` is expanded: its entrants and styles are measured beside each other, in
one run for each workload, backend and environment. Such a run is a comparison, which is never torn
apart. An included file's defaults hold where the including one says nothing.
"""

from __future__ import annotations

import ast
import hashlib
import json
import tomllib
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import msgspec

import impls
from bench.metrics import METRICS
from bench.compare import spec
from bench.compare.gatefile import BACKENDS
from common.config import WORKLOADS, check_rate, check_size
from common.devices import AT, MOST_DEVICES
from common.errors import BakeoffError, unknown
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUDGET = 300.0
MOST_BUDGET = 7 * 24 * 3600.0
MOST_CELLS = 1_000_000
LONGEST_NAME = 40


class Compare(msgspec.Struct, forbid_unknown_fields=True):
    """One `[[compare]]`; what is left out comes from the defaults."""

    name: str | None = None
    entrants: list[str] | None = None
    styles: list[str] | None = None
    workloads: list[str] | None = None
    backends: list[str] | None = None
    environments: list[str] | None = None
    metrics: list[str] | None = None
    devices: list[int] | None = None
    budget: float | None = None
    repeat: int | None = None


class File(msgspec.Struct, forbid_unknown_fields=True):
    """A plan file."""

    include: list[str] = []
    defaults: Compare = msgspec.field(default_factory=Compare)
    compare: list[Compare] = []


@dataclass(frozen=True)
class Comparison:
    """Cells that are measured beside each other, on one machine and in the same blocks."""

    name: str
    entrants: tuple[str, ...]
    styles: tuple[str, ...]
    workload: str
    backend: str
    environment: str
    metrics: tuple[str, ...]
    budget: float
    """Seconds."""
    number: int = 0
    """Of several that are the same, from 0."""
    devices: tuple[int, ...] = ()
    """Numbers of devices that the streams are shared between; none: as ever."""

    @property
    def cells(self) -> int:
        """How many cells it has, the baseline's own ones apart."""
        numbers = {1, *self.devices} if self.devices else ()
        over = sum(1 + (number > 1) for number in numbers)  # strong, and weak
        return len(self.entrants) * len(self.styles) * (1 + over)

    @property
    def key(self) -> str:
        """A short name, the same whenever the same is asked for."""
        said = json.dumps([*self.__dict__.values()][1:], default=list)
        return f"{self.name}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"

    @property
    def arguments(self) -> list[str]:
        """The arguments of `pytest bench` that measure it."""
        given = {
            "entrant": self.entrants,
            "style": self.styles,
            "workload": (self.workload,),
            "backend": (self.backend,),
            "metric": self.metrics,
            "devices": tuple(map(str, self.devices)),
        }
        named = [f"--{name}={','.join(values)}" for name, values in given.items() if values]
        if self.environment != spec.CURRENT:
            named.append(f"--environment={self.environment}")
        return [*named, f"--budget={self.budget:g}"]

    def __str__(self) -> str:
        where = "" if self.environment == spec.CURRENT else f" in {self.environment}"
        again = f" ({self.number + 1})" if self.number else ""
        return f"{self.name}: {self.workload} on {self.backend}{where}{again}"


def plan(path: Path) -> list[Comparison]:
    """Return all comparisons of a plan, in its order.

    Raises:
        BakeoffError: the file, or one that it includes, cannot be read or says what cannot be.
    """
    found = list(dict.fromkeys(comparisons(path, (), Compare())))
    if not found:
        raise BakeoffError(
            f"the plan {path} has no cell; write at least one [[compare]] with entrants and "
            "workloads"
        )
    count = sum(comparison.cells for comparison in found)
    if count > MOST_CELLS:
        raise BakeoffError(f"the plan {path} has {count} cells; at most {MOST_CELLS} are allowed")
    return found


def comparisons(path: Path, above: tuple[Path, ...], outer: Compare) -> Iterator[Comparison]:
    """Yield what a file says, what it includes first.

    Args:
        path: The file.
        above: The files that include it, the outermost first.
        outer: Defaults of those, which hold before the file's own.
    """
    here = path.resolve()
    if here in above:
        chain = " -> ".join(each.name for each in (*above[above.index(here) :], here))
        raise BakeoffError(f"the plan {above[0]} includes itself ({chain}): take one of them out")
    text = read(path)
    defaults = merged(outer, text.defaults)
    for name in text.include:
        yield from comparisons(path.parent / name, (*above, here), defaults)
    for index, given in enumerate(text.compare, 1):
        yield from expanded(merged(given, defaults), path, index)


def read(path: Path) -> File:
    """Return a plan file as it stands."""
    try:
        found: dict[str, Any] = tomllib.loads(read_regular(path, MOST_JSON).decode("utf-8"))
        return msgspec.convert(found, File)
    except OSError as error:
        raise BakeoffError(f"cannot read the plan {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BakeoffError(f"the plan {path} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        known = ", ".join(Compare.__struct_fields__)
        raise BakeoffError(
            f"the plan {path}: {error}; known: include, defaults and compare, and in these {known}"
        ) from error


def merged(first: Compare, then: Compare) -> Compare:
    """Return what the first says, and the second where it says nothing."""
    names = Compare.__struct_fields__
    return Compare(
        **{
            name: getattr(then, name) if getattr(first, name) is None else getattr(first, name)
            for name in names
        }
    )


def expanded(given: Compare, path: Path, index: int) -> Iterator[Comparison]:
    """Yield the comparisons of one `[[compare]]`."""
    where = f"the plan {path}, compare {index}"
    entrants = once(given.entrants, impls.usual())
    styles = once(given.styles, ["pure"])
    workloads = once(given.workloads, ["seed"])
    environments = once(given.environments, [spec.CURRENT])
    backends, metrics = once(given.backends, ["cpu"]), once(given.metrics, [])
    devices, repeat = once(given.devices, []), 1 if given.repeat is None else given.repeat
    budget = BUDGET if given.budget is None else given.budget
    name = given.name if given.name is not None else f"compare{index}"
    try:
        check(entrants, styles, workloads, environments, budget, name)
        for backend in backends:
            if backend not in BACKENDS:  # a comparison owns the whole machine
                raise unknown("backend", backend, BACKENDS)
        for metric in metrics:
            if metric not in METRICS:
                raise unknown("metric", metric, METRICS)
        for devices_ in devices:
            check_size("devices", devices_, most=MOST_DEVICES)
        check_size("repeat", repeat, most=10_000)
    except BakeoffError as error:
        raise BakeoffError(f"{where}: {error}") from error
    if not (entrants and styles):
        return
    for environment, backend, workload, number in product(
        environments, backends, workloads, range(repeat)
    ):
        yield Comparison(
            name,
            tuple(entrants),
            tuple(styles),
            workload,
            backend,
            environment,
            tuple(metrics),
            budget,
            number,
            tuple(devices),
        )


def once[T](given: list[T] | None, otherwise: list[T]) -> list[T]:
    """Return what is given, each once; or something else where nothing is."""
    return otherwise if given is None else list(dict.fromkeys(given))


@cache
def styles_of(entrant: str) -> tuple[str, ...]:
    """Return the styles that an entrant's file names; it is not run, for that takes seconds."""
    found = dict[str, None]()
    for node in ast.walk(ast.parse(impls.source(entrant).read_text("utf-8"))):
        match node:
            case ast.Assign([ast.Name("STYLES")], ast.Dict(keys)) | ast.AnnAssign(
                ast.Name("STYLES"), _, ast.Dict(keys)
            ):
                found |= {str(key.value): None for key in keys if isinstance(key, ast.Constant)}
            case ast.Assign([ast.Subscript(ast.Name("STYLES"), ast.Constant(str(style)))]):
                found[style] = None
    return tuple(found)


def check(
    entrants: list[str],
    styles: list[str],
    workloads: list[str],
    environments: list[str],
    budget: float,
    name: str,
) -> None:
    """Raise BakeoffError where something is unknown or out of range."""
    if not (name.replace("-", "_").isidentifier() and len(name) <= LONGEST_NAME):
        raise BakeoffError(
            f"name is {name!r}; give at most {LONGEST_NAME} letters, digits, - and _, for files "
            "are named by it"
        )
    for entrant in entrants:
        if entrant not in impls.names():
            raise unknown("entrant", entrant, impls.names())
    known = dict.fromkeys(style for entrant in entrants for style in styles_of(entrant))
    for style in styles:
        if AT in style:
            raise BakeoffError(f"style is {style!r}; give {style.split(AT)[0]!r}, and devices")
        if entrants and style not in known:
            raise unknown("style", style, known)
    for workload in workloads:
        if workload not in WORKLOADS:
            raise unknown("workload", workload, WORKLOADS)
    for environment in environments:
        if spec.parse(environment, "environment").revision is not None:
            raise BakeoffError(
                f"environment {environment!r} is a git revision; give `current`, a day or releases:"
                " `bakeoff ab` and `bakeoff bisect` compare revisions"
            )
    check_rate("budget", budget)
    if budget > MOST_BUDGET:
        raise BakeoffError(f"budget is {budget:g}; at most {MOST_BUDGET:g} seconds are allowed")
