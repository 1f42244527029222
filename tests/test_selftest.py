"""The selftest's arithmetic, and what it says; its trials take hours and are run by hand."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cli import main
from bench.selftest import records, report
from bench.selftest.calibration import (
    LEAST,
    Line,
    Point,
    as_asked,
    calibrate,
    fit,
    points_of,
)
from bench.selftest.trials import PERCENTS, WISHES, Trial, wanted
from common.errors import BakeoffError

PUBLISHED = Path(__file__).parents[1] / "results/selftest"


def on_a_line(base: float, slope: float, *iterations: int) -> list[Point]:
    return [Point(n, 1 + base + slope * n, 1e-3) for n in iterations]


def test_a_line_through_points_that_lie_on_one() -> None:
    line = fit(on_a_line(0.002, 0.001, 2, 40, 80, 160))
    assert line.base == pytest.approx(0.002)
    assert line.slope == pytest.approx(0.001)
    assert line.at(48)[0] == pytest.approx(0.05)
    assert [line.iterations(p / 100) for p in PERCENTS] == [8, 18, 48, 98]
    assert line.iterations(0.0) == LEAST


def test_a_line_knows_least_far_from_its_points() -> None:
    line = fit(on_a_line(0.0, 0.001, 10, 20, 30))
    assert line.at(20)[1] == pytest.approx(1.02e-3 / np.sqrt(3), rel=0.02)
    assert line.at(200)[1] > 5 * line.at(20)[1]


def test_precise_points_count_for_more() -> None:
    points = [Point(10, 1.01, 1e-4), Point(100, 1.1, 1e-4), Point(10, 1.03, 1e-2)]
    assert fit(points).at(10)[0] == pytest.approx(0.01, abs=1e-4)


def test_points_that_scatter_more_than_they_say_make_it_less_sure() -> None:
    quiet = on_a_line(0.0, 0.001, 2, 40, 80, 160)
    loud = [p._replace(ratio=p.ratio + 0.01 * (-1) ** i) for i, p in enumerate(quiet)]
    assert fit(loud).at(20)[1] > 5 * fit(quiet).at(20)[1]


@pytest.mark.parametrize("points", [[], on_a_line(0, 1e-3, 2, 40), on_a_line(0, 1e-3, 2, 2, 2)])
def test_too_few_points_for_a_line(points: list[Point]) -> None:
    with pytest.raises(BakeoffError, match=r"three runs at two numbers.*do the part `calibrate`"):
        fit(points)


def test_a_calibration_measures_each_number_of_iterations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bench(folder: Path, *options: str) -> dict[str, Any]:
        entrant = Path(options[0].removeprefix("--entrant=")).stem
        step = {"ratio": 1 + int(entrant.removeprefix("work_")) / 1000, "standard_error": 1e-3}
        cells = [
            {"entrant": "pure_jax", "metrics": {"step": {}}},
            {"entrant": entrant, "metrics": {"step": step}},
        ]
        return {"bakeoff": {"cells": cells}}

    monkeypatch.setattr("bench.selftest.calibration.bench", bench)
    found = json.loads(json.dumps(calibrate(tmp_path, 60)))
    line = fit(points_of([{"part": "calibration", "found": found}]))
    assert line.at(100)[0] == pytest.approx(0.1)


def test_trials_that_are_made_are_not_wanted_again() -> None:
    everything = wanted(Counter())
    wishes = {
        Trial(percent, way, loaded): count
        for (way, loaded), counts in WISHES.items()
        for percent, count in counts.items()
    }
    assert Counter(everything) == wishes
    assert wishes[Trial(0, "bakeoff", False)] >= 20
    assert wanted(Counter(everything)) == []
    left = wanted(Counter(everything[:10]))
    assert Counter(left) == Counter(everything[10:])
    assert wanted(Counter(everything + everything)) == []  # more than wanted is none wanted


def test_both_ways_are_in_turns() -> None:
    ways = [trial.way for trial in wanted(Counter())]
    changes = sum(a != b for a, b in pairwise(ways))
    assert changes > len(ways) / 4


def outcome(called: str, ratio: float) -> dict[str, Any]:
    interval = {"ratio": ratio, "low": ratio - 0.005, "high": ratio + 0.005}
    about = {"standard_error": 2e-3, "p": 0.5, "verdict": called or "equivalent"}
    size = {"blocks": 50, "processes": 7, "detectable": 0.007}
    control = {**interval, "ratio": 1.0, "low": 0.995, "high": 1.005, **about, "verdict": "x"}
    return {"called": called, **interval, **about, **size, "control": control}


def record(percent: int, way: str, called: str, ratio: float = 1.0) -> dict[str, Any]:
    trial = {"percent": percent, "way": way, "loaded": False, "iterations": 10 * percent}
    found = outcome(called, ratio) if way == "bakeoff" else {"called": called}
    return {
        "part": "trial", "at": "2026-11-24 10:00:00", **trial, "budget": 60.0, "found": found,
    }  # fmt: skip


RECORDS = [
    {
        "part": "calibration",
        "at": "2026-11-24 09:00:00",
        "found": {"points": [[10, 1.01, 1e-3], [50, 1.05, 1e-3], [100, 1.1, 1e-3]]},
    },
    *(record(0, "bakeoff", "") for _ in range(19)),
    record(0, "bakeoff", "faster", 0.98),
    *(record(1, "bakeoff", "slower", 1.01) for _ in range(3)),
    record(1, "bakeoff", "", 1.01),
    record(1, "bakeoff", "faster", 0.99),  # the wrong way round is a miss
    record(5, "plain", "slower"),
    record(5, "plain", ""),
]


def planted(iterations: int, found: list[dict[str, Any]] = RECORDS) -> str:
    return f"{100 * fit(points_of(found)).at(iterations)[0]:.1f} %"


def test_a_plant_of_another_size_has_a_row_of_its_own_and_is_made_again() -> None:
    twice = record(1, "bakeoff", "slower", 1.02) | {"iterations": 20}
    found = [*RECORDS, twice]
    line = fit(points_of(found))
    assert not as_asked(twice, line)
    assert as_asked(record(1, "bakeoff", ""), line)
    assert as_asked(record(0, "bakeoff", ""), line)
    said = report.markdown(found)
    assert f"| {planted(20, found)} | 1/1: 100 % (3–100) |" in said
    assert f"| {planted(10, found)} | 3/5: 60 % (15–95) |" in said


def test_the_table_counts_false_alarms_and_hits() -> None:
    said = report.markdown(RECORDS)
    rows = {line.split("|")[1].strip(): line.split("|")[2:6] for line in said.splitlines()
            if line.startswith("| ") and line.count("|") == 6}  # fmt: skip
    assert rows["0 %"][0].strip() == "1/20: 5 % (0–25)"
    assert list(rows) == ["planted", "0 %", planted(10), planted(50)]
    assert rows[planted(10)][0].strip() == "3/5: 60 % (15–95)"
    assert rows[planted(50)][1].strip() == "1/2: 50 % (1–99)"
    assert rows[planted(50)][0].strip() == "–"
    assert "39/40: 98 % (87–100) hold the true ratio" in said


def test_what_was_planted_is_what_all_runs_say() -> None:
    said = report.markdown(RECORDS)
    assert "a line through the 8 runs" in said
    [row] = [line for line in said.splitlines() if line.startswith("| 1 % | 10 |")]
    planted = float(row.split("|")[3].split("%")[0])
    assert 0.7 < planted < 1.05  # one trial of five found less


def test_a_report_of_nothing() -> None:
    assert report.markdown([]).startswith("# Selftest")


def test_the_curve_has_every_kind_of_trial(tmp_path: Path) -> None:
    report.picture(RECORDS, tmp_path)
    drawn = (tmp_path / "power.svg").read_text("utf-8")
    assert "pytest-benchmark, median:5%" in drawn
    assert (tmp_path / "power.png").stat().st_size > 5_000


def test_half_a_record_is_left_out_and_replaced(tmp_path: Path) -> None:
    records.append(tmp_path, {"part": "a"})
    path = tmp_path / records.NAME
    path.write_text(path.read_text("utf-8") + '{"part": "b', encoding="utf-8")
    assert records.read(tmp_path) == [{"part": "a"}]
    records.append(tmp_path, {"part": "c"})
    assert records.read(tmp_path) == [{"part": "a"}, {"part": "c"}]


def test_a_damaged_record_is_said_so(tmp_path: Path) -> None:
    (tmp_path / records.NAME).write_text("{]\n{}\n", encoding="utf-8")
    with pytest.raises(BakeoffError, match=r"trials\.jsonl is damaged .* mend it, or name another"):
        records.read(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--part", "pwoer"), "unknown part 'pwoer'; known: calibrate, trials, exact"),
        (("--budget", "0"), "--budget is 0"),
        (("--time-limit", "-1"), "--time-limit is -1"),
        (("--part", "trials"), "trials need a calibration; do the part `calibrate` first"),
    ],
)
def test_what_cannot_be_asked_for(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["selftest", "--folder", str(tmp_path / "selftest"), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_no_page_of_others_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    assert main(["selftest", "--folder", str(tmp_path), "--part", "exact"]) == 2
    assert "has a README.md that no selftest wrote" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text("utf-8") == "mine"


def test_the_published_report_is_made_of_the_published_trials() -> None:
    said = (PUBLISHED / "README.md").read_text("utf-8")
    assert said == report.markdown(records.read(PUBLISHED))


def test_the_readme_says_what_the_published_trials_found() -> None:
    found = report.trials(records.read(PUBLISHED))

    def called(way: str, label: str) -> str:
        [planted] = [each for each in found if each.label == label]
        outcomes = found[planted][report.Kind(way, loaded=False)]
        return f"{report.hits(planted, outcomes)} of {len(outcomes)}"

    nothing = "where nothing was"
    said = " ".join((PUBLISHED.parents[1] / "README.md").read_text("utf-8").split())
    for way, label in (("bakeoff", "1.1 %"), ("plain", "4.9 %")):
        assert (
            f"called {called(way, label)} that were of {label} and {called(way, '0 %')} {nothing}"
        ) in said


def test_a_line_is_what_its_numbers_say() -> None:
    line = Line(0.001, 0.002, np.eye(2) * 1e-6)
    assert line.at(0) == (0.001, 1e-3)
