"""What a history says: its data as a document, and the words of changes."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bench.cells import Cell, Offer
from bench.compare.experiment import Offered, write_runs
from bench.compare.history import Stacks, history_data, runs_of, visited
from bench.compare.history_result import HistoryFile, document, read, timeline
from bench.compare.series import SeriesKey
from bench.compare.trends import growth
from bench.engine.actions import Options
from bench.engine.processes import Place
from bench.engine.sides_plan import REFERENCE, History
from bench.environments.builder import Environment
from bench.environments.spec import parse
from bench.worker.settings import ROOT
from tests.simulated import LANES, Machine

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.table import Document, Table

DAYS = ["2025-06-01", "2025-12-01", "2026-01-01"]
CELL = {"style": "pure", "workload": "toy", "backend": "cpu"}


def series(entrant: str, ratio: list[float | None], **more: Any) -> dict[str, Any]:
    """Return a series as `history.json` has it."""
    low, high = ([r and r * by for r in ratio] for by in (0.95, 1.05))
    found = {"metric": "compile", "unit": "s", "ratio": ratio, "low": low, "high": high}
    return {**CELL, "entrant": entrant, **found, "median": [r and 0.4 * r for r in ratio], **more}


def change(entrant: str, ratio: float, **more: Any) -> dict[str, Any]:
    """Return a change between the first two days as `history.json` has it."""
    ends = {"before": DAYS[0], "after": DAYS[1], "low": ratio - 0.1, "high": ratio + 0.1}
    about = {"entrant": entrant, "metric": "compile", "ratio": ratio, "p": 1e-6}
    return {**CELL, **about, **ends, **more}


def past(**more: Any) -> HistoryFile:
    """Return a small history, as its file has it."""
    versions = ("0.6.1", "0.8.1", "0.8.1")
    days: list[dict[str, Any]] = [
        {"day": day, "stack": day, "versions": {"jax": jax, "jaxlib": jax, "flax": f"0.{i}"}}
        for i, (day, jax) in enumerate(zip(DAYS, versions, strict=True))
    ]
    days[0]["gaps"] = {"haiku pure": "no wheel", "haiku jit": "no wheel"}
    return msgspec.convert(
        {
            "since": DAYS[0],
            "until": DAYS[-1],
            "every": "6mo",
            "when": "2026-01-01T00:00:00",
            "machine": "Xeon, 2 cores",
            "reference": DAYS[-1],
            "arguments": ["history", "-o", "a b; rm"],
            "seed": 1,
            "sweeps": 2,
            "comparisons": 4,
            "stacks": DAYS,
            "warnings": ["The machine was busy."],
            "days": [*days, {"day": "2025-09-01", "missing": "no jax"}],
            "series": [series("pure_jax", [0.53, 1.0, 1.0]), series("haiku", [0.5, None, 1.0])],
            "exact": [
                {**CELL, "entrant": entrant, "metric": "python_calls", "value": [4, None, 6]}
                for entrant in ("pure_jax", "haiku")
            ],
            "changes": [change("pure_jax", 1.9)],
            "spent": {"wall_seconds": 10.0, "sampling_seconds": 5.0, "processes": 4},
            **more,
        },
        HistoryFile,
    )


def tables(found: Document) -> dict[str, Table]:
    return {table.title: table for section in found.sections for table in section.tables}


def test_what_was_measured_becomes_files_and_a_document(tmp_path: Path) -> None:
    days = ["2026-01-01", "2026-02-01", "2026-03-01"]
    cells = [Cell(entrant, "pure", "seed", "cpu") for entrant in ("pure_jax", "haiku")]
    effects = {(day, f"{cell.entrant}/pure"): 1.2 for day in days[1:] for cell in cells}
    plan = History(
        days,
        {REFERENCE: cells, days[0]: cells[:1], days[1]: cells, days[2]: cells},
        {"step", "compile"},
        Options(900),
        0.0,
        LANES,
    )
    Machine(noise=0.005, effects=effects).drive(plan)
    sides = {
        name: Offered(
            Environment(parse("current"), Place(), python="3.12"),
            Offer(
                {"pure_jax": ["pure"]},
                {"haiku": "no wheel"},
                ["cpu"],
                {"python": "3.12.1", "jax": name[-5:]},
                {},
            ),
        )
        for name in (*days, REFERENCE)
    }
    about = {"since": days[0], "until": days[2], "every": "1mo", "reference": days[2]}
    made = Stacks(sides, {day: day for day in days}, {"2026-01-15": "no jax"})
    cold = visited(plan)[SeriesKey.of(cells[0], "compile")]  # relative to the reference's baseline
    assert cold.mean == pytest.approx([0, math.log(1.2), math.log(1.2)], abs=1e-9)
    data = history_data(plan, made, **about, arguments=["history"], seed=1)
    runs = runs_of(plan, made, data, 0.02)
    write_runs(tmp_path / "past", "output", {**runs, "history": data})
    assert read(tmp_path / "past" / "history.json") == data
    kept = json.loads((tmp_path / "past" / f"{days[1]}.json").read_text("utf-8"))
    assert kept["bakeoff"]["history"]["stack"] == days[1]
    first, gone, *_ = data.days
    assert (first.gaps, gone.missing) == ({"haiku pure": "no wheel"}, "no jax")
    [step] = [c for c in data.changes if c.metric == "step" and c.entrant == "pure_jax"]
    assert (step.before, step.after) == (days[0], days[1])
    assert step.low < 1.2 < step.high
    found = timeline(data)
    assert next(each for each in found.changes if each.key.metric == "step").ratio == step.ratio
    haiku = next(s for s in found.series if s.key.entrant == "haiku" and s.key.metric == "step")
    assert haiku.at.tolist() == [1, 2]
    assert haiku.value(-1).number == 1.0
    first_day = haiku.points[0]
    assert (first_day.low or 0) < (first_day.ratio or 0) < (first_day.high or 0)
    assert data.sentences == list(document(data).sections[0].lines)


def test_a_published_history_is_read_and_its_page_says_what_changed() -> None:
    data = read(ROOT / "results" / "tracking" / "2024-06-to-2026-11" / "history.json")
    assert {change.width for change in data.changes} == {1}  # it is older than that field
    assert document(data).headline == "24 changes found in 480 comparisons."


def test_a_document_says_what_changed_and_what_days_lack() -> None:
    found = document(past(), figures=True)
    assert found.headline == "1 change found in 4 comparisons."
    [said] = found.sections[0].lines
    assert said == (
        "Compile at toy rose by 90 % (80–100 %) between 2025-06-01 and 2025-12-01 "
        "(jax 0.6.1 → 0.8.1, flax 0.0 → 0.1): pure_jax."
    )
    linen = [series("pure_jax", [0.53, 1.0, 1.0]), series("flax_linen", [1.0, 1.0, 1.0])]
    [said] = document(past(series=linen)).sections[0].lines
    assert "flax" not in said  # another entrant's library is no cause
    exact = tables(found)["Exact metrics that changed"]
    assert [row.cells for row in exact.rows] == [
        ("Python calls", "4 → 6", "2025-06-01 to 2026-01-01", "pure_jax at toy and haiku at toy")
    ]
    days = {row.cells[0]: row.cells for row in tables(found)["The days, and what they lack"].rows}
    assert days[DAYS[0]][1:3] == ("0.6.1", "0.0")
    assert days[DAYS[0]][-1] == "haiku pure, haiku jit: no wheel"
    assert days["2025-09-01"][-1] == "could not be built: no jax"
    assert found.warnings == ("The machine was busy.",)
    assert found.fine_print[-1] == "To repeat it: `bakeoff history -o 'a b; rm'`"


FELL = change("haiku", 0.5, before=DAYS[0], after=DAYS[2])
MANY = [change(f"e{i}", 1.5 + i / 100, metric="step", width=i + 1) for i in range(15)]


@pytest.mark.parametrize(
    ("changes", "comparisons", "headline", "sentences", "last"),
    [
        ([], 0, "Nothing could be tested", [0], ""),
        ([], 4, "No change found in 4 comparisons.", [0], ""),
        (
            [change("pure_jax", 2.1), change("equinox", 2.4)],
            *(4, "1 change found in 4", [1], "by a factor of 2.1–2.4 between 2025-06-01"),
        ),
        ([FELL, change("haiku", 2.0)], 4, "2 changes", [2], "rose by a factor of 2 (1.9–2.1)"),
        (MANY, 4, "15 changes", [12, 3], "by the means of 15 before and after: e14."),
    ],
)
def test_changes_that_are_alike_are_one_sentence_and_many_are_folded(
    changes: list[Any], comparisons: int, headline: str, sentences: list[int], last: str
) -> None:
    found = document(past(changes=changes, comparisons=comparisons))
    assert found.headline.startswith(headline)
    said = [each for each in found.sections if "change" in each.title]
    assert [len(each.lines) for each in said] == sentences
    assert [each.folded for each in said] == [False, True][: len(said)]
    assert last in "".join(said[-1].lines[-1:])


def test_a_series_of_one_day_is_not_drawn() -> None:
    """Relative to its only day, it is 1 whatever was measured."""
    once = series("haiku", [1.0, None, None])
    found = document(past(series=[series("pure_jax", [0.53, 1.0, 1.0]), once]), figures=True)
    [figure] = [figure for section in found.sections for figure in section.figures]
    assert figure.name == "compile-toy"
    when = "between 2025-06-01 and 2025-12-01"
    assert figure.title == f"Compile at toy rose by 90 % (80–100 %) {when} (pure_jax)"
    rows = figure.chart.to_dict()["data"]["values"]
    assert [(row["entrant"], row["at"]) for row in rows] == [("pure_jax", day) for day in DAYS]
    assert "Not drawn: haiku." in figure.text
    assert "jax 0.8.1" in json.dumps(figure.chart.to_dict())
    none = document(past(series=[once]), figures=True)
    assert not any(section.figures for section in none.sections)


@pytest.mark.parametrize(
    ("ratios", "interval", "expected"),
    [
        ([1.3], (1.2, 1.41), "rose by 30 % (20–41 %)"),
        ([1.015], (1.01, 1.02), "rose by 1.5 % (1–2 %)"),
        ([1.97, 2.37], None, "rose by 97–137 %"),
        ([2.1, 2.4, 2.2], None, "rose by a factor of 2.1–2.4"),
        ([140.9], (108.0, 183.9), "rose by a factor of 141 (108–184)"),
        ([0.86, 0.87], None, "fell by 13–14 %"),
        ([0.25], (0.24, 0.26), "fell by a factor of 4 (3.85–4.17)"),
        ([0.0071], (0.0054, 0.0093), "fell by a factor of 141 (108–185)"),
    ],
)
def test_a_change_keeps_the_digits_that_tell_it_apart(
    ratios: list[float], interval: tuple[float, float] | None, expected: str
) -> None:
    assert growth(ratios, interval) == expected
