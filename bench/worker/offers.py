"""The offer of an environment: entrants and their styles, devices, versions."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

import impls
from bench.cells import FLAT, PURE
from bench.offer import NOT_IMPORTING, Offer
from bench.worker.arms import describe_exception, locate_error
from bench.worker.step_file import STATE_FORM, StepFile
from common.errors import BakeoffError, shorten_message
from common.versions import versions
from impls import steps

if TYPE_CHECKING:
    from bench.worker.protocol import ArmMarker, Describe

NAMED = 3
"""Most arrays without a gradient that a remark names: their kind shows by then."""


def describe(marker: ArmMarker, command: Describe) -> Offer:
    """Return this environment's offer of some entrants, or the usual; mark which one loads."""
    step = steps.find_step(command.outside)  # which is alone
    offer, libraries = Offer(), list[str]()
    for index, name in enumerate([step] if step else command.entrants or impls.list_usual()):
        marker.mark(index)
        located = impls.locate(name, command.outside)
        path = impls.source(located)
        try:
            libraries += add_step(offer, path) if step else add_entrant(offer, name, located)
        except BakeoffError as error:
            offer.problems[name] = str(error)
        except Exception as error:
            how = f"{type(error).__name__}: {shorten_message(error)}"
            if release := find_broken_library(str(path), error):
                offer.unfit[name] = release
                how = f"{' '.join(release)} {NOT_IMPORTING} jax {jax.__version__}: {how}"
            elif step:
                how = f"{locate_error(path, error)}: {how}{suggest_package(error)}"
            else:
                how = f"import failed: {describe_exception()}"
            offer.problems[name] = how
    marker.mark()
    devices = list_devices()
    return replace(
        offer,
        backends=list(devices),
        devices=devices,
        details={backend: describe_backend(backend) for backend in devices},
        versions=versions(libraries),
        uncached=count_uncached(),
    )


def add_entrant(offer: Offer, name: str, located: str | Path) -> list[str]:
    """Add an entrant and its styles to an offer; return its library's distribution."""
    entrant, declaration = impls.load(located), impls.read_declaration(located)
    offer.styles[name] = styles = list(entrant.styles)
    offer.missing[name] = dict(entrant.missing)
    offer.if_named[name] = [style for style in declaration.if_named if style in styles]
    if isinstance(located, str):  # a user's own may always donate: its program tells
        offer.not_donating[name] = [s for s in styles if not entrant.can_donate(s)]
    return [entrant.distribution]


def add_step(offer: Offer, path: Path) -> list[str]:
    """Add the styles of a user's own step to an offer; return distributions of its libraries."""
    step = StepFile(path)
    notes, library, arms = check_step(step), impls.load(step.entrant), step.arms
    offer.notes.extend(notes)
    if_named = impls.find_declaration(library.name).if_named
    offer.if_named[library.name] = [arm.style for arm in arms if arm.style in if_named]
    offer.missing[library.name] = step.missing
    for arm in arms:
        offer.styles.setdefault(arm.entrant, []).append(arm.style)
    offer.styles.setdefault(impls.BASELINE, [PURE])
    usual = map(impls.find_declaration, impls.list_usual())
    imported = [about.distribution for about in usual if about.models in sys.modules]
    return [library.distribution, *imported]


def check_step(file: StepFile) -> list[str]:
    """Return remarks on a file's untrained arrays, and on styles that cannot train its model.

    Raises:
        BakeoffError: the batch changes, the loss is not one number, or nothing is trained.
    """
    batch = file.make_batch()
    if not file.has_model:
        return []
    (model, carried), (again, _) = file.make_start(), file.make_start()
    params, others, static = file.library.split(model)
    file.require_same("make_model", "parameters", params, file.library.split(again)[0])

    def value(params: Any, others: Any, carried: Any) -> Any:
        model = file.library.merge(params, others, static)
        loss, after = file.compute_loss(model, carried, batch)
        if what := describe_other_loss(loss):
            why = f"loss returns {what}; it has to be one floating-point number, the mean loss"
            raise file.problem("loss", why)
        return loss, after

    arguments = params, others, carried
    _, after = jax.eval_shape(value, *arguments)
    if why := describe_other_state(carried, after):
        raise file.problem("loss", why)
    if hasattr(jax, "debug_key_reuse"):  # from jax 0.4.26 on
        try:
            with jax.debug_key_reuse(True):
                jax.jit(value).lower(*arguments)
        except jax.errors.KeyReuseError as error:
            why = (
                "loss uses a key twice, and what it draws is the same: split it by jax.random.split"
            )
            raise file.problem("loss", why) from error
    grads = jax.make_jaxpr(jax.grad(value, has_aux=True))(*arguments)
    return [*find_untrained(file, params, grads.jaxpr), *describe_unsuited(file)]


def describe_other_loss(loss: Any) -> str:
    """Return in words what a loss returns that is not one floating-point number; or empty."""
    dtype, shape = (getattr(loss, name, None) for name in ("dtype", "shape"))
    if isinstance(loss, int | float):  # of Python's
        dtype, shape = np.result_type(loss), ()
    if shape is None or dtype is None:
        return f"a {type(loss).__name__}"
    if shape != ():
        return f"an array of shape {shape}"
    return "" if jnp.issubdtype(dtype, jnp.floating) else f"a number of type {dtype}"


def describe_other_state(before: Any, after: Any) -> str:
    """Return in words how a loss's carried values differ from those that it is given; or empty."""
    given, returned = list_types(before), list_types(after)
    for path in given | returned:
        old, new = given.get(path, "nothing"), returned.get(path, "nothing")
        if old != new:
            return (
                f"loss is given {old} as {path} and returns {new}: a step cannot go on "
                "from another state"
            )
    structure: Any = jax.tree.structure(before)
    if structure == jax.tree.structure(after):
        return ""
    return "loss returns a state of another structure than it is given: a step cannot go on from it"


def list_types(tree: Any) -> dict[str, str]:
    """Return path → type and shape of each leaf of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p): f"{leaf.dtype}{[*leaf.shape]}" for p, leaf in leaves}


def find_untrained(file: StepFile, params: Any, grads: Any) -> list[str]:
    """Return in words which arrays get no gradient, if there are any.

    Their gradients are constant zeros in the traced program, so nothing needs to be compiled.

    Raises:
        BakeoffError: no array gets a gradient.
    """
    paths = jax.tree_util.tree_leaves_with_path(params)
    still = [
        jax.tree_util.keystr(path)
        for (path, _), has_none in zip(paths, find_zero_outputs(grads), strict=False)
        if has_none
    ]
    if not paths:
        raise file.problem("make_model", "the model has no arrays to train")
    if len(still) == len(paths):
        why = "no array of the model gets a gradient: loss does not depend on it"
        raise file.problem("loss", why)
    if not still:
        return []
    named = ", ".join(still[:NAMED]) + ", …" * (len(still) > NAMED)
    return [
        f"{file.path.name}: {len(still)} of {len(paths)} arrays get no gradient "
        f"({named}). If they are state, write {STATE_FORM}."
    ]


def find_zero_outputs(jaxpr: Any) -> list[bool]:
    """Return for each output of a jaxpr whether it is a constant zero: a literal or a broadcast."""

    def is_zero(var: Any) -> bool:
        return hasattr(var, "val") and not np.any(var.val)

    zeros = {
        equation.outvars[0]
        for equation in jaxpr.eqns
        if equation.primitive.name == "broadcast_in_dim" and is_zero(equation.invars[0])
    }
    return [is_zero(var) or (not hasattr(var, "val") and var in zeros) for var in jaxpr.outvars]


def describe_unsuited(file: StepFile) -> list[str]:
    """Return in words which styles cannot train a file's model, a sentence for each reason."""
    remarks = []
    for reason in dict.fromkeys(file.unsuited.values()):
        styles = [s for s, why in file.unsuited.items() if why == reason and s != FLAT]
        remarks.append(f"{file.path.name}: {reason}, so {', '.join(styles)} cannot train it.")
    return remarks


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
