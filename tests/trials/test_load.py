"""Trials beside other work: how rows are judged, and the published tables."""

from typing import Any

import pytest

from results.selftest import load
from results.selftest.trials import read
from tests.commands import ROOT

FOLDER = ROOT / "results" / "selftest"


def record(kind: str, rows: dict[str, Any], turn: int = 0) -> dict[str, Any]:
    about = {"engine": "abc", "processor": "a core", "subject": "stack", "loop": [40.0, 41.0]}
    return about | {"load": kind, "turn": turn, "rows": rows}


@pytest.mark.parametrize(
    ("told", "holds", "agrees", "holds_then"),
    [
        ([1e-4, 0.97e-4, 1.03e-4, 1e-3], True, True, True),
        ([1.03e-4, 1.01e-4, 1.05e-4, 1e-3], False, True, False),  # the quiet runs differ by 4 %
        ([1.3e-4, 1.2e-4, 1.4e-4, 1.3e-3], False, False, True),  # of a machine that was slower
        ([1.3e-4, 1.2e-4, 1.4e-4, 1e-3], False, False, False),
        ([0.3e-4, 0.2e-4, 0.4e-4, 1e-3], False, False, False),
    ],
)
def test_a_row_is_judged_by_two_quiet_runs(
    told: list[float], holds: bool, agrees: bool, holds_then: bool
) -> None:
    quiet = [[1.02e-4, 1e-4, 1.04e-4, 1e-3], [0.98e-4, 0.96e-4, 1e-4, 1e-3]]
    plain = load.judge(told, quiet, same_speed=False)
    same = load.judge(told, quiet, same_speed=True)
    assert (plain.holds, plain.agrees, same.holds) == (holds, agrees, holds_then)
    assert plain.off == pytest.approx(told[0] / 1e-4 - 1)


def test_rows_that_are_not_told_beside_a_load_are_counted() -> None:
    quiet = {"step a/b seed": [1.2, 1.19, 1.21, 0], "step a/c seed": [1.0, 0.99, 1.01, 0]}
    loaded = {"step a/b seed": [1.3, 1.29, 1.31, 0]}
    kinds = load.QUIET, "3 loops", "1 loop", load.QUIET
    rows = [record(kind, n) for kind, n in zip(kinds, (quiet, loaded, {}, quiet), strict=True)]
    compared, unknown = load.compare(rows)
    [row] = compared
    assert (row.load, row.plain.holds) == ("3 loops", False)
    assert row.plain.off == pytest.approx(0.1)
    assert row.plain == row.at_one_speed, "a ratio has no speed"
    assert sorted(where for _, where, _ in unknown) == ["1 loop", "1 loop", "3 loops"]
    assert load.compare(rows[:3]) == ([], []), "a turn that was cut off"
    assert "told 1 rows; 3 that are told without load" in load.markdown(rows)


def test_the_published_tables_are_of_the_published_records() -> None:
    text = (FOLDER / load.TABLES).read_text("utf-8")
    assert load.markdown(read(FOLDER / load.RECORDS)) == text
