"""The offer of an environment: entrants and their styles, devices, versions."""

from __future__ import annotations

import hashlib
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

import impls
from bench import own_steps
from bench.cells import PURE
from bench.offer import NOT_IMPORTING, Offer
from bench.streams import shorten_message
from bench.worker.arms import describe_exception, locate_error
from bench.worker.skeleton import OutlineFile
from bench.worker.step_file import STATE_FORM, StepFile, describe_other_loss
from bench.worker.trace import draws_constants, find_used, find_zeros, locate_operation
from common.errors import BakeoffError
from common.versions import versions

if TYPE_CHECKING:
    from bench.worker.protocol import ArmMarker, Describe

NAMED = 3
"""Most arrays without a gradient that a remark names: their kind shows by then."""


def describe(marker: ArmMarker, command: Describe) -> Offer:
    """Return this environment's offer of some entrants, or the usual; mark which one loads."""
    step = own_steps.find_step(command.outside)  # which is alone
    offer, libraries = Offer(), list[str]()
    known = own_steps.list_own_modules().keys()  # an environment's own, such as `sitecustomize`
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
    modules = {n: path for n, path in own_steps.list_own_modules().items() if n not in known}
    modules |= own_steps.find_late_imports(
        [path for path in modules.values() if path.suffix == ".py"]
    )
    return replace(
        offer,
        backends=list(devices),
        devices=devices,
        details={backend: describe_backend(backend) for backend in devices},
        versions=versions(libraries),
        modules={n: hashlib.sha256(path.read_bytes()).hexdigest() for n, path in modules.items()},
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
    step = OutlineFile(path)
    notes, library, arms = check_step(step), impls.load(step.entrant), step.arms
    shortages = {name: step.describe_shortage(name) for name in list_devices()}
    offer.too_large.extend(backend for backend, why in shortages.items() if why)
    offer.notes.extend([*notes, *filter(None, shortages.values())])
    if_named = impls.find_declaration(library.name).if_named
    offer.if_named[library.name] = [arm.style for arm in arms if arm.style in if_named]
    offer.missing[library.name] = step.missing
    for arm in arms:
        offer.styles.setdefault(arm.entrant, []).append(arm.style)
    offer.styles.setdefault(impls.BASELINE, [PURE])
    usual = map(impls.find_declaration, impls.list_usual())
    imported = [about.distribution for about in usual if about.models in sys.modules]
    return [library.distribution, *imported]


def check_step(file: OutlineFile) -> list[str]:
    """Return remarks on what a file's loss leaves unused or uses twice, and on unsuited styles.

    The loss is traced, with arrays that have no numbers.

    Raises:
        BakeoffError: the batch changes, the loss is not one number, the model gets other arrays, or
            nothing is trained.
    """
    file.make_batch()
    if not file.has_model:
        return []
    params, _, state, _ = file.put_together(file.outlines)
    carried = file.carry(state)

    def value(params: Any, arrays: Any, batch: Any, carried: Any) -> Any:
        _, others, _, static = file.put_together(arrays)
        model = file.library.merge(params, others, static)
        loss, after = file.compute_loss(model, carried, batch)
        if what := describe_other_loss(loss):
            why = f"loss returns {what}; it has to be one floating-point number, the mean loss"
            raise file.problem("loss", why)
        if list_types(file.library.split(model)[1]).keys() != list_types(others).keys():
            why = (
                "loss adds arrays to the model or removes some: make them all in make_model, or "
                "let loss remove what it adds, as `nnx.pop(model, nnx.Intermediate)` does"
            )
            raise file.problem("loss", why)
        return loss, after

    arguments = params, file.outlines, file.batch_outline, carried
    function = jax.value_and_grad(value, has_aux=True)
    program, ((_, after), _) = jax.make_jaxpr(function, return_shape=True)(*arguments)
    if why := describe_other_state(carried, after):
        raise file.problem("loss", why)
    same = "loss draws the same numbers in each step, by a constant key. For dropout, take `key`."
    remark = str(file.problem("loss", same))
    return [
        *find_untrained(file, params, program.jaxpr),
        *[remark] * draws_constants(program.jaxpr, program.jaxpr.invars),
        *find_unused(file, after, program.jaxpr),
        *find_used_twice(file, value, arguments),
        *describe_unsuited(file),
    ]


def find_used_twice(file: StepFile, value: Any, arguments: tuple[Any, ...]) -> list[str]:
    """Return in words where a key of random numbers is used twice, if JAX finds one."""
    if not hasattr(jax, "debug_key_reuse"):  # from jax 0.4.26 on
        return []
    try:
        with jax.debug_key_reuse(True):
            jax.jit(value).lower(*arguments)
    except jax.errors.KeyReuseError as error:
        place = locate_operation(error)
        where = f"{locate_error(file.path, error.__cause__ or error)}: loss uses a key twice"
        return [
            f"{where}{f', in {place}' if place else ''}: what it draws may not be independent. "
            "jax.random.split makes new keys."
        ]
    return []


def find_unused(file: StepFile, after: Any, jaxpr: Any) -> list[str]:
    """Return in words what a loss takes and does not use: its key; a state that it does not change.

    Args:
        file: The file.
        after: The values that the loss returns to carry on, by name.
        jaxpr: Program of the loss and its gradients.
    """
    names = [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(after)]
    given, returned = jaxpr.invars[len(jaxpr.invars) - len(names) :], jaxpr.outvars[1:]
    carried = list(zip(names, given, returned, strict=False))
    state = [pair for name, *pair in carried if name == "state"]
    used = find_used(jaxpr, [jaxpr.outvars[0], *(new for _, new in state)])
    remarks = []
    if any(name == "key" and old not in used for name, old, _ in carried):
        remarks.append("loss takes `key` and does not use it")
    if state and all(new is old for old, new in state):
        remarks.append("loss returns its `state` as it was given: nothing in it changes")
    return [str(file.problem("loss", f"{remark}.")) for remark in remarks]


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


def find_untrained(file: StepFile, params: Any, jaxpr: Any) -> list[str]:
    """Return in words which arrays get no gradient, if there are any.

    Their gradients are constant zeros in the traced program, so nothing needs to be compiled.

    Raises:
        BakeoffError: no array gets a gradient.
    """
    paths = jax.tree_util.tree_leaves_with_path(params)
    if not paths:
        raise file.problem("make_model", "the model has no arrays to train")
    gradients = jaxpr.outvars[len(jaxpr.outvars) - len(paths) :]  # in the order of parameters
    zeros = find_zeros(jaxpr, gradients)
    untrained = [
        jax.tree_util.keystr(path)
        for (path, _), is_zero in zip(paths, zeros, strict=True)
        if is_zero
    ]
    if len(untrained) == len(paths):
        why = "no array of the model gets a gradient: loss does not depend on it"
        raise file.problem("loss", why)
    if not untrained:
        return []
    named = ", ".join(untrained[:NAMED]) + ", …" * (len(untrained) > NAMED)
    return [
        f"{file.path.name}: {len(untrained)} of {len(paths)} arrays get no gradient "
        f"({named}). If they are state, write {STATE_FORM}."
    ]


def describe_unsuited(file: StepFile) -> list[str]:
    """Return in words which styles cannot train a file's model, a sentence for each reason."""
    remarks = []
    for reason in dict.fromkeys(file.unsuited.values()):
        *others, last = [style for style, why in file.unsuited.items() if why == reason]
        styles = " and ".join(filter(None, (", ".join(others), last)))
        remarks.append(f"{file.path.name}: {reason}, so {styles} cannot train it.")
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
    own = [i for i, frame in enumerate(frames) if frame.f_code.co_filename == path]
    after = frames[own[-1] + 1 :] if own else []
    if not after or after[0].f_code.co_name != "<module>":  # the file itself fails
        return None
    # A module that is missing is no broken library, unless jax no longer has it
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("jax"):
        return None
    library = after[0].f_globals["__name__"].partition(".")[0]
    try:
        package = metadata.packages_distributions()[library][0]
        return package, metadata.version(package)
    except (KeyError, metadata.PackageNotFoundError):  # a file beside the user's own
        return None


def count_uncached() -> int:
    """Return the number of imported modules without bytecode, which Python could not write.

    A user's own are imported without writing any.
    """
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    others = [spec for spec in specs if spec and not isinstance(spec.loader, impls.OwnLoader)]
    cached = [spec.cached for spec in others if spec.cached]
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
