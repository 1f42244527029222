"""The three kinds of chart: what they say in words, and that they can be drawn."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import impls
from bench.cells import Arm
from bench.report import charts
from bench.report.charts import Figure, bars, intervals, lines, save, svg
from bench.report.run import figures
from common.errors import BakeoffError
from tests.report.runs import Planted, made_run
from tests.report.test_table import added, amount, ratio

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAYS = {f"2026-0{month}-01": ratio(1 + month / 10, 1, 2) for month in range(1, 6)}


@pytest.mark.parametrize(
    ("make", "labels"),
    [
        (
            lambda: intervals("a", "t", {"one": ratio(1.2, 1.1, 1.3), "two": ratio(1.0)}, band=0.1),
            ("one", "two", "step, ratio to"),
        ),
        (lambda: intervals("a", "t", {"one": added(5e-5, 4e-5, 6e-5)}), ("one", "µs", "added")),
        (
            lambda: lines("a", "t", {Arm("haiku", "pure"): DAYS}, marks=["2026-03-01"]),
            ("haiku", "2026", "step"),
        ),
        (
            lambda: lines(
                "a", "t", {Arm("mine", "own"): {8: ratio(2.0), 64: ratio(1.0)}}, "x", powers=True
            ),
            ("mine own", "64"),
        ),
        (
            lambda: bars("a", "t", {"haiku": {"import": amount(1.0), "init": amount(0.5)}}, "time"),
            ("haiku", "import", "init", "time", "1.5s"),
        ),
    ],
)
def test_charts_are_drawn(make: Callable[[], Figure], labels: tuple[str, ...]) -> None:
    for width in (charts.WIDE, charts.NARROW):
        drawn = svg(make(), width, page=True)
        assert f'width="{width}"' in drawn
        text = " ".join(re.findall(r"<text[^>]*>([^<]*)<", drawn))
        assert all(label in text for label in labels), text
        assert "currentColor" in drawn
        assert "NaN" not in drawn


def test_a_run_has_a_chart_for_each_question() -> None:
    arms = {
        "haiku/pure": Planted({"width64": 1.3, "seed": 1.0, "width256": 1.01}),
        "flax_nnx/jit": Planted(1.3),
    }
    steps, widths, startup = figures(made_run(arms, ("width64", "width256", "seed")).results)
    assert steps.title == "At seed, flax_nnx jit differs from pure_jax's"
    assert "Grey: differences that would not be found." in steps.text
    assert widths.title == "At the widest, 1 of 2 steps are within ±2 %"
    assert widths.text.endswith("haiku from 256 on; flax_nnx jit at none")
    assert startup.title.startswith("From a fresh process to the second step at seed: 9")


def test_pictures_are_files(tmp_path: Path) -> None:
    made = list(figures(made_run({"haiku/pure": Planted()}).results))
    save(made, tmp_path / "a" / "pictures")
    names = sorted(path.name for path in (tmp_path / "a" / "pictures").iterdir())
    assert names == ["startup.png", "startup.svg", "steps.png", "steps.svg"]
    assert (tmp_path / "a" / "pictures" / "steps.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    with pytest.raises(BakeoffError, match="--pictures"):
        save(made, tmp_path / "file" / "pictures")


def test_each_entrant_of_this_project_has_its_own_colour() -> None:
    names = impls.names()
    assert len(set(impls.colours(names).values())) == len(names)
    assert all(impls.colours([name, "mine"])[name] == impls.colours(names)[name] for name in names)
