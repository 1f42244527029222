"""Sides of a comparison: their cells, the entrants that depend on a difference, their task."""

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest

from bench.cells import Cell, Selection
from bench.engine.process import Interpreter
from bench.engine.task import Environment
from bench.environments.spec import Spec
from bench.offer import Offer
from bench.options import Options
from bench.prepare import sides as room
from bench.prepare.sides import (
    DEEP_SECONDS,
    choose_cells,
    find_affected_entrants,
    make_task,
    prepare_sides,
)
from bench.runfile import EnvironmentInfo
from bench.track.comparison import BASE, NEW
from common.config import DEEP
from common.errors import BakeoffError


def make_side(spec: str, *, haiku: bool = True) -> Environment:
    styles = {"pure_jax": ["pure"]} | ({"haiku": ["pure"]} if haiku else {})
    offer = Offer(styles, {}, ["cpu"], {}, {"cpu": "cpu"})
    return Environment(Interpreter(), EnvironmentInfo(spec=spec), offer=offer)


@pytest.mark.parametrize(
    ("base", "new", "entrants"),
    [
        ({"flax": "1"}, {"flax": "2"}, ("flax_linen", "flax_nnx")),
        ({"flax": "1", "jax": "1"}, {"flax": "2", "jax": "2"}, ()),
        ({"flax": "1"}, {"flax": "1"}, ()),
    ],
)
def test_what_depends_on_the_difference_is_measured(base: Any, new: Any, entrants: Any) -> None:
    sides = make_side("a"), make_side("b")
    for side, pins in zip(sides, (base, new), strict=True):
        side.info.pins = pins
    assert find_affected_entrants(*sides) == entrants
    assert find_affected_entrants(sides[0], replace(sides[1], python="3.1")) == ()
    sides[1].info.commit = "1234567"
    assert find_affected_entrants(*sides) == ()


def test_cells_are_those_that_both_sides_have() -> None:
    both = {BASE: make_side("a"), NEW: make_side("b", haiku=False)}
    cells = choose_cells(Selection(), both)
    assert {cell.workload for cell in cells[BASE]} == {"toy", DEEP.name, "seed"}
    entrants = {side: {cell.entrant for cell in of_side} for side, of_side in cells.items()}
    assert entrants == {BASE: {"pure_jax", "haiku"}, NEW: {"pure_jax"}}
    with pytest.raises(BakeoffError, match="base and new have nothing in common"):
        choose_cells(Selection(("haiku",)), both)
    extent = Options(DEEP_SECONDS)
    metrics = make_task("ab", Selection(), both, cells, extent).needed[BASE]
    assert metrics[Cell("haiku", "pure", "toy", "cpu")] == {"host_cost"}
    assert metrics[Cell("haiku", "pure", DEEP.name, "cpu")] == {"host_cost"}
    at_seed = metrics[Cell("haiku", "pure", "seed", "cpu")]
    assert {"step", "compile", "import", "peak_rss"} <= at_seed
    wide = Selection(workloads=("seed",), metrics=("host_cost",))
    with pytest.raises(BakeoffError, match="nothing to measure"):
        make_task("ab", wide, both, choose_cells(wide, both), extent)


def test_a_library_s_release_is_asked_for_its_usual_styles_and_calls_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    styles = {"pure_jax": ["pure"], "flax_linen": ["pure", "blog"], "flax_nnx": ["jit", "flat"]}
    asked: list[tuple[str, ...]] = []

    def ask(environment: Environment, selection: Selection) -> Environment:
        asked.append(selection.entrants)
        if_named = {"flax_nnx": ["flat"]}
        offer = Offer(styles, {}, ["cpu"], {}, {"cpu": "cpu"}, if_named=if_named)
        return replace(environment, offer=offer)

    sides = make_side("a"), make_side("b")
    for side, release in zip(sides, ("1", "2"), strict=True):
        side.info.pins = {"flax": release, "equinox": "1"}
    monkeypatch.setattr(room, "build_environments", lambda *_: list(sides))
    monkeypatch.setattr(room, "ask_side", ask)
    specs = {BASE: Spec("a"), NEW: Spec("b")}
    task = prepare_sides(specs, Selection(), Options(60), Mock(), ())
    assert asked == [("flax_linen", "flax_nnx")] * 2, "others are not even imported"
    assert task.calls_first
    assert {str(cell.arm) for cell in task.needed[NEW]} == {"flax_linen/pure", "flax_nnx/jit"}
    assert DEEP.name in {cell.workload for cell in task.needed[NEW]}, "arrays count"
    named = prepare_sides(specs, Selection(("flax_nnx",)), Options(60), Mock(), ())
    assert {str(cell.arm) for cell in named.needed[NEW]} == {"flax_nnx/jit", "flax_nnx/flat"}
    styled = prepare_sides(specs, Selection(styles=("jit", "filter_jit")), Options(60), Mock(), ())
    assert {str(cell.arm) for cell in styled.needed[NEW]} == {"flax_nnx/jit"}, "others have it"
    with pytest.raises(BakeoffError, match="--style filter_jit: flax_linen, flax_nnx, of the libr"):
        prepare_sides(specs, Selection(styles=("filter_jit",)), Options(60), Mock(), ())
    sides[1].info.pins["jax"] = "9"
    task = prepare_sides(specs, Selection(), Options(60), Mock(), ())
    assert not task.calls_first, "JAX changes steps as well"
