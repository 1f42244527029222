"""Trials on real runs: what they record, what their table says, and what a kill loses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bench.cells import Arm
from bench.engine.journal import FOLDER, Journal
from bench.estimates import Estimate
from bench.runfile import CellResult, Results, ResultsWithSamples, packed
from bench.samples import Sample
from bench.trials import __main__ as trials
from bench.trials.runs import link_journals, losses

if TYPE_CHECKING:
    from pathlib import Path


def ratio(value: float) -> Results:
    low, high = value - 0.005, value + 0.005
    row = Estimate(
        cell=trials.PLANTED, metric="step", form="ratio", value=value, low=low, high=high
    )
    return Results(estimates=[row])


def test_records_are_kept_and_their_table_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = [(1.01, 27, True), (1.00, 27, False), (0.99, 27, False)]
    planted += [(1.00, 0, True), (0.99, 0, False)]  # any call is false where nothing is planted
    runs = iter([*((ratio(value), wait) for value, wait, _ in planted), (Results(), 27)])

    def part() -> Any:
        yield trials.planted("two arms, 1 % in 20 s", *next(runs))

    monkeypatch.setitem(trials.PARTS, "two_arms", part)
    given = ["--folder", str(tmp_path), "--part", "two_arms"]
    assert trials.main([*given, "--repeat", "6"]) == 0
    records = [json.loads(line) for line in (tmp_path / trials.RECORDS).read_text().splitlines()]
    assert [record["right"] for record in records] == [*(right for *_, right in planted), False]
    assert all(record["code"] and record["machine"] and record["at"] for record in records)
    text = (tmp_path / trials.TABLES).read_text()
    assert "| two arms, 1 % in 20 s | 5 | 2 | ratio 1, half width 0.00" in text
    assert "| two_arms | 1 | 0 | failed: the run has no estimate of the planted step" in text
    (tmp_path / trials.TABLES).unlink()
    assert trials.main([*given, "--repeat", "0"]) == 0
    assert (tmp_path / trials.TABLES).read_text() == text
    with pytest.raises(SystemExit):
        trials.main(["--folder", str(tmp_path / "new"), "--part", "two_arms,pwoer"])
    assert "unknown part 'pwoer'; known: two_arms" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("taken", [3, 2])
def test_journalled_samples_that_the_run_file_lacks_are_lost(taken: int, tmp_path: Path) -> None:
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
    numbers = {"journalled": 3, "lost": 3 - taken, "failed cells": 1, "processes": 0}
    assert losses(tmp_path) == numbers


@pytest.mark.slow
def test_a_planted_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a step in 60 s: hardly any load of a machine hides that."""
    monkeypatch.setattr(trials, "TWO_ARMS", ((50.0, 60),))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the machine's lock is
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")  # tests' programs are made quickly
    assert trials.main(["--folder", str(tmp_path), "--part", "two_arms"]) == 0
    records = [json.loads(line) for line in (tmp_path / trials.RECORDS).read_text().splitlines()]
    assert [record["right"] for record in records] == [True], records
