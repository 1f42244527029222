"""PLAN.toml: which cells are compared with each other, and for how long; see docs/scale.md.

Each `[[compare]]` is expanded to one comparison for each workload, backend and environment. The
defaults of an including file take precedence over those of the file that it includes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

import impls
from bench.compare.gate import BACKENDS
from bench.environments import spec
from bench.library_details import styles_of
from bench.metrics import METRICS
from common.config import WORKLOADS
from common.devices import MOST_DEVICES
from common.errors import BakeoffError, unknown
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

type Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
type DeviceCount = Annotated[int, msgspec.Meta(ge=1, le=MOST_DEVICES)]


class CompareTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[compare]]`, with the defaults filled in."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z_-][A-Za-z0-9_-]*$", max_length=40)]
    """Run files are named after it."""
    entrants: Names = msgspec.field(default_factory=lambda: tuple(impls.usual()))
    styles: Names = ("pure",)
    workloads: Names = ("seed",)
    backends: Names = ("cpu",)
    environments: Names = (spec.CURRENT,)
    metrics: tuple[str, ...] = ()
    """None: all."""
    devices: tuple[DeviceCount, ...] = ()
    """Numbers of devices that share the streams, beside the step that knows of one device only."""
    budget: Annotated[float, msgspec.Meta(gt=0, le=7 * 24 * 3600)] = 300.0
    """Seconds of each comparison."""
    repeat: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1


class PlanFile(msgspec.Struct, forbid_unknown_fields=True):
    """A plan file."""

    include: list[str] = []
    defaults: dict[str, Any] = {}
    compare: list[dict[str, Any]] = []


@dataclass(frozen=True)
class PlannedComparison:
    """Cells that are measured together: one run of `pytest bench`."""

    table: CompareTable
    """Where it is from; its entrants and styles are measured together."""
    workload: str
    backend: str = "cpu"
    environment: str = spec.CURRENT
    number: int = 0
    """Which repetition it is, from 0."""

    @property
    def cells(self) -> int:
        """The number of cells, without those of the baseline."""
        numbers = {1, *self.table.devices} if self.table.devices else ()
        over_devices = sum(1 + (number > 1) for number in numbers)  # strong and weak scaling
        return len(set(self.table.entrants)) * len(set(self.table.styles)) * (1 + over_devices)

    @property
    def key(self) -> str:
        """A short unique name, the same whenever the same comparison is planned."""
        text = json.dumps([*self.arguments, self.number])
        return f"{self.table.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def arguments(self) -> list[str]:
        """The arguments of `pytest bench` that measure it."""
        given = {
            "entrant": self.table.entrants,
            "style": self.table.styles,
            "workload": (self.workload,),
            "backend": (self.backend,),
            "metric": self.table.metrics,
            "devices": tuple(map(str, self.table.devices)),
        }
        named = [f"--{name}={','.join(values)}" for name, values in given.items() if values]
        if self.environment != spec.CURRENT:
            named.append(f"--environment={self.environment}")
        return [*named, f"--budget={self.table.budget:g}"]

    def __str__(self) -> str:
        environment = "" if self.environment == spec.CURRENT else f" in {self.environment}"
        repetition = f" ({self.number + 1})" if self.number else ""
        return f"{self.table.name}: {self.workload} on {self.backend}{environment}{repetition}"


def plan(path: Path) -> list[PlannedComparison]:
    """Return all comparisons of a plan, in its order, each once.

    Raises:
        BakeoffError: The file or an included one cannot be read, or contains a mistake.
    """
    found = {comparison.key: comparison for comparison in comparisons(path, (), {})}
    if not found:
        raise BakeoffError(f"the plan {path} has no cell; write at least one [[compare]]")
    return list(found.values())


def comparisons(
    path: Path, including: tuple[Path, ...], outer: dict[str, Any]
) -> Iterator[PlannedComparison]:
    """Yield the comparisons of a file, those of included files first.

    Args:
        path: The file.
        including: The files that include it, the outermost first.
        outer: Their defaults, which take precedence over the file's own.
    """
    real = path.resolve()
    if real in including:
        chain = " -> ".join(each.name for each in (*including[including.index(real) :], real))
        raise BakeoffError(f"the plan {path} includes itself ({chain}): take one of them out")
    try:
        file = msgspec.toml.decode(read_regular(path, MOST_JSON), type=PlanFile)
    except OSError as error:
        raise BakeoffError(f"cannot read the plan {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BakeoffError(f"the plan {path} is not a plan in TOML: {error}") from error
    defaults = file.defaults | outer
    for name in file.include:
        yield from comparisons(path.parent / name, (*including, real), defaults)
    for index, given in enumerate(file.compare, 1):
        try:
            yield from expanded({"name": f"compare{index}"} | defaults | given)
        except BakeoffError as error:
            raise BakeoffError(f"the plan {path}, compare {index}: {error}") from error
        except msgspec.ValidationError as error:
            known = ", ".join(CompareTable.__struct_fields__)
            raise BakeoffError(
                f"the plan {path}, compare {index}: {error}; known: {known}"
            ) from error


def expanded(given: dict[str, Any]) -> Iterator[PlannedComparison]:
    """Yield the comparisons of one `[[compare]]`, with its defaults.

    Raises:
        msgspec.ValidationError: A field is unknown, or its value has a wrong type or range.
        BakeoffError: A name is unknown.
    """
    table = msgspec.convert(given, CompareTable)
    known_entrants = [name for name in table.entrants if name in impls.names()]
    styles = dict.fromkeys(style for name in known_entrants for style in styles_of(name))
    for kind, names, known in (
        ("entrant", table.entrants, impls.names()),
        ("style", table.styles, styles),
        ("workload", table.workloads, WORKLOADS),
        ("backend", table.backends, BACKENDS),
        ("metric", table.metrics, METRICS),
    ):
        for name in names:
            if name not in known:
                raise unknown(kind, name, known)
    for environment in table.environments:
        if spec.parse(environment, "environment").revision is not None:
            raise BakeoffError(
                f"environment {environment!r} is a git revision; give `current`, a day or "
                "releases: `bakeoff ab` and `bakeoff bisect` compare revisions"
            )
    for environment, backend, workload, number in product(
        table.environments, table.backends, table.workloads, range(table.repeat)
    ):
        yield PlannedComparison(table, workload, backend, environment, number)
