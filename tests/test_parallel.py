"""Streams shared between devices: the same losses, whatever library, however it is written."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import impls
from bench.cells import Arm, Selection, read_style
from common.config import ModelConfig
from common.contract import zero_hidden
from common.equality import Case, make, random_chunk, random_hidden
from common.errors import BakeoffError
from common.parallel import Sharded, check_batch, placement
from tests.over_devices import DEVICES, in_process

CASE = Case(ModelConfig(5, width=8, layers=2), chunk=6, batch=4)
AWAY = 1e-5
"""Nats per character, that the losses of several devices may be from one's."""
QUICK = "pure_jax"


@pytest.mark.parametrize(
    "entrant",
    [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in impls.usual()],
)
def test_styles_over_devices(entrant: str) -> None:
    meshes = Selection(devices=(1, DEVICES)).meshes
    styles = impls.load(entrant).styles
    asked = [Arm(entrant, style, *mesh).full_style for style in styles for mesh in meshes]
    for name, row in in_process(entrant, asked).items():
        _, devices, weak = read_style(name)
        assert row["away"] <= AWAY, name
        assert row["devices"] == devices, name
        assert row["rows"] == 8 * (devices if weak else 1), name
        assert row["divided"] == row["rows"] // devices, f"{name}: streams are not shared"
        assert row["loss_everywhere"], name
        assert row["updates"] == 3, name
        assert row["compiled"] == [0] * 8, name  # two steps of a new one, three, and three
        assert row["at_each_character"] == [], f"{name}: gradients are added up after the scan"
        assert row["sums"] > 0, name


def test_names_of_arms_over_devices() -> None:
    arms = {
        "e/pure": Arm("e", "pure"),
        "e/pure@1": Arm("e", "pure", 1),
        "e/pure@4": Arm("e", "pure", 4),
        "e/pure@16x": Arm("e", "pure", 16, weak=True),
    }
    assert {str(arm): arm for arm in arms.values()} == arms
    assert {name: Arm.of(name) for name in arms} == arms
    for wrong in ("pure@", "pure@x", "pure@0", "pure@-1", "pure@2y"):
        with pytest.raises(BakeoffError, match="give a number, as in pure@4, or pure@4x"):
            Arm.of(f"e/{wrong}")


def test_what_does_not_fit() -> None:
    here = len(jax.devices())
    with pytest.raises(BakeoffError, match=f"devices is {here + 1}; cpu has {here} here: give"):
        placement(here + 1)
    check_batch(8, 4)
    with pytest.raises(BakeoffError, match="batch 8 does not divide among 3 devices; give a mult"):
        check_batch(8, 3)


def test_what_was_placed_is_known_again() -> None:
    """A loop over the same arrays times the step, and not their way to the devices."""
    step = make(impls.load("pure_jax").style("pure", 1), CASE)
    assert isinstance(step, Sharded)
    hidden, chunk = random_hidden(CASE), random_chunk(CASE, 1)
    first, second = step.placed(hidden, chunk), step.placed(hidden, chunk)
    assert all(a is b for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    other = step.placed(random_hidden(CASE, 4), chunk)
    assert not np.array_equal(other[0][0], first[0][0])
    assert np.array_equal(step.place.hidden(zero_hidden(CASE.model, 4))[0], np.zeros((4, 8)))
