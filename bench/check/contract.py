"""Checks of `common.contract`: names, shapes, dtypes, and weights in and out."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.check.findings import DONATES, ERROR, NOTE
from bench.check.subject import PARTS, checkpoint_under_way, difference, named_arrays
from bench.worker.donation import donates, taken_arguments
from common.contract import Checkpoint, Program
from common.declaration import OF_BLOCK
from common.equality import make, random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check.findings import CheckFinding
    from bench.check.subject import Subject
    from common.contract import TrainStep
    from common.equality import Case

NAMES = {
    "build": "build(config) -> Model: the model as pure functions",
    "STYLES": 'STYLES = {"pure": pure_style(build)}: ways to write a training step',
    "DISTRIBUTION": 'DISTRIBUTION = "…": the name of the installed package',
}
"""What a file has to define."""
OTHER_PRECISION = re.compile(
    r"stablehlo\.(\w+).*tensor<(?:[\d?]+x)*(bf16|f16|f64|f[84]\w+|complex<f\d+>)>"
)
"""An operation of StableHLO on floating-point numbers that are not float32."""


def file_contract(subject: Subject, _case: Case) -> Iterator[CheckFinding]:
    """Import the file, and look at the names that it has to define."""
    try:
        entrant = subject.entrant
    except BaseException as error:
        module = sys.modules.get(f"impls.{subject.name}")
        lacking = [name for name in NAMES if module and not hasattr(module, name)]
        for name in lacking:
            yield subject.finding(f"the file defines {NAMES[name]}", f"there is no {name}")
        if not lacking:
            yield subject.exception("the file can be imported", error)
        return
    yield from _constants(subject)
    try:
        metadata.version(entrant.distribution)
    except (metadata.PackageNotFoundError, ValueError):
        yield subject.finding(
            "DISTRIBUTION is the name of an installed package; results give its version",
            f"DISTRIBUTION is {entrant.distribution!r}, which is not installed",
            "DISTRIBUTION",
        )
    if not isinstance(entrant.styles, Mapping) or not entrant.styles:
        seen = f"it is {entrant.styles!r}"
        yield subject.finding("STYLES maps names to styles", seen, "STYLES")
    elif subject.jax and "pure" not in entrant.styles and own_model(entrant):
        yield subject.finding(
            'one style is "pure", pure_style(build): the step that all entrants share',
            f"the styles are {', '.join(entrant.styles)}",
            "STYLES",
            severity=NOTE,
        )


def own_model(entrant: impls.Entrant) -> bool:
    """Tell whether a file has a model of its own; the entrant that it takes one from has `pure`."""
    return getattr(entrant.build, "__module__", None) in (None, f"impls.{entrant.name}")


def _constants(subject: Subject) -> Iterator[CheckFinding]:
    """Compare the module's constants with those that are read without running it."""
    entrant, declared = subject.entrant, impls.declared(subject.name)
    for field in (each for each in fields(declared) if each.name not in OF_BLOCK):
        name, read = field.name.upper(), getattr(declared, field.name)
        value = getattr(sys.modules[f"impls.{subject.name}"], name, field.default)
        if (tuple(value) if isinstance(value, list) else value) != read:
            yield subject.finding(
                f"{name} is a literal at the top of the file, NAME = VALUE: it is read without "
                "running the file",
                f"the imported file has {value!r}, the text of the file has {read!r}",
                name,
            )
    known = [*entrant.styles, *entrant.missing]
    for constant, named in (("ALONE", declared.alone), ("IF_NAMED", declared.if_named)):
        if unknown := [name for name in named if name not in known]:
            expected = f"{constant} names styles of the file: {', '.join(known)}"
            yield subject.finding(expected, f"it names {', '.join(unknown)}", constant)


def style_contract(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Make a step, and call each of its methods once; see what it donates."""
    step = subject.step(case)
    taken = list(_donation(subject, case, step))
    yield from taken
    if any(finding.severity == ERROR for finding in taken):
        return
    step = subject.step(case)
    arguments = random_hidden(case), random_chunk(case, 1)
    _hidden, _loss = step(*arguments)
    returned: dict[str, tuple[Any, type]] = {"save": (step.save(), Checkpoint)}
    if subject.jax:
        returned["program"] = step.program(*arguments), Program
    for name, (value, kind) in returned.items():
        if not isinstance(value, kind):
            expected = f"{name}() returns a common.contract.{kind.__name__}"
            yield subject.finding(expected, f"it returned {type(value).__name__}", name)


def _donation(subject: Subject, case: Case, step: TrainStep) -> Iterator[CheckFinding]:
    """See that a step donates its state alone, and does so where it can be told to."""
    expected = "hidden state and chunk can be used again after a call"
    assert subject.style is not None
    if taken := taken_arguments(step, case):
        yield subject.finding(expected, taken)
    elif donates(step, case):
        yield subject.finding(DONATES, "it does so always", severity=NOTE)
    if subject.entrant.can_donate(subject.style):
        donating = make(subject.entrant.style(subject.style, donate=True), case)
        if taken := taken_arguments(donating, case):
            yield subject.finding(f"{expected}, with donate=True too", taken)
        elif not donates(donating, case):
            expected = "with donate=True, a step donates its state"
            yield subject.finding(expected, "its program donates nothing")


def step_shapes(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare shape, dtype and class of the arrays that a step returns and saves."""
    call = subject.calls(case)[0]
    found = {f"hidden[{i}]": value for i, value in enumerate(call.after)} | {"loss": call.loss}
    expected: dict[str, Any] = {f"hidden[{i}]": value for i, value in enumerate(call.hidden)}
    expected["loss"], kind = np.float32(0), jax.Array if subject.jax else object
    if wrong := _different(found, expected, kind):
        yield subject.finding("a call returns hidden state and loss as float32 JAX arrays", wrong)
    weights = named_arrays(random_weights(case.model))
    for part in PARTS:
        if wrong := _different(named_arrays(getattr(call.saved, part)), weights, np.ndarray):
            yield subject.finding(f"save().{part} is float32 in NumPy arrays", wrong, "save")


def model_shapes(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare shape and dtype of the arrays that the file's model makes."""
    model, config = subject.entrant.build(case.model), case.model
    params = model.init(jax.random.key(0))
    weights = named_arrays(random_weights(config))
    if wrong := _different(named_arrays(model.to_weights(params)), weights):
        expected = (
            "to_weights returns float32 kernels (in, out) and biases; the rows of a cell's kernel "
            "are the hidden state's, then those of its input"
        )
        yield subject.finding(expected, wrong, "init", "to_weights")
    state = tuple(np.zeros(config.width, np.float32) for _ in range(config.layers))
    step: Any = jax.jit(model.step) if subject.jax else model.step
    after, logits = step(params, state, np.int32(0))
    found = {f"state[{i}]": value for i, value in enumerate(after)} | {"logits": logits}
    right = {f"state[{i}]": value for i, value in enumerate(state)}
    right["logits"] = np.zeros(config.vocab_size, np.float32)
    if wrong := _different(found, right):
        expected = "step returns state and logits of one character in float32"
        yield subject.finding(expected, wrong, "step", "build")


def _different(found: dict[str, Any], expected: dict[str, Any], kind: Any = object) -> str:
    """Return in words which arrays are missing, superfluous or of another sort; empty if none."""

    def words(values: dict[str, Any], kind: Any = object) -> dict[str, str]:
        return {
            name: f"{np.asarray(value).dtype}{list(np.shape(value))}"
            if isinstance(value, kind)
            else f"a {type(value).__module__}.{type(value).__name__}"
            for name, value in values.items()
        }

    given, right = words(found, kind), words(expected)
    wrong = [
        f"{name} is {given.get(name, 'missing')} instead of {right.get(name, 'nothing')}"
        for name in right | given
        if given.get(name) != right.get(name)
    ]
    return "; ".join(wrong[:4])


def dtypes(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Look for other precisions in the program that a step compiles."""
    program = subject.step(case).program(random_hidden(case), random_chunk(case, 1))
    if program is None:
        return
    found = OTHER_PRECISION.findall(program.lower().as_text())
    for dtype in dict.fromkeys(dtype for _, dtype in found):
        operations = [operation for operation, used in found if used == dtype]
        yield subject.finding(
            "the compiled program computes in float32 only",
            f"{len(operations)} of its operations use {dtype}; the first one is {operations[0]}",
            "step",
            "build",
        )


def model_weights(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Send weights in and out, and compare new parameters with those that come from weights."""
    model, given = subject.entrant.build(case.model), random_weights(case.model)
    params, other = (model.init(jax.random.key(seed)) for seed in (0, 1))
    taken: Any = model.from_weights(given)
    made: Any = jax.tree.structure(taken)
    new: Any = jax.tree.structure(params)
    if seen := difference(given, model.to_weights(taken)):
        expected = "to_weights(from_weights(weights)) returns the same weights, bit by bit"
        yield subject.finding(expected, seen, "from_weights")
    elif made != new:
        expected = "from_weights returns the structure that init returns"
        yield subject.finding(expected, f"{made} instead of {new}", "from_weights")
    elif not difference(model.to_weights(params), model.to_weights(other)):
        seen = "two keys gave the same weights, bit by bit"
        yield subject.finding("init depends on its key", seen, "init")


def step_weights(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Load a training run that is under way, and save it."""
    given, step = checkpoint_under_way(case.model), subject.step(case)
    step.load(given)
    saved = step.save()
    for part in PARTS:
        if seen := difference(getattr(given, part), getattr(saved, part)):
            yield subject.finding(f"save() returns the {part} that load() was given", seen)
    if saved.updates != given.updates:
        seen = f"it returned {saved.updates} instead of {given.updates}"
        yield subject.finding("save() returns the updates that load() was given", seen)
