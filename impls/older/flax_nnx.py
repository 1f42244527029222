"""NNX from flax 0.8.4 on: it was young, and nearly every release renamed something."""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import flax.nnx
import jax

from common.compatibility import TRACES, make_program, parse_release
from common.contract import Program
from common.steps import AtRest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CellType

nnx: Any = flax.nnx  # the type checker sees today's, and this is about the others
FLAX = parse_release(flax.__version__)
NEEDS = {
    "jit_tree": ("nnx.jit(graph=False)", (0, 12, 4)),
    "cached_partial": ("nnx.cached_partial", (0, 10, 4)),
    "jit_partial": ("nnx.jit_partial", (0, 12, 5)),
    "jax_jit": ("modules that are pytrees", (0, 11, 0)),
}
"""Style → its need of NNX, and the first release of Flax that meets it."""


def adapt(entrant: Any) -> None:
    """Let the entrant run under the release that is installed."""
    entrant.MISSING = {
        name: f"needs {what}, which flax {flax.__version__} does not have"
        for name, (what, since) in NEEDS.items()
        if since > FLAX
    }
    entrant.STYLES = {n: s for n, s in entrant.STYLES.items() if n not in entrant.MISSING}
    if FLAX < (0, 12, 1):
        nnx.Variable.set_value = lambda self, value: setattr(self, "value", value)
        nnx.Variable.get_value = lambda self: self.value
    names: dict[str, Any] = {}
    if FLAX < (0, 12, 0):  # up to 0.9, another thing had that name
        names["List"] = list
    if FLAX < (0, 11, 0):
        names |= {"State": state, "Optimizer": optimizer()}
    if FLAX < (0, 10, 7):
        entrant.stages_of = stages_of
    if FLAX < (0, 10, 4):
        names["to_pure_dict"] = to_pure_dict
    if FLAX < (0, 10, 0):
        entrant.load_training, entrant.save_training = (
            load_training,
            partial(save_training, entrant.split),
        )
    if names:
        entrant.nnx = Names(names)


class Names:
    """NNX with some names replaced."""

    def __init__(self, names: dict[str, Any]) -> None:
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(nnx, name)


def state(variables: Any) -> Any:
    """Return a State of Variables: until flax 0.11 it held something else in their place."""
    return nnx.State(jax.tree.map(lambda v: v.to_state(), variables, is_leaf=is_variable))


def is_variable(node: Any) -> bool:
    """Tell whether `node` is a box around an array."""
    return isinstance(node, nnx.Variable)


def to_pure_dict(params: Any) -> dict[str, Any]:
    """Return the arrays of a State, boxed or not, by the names of their modules."""

    def is_box(node: Any) -> bool:
        return isinstance(node, nnx.VariableState)

    return jax.tree.map(
        lambda leaf: leaf.value if is_box(leaf) else leaf, params.raw_mapping, is_leaf=is_box
    )


def optimizer() -> type:
    """Return NNX's Optimizer, which until flax 0.11 kept the model that it updates.

    The argument `wrt` came with flax 0.8.5; before, Params were updated as well.
    """

    class Optimizer(nnx.Optimizer):
        def __init__(self, model: Any, tx: Any, wrt: type) -> None:
            assert wrt is nnx.Param
            super().__init__(model, tx)

        def update(self, model: Any, grads: Any) -> None:
            assert model is self.model
            super().update(grads)

    return Optimizer


def load_training(pair: Any, rest: AtRest) -> Any:
    """Return a model and its Optimizer, whose state was optax's own until flax 0.10, loaded."""
    model, optimizer = pair
    nnx.update(model, rest.params)
    if rest.others:
        nnx.update(model, rest.others)
    optimizer.opt_state = rest.opt_state
    optimizer.step.value = jax.numpy.asarray(rest.updates, jax.numpy.uint32)
    return pair


def save_training(split: Callable[[Any], Any], pair: Any) -> AtRest:
    """Return the training of a model and its Optimizer, whose state was optax's own."""
    model, optimizer = pair
    params, others, _ = split(model)
    return AtRest(params, optimizer.opt_state, others, int(optimizer.step.value))


def stages_of(function: Any, *arguments: Any) -> Callable[..., Program]:
    """Return a function that makes the stages of one of NNX's jitted functions, which had none.

    They are those of JAX's function inside of it, with the arguments that it is called with.
    """

    def stages(*data: Any) -> Program:
        def stage(name: str) -> Callable[[], Any]:
            def make_stage(program: Program) -> Any:
                return getattr(program, name)()

            return lambda: find_inside(function, make_stage, *arguments, *data)

        return Program(stage("lower"), stage("trace") if TRACES else None)

    return stages


class Answer(Exception):  # noqa: N818 -- no error: it carries an answer out of a call
    """Carrier of an answer out of a call."""


def find_inside(function: Any, take: Callable[[Program], Any], *arguments: Any) -> Any:
    """Return what `take` makes of the program of JAX's function that `function` would call.

    It is taken inside that call, since tracing needs what NNX has noted of the modules by then.
    JAX's function is not called, so no module changes.
    """
    jitted = function.inner
    [cell] = [cell for cell in cells(function) if cell.cell_contents is jitted]

    def raise_answer(*args: Any, **named: Any) -> None:
        raise Answer(take(make_program(jitted, *args, named=named)))

    cell.cell_contents = raise_answer
    try:
        function(*arguments)
    except Answer as answer:
        return answer.args[0]
    finally:
        cell.cell_contents = jitted
    raise AssertionError("NNX's jitted function calls the one inside")


def cells(function: Any) -> Iterator[CellType]:
    """Yield the closure cells of a function, and those of the functions in them."""
    for cell in function.__closure__ or ():
        yield cell
        if isinstance(cell.cell_contents, FunctionType) and cell.cell_contents is not function:
            yield from cell.cell_contents.__closure__ or ()
