"""Under which conditions runs were made, and what differs: what is compared is the code alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench.cells import BASELINE
from bench.report.runs import cpu_of, processor_model
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from bench.report.runs import Run
    from bench.report.wording import Facts

FIXED = {
    "machine": "processor, cores, affinity, system",
    "devices": "what the backends are",
    "python": "version, implementation, compiler",
    "flags": "environment variables of JAX, XLA, Python and the allocator",
    "measuring": "how workers measure: cores, garbage collector, threads",
    "workload": "sizes of a workload, and its text",
}
"""What may be allowed to differ beside the packages, and what it is."""
ALL = "all"
OWN = "jax-bakeoff"
"""This project's version: it is what is compared, as its commit is."""
BENEATH = ("jax", "jaxlib", "numpy", "optax", "python", "machine", "devices", "flags", "measuring")
"""What the baseline stands on too: where it differs, the baseline may have moved."""
UNSET = "unset"
ABSENT = "not installed"


class Difference(NamedTuple):
    """A condition that two runs do not share."""

    name: str
    """By which it can be allowed."""
    what: str
    base: str
    new: str

    def __str__(self) -> str:
        return f"{self.what} {self.base}, then {self.new}"


def differences(base: Run, new: Run) -> list[Difference]:
    """Return what differs. What one of the two files does not say at all is not known to differ."""
    theirs, ours = dict(conditions(base)), dict(conditions(new))
    return [
        Difference(*key, theirs[key], ours[key])
        for key in theirs
        if key in ours and theirs[key] != ours[key]
    ] + [*_by_name("flags", base, new), *_packages(base, new)]


def conditions(run: Run) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield what a run was made under: the name it is allowed by and what it is, and its value."""
    machine, about = run.machine, run.section["environment"]
    for name, what, value in (
        ("machine", "processor", processor_model(machine)),
        ("machine", "cores", cpu_of(machine).get("count")),
        ("machine", "affinity", about.get("affinity", machine.get("affinity"))),
        ("machine", "system", _joined(machine.get("system"), machine.get("machine"))),
        ("python", "Python", versions(run).get("python")),
        ("python", "implementation", machine.get("python_implementation")),
        ("python", "compiler", machine.get("python_compiler")),
        *(("measuring", what, about.get(key)) for key, what in MEASURING.items()),
        *(("devices", f"{k} device", kind) for k, kind in (about.get("devices") or {}).items()),
        *(("devices", f"{k} driver", d["driver"]) for k, d in details(about).items()),
        *(
            ("measuring", f"{what.replace('_', ' ')} on {k}", d.get(what))
            for k, d in details(about).items()
            for what in ("matmul_precision", "preallocation", "autotuning")
        ),
        *_workloads(run),
    ):
        if value is not None and value != "":
            yield (name, what), str(value)


def details(about: Facts) -> Facts:
    """Return what a run says of its devices; nothing where it is older than that."""
    return about.get("device_details") or {}


MEASURING = {
    "garbage_collector": "garbage collector",
    "threads": "threads",
}


def _joined(*parts: Any) -> str:
    return " ".join(str(part) for part in parts if part)


def _workloads(run: Run) -> Iterator[tuple[str, str, Any]]:
    """Yield how large each workload's model is, and which text it is trained on."""
    for cell in run.section["cells"]:
        if (cell["entrant"], cell["style"]) == BASELINE:
            where = f"at {cell['workload']} on {cell['backend']}"
            yield "workload", f"parameters {where}", cell["exact"].get("parameters")
            final = cell["final_loss"] or {}
            yield "workload", f"text {where}", final.get("corpus_sha256")
            donates = (cell["proof"] or {}).get("donates")
            yield "measuring", f"donation of buffers {where}", donates
            for metric, found in cell["metrics"].items():
                yield "measuring", f"cores of {metric} {where}", found.get("cores")


def versions(run: Run) -> dict[str, str]:
    """Return the versions of Python and packages."""
    found = run.section["environment"].get("versions") or run.machine.get("versions") or {}
    return {str(name): str(version) for name, version in found.items()}


def _by_name(name: str, base: Run, new: Run) -> Iterator[Difference]:
    """Yield variables of the environment that differ."""
    said = [run.section["environment"].get("environment") for run in (base, new)]
    if None in said:
        return
    theirs, ours = said
    for variable in dict.fromkeys([*theirs, *ours]):
        values = [str(of.get(variable, UNSET)) for of in (theirs, ours)]
        if values[0] != values[1]:
            yield Difference(name, variable, *values)


def _packages(base: Run, new: Run) -> Iterator[Difference]:
    theirs, ours = versions(base), versions(new)
    if not theirs or not ours:
        return
    for package in packages([base, new]):
        values = [of.get(package, ABSENT) for of in (theirs, ours)]
        if values[0] != values[1]:
            yield Difference(package, package, *values)


def packages(runs: Sequence[Run]) -> list[str]:
    """Return the packages whose versions runs say."""
    names = dict.fromkeys(name for run in runs for name in versions(run))
    return [name for name in names if name not in ("python", OWN)]


def check(
    runs: Sequence[Run], names: Sequence[str], allowed: Collection[str]
) -> tuple[Difference, ...]:
    """Return what differs between the last run and the others, if that is allowed.

    Args:
        runs: The new one is the last.
        names: What the runs are called in a message.
        allowed: Names of what may differ; `all` is everything.

    Raises:
        BakeoffError: a name that is none; something else differs.
    """
    known = [*FIXED, *packages(runs), ALL]
    for name in allowed:
        if name not in known:
            raise BakeoffError(f"--allow: {unknown('name', name, known)}")
    *bases, new = runs
    found: dict[Difference, None] = {}
    for base, name in zip(bases, names[:-1], strict=True):
        here = differences(base, new)
        refused = [d for d in here if d.name not in allowed and ALL not in allowed]
        if refused:
            needed = ",".join(dict.fromkeys(d.name for d in refused))
            said = "; ".join(map(str, refused))
            raise BakeoffError(
                f"{name} and {names[-1]} were made under different conditions: {said}; if that is "
                f"meant, give --allow {needed} (known: {', '.join(known)}), else measure again, or "
                "measure both sides now with `bakeoff ab`"
            )
        found |= dict.fromkeys(here)
    return tuple(found)


def remarks(base: Run, new: Run) -> Iterator[str]:
    """Yield what differs and is no reason to refuse."""
    kernels = [str(run.machine.get("release") or "") for run in (base, new)]
    if all(kernels) and kernels[0] != kernels[1]:
        yield f"the kernel is another one: {kernels[0]}, then {kernels[1]}"
    budgets = [run.section["plan"].get("budget_seconds") for run in (base, new)]
    if None not in budgets and budgets[0] != budgets[1]:
        yield f"the budget is another one: {budgets[0]:g} s, then {budgets[1]:g} s"
