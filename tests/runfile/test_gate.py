"""The gate: a run file that contradicts itself is refused in one line, wherever it is read."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from bench.cli import main
from bench.runfile import ResultsWithSamples, writer
from bench.runfile.reader import read
from bench.track.run_files import compare
from tests.commands import ROOT, refusal
from tests.cost.test_step import results as made_costs
from tests.report.runs import Planted, made_run
from tests.track.simulated import FILTER_JIT, file_of, of_days, two_sides

RUN = made_run({"haiku/pure": Planted(1.2)}, ("toy", "seed"))
FILES = {
    "run": file_of(RUN),
    "ab": file_of(replace(RUN, results=two_sides(1, {FILTER_JIT: 1.1}))),
    "history": file_of(replace(RUN, results=of_days(1, {"2026-01-01": {}, "2026-02-01": {}}))),
    "bisect": file_of(read(ROOT / "results/tracking/equinox-0.13.3.json")),
    "cost": file_of(replace(RUN, results=made_costs({"jit": (6e-4, 2e-5)}, 2e-4))),
}
"""Command → a file of its own, as it should be."""


def put(tree: Any, path: str, value: Any) -> None:
    """Change a value in a tree, or remove it if the new one is `...`."""
    *way, last = (int(part) if part.lstrip("-").isdigit() else part for part in path.split("."))
    for part in way:
        tree = tree[part]
    if value is ...:
        del tree[last]
    else:
        tree[last] = value


def write(folder: Path, kind: str, path: str, value: Any) -> Path:
    """Write a command's file with one change."""
    tree = json.loads(msgspec.json.encode(FILES[kind]))
    put(tree, path, value)
    file = folder / "run.json"
    file.write_text(json.dumps(tree))
    return file


WRONG: list[tuple[str, str, Any, str]] = [
    # a file that lacks what its kind has
    ("ab", "bakeoff.environments.base", ..., "it has no environment base"),
    ("ab", "bakeoff.base", "other", "it has no environment other"),
    ("history", "bakeoff.environments.reference", ..., "it has no environment reference"),
    ("history", "bakeoff.environments.2026-01-01", ..., "of the environment 2026-01-01, which"),
    ("bisect", "bakeoff.search", {}, "it has no search"),
    ("bisect", "bakeoff.search.steps.0", ..., "it has 3 steps and 4 estimates"),
    ("bisect", "bakeoff.search.steps.0.phase", "day", "without a comparison of its ends"),
    ("bisect", "bakeoff.search.steps.0.phase", "night", "Invalid enum value 'night'"),
    ("bisect", "bakeoff.search.metric", "speed", "it searches a metric speed, which this version"),
    ("bisect", "bakeoff.estimates.0.form", "amount", "a step of it has no ratio"),
    ("cost", "bakeoff.cells", [], "it has no cells"),
    # names
    ("run", "bakeoff.estimates.0.metric", "speed", "it has a metric speed, which this version"),
    ("run", "bakeoff.samples.0.metric", "speed", "it has a metric speed, which this version"),
    ("run", "bakeoff.cells.0.missing", {"speed": "x"}, "it has a metric speed"),
    ("run", "bakeoff.cells.0.cell.0", "x" * 1001, "a name has 1001 characters: xxx"),
    ("run", "bakeoff.estimates.0.environment", "mars", "of the environment mars, which it lacks"),
    # numbers
    ("bisect", "bakeoff.estimates.0.value", 0, "is 0"),
    ("run", "bakeoff.estimates.0.value", 1e300, "is 1e+300"),
    ("run", "bakeoff.samples.0.rows.0.3", 0, "is 0"),
    ("run", "bakeoff.samples.0.rows.0.3", -1e-3, "is -0.001"),
    ("run", "bakeoff.estimates.0.p", 2, "and p = 2"),
    ("run", "bakeoff.estimates.0.df", -1, "has -1 degrees of freedom"),
    ("run", "bakeoff.estimates.0.standard_error", -1, "has a standard error of -1"),
    ("run", "bakeoff.estimates.0.workers", 10**30, "is of 1000000000000000000000000000000 workers"),
    ("run", "bakeoff.cells.0.proof.settings", {"x" * 1001: 1}, "a name of more than 1,000 char"),
    ("run", "bakeoff.cells.0.proof.settings", {"x": [1]}, "neither text nor a number"),
    ("run", "bakeoff.estimates.0.against", "x" * 1001, "a name has 1001 characters"),
    ("run", "bakeoff.samples.0.rows.0.0", 1 << 63, "Expected `int` <= 9007199254740992"),
    ("run", "bakeoff.samples.0.rows.0.5", -1.0, "which cannot be"),
    ("run", "bakeoff.cells.0.proof.loss", -1.0, "a proof has a number that cannot be"),
    ("run", "bakeoff.spent.wall_seconds", -1, "Expected `float` >= 0.0"),
    ("run", "datetime", "yesterday", "its date is yesterday"),
    # types, depths and lengths
    ("run", "machine_info", [1], "Expected `object`, got `array`"),
    ("run", "machine_info.cpu", "fast", "Expected `object | null`, got `str`"),
    ("run", "bakeoff.schema", [4] * 999, "is a run of schema [4, 4, 4"),
    ("run", "bakeoff.conditions.device_details", {"cpu": {"a": [[]]}}, "got `array`"),
    ("run", "bakeoff.warnings", ["x" * 10_001], "Expected `str` of length <= 10000"),
    ("run", "bakeoff.cells.0.stderr", "x" * 10_001, "Expected `str` of length <= 10000"),
]


@pytest.mark.parametrize(("kind", "path", "value", "words"), WRONG, ids=lambda x: str(x)[:40])
def test_what_contradicts_itself_is_refused(
    kind: str, path: str, value: Any, words: str, tmp_path: Path
) -> None:
    message = refusal(read, write(tmp_path, kind, path, value))
    assert words in message
    assert len(message) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("kind", FILES)
def test_files_as_they_should_be_are_read(kind: str, tmp_path: Path) -> None:
    assert read(write(tmp_path, kind, "version", "6")).results.kind == kind


def test_published_files_are_read() -> None:
    files = [path for path in (ROOT / "results").rglob("*.json") if path.stat().st_size < 300_000]
    kinds = {read(path).results.kind for path in files if b'"bakeoff"' in path.read_bytes()}
    assert kinds == {"run", "bisect", "history"}


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


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Also at the limits: a state of the largest number, an end without limit, thirty base runs."""
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
