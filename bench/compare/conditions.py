"""Under which conditions runs were made, and what differs: the code alone is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bench.cells import Cell
from bench.runfile.reader import cpu_of, processor_model
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
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


def differences(base: Run, new: Run) -> list[ConditionChange]:
    """Return what differs. A condition that one of the files does not state is left out."""
    theirs, ours = dict(conditions(base)), dict(conditions(new))
    flags = [run.section["environment"].get("environment") for run in (base, new)]
    unset = None if None in flags else UNSET
    absent = ABSENT if versions(base) and versions(new) else None
    found = []
    for name, what in dict.fromkeys([*theirs, *ours]):
        lacking = unset if name == "flags" else None if name in FIXED else absent
        before, after = theirs.get((name, what), lacking), ours.get((name, what), lacking)
        if before is not None and after is not None and before != after:
            found.append(ConditionChange(name, what, before, after))
    return found


def conditions(run: Run) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield what a run was made under: the name it is allowed by and what it is, and its value."""
    machine, about = run.machine, run.section["environment"]
    named = versions(run)
    for name, what, value in (
        ("machine", "processor", processor_model(machine)),
        ("machine", "cores", cpu_of(machine).get("count")),
        ("machine", "affinity", about.get("affinity", machine.get("affinity"))),
        ("machine", "system", " ".join(filter(None, map(machine.get, ("system", "machine"))))),
        ("python", "Python", named.get("python")),
        ("python", "implementation", machine.get("python_implementation")),
        ("python", "compiler", machine.get("python_compiler")),
        ("measuring", "garbage collector", about.get("garbage_collector")),
        ("measuring", "threads", about.get("threads")),
        *(("devices", f"{k} device", kind) for k, kind in (about.get("devices") or {}).items()),
        *_devices(about.get("device_details") or {}),
        *_workloads(run),
        *(("flags", what, value) for what, value in (about.get("environment") or {}).items()),
        *((package, package, named[package]) for package in packages([run])),
    ):
        if value is not None and value != "":
            yield (name, what), str(value)


def _devices(details: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield what a run says of its devices; nothing where it is older than that."""
    for backend, found in details.items():
        yield "devices", f"{backend} driver", found["driver"]
        for what in ("matmul_precision", "preallocation", "autotuning"):
            yield "measuring", f"{what.replace('_', ' ')} on {backend}", found.get(what)


def _workloads(run: Run) -> Iterator[tuple[str, str, Any]]:
    """Yield how large each workload's model is, and which text it is trained on."""
    for cell in run.section["cells"]:
        if Cell.of(cell).is_baseline:
            where = f"at {cell['workload']} on {cell['backend']}"
            yield "workload", f"parameters {where}", cell["exact"].get("parameters")
            yield "workload", f"text {where}", (cell["final_loss"] or {}).get("corpus_sha256")
            donates = (cell["proof"] or {}).get("donates")
            yield "measuring", f"donation of buffers {where}", donates
            for metric, found in cell["metrics"].items():
                yield "measuring", f"cores of {metric} {where}", found.get("cores")


def versions(run: Run) -> dict[str, str]:
    """Return the versions of Python and packages."""
    found = run.section["environment"].get("versions") or run.machine.get("versions") or {}
    return {str(name): str(version) for name, version in found.items()}


def packages(runs: Sequence[Run]) -> list[str]:
    """Return the packages whose versions runs say."""
    names = dict.fromkeys(name for run in runs for name in versions(run))
    return [name for name in names if name not in ("python", OWN)]


def check(
    runs: Sequence[Run], names: Sequence[str], allowed: Collection[str]
) -> tuple[ConditionChange, ...]:
    """Return what differs between the last run and the others, if that is allowed.

    Args:
        runs: The new one is the last.
        names: What the runs are called in a message.
        allowed: Names of what may differ; `all` is everything.

    Raises:
        BakeoffError: one of these names is unknown; something else differs.
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


def remarks(base: Run, new: Run) -> Iterator[str]:
    """Yield what differs and is no reason to refuse."""
    kernels = [str(run.machine.get("release") or "") for run in (base, new)]
    if all(kernels) and kernels[0] != kernels[1]:
        yield f"the kernels differ: {kernels[0]}, then {kernels[1]}"
    budgets = [run.section["plan"].get("budget_seconds") for run in (base, new)]
    if None not in budgets and budgets[0] != budgets[1]:
        yield f"the budgets differ: {budgets[0]:g} s, then {budgets[1]:g} s"
