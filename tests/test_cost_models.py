"""Models that the law of costs is checked on: in every style they train as in plain JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.cost import advice, document, measure, models, user_model
from bench.cost.document import Asked
from bench.cost.measure import ModelSpec
from bench.cost.prediction import Size
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = {"mlp": 6, "transformer": 21, "convnet": 6}
"""Of one block."""
WITHOUT_BIASES = 4
"""Of Equinox's attention."""
CASES = [
    (library, ModelSpec(kind, 1, whole=whole))
    for library in measure.MODELS
    for kind in ARRAYS
    for whole in (False, True)
]


@pytest.mark.parametrize(("library", "model"), CASES, ids=str)
def test_every_style_has_the_losses_of_plain_jax(library: str, model: ModelSpec) -> None:
    steps = model.steps(library)
    fewer = WITHOUT_BIASES if (library, model.kind) == ("equinox", "transformer") else 0
    assert steps.arrays == ARRAYS[model.kind] - fewer
    assert_all_train_alike(steps, model.kind)


@pytest.mark.parametrize("library", measure.MODELS)
def test_the_rnn_stands_beside_them_in_the_same_styles(library: str) -> None:
    steps = ModelSpec(measure.RNN, 3, whole=True).steps(library)
    assert steps.arrays == 8
    assert list(steps.steps) == list(ModelSpec("mlp", 1).steps(library).steps)
    assert_all_train_alike(steps, "mlp")


OWN = """
import equinox as eqx, jax, jax.numpy as jnp
from flax import nnx

class Counted(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(300, 400, rngs=rngs) for _ in range(2)])
        self.seen = nnx.Variable(jnp.zeros(()))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

def equinox(): return eqx.nn.MLP(300, 2, 400, 3, key=jax.random.key(0))
def flax_nnx(): return Counted(nnx.Rngs(0))
def shapes(): return nnx.eval_shape(flax_nnx)
def shared():
    layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    return nnx.Sequential(layer, layer)
def flax_linen(): return {"params": {"a": {"kernel": jnp.zeros((2, 3)), "steps": 5}}}
"""


@pytest.mark.parametrize(
    ("function", "library", "arrays"),
    [
        ("equinox", "equinox", 8),
        ("flax_nnx", "flax_nnx", 4),
        ("shapes", "flax_nnx", 4),
        ("flax_linen", "flax_linen", 1),
    ],
)
def test_a_users_model_has_its_structure_and_small_arrays(
    function: str, library: str, arrays: int, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    name, steps = user_model.steps_of(f"{tmp_path / 'mine.py'}:{function}")
    assert (name, steps.arrays) == (library, arrays)
    assert_all_train_alike(steps, "mlp")


def test_a_style_that_cannot_take_a_users_model_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "ROUNDS", 1)
    (tmp_path / "mine.py").write_text(OWN)
    model = ModelSpec(f"{tmp_path / 'mine.py'}:shared")
    [done] = measure.work("flax_nnx", [model], 1e-9, 0)
    assert {"jit", "cached_partial"} <= set(done["seconds"]), "they know of shared Variables"
    assert {"jit_tree", "jit_partial"} <= set(done["failed"])
    found = [f for f in measure.summary("flax_nnx", model, [done, done]) if f.style == "jit_tree"]
    assert [(f.added, f.failure) for f in found] == [((), done["failed"]["jit_tree"])]
    said = document.document_of_user(Asked(Size(done["arrays"]), 0.01), found)
    assert any("jit_tree cannot take this model" in line for line in said.sections[0].lines)


def assert_all_train_alike(made: models.ModelSteps, kind: str) -> None:
    inputs, targets = models.data(kind)
    losses = {}
    for style, make in made.steps.items():
        step = make()
        losses[style] = [float(step(inputs, targets)) for _ in range(3)]
    first, *_, last = losses[models.PLAIN]
    assert last < first, "it trains"
    for style, each in losses.items():
        assert each == pytest.approx(losses[models.PLAIN], rel=1e-6), style


def test_of_each_worker_the_calls_count_that_nothing_disturbed() -> None:
    quiet = 21 * [1e-4]
    busy = [*quiet[:5], *(16 * [9e-4])]
    workers = [
        {
            "arrays": 8,
            "lines": {models.PLAIN: 4, "jit": lines, "odd": None},
            "failed": {},
            "seconds": {models.PLAIN: busy, "jit": [3 * speed * s for s in busy], "odd": quiet},
        }
        for speed, lines in ((1.0, 110), (1.1, 104), (0.9, 104))
    ]
    found, odd = measure.summary("flax_nnx", ModelSpec("mlp", 2), workers)
    assert (found.arrays, found.style, found.lines) == (8, "jit", 100), "as most workers"
    assert found.added == pytest.approx((2e-4, 2.3e-4, 1.7e-4))
    assert found.seconds.value == pytest.approx(2e-4)
    assert found.seconds.low < 2e-4 < found.seconds.high
    assert odd.lines is None, "they vary"


def test_lines_are_counted_and_nothing_is_timed() -> None:
    [done] = measure.work("equinox", [ModelSpec("mlp", 1)], 0.0, 0)
    assert not done["seconds"]
    found = {f.style: f for f in measure.summary("equinox", ModelSpec("mlp", 1), [done])}
    assert found["filter_jit"].added == ()
    filtered, pure = (found[style].lines for style in ("filter_jit", "pure"))
    assert filtered is not None
    assert pure is not None
    assert filtered > pure > 0


def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    poem = [ModelSpec("poem", 1, whole=True)]
    process = measure.started("equinox", poem, 0.0, (), 0, str(tmp_path))
    with pytest.raises(BakeoffError, match=r"models in equinox could not be measured: .*poem"):
        measure.answer_of(process, "equinox")


@pytest.mark.parametrize("change", advice.CHANGES, ids=lambda c: f"{c.before}-{c.after}")
def test_a_change_is_shown_as_a_diff_of_what_runs(change: advice.Change) -> None:
    lines = advice.diff(change).splitlines()
    assert lines[:2] == [f"--- {change.before}", f"+++ {change.after}"]
    assert any(line.startswith("-") for line in lines[2:])
    assert any(line.startswith("+") for line in lines[2:])


def test_tree_mode_is_one_keyword() -> None:
    [change] = [c for c in advice.CHANGES if (c.before, c.after) == ("jit", "jit_tree")]
    changed = [line for line in advice.diff(change).splitlines()[2:] if line[0] in "+-"]
    assert changed == [
        "-return partial(nnx.jit(train_step), model, optimizer)",
        "+return partial(nnx.jit(train_step, graph=False), model, optimizer)",
    ]
