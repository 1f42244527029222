"""Donation: who can donate, what it leaves alone, and what is said where it should not be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import impls
from bench import conftest
from bench.cells import Selection
from bench.environments.offers import Offer
from bench.worker import offers
from bench.worker.donation import WITH, WITHOUT, live_arrays, live_bytes, taken_arguments
from bench.worker.program import facts
from common.config import ModelConfig
from common.contract import fresh_checkpoint
from common.equality import Case, deviation, make, random_chunk, random_hidden, trajectory
from common.errors import BakeoffError
from tests.worker.child import TOY as AT_TOY
from tests.worker.child import Child, samples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from common.contract import Checkpoint, TrainStep, Weights

    type StepOf = Callable[[str, str, Case], TrainStep]

ROWS = [(name, style) for name in impls.usual() for style in impls.load(name).styles]
TOY = Case(ModelConfig(5, 8), 8, 1)
COUNT = 4
"""Bytes of Adam's count, and of the steps that TrainState and nnx.Optimizer count."""
STATE = 3 * 4 * TOY.model.parameters + COUNT
KEEPS = {("flax_linen", "blog")}
"""Its optimiser is outside of jit, so no program returns the state that it is given."""
COUNTS_TWICE = {("flax_linen", "train_state")} | {
    ("flax_nnx", style) for style in impls.load("flax_nnx").styles if style != "pure"
}
DONATING = """
import jax
from common.steps import functional, pure_style, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"

def donating(*numbers):
    def style(config, optimiser):
        model = build(config)
        update = jax.jit(pure_update(model, optimiser), donate_argnums=numbers)
        return functional(update, model, optimiser, stages_of(update))
    return style

def told(config, optimiser, *, donate=False):
    return donating(*([0, 1] if donate else []))(config, optimiser)

def deaf(config, optimiser, *, donate=False):
    return donating()(config, optimiser)

STYLES = {
    "state": donating(0), "hidden": donating(0, 1), "told": told, "deaf": deaf, "keeps": donating()
}
"""
TAKES_HIDDEN = "your step donates `hidden`; donate only your state"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file whose styles donate: their state, hidden state, or nothing."""
    monkeypatch.setattr(impls, "OUTSIDE", dict(impls.OUTSIDE))
    path = tmp_path / "mine.py"
    path.write_text(DONATING)
    return path


def aligned(array: Any) -> np.ndarray:
    """Return a copy that XLA:CPU can read where it lies, without a copy of its own."""
    given = np.asarray(array)
    raw = np.zeros(given.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + given.nbytes].view(given.dtype).reshape(given.shape)
    copy[...] = given
    return copy


def random_weights(seed: int) -> Weights:
    from common.equality import random_weights as made

    return made(TOY.model, seed)


def donating_step(entrant: str, style: str) -> TrainStep:
    return make(impls.load(entrant).style(style, donate=True), TOY)


# The entrants.


@pytest.mark.parametrize(("entrant", "style"), ROWS, ids=map("-".join, ROWS))
def test_who_can_donates_all_of_its_state_and_nothing_else(
    entrant: str, style: str, step_of: StepOf
) -> None:
    assert impls.load(entrant).can_donate(style) == ((entrant, style) not in KEEPS)
    if (entrant, style) in KEEPS:
        return
    baseline = trajectory(step_of(impls.BASELINE, "pure", TOY), TOY)
    before = live_arrays("cpu")
    step = donating_step(entrant, style)
    assert taken_arguments(step, TOY) == ""
    deviation(step, TOY, baseline).require()
    counts = COUNT * ((entrant, style) in COUNTS_TWICE)
    assert live_bytes(step, TOY, before, "cpu") == STATE + counts
    step.load(fresh_checkpoint(random_weights(0)))
    program = step.program(random_hidden(TOY), random_chunk(TOY, 1))
    assert program is not None
    assert facts(program).alias_bytes == STATE + counts


@pytest.mark.parametrize("style", impls.load("flax_nnx").styles)
def test_a_checkpoint_that_is_loaded_twice_is_unchanged(style: str) -> None:
    """Also where a buffer might be read in place: its numbers lie as XLA:CPU wants them."""
    step, hidden, chunk = donating_step("flax_nnx", style), random_hidden(TOY), random_chunk(TOY, 1)
    trees = [jax.tree.map(aligned, random_weights(seed)) for seed in range(3)]
    squares = jax.tree.map(np.square, trees[2])
    given: Checkpoint = fresh_checkpoint(trees[0])._replace(mu=trees[1], nu=squares, updates=3)
    expected, losses = jax.tree.map(np.array, given), []
    for _ in range(2):
        step.load(given)
        losses.append([float(step(hidden, chunk)[1]) for _ in range(3)])
        saved = step.save()
        copy = jax.tree.map(np.array, saved)
        step(hidden, chunk)
        assert all(map(np.array_equal, jax.tree.leaves(saved), jax.tree.leaves(copy)))
    assert losses[0] == losses[1]
    assert all(map(np.array_equal, jax.tree.leaves(given), jax.tree.leaves(expected)))


def test_a_second_copy_is_counted() -> None:
    before, kept = live_arrays("cpu"), list[jax.Array]()
    step = make(impls.load(impls.BASELINE).style("pure"), TOY)
    assert live_bytes(step, TOY, before, "cpu") == STATE
    kept.append(jnp.zeros(7))
    assert live_bytes(step, TOY, before, "cpu") == STATE + 28


# A worker.


def test_a_worker_fails_steps_that_do_not_donate_as_it_does(mine: Path) -> None:
    honest = ["pure_jax/pure", "flax_nnx/jit_partial"]
    arms = [*honest, *(f"mine/{style}" for style in ("state", "hidden", "told", "deaf", "keeps"))]

    def proven(good: list[str], *, donate: bool) -> dict[str, Any]:
        with Child() as child:
            assert not child.load(arms, outside={"mine": str(mine)}, donate=donate)["failures"]
            proofs = {arm: child.do("prove", arm=arm, **AT_TOY) for arm in arms}
            assert [arm for arm in arms if "failure" not in proofs[arm]] == good
            assert {proofs[arm]["proof"]["donates"] for arm in good} == {donate}
            for kind in ("step", "host_cost"):
                block = child.block(good, kind)
                assert block["failures"] == {}
                assert {*samples(block)[kind]} == {*good}
            return proofs

    plain = proven([*honest, "mine/told", "mine/deaf", "mine/keeps"], donate=False)
    assert plain["mine/state"]["failure"] == WITHOUT
    assert plain["mine/hidden"]["failure"] == TAKES_HIDDEN

    donating = proven([*honest, "mine/state"], donate=True)
    for style, failure in {"deaf": WITH, "keeps": WITH, "told": TAKES_HIDDEN}.items():
        assert donating[f"mine/{style}"]["failure"] == failure
    assert donating["mine/hidden"]["failure"] == TAKES_HIDDEN
    before, after = (samples(proofs["pure_jax/pure"]) for proofs in (plain, donating))
    live = before["live_bytes"]["pure_jax/pure"][0]
    assert after["alias_bytes"]["pure_jax/pure"][0] == live > 0
    assert after["live_bytes"]["pure_jax/pure"][0] == live
    losses = plain["pure_jax/pure"]["losses"]
    assert donating["pure_jax/pure"]["losses"] == pytest.approx(losses, abs=1e-5)


# Runs.

OFFER = Offer(
    {"pure_jax": ["pure"], "flax_linen": ["pure", "blog"]},
    *({}, ["cpu"], {}, {}),
    keeping={"flax_linen": {"blog": "it cannot"}},
)


def test_styles_that_cannot_donate_are_left_out_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    conftest.require_donating(OFFER, Selection())
    line = "--donate leaves out flax_linen/blog: it cannot donate: it cannot\n"
    assert capsys.readouterr().err == line
    for selection in (Selection(("pure_jax",)), Selection(styles=("pure",))):
        conftest.require_donating(OFFER, selection)
        assert conftest.kept(OFFER, selection) == {}
    assert capsys.readouterr().err == ""
    cells = Selection(workloads=("toy",)).cells(OFFER.donating)
    assert [(cell.entrant, cell.style) for cell in cells] == [
        ("pure_jax", "pure"),
        ("flax_linen", "pure"),
    ]
    with pytest.raises(BakeoffError, match="blog cannot donate: it cannot; choose another"):
        conftest.require_donating(OFFER, Selection(styles=("blog",)))


def test_this_environment_says_who_cannot() -> None:
    offer = offers.describe([], {})
    pairs = {(name, style) for name, styles in offer["keeping"].items() for style in styles}
    assert pairs == KEEPS
