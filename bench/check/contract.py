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
from bench.check.findings import NOTE
from bench.check.subject import (
    CASES,
    PARTS,
    SMALL,
    arrays,
    checkpoint_under_way,
    difference,
    named_arrays,
    sizes,
)
from common.contract import Checkpoint, Program
from common.equality import random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check.findings import CheckFinding
    from bench.check.subject import Subject
    from common.equality import Case

NAMES = {
    "build": "build(config) -> Model: the model as pure functions",
    "STYLES": 'STYLES = {"pure": pure_style(build)}: ways to write a training step',
    "DISTRIBUTION": 'DISTRIBUTION = "…": the name of the installed package',
}
OTHER_PRECISION = re.compile(
    r"stablehlo\.(\w+).*tensor<(?:[\d?]+x)*(bf16|f16|f64|f[84]\w+|complex<f\d+>)>"
)
"""An operation of StableHLO on floating-point numbers that are not float32."""


def file_contract(subject: Subject) -> Iterator[CheckFinding]:
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
    elif subject.jax and "pure" not in entrant.styles:
        yield subject.finding(
            'one style is "pure", pure_style(build): the step that all entrants share',
            f"the styles are {', '.join(entrant.styles)}",
            "STYLES",
            severity=NOTE,
        )


def _constants(subject: Subject) -> Iterator[CheckFinding]:
    """Compare the module's constants with those that are read without running it."""
    entrant, declared = subject.entrant, impls.declared(subject.name)
    for field in fields(declared):
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
    if unknown := [name for name in declared.alone if name not in known]:
        expected = f"ALONE names styles of the file: {', '.join(known)}"
        yield subject.finding(expected, f"it names {', '.join(unknown)}", "ALONE")


def style_contract(subject: Subject) -> Iterator[CheckFinding]:
    """Make a step, and call each of its methods once."""
    step = subject.step(SMALL)
    arguments = random_hidden(SMALL), random_chunk(SMALL, 1)
    _hidden, _loss = step(*arguments)
    returned: dict[str, tuple[Any, type]] = {"save": (step.save(), Checkpoint)}
    if subject.jax:
        returned["program"] = step.program(*arguments), Program
    for name, (value, kind) in returned.items():
        if not isinstance(value, kind):
            expected = f"{name}() returns a common.contract.{kind.__name__}"
            yield subject.finding(expected, f"it returned {type(value).__name__}", name)


def step_shapes(subject: Subject) -> Iterator[CheckFinding]:
    """Compare shape, dtype and class of the arrays that a step returns and saves."""
    for case in CASES:
        call = next(subject.calls([case]))
        rows = (case.batch, case.model.width)
        found = {f"hidden[{i}]": value for i, value in enumerate(call.after)}
        expected = {f"hidden[{i}]": rows for i in range(case.model.layers)}
        kind = jax.Array if subject.jax else object
        if wrong := _different(found | {"loss": call.loss}, expected | {"loss": ()}, kind):
            what = f"a call returns hidden state and loss as float32 JAX arrays ({sizes(case)})"
            yield subject.finding(what, wrong)
        for part in PARTS:
            saved = named_arrays(getattr(call.saved, part))
            if wrong := _different(saved, _weight_shapes(case), np.ndarray):
                what = f"save().{part} is float32 in NumPy arrays ({sizes(case)})"
                yield subject.finding(what, wrong, "save")


def model_shapes(subject: Subject) -> Iterator[CheckFinding]:
    """Compare shape and dtype of the arrays that the file's model makes."""
    for case in CASES:
        model, config = subject.model(case), case.model
        params = model.init(jax.random.key(0))
        if wrong := _different(named_arrays(model.to_weights(params)), _weight_shapes(case)):
            yield subject.finding(
                "to_weights returns float32 kernels (in, out) and biases; the rows of a cell's "
                f"kernel are the hidden state's, then those of its input ({sizes(case)})",
                wrong,
                "init",
                "to_weights",
            )
        state = tuple(np.zeros(config.width, np.float32) for _ in range(config.layers))
        step: Any = jax.jit(model.step) if subject.jax else model.step
        after, logits = step(params, state, np.int32(0))
        found = {f"state[{i}]": value for i, value in enumerate(after)}
        expected = {f"state[{i}]": (config.width,) for i in range(config.layers)}
        expected["logits"] = (config.vocab_size,)
        if wrong := _different(found | {"logits": logits}, expected):
            what = f"step returns state and logits of one character in float32 ({sizes(case)})"
            yield subject.finding(what, wrong, "step", "build")


def _weight_shapes(case: Case) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays(random_weights(case.model)).items()}


def _different(
    found: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], kind: type = object
) -> str:
    """Return in words which arrays are missing, superfluous or of another sort; empty if none."""
    words = {name: f"float32{list(shape)}" for name, shape in expected.items()}
    seen = {
        name: f"{np.asarray(value).dtype}{list(np.shape(value))}" for name, value in found.items()
    }
    for name, value in found.items():
        if not isinstance(value, kind):
            seen[name] = f"a {type(value).__module__}.{type(value).__name__}"
    wrong = [
        f"{name} is {seen.get(name, 'missing')} instead of {words.get(name, 'nothing')}"
        for name in words | seen
        if seen.get(name) != words.get(name)
    ]
    return "; ".join(wrong[:4])


def dtypes(subject: Subject) -> Iterator[CheckFinding]:
    """Look for other precisions in the program that a step compiles."""
    program = subject.step(SMALL).program(random_hidden(SMALL), random_chunk(SMALL, 1))
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


def model_weights(subject: Subject) -> Iterator[CheckFinding]:
    """Send weights in and out, and compare new parameters with those that come from weights."""
    for case in CASES:
        model, given = subject.model(case), random_weights(case.model)
        params, other = (model.init(jax.random.key(seed)) for seed in (0, 1))
        taken: Any = model.from_weights(given)
        if seen := difference(given, model.to_weights(taken)):
            expected = "to_weights(from_weights(weights)) returns the same weights, bit by bit"
            yield subject.finding(f"{expected} ({sizes(case)})", seen, "from_weights")
            return
        made: Any = jax.tree.structure(taken)
        init: Any = jax.tree.structure(params)
        if made != init:
            expected = "from_weights returns the structure that init returns"
            yield subject.finding(expected, f"{made} instead of {init}"[:400], "from_weights")
            return
        if not difference(model.to_weights(params), model.to_weights(other)):
            seen = "two keys gave the same weights, bit by bit"
            yield subject.finding("init depends on its key", seen, "init")
            return


def step_weights(subject: Subject) -> Iterator[CheckFinding]:
    """Load a training run that is under way, and save it."""
    for case in CASES:
        given, step = checkpoint_under_way(case.model), subject.step(case)
        step.load(given)
        saved = step.save()
        seen = {part: difference(getattr(given, part), getattr(saved, part)) for part in PARTS}
        if saved.updates != given.updates:
            seen["updates"] = f"it returned {saved.updates} instead of {given.updates}"
        for part in filter(seen.get, seen):
            expected = f"save() returns the {part} that load() was given ({sizes(case)})"
            yield subject.finding(expected, seen[part])
            return
