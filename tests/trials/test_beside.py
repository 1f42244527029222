"""Trials of other tools: what is left of the plan, and the table of rows."""

import json
from collections import Counter
from pathlib import Path

import pytest

from bench.report.table import format_content
from tests.commands import script

RUN = script("results/beside/run.py")


def record(tool: str, plant: str, rule: str, *, called: bool, ratio: float) -> dict[str, object]:
    outcome = {"rule": rule, "called": called, "base": 4e-3, "ratio": ratio}
    wait = 40.0 if plant == "+1 %" else 0.0
    about = {"tool": tool, "plant": plant, "budget": 30, "wait": wait, "seconds": 30.0}
    return about | {"outcomes": [outcome]}


def test_the_plan_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUN, "ROWS", tmp_path / "rows.jsonl")
    assert len(list(RUN.plan("pyperf", None, None))) == 40
    assert ("arms", "slower later") not in RUN.plan(None, None, None), "its baseline has no plant"
    row = record("pyperf", "+1 %", "compare_to", called=True, ratio=1.01)
    RUN.ROWS.write_text(f"{json.dumps(row)}\n")
    assert Counter(RUN.plan(None, None, None))["pyperf", "+1 %"] == 9
    assert list(RUN.plan("pyperf", "+1 %", 2)) == [("pyperf", "+1 %")] * 2


def test_the_table_counts_false_calls_and_finds() -> None:
    rows = [
        record("pyperf", "nothing", "compare_to", called=True, ratio=1.02),
        record("pyperf", "nothing", "compare_to", called=False, ratio=1.0),
        record("pyperf", "+1 %", "compare_to", called=True, ratio=1.01),
        {"tool": "pyperf", "plant": "nothing", "budget": 30, "failed": "it hangs"},
    ]
    [row] = RUN.make_table(rows).rows
    texts = [format_content(cell) for cell in row.cells]
    assert texts == [
        *("pyperf: compare_to", "1 of 2 (1 to 99 %)", "1 of 1 (3 to 100 %)"),
        *("1.2 %", "30", "7 min"),
    ]
