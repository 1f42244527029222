"""Run files: written and read back, their schema, and damaged ones refused in one line."""

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec import structs

from bench.cli import main
from bench.runfile import SCHEMA, ResultsWithSamples, pack_samples, writer
from bench.runfile.reader import NotARunError, Run, read
from bench.samples import Sample
from bench.track.run_files import compare
from common.errors import BakeoffError
from tests.commands import ROOT, refusal
from tests.report.runs import Planted, made_run
from tests.report.test_cost import results as made_costs
from tests.track.simulated import FILTER_JIT, file_of, of_days, two_sides

SCHEMA_OF_RESULTS = Draft202012Validator(msgspec.json.schema(ResultsWithSamples))
RUN = made_run({"haiku/pure": Planted(1.2), "equinox/filter_jit": Planted()}, ("toy", "seed"))
DAYS = {"2026-01-01": {}, "2026-02-01": {FILTER_JIT: 1.1}, "2026-03-01": {FILTER_JIT: 1.1}}


def add_samples(run: Run) -> Run:
    """Return a bisection whose first step has samples, which published ones lack."""
    first, *steps = run.results.search.steps
    row = first.row
    samples = [Sample(row.cell, row.metric, 1.0, environment=row.environment, worker=1, block=1)]
    first = structs.replace(first, samples=pack_samples(samples))
    search = structs.replace(run.results.search, steps=[first, *steps])
    return replace(run, results=structs.replace(run.results, search=search))


FILES = {
    "run": file_of(RUN),
    "ab": file_of(replace(RUN, results=two_sides(1, {FILTER_JIT: 1.1}))),
    "history": file_of(replace(RUN, results=of_days(1, DAYS))),
    "bisect": file_of(add_samples(read(ROOT / "results/tracking/equinox-0.13.3.json"))),
    "cost": file_of(replace(RUN, results=made_costs({"jit": (6e-4, 2e-5)}, 2e-4))),
}
"""Command → a file of its own, as it should be."""


def write(folder: Path, kind: str, path: str, value: Any) -> Path:
    """Write a command's file with one value changed, or left out if the new one is `...`."""
    tree = inside = json.loads(msgspec.json.encode(FILES[kind]))
    *way, last = (int(part) if part.isdigit() else part for part in path.split("."))
    for part in way:
        inside = inside[part]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    file = folder / "run.json"
    file.write_text(json.dumps(tree))
    return file


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    assert isinstance(RUN.results, ResultsWithSamples)
    writer.write(path, writer.run_file(RUN.results))
    SCHEMA_OF_RESULTS.validate(json.loads(path.read_text())["bakeoff"])
    run = read(path)
    before = msgspec.to_builtins(RUN.results)
    assert msgspec.to_builtins(run.results) == before
    assert (run.name, len(run.when)) == ("mine", len("2026-01-01T00:00:00"))
    assert run.machine.cpu
    assert sorted(run.samples) == sorted(RUN.samples)
    without = read(path, samples=False)
    del before["samples"]
    assert (without.samples, msgspec.to_builtins(without.results)) == ([], before)


def test_what_a_run_leaves_out_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    cell = ["haiku", "pure", "seed", "cpu"]
    few = {"schema": SCHEMA, "later": 1, "cells": [{"cell": cell}]}
    path.write_text(json.dumps({"bakeoff": few, "commit_info": {"id": "unversioned"}}))
    run = read(path)
    assert (run.results.kind, run.results.options.margin) == ("run", 0.02)
    assert (run.results.estimates, run.samples, run.processor, run.when) == ([], [], "", "")
    assert run.commit.id == "", "a folder without git has none"


@pytest.mark.parametrize("kind", FILES)
def test_files_as_they_should_be_are_read(kind: str, tmp_path: Path) -> None:
    assert read(write(tmp_path, kind, "version", "6")).results.kind == kind


def test_published_files_are_read() -> None:
    files = [path for path in (ROOT / "results").rglob("*.json") if path.stat().st_size < 500_000]
    kinds = {read(path).results.kind for path in files if b'"bakeoff"' in path.read_bytes()}
    assert kinds == {"run", "ab", "bisect", "history"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Limits are a state of the largest number, an end without limit, thirty base runs."""
    run = made_run({"haiku/pure": Planted(1.2, proof={"state": [sys.float_info.max]})})
    assert isinstance(run.results, ResultsWithSamples)
    row = next(row for row in run.results.estimates if row.form == "ratio")
    run.results.estimates.append(structs.replace(row, high=8e307))
    many = compare([replace(RUN, name=f"{'x' * 80}{n}", when=f"{n}") for n in range(30)], run)
    for number, results in enumerate((run.results, many)):
        path = tmp_path / f"{number}.json"
        writer.write(path, writer.run_file(results))
        assert read(path, samples=False).results.estimates == results.estimates
        assert main(["report", str(path), "--format", "text"]) == 0


WRONG: list[tuple[str, str, Any, str]] = [
    # a file that lacks what its kind has
    ("ab", "bakeoff.environments.base", ..., "it has no environment base"),
    ("ab", "bakeoff.base", "other", "it has no environment other"),
    ("history", "bakeoff.environments.reference", ..., "it has no environment reference"),
    ("history", "bakeoff.environments.2026-01-01", ..., "of the environment 2026-01-01, which"),
    ("bisect", "bakeoff.search", {}, "it has no search"),
    ("bisect", "bakeoff.search.steps.0", ..., "its estimates are not those of its 3 steps"),
    ("bisect", "bakeoff.search.steps.0.row", ..., "the version of commit a820d0c5 reads it"),
    ("bisect", "bakeoff.search.steps.0.phase", "day", "without a comparison of its ends"),
    ("bisect", "bakeoff.search.steps.0.phase", "night", "Invalid enum value 'night'"),
    ("bisect", "bakeoff.search.metric", "speed", "it searches a metric speed, which this version"),
    ("bisect", "bakeoff.search.steps.0.samples.0.metric", "speed", "it has a metric speed"),
    ("bisect", "bakeoff.search.steps.0.row.form", "amount", "its estimates are not those"),
    ("cost", "bakeoff.cells", [], "it has no cells"),
    ("run", "bakeoff", {"schema": SCHEMA}, "it has no cells"),
    ("run", "bakeoff", {"schema": SCHEMA, "kind": "history"}, "it has no environments"),
    # names
    ("run", "bakeoff.estimates.0.metric", "speed", "it has a metric speed, which this version"),
    ("run", "bakeoff.samples.0.metric", "speed", "it has a metric speed, which this version"),
    ("run", "bakeoff.cells.0.missing", {"speed": "x"}, "it has a metric speed"),
    ("run", "bakeoff.cells.0.cell.0", "x" * 1001, "a name has 1001 characters: xxx"),
    (
        "run",
        "bakeoff.cells.0.cell.0",
        "a\x1b[31m",
        r"characters that cannot be printed: 'a\x1b[31m",
    ),
    ("run", "bakeoff.estimates.0.cell.0", "a\u202eb", r"cannot be printed: 'a\u202eb'"),
    (
        "run",
        "bakeoff.estimates.0.unit",
        "B<script>|",
        "has the unit B<script>|; known: none, B, nats, s",
    ),
    ("run", "bakeoff.estimates.0.environment", "mars", "of the environment mars, which it lacks"),
    # numbers
    ("bisect", "bakeoff.estimates.0.value", 0, "its estimates are not those of its 4 steps"),
    ("run", "bakeoff.estimates.0.value", 1e300, "is 1e+300"),
    ("run", "bakeoff.samples.0.rows.0.3", 0, "is 0"),
    ("run", "bakeoff.samples.0.rows.0.3", -1e-3, "is -0.001"),
    ("run", "bakeoff.estimates.0.p", 2, "Expected `float` <= 1.0 - at"),
    ("run", "bakeoff.estimates.0.df", -1, "Expected `float` >= 0.0 - at"),
    ("run", "bakeoff.estimates.0.standard_error", -1, "Expected `float` >= 0.0 - at"),
    ("run", "bakeoff.estimates.0.workers", 10**30, "Expected `int` <= 9007199254740992"),
    ("run", "bakeoff.cells.0.proof.settings", {"x" * 1001: 1}, "a name of more than 1,000 char"),
    ("run", "bakeoff.cells.0.proof.settings", {"x": [1]}, "neither text nor a number"),
    ("run", "bakeoff.estimates.0.against", "x" * 1001, "a name has 1001 characters"),
    ("run", "bakeoff.samples.0.rows.0.0", 1 << 63, "Expected `int` <= 9007199254740992"),
    ("run", "bakeoff.samples.0.rows.0.5", -1.0, "which cannot be"),
    ("run", "bakeoff.cells.0.proof.loss", -1.0, "a proof has a number that cannot be"),
    ("run", "bakeoff.spent.wall_seconds", -1, "Expected `float` >= 0.0"),
    ("run", "datetime", "yesterday", "its date is yesterday"),
    # types, depths and lengths
    ("run", "bakeoff.options.margin", 0, "Expected `float` > 0.0"),
    ("run", "bakeoff.schema", 3, "is a run of schema 3; schema 4 is read: measure it"),
    ("run", "bakeoff.estimates.0.form", "sum", "Invalid enum value 'sum'"),
    ("run", "bakeoff.estimates.0.value", ..., "missing required field `value` - at `$.estimates["),
    ("run", "bakeoff.estimates.0.value", "1", "Expected `float`, got `str`"),
    ("run", "bakeoff.samples.0.rows.0", [1], "Expected `array` of length 4 to 7 - at"),
    ("run", "machine_info", [1], "Expected `object`, got `array`"),
    ("run", "machine_info.cpu", "fast", "Expected `object | null`, got `str`"),
    ("run", "bakeoff.schema", [4] * 999, "is a run of schema [4, 4, 4"),
    ("run", "bakeoff.conditions.device_details", {"cpu": {"a": [[]]}}, "got `array`"),
    ("run", "bakeoff.warnings", ["x" * 10_001], "Expected `str` of length <= 10000"),
    ("run", "bakeoff.cells.0.stderr", "x" * 10_001, "Expected `str` of length <= 10000"),
]
"""Command, place in its file, what stands there in place of a value, and what is said of that."""


@pytest.mark.parametrize(("kind", "path", "value", "words"), WRONG, ids=lambda x: str(x)[:40])
def test_what_contradicts_itself_is_refused(
    kind: str, path: str, value: Any, words: str, tmp_path: Path
) -> None:
    file = write(tmp_path, kind, path, value)
    message = refusal(read, file)
    assert words in message
    assert message.startswith(f"{file} is ")
    assert len(message) < 500 + len(str(tmp_path))
    if "is no run, or is damaged: " in message and path.startswith("bakeoff."):
        assert not SCHEMA_OF_RESULTS.is_valid(json.loads(file.read_text())["bakeoff"])


DEEP = b"[" * 100_000
NO_RUN = "is no run of jax-bakeoff"
MARGIN = b'{"bakeoff": {"schema": 4, "options": {"margin": %s}}}'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not JSON ("),
        (b'{"caf\xe9": 1}', "is not JSON ("),
        (b'{"benchmarks":' + DEEP, "is not JSON ("),
        (b'{"bakeoff": {"schema": 4, "warnings":' + DEEP, "is not JSON ("),
        (MARGIN % b"NaN", "is not JSON ("),
        (MARGIN % b"1e999", "is no run, or is damaged: Number out of range"),
        (b"[1, 2]", NO_RUN),
        (b'{"benchmarks": []}', NO_RUN),
        (b'{"bakeoff": [1]}', "is no run, or is damaged: "),
    ],
)
def test_what_is_no_run_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "spoilt.json"
    path.write_bytes(data)
    with pytest.raises(BakeoffError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path} {words}")
    assert "\n" not in message
    assert isinstance(caught.value, NotARunError) is (words == NO_RUN)
    assert ("; for what pytest-benchmark wrote alone, there is" in message) is (words == NO_RUN)


def test_a_folder_shows_its_good_files_and_names_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "run", "bakeoff.estimates.0.metric", "speed").rename(tmp_path / "bad.json")
    for day in ("01", "02"):
        path = write(tmp_path, "run", "datetime", f"2026-01-{day}T12:00:00+00:00")
        tree = json.loads(path.read_text()) | {"commit_info": {"id": day}}  # else they are copies
        (tmp_path / f"{day}.json").write_text(json.dumps(tree))
    path.unlink()
    assert main(["history", str(tmp_path)]) == 1  # for what was skipped
    shown = " ".join(capsys.readouterr().out.split())
    assert "skipped: " in shown
    assert "it has a metric speed, which this version does not know" in shown
    assert "2026-01-01" in shown


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small.json"
    writer.write(small, {"a": [1, 2]})
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space")))
    assert refusal(writer.write, small, {}) == f"{small} cannot be written: No space"
    assert small.read_text() == '{"a":[1,2]}\n'
    assert [*tmp_path.iterdir()] == [small]


def test_what_appears_while_a_file_is_written_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"

    def written_too_late() -> None:
        with writer.whole_file(path) as partial:
            partial.write_text("new")
            path.write_text("mine")

    assert "run.json cannot be written: File exists" in refusal(written_too_late)
    monkeypatch.setattr(Path, "hardlink_to", Mock(side_effect=OSError(1, "no links here")))
    assert "run.json cannot be written: File exists" in refusal(written_too_late)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("run.json", "mine")]
