"""Shapes and dtypes, of what comes out of the model and the step, and inside of programs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from bench.check.finding import Finding
from bench.check.subject import RAGGED, SMALL, array, arrays, sizes
from common.equality import random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.check.subject import Subject
    from common.equality import Case

CASES = (SMALL, RAGGED)
NARROW = ("float64", "float16", "bfloat16", "complex128", "complex64")
"""Besides, any dtype of eight bits or fewer that is called a float."""


def shapes_of_model(subject: Subject) -> Iterator[Finding]:
    """Compare the shapes of fresh weights, of a character's state and of its logits."""
    for case in CASES:
        model, config = subject.model(case), case.model
        params = subject.initial(case)
        yield from of_weights(subject, case, model.to_weights(params), "init", "to_weights")
        state = tuple(np.zeros(config.width, np.float32) for _ in range(config.layers))
        state = jax.device_put(state) if subject.jax else state
        step: Any = jax.jit(model.step) if subject.jax else model.step
        after, logits = step(params, state, np.int32(0))
        wanted = [(config.width,)] * config.layers
        yield from compared(subject, case, "step's state", wanted, after, "step")
        yield from compared(
            subject, case, "step's logits", [(config.vocab_size,)], [logits], "step"
        )


def of_weights(subject: Subject, case: Case, weights: Any, *names: str) -> Iterator[Finding]:
    """Compare the shapes of weights that came out."""
    if len(weights.cells) != case.model.layers:
        yield Finding(
            f"to_weights returns a cell for each layer ({sizes(case)})",
            f"{len(weights.cells)} cells",
            subject.at("to_weights"),
        )
        return
    for (name, ours), (_, theirs) in zip(
        arrays(weights), arrays(random_weights(case.model)), strict=True
    ):
        if ours.shape != theirs.shape:
            yield Finding(
                f"{name} of a fresh model is {theirs.shape}: kernels are (in, out), and a cell's "
                f"rows are the hidden state's, then those of what is below ({sizes(case)})",
                f"it is {ours.shape}",
                subject.at(*names),
            )


def compared(
    subject: Subject, case: Case, what: str, wanted: list[Any], found: Any, *names: str
) -> Iterator[Finding]:
    """Compare the shapes of a few arrays."""
    shapes = [np.shape(value) for value in found]
    if shapes != wanted:
        expected = f"{what}: {', '.join(map(str, wanted))} ({sizes(case)})"
        yield Finding(expected, ", ".join(map(str, shapes)) or "nothing", subject.at(*names))


def shapes_of_step(subject: Subject) -> Iterator[Finding]:
    """Compare the shapes of hidden state, loss, and saved weights and moments."""
    for case in CASES:
        step = subject.step(case)
        hidden, loss = step(random_hidden(case), random_chunk(case, 1))
        wanted = [(case.batch, case.model.width)] * case.model.layers
        style = (subject.style_name, "STYLES")
        yield from compared(subject, case, "the hidden state of a call", wanted, hidden, *style)
        yield from compared(subject, case, "the loss of a call", [()], [loss], *style)
        saved = step.save()
        for weights in (saved.weights, saved.mu, saved.nu):
            yield from of_weights(subject, case, weights, *style)


def dtypes_of_model(subject: Subject) -> Iterator[Finding]:
    """See that fresh parameters and the logits of a character are float32."""
    model = subject.model(SMALL)
    params = subject.initial(SMALL)
    wrong = [f"{n} is {v.dtype}" for n, v in arrays(model.to_weights(params)) if not single(v)]
    if wrong:
        where = subject.at("init", "build")
        yield Finding("weights of a fresh model are float32", ", ".join(wrong), where)
    if not subject.jax:
        return
    state = jax.device_put((np.zeros(SMALL.model.width, np.float32),) * SMALL.model.layers)
    closed = jax.make_jaxpr(model.step)(params, state, jax.numpy.int32(0))
    yield from inside(closed.jaxpr, "model.step", subject.at("step", "build"))


def dtypes_of_step(subject: Subject) -> Iterator[Finding]:
    """See that a call returns float32 in the right kind of array, and computes in nothing else."""
    step = subject.step(SMALL)
    arguments = random_hidden(SMALL), random_chunk(SMALL, 1)
    hidden, loss = step(*arguments)
    where = subject.style_at
    named = {f"hidden[{i}]": rows for i, rows in enumerate(hidden)} | {"the loss": loss}
    kind = {
        name: f"{type(value).__module__}.{type(value).__name__}" for name, value in named.items()
    }
    foreign = [
        f"{name} is a {kind[name]}"
        for name, value in named.items()
        if subject.jax and not isinstance(value, jax.Array)
    ]
    if foreign:
        yield Finding(
            "what a call returns is a jax.Array, which the clock can wait for (an entrant of "
            "another kind declares JAX = False)",
            ", ".join(foreign),
            where,
        )
    wrong = [f"{n} is {array(v).dtype}" for n, v in named.items() if not single(array(v))]
    if wrong:
        yield Finding("what a call returns is float32", ", ".join(wrong), where)
    saved = step.save()
    for part in ("weights", "mu", "nu"):
        wrong = [
            f"{name} is {dtype if of is np.ndarray else 'no NumPy array'}"
            for name, dtype, of in kinds(getattr(saved, part))
            if of is not np.ndarray or dtype != "float32"
        ]
        if wrong:
            expected = f"save().{part} is float32 in NumPy's arrays"
            yield Finding(expected, ", ".join(wrong), where)
    program = step.program(*arguments)
    if program is not None:
        yield from inside(program.jaxpr().jaxpr, "the compiled step", where)


def single(value: np.ndarray[Any, Any]) -> bool:
    """Return whether an array is float32."""
    return bool(value.dtype == np.float32)


def kinds(weights: Any) -> Iterator[tuple[str, str, type]]:
    """Yield name, dtype and type of each array."""
    layers = [*weights.cells, weights.readout]
    given = [value for layer in layers for value in (layer.kernel, layer.bias)]
    for (name, found), value in zip(arrays(weights), given, strict=True):
        yield name, str(found.dtype), type(value)


def inside(jaxpr: Jaxpr, what: str, where: str) -> Iterator[Finding]:
    """Look for values of another precision in a program, nested ones included."""
    found = Counter(dtypes(jaxpr))
    for dtype, count in found.items():
        yield Finding(
            f"{what} computes in float32 alone",
            f"{count} of its values are {dtype}; the first one comes from `{first(jaxpr, dtype)}`",
            where,
        )


def dtypes(jaxpr: Jaxpr) -> Iterator[str]:
    """Yield the dtype of each value that is not as precise as float32, or more so."""
    for equation in equations(jaxpr):
        for variable in equation.outvars:
            dtype = str(getattr(variable.aval, "dtype", ""))
            if dtype in NARROW or dtype.startswith(("float8", "float4")):
                yield dtype


def first(jaxpr: Jaxpr, dtype: str) -> str:
    """Return the operation that first makes a value of this dtype."""
    for equation in equations(jaxpr):
        if any(str(getattr(v.aval, "dtype", "")) == dtype for v in equation.outvars):
            return str(equation.primitive.name)
    raise AssertionError("there is one")


def equations(jaxpr: Jaxpr) -> Iterator[Any]:
    """Yield the equations of a program, those of what it contains first."""
    for equation in jaxpr.eqns:
        for inner in within(equation.params.values()):
            yield from equations(inner)
        yield equation


def within(params: Iterable[Any]) -> Iterator[Jaxpr]:
    """Yield the programs among an equation's parameters."""
    for param in params:
        if isinstance(param, (tuple, list)):
            yield from within(param)
        elif isinstance(param, ClosedJaxpr):
            yield param.jaxpr
        elif isinstance(param, Jaxpr):
            yield param
