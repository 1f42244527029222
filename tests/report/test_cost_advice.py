"""Lines that `cost` advises: run as they are printed, they train as the style that was measured."""

import ast
import re
from typing import Any

import equinox as eqx
import jax
import optax
import pytest
from flax import nnx, struct
from flax.training.train_state import TrainState

import impls
from bench.cells import BASELINE, FLAT, WHOLE, Arm
from bench.report.documents.cost import CARRY_ADVICE
from bench.report.sentences import write_change
from bench.worker.step_arms import StepArms
from tests.worker.step_files import PLAIN, arms_of, begun, written
from tests.worker.test_step import HOW_TO, LIBRARIES, how_to

pytestmark = pytest.mark.usefixtures("own_folder")

STEPS = 4
WIDTH = 78
"""Characters of a line of code in a terminal, behind its sign."""
SHARED = """
class Path(nnx.Module):
    def __init__(self, rngs):
        self.linear, self.rngs = nnx.Linear(64, 64, rngs=rngs), rngs

    def __call__(self, x):
        return self.linear(x) * jax.random.bernoulli(self.rngs.dropout(), 0.5, (len(x), 1))


class Shared(nnx.Module):
    def __init__(self, rngs):
        self.paths = nnx.List([Path(rngs) for _ in range(7)])
        self.norm, self.tied = nnx.BatchNorm(64, rngs=rngs), nnx.Linear(64, 64, rngs=rngs)
        self.again, self.drop = self.tied, nnx.Dropout(0.1, rngs=rngs)
        self.readout = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        for path in self.paths:
            x = x + path(x)
        return self.readout(self.again(self.drop(self.norm(self.tied(x)))))


def make_model():
    return Shared(nnx.Rngs(0))


optimiser = optax.adamw(3e-2)
"""
"""A model of NNX that shares an `Rngs` and weights, with BatchNorm and dropout."""
CASES = [
    pytest.param(*row, marks=() if row[1] == "haiku" or row[2] == SHARED else pytest.mark.slow)
    for row in [*HOW_TO, ("`make_model` and `optimiser`", "flax_nnx", SHARED)]
]
ALONE = [pytest.param("", *row.values, "", marks=row.marks) for row in LIBRARIES]


@pytest.mark.parametrize(
    ("names", "library", "block"), [*CASES, *ALONE, pytest.param("", "pure_jax", PLAIN)]
)
def test_advised_lines_train_as_they_were_measured(names: str, library: str, block: str) -> None:
    text = how_to(names, library, block) if names else block
    arms = arms_of(written(text, "advised") if text else begun(library))
    file = arms.file
    assert file.entrant == library
    styles = {*impls.find_declaration(library).write, FLAT} - file.unsuited.keys()
    assert {"pure", FLAT} <= styles
    usual = arms.compute_losses(arms.make(BASELINE))[:STEPS]
    assert len(set(usual)) == STEPS or "MultiSteps" in text
    for style in styles - ({"blog"} if file.takes else set()):  # which only the RNN has
        lines = [line[3:-1] for line in write_change(library, WHOLE, style) if line[1] == "+"]
        assert max(map(len, lines)) <= WIDTH, "no line is broken in a terminal"
        assert train(arms, "\n".join(lines)) == pytest.approx(usual, rel=1e-5), style
        if Arm(library, style) in file.arms:
            measured = arms.compute_losses(arms.make(Arm(library, style)))[:STEPS]
            assert measured == pytest.approx(usual, rel=1e-5), style


def train(arms: StepArms, code: str) -> list[float]:
    """Return losses of steps that lines make and call, around a step as users write it."""
    file, (made, carried) = arms.file, arms.file.make_start()
    library, optimiser = file.library, file.optimiser
    first, _, static = library.split(made)
    if carried:  # as the sentence below the lines says
        assert "pass it in and return it as you do `opt_state`" in CARRY_ADVICE
        code = re.sub(r"\bopt_state\b", "opt_state, carried", code)

    def compute(params: Any, static: Any, carried: Any, batch: Any) -> Any:
        of_params = lambda p: file.compute_loss(library.merge(p, (), static), carried, batch)  # noqa: E731
        return jax.value_and_grad(of_params, has_aux=True)(params)

    def train_step(model: Any, opt_state: Any, *given: Any) -> Any:
        *kept, batch = given
        params, rest = model, static
        if file.entrant == "equinox":
            params, rest = eqx.partition(model, eqx.is_inexact_array)
        (loss, after), grads = compute(params, rest, kept[0] if kept else {}, batch)
        updates, opt_state = optimiser.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        model = eqx.combine(params, rest) if file.entrant == "equinox" else params
        return model, opt_state, *([after] if kept else []), loss

    def train_in_place(model: Any, optimizer: Any, batch: Any) -> Any:
        loss, grads = nnx.value_and_grad(file.module.loss)(model, batch)
        optimizer.update(model, grads)
        return loss

    def train_state(state: Any, batch: Any) -> Any:
        (loss, after), grads = compute(state.params, static, state.carried, batch)
        return state.apply_gradients(grads=grads).replace(carried=after), loss

    class Carrying(TrainState):
        carried: Any = struct.field(default_factory=lambda: carried)

    names = {
        "TrainState": Carrying,
        "carried": carried,
        "model": made,
        "optimiser": optimiser,
        "params": first,
        "opt_state": optimiser.init(first),
        "train_step": train_state if "TrainState" in code else train_step,
    } | {"jax": jax, "optax": optax, "eqx": eqx, "nnx": nnx}
    if file.entrant == "flax_nnx":
        optimizer = nnx.Optimizer(made, optimiser, wrt=nnx.Param)
        names |= {"optimizer": optimizer, "train_step": train_in_place, "loss_of": file.module.loss}
    elif file.entrant == "flax_linen":
        names["model"] = made[1].__self__
        names["loss_of"] = lambda p, batch: file.module.loss((p, static), batch)
    body = ast.parse(code).body
    makes = [getattr(n, "name", "") or ast.unparse(n).partition(" = ")[0] for n in body]
    begun = 1 + max(i for i, name in enumerate(makes) if name in ("step", "compute_grads"))
    losses: list[float] = []
    exec(ast.unparse(ast.Module(body[:begun], [])), names)
    for _ in range(STEPS):
        names["batch"] = arms.case.data()
        exec(ast.unparse(ast.Module(body[begun:], [])), names)
        losses.append(float(names["loss"]))
    return losses
