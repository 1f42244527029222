"""Checks of a user's own training step before it is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bench.cells import FLAT
from bench.worker.step_file import STATE_FORM, is_same_tree

if TYPE_CHECKING:
    from bench.worker.step_file import StepFile

NAMED = 3
"""Most arrays without a gradient that a remark names: their kind shows by then."""


def check_step(file: StepFile) -> list[str]:
    """Return remarks on a file's untrained arrays, and on styles that cannot train its model.

    Raises:
        BakeoffError: the batch changes, the loss is not one number, or nothing is trained.
    """
    batch = file.make_batch()
    if not file.has_model:
        return []
    (model, carried), (again, _) = file.make_start(), file.make_start()
    params, others, static = file.library.split(model)
    if not is_same_tree(params, file.library.split(again)[0]):
        raise file.problem(
            "make_model",
            "make_model returns other parameters in its second call; draw them with a fixed seed",
        )

    def value(params: Any, others: Any, carried: Any) -> Any:
        model = file.library.merge(params, others, static)
        loss, after = file.compute_loss(model, carried, batch)
        if what := describe_other_loss(loss):
            why = f"loss returns {what}; it has to be one floating-point number, the mean loss"
            raise file.problem("loss", why)
        return loss, after

    arguments = params, others, carried
    _, after = jax.eval_shape(value, *arguments)
    before = jax.eval_shape(lambda: carried)
    if list_types(after) != list_types(before):
        raise file.problem("loss", describe_other_state(before, after))
    if hasattr(jax, "debug_key_reuse"):  # from jax 0.4.26 on
        try:
            with jax.debug_key_reuse(True):
                jax.jit(value).lower(*arguments)
        except jax.errors.KeyReuseError as error:
            why = (
                "loss uses a key twice, and what it draws is the same: split it by jax.random.split"
            )
            raise file.problem("loss", why) from error
    grads = jax.make_jaxpr(jax.grad(value, has_aux=True))(*arguments)
    return [*find_untrained(file, params, grads.jaxpr), *find_unsuited(file, model)]


def describe_other_loss(loss: Any) -> str:
    """Return in words what a loss returns that is not one floating-point number; or empty."""
    dtype, shape = (getattr(loss, name, None) for name in ("dtype", "shape"))
    if isinstance(loss, int | float):  # of Python's
        dtype, shape = np.result_type(loss), ()
    if shape is None or dtype is None:
        return f"a {type(loss).__name__}"
    if shape != ():
        return f"an array of shape {shape}"
    return "" if jax.numpy.issubdtype(dtype, jax.numpy.floating) else f"a number of type {dtype}"


def find_untrained(file: StepFile, params: Any, grads: Any) -> list[str]:
    """Return in words which arrays get no gradient, if there are any.

    Their gradients are constant zeros in the traced program, so nothing needs to be compiled.

    Raises:
        BakeoffError: no array gets a gradient.
    """
    paths = jax.tree_util.tree_leaves_with_path(params)
    still = [
        jax.tree_util.keystr(path)
        for (path, _), has_none in zip(paths, find_zero_outputs(grads), strict=False)
        if has_none
    ]
    if len(still) == len(paths):
        if not paths:
            raise file.problem("make_model", "the model has no arrays to train")
        why = "no array of the model gets a gradient: loss does not depend on it"
        raise file.problem("loss", why)
    if not still:
        return []
    named = ", ".join(still[:NAMED]) + ", …" * (len(still) > NAMED)
    return [
        f"{file.path.name}: {len(still)} of {len(paths)} arrays get no gradient "
        f"({named}). If they are state, write {STATE_FORM}."
    ]


def find_unsuited(file: StepFile, model: Any) -> list[str]:
    """Return in words which styles cannot train a model, a sentence for each reason."""
    unsuited = file.library.find_unsuited(model)
    remarks = []
    for reason in dict.fromkeys(unsuited.values()):
        styles = [s for s, why in unsuited.items() if why == reason and s != FLAT]
        remarks.append(f"{file.path.name}: {reason}, so {', '.join(styles)} cannot train it.")
    return remarks


def find_zero_outputs(jaxpr: Any) -> list[bool]:
    """Return for each output of a jaxpr whether it is a constant zero: a literal or a broadcast."""
    zeros = {
        equation.outvars[0]
        for equation in jaxpr.eqns
        if equation.primitive.name == "broadcast_in_dim" and is_zero(equation.invars[0])
    }
    return [is_zero(var) or (not hasattr(var, "val") and var in zeros) for var in jaxpr.outvars]


def is_zero(var: Any) -> bool:
    """Tell whether a variable of a jaxpr is a literal zero."""
    return hasattr(var, "val") and not np.any(var.val)


def list_types(tree: Any) -> tuple[Any, dict[str, str]]:
    """Return a tree's structure, and path → shape and type of each leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    types = {jax.tree_util.keystr(p): f"{leaf.dtype}{[*leaf.shape]}" for p, leaf in leaves}
    return jax.tree.structure(tree), types


def describe_other_state(before: Any, after: Any) -> str:
    """Return in words how the state that a loss returns differs from the one that it is given."""
    (_, given), (_, returned) = list_types(before), list_types(after)
    for path in (*given, *returned):
        pair = given.get(path, "nothing"), returned.get(path, "nothing")
        if pair[0] != pair[1]:
            return (
                f"loss is given {pair[0]} as {path} and returns {pair[1]}: a step cannot go on "
                "from another state"
            )
    return "loss returns a state of another structure than it is given: a step cannot go on from it"
