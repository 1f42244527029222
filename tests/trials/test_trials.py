"""Trials on real runs: what they record, and what their table says."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.estimates import Estimate
from bench.runfile import Results
from tests.commands import script

trials = script("results/selftest/trials.py")


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


@pytest.mark.slow
def test_a_planted_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a step in 60 s: hardly any load of a machine hides that."""
    monkeypatch.setattr(trials, "TWO_ARMS", ((50.0, 60),))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the machine's lock is
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")  # tests' programs are made quickly
    assert trials.main(["--folder", str(tmp_path), "--part", "two_arms"]) == 0
    records = [json.loads(line) for line in (tmp_path / trials.RECORDS).read_text().splitlines()]
    assert [record["right"] for record in records] == [True], records
