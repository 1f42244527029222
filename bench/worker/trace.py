"""The traced program of a user's loss and its gradients: what it uses, and what it leaves alone."""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from functools import cache
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bench.worker.step_file import read_bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.worker.step_file import StepFile


@cache
def require_repeatable(file: StepFile) -> None:
    """Raise BakeoffError if the model or what the loss draws is another one each time."""
    start, again = file.make_start(), file.make_start()
    for what, part in (("parameters", 0), ("state", 1)):
        first, second = (file.library.split(model)[part] for model, _ in (start, again))
        file.require_same("make_model", what, first, second)
    file.require_same("make_model", "state", start[1], again[1])
    batch = file.make_batch()

    def trace(start: tuple[Any, Any]) -> Counter[tuple[Any, ...]]:
        model, carried = start
        params, others, static = file.library.split(model)

        def value(params: Any, others: Any, carried: Any) -> Any:
            return file.compute_loss(file.library.merge(params, others, static), carried, batch)

        return count_operations(jax.make_jaxpr(value)(params, others, carried))

    operations = trace(start)
    if operations == trace(again):
        return
    if any(operations != trace(start) for _ in range(2)):  # it may change in every second trace
        why = (
            "loss is another program each time it is traced: take a `key`, draw numbers with a "
            "fixed seed, and use no counter"
        )
        raise file.problem("loss", why)
    why = "make_model draws other numbers in its second call; draw them with a fixed seed"
    raise file.problem("make_model", why)


def count_operations(jaxpr: Any) -> Counter[tuple[Any, ...]]:
    """Return how often each operation occurs with which numbers, in whatever order.

    Two traces of a function differ in it if Python drew other numbers, or took another way.
    """
    counts = Counter[tuple[Any, ...]](read_bits(list(getattr(jaxpr, "consts", ()))))
    for equation in jaxpr.eqns:
        values = equation.params.values()
        numbers = [np.asarray(var.val).tobytes() for var in equation.invars if hasattr(var, "val")]
        numbers += [repr(value).encode() for value in values if is_plain_number(value)]
        counts[equation.primitive.name, *numbers] += 1
        for inner in list_inner(values):
            counts += count_operations(inner)
    return counts


def is_plain_number(value: Any) -> bool:
    """Tell whether an operation's parameter is a number, or a tuple of them."""
    return isinstance(value, int | float) or (
        isinstance(value, tuple) and all(map(is_plain_number, value))
    )


def list_inner(values: Any) -> Iterator[Any]:
    """Yield the programs among an operation's parameters."""
    for value in values:
        if hasattr(value, "eqns"):
            yield value
        elif isinstance(value, tuple | list):
            yield from list_inner(value)


def draws_constants(jaxpr: Any, given: Iterable[Any]) -> bool:
    """Tell whether a program draws random numbers by a key that depends on nothing given.

    What a loop takes counts as given: its next turns may get other values.

    Args:
        jaxpr: The program.
        given: Variables that have other values in other calls.
    """
    known = set(given)
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        is_given = [not hasattr(var, "val") and var in known for var in equation.invars]
        if name == "random_bits" and not any(is_given):
            return True
        for inner in list_inner(equation.params.values()):
            program = getattr(inner, "jaxpr", inner)
            taken = program.invars
            if name not in ("scan", "while"):
                is_taken = is_given[len(is_given) - len(taken) :]  # a branch has no condition
                taken = list(compress(taken, is_taken))
            if draws_constants(program, taken):
                return True
        if any(is_given):
            known |= set(equation.outvars)
    return False


def find_used(jaxpr: Any, outputs: Sequence[Any]) -> set[Any]:
    """Return the variables of a program that some of its outputs depend on."""
    used = {var for var in outputs if not hasattr(var, "val")}
    for equation in reversed(jaxpr.eqns):
        if used & set(equation.outvars):
            used |= {var for var in equation.invars if not hasattr(var, "val")}
    return used


def find_zeros(jaxpr: Any, outputs: Sequence[Any]) -> list[bool]:
    """Return for each output whether it is a constant zero: a literal or a broadcast."""

    def is_zero(var: Any) -> bool:
        return hasattr(var, "val") and not np.any(var.val)

    zeros = {
        equation.outvars[0]
        for equation in jaxpr.eqns
        if equation.primitive.name == "broadcast_in_dim" and is_zero(equation.invars[0])
    }
    return [is_zero(var) or (not hasattr(var, "val") and var in zeros) for var in outputs]


def locate_operation(error: BaseException) -> str:
    """Return file and line of the operation that an error of JAX is about; empty if unknown.

    JAX chains the operation's own stack as the cause. The innermost frame outside of JAX counts.
    """
    own = str(Path(jax.__file__).parent)
    stack = traceback.extract_tb(error.__cause__.__traceback__) if error.__cause__ else []
    frames = [frame for frame in stack if not frame.filename.startswith(own)]
    if not frames:
        return ""
    path = Path(frames[-1].filename)
    folders = sorted(filter(None, sys.path), key=len, reverse=True)
    name = next((path.relative_to(f) for f in folders if path.is_relative_to(f)), path.name)
    return f"{name}:{frames[-1].lineno}"
