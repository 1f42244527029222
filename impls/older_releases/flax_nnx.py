"""NNX from flax 0.8.4 on: it was young, and nearly every release renamed something."""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

import flax.nnx
import jax

from common.compatibility import TRACES, parse_release
from common.contract import Program
from common.library import Library, Names, make_program
from impls.libraries import flax_nnx as models

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
    "scan": ("nnx.scan with axes", (0, 10, 0)),
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
    library: Any = models.Nnx
    names: dict[str, Any] = {}
    if FLAX < (0, 12, 0):  # up to 0.9, another thing had that name
        names["List"] = list
    if FLAX < (0, 11, 0):
        names |= {"State": state, "Optimizer": optimizer()}
    if FLAX < (0, 10, 7):
        library.find_program = find_program
    if FLAX < (0, 10, 4):
        names["to_pure_dict"] = to_pure_dict
    if FLAX < (0, 10, 0):
        library.read_opt_state, library.fill_opt_state = read_opt_state, fill_opt_state
    entrant.nnx = vars(models)["nnx"] = Names(nnx, **names)


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


def read_opt_state(_: Any, optimizer: Any) -> Any:
    """Return optax's state out of an Optimizer, which until flax 0.10 had no boxes around it."""
    return optimizer.opt_state


def fill_opt_state(_: Any, optimizer: Any, opt_state: Any) -> None:
    """Replace optax's state in an Optimizer."""
    optimizer.opt_state = opt_state


def find_program(library: Any, step: Any, *arguments: Any) -> Program:
    """Return the stages of a step. NNX's jitted functions had none.

    They are those of JAX's function inside of one, with the arguments that it is called with.
    """
    if not hasattr(step, "inner"):
        return Library.find_program(library, step, *arguments)

    def stage(name: str) -> Callable[[], Any]:
        def make_stage(program: Program) -> Any:
            return getattr(program, name)()

        return lambda: find_inside(step, make_stage, *arguments)

    return Program(stage("lower"), stage("trace") if TRACES else None)


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
        raise Answer(take(make_program(jitted, *args, **named)))

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
