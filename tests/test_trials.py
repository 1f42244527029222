"""Trials of the engine: what they record, what their tables say, and what a kill loses."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.engine.journal import FOLDER, Journal
from bench.runfile.section import unit_of
from bench.trials import engine
from bench.trials.plants import PLANTED, of_side
from bench.trials.runs import RUN, link_journals, load, losses, started, threshold
from bench.trials.tables import markdown
from bench.worker.arms import program_of
from common.config import ModelConfig
from common.equality import Case, make

ROOT = Path(__file__).parents[1]
ABOUT = {"at": "2026-11-26T05:29:28", "cpu": "a processor", "load": 0.1, "loaded": False}
ARM = ABOUT | {"part": "two_arms", "cores": "one", "budget": 20, "percent": 1.0}


def arm(called: str, ratio: float, **other: Any) -> dict[str, Any]:
    estimate = {"ratio": ratio, "low": ratio - 0.004, "high": ratio + 0.006}
    return ARM | {"called": called, **estimate} | other


def rows(records: list[dict[str, Any]]) -> list[list[str]]:
    """Return the cells of all tables, without their headers."""
    text = markdown(records, engine.NAME)
    tables = [block.splitlines()[2:] for block in text.split("\n\n") if block.startswith("|")]
    return [[c.strip() for c in row.strip("|").split("|")] for table in tables for row in table]


# Records.


def test_planted_work_is_sized_by_a_line_through_the_calibrations(tmp_path: Path) -> None:
    for part, iterations, ratio, error in (
        *(("calibration", n, 1.002 + 0.001 * n, 1e-3) for n in (2, 40, 80)),
        ("calibration", 10, 1.9, 1e9),
        ("two_arms", 5, 9, 1e-9),
    ):
        point = {"iterations": iterations, "ratio": ratio, "standard_error": error}
        engine.keep(tmp_path, {"part": part, **point})
    engine.keep(tmp_path, {"part": "calibration", "failed": "no budget"})
    found = [engine.iterations_of(percent, tmp_path) for percent in (5, 2, 1, 0.1, 0)]
    assert found == [48, 18, 8, 1, 0]


@pytest.mark.parametrize(
    ("part", "words"),
    [("all_cores", "run the part `calibration` first"), ("two_arms,pwoer", "unknown part 'pwoer'")],
)
def test_parts_that_cannot_be_run(
    part: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        engine.main(["--folder", str(tmp_path), "--part", part])
    assert words in f"{caught.value}{capsys.readouterr().err}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ratio", "differs", "called"), [(1.01, True, "slower"), (0.99, True, "faster"), (2, False, "")]
)
def test_what_a_run_calls(ratio: float, differs: bool, called: str) -> None:
    step = dict.fromkeys(("low", "high", "standard_error", "df", "blocks", "processes"))
    assert engine.called(step | {"ratio": ratio, "differs": differs})["called"] == called


def test_what_a_whole_run_has_decided() -> None:
    def cell(style: str, verdict: str, low: float, high: float) -> dict[str, Any]:
        added = {"seconds": 1e-4, "low": low, "high": high}
        step = {"ratio": 1.0, "verdict": verdict, "detectable": 0.01}
        metrics = {"step": step, "host_cost": {"added": added}, "first_step": {"samples": 7}}
        return {"entrant": "haiku", "style": style, "workload": "seed", "metrics": metrics}

    cells = [
        cell("known", "equivalent", 99e-6, 102e-6),
        cell("wide", "inconclusive", 90e-6, 110e-6),
        {"entrant": "haiku", "style": "failed", "workload": "seed", "metrics": {}},
    ]
    run = {"took": 300.1, "plan": {"budget_seconds": 300}, "warnings": [], "cells": cells}
    found = engine.whole(run | {"spent": {"sampling_share": 0.7, "processes": 9}})
    assert (found["steps"], found["settled"], found["detectable"]) == (2, 1, 0.01)
    assert found["host_costs"] == 2
    assert found["host_costs_wide"] == {"haiku wide": pytest.approx(1e-5)}
    assert found["cold_samples"] == 7


# Tables.


def test_calls_are_counted_by_trial_budget_and_size() -> None:
    records = [
        *(arm("", 1.0, percent=0) for _ in range(3)),
        arm("faster", 0.99, percent=0),  # any call is false where nothing is planted
        arm("slower", 1.01),
        arm("faster", 0.99),  # the wrong direction is a miss
        arm("", 1.01),
        arm("slower", 1.01, loaded=True),
        arm("slower", 1.01, cores="all", part="plain"),
        ABOUT | {"part": "two_arms", "percent": 1.0, "failed": "no budget"},
        ABOUT
        | {"part": "plain", "way": "median", "budget": 60, "percent": 1.0, "called": "slower"},
        ABOUT
        | {"part": "ab", "budget": 60, "percent": 0, "called": "", "ratio": 1.0}
        | {"low": None, "high": 1.1},
    ]
    assert rows(records) == [
        ["A/B, one core", "60 s", "0 %", "1", "0", "±inf %", "1.0000"],
        ["median", "60 s", "1 %", "1", "1", "–", "–"],
        ["two arms, all cores", "20 s", "1 %", "1", "1", "±0.50 %", "1.0100"],
        ["two arms, one core", "20 s", "0 %", "4", "1", "±0.50 %", "1.0000"],
        ["two arms, one core", "20 s", "1 %", "3", "1", "±0.50 %", "1.0100"],
        ["two arms, one core, loaded", "20 s", "1 %", "1", "1", "±0.50 %", "1.0100"],
    ]
    assert "no budget" in markdown(records, engine.NAME)


def test_tables_of_other_parts() -> None:
    whole: dict[str, Any] = {"took": 29.6, "budget": 30.0, "steps": 13, "settled": 5}
    whole |= {"host_costs": 3, "host_costs_wide": {"a": 1e-5}, "sampling_share": 0.44}
    whole["detectable"] = None
    records = [
        ABOUT | {"part": "budgets", "cold_samples": 2} | whole,
        ABOUT | {"part": "exact", "plant": "copy()", "caught": True},
        ABOUT | {"part": "exact", "plant": "copy()", "caught": False},
        ABOUT | {"part": "kills", "kind": "run", "kills": 9, "journalled": 3412, "lost": 1}
        | {"cells_without_a_number": 2},
        ABOUT | {"part": "kills", "kind": "workers", "kills": 10}
        | {"cells_without_a_number": ["haiku pure step"]},
    ]  # fmt: skip
    assert rows(records) == [
        ["30 s", "30 s", "–", "5 of 13", "2 of 3", "44 %", "2"],
        ["`copy()`", "2", "1"],
        ["run, then resumed", "9", "3412", "1", "2"],
        ["workers", "10", "–", "–", "1"],
    ]


def test_the_published_records_have_tables(tmp_path: Path) -> None:
    records = engine.read(ROOT / "results/selftest")
    (tmp_path / engine.NAME).write_bytes((ROOT / "results/selftest" / engine.NAME).read_bytes())
    assert engine.main(["--folder", str(tmp_path), "--repeat", "0"]) == 0
    assert (tmp_path / "engine.md").read_text("utf-8").startswith("# Trials of the engine")
    planted = [r for r in records if "called" in r and "failed" not in r]
    assert sum(int(row[3]) for row in rows(records) if len(row) == 7 and "±" in row[5]) == len(
        planted
    )


# Kills.

STEP = {"step": {"equinox/pure": [0.1000000001, 0.2], "pure_jax/pure": [0.1, 0.2]}}
COLD = {"compile": 0.5, "import": None}


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Give a folder with the linked journal of a run: two blocks, a death and a cold process."""
    path = tmp_path / FOLDER / "run.journal"
    journal = Journal.create(path, {})
    link_journals(tmp_path)
    block = {"do": "block", "workload": "seed", "arms": ["equinox/pure"]}
    cold = {"do": "cold", "workload": "seed", "arms": ["equinox/pure"]}
    for action, outcome in (
        ({"do": "start"}, {}),
        (block, {"answer": {"seconds": STEP}}),
        (block, {"death": {"reason": "killed"}}),
        (block, {"answer": {"seconds": STEP}}),
        (cold, {"answer": {"values": COLD}}),
    ):
        journal.write({"action": action, "outcome": outcome})
    link_journals(tmp_path)
    journal.remove()
    return tmp_path


@pytest.mark.parametrize(
    ("blocks", "cold", "lost"), [(2, 1, 0), (1, 1, 4), (2, 0, 1), (0, 0, 9), (3, 2, 0)]
)
def test_samples_that_the_run_file_lacks_are_lost(
    blocks: int, cold: int, lost: int, killed: Path
) -> None:
    unit = unit_of(STEP)
    whole = {name: [round(v * 1e9 / unit) for v in values] for name, values in STEP["step"].items()}
    process = {"entrant": "equinox", "style": "pure", "values": {"compile": 0.5}}
    cells = [
        {"entrant": "equinox", "style": "pure", "failure": None}
        | {"metrics": {"step": {"median": 0.1}, "compile": {"median": None}}}
    ]
    samples = {"blocks": [{"nanoseconds": {"step": whole}}] * blocks, "cold": [process] * cold}
    run = {"cells": cells, "samples": samples, "spent": {"processes": 3}}
    (killed / RUN).write_text(json.dumps({"bakeoff": run}))
    assert losses(killed, ["step", "compile"]) == {
        "journalled": 9,
        "lost": lost,
        "cells_without_a_number": ["equinox pure compile"],
        "processes": 3,
    }


def test_a_run_that_is_still_running_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, "--budget=60") as run:
        assert run.poll() is None
    assert run.returncode == -signal.SIGKILL


@pytest.mark.parametrize("wanted", [True, False])
def test_load_comes_and_goes(wanted: bool) -> None:
    before = set(psutil.Process().children())
    with load(wanted, 0):
        for _ in range(50 if wanted else 1):
            time.sleep(0.1)
            if more := set(psutil.Process().children()) - before:
                break
        assert bool(more) == wanted
    assert set(psutil.Process().children()) <= before


# Real runs.


@pytest.mark.parametrize("iterations", [0, 177])
def test_one_side_of_an_ab_has_planted_work(
    iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLANTED, str(iterations))
    case = Case(ModelConfig(5, 8), 8, 1)
    program = program_of(make(of_side(), case), case)
    assert program
    text = program.lower().compile().as_text() or ""
    assert ('"known_trip_count":{"n":"177"' in text) == bool(iterations)


@pytest.mark.slow
def test_what_is_planted_is_caught_or_refused(tmp_path: Path) -> None:
    assert engine.main(["--folder", str(tmp_path), "--part", "exact"]) == 0
    caught = {record["plant"]: record["caught"] for record in engine.read(tmp_path)}
    assert caught == {"same()": False, **dict.fromkeys([*engine.EXACT, engine.REFUSED], True)}


@pytest.mark.slow
def test_the_threshold_of_pytest_benchmark() -> None:
    # Twenty times as slow: no load of the machine hides that, whichever of both runs it meets.
    assert threshold(2000.0, 20_000, 14)["called"] == "slower"
