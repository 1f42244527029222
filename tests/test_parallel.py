"""Streams shared between devices: the same losses, whatever library, however it is written."""

from __future__ import annotations

from functools import cache
from typing import Any

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
QUICK = ("pure_jax", "pure")
STYLES = [(name, style) for name in impls.usual() for style in impls.load(name).styles]

of_all_styles = pytest.mark.parametrize(
    ("entrant", "style"),
    [
        pytest.param(*arm, marks=() if arm == QUICK else pytest.mark.slow, id="-".join(arm))
        for arm in STYLES
    ],
)


@cache
def over_devices(entrant: str, style: str) -> dict[str, dict[str, Any]]:
    """Return what a style does over devices, in a process that has enough of them."""
    return in_process(entrant, [style])[style]


@of_all_styles
def test_losses_are_those_of_one_device(entrant: str, style: str) -> None:
    found = over_devices(entrant, style)
    assert len(found) == len(Selection(devices=DEVICES).meshes)
    for name, row in found.items():
        _, devices, weak = read_style(name)
        assert row["away"] <= AWAY, name
        assert row["devices"] == devices, name
        assert row["rows"] == 8 * (devices if weak else 1), name
        assert row["divided"] == row["rows"] // devices, f"{name}: streams are not shared"
        assert row["loss_everywhere"], name
        assert row["updates"] == 3, name


@of_all_styles
def test_nothing_is_compiled_again(entrant: str, style: str) -> None:
    for name, row in over_devices(entrant, style).items():
        assert row["compiled"] == [0] * 8, name  # two steps of a new one, three, and three


@of_all_styles
def test_devices_speak_once_in_a_step(entrant: str, style: str) -> None:
    """Gradients are added up over devices after the scan, and not at each of its characters."""
    for name, row in over_devices(entrant, style).items():
        assert row["at_each_character"] == [], name
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


def test_more_devices_than_there_are() -> None:
    here = len(jax.devices())
    with pytest.raises(BakeoffError) as error:
        placement(here + 1)
    assert str(error.value).startswith(
        f"devices is {here + 1}; cpu has {here} here: give a smaller number"
    )
    assert f"JAX_NUM_CPU_DEVICES={here + 1}" in str(error.value)


def test_a_batch_that_does_not_divide() -> None:
    check_batch(8, 4)
    with pytest.raises(BakeoffError) as error:
        check_batch(8, 3)
    assert str(error.value) == (
        "batch 8 does not divide among 3 devices; give a multiple of 3, or another number of "
        "devices"
    )


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
