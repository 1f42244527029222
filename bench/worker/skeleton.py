"""The skeleton of a user's own step: its trees, with arrays of one element.

What Python does in a call depends on the trees that go in and come out, not on what is computed. So
a skeleton keeps the model's structure, static fields, sharing, types and ranks, the optimiser's
state and the style; its loss is the sum of what is trained, and its update touches each array. It
compiles in a second, whatever the model, and nothing hides Python's work.

Beside it is the outline: the real step, whose arrays have no numbers. It can be traced and lowered,
in no memory. Its trees have to be the skeleton's.
"""

from __future__ import annotations

import re
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.metrics import HOST_IN_A_ROW
from bench.worker.cold import lower
from bench.worker.step_arms import StepArms
from bench.worker.step_file import StepFile, is_array, is_key
from bench.workloads import SKELETON
from common.equality import NotEqualError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.cells import Arm
    from common.contract import Program

KEY_KINDS = ("threefry2x32", "rbg", "unsafe_rbg")
"""Names of JAX's generators of random numbers, by which keys of a type are made."""
ADDRESS = re.compile(r"\b0x[0-9a-f]+")
"""Address of an object in the text of a tree: another one in each making."""


class OutlineFile(StepFile):
    """A user's file whose model has outlines in place of arrays."""

    is_real = False

    def make_arrays(self) -> Sequence[Any]:
        """Return what stands for the model's arrays: their outlines."""
        return self.outlines

    def make_start(self) -> tuple[Any, dict[str, Any]]:
        """Return a new model, and the carried values for its first step."""
        params, others, state, static = self.put_together(self.make_arrays())
        return self.library.merge(params, others, static), self.carry(state)


class TracedFile(OutlineFile):
    """A user's file in a trace: its arrays are given, and have no numbers."""

    given: tuple[Sequence[Any], Any]
    """Arrays of the model, and the batch."""

    def make_arrays(self) -> Sequence[Any]:
        """Return what stands for the model's arrays."""
        return self.given[0]

    def make_batch(self) -> Any:
        """Return what stands for the batch."""
        return self.given[1]


class SkeletonFile(OutlineFile):
    """A user's file with arrays of one element; its loss and updates compute next to nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.real_optimiser = self.optimiser
        # Older releases of Flax have its class in the trees that are compared
        with_more = isinstance(self.optimiser, optax.GradientTransformationExtraArgs)
        kind = optax.GradientTransformationExtraArgs if with_more else optax.GradientTransformation
        self.optimiser = kind(self.make_opt_state, self.update_opt_state)

    def make_arrays(self) -> Sequence[Any]:
        """Return new arrays of the model."""
        return [make_element(outline) for outline in self.outlines]

    def make_batch(self) -> Any:
        """Return the batch."""
        return jax.tree.map(make_element, self.batch_outline)

    def make_opt_state(self, params: Any) -> Any:
        """Return the optimiser's first state; `init` sees the real sizes of parameters."""
        real = jax.tree.leaves(self.put_together(self.outlines)[0])
        shapes = jax.tree.unflatten(jax.tree.structure(params), real)
        # Moments are made like their parameters, and have the sharding of these
        shardings = {leaf.shape: find_sharding(leaf) for leaf in real}
        return jax.tree.map(
            lambda outline: make_element(outline, shardings.get(outline.shape)),
            jax.eval_shape(self.real_optimiser.init, shapes),
        )

    @cached_property
    def real_loss(self) -> tuple[Any, list[bool]]:
        """Type of the real loss, and whether it changes each of the model's other arrays.

        Some styles return those that change alone.
        """
        params, others, state, _ = self.put_together(self.outlines)
        begin, number = len(jax.tree.leaves(params)), len(jax.tree.leaves(others))

        def call(arrays: Any, batch: Any, carried: Any) -> Any:
            params, others, _, static = self.put_together(arrays)
            model = self.library.merge(params, others, static)
            loss, _ = super(SkeletonFile, self).compute_loss(model, carried, batch)
            return loss, self.library.split(model)[1]

        program = jax.make_jaxpr(call)(self.outlines, self.batch_outline, self.carry(state))
        return program.out_avals[0].dtype, find_changes(program, begin, number)

    @cached_property
    def opt_changes(self) -> list[bool]:
        """Whether the real update changes each array of the optimiser's state."""
        params = self.put_together(self.outlines)[0]
        state = jax.eval_shape(self.real_optimiser.init, params)
        update = self.real_optimiser.update
        program = jax.make_jaxpr(lambda state, grads: update(grads, state, grads)[1])(state, params)
        return find_changes(program, 0, len(jax.tree.leaves(state)))

    def update_opt_state(
        self, grads: Any, state: Any, _params: Any = None, **_more: Any
    ) -> tuple[Any, Any]:
        """Return updates, whole numbers, and the optimiser's state after them."""
        return jax.tree.map(jax.lax.neg, grads), touch_some(state, self.opt_changes)

    def compute_loss(self, model: Any, carried: Any, batch: Any) -> tuple[Any, Any]:
        """Return the sum of what is trained; touch whatever a step may change."""
        params, others, static = self.library.split(model)
        real_type, changes = self.real_loss
        self.library.replace_others(model, touch_some(others, changes))
        after = jax.tree.map(touch, carried)
        if "key" in carried:
            after["key"], _ = jax.random.split(carried["key"])
        # Each array has a part in it: JAX leaves unused ones out of a program
        total = add_up(params) + 0.0 * add_up((others, static, batch))
        return total.astype(real_type), after


class SkeletonArms(StepArms):
    """The arms of a skeleton. Their calls are its own; what is traced is the real step."""

    skipped_metrics = (HOST_IN_A_ROW, "compile")
    file: SkeletonFile

    def __init__(self, path: Path, backend: str, *, donate: bool) -> None:
        super().__init__(SkeletonFile(path), backend, donate=donate)
        self.workload += SKELETON

    def compile_ahead(self, arm: Arm) -> None:
        """Do nothing: a skeleton compiles in a second."""

    def require_repeatable(self) -> None:
        """Do nothing: the model's numbers are not used."""

    def describe_program(self, _step: Any) -> None:
        """Return None: nobody asks about a skeleton's program."""

    @cached_property
    def real_file(self) -> TracedFile:
        """The file, for traces of its real steps."""
        return TracedFile(self.file.path)

    def with_program[Result](self, arm: Arm, action: Callable[[Program], Result]) -> Result:
        """Do something with the stages of an arm's real step, whose arrays have no numbers."""
        results: list[Result] = []

        def trace(arrays: Any, batch: Any) -> None:
            self.real_file.given = arrays, batch
            # Copies would be traced as well
            arms = StepArms(
                self.real_file, self.backend, donate=self.donate, copy=lambda array: array
            )
            results.append(arms.with_program(arm, action))

        jax.eval_shape(trace, self.real_file.outlines, self.real_file.batch_outline)
        return results[0]

    def check_lowered(self, arm: Arm, lowered: jax.stages.Lowered) -> None:
        """Raise NotEqualError unless a real step, lowered, has the trees of the skeleton's."""
        ours = super().with_program(arm, lambda program: program.lower())
        optimisers = self.real_file.optimiser, self.file.optimiser
        both = zip((lowered, ours), optimisers, strict=True)
        real, skeleton = (describe_trees(program, optimiser) for program, optimiser in both)
        if difference := describe_tree_difference(real, skeleton):
            raise NotEqualError(f"its skeleton has other trees than its real step: {difference}")

    def measure_overhead(self, arm: Arm, step: Any) -> Mapping[str, float | None]:
        """Return pauses for garbage, and the seconds in which the real step is traced and lowered.

        Raises:
            NotEqualError: the real step has other trees than the skeleton's.
        """
        seconds: dict[str, float] = {}
        # Both are work of Python's thread: its time on a core is theirs, whatever else runs
        clock = time.process_time
        lowered = self.with_program(arm, lambda program: lower(program, seconds, clock))
        self.check_lowered(arm, lowered)
        return {**super().measure_overhead(arm, step), **seconds}

    def measure_facts(self, arm: Arm) -> dict[str, float | None]:
        """Return exact numbers of an arm that need no call: those of the real model."""
        params = jax.tree.leaves(self.file.put_together(self.file.outlines)[0])
        return super().measure_facts(arm) | {"parameters": sum(leaf.size for leaf in params)}


def find_changes(program: Any, begin: int, number: int) -> list[bool]:
    """Return for some of a program's inputs, from the first on, whether no output is that input."""
    given = program.jaxpr.invars[begin : begin + number]
    return [all(new is not old for new in program.jaxpr.outvars) for old in given]


def touch_some(tree: Any, changes: list[bool]) -> Any:
    """Return a tree in which each array that changes has passed an operation."""
    leaves, structure = jax.tree.flatten(tree)
    pairs = zip(leaves, changes, strict=True)
    return jax.tree.unflatten(structure, [touch(a) if changed else a for a, changed in pairs])


def find_sharding(outline: Any) -> Any:
    """Return the sharding of an array over several devices, or None."""
    return getattr(outline, "sharding", None)  # older releases of JAX do not have the attribute


def make_element(outline: Any, sharding: Any = None) -> Any:
    """Return an array of another one's type and rank: of one element, or of one in each shard."""
    shape, sharding = (1,) * len(outline.shape), sharding or find_sharding(outline)
    if sharding:
        shards = zip(outline.shape, sharding.shard_shape(outline.shape), strict=True)
        shape = tuple(size // max(1, part) for size, part in shards)
    array = make_numbers(outline, shape)
    return jax.device_put(array, sharding) if sharding else array


def make_numbers(outline: Any, shape: tuple[int, ...]) -> Any:
    """Return an array of a shape, of another one's type: of ones, or one key."""
    if is_key(outline):
        keys = (jax.random.key(0, impl=kind) for kind in KEY_KINDS)
        key = next(key for key in keys if key.dtype == outline.dtype)
        return jnp.broadcast_to(key, shape)
    number = int(jnp.issubdtype(outline.dtype, jnp.inexact))  # the sum of zeros would be no loss
    if getattr(outline, "weak_type", False):  # older releases of JAX do not tell
        return jnp.full(shape, np.full((), number, outline.dtype).item())
    return jnp.full(shape, number, outline.dtype)


def touch(array: Any) -> Any:
    """Return an array after an operation, of the same type: JAX hands an input on as an output."""
    if is_key(array):
        return array
    return ~array if array.dtype == bool else jax.lax.neg(array)


def add_up(tree: Any) -> Any:
    """Return the sum of a tree's arrays, without keys, in few operations: each is traced."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if is_array(leaf) and not is_key(leaf)]
    real = [jnp.real(leaf) if jnp.iscomplexobj(leaf) else leaf for leaf in leaves]
    rows = [jax.lax.reshape(array, (array.size,)) for array in real]
    numbers = [jax.lax.convert_element_type(row, np.float32) for row in rows]
    return jax.lax.concatenate(numbers, 0).sum() if numbers else jnp.zeros(())


def describe_trees(program: jax.stages.Lowered, optimiser: Any) -> list[str]:
    """Return structure and static parts of what a program takes and returns, and of each array.

    Addresses of objects are left out, and the functions of the optimiser, which are not the same;
    older releases of Flax have each of them as a part of its own.
    """
    trees: Any = program.args_info, program.out_info
    text = str(jax.tree.structure(trees)).replace(repr(optimiser), "the optimiser")
    for function in optimiser if isinstance(optimiser, tuple) else ():
        text = text.replace(repr(function), "its function")
    return [ADDRESS.sub("", text), *map(describe_array, jax.tree.leaves(trees))]


def describe_array(info: Any) -> str:
    """Return type and rank of an array that a program takes or returns."""
    aval = getattr(info, "aval", None) or getattr(info, "_aval", info)
    weak = " (weak)" * bool(getattr(aval, "weak_type", False))
    donated = " (donated)" * bool(getattr(info, "donated", False))
    return f"{aval.dtype}{weak} of rank {len(aval.shape)}{donated}"


def describe_tree_difference(real: list[str], skeleton: list[str]) -> str:
    """Return in words where the trees of two programs differ first; empty if they are the same."""
    if real[0] != skeleton[0]:
        characters = zip(real[0], skeleton[0], strict=False)
        first = next((i for i, (a, b) in enumerate(characters) if a != b), 0)
        begin = max(0, first - 20)
        ours, theirs = (text[begin : first + 40] for text in (skeleton[0], real[0]))
        return f"{ours!r} in place of {theirs!r}"
    pairs = zip(real[1:], skeleton[1:], strict=True)
    other = [f"array {i} is {b} in place of {a}" for i, (a, b) in enumerate(pairs) if a != b]
    return "" if not other else f"{other[0]}, and {len(other) - 1} more" if other[1:] else other[0]
