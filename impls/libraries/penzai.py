"""Models of Penzai."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from penzai import pz
from penzai.toolshed import basic_training
from penzai.toolshed.basic_training import InternalTrainerState, StatefulTrainer

from common.library import AtRest, Library, Names, make_program, replace_names

if TYPE_CHECKING:
    from common.contract import ModelStyle, Program


class Penzai(Library):
    """Models, and a trainer that updates their parameters in place."""

    def fill(self, state: tuple[Any, ...], rest: AtRest) -> None:  # noqa: D102 -- Library says it
        model, trainer = state
        for parameter, value in zip(pz.unbind_params(model)[1], rest.params, strict=True):
            parameter.update(value)
        trainer.state.value = InternalTrainerState(
            step=0, opt_state=rest.opt_state, loss_fn_state=None
        )

    def take(self, state: tuple[Any, ...]) -> AtRest:  # noqa: D102
        model, trainer = state
        if not isinstance(trainer, StatefulTrainer):
            return super().take(state)
        return AtRest(pz.unbind_params(model, freeze=True)[1], trainer.state.value.opt_state)

    def donate(self, style: ModelStyle) -> ModelStyle:  # noqa: D102
        build = partial(StatefulTrainer.build, donate_states=True)
        trainer: Any = Names(StatefulTrainer, build=build)
        donating: Any = Names(basic_training, StatefulTrainer=trainer)
        return replace_names(super().donate(style), basic_training=donating)

    def find_bound_program(self, _: Any, state: tuple[Any, ...], *data: Any) -> Program:  # noqa: D102
        trainer, (hidden, chunk) = state[-1], data
        unbound, params = pz.unbind_params(trainer.model, freeze=True)
        return make_program(
            trainer.step_fn,
            root_rng=trainer.root_rng,
            state=trainer.state.value,
            stateless_model=unbound,
            trainable_params=params,
            frozen_params=(),
            state_vars=(),
            loss_fn=trainer.loss_fn,
            optimizer_def=trainer.optimizer_def,
            kwargs={"hidden": hidden, "chunk": chunk},
        )


LIBRARY = Penzai()
