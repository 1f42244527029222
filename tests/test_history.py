"""What a history says: its data as a document, and the words of changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bench.cells import Cell, Offer
from bench.compare.experiment import Offered
from bench.compare.history import document, history_data, timeline, write_files
from bench.compare.trends import growth
from bench.engine.actions import Options
from bench.engine.processes import Place
from bench.engine.sides_plan import REFERENCE, History
from bench.environments.builder import Environment
from bench.environments.spec import parse
from bench.report.markdown import markdown
from bench.report.page.parts import document_page
from tests.simulated import LANES, Machine

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.table import Document, Table

DAYS = ["2025-06-01", "2025-12-01", "2026-01-01"]
CELL = {"style": "pure", "workload": "toy", "backend": "cpu"}
HOSTILE = "<script>alert(1)</script>"


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


def past(**more: Any) -> dict[str, Any]:
    """Return a small history, with names that try to be something else."""
    versions = ("0.6.1", "0.8.1", "0.8.1")
    days: list[dict[str, Any]] = [
        {"day": day, "stack": day, "versions": {"jax": jax, "jaxlib": jax, "flax": f"0.{i}"}}
        | {"python": "3.12", "gaps": {}, "missing": None}
        for i, (day, jax) in enumerate(zip(DAYS, versions, strict=True))
    ]
    days[0]["gaps"] = {"haiku pure": "<b>no</b>", "haiku jit": "<b>no</b>"}
    gone = {"day": "2025-09-01", "stack": "", "versions": {}, "missing": "no wheel", "gaps": {}}
    return {
        "kind": "history",
        "since": DAYS[0],
        "until": DAYS[-1],
        "every": "6mo",
        "when": "2026-01-01T00:00:00",
        "machine": HOSTILE,
        "reference": DAYS[-1],
        "arguments": ["history", "-o", "a b; rm"],
        "seed": 1,
        "sweeps": 2,
        "alpha": 0.05,
        "comparisons": 4,
        "stacks": DAYS,
        "warnings": ["The machine was busy."],
        "days": [*days, gone],
        "series": [series("pure_jax", [0.53, 1.0, 1.0]), series("haiku", [0.5, None, 1.0])],
        "exact": [
            {**CELL, "entrant": entrant, "metric": "python_calls", "value": [4, None, 6]}
            for entrant in ("pure_jax", "haiku")
        ],
        "changes": [change("pure_jax", 1.9)],
        "spent": {"wall_seconds": 10.0, "sampling_seconds": 5.0, "processes": 4},
    } | more


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
    versions = {name: {"python": "3.12.1", "jax": name[-5:]} for name in (*days, REFERENCE)}
    sides = {
        name: Offered(
            Environment(parse("current"), Place(), python="3.12"),
            Offer({"pure_jax": ["pure"]}, {"haiku": "no wheel"}, ["cpu"], versions[name], {}),
        )
        for name in versions
    }
    about: dict[str, Any] = {
        "since": days[0],
        "until": days[2],
        "every": "1mo",
        "reference": days[2],
    }
    about |= {"arguments": ["history"], "seed": 1, "when": "2026-03-01T00:00:00"}
    named = {day: day for day in days}
    data = history_data(plan, sides, named, {"2026-01-15": "no jax"}, **about)
    write_files(tmp_path / "past", plan, sides, data, 0.02)
    assert json.loads((tmp_path / "past" / "history.json").read_text()) == data
    kept = json.loads((tmp_path / "past" / f"{days[1]}.json").read_text("utf-8"))
    assert kept["bakeoff"]["history"]["stack"] == days[1]
    first, gone, *_ = data["days"]
    assert (first["gaps"], gone["missing"]) == ({"haiku pure": "no wheel"}, "no jax")
    [step] = [c for c in data["changes"] if c["metric"] == "step" and c["entrant"] == "pure_jax"]
    assert (step["before"], step["after"]) == (days[0], days[1])
    assert step["low"] < 1.2 < step["high"]
    found = timeline(data)
    assert next(each for each in found.changes if each.key.metric == "step").ratio == step["ratio"]
    haiku = next(s for s in found.series if s.key.entrant == "haiku" and s.key.metric == "step")
    assert haiku.at.tolist() == [1, 2]
    assert haiku.value(-1).number == 1.0
    assert haiku.record(0)["low"] < haiku.record(0)["ratio"] < haiku.record(0)["high"]
    assert data["sentences"] == list(document(data).sections[0].lines)


def test_a_document_says_what_changed_and_what_days_lack() -> None:
    found = document(past(), figures=True)
    assert found.headline == "1 change found in 4 comparisons."
    [said] = found.sections[0].lines
    assert said == (
        "Compile at toy rose by 90 % (80–100 %) between 2025-06-01 and 2025-12-01 "
        "(jax 0.6.1 → 0.8.1, flax 0.0 → 0.1): pure_jax."
    )
    linen = past()
    linen["series"].append(series("flax_linen", [1.0, 1.0, 1.0]))
    [said] = document(linen).sections[0].lines
    assert "flax" not in said  # another entrant's library is no cause
    exact = tables(found)["Exact metrics that changed"]
    assert [row.cells for row in exact.rows] == [
        ("Python calls", "4 → 6", "2025-06-01 to 2026-01-01", "pure_jax at toy and haiku at toy")
    ]
    days = {row.cells[0]: row.cells for row in tables(found)["The days, and what they lack"].rows}
    assert days[DAYS[0]][1:3] == ("0.6.1", "0.0")
    assert days[DAYS[0]][-1] == "haiku pure, haiku jit: <b>no</b>"
    assert days["2025-09-01"][-1] == "could not be built: no wheel"
    assert found.warnings == ("The machine was busy.",)


def test_series_keep_their_days_and_their_values_are_relative_to_the_newest() -> None:
    found = timeline(past())
    haiku = next(each for each in found.series if each.key.entrant == "haiku")
    assert haiku.at.tolist() == [0, 2]
    assert haiku.record(0) | {"low": 0, "high": 0, "median": 0} == {
        **dict.fromkeys(("median", "low", "high"), 0),
        "ratio": 0.5,
        **dict.fromkeys(("standard_error", "df", "p", "verdict")),
    }
    assert [(move.before, move.after, move.values) for move in found.moves] == [(0, 2, (4, 6))] * 2


@pytest.mark.parametrize(
    ("comparisons", "headline"),
    [(0, "Nothing could be tested"), (4, "No change found in 4 comparisons.")],
)
def test_no_change(comparisons: int, headline: str) -> None:
    found = document(past(changes=[], comparisons=comparisons))
    assert found.headline.startswith(headline)
    assert found.sections[0].lines == ()


def test_entrants_that_changed_alike_are_one_sentence() -> None:
    fell = change("haiku", 0.5, before=DAYS[0], after=DAYS[2])
    changes = [change("pure_jax", 2.1), change("equinox", 2.4), fell]
    found = document(past(changes=changes)).sections[0].lines
    assert [
        (" by a factor of 2.1–2.4 " in said, "pure_jax, equinox" in said) for said in found
    ] == [
        (True, True),
        (False, False),
    ]
    assert "fell by a factor of 2 (1.67–2.5) between 2025-06-01 and 2026-01-01" in found[1]


def test_many_changes_are_folded() -> None:
    changes = [change(f"e{i}", 1.5 + i / 100, metric="step", width=i + 1) for i in range(15)]
    found = document(past(changes=changes)).sections
    assert [(len(each.lines), each.folded) for each in found[:2]] == [(12, False), (3, True)]
    assert "by the means of 15 before and after" in found[1].lines[-1]


def test_every_form_escapes_what_came_from_outside() -> None:
    html = document_page(document(past(), figures=True))
    assert HOSTILE not in html
    assert "&lt;b&gt;no&lt;/b&gt;" in html
    assert "bakeoff history -o &#39;a b; rm&#39;" in html
    assert "http://" not in html.split("<script")[0]
    assert "<b>" not in markdown(document(past()))


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
