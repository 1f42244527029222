"""Checks of `common.contract`: names, shapes, dtypes, donation, weights in and out, compiling."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.check import DONATES, NOTE, list_arrays
from bench.worker.arms import find_program
from bench.worker.counts import FIRST_CALLS, WARM_CALLS, count_step, watch_compilations
from bench.worker.program import facts
from bench.worker.proof import find_donated_arguments
from common.contract import Checkpoint, Program, map_arrays
from common.equality import first_calls, make, random_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check import CheckFinding, Subject
    from common.equality import Case


def check_file(subject: Subject, _case: Case) -> Iterator[CheckFinding]:
    """Import the file, and look at the names that it has to define."""
    impls.read_declaration(subject.source)  # raises what is wrong in the text of the file
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


def check_style(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Make a step, and call each of its methods once; see what it donates."""
    style, expected = str(subject.style), "hidden state and chunk can be used again after a call"
    steps = {expected: subject.step(case)}
    if subject.entrant.can_donate(style):
        donating = make(subject.entrant.style(style, donate=True), case)
        steps[f"{expected}, with donate=True too"] = donating
    for expected, step in steps.items():
        if taken := find_donated_arguments(step, case):
            yield subject.finding(expected, taken)
            return
    if subject.jax:
        program = find_program(subject.step(case), case)
        if not isinstance(program, Program):
            expected = "program() returns a common.contract.Program"
            yield subject.finding(expected, f"it returned {type(program).__name__}", "program")
        elif facts(program).donates:
            yield subject.finding(DONATES, "it does so always", severity=NOTE)


def check_step_shapes(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare shape, dtype and class of the arrays that a step returns."""
    call = next(first_calls(subject.step(case), case))
    kind = jax.Array if subject.jax else object
    right = {"hidden": call.hidden, "loss": np.float32(0)}
    if wrong := _describe_mismatch({"hidden": call.after, "loss": call.loss}, right, kind):
        yield subject.finding("a call returns hidden state and loss as float32 JAX arrays", wrong)


def check_model_shapes(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Compare shape and dtype of the arrays that the file's model makes."""
    model, config = subject.entrant.build(case.model), case.model
    params = model.init(jax.random.key(0))
    if wrong := _describe_mismatch(model.to_weights(params), random_weights(config)):
        expected = (
            "to_weights returns float32 kernels (in, out) and biases; the rows of a cell's kernel "
            "are the hidden state's, then those of its input"
        )
        yield subject.finding(expected, wrong, "init", "to_weights")
    state = tuple(np.zeros(config.width, np.float32) for _ in range(config.layers))
    step: Any = jax.jit(model.step) if subject.jax else model.step
    after, logits = step(params, state, np.int32(0))
    right = {"state": state, "logits": np.zeros(config.vocab_size, np.float32)}
    if wrong := _describe_mismatch({"state": after, "logits": logits}, right):
        expected = "step returns state and logits of one character in float32"
        yield subject.finding(expected, wrong, "step", "build")


def _describe_mismatch(given: Any, expected: Any, kind: Any = object) -> str:
    """Return in words which arrays are missing, superfluous or of another sort; empty if none."""

    def sort(value: Any) -> str:
        return f"{np.asarray(value).dtype}{list(np.shape(value))}"

    right = {name: sort(value) for name, value in list_arrays(expected).items()}
    ours = {
        name: sort(value) if isinstance(value, kind) else f"a {type(value)}"
        for name, value in list_arrays(given).items()
    }
    wrong = [
        f"{name} is {ours.get(name, 'missing')} instead of {right.get(name, 'nothing')}"
        for name in right | ours
        if ours.get(name) != right.get(name)
    ]
    return "; ".join(wrong[:4])


def check_model_weights(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Check that weights come out unchanged, and the structure and randomness of new parameters."""
    model, given = subject.entrant.build(case.model), random_weights(case.model)
    params, other = (model.init(jax.random.key(seed)) for seed in (0, 1))
    taken: Any = model.from_weights(given)
    structure: Any = jax.tree.structure(taken)
    right: Any = jax.tree.structure(params)
    if seen := _describe_difference(given, model.to_weights(taken)):
        expected = "to_weights(from_weights(weights)) returns the same weights, bit by bit"
        yield subject.finding(expected, seen, "from_weights")
    elif structure != right:
        expected = "from_weights returns the structure that init returns"
        yield subject.finding(expected, f"{structure} instead of {right}", "from_weights")
    elif not _describe_difference(model.to_weights(params), model.to_weights(other)):
        seen = "two keys gave the same weights, bit by bit"
        yield subject.finding("init depends on its key", seen, "init")


def check_step_weights(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Load a training run that is under way, and save it."""
    weights, mu, squares = (random_weights(case.model, seed) for seed in range(3))
    given = Checkpoint(weights, mu, map_arrays(np.square, squares), updates=7)
    step = subject.step(case)
    step.load(given)
    if seen := _describe_difference(given, step.save(), np.ndarray | int):
        expected = "save() returns what load() was given, in NumPy arrays, bit by bit"
        yield subject.finding(expected, seen, "save")


def _describe_difference(given: Any, returned: Any, kind: Any = object) -> str:
    """Return in words how arrays differ from the given ones, bit by bit; empty if equal."""
    if wrong := _describe_mismatch(returned, given, kind):
        return wrong
    arrays = list_arrays(returned)
    for name, array in list_arrays(given).items():
        ours, theirs = np.asarray(array), np.asarray(arrays[name])
        if not np.array_equal(ours, theirs):
            away = np.abs(ours.astype(np.float64) - theirs)
            count, most = np.sum(away > 0), away.max()
            seen = f"{name} differs in {count} of {away.size} numbers, by up to {most:.2g}"
            return seen + "; it is the transpose" * np.array_equal(ours.T, theirs)
    return ""


def check_retracing(subject: Subject, case: Case) -> Iterator[CheckFinding]:
    """Count the programs that warm calls compile, and those that calls after a second load do."""
    step = subject.step(case)
    if compiled := count_step(step, case)["compilations_warm"]:
        yield subject.finding(
            f"after {FIRST_CALLS} calls, nothing is compiled again",
            f"{WARM_CALLS} further calls compiled {compiled} programs: perhaps each call jits a "
            "new function, or passes an argument that jit takes for another one each time",
        )
        return
    step.load(case.fresh())  # not counted: `count_step` cleared the caches
    hidden, programs = case.hidden(), watch_compilations()
    step.load(case.fresh())
    for seed in range(FIRST_CALLS):
        hidden, _ = jax.block_until_ready(step(hidden, case.data(seed)))
    if compiled := programs():
        yield subject.finding(
            "after a second load(), nothing is compiled again",
            f"a load() and {FIRST_CALLS} calls compiled {compiled} programs: perhaps load() makes "
            "its model or jits its step anew; build it once, outside of load",
            severity=NOTE,  # what is timed comes after that
        )
