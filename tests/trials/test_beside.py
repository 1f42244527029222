"""Trials of other tools: what is left of the plan, and the table of rows."""

import json
from collections import Counter
from pathlib import Path

import pytest

from bench.report.table import format_content
from results.beside.plan import PLANTS, Trial
from results.beside.scores import DESIGNS, make_table, score_trials
from tests.commands import script

RUN = script("results/beside/run.py")


def record(tool: str, plant: str, rule: str, *, called: bool, ratio: float) -> dict[str, object]:
    outcome = {"rule": rule, "called": called, "base": 4e-3, "ratio": ratio}
    wait = 40.0 if plant == "+1 %" else 0.0
    trial = Trial(tool, plant, "seed", 30)._asdict()
    about = {"wait": wait, "took": 30.0, "loop": 100.0, "when": "2026-11-30T10:23"}
    return trial | about | {"outcomes": [outcome]}


def test_the_plan_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUN, "ROWS", tmp_path / "rows.jsonl")
    planted = Trial("pyperf", "+1 %", "seed", 30)
    assert Counter(RUN.list_left())[planted] == 10
    assert not any(t.tool in PLANTS[t.plant].without for t in RUN.list_left())
    row = record("pyperf", "+1 %", "compare_to", called=True, ratio=1.01)
    RUN.ROWS.write_text(f"{json.dumps(row)}\n")
    assert Counter(RUN.list_left())[planted] == 9
    assert Counter(RUN.list_left(2))[planted] == 2


def test_the_table_counts_false_calls_and_finds() -> None:
    rows = [
        record("pyperf", "nothing", "compare_to", called=True, ratio=1.02),
        record("pyperf", "nothing", "compare_to", called=False, ratio=1.0),
        record("pyperf", "+1 %", "compare_to", called=True, ratio=1.01),
        Trial("pyperf", "nothing", "seed", 30)._asdict() | {"failed": "it hangs"},
        record("pyperf", "slower later", "compare_to", called=True, ratio=1.05),
    ]
    [row] = make_table(score_trials(rows)).rows
    texts = [format_content(cell) for cell in row.cells]
    assert texts == [
        *("pyperf: compare_to", "1 of 2 (1 to 99 %)", "1 of 1 (3 to 100 %)"),
        *("1.2 %", "30", "7 min"),
    ]
    [row] = make_table(score_trials(rows), DESIGNS).rows
    assert [format_content(cell) for cell in row.cells] == [texts[0], "1 of 1 (3 to 100 %)"]
