"""Under which conditions runs were made: where these differ, runs are not compared unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.runfile.reader import processor_model
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from bench.runfile.reader import Run

GROUPS = ("machine", "devices", "python", "flags", "measuring", "workload")
"""Names of what may be allowed to differ, beside the packages."""
ALL = "all"
PROJECT = "jax-bakeoff"
"""This project's version: it is compared, as its commit is."""
BENEATH = ("jax", "jaxlib", "numpy", "optax", "python", "machine", "devices", "flags", "measuring")
"""Conditions that the baseline stands on too: where they differ, the baseline may have changed."""
PRECISION = ("matmul_precision", "preallocation", "autotuning")
"""Details of a device that change what is measured."""


def releases(run: Run) -> dict[str, str]:
    """Return the versions of Python and of all packages of a run."""
    environments = reversed(run.results.environments.values())
    return {name: release for info in environments for name, release in info.versions.items()}


def moved(
    base: Mapping[str, str], new: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    """Return the releases that differ; None where a side has none. jaxlib goes with jax."""
    names = dict.fromkeys([*base, *new])
    pairs = {name: (base.get(name), new.get(name)) for name in names if name != PROJECT}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if differing.get("jaxlib") == differing.get("jax"):
        differing.pop("jaxlib", None)
    return differing


def conditions(run: Run) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield what a run was made under: the name it is allowed by, what it is, and its value."""
    machine, results = run.machine, run.results
    about, named = results.conditions, releases(run)
    yield ("machine", "processor"), processor_model(machine)
    yield ("machine", "cores"), ", ".join(map(str, about.affinity or ()))
    yield ("machine", "system"), " ".join(filter(None, map(machine.get, ("system", "machine"))))
    yield ("python", "Python"), named.get("python")
    yield ("python", "implementation"), machine.get("python_implementation")
    yield ("python", "compiler"), machine.get("python_compiler")
    yield ("measuring", "garbage collector"), about.garbage_collector
    yield ("measuring", "threads"), about.threads
    yield ("measuring", "cores of workers"), results.options.cores
    yield ("measuring", "donation of buffers"), results.options.donate
    for backend, kind in about.devices.items():
        yield ("devices", f"{backend} device"), kind
    for backend, details in about.device_details.items():
        yield ("devices", f"{backend} driver"), details.get("driver")
        for what in PRECISION:
            yield ("measuring", f"{what.replace('_', ' ')} on {backend}"), details.get(what)
    for row in results.estimates:
        if row.metric == "parameters" and row.cell.is_baseline:
            yield ("workload", f"parameters at {row.cell.place}"), int(row.value)
    for name, value in about.variables.items():
        yield ("flags", name), value
    for name, release in named.items():
        if name not in ("python", PROJECT):
            yield (name, name), release


def differences(base: Run, new: Run) -> dict[str, str]:
    """Return what differs, in words, each with the name by which it can be allowed.

    A condition that one of the runs does not state is left out, unless it is a variable or a
    package: all that are there are stated.
    """
    sides = [
        {key: str(v) for key, v in conditions(run) if v not in (None, "")} for run in (base, new)
    ]
    out = {}
    for name, what in dict.fromkeys(key for side in sides for key in side):
        before, after = (side.get((name, what)) for side in sides)
        if None in (before, after):
            if name in GROUPS and name != "flags":
                continue
            lacking = "unset" if name == "flags" else "not installed"
            before, after = before or lacking, after or lacking
        if before != after:
            out[f"{what} {before}, then {after}"] = name
    return out


def require_same(
    runs: Sequence[Run], names: Sequence[str], allowed: Collection[str]
) -> dict[str, str]:
    """Return what differs between the last run and the others, in words, if that is allowed.

    Args:
        runs: The last one is new.
        names: What the runs are called in a message.
        allowed: Names of conditions that may differ; `all` allows everything.

    Raises:
        BakeoffError: one of the allowed names is unknown; or something else differs.
    """
    packages = dict.fromkeys(name for run in runs for name in releases(run))
    known = [*GROUPS, *(name for name in packages if name not in ("python", PROJECT)), ALL]
    for name in allowed:
        if name not in known:
            raise BakeoffError(f"--allow: {unknown('name', name, known)}")
    out: dict[str, str] = {}
    for base, base_name in zip(runs[:-1], names[:-1], strict=True):
        differing = differences(base, runs[-1])
        refused = {w: n for w, n in differing.items() if n not in allowed and ALL not in allowed}
        if refused:
            raise BakeoffError(
                f"{base_name} and {names[-1]} were made under different conditions: "
                f"{'; '.join(refused)}; if that is meant, give --allow "
                f"{','.join(dict.fromkeys(refused.values()))} (known: {', '.join(known)}), else "
                "measure again, or measure both sides now with `bakeoff ab`"
            )
        out |= differing
    return out
