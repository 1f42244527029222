"""Whether a file keeps `common.contract`: its names, shapes, dtypes, and weights in and out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

import impls
from bench.check.findings import NOTE, Finding
from bench.check.subject import RAGGED, SMALL, arrays, named_arrays, sizes
from common.contract import Checkpoint, Dense, Model, Program, flat, fresh_checkpoint, unflat
from common.equality import random_chunk, random_hidden, random_weights
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check.subject import Subject
    from common.config import ModelConfig
    from common.contract import Weights
    from common.equality import Case

SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_disable_jit", "jax_debug_nans")
"""Of JAX, shared by all entrants that are measured in one process."""
IMPORTED = "the file is imported"
NAMES = {
    "build": "build(config) -> Model: the model as pure functions",
    "STYLES": 'STYLES = {"pure": pure_style(build)}: ways to write a training step',
    "DISTRIBUTION": 'DISTRIBUTION = "…": the name of the installed package',
}
METHODS = ("load", "save", "__call__", "program")
IMPRECISE = ("float64", "float16", "bfloat16", "complex128", "complex64", "float8", "float4")
"""Beginnings of dtypes that are no float32."""
MOMENTS = ("weights", "mu", "nu")
UPDATES = 7
"""Of a checkpoint in the middle of a training run."""


def file_contract(subject: Subject) -> Iterator[Finding]:
    """Import the file, and look at the names that it has to define."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    try:
        entrant = subject.entrant
    except BakeoffError as error:
        where = subject.frame(error.__cause__) if error.__cause__ else subject.location("STYLES")
        yield Finding(IMPORTED, str(error), where)
        return
    except BaseException as error:
        module = sys.modules.get(f"impls.{subject.name}")
        if module is None or not isinstance(error, AttributeError):
            yield subject.exception(IMPORTED, error)
            return
        for name, words in NAMES.items():
            if not hasattr(module, name):
                yield subject.finding(f"the file defines {words}", f"there is no {name}")
        return
    for name, value in before.items():
        if (now := getattr(jax.config, name)) != value:
            yield subject.finding(
                f"an import leaves JAX's settings alone: {name} is {value}",
                f"{name} is {now} after it; all entrants of a process share it",
            )
    yield from _constants(subject)
    try:
        metadata.version(entrant.distribution)
    except (metadata.PackageNotFoundError, ValueError):
        yield subject.finding(
            "DISTRIBUTION is the name of the installed package whose version results say",
            f"DISTRIBUTION is {entrant.distribution!r}, which is not installed",
            "DISTRIBUTION",
        )
    yield from _styles(subject, entrant.styles)
    yield from _model(subject)


def _constants(subject: Subject) -> Iterator[Finding]:
    """Compare the module's constants with those that are read without running it."""
    module, declared = sys.modules[f"impls.{subject.name}"], impls.declared(subject.name)
    for field in fields(declared):
        name, read = field.name.upper(), getattr(declared, field.name)
        value = getattr(module, name, field.default)
        if (tuple(value) if isinstance(value, list) else value) != read:
            yield subject.finding(
                f"{name} is written out at the top of the file, NAME = VALUE, for it is read before"
                " the file can be run",
                f"it is {value!r} once the file is imported, and what is read is {read!r}",
                name,
            )


def _styles(subject: Subject, styles: Any) -> Iterator[Finding]:
    if not isinstance(styles, Mapping) or not styles:
        yield subject.finding(
            "STYLES maps at least one name to a style", f"it is {styles!r}", "STYLES"
        )
        return
    for name, style in styles.items():
        if not callable(style):
            seen = f"STYLES[{name!r}] is {style!r}, which cannot be called"
            yield subject.finding("a style is a function of config and optimiser", seen, "STYLES")
    known = [*styles, *subject.entrant.missing]
    if unknown := [name for name in impls.declared(subject.name).alone if name not in known]:
        yield subject.finding(
            f"ALONE names styles of the file: {', '.join(known)}",
            f"it names {', '.join(unknown)}, which would be measured beside the others",
            "ALONE",
        )
    if subject.jax and "pure" not in styles:
        yield subject.finding(
            'one of the styles is "pure", pure_style(build): the step that all entrants share',
            f"styles are {', '.join(map(str, styles))}",
            "STYLES",
            severity=NOTE,
        )


def _model(subject: Subject) -> Iterator[Finding]:
    expected = "build(config) returns a common.contract.Model of four functions"
    try:
        model: Any = subject.model(SMALL)
    except BaseException as error:
        yield subject.exception(expected, error)
        return
    if not isinstance(model, Model):
        yield subject.finding(expected, f"it returned {type(model).__name__}", "build")
        return
    for name, function in model._asdict().items():
        if not callable(function):
            seen = f"{name} is {function!r}, which cannot be called"
            yield subject.finding(expected, seen, "build")


def style_contract(subject: Subject) -> Iterator[Finding]:
    """Make a step, and call each of its methods once."""
    expected = "a style returns a training step with load, save, program, and a call of its own"
    try:
        step = subject.new_step(SMALL)
    except BaseException as error:
        yield subject.exception(expected, error)
        return
    if lacking := [name for name in METHODS if not callable(getattr(step, name, None))]:
        yield subject.finding(expected, f"{type(step).__name__} lacks {', '.join(lacking)}")
        return
    subject.steps[SMALL] = step
    arguments = random_hidden(SMALL), random_chunk(SMALL, 1)
    step.load(fresh_checkpoint(random_weights(SMALL.model)))
    returned: Any = step(*arguments)
    if not isinstance(returned, tuple) or len(returned) != 2:
        yield subject.finding(
            "a call returns (hidden, loss)", f"it returned {type(returned).__name__}"
        )
        return
    saved: Any = step.save()
    if not isinstance(saved, Checkpoint):
        yield subject.finding(
            "save() returns a common.contract.Checkpoint", f"it returned {type(saved).__name__}"
        )
    program = step.program(*arguments)
    if subject.jax and not isinstance(program, Program):
        yield subject.finding(
            "program() returns the stages of what a call compiles (common.steps.stages_of makes "
            "them); None is for an entrant that declares JAX = False",
            f"it returned {program!r}",
        )


def model_shapes(subject: Subject) -> Iterator[Finding]:
    """Compare the shapes of fresh weights, of a character's state and of its logits."""
    for case in (SMALL, RAGGED):
        model, config = subject.model(case), case.model
        params = model.init(jax.random.key(0))
        yield from _weight_shapes(subject, case, model.to_weights(params), "init", "to_weights")
        state = tuple(np.zeros(config.width, np.float32) for _ in range(config.layers))
        step: Any = model.step
        if subject.jax:
            state, step = jax.device_put(state), jax.jit(step)
        after, logits = step(params, state, np.int32(0))
        rows = [(config.width,)] * config.layers
        yield from _shapes(subject, case, "step's state", rows, after, "step")
        yield from _shapes(subject, case, "step's logits", [(config.vocab_size,)], [logits], "step")


def step_shapes(subject: Subject) -> Iterator[Finding]:
    """Compare the shapes of hidden state, loss, and saved weights and moments."""
    for case in (SMALL, RAGGED):
        step = subject.step(case)
        hidden, loss = step(random_hidden(case), random_chunk(case, 1))
        rows = [(case.batch, case.model.width)] * case.model.layers
        yield from _shapes(subject, case, "the hidden state of a call", rows, hidden)
        yield from _shapes(subject, case, "the loss of a call", [()], [loss])
        saved = step.save()
        for part in MOMENTS:
            yield from _weight_shapes(subject, case, getattr(saved, part))


def _weight_shapes(subject: Subject, case: Case, weights: Any, *names: str) -> Iterator[Finding]:
    if len(weights.cells) != case.model.layers:
        yield subject.finding(
            f"to_weights returns a cell for each layer ({sizes(case)})",
            f"{len(weights.cells)} cells",
            "to_weights",
        )
        return
    given = arrays(weights)
    for name, expected in arrays(random_weights(case.model)).items():
        if given[name].shape != expected.shape:
            yield subject.finding(
                f"{name} of a fresh model is {expected.shape}: kernels are (in, out), and a cell's "
                f"rows are the hidden state's, then those of what is below ({sizes(case)})",
                f"it is {given[name].shape}",
                *names,
            )


def _shapes(
    subject: Subject, case: Case, what: str, expected: list[Any], given: Any, *names: str
) -> Iterator[Finding]:
    shapes = [np.shape(value) for value in given]
    if shapes != expected:
        yield subject.finding(
            f"{what}: {', '.join(map(str, expected))} ({sizes(case)})",
            ", ".join(map(str, shapes)) or "nothing",
            *names,
        )


def model_dtypes(subject: Subject) -> Iterator[Finding]:
    """See that fresh parameters and the logits of a character are float32."""
    model = subject.model(SMALL)
    params = model.init(jax.random.key(0))
    if wrong := _not_float32(arrays(model.to_weights(params))):
        yield subject.finding("weights of a fresh model are float32", wrong, "init", "build")
    if subject.jax:
        state = jax.device_put((np.zeros(SMALL.model.width, np.float32),) * SMALL.model.layers)
        closed = jax.make_jaxpr(model.step)(params, state, jax.numpy.int32(0))
        yield from _program_dtypes(subject, closed.jaxpr, "model.step", "step", "build")


def step_dtypes(subject: Subject) -> Iterator[Finding]:
    """See that a call returns float32 in the right kind of array, and computes in nothing else."""
    step, arguments = subject.step(SMALL), (random_hidden(SMALL), random_chunk(SMALL, 1))
    hidden, loss = step(*arguments)
    returned = {f"hidden[{i}]": rows for i, rows in enumerate(hidden)} | {"the loss": loss}
    foreign = [
        f"{name} is a {type(value).__module__}.{type(value).__name__}"
        for name, value in returned.items()
        if subject.jax and not isinstance(value, jax.Array)
    ]
    if foreign:
        yield subject.finding(
            "what a call returns is a jax.Array, which the clock can wait for (an entrant of "
            "another kind declares JAX = False)",
            ", ".join(foreign),
        )
    if wrong := _not_float32({name: np.asarray(value) for name, value in returned.items()}):
        yield subject.finding("what a call returns is float32", wrong)
    saved = step.save()
    for part in MOMENTS:
        if wrong := _not_float32(named_arrays(getattr(saved, part))):
            yield subject.finding(f"save().{part} is float32 in NumPy's arrays", wrong)
    program = step.program(*arguments)
    if program is not None:
        yield from _program_dtypes(subject, program.jaxpr().jaxpr, "the compiled step")


def _not_float32(named: Mapping[str, Any]) -> str:
    """Return in words which of these are no NumPy arrays of float32."""
    return ", ".join(
        f"{name} is {value.dtype if type(value) is np.ndarray else 'no NumPy array'}"
        for name, value in named.items()
        if type(value) is not np.ndarray or value.dtype != np.float32
    )


def _program_dtypes(subject: Subject, jaxpr: Jaxpr, what: str, *names: str) -> Iterator[Finding]:
    """Look for values of another precision in a program, nested ones included."""
    operations: dict[str, list[str]] = {}
    for equation in _equations(jaxpr):
        for variable in equation.outvars:
            dtype = str(getattr(variable.aval, "dtype", ""))
            if dtype.startswith(IMPRECISE):
                operations.setdefault(dtype, []).append(equation.primitive.name)
    for dtype, found in operations.items():
        yield subject.finding(
            f"{what} computes in float32 alone",
            f"{len(found)} of its values are {dtype}; the first one comes from `{found[0]}`",
            *names,
        )


def _equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """Yield the equations of a program, those of the programs that it contains first."""

    def is_program(value: Any) -> bool:
        return isinstance(value, (ClosedJaxpr, Jaxpr))

    for equation in jaxpr.eqns:
        parameters = list(equation.params.values())
        for inner in filter(is_program, jax.tree.leaves(parameters, is_leaf=is_program)):
            yield from _equations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)
        yield equation


def model_weights(subject: Subject) -> Iterator[Finding]:
    """Send weights in and out, and fresh ones out, in and out again."""
    for case in (SMALL, RAGGED):
        model, given = subject.model(case), random_weights(case.model)
        back = model.to_weights(model.from_weights(given))
        if seen := _difference(given, back):
            expected = "to_weights(from_weights(w)) is w, bit by bit"
            yield subject.finding(expected, seen, "from_weights")
            break
    model = subject.model(SMALL)
    params, other = (model.init(jax.random.key(seed)) for seed in (0, 1))
    exported = model.to_weights(params)
    again = model.from_weights(exported)
    made: Any = jax.tree.structure(again)
    init = jax.tree.structure(params)
    if made != init:
        yield subject.finding(
            "from_weights makes the structure that init makes",
            f"{made} where init makes {init}"[:400],
            "from_weights",
        )
    if seen := _difference(exported, model.to_weights(again)):
        yield subject.finding(
            "what init made comes out of to_weights, goes in by from_weights, and comes out",
            seen,
            "from_weights",
        )
    if not _difference(exported, model.to_weights(other)):
        yield subject.finding(
            "init depends on its key: another key, other weights",
            "two keys gave the same weights, bit by bit",
            "init",
        )


def step_weights(subject: Subject) -> Iterator[Finding]:
    """Load a training run that is under way, and save it."""
    for case in (SMALL, RAGGED):
        given, step = checkpoint_under_way(case.model), subject.step(case)
        step.load(given)
        saved = step.save()
        for part in MOMENTS:
            if seen := _difference(getattr(given, part), getattr(saved, part)):
                yield subject.finding(f"save() returns the {part} that load() was given", seen)
                return
        if saved.updates != given.updates:
            yield subject.finding(
                f"save() returns the updates that load() was given: {given.updates}",
                f"it returned {saved.updates}",
            )


def checkpoint_under_way(config: ModelConfig) -> Checkpoint:
    """Return a checkpoint with moments, as after a few updates."""
    squares = unflat(
        Dense(kernel**2 + 0.01, bias**2 + 0.01) for kernel, bias in flat(random_weights(config, 2))
    )
    return Checkpoint(random_weights(config), random_weights(config, 1), squares, UPDATES)


def _difference(given: Weights, back: Weights) -> str:
    """Return in words how the first array that differs does, bit by bit; empty if none does."""
    returned = arrays(back)
    for name, ours in arrays(given).items():
        theirs = returned[name]
        if ours.shape != theirs.shape:
            return f"{name} is {theirs.shape} instead of {ours.shape}"
        if not np.array_equal(ours, theirs):
            away = np.abs(ours.astype(np.float64) - theirs)
            seen = (
                f"{name} differs in {np.sum(away > 0)} of {away.size} numbers, by {away.max():.2g}"
            )
            return seen + ("; it is the transpose" if np.array_equal(ours.T, theirs) else "")
    return ""
