"""What the harness does with the models of a library, and with the steps that train them."""

from __future__ import annotations

from inspect import signature
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from common.compatibility import TRACES
from common.contract import Program
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from common.contract import ModelLoss, ModelStyle, Params


class AtRest(NamedTuple):
    """A training of any model at rest, in the structures of its library."""

    params: Params
    opt_state: Any
    others: Any = ()
    """Arrays of the model that are not trained, and that a step may change: statistics, counters of
    random numbers."""
    carried: Any = ()
    """Values that the loss returns and gets in the next step, by name: its state, its key."""


class Library:
    """A library's models and steps; the defaults suit parameters that are a pytree of arrays.

    The state of a step is a tuple: the parameters or the model, then other arrays, if the step
    takes them by themselves, and last the optimiser's state.
    """

    makes_while_tracing = True
    """Whether a model can be made in a trace, where its numbers are not computed."""

    def is_model(self, model: Any) -> bool:  # noqa: ARG002
        """Tell whether something is a model of this library."""
        return False

    def split(self, model: Any) -> tuple[Params, Any, Any]:
        """Take a model apart: trained arrays, other arrays that a step may change, and the rest."""
        return model, (), None

    def merge(self, params: Params, others: Any, static: Any) -> Any:  # noqa: ARG002
        """Put a model together again; also while tracing."""
        return params

    def bind(self, model: Any, loss_fn: ModelLoss) -> tuple[Any, ModelLoss]:
        """Return a model and a loss as the library's styles take them."""
        return model, loss_fn

    def split_state(self, made: Any) -> tuple[Any, Any]:
        """Split a file's model, where a library keeps state beside parameters, from that state."""
        return made, ()

    def find_unsuited(self, model: Any) -> Mapping[str, str]:  # noqa: ARG002
        """Return the styles that cannot train a model, and why."""
        return {}

    def replace_others(self, model: Any, others: Any) -> None:
        """Give a model other arrays in place, where the library's steps change them so."""

    def put(self, outlines: tuple[Any, ...], rest: AtRest, static: Any) -> tuple[Any, ...]:
        """Return the state of a threaded step with the arrays of a training at rest.

        Args:
            outlines: A state of the step, whose arrays may be outlines.
            rest: The training.
            static: The rest of the model, from `split`.
        """
        first, *others, _ = outlines
        model = rest.params
        # Of some libraries, parameters are a model, too
        structure: Any = jax.tree.structure(first)
        if self.is_model(first) and structure != jax.tree.structure(model):
            model = self.merge(rest.params, rest.others, static)
        # Where the RNN has none, the outline of none is right
        return (model, *(rest.others or none for none in others), rest.opt_state)

    def take(self, state: tuple[Any, ...]) -> AtRest:
        """Return the training at rest that the state of a step is."""
        first, *others, opt_state = state
        if self.is_model(first):
            params, rest, _ = self.split(first)
            return AtRest(params, opt_state, rest)
        return AtRest(first, opt_state, *others)

    def fill(self, state: tuple[Any, ...], rest: AtRest) -> None:
        """Replace the arrays of a state in place, for steps that change it in place."""
        raise NotImplementedError

    def donate(self, style: ModelStyle) -> ModelStyle:
        """Return a style whose step donates its state."""
        return replace_names(style, jax=Names(jax, jit=donating_jit))

    def find_program(self, step: Any, *arguments: Any) -> Program:
        """Return the stages of the program that a call of a step runs.

        A function without stages runs more than the program of the jitted one that it calls, whose
        arguments have the names of the function's own.
        """
        if has_stages(step):
            return make_program(step, *arguments)
        jitted = [c.cell_contents for c in step.__closure__ or () if has_stages(c.cell_contents)]
        if len(jitted) != 1:
            raise BakeoffError(
                f"a step without stages uses one jitted function, but this one {len(jitted)}: put "
                "them into one, or hand over the one whose program it runs, as in "
                "functional(train_step, model, optimiser, jitted)"
            )
        [function] = jitted
        given = signature(step).bind(*arguments).arguments
        used = (given[name] for name in signature(function).parameters)
        return make_program(function, *used, whole=False)

    def find_bound_program(self, step: Any, state: tuple[Any, ...], *data: Any) -> Program:
        """Return the stages of a step that has its state already, and no stages.

        It is around one that takes the state.
        """
        return self.find_program(step.__wrapped__, *state, *data)


class Pairs(Library):
    """Models that are a pair: parameters, and a function that applies them."""

    def is_model(self, model: Any) -> bool:  # noqa: D102 -- Library says it
        return is_pair(model)

    def split(self, model: tuple[Params, Any]) -> tuple[Params, Any, Any]:  # noqa: D102
        return model[0], (), model[1]

    def merge(self, params: Params, others: Any, static: Any) -> Any:  # noqa: ARG002, D102
        return params, static


def is_pair(model: Any) -> bool:
    """Tell whether something is a pair of parameters and a function that applies them."""
    return isinstance(model, tuple) and len(model) == 2 and callable(model[1])


PLAIN = Library()
"""The defaults: parameters are a pytree of arrays, and there is no library."""


def has_stages(function: Any) -> bool:
    """Tell whether a function is jitted in a way that offers the stages of its program."""
    return hasattr(function, "lower") or hasattr(function, "trace")


def make_program(jitted: Any, *arguments: Any, whole: bool = True, **named: Any) -> Program:
    """Return the stages of a call of a jitted function; some libraries wrap those of JAX.

    Args:
        jitted: The function.
        arguments: Positional arguments of the call.
        whole: Whether a call of the step runs nothing else.
        named: Keyword arguments of the call.
    """

    def stage(name: str, inner: str) -> Callable[[], Any]:
        def make_stage() -> Any:
            made = getattr(jitted, name)(*arguments, **named)
            return getattr(made, inner, made)

        return make_stage

    if TRACES and hasattr(jitted, "trace"):
        return Program.from_trace(stage("trace", "traced"), whole=whole)
    return Program(stage("lower", "lowered"), trace=None, whole=whole)


def outline(begin: Callable[[], tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    """Return a step, its state, and a static part, with outlines for the state's arrays.

    Nothing is computed: random numbers and an optimiser's zeros would be compiled, and thrown away.
    """
    made: list[Any] = []

    def trace() -> None:
        step, state, static = begin()
        made.extend((step, jax.tree.map(make_outline, state), static))

    jax.eval_shape(trace)
    step, state, static = made
    return step, state, static


def make_outline(leaf: Any) -> Any:
    """Return shape and type of an array; any other leaf as it is."""
    if hasattr(leaf, "shape"):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    return leaf


def donating_jit(function: Callable[..., Any]) -> Any:
    """Return `jax.jit` of a step that donates all but its last two arguments, which are data."""
    return jax.jit(function, donate_argnums=tuple(range(len(signature(function).parameters) - 2)))


class Names:
    """A module with some of its names replaced."""

    def __init__(self, module: ModuleType | Names, **names: Any) -> None:
        vars(self).update(names, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def replace_names(function: Any, **names: Any) -> Any:
    """Return a function in whose text some names stand for something else.

    So a style is written as its users write it, and its own `jit` can still be told to donate.
    """
    code, known = function.__code__, function.__globals__ | names
    return FunctionType(code, known, None, function.__defaults__, function.__closure__)
