"""Donation: what a call of a step takes from its caller, and what a run asks of its arms."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import jax

from common.contract import fresh_checkpoint
from common.equality import random_chunk, random_hidden, random_weights
from common.errors import BakeoffError

if TYPE_CHECKING:
    from bench.worker.program import ProgramFacts
    from common.contract import TrainStep
    from common.equality import Case

WITHOUT = (
    "its program donates its state, and this run's baseline does not: measure it with "
    "`pytest bench --donate`"
)
WITH = (
    "its program donates nothing, and this run's baseline donates its state: give the style's "
    "factory a keyword, `donate: bool = False`, and let it donate where that is set, or leave out "
    "--donate"
)


def taken_arguments(step: TrainStep, case: Case) -> str:
    """Return in words that a call donates what it was called with; empty where it does not.

    Args:
        step: What `common.equality.make` returned; what it held is gone afterwards.
        case: The sizes, the step's own.
    """
    step.load(fresh_checkpoint(random_weights(case.model)))
    hidden, chunk = random_hidden(case), random_chunk(case, 1)
    jax.block_until_ready(step(hidden, chunk))
    given = {"`hidden`": hidden, "the chunk": chunk}
    taken = [
        name
        for name, arrays in given.items()
        if any(array.is_deleted() for array in arrays if isinstance(array, jax.Array))
    ]
    return f"your step donates {' and '.join(taken)}; donate only your state" if taken else ""


def donates(step: TrainStep, case: Case) -> bool:
    """Tell whether a step's program is told to donate any argument; one that is not JAX's is not.

    Args:
        step: What `common.equality.make` returned; what it held is gone afterwards.
        case: The sizes, the step's own.
    """
    step.load(fresh_checkpoint(random_weights(case.model)))
    program = step.program(random_hidden(case), random_chunk(case, 1))
    if program is None:
        return False
    return any(leaf.donated for leaf in jax.tree.leaves(program.lower().args_info))


def require_arguments_kept(step: TrainStep, case: Case) -> None:
    """Raise BakeoffError if a call donates hidden state or chunk: others are called with them."""
    if taken := taken_arguments(step, case):
        raise BakeoffError(taken)


def require_alike(program: ProgramFacts | None, *, donate: bool) -> None:
    """Raise BakeoffError unless a program donates as the run does; None is one that is not JAX's.

    A step that donates needs less memory and fewer copies, so others than its like say nothing.
    """
    if program is not None and (program.alias_bytes > 0) != donate:
        raise BakeoffError(WITH if donate else WITHOUT)


def live_arrays(backend: str) -> list[jax.Array]:
    """Return the arrays of a backend that are alive."""
    return jax.live_arrays(backend.partition(":")[0])


def live_bytes(step: TrainStep, case: Case, before: list[jax.Array], backend: str) -> int:
    """Return the bytes of arrays that a step keeps alive between two of its calls.

    Those are parameters, Adam's moments and counts, and whatever copies it has of them; what a call
    is given and returns is not among them.

    Args:
        step: What `common.equality.make` returned; what it held is gone afterwards.
        case: The sizes, the step's own.
        before: What was alive before it was made.
        backend: That it runs on.
    """
    step.load(fresh_checkpoint(random_weights(case.model)))
    arguments = random_hidden(case), random_chunk(case, 1)
    returned = jax.block_until_ready(step(*arguments))
    gc.collect()
    others = {id(array) for array in (*before, *jax.tree.leaves((arguments, returned)))}
    return sum(array.nbytes for array in live_arrays(backend) if id(array) not in others)
