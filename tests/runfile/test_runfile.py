"""Run files: written and read back, what their schema says, and how broken ones are refused."""

import errno
import json
import os
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest
from jsonschema import Draft202012Validator

from bench.runfile import SCHEMA, ResultsWithSamples
from bench.runfile.reader import NotARunError, Run, read
from bench.runfile.writer import run_file, whole_file, write
from common.errors import BakeoffError
from tests.commands import refusal
from tests.report.runs import Planted, made_run

SCHEMA_OF_RESULTS = Draft202012Validator(msgspec.json.schema(ResultsWithSamples))


@pytest.fixture(scope="module")
def made() -> Run:
    arms = {f"haiku/style{i}": Planted(1.2) for i in range(6)}
    return made_run(arms, ("toy", "seed", "wide"))


@pytest.fixture(scope="module")
def path(made: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "mine.json"
    assert isinstance(made.results, ResultsWithSamples)
    write(path, run_file(made.results))
    return path


def test_a_file_is_read_as_it_was_written(made: Run, path: Path) -> None:
    SCHEMA_OF_RESULTS.validate(json.loads(path.read_text())["bakeoff"])
    run = read(path)
    before = msgspec.to_builtins(made.results)
    assert msgspec.to_builtins(run.results) == before
    assert (run.name, len(run.when)) == ("mine", len("2026-01-01T00:00:00"))
    assert run.machine.cpu
    assert sorted(run.samples) == sorted(made.samples)
    without = read(path, samples=False)
    del before["samples"]
    assert (without.samples, msgspec.to_builtins(without.results)) == ([], before)


NOT_JSON, DAMAGED, NO_RUN = (
    "is not JSON (",
    "is no run, or is damaged: ",
    "is no run of jax-bakeoff",
)
DEEP = "[" * 100_000
MARGIN, VERSION = '"margin":0.02', f'"schema":{SCHEMA},'
REFUSED = [
    ("", "", NOT_JSON),
    ("", f'{{"benchmarks":{DEEP}', NOT_JSON),
    ('"warnings":[', f'"warnings":[{DEEP}', NOT_JSON),
    (MARGIN, '"margin":NaN', NOT_JSON),
    (MARGIN, '"margin":1e999', f"{DAMAGED}Number out of range"),
    (MARGIN, '"margin":0', f"{DAMAGED}Expected `float` > 0.0"),
    ("", "[1, 2]", NO_RUN),
    ("", '{"benchmarks": []}', "there is `pytest-benchmark compare`"),
    ("", '{"bakeoff": [1]}', DAMAGED),
    (VERSION, '"schema":3,', "is a run of schema 3; schema 4 is read: measure it"),
    ('"verdict":"', '"verdict":"no', f"{DAMAGED}Invalid enum value 'no"),
    ('"value":', '"wert":', "Object missing required field `value` - at `$.estimates[0]`"),
    ('"value":', '"value":"1", "x":', f"{DAMAGED}Expected `float`, got `str`"),
    ('"rows":[[', '"rows":[[1],[', f"{DAMAGED}Expected `array` of length 4 to 7 - at"),
]
"""What stands in a file in place of a text, or of all of it, and what is said of that."""


@pytest.mark.parametrize(("old", "new", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_run_is_refused_in_one_line(
    old: str, new: str, words: str, path: Path, tmp_path: Path
) -> None:
    text, spoilt = path.read_text(), tmp_path / "spoilt.json"
    assert old in text
    spoilt.write_text(text.replace(old, new, 1) if old else new)
    with pytest.raises(BakeoffError) as caught:
        read(spoilt)
    message = str(caught.value)
    assert isinstance(caught.value, NotARunError) is (NO_RUN in message)
    assert message.startswith(f"{spoilt} is ")
    assert words in message
    assert "\n" not in message
    if words.startswith((DAMAGED, "Object")) and "1e999" not in new:
        assert not SCHEMA_OF_RESULTS.is_valid(json.loads(spoilt.read_text())["bakeoff"])


def test_what_a_run_leaves_out_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_bytes(b'{"caf\xe9": 1}')
    with pytest.raises(BakeoffError, match=r"small.json is not JSON \("):
        read(path)
    path.write_text(json.dumps({"bakeoff": {"schema": SCHEMA, "later": 1}}))
    run = read(path)
    assert (run.results.kind, run.results.options.margin) == ("run", 0.02)
    assert (run.results.estimates, run.samples, run.processor, run.when) == ([], [], "", "")


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small.json"
    write(small, {"a": [1, 2]})
    monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "No space")))
    assert refusal(write, small, {}) == f"{small} cannot be written: No space"
    assert small.read_text() == '{"a":[1,2]}\n'
    assert [*tmp_path.iterdir()] == [small]


def test_what_appears_while_a_file_is_written_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"

    def written_too_late() -> None:
        with whole_file(path) as partial:
            partial.write_text("new")
            path.write_text("mine")

    assert "run.json cannot be written: File exists" in refusal(written_too_late)
    monkeypatch.setattr(Path, "hardlink_to", Mock(side_effect=OSError(1, "no links here")))
    assert "run.json cannot be written: File exists" in refusal(written_too_late)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("run.json", "mine")]
