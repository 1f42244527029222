"""Run files: written and read back, what their schema says, and how broken ones are refused."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from bench import runfile
from bench.cells import BASELINE, Arm
from bench.engine import session
from bench.engine.session import measure
from bench.metrics import METRICS, Kind
from bench.options import Options
from bench.runfile import SCHEMA, RunFile, packed, unpacked
from bench.runfile.reader import NoRunError, processor_model, read
from bench.runfile.writer import SMALL, run_file, write
from bench.samples import Sample
from common.errors import BakeoffError
from tests.engine.simulated import FEW, Machine, needed
from tests.engine.test_session import task_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.engine.session import Measured

WANTED = needed(("toy", "seed"), ("step", "host_cost", "compile", "final_loss"), FEW)
AT = BASELINE.at("seed", "cpu")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Return a run that a made-up machine has measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        run = lambda plan: Machine(noise=0.02).drive(plan)  # noqa: E731
        patch.setattr(
            session, "Driver", lambda plan, *_, **__: SimpleNamespace(run=lambda: run(plan))
        )
        return measure(task_of("run", needed={"": WANTED}, options=Options(500.0)))


@pytest.fixture(scope="module")
def path(measured: Measured, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of its file."""
    path = tmp_path_factory.mktemp("files") / "mine.json"
    write(path, run_file(measured.results))
    return path


def test_what_is_written_is_read(measured: Measured, path: Path) -> None:
    run = read(path)
    assert msgspec.to_builtins(run.results) == {
        name: value
        for name, value in msgspec.to_builtins(measured.results).items()
        if name != "samples"
    }
    assert (run.name, len(run.when)) == ("mine", len("2026-01-01T00:00:00"))
    assert run.machine["cpu"]
    exact = [sample._replace(at=round(sample.at, 2)) for sample in measured.samples]
    assert sorted(run.samples) == sorted(exact)
    assert read(path, samples=False).samples == []
    assert read(path, samples=False).results == run.results
    ratio = run.results.table.comparison(AT._replace(entrant="haiku"), "step")
    assert ratio is not None
    assert 0.9 < ratio.value < 1.1


def test_entries_of_pytest_benchmark_are_of_what_varies(measured: Measured, path: Path) -> None:
    """One for each cell and metric, of the medians that users see; samples stand there once."""
    data = json.loads(path.read_text())
    rows: dict[tuple[str, ...], list[float]] = {}
    for s in measured.samples:
        if METRICS[s.metric].kind in (Kind.WARM, Kind.COLD):
            rows.setdefault((*s.cell, s.metric), []).append(s.typical)
    entries = {
        tuple(
            entry["extra_info"][k] for k in ("entrant", "style", "workload", "backend", "metric")
        ): entry
        for entry in data["benchmarks"]
    }
    assert entries.keys() == rows.keys()
    for key, values in rows.items():
        stats = entries[key]["stats"]
        assert stats["rounds"] == len(values)
        assert stats["mean"] == pytest.approx(sum(values) / len(values))
        assert "data" not in stats
    assert entries["haiku", "pure", "seed", "cpu", "compile"]["group"] == "seed cpu compile"


def test_the_file_is_what_its_schema_says(path: Path) -> None:
    data = json.loads(path.read_text())
    schema = runfile.schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(data)
    assert msgspec.convert(data, RunFile).bakeoff.kind == "run"


def changed(data: Any, value: Any, *keys: Any) -> Any:
    """Return a copy with another value below some keys; without it if the value is None."""
    copy = json.loads(json.dumps(data))
    place = copy
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    if value is None:
        del place[keys[-1]]
    return copy


B = "bakeoff"
DAMAGES: list[tuple[Any, tuple[str | int, ...], str]] = [
    ("better", (B, "estimates", 0, "verdict"), "Invalid enum value 'better'"),
    ("share", (B, "estimates", 0, "form"), "Invalid enum value 'share'"),
    (None, (B, "estimates", 0, "value"), "missing required field `value` - at `$.estimates[0]`"),
    ("1.0", (B, "estimates", 0, "value"), "Expected `float`, got `str`"),
    (
        ["a", "b", "c"],
        (B, "estimates", 0, "cell"),
        "Expected `array` of length 4 - at `$.estimates[0].cell`",
    ),
    (0, (B, "options", "margin"), "Expected `float` > 0.0"),
    (-1, (B, "spent", "wall_seconds"), "Expected `float` >= 0.0"),
    (None, (B, "cells", 0, "proof", "loss"), "missing required field `loss`"),
    (None, (B, "cells", 0, "cell"), "missing required field `cell`"),
    ("race", (B, "kind"), "Invalid enum value 'race'"),
    ([1, 2, 3], (B, "samples", 0, "rows", 0), "Expected `array` of length 4 to 7 - at"),
    ("x", (B, "samples", 0, "rows", 0, 3), "Expected `float`, got `str`"),
]


@pytest.mark.parametrize(
    ("value", "keys", "words"), DAMAGES, ids=lambda value: str(value)[:60].replace("'", "")
)
def test_a_damaged_run_is_refused_by_its_schema_and_in_one_line(
    value: Any, keys: tuple[str | int, ...], words: str, path: Path, tmp_path: Path
) -> None:
    data = changed(json.loads(path.read_text()), value, *keys)
    assert not Draft202012Validator(runfile.schema()).is_valid(data)
    spoilt = tmp_path / "spoilt.json"
    spoilt.write_text(json.dumps(data))
    with pytest.raises(BakeoffError) as caught:
        read(spoilt)
    text = str(caught.value)
    assert text.startswith(f"{spoilt} is no run, or is damaged: ")
    assert words in text
    assert "\n" not in text
    if "samples" in keys:
        read(spoilt, samples=False)


REFUSED: dict[str, tuple[Callable[[str], str], str, type[BakeoffError]]] = {
    "cut": (lambda text: text[:5000], "is not JSON (", BakeoffError),
    "empty": (lambda _: "", "is not JSON (", BakeoffError),
    "deep": (lambda _: '{"benchmarks":' + "[" * 100_000, "is not JSON (", BakeoffError),
    "deep in the run": (
        lambda text: text.replace('"warnings":[', '"warnings":[' + "[" * 100_000),
        "is not JSON (",
        BakeoffError,
    ),
    "not a number": (
        lambda text: text.replace('"margin":0.02', '"margin":NaN'),
        "is not JSON (",
        BakeoffError,
    ),
    "too large a number": (
        lambda text: text.replace('"margin":0.02', '"margin":1e999'),
        "is not JSON (Number out of range",
        BakeoffError,
    ),
    "a list": (lambda _: "[1, 2]", "is no run, or is damaged: ", NoRunError),
    "another thing": (lambda _: '{"a": 1}', "is no run of jax-bakeoff; give what", NoRunError),
    "pytest-benchmark's": (
        lambda _: '{"benchmarks": [], "machine_info": {}}',
        "there is `pytest-benchmark compare`",
        NoRunError,
    ),
    "no run": (lambda _: '{"bakeoff": [1]}', "is no run, or is damaged: ", BakeoffError),
    "older": (
        lambda text: text.replace(f'"schema":{SCHEMA}', '"schema":3'),
        f"is a run of schema 3; schema {SCHEMA} is read: measure it again",
        BakeoffError,
    ),
    "without a schema": (
        lambda text: text.replace(f'"schema":{SCHEMA},', ""),
        "is a run of schema None",
        BakeoffError,
    ),
    "no machine": (
        lambda _: '{"machine_info": [1], "bakeoff": {}}',
        "is no run, or is damaged: Expected `object`",
        BakeoffError,
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("samples", [True, False])
def test_what_is_no_run_is_refused_in_one_line(
    what: str, samples: bool, path: Path, tmp_path: Path
) -> None:
    make, words, kind = REFUSED[what]
    before = path.read_text()
    spoilt = tmp_path / "spoilt.json"
    spoilt.write_text(make(before))
    assert spoilt.read_text() != before
    with pytest.raises(BakeoffError) as caught:
        read(spoilt, samples=samples)
    text = str(caught.value)
    assert type(caught.value) is kind
    assert text.startswith(f"{spoilt} is ")
    assert words in text
    assert "\n" not in text


def test_no_file_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(BakeoffError, match=r"none.json cannot be read \(No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'{"caf\xe9": 1}')
    with pytest.raises(BakeoffError, match=r"latin.json is not JSON \("):
        read(tmp_path / "latin.json")


def test_what_a_run_leaves_out_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"bakeoff": {"schema": SCHEMA, "later": 1}}))
    run = read(path)
    assert (run.results.kind, run.results.options.margin, run.results.estimates) == (
        "run",
        0.02,
        [],
    )
    assert (run.samples, run.processor, run.when) == ([], "", "")


ROWS = [
    Sample("", AT, "step", 1, 1, 1.0, 0, 5e-3, 32, 5.1e-3, 6e-3),
    Sample("", AT, "step", 1, 2, 2.0, 0, 5e-3, 32, 5.1e-3, 6e-3),
    Sample("", AT, "step", 2, 3, 2.0, 1, 5e-3, 32, 5.1e-3, 6e-3),
    Sample("torch", AT, "step", 3, 4, 3.0, 0, 5e-3),
    Sample("", AT, "compile", 4, 4, 3.0, 1, 1.5),
    Sample("", Arm("haiku", "pure").at("seed", "cpu"), "step", 1, 1, 1.0, 0, 5e-3, 32, 5e-3, 6e-3),
]


def test_samples_are_packed_by_what_they_share() -> None:
    series = packed(ROWS)
    assert [len(one.rows) for one in series] == [2, 1, 1, 1, 1]
    assert unpacked(series) == ROWS
    assert unpacked(packed([])) == []
    shuffled = ROWS[::-1]
    assert sorted(unpacked(packed(shuffled))) == sorted(ROWS)


def test_small_files_are_indented_and_none_is_left_in_half(tmp_path: Path, path: Path) -> None:
    assert path.stat().st_size > SMALL
    assert path.read_text().count("\n") == 1
    small = tmp_path / "small.json"
    write(small, {"a": [1, 2]})
    assert small.read_text() == '{\n "a": [\n  1,\n  2\n ]\n}\n'
    with pytest.raises(BakeoffError, match=r"/no/such/x.json cannot be written"):
        write(tmp_path / "no" / "such" / "x.json", {})
    assert [file.name for file in tmp_path.iterdir()] == ["small.json"]


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({}, ""),
        ({"processor": "x86_64"}, "x86_64"),
        ({"cpu": {"brand_raw": "EPYC"}, "processor": "x86_64"}, "EPYC"),
        ({"cpu": {"brand_raw": "EPYC", "family": 25, "model": 1}}, "EPYC (family 25, model 1)"),
        ({"cpu": {"family": 25}, "processor": ""}, ""),
        ({"cpu": ["EPYC"]}, ""),
    ],
)
def test_the_name_of_a_processor(machine: dict[str, Any], words: str) -> None:
    assert processor_model(machine) == words
