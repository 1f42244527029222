"""Whether the file can be imported and offers what `common.contract` asks for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax

import impls
from bench.check.finding import NOTE, Finding
from bench.check.subject import SMALL
from common.contract import Checkpoint, Model, Program, fresh_checkpoint, zero_hidden
from common.equality import random_chunk, random_weights
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check.subject import Subject

SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_disable_jit", "jax_debug_nans")
"""Of JAX: whoever changes them changes them for everybody that is measured in the same process."""
IMPORTED = "the file is imported"
METHODS = ("load", "save", "__call__", "program")


def of_file(subject: Subject) -> Iterator[Finding]:
    """Import the file, and look at the names that it has to define."""
    before = settings()
    try:
        entrant = subject.entrant
    except BakeoffError as error:
        where = subject.frame(error.__cause__) if error.__cause__ else subject.at("STYLES")
        yield Finding(IMPORTED, str(error), where)
        return
    except BaseException as error:
        yield from no_import(subject, error)
        return
    for name, value in settings().items():
        if value != before[name]:
            yield Finding(
                f"an import leaves JAX's settings alone: {name} is {before[name]}",
                f"{name} is {value} after it; all entrants of a process share it",
                str(subject.path),
            )
    yield from of_constants(subject)
    try:
        metadata.version(entrant.distribution)
    except (metadata.PackageNotFoundError, ValueError):
        yield Finding(
            "DISTRIBUTION is the name of the installed package whose version results say",
            f"DISTRIBUTION is {entrant.distribution!r}, which is not installed",
            subject.at("DISTRIBUTION"),
        )
    yield from of_styles(subject, entrant.styles)
    yield from of_model(subject)


def of_constants(subject: Subject) -> Iterator[Finding]:
    """Compare the constants that the module has with those that are read without running it."""
    module, about = sys.modules[f"impls.{subject.name}"], impls.declared(subject.name)
    for field in fields(about):
        name, read = field.name.upper(), getattr(about, field.name)
        value = getattr(module, name, field.default)
        if (tuple(value) if isinstance(value, list) else value) != read:
            yield Finding(
                f"{name} is written out at the top of the file, NAME = VALUE, for it is read before"
                " the file can be run",
                f"it is {value!r} once the file is imported, and what is read is {read!r}",
                subject.at(name),
            )


def settings() -> dict[str, Any]:
    """Return the settings of JAX that everybody shares."""
    return {name: getattr(jax.config, name) for name in SETTINGS}


def no_import(subject: Subject, error: BaseException) -> Iterator[Finding]:
    """Say why the file cannot be imported, or which names it lacks."""
    module = sys.modules.get(f"impls.{subject.name}")
    if module is None or not isinstance(error, AttributeError):
        yield subject.raised(IMPORTED, error)
        return
    what = {
        "build": "build(config) -> Model: the model as pure functions",
        "STYLES": 'STYLES = {"pure": pure_style(build)}: ways to write a training step',
        "DISTRIBUTION": 'DISTRIBUTION = "…": the name of the installed package',
    }
    for name, words in what.items():
        if not hasattr(module, name):
            yield Finding(f"the file defines {words}", f"there is no {name}", str(subject.path))


def of_styles(subject: Subject, styles: Any) -> Iterator[Finding]:
    """Look at STYLES."""
    where = subject.at("STYLES")
    if not isinstance(styles, Mapping) or not styles:
        yield Finding("STYLES maps at least one name to a style", f"it is {styles!r}", where)
        return
    for name, style in styles.items():
        if not callable(style):
            seen = f"STYLES[{name!r}] is {style!r}, which cannot be called"
            yield Finding("a style is a function of config and optimiser", seen, where)
    known = [*styles, *subject.entrant.missing]
    if unknown := [name for name in impls.declared(subject.name).alone if name not in known]:
        yield Finding(
            f"ALONE names styles of the file: {', '.join(known)}",
            f"it names {', '.join(unknown)}, which would be measured beside the others",
            subject.at("ALONE"),
        )
    if subject.jax and "pure" not in styles:
        yield Finding(
            'one of the styles is "pure", pure_style(build): the step that all entrants share',
            f"styles are {', '.join(map(str, styles))}",
            where,
            NOTE,
        )


def of_model(subject: Subject) -> Iterator[Finding]:
    """Look at what `build` returns."""
    expected = "build(config) returns a common.contract.Model of four functions"
    try:
        model: Any = subject.model(SMALL)
    except BaseException as error:
        yield subject.raised(expected, error)
        return
    if not isinstance(model, Model):
        yield Finding(expected, f"it returned {type(model).__name__}", subject.at("build"))
        return
    for name, function in model._asdict().items():
        if not callable(function):
            seen = f"{name} is {function!r}, which cannot be called"
            yield Finding(expected, seen, subject.at("build"))


def of_style(subject: Subject) -> Iterator[Finding]:
    """Make a step, and call each of its methods once."""
    expected = "a style returns a training step with load, save, program, and a call of its own"
    where, weights = subject.style_at, random_weights(SMALL.model)
    try:
        step = subject.another(SMALL)
    except BaseException as error:
        yield subject.raised(expected, error)
        return
    if lacking := [name for name in METHODS if not callable(getattr(step, name, None))]:
        yield Finding(expected, f"{type(step).__name__} lacks {', '.join(lacking)}", where)
        return
    arguments = zero_hidden(SMALL.model, SMALL.batch), random_chunk(SMALL, 1)
    subject.steps[SMALL] = step
    step.load(fresh_checkpoint(weights))
    returned: Any = step(*arguments)
    if not isinstance(returned, tuple) or len(returned) != 2:
        seen = f"it returned {type(returned).__name__}"
        yield Finding("a call returns (hidden, loss)", seen, where)
        return
    saved: Any = step.save()
    if not isinstance(saved, Checkpoint):
        seen = f"it returned {type(saved).__name__}"
        yield Finding("save() returns a common.contract.Checkpoint", seen, where)
    program = step.program(*arguments)
    if subject.jax and not isinstance(program, Program):
        yield Finding(
            "program() returns the stages of what a call compiles (common.steps.stages_of makes "
            "them); None is for an entrant that declares JAX = False",
            f"it returned {program!r}",
            where,
        )
