"""Checks of `common.contract`: names, shapes, dtypes, donation, weights in and out, compiling."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.check.subject import (
    DONATES,
    NOTE,
    PARTS,
    checkpoint_under_way,
    difference,
    named_arrays,
)
from bench.worker.counts import FIRST_CALLS, WARM_CALLS, compilations
from bench.worker.program import facts
from bench.worker.proof import taken_arguments
from common.contract import Checkpoint, Program
from common.equality import make, random_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check.subject import CheckFinding, Subject
    from common.contract import Chunk, Hidden
    from common.equality import Case


def file_contract(subject: Subject, _case: Case) -> Iterator[CheckFinding]:
    """Import the file, and look at the names that it has to define."""
    impls.declared(subject.name)  # raises what is wrong in the text of the file
    entrant = subject.entrant
    try:
        metadata.version(entrant.distribution)
    except (metadata.PackageNotFoundError, ValueError):
        yield subject.finding(
            "DISTRIBUTION is the name of an installed package; results give its version",
            f"DISTRIBUTION is {entrant.distribution!r}, which is not installed",
            "DISTRIBUTION",
        )
    if not entrant.styles:
        yield subject.finding("STYLES maps names to styles", f"it is {entrant.styles!r}", "STYLES")


def style_contract(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Make a step, and call each of its methods once; see what it donates."""
    style, expected = str(subject.style), "hidden state and chunk can be used again after a call"
    steps = {expected: subject.step(case)}
    if subject.entrant.can_donate(style):
        donating = make(subject.entrant.style(style, donate=True), case)
        steps[f"{expected}, with donate=True too"] = donating
    for expected, step in steps.items():
        if taken := taken_arguments(step, case):
            yield subject.finding(expected, taken)
            return
    step, arguments = subject.step(case), (case.hidden(), case.data(1))
    _hidden, _loss = step(*arguments)
    returned: dict[str, tuple[Any, type]] = {"save": (step.save(), Checkpoint)}
    if subject.jax:
        returned["program"] = step.program(*arguments), Program
    for name, (value, kind) in returned.items():
        if not isinstance(value, kind):
            expected = f"{name}() returns a common.contract.{kind.__name__}"
            yield subject.finding(expected, f"it returned {type(value).__name__}", name)
            return
    if subject.jax and facts(returned["program"][0]).donates:
        yield subject.finding(DONATES, "it does so always", severity=NOTE)


def step_shapes(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare shape, dtype and class of the arrays that a step returns and saves."""
    call, kind = subject.calls(case)[0], jax.Array if subject.jax else object
    right = {"hidden": call.hidden, "loss": np.float32(0)}
    if wrong := _unlike({"hidden": call.after, "loss": call.loss}, right, kind):
        yield subject.finding("a call returns hidden state and loss as float32 JAX arrays", wrong)
    for part in PARTS:
        if wrong := _unlike(getattr(call.saved, part), random_weights(case.model), np.ndarray):
            yield subject.finding(f"save().{part} is float32 in NumPy arrays", wrong, "save")


def model_shapes(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare shape and dtype of the arrays that the file's model makes."""
    model, config = subject.entrant.build(case.model), case.model
    params = model.init(jax.random.key(0))
    if wrong := _unlike(model.to_weights(params), random_weights(config)):
        expected = (
            "to_weights returns float32 kernels (in, out) and biases; the rows of a cell's kernel "
            "are the hidden state's, then those of its input"
        )
        yield subject.finding(expected, wrong, "init", "to_weights")
    state = tuple(np.zeros(config.width, np.float32) for _ in range(config.layers))
    step: Any = jax.jit(model.step) if subject.jax else model.step
    after, logits = step(params, state, np.int32(0))
    right = {"state": state, "logits": np.zeros(config.vocab_size, np.float32)}
    if wrong := _unlike({"state": after, "logits": logits}, right):
        expected = "step returns state and logits of one character in float32"
        yield subject.finding(expected, wrong, "step", "build")


def _unlike(given: Any, expected: Any, kind: Any = object) -> str:
    """Return in words which arrays are missing, superfluous or of another sort; empty if none."""

    def sort(value: Any) -> str:
        return f"{np.asarray(value).dtype}{list(np.shape(value))}"

    right = {name: sort(value) for name, value in named_arrays(expected).items()}
    ours = {
        name: sort(value) if isinstance(value, kind) else f"a {type(value)}"
        for name, value in named_arrays(given).items()
    }
    wrong = [
        f"{name} is {ours.get(name, 'missing')} instead of {right.get(name, 'nothing')}"
        for name in right | ours
        if ours.get(name) != right.get(name)
    ]
    return "; ".join(wrong[:4])


def model_weights(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Send weights in and out, and compare new parameters with those that come from weights."""
    model, given = subject.entrant.build(case.model), random_weights(case.model)
    params, other = (model.init(jax.random.key(seed)) for seed in (0, 1))
    taken: Any = model.from_weights(given)
    structure: Any = jax.tree.structure(taken)
    right: Any = jax.tree.structure(params)
    if seen := difference(given, model.to_weights(taken)):
        expected = "to_weights(from_weights(weights)) returns the same weights, bit by bit"
        yield subject.finding(expected, seen, "from_weights")
    elif structure != right:
        expected = "from_weights returns the structure that init returns"
        yield subject.finding(expected, f"{structure} instead of {right}", "from_weights")
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


def retrace(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Count the programs that warm calls compile, and calls after a second load."""
    step, hidden = subject.step(case), case.hidden()
    chunks = [case.data(seed) for seed in range(FIRST_CALLS + WARM_CALLS)]

    def call(hidden: Hidden, chunks: list[Chunk]) -> Hidden:
        for chunk in chunks:
            hidden, _ = jax.block_until_ready(step(hidden, chunk))
        return hidden

    hidden = call(hidden, chunks[:FIRST_CALLS])
    programs = compilations()
    hidden = call(hidden, chunks[FIRST_CALLS:])
    if compiled := programs():
        yield subject.finding(
            f"after {FIRST_CALLS} calls, nothing is compiled again",
            f"{WARM_CALLS} further calls compiled {compiled} programs: perhaps each call jits a "
            "new function, or passes an argument that jit takes for another one each time",
        )
        return
    subject.step(case)  # the same one, loaded again
    call(hidden, chunks[:FIRST_CALLS])
    if compiled := programs():
        yield subject.finding(
            "after a second load(), nothing is compiled again",
            f"a load() and {FIRST_CALLS} calls compiled {compiled} programs: perhaps load() makes "
            "its model or jits its step anew; build it once, outside of load",
            severity=NOTE,  # what is timed comes after that
        )
