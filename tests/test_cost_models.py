"""Models that the law of costs is checked on: in every style they train as in plain JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench.cost import advice, document, measure, models, user_model
from bench.cost.document import Asked
from bench.cost.measure import ModelSpec
from bench.cost.table import Counts
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = {"linear": 2, "bare": 1, "norm": 2, "nested": 2, "mlp": 6, "transformer": 21}
"""Of one block."""
WITHOUT_BIASES = 4
"""Of Equinox's attention."""
CASES = [
    (library, model._replace(depth=1))
    for library, models in measure.MODELS.items()
    for model in models[::2]
] + [
    (library, ModelSpec(kind, 1, whole=True))
    for library in measure.MODELS
    for kind in ("mlp", "transformer")
]


@pytest.mark.parametrize(("library", "model"), CASES, ids=str)
def test_every_style_has_the_losses_of_plain_jax(library: str, model: ModelSpec) -> None:
    steps = model.steps(library)
    fewer = WITHOUT_BIASES if (library, model.kind) == ("equinox", "transformer") else 0
    assert steps.counts.arrays == ARRAYS[model.kind] - fewer
    assert_all_train_alike(steps, model.kind)


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
def shared():
    layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    return nnx.Sequential(layer, layer)
def flax_linen(): return {"params": {"a": {"kernel": jnp.zeros((2, 3)), "steps": 5}}}
"""


@pytest.mark.parametrize(
    ("library", "arrays"), [("equinox", 8), ("flax_nnx", 4), ("flax_linen", 1)]
)
def test_a_users_model_has_its_structure_and_small_arrays(
    library: str, arrays: int, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    name, steps = user_model.steps_of(f"{tmp_path / 'mine.py'}:{library}")
    assert (name, steps.counts.arrays) == (library, arrays)
    assert_all_train_alike(steps, "linear")


def test_a_style_that_cannot_take_a_users_model_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "BLOCKS", 1)
    (tmp_path / "mine.py").write_text(OWN)
    model = ModelSpec(f"{tmp_path / 'mine.py'}:shared")
    [done] = measure.work("flax_nnx", [model], 0.0, 0)
    assert {"jit", "cached_partial"} <= set(done["seconds"]), "they know of shared Variables"
    assert {"jit_tree", "jit_partial"} <= set(done["failed"])
    found = [f for f in measure.summary("flax_nnx", model, [done, done]) if f.style == "jit_tree"]
    assert [(f.seconds, f.failure) for f in found] == [(None, done["failed"]["jit_tree"])]
    said = document.document_of_user(Asked(Counts(*done["counts"]), 0.01), found, 2)
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


def test_what_workers_measure_is_taken_beside_the_plain_step_of_the_same_block() -> None:
    plain = np.array([1e-4, 2e-4, 1e-4])  # the second block was slow, for all alike
    counts = {"counts": [8, 3, 20]}
    workers = [
        {**counts, "failed": {}, "seconds": {models.PLAIN: plain * s, "jit": plain * s * f}}
        for s, f in ((1.0, 3.0), (1.1, 3.1), (0.9, 2.9))
    ]
    [found] = measure.summary("flax_nnx", ModelSpec("mlp", 2), workers)
    assert (found.counts, found.style) == ((8, 3, 20), "jit")
    assert found.seconds is not None
    assert found.seconds.value == pytest.approx(2 * 1.1e-4)
    assert found.seconds.low < 2 * 1.1e-4 < found.seconds.high


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
