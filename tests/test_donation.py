"""Donation: who can donate, what it leaves alone, and what is said where it should not be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import impls
from bench import conftest
from bench.cells import Offer, Selection
from bench.check.findings import DONATES, NOTE, CheckResult, Judgement
from bench.check.judge import findings_of
from bench.check.subject import Subject
from bench.cli import check as cli
from bench.report import donation
from bench.report.page.data import data as data_of
from bench.report.run import document
from bench.worker import offers
from bench.worker.donation import WITH, WITHOUT, live_arrays, live_bytes, taken_arguments
from bench.worker.program import facts
from common.config import ModelConfig
from common.contract import fresh_checkpoint
from common.equality import Case, deviation, make, random_chunk, random_hidden, trajectory
from common.errors import BakeoffError
from tests.test_compare import PLAIN, SAME, both, cell_of, run, simulated
from tests.test_worker import Child

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
    found = raw[start : start + given.nbytes].view(given.dtype).reshape(given.shape)
    found[...] = given
    return found


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


def test_what_a_worker_says_of_those_that_do_not_donate_as_it_does(mine: Path) -> None:
    outside = {"mine": str(mine)}
    at = {"workload": "toy", "backend": "cpu"}
    honest = ["pure_jax/pure", "control/pure", "flax_nnx/jit_partial"]
    arms = [*honest, *(f"mine/{style}" for style in ("state", "hidden", "told", "deaf", "keeps"))]

    def found(*, donate: bool) -> tuple[dict[str, Any], Any]:
        with Child() as child:
            assert not child.load(arms, outside=outside, donate=donate)["failures"]
            proven = {arm: child.do("prove", arm=arm, **at) for arm in arms}
            good = [arm for arm in arms if "failure" not in proven[arm]]
            for kind in ("step", "host_cost"):
                block = child.block(good, kind)
                assert block["failures"] == {}
                assert all(set(samples) == set(good) for samples in block["seconds"].values())
            epoch = {"kind": "epoch", "arms": honest[:1]}
            assert child.do("prepare", **epoch, **at)["failures"] == {}
            assert child.block(honest[:1], "epoch")["failures"] == {}
            return proven, good

    proven, good = found(donate=False)
    assert good == [*honest, "mine/told", "mine/deaf", "mine/keeps"]
    assert proven["mine/state"]["failure"] == WITHOUT
    assert proven["mine/hidden"]["failure"] == TAKES_HIDDEN
    assert not any(proven[arm]["proof"]["donates"] for arm in good)
    plain = proven["pure_jax/pure"]

    proven, good = found(donate=True)
    assert good == [*honest, "mine/state"]
    for style, failure in {"deaf": WITH, "keeps": WITH, "told": TAKES_HIDDEN}.items():
        assert proven[f"mine/{style}"]["failure"] == failure
    assert proven["mine/hidden"]["failure"] == TAKES_HIDDEN
    assert all(proven[arm]["proof"]["donates"] for arm in good)
    exact = proven["pure_jax/pure"]["exact"]
    assert exact["alias_bytes"] == exact["live_bytes"] == plain["exact"]["live_bytes"] > 0
    assert proven["pure_jax/pure"]["losses"] == pytest.approx(plain["losses"], abs=1e-5)


# `bakeoff check`.


@pytest.mark.parametrize(
    ("style", "expected", "seen"),
    [
        ("hidden", "can be used again after a call$", re.escape(TAKES_HIDDEN)),
        ("told", "with donate=True too$", re.escape(TAKES_HIDDEN)),
        ("deaf", "with donate=True, a step donates its state", "its program donates nothing"),
    ],
)
def test_what_a_check_finds(mine: Path, style: str, expected: str, seen: str) -> None:
    [finding] = findings_of(Subject(impls.add(mine), style), "contract")
    assert re.search(expected, finding.expected)
    assert re.search(seen, finding.seen)
    assert finding.severity != NOTE


def test_a_step_that_donates_its_state_alone_passes(mine: Path) -> None:
    subject = Subject(impls.add(mine), "state")
    [note] = findings_of(subject, "contract")
    assert (note.expected, note.severity) == (DONATES, NOTE)
    for name in ("shapes", "equality", "fresh", "retrace"):
        assert findings_of(subject, name) == []


def test_the_check_says_how_to_measure_it(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = findings_of(Subject(impls.add(mine), "state"), "contract")
    for findings, option in (((), "toy,seed"), (tuple(note), "toy,seed --donate")):
        results = (CheckResult("contract", "state", findings),)
        judgement = Judgement("mine", "mine.py", ("state",), results, complete=True)
        assert cli._verdict(judgement).endswith(f"--entrant mine.py --workload {option}")


# Runs.

OFFER = Offer(
    {"pure_jax": ["pure"], "flax_linen": ["pure", "blog"]},
    *({}, ["cpu"], {}, {}),
    keeping={"flax_linen": {"blog": "it cannot"}},
)


def test_styles_that_cannot_donate_are_left_out_and_named(capsys: Any) -> None:
    conftest.notify_kept(OFFER, Selection())
    assert capsys.readouterr().err == "--donate leaves out flax_linen/blog: it cannot\n"
    for selection in (Selection(("pure_jax",)), Selection(styles=("pure",))):
        conftest.notify_kept(OFFER, selection)
    assert capsys.readouterr().err == ""
    cells = Selection(workloads=("toy",)).cells(OFFER.donating)
    assert {(cell.entrant, cell.style) for cell in cells} == {*PURE}
    with pytest.raises(BakeoffError, match=r"flax_linen/blog cannot donate its state, for it can"):
        conftest.notify_kept(OFFER, Selection(styles=("blog",)))


PURE = (("pure_jax", "pure"), ("flax_linen", "pure"))


def test_this_environment_says_who_cannot() -> None:
    found = offers.describe([], {})
    assert {(name, style) for name, styles in found["keeping"].items() for style in styles} == KEEPS


def test_runs_with_and_without_are_not_compared() -> None:
    base, new = (simulated(seed) for seed in (1, 2))
    for data, donates in ((base, False), (new, True)):
        cell_of(data, PLAIN)["proof"]["donates"] = donates
    with pytest.raises(BakeoffError, match=r"donation of buffers at seed on cpu False, then True"):
        both(base, new)
    assert both(base, new, None, "measuring").differences


def with_memory(seed: int, aliased: int) -> dict[str, Any]:
    """Return a run whose second style holds a second copy of its state."""
    data = simulated(seed)
    counts = {"parameters": 429, "temp_bytes": 1216, "argument_bytes": 6000}
    for cell in data["bakeoff"]["cells"]:
        copies = 2 if (cell["entrant"], cell["style"]) == SAME else 1
        live = copies * 3 * 4 * 429
        cell["exact"] |= counts | {"alias_bytes": aliased, "live_bytes": live}
    return data


def test_a_report_says_who_holds_a_second_copy() -> None:
    data = with_memory(1, 0)
    data["bakeoff"]["left_out"] = {"flax_linen/blog": "cannot donate: it cannot"}
    shown = document(run(data))
    [memory] = [t for s in shown.sections for t in s.tables if t.title.endswith(", memory")]
    assert [c.title.replace("\n", " ") for c in memory.columns][-2:] == [
        "aliased bytes",
        "live bytes",
    ]
    rows = {row.cells[0]: [str(cell) for cell in row.cells[1:]] for row in memory.rows}
    assert rows["pure_jax"][-2:] == ["0 B", "5.15 kB"]
    assert rows["haiku"][-2:] == ["=", "+5.15 kB"]
    lines = [line for section in shown.sections for line in section.lines]
    assert "flax_linen blog: cannot donate: it cannot." in lines
    for aliased, columns in ((0, {"live_bytes"}), (5148, {"alias_bytes", "live_bytes"})):
        page = data_of([run(with_memory(1, aliased))])
        names = {metric["name"] for metric in page["metrics"]}
        assert names & {"alias_bytes", "live_bytes"} == columns


def test_two_runs_beside_each_other() -> None:
    without, donating = (run(with_memory(seed, by)).section for seed, by in ((1, 0), (2, 5148)))
    donating.cells = [cell for cell in donating.cells if cell.style != "blog"]
    for cell in donating.cells:
        del cell.metrics["step"]
    later = run(simulated(3, speed=2.0)).section
    [table] = donation.tables(without, donating, without, later)
    titles = [column.title.replace("\n", " ") for column in table.columns]
    assert titles == [
        *("style", "step", "step, donating", "temp bytes", "temp bytes, donating"),
        *("argument bytes", "aliased bytes", "live"),
    ]
    rows = {row.cells[0]: [str(cell) for cell in row.cells[1:]] for row in table.rows}
    assert rows["pure_jax"][2:] == ["1.22 kB", "1.22 kB", "6.00 kB", "5.15 kB", "1.00"]
    assert rows["haiku"][-1] == "2.00"
    assert rows["flax_linen blog"][4] == "", "the run that counts bytes does not have it"
    first, second = (float(cell.removesuffix(" ms")) for cell in rows["pure_jax"][:2])
    assert second / first == pytest.approx(2, rel=0.05), "of the run that has it, twice as slow"
