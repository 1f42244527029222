"""Plans of many runs: PLAN.toml says what is measured together, and for how long (docs/scale.md).

Each `[[compare]]` is expanded to a run for each workload, backend, environment and repetition.
"""

from __future__ import annotations

import hashlib
import json
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

import impls
from bench.cells import Selection, require_known
from bench.environments import spec
from bench.files import read_regular
from bench.streams import shorten_message
from bench.wording import name_workload
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BACKENDS = ("cpu", "gpu", "tpu")
MOST_BYTES = 1 << 20
"""Largest plan that is read: thousands of tables."""
MOST_RUNS = 10_000
"""Most runs of a table: a month of one machine, at five minutes each."""
type Name = Annotated[str, msgspec.Meta(max_length=1_000)]
type Names = Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=1_000)]


class CompareTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[compare]]`, with the defaults filled in."""

    name: Annotated[str, msgspec.Meta(pattern="^[A-Za-z_-][A-Za-z0-9_-]*$", max_length=40)]
    """Prefix of the names of its run files."""
    entrants: Names = msgspec.field(default_factory=lambda: tuple(impls.list_usual()))
    styles: Names = ("pure",)
    workloads: Names = ("seed",)
    backends: Names = ("cpu",)
    environments: Names = (spec.CURRENT,)
    metrics: tuple[Name, ...] = ()
    """Metrics; empty for the defaults of a run."""
    budget: Annotated[float, msgspec.Meta(gt=0, le=7 * 24 * 3600)] = 300.0
    """Budget of each run in seconds."""
    repeat: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1

    def list_runs(self) -> Iterator[PlannedRun]:
        """Yield its runs; raise BakeoffError if a name in it is unknown."""
        chosen = Selection(self.entrants, self.styles, self.workloads, metrics=self.metrics)
        chosen.check_names()
        chosen.check_styles()
        require_known("backend", self.backends, BACKENDS)
        for environment in self.environments:
            spec.parse(environment, "environment", revisions=False)
        cells = len(set(self.entrants)) * len(set(self.styles))
        count = self.repeat * prod(map(len, (self.environments, self.backends, self.workloads)))
        if count > MOST_RUNS:
            raise BakeoffError(f"it has {count:,} runs, of {MOST_RUNS:,} allowed; split the table")
        for environment, backend, workload, number in product(
            self.environments, self.backends, self.workloads, range(self.repeat)
        ):
            other = "" if environment == spec.CURRENT else environment
            given = {
                "entrant": self.entrants,
                "style": self.styles,
                "workload": (workload,),
                "backend": (backend,),
                "metric": self.metrics,
                "environment": (other,) if other else (),
            }
            arguments = [f"--{name}={','.join(values)}" for name, values in given.items() if values]
            arguments.append(f"--budget={self.budget:g}")
            digest = hashlib.sha256(json.dumps([*arguments, number]).encode()).hexdigest()
            title = f"{self.name}: {name_workload(workload)} on {backend}"
            title += f" in {other}" * bool(other) + f" ({number + 1})" * bool(number)
            key = f"{self.name}-{digest[:12]}"
            yield PlannedRun(title, key, arguments, backend, cells, self.budget)


class PlanFile(msgspec.Struct, forbid_unknown_fields=True):
    """A plan file."""

    defaults: dict[str, Any] = {}
    """Field → value in each `[[compare]]` that omits it."""
    compare: list[dict[str, Any]] = []


class PlannedRun(NamedTuple):
    """One run of `pytest bench`; the entrants and styles of its table are measured together."""

    title: str
    """Description for people."""
    key: str
    """A short unique name, the same whenever the same run is planned."""
    arguments: list[str]
    """The arguments of `pytest bench` that measure it."""
    backend: str
    cells: int
    """Number of cells, without the baseline's."""
    budget: float
    """Budget in seconds."""


def read_plan(path: Path) -> list[PlannedRun]:
    """Return all runs of a plan file, in its order, each once.

    Raises:
        BakeoffError: the file cannot be read, or contains a mistake.
    """
    try:
        file = msgspec.toml.decode(read_regular(path, MOST_BYTES), type=PlanFile)
    except OSError as error:
        raise BakeoffError(f"cannot read the plan {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = shorten_message(error)
        raise BakeoffError(f"the plan {path} is not a plan in TOML: {why}") from error
    runs: dict[str, PlannedRun] = {}
    for index, given in enumerate(file.compare, 1):
        values = {"name": f"compare{index}"} | file.defaults | given
        try:
            runs |= {run.key: run for run in msgspec.convert(values, CompareTable).list_runs()}
        except (BakeoffError, msgspec.ValidationError) as error:
            known = f"; known: {', '.join(CompareTable.__struct_fields__)}"
            message = (
                f"{shorten_message(error)}{known * isinstance(error, msgspec.ValidationError)}"
            )
            raise BakeoffError(f"the plan {path}, compare {index}: {message}") from error
    if not runs:
        raise BakeoffError(f"the plan {path} has no cell; write at least one [[compare]]")
    return list(runs.values())
