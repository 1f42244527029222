"""Trials on real runs: what they record, what their table says, and what a kill loses."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bench.cells import Arm
from bench.engine.journal import FOLDER, Journal
from bench.estimates import Estimate
from bench.runfile import CellResult, Results, ResultsWithSamples, packed
from bench.samples import Sample
from bench.trials import __main__ as trials
from bench.trials.runs import TrialFailedError, link_journals, losses, started

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = {"at": "2026-11-26T05:29:28", "machine": "a processor, 2 cores", "code": "abc", "load": 0.1}


def ratio(value: float, half: float = 0.005) -> Results:
    row = Estimate(
        cell=trials.PLANTED,
        metric="step",
        form="ratio",
        value=value,
        low=value - half,
        high=value + half,
    )
    return Results(estimates=[row])


@pytest.mark.parametrize(
    ("value", "microseconds", "right"),
    [
        (1.01, 27.0, True),
        (0.99, 27.0, False),  # the wrong direction is a miss
        (1.00, 27.0, False),
        (1.00, 0.0, True),
        (0.99, 0.0, False),  # any call is false where nothing is planted
        (1.01, 0.0, False),
    ],
)
def test_what_is_right(value: float, microseconds: float, right: bool) -> None:
    assert trials.planted("two arms", ratio(value), microseconds)["right"] is right


def test_a_run_without_an_estimate_is_a_failed_trial() -> None:
    with pytest.raises(TrialFailedError, match="no estimate of the planted step"):
        trials.planted("two arms", Results(), 27.0)


def test_records_are_kept_and_their_table_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([1.01, 1.02, 1.00, None])

    def part() -> Any:
        value = next(values)
        yield trials.planted(
            "two arms, 1 % in 20 s", Results() if value is None else ratio(value), 27
        )

    monkeypatch.setitem(trials.PARTS, "two_arms", part)
    given = ["--folder", str(tmp_path), "--part", "two_arms"]
    assert trials.main([*given, "--repeat", "4"]) == 0
    records = [json.loads(line) for line in (tmp_path / trials.RECORDS).read_text().splitlines()]
    assert [record["right"] for record in records] == [True, True, False, False]
    assert all(record["code"] and record["machine"] and record["at"] for record in records)
    text = (tmp_path / trials.TABLES).read_text()
    assert "| two arms, 1 % in 20 s | 3 | 2 | ratio 1.01, half width 0.004" in text
    assert "* two_arms: the run has no estimate of the planted step" in text
    (tmp_path / trials.TABLES).unlink()
    assert trials.main([*given, "--repeat", "0"]) == 0
    assert (tmp_path / trials.TABLES).read_text() == text


def test_an_unknown_part_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        trials.main(["--folder", str(tmp_path / "new"), "--part", "two_arms,pwoer"])
    assert "unknown part 'pwoer'; known: two_arms" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("taken", "lost"), [(3, 0), (2, 1), (0, 3)])
def test_journalled_samples_that_the_run_file_lacks_are_lost(
    taken: int, lost: int, tmp_path: Path
) -> None:
    """Two blocks and a cold process are journalled, and a death."""
    rows = [("equinox/pure", "step", 1e-3), ("equinox/pure", "step", 2e-3)]
    rows.append(("equinox/pure", "compile", 0.5))
    journal = Journal.create(tmp_path / FOLDER / "a.journal", {})
    journal.write({"action": {"do": "block"}, "outcome": {"death": {"reason": "killed"}}})
    for row in rows:
        answer = {"samples": [[*row, 5, None, None]]}
        journal.write({"action": {"do": "block"}, "outcome": {"answer": answer}})
    link_journals(tmp_path)
    link_journals(tmp_path)
    journal.remove()
    cell = Arm("equinox", "pure").at("seed", "cpu")
    samples = [Sample("", cell, m, 0, i, 0.0, 1, v) for i, (_, m, v) in enumerate(rows[:taken])]
    results = ResultsWithSamples(
        cells=[CellResult(cell=cell, failure="why")], samples=packed(samples)
    )
    (tmp_path / "run.json").write_bytes(msgspec.json.encode({"bakeoff": results}))
    numbers = {"journalled": 3, "lost": lost, "failed cells": 1, "processes": 0}
    assert losses(tmp_path) == numbers


def test_a_run_that_is_still_running_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, "--budget=60") as run:
        assert run.poll() is None
    assert run.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_planted_difference_is_found_and_exact_plants_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a step in 60 s: hardly any load of a machine hides that."""
    monkeypatch.setattr(trials, "TWO_ARMS", ((50.0, 60),))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the machine's lock is
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")  # tests' programs are made quickly
    assert trials.main(["--folder", str(tmp_path), "--part", "two_arms,exact"]) == 0
    records = [json.loads(line) for line in (tmp_path / trials.RECORDS).read_text().splitlines()]
    assert len(records) == 1 + len(trials.EXACT)
    assert all(record["right"] for record in records), records
