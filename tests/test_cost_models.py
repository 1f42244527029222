"""Models that the law of costs is checked on: in every style they train as in plain JAX."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from bench.cost import advice, held_out, models
from bench.cost.held_out import Model
from common.errors import BakeoffError

CASES = [(lib, kind) for lib in models.LIBRARIES for kind in models.KINDS]
ARRAYS = {"layers": 2, "mlp": 6, "transformer": 21}
"""Of one block."""
WITHOUT_BIASES = 4
"""Of Equinox's attention."""


@pytest.mark.parametrize(("library", "kind"), CASES)
def test_every_style_has_the_losses_of_plain_jax(library: str, kind: str) -> None:
    subject = importlib.import_module(f"bench.cost.models.{library}").subject(kind, 1)
    fewer = WITHOUT_BIASES if (library, kind) == ("equinox", "transformer") else 0
    assert subject.arrays == ARRAYS[kind] - fewer
    inputs, targets = models.data(kind)
    losses = {}
    for style, make in subject.steps.items():
        step = make()
        losses[style] = [float(step(inputs, targets)) for _ in range(3)]
    first, *_, last = losses[models.PLAIN]
    assert last < first, "it trains"
    for style, own in losses.items():
        assert own == pytest.approx(losses[models.PLAIN], rel=1e-6), style


def test_what_workers_measure_is_taken_beside_the_plain_step_of_the_same_block() -> None:
    plain = np.array([1e-4, 2e-4, 1e-4])  # the second block was slow, for all alike
    workers = [
        {"arrays": 8, "modules": 3, "seconds": {models.PLAIN: plain * s, "jit": plain * s * f}}
        for s, f in ((1.0, 3.0), (1.1, 3.1), (0.9, 2.9))
    ]
    model = Model("flax_nnx", "mlp", 2)
    [found] = held_out.found(model, workers)
    assert (found.arrays, found.modules, found.style) == (8, 3, "jit")
    assert found.plain == pytest.approx(1.1e-4)
    assert found.seconds.value == pytest.approx(2 * 1.1e-4)
    assert found.seconds.low < 2 * 1.1e-4 < found.seconds.high


def test_a_worker_that_fails_says_why() -> None:
    with pytest.raises(BakeoffError, match=r"equinox poem 1 could not be measured: .*poem"):
        held_out.ask(Model("equinox", "poem", 1), (), 0)


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
