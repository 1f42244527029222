"""Lines that `cost` advises: put into a starter as they are printed, they train as was measured."""

import ast
from typing import Any

import equinox as eqx
import jax
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from bench.cells import BASELINE, FLAT, WHOLE, Arm
from bench.report.code import RETURNED, write_change, write_code
from bench.worker.step_arms import StepArms
from impls.starters import list_models, read_starter
from tests.worker.step_files import arms_of, written
from tests.worker.test_step import HOW_TO, STYLES, how_to

pytestmark = pytest.mark.usefixtures("own_folder")

STEPS = 4
WIDTH = 78
"""Characters of a line of code in a terminal, behind its sign."""
USUAL = {
    "equinox": "filter_jit",
    "flax_nnx": "jit",
    "flax_linen": "train_state",
    "haiku": "pure",
    "pure_jax": "pure",
}
"""Library → style of its starter."""
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
        self.readout = nnx.Linear(64, 64, rngs=rngs)

    def __call__(self, x):
        for path in self.paths:
            x = x + path(x)
        return self.readout(self.again(self.drop(self.norm(self.tied(x)))))


def make_model():
    return Shared(nnx.Rngs(0))


optimiser = optax.adamw(3e-2)
"""
"""A model of NNX that shares an `Rngs` and weights, with BatchNorm and dropout."""
OWN = [row for row in HOW_TO if "key" not in row[2]]
"""Blocks of the how-to whose losses carry nothing."""


def put_into(text: str, library: str, style: str) -> str:
    """Return a starter's text after a printed change, which has to fit it line by line."""
    rest, done, new = text.splitlines(), list[str](), list[str]()
    for line in write_change(library, USUAL[library], style):
        sign, code = line[1], line[3:-1]
        assert len(code) <= WIDTH, "no line is broken in a terminal"
        if sign == "+":
            new.append(f"    {code}")
            continue
        place = 0 if code == "…" else rest.index(f"    {code}")
        done += rest[:place] + new + rest[place : place + 1] * (sign == " " and code != "…")
        rest, new = rest[place + (code != "…") :], []
    done += new
    return "\n".join(done + rest)


@pytest.mark.parametrize("library", list_models())
def test_a_starter_after_each_printed_change_trains_as_was_measured(library: str) -> None:
    starter = ast.unparse(ast.parse(read_starter(library, "mine")))
    lines = [RETURNED.sub(r"\1return \2", line) for line in starter.splitlines() if line]
    text = "\n".join(lines)
    arms = arms_of(written(text))
    assert {arm.style for arm in arms.file.arms} == STYLES[library]
    losses = arms.compute_losses(arms.make(BASELINE))[:STEPS]
    assert len({*losses}) == STEPS
    changed = {
        style: put_into(text, library, style) for style in STYLES[library] - {USUAL[library]}
    }
    changed |= {FLAT: put_into(text, library, FLAT), USUAL[library]: text}
    for style, code in changed.items():
        names: dict[str, Any] = {"__name__": style, "optax": optax, "jax": jax}
        exec(compile(code, style, "exec"), names)
        assert names["train"](STEPS) == pytest.approx(losses, rel=1e-5), style


@pytest.mark.parametrize(
    ("names", "library", "block"),
    [*OWN, pytest.param("`make_model` and `optimiser`", "flax_nnx", SHARED)],
)
def test_advised_lines_train_other_models_as_they_were_measured(
    names: str, library: str, block: str
) -> None:
    arms = arms_of(written(how_to(names, library, block), "advised"))
    assert arms.file.entrant == library
    assert not arms.file.takes
    losses = arms.compute_losses(arms.make(BASELINE))[:STEPS]
    styles = {FLAT, *(arm.style for arm in arms.file.arms)}
    assert {"pure", FLAT} <= styles
    for style in styles:
        lines = [line[3:-1] for line in write_change(library, WHOLE, style) if line[1] == "+"]
        assert lines == write_code(library, style)
        assert train(arms, lines) == pytest.approx(losses, rel=1e-5), style
        if Arm(library, style) in arms.file.arms:
            measured = arms.compute_losses(arms.make(Arm(library, style)))[:STEPS]
            assert measured == pytest.approx(losses, rel=1e-5), style


def train(arms: StepArms, lines: list[str]) -> list[float]:
    """Return losses of steps that lines make and call, beside a person's own functions."""
    module = arms.file.module
    names: dict[str, Any] = {
        "model": module.make_model(),
        "loss": module.loss,
        "optimiser": arms.file.optimiser,
    }
    names |= {"jax": jax, "optax": optax, "eqx": eqx, "nnx": nnx, "TrainState": TrainState}
    names |= {"batches": [arms.case.data() for _ in range(STEPS)], "losses": []}
    exec("\n".join([*lines, "    losses.append(float(value))"]), names)
    return names["losses"]


def test_the_code_of_an_own_entrant_is_not_known() -> None:
    assert write_code("mine", "pure") == write_code("equinox", "none") == []
    assert write_change("mine", "pure", "jit") == ["`- your pure`", "`+ your jit`"]
