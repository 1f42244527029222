"""The one formatter of numbers, and the wording of names."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cells import BASELINE
from bench.estimates import PROGRAM, Estimate
from bench.report import table, wording
from bench.report.table import Column, Row, Table, change, mark, percent, words
from bench.stats.verdicts import Verdict

CELL = BASELINE.at("seed", "cpu")


def ratio(value: float, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    fields: dict[str, Any] = {
        "metric": "step",
        "form": "ratio",
        "value": value,
        "low": low,
        "high": high,
    }
    return Estimate(cell=CELL, **fields | more)


def added(value: float, low: float | None = None, high: float | None = None, **more: Any) -> Any:
    return ratio(value, low, high, **{"form": "added", "unit": "s"} | more)


def amount(value: float, unit: str = "s") -> Any:
    return ratio(value, value / 2, value * 2, form="amount", unit=unit)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (ratio(1.003, 0.999, 1.007), "1.003 (0.999–1.007)"),
        (ratio(1.2131, 1.188, 1.242), "1.21 (1.19–1.24)"),
        (ratio(9.02, 8.66, 9.41), "9.0 (8.7–9.4)"),
        (ratio(21.81, 21.75, 21.87), "21.8 (21.8–21.9)"),
        (ratio(1.08, 0.96, 1.19), "1.08 (0.96–1.19)"),
        # An end that would round to 1 has a digit more.
        (ratio(1.2, 1.0401, 1.36), "1.20 (1.04–1.36)"),
        (ratio(1.0, 1.0, 1.0), "1.00 (1.00–1.00)"),
        (ratio(1.25, 1.1), "1.2 (>1.1)"),
        (ratio(1.25), "1.25"),
        (ratio(140.2), "140"),
        (ratio(1.0, 0.004, 260.0), "1 (0–260)"),
        (ratio(1.0, 0.9, 1.1, settled_by=PROGRAM, bound=0.002), "±0.2 %, proven"),
        (ratio(1.0, 1.0, 1.0, settled_by=PROGRAM, standard_error=0.0), "the same"),
        (added(57e-6, 55e-6, 59e-6), "+57 µs (55 to 59)"),
        (added(2.94e-6, 1.4e-6, 4.4e-6), "+2.9 µs (1.4 to 4.4)"),
        (added(-0.3e-6, -1.12e-6, 0.44e-6), "-0.3 µs (-1.1 to 0.4)"),
        (added(0.34e-6, 0.31e-6, 0.37e-6), "+0.34 µs (0.31 to 0.37)"),
        (added(2.24e-3, 2.19e-3, 2.29e-3), "+2.24 ms (2.19 to 2.29)"),
        (added(4.72e-3, 1.2e-3, 8.2e-3), "+4.7 ms (1.2 to 8.2)"),
        (added(3.1e-6, 2e-6), "+3.1 µs (>2.0)"),
        (added(-2e-3), "-2.00 ms"),
        (added(1549, unit=""), "+1 549"),
        (added(-129_000, unit="B"), "-129 kB"),
        (added(0.7, 0.51, 0.92, unit="nats"), "+0.700 nats (0.510 to 0.920)"),
        (amount(106e-6), "106 µs"),
        (amount(12.0), "12.0 s"),
        (amount(0.0), "0 ns"),
        (amount(725_568, "B"), "726 kB"),
        (amount(0, "B"), "0 B"),
        (amount(2.3047, "nats"), "2.305"),
        (amount(7060, ""), "7 060"),
    ],
)
def test_a_number_has_the_digits_of_its_interval(estimate: Estimate, text: str) -> None:
    assert words(estimate) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (change(ratio(1.0123, 1.008, 1.0171)), "+1.2 % (0.8 to 1.7)"),
        (change(ratio(0.87, 0.82, 0.92)), "-13 % (-18 to -8)"),
        (change(ratio(3.0, 2.8, 3.2)), "3.0 (2.8–3.2) times"),
        (change(added(57e-6, 55e-6, 59e-6)), "+57 µs (55 to 59)"),
        (percent(0.008), "0.8 %"),
        (percent(1.5), "150 %"),
        (percent(0.0), "0 %"),
        (percent(0.0004), "0.04 %"),
        (mark(ratio(1.0, verdict=Verdict.EQUIVALENT)), "="),
        (mark(ratio(1.0, verdict=Verdict.INCONCLUSIVE)), "?"),
        (mark(ratio(1.2, verdict=Verdict.SLOWER)), ""),
        (table.colour(ratio(1.2, verdict=Verdict.SLOWER)), "slower"),
        (table.colour(ratio(1.0, verdict=Verdict.EQUIVALENT)), ""),
        (table.colour("slower"), ""),
        (wording.operations({}), "another order"),
        (wording.operations({"stablehlo.add": 1, "stablehlo.tanh": -2}), "+1 add, -2 tanh"),
        (wording.operations({"a": 1, "b": -2, "c": 3, "d": 1}), "7 operations differ"),
        (wording.place("width64"), "width 64"),
        (wording.place("depth12"), "12 layers"),
        (wording.place("of_old"), "of_old"),
        (wording.main_workload(["wide", "seed", "toy"]), "seed"),
        (wording.main_workload(["toy", "wide"]), "wide"),
        (wording.main_workload([]), ""),
        (wording.few(["a", "b", "c"], 2), "a, b and c"),
        (wording.few(["a", "b", "c", "d"], 2), "a, b and 2 more"),
        (wording.sentence("slower at seed"), "Slower at seed."),
        (wording.printable("\x1b[31mred\x1b[0m\a\tx\ry"), "red     x\ny"),
        (wording.ascii_only("±2 % µs 1–2 é"), "~2 % us 1-2 ?"),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert text == expected


def test_a_column_without_content_is_dropped() -> None:
    rows = (Row(("a", "", "1", "–")), Row(("b", "", "", "")))
    made = Table((Column("x"), Column("y"), Column("z"), Column("w")), rows).without_empty()
    assert [column.title for column in made.columns] == ["x", "z"]
    assert [row.cells for row in made.rows] == [("a", "1"), ("b", "")]
