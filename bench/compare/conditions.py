"""Under which conditions runs were made, and what differs: the code alone is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bench.runfile.reader import cpu_of, processor_model
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

    from bench.runfile.reader import Run

FIXED = ("machine", "devices", "python", "flags", "measuring", "workload")
"""Names of what may be allowed to differ, beside the packages."""
ALL = "all"
OWN = "jax-bakeoff"
"""This project's version: it is compared, as its commit is."""
BENEATH = ("jax", "jaxlib", "numpy", "optax", "python", "machine", "devices", "flags", "measuring")
"""What the baseline stands on too: where it differs, the baseline may have moved."""
UNSET, ABSENT = "unset", "not installed"
"""What is said of a variable, and of a package, that one run lacks."""


class ConditionChange(msgspec.Struct, frozen=True):
    """A condition that two runs do not share."""

    name: str
    """By which it can be allowed."""
    what: str
    base: str
    new: str

    def __str__(self) -> str:
        return f"{self.what} {self.base}, then {self.new}"


def moved[K](base: Mapping[K, str], new: Mapping[K, str]) -> dict[K, tuple[str | None, str | None]]:
    """Return what differs between two sides, as releases of packages; None: it is not there."""
    pairs = {name: (base.get(name), new.get(name)) for name in dict.fromkeys([*base, *new])}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def differences(base: Run, new: Run) -> list[ConditionChange]:
    """Return what differs.

    A condition that one of the files does not state is left out, unless it is a variable or a
    package: those that are there are all stated.
    """
    found = []
    for (name, what), values in moved(dict(conditions(base)), dict(conditions(new))).items():
        lacking = UNSET if name == "flags" else None if name in FIXED else ABSENT
        before, after = (value or lacking for value in values)
        if before and after:
            found.append(ConditionChange(name, what, before, after))
    return found


def conditions(run: Run) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield what a run was made under: the name it is allowed by and what it is, and its value."""
    machine, about = run.machine, run.section.environment
    named = versions(run)
    found: list[tuple[str, str, Any]] = [
        ("machine", "processor", processor_model(machine)),
        ("machine", "cores", cpu_of(machine).get("count")),
        ("machine", "affinity", about.affinity or machine.get("affinity")),
        ("machine", "system", " ".join(filter(None, map(machine.get, ("system", "machine"))))),
        ("python", "Python", named.get("python")),
        ("python", "implementation", machine.get("python_implementation")),
        ("python", "compiler", machine.get("python_compiler")),
        ("measuring", "garbage collector", about.garbage_collector),
        ("measuring", "threads", about.threads),
        *(("devices", f"{k} device", kind) for k, kind in about.devices.items()),
    ]
    for backend, details in about.device_details.items():
        found.append(("devices", f"{backend} driver", details["driver"]))
        for what in ("matmul_precision", "preallocation", "autotuning"):
            said = f"{what.replace('_', ' ')} on {backend}"
            found.append(("measuring", said, details.get(what)))
    for cell in run.section.cells:
        if cell.is_baseline:
            text = cell.final_loss.corpus_sha256 if cell.final_loss else None
            donates = cell.proof.donates if cell.proof else None
            parameters = cell.exact.get("parameters")
            count = None if parameters is None else int(parameters)  # 98752.0 is no other model
            found += [
                ("workload", f"parameters at {cell.place}", count),
                ("workload", f"text at {cell.place}", text),
                ("measuring", f"donation of buffers at {cell.place}", donates),
            ]
            for metric, each in cell.metrics.items():
                found.append(("measuring", f"cores of {metric} at {cell.place}", each.cores))
    found += [("flags", what, value) for what, value in (about.environment or {}).items()]
    found += [(package, package, named[package]) for package in packages([run])]
    for name, what, value in found:
        if value is not None and value != "":
            yield (name, what), str(value)


def versions(run: Run) -> dict[str, str]:
    """Return the versions of Python and packages."""
    found = run.section.environment.versions or run.machine.get("versions") or {}
    return {str(name): str(version) for name, version in found.items()}


def packages(runs: Sequence[Run]) -> list[str]:
    """Return the packages whose versions runs say."""
    names = dict.fromkeys(name for run in runs for name in versions(run))
    return [name for name in names if name not in ("python", OWN)]


def check(
    runs: Sequence[Run], names: Sequence[str], allowed: Collection[str]
) -> tuple[ConditionChange, ...]:
    """Return what differs between the last run and the others, if that is allowed.

    `names` are what the runs are called in a message; `all` among `allowed` allows everything.

    Raises:
        BakeoffError: one of the allowed names is unknown; something else differs.
    """
    known = [*FIXED, *packages(runs), ALL]
    for name in allowed:
        if name not in known:
            raise BakeoffError(f"--allow: {unknown('name', name, known)}")
    found: dict[ConditionChange, None] = {}
    for base, name in zip(runs[:-1], names[:-1], strict=True):
        here = differences(base, runs[-1])
        refused = [d for d in here if d.name not in allowed and ALL not in allowed]
        if refused:
            needed = ",".join(dict.fromkeys(d.name for d in refused))
            raise BakeoffError(
                f"{name} and {names[-1]} were made under different conditions: "
                f"{'; '.join(map(str, refused))}; if that is meant, give --allow {needed} (known: "
                f"{', '.join(known)}), else measure again, or measure both sides now with "
                "`bakeoff ab`"
            )
        found |= dict.fromkeys(here)
    return tuple(found)
