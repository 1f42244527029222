"""The offer of an environment: entrants and their styles, devices, versions."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

import impls
from bench.cells import PURE
from bench.offer import NOT_IMPORTING
from bench.worker.arms import describe_exception, locate_error
from bench.worker.step_check import check_step
from bench.worker.step_file import StepFile
from common.errors import BakeoffError, shorten_message
from common.versions import versions
from impls import steps

if TYPE_CHECKING:
    from bench.worker.protocol import ArmMarker, Describe


def describe(marker: ArmMarker, command: Describe) -> dict[str, Any]:
    """Return this environment's offer of some entrants, or the usual; mark which one loads."""
    outside, step = command.outside, steps.find_step(command.outside)
    by_entrant: dict[str, dict[str, Any]] = {
        name: {} for name in ("styles", "problems", "unfit", "missing", "if_named", "not_donating")
    }
    libraries: list[str] = []
    notes = describe_step(Path(outside[step]), by_entrant, libraries) if step else []
    for index, name in enumerate([] if step else command.entrants or impls.list_usual()):
        marker.mark(index)
        located = impls.locate(name, outside)
        try:
            entrant, declaration = impls.load(located), impls.read_declaration(located)
        except Exception as error:
            ours, why = isinstance(error, BakeoffError), f"import failed: {describe_exception()}"
            if release := find_broken_library(str(impls.source(located)), error):
                by_entrant["unfit"][name] = release
                why = describe_broken_library(release, error)
            by_entrant["problems"][name] = str(error) if ours else why
            continue
        libraries.append(entrant.distribution)
        styles = list(entrant.styles)
        by_entrant["styles"][name] = styles
        by_entrant["missing"][name] = dict(entrant.missing)
        by_entrant["if_named"][name] = [style for style in declaration.if_named if style in styles]
        if name not in outside:  # one from outside may always donate: its program tells
            by_entrant["not_donating"][name] = [s for s in styles if not entrant.can_donate(s)]
    marker.mark()
    devices = list_devices()
    return by_entrant | {
        "backends": list(devices),
        "devices": devices,
        "details": {backend: describe_backend(backend) for backend in devices},
        "versions": versions(libraries),
        "notes": notes,
        "uncached": count_uncached(),
    }


def describe_step(
    path: Path, by_entrant: dict[str, dict[str, Any]], libraries: list[str]
) -> list[str]:
    """Add the styles of a user's own step, or why it cannot be measured; return remarks."""
    try:
        step = StepFile(path)
        notes = check_step(step)
        library = impls.load(step.entrant)
        arms = step.arms
    except BakeoffError as error:
        by_entrant["problems"][path.stem] = str(error)
        return []
    except Exception as error:
        if release := find_broken_library(str(path), error):
            by_entrant["unfit"][path.stem] = release
            why = describe_broken_library(release, error)
        else:
            why = f"{type(error).__name__}: {shorten_message(error)}{suggest_package(error)}"
            why = f"{locate_error(path, error)}: {why}"
        by_entrant["problems"][path.stem] = why
        return []
    if_named = impls.find_declaration(library.name).if_named
    by_entrant["if_named"][library.name] = [arm.style for arm in arms if arm.style in if_named]
    by_entrant["missing"][library.name] = step.missing
    imported = [
        about
        for about in map(impls.find_declaration, impls.list_usual())
        if about.models in sys.modules
    ]
    libraries += [library.distribution, *(about.distribution for about in imported)]
    for arm in arms:
        by_entrant["styles"].setdefault(arm.entrant, []).append(arm.style)
    by_entrant["styles"].setdefault(impls.BASELINE, [PURE])
    return notes


def suggest_package(error: Exception) -> str:
    """Return in words how to install a missing module; empty for other errors."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    return f"; `--with {error.name}` installs it if the package has that name"


def find_broken_library(path: str, error: Exception) -> tuple[str, str] | None:
    """Return package and release of a library that fails when a file imports it, else None."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    frames = [f for f in frames if not f.f_globals.get("__name__", "").startswith("importlib.")]
    files = [frame.f_code.co_filename for frame in frames]
    after = frames[len(files) - files[::-1].index(path) :] if path in files else []
    if (
        not after
        or after[0].f_code.co_name != "<module>"
        or (isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("jax"))
    ):
        return None
    library = after[0].f_globals["__name__"].partition(".")[0]
    try:
        package = metadata.packages_distributions()[library][0]
        return package, metadata.version(package)
    except (KeyError, metadata.PackageNotFoundError):  # a file beside the user's own
        return None


def describe_broken_library(release: tuple[str, str], error: Exception) -> str:
    """Return in words that a package's release does not import, and how."""
    how = f"{type(error).__name__}: {shorten_message(error)}"
    return f"{' '.join(release)} {NOT_IMPORTING} jax {jax.__version__}: {how}"


def count_uncached() -> int:
    """Return the number of imported modules without bytecode, which Python could not write."""
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    cached = [spec.cached for spec in specs if spec is not None and spec.cached]
    return sum(not Path(path).exists() for path in cached)


def list_devices() -> dict[str, str]:
    """Return backend → kind of its first device."""
    platforms = ["cpu", "gpu", "tpu"]
    with suppress(Exception):  # an old release does not say what its plugins are called
        from jax.extend.backend import backends

        platforms += [client.devices()[0].platform for client in backends().values()]
    devices = {}
    for backend in dict.fromkeys(platforms):
        with suppress(RuntimeError):
            devices[backend] = str(jax.devices(backend)[0].device_kind)
    return devices


def describe_backend(backend: str) -> dict[str, Any]:
    """Return a backend's number of devices, their driver, and its precision of matrix products."""
    devices, driver = jax.devices(backend), ""
    with suppress(Exception):  # an old release, or a driver that does not tell
        driver = " ".join(str(devices[0].client.platform_version).split())
    return {
        "count": len(devices),
        "driver": "" if driver in ("<unknown>", backend) else driver,
        "matmul_precision": str(jax.config.jax_default_matmul_precision),
    }
