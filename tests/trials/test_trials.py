"""Trials on real runs: what they record, and what their tables say."""

import dataclasses
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.cells import BASELINE
from bench.runfile import Results, unpack_samples
from bench.runfile.reader import Run
from results.selftest import plants, trial
from tests import estimates
from tests.commands import script
from tests.track.simulated import HAIKU, STEP, a_run

trials = script("results/selftest/trials.py")


def ratio(value: float, cell: Any = trial.PLANTED) -> Any:
    about = {"cell": cell, "standard_error": 0.002, "workers": 4}
    return estimates.ratio(value, value - 0.005, value + 0.005, **about)


@pytest.mark.parametrize(
    ("value", "truth", "right"),
    [
        (1.01, 1.01, True),
        (1.00, 1.01, False),
        (0.99, 1.01, False),  # with the wrong sign
        (0.99, 0.99, True),  # on the base side
        (1.00, 1.00, True),
        (0.99, 1.00, False),  # any call is false where nothing is planted
    ],
)
def test_what_is_right(value: float, truth: float, right: bool) -> None:
    other = ratio(1.02, BASELINE.make_cell("seed", "cpu"))
    results = Results(estimates=[other, ratio(value)])
    numbers = trial.numbers_of(results, trial.ratio_of(results, trial.PLANTED), truth, 4e-3)
    assert numbers["right"] is right
    nothing = truth == 1
    assert (numbers["rows"], numbers["false"]) == (1 + nothing, 1 + (nothing and not right))
    with pytest.raises(SystemExit, match="no estimate of planted/other's step"):
        trial.ratio_of(results, trial.OTHER)


def test_two_runs_are_compared_each_with_its_wait_its_python_and_half_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def bench(*options: str, python: str) -> Run:
        wait = float(os.environ[plants.MICROSECONDS])
        asked.append((*options[-2:], python, wait))
        when = f"2026-01-0{len(asked)}T12:00:00"
        run = a_run(len(asked), {HAIKU: 1 + 1e-6 * wait / STEP[HAIKU]}, when=when)
        packed: Any = run.results
        return dataclasses.replace(run, samples=unpack_samples(packed.samples))

    monkeypatch.setattr(trial, "bench", bench)
    monkeypatch.setattr(trial, "PLANTED", HAIKU.make_cell("seed", "cpu"))
    monkeypatch.setenv(plants.MICROSECONDS, "")
    monkeypatch.chdir(tmp_path)
    numbers = trial.runs(20, [0.0, 800.0], pythons=["old", "new"], cores="one")
    assert asked == [
        *(
            ("--cores=one", "--budget=10.0", "old", 0.0),
            ("--cores=one", "--budget=10.0", "new", 800.0),
        ),
    ]
    assert numbers["truth"] == pytest.approx(1.2, rel=0.02)
    assert 1.15 < numbers["low"] < numbers["ratio"] < numbers["high"] < 1.25
    assert numbers["right"]
    others, metrics = 2, 4  # no row of a run in itself is among those that could be false
    assert (numbers["rows"], numbers["false"]) == (others * metrics, 0)


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return the command with two engines, `new` and `old`, whose trials are made up."""
    root, other = trials.ROOT, tmp_path / "other"
    commits = {root: "new", other: "old"}
    script = trials.Engine(other).script
    script.parent.mkdir(parents=True)
    script.touch()
    values: dict[Path, Iterator[float | None]] = {}
    monkeypatch.setattr(trials.Engine, "commit", lambda engine: commits[engine.root])
    monkeypatch.setattr(trials, "empty_loop", lambda: (39.0, 40.0))

    def run(engine: Any, **given: Any) -> Any:
        if given["run"] == "step":
            return {"numbers": {"base": 4000.0}}
        if (value := next(values[engine.root])) is None:
            raise KeyboardInterrupt
        if not value:
            return {"numbers": {}, "failed": "no estimate"}
        assert given["waits"] == [40.0]
        results = Results(estimates=[ratio(value)])
        return {"numbers": trial.numbers_of(results, results.estimates[0], 1.01, 4e-3)}

    def command(*given: list[float | None], n: int) -> int:
        values.update(zip(commits, map(iter, given), strict=True))
        where = ["--folder", str(tmp_path), "--part", "arms-1", "--beside", str(other)]
        return int(trials.main([*where, "--repeat", str(n)]))

    monkeypatch.setattr(trials.Engine, "run", run)
    return command


def test_engines_take_turns_and_go_on_where_they_were(
    tmp_path: Path, engines: Callable[..., int]
) -> None:
    assert engines([1.01, 1.01, None], [0, 1.01, 1.01], n=4) == 130
    records = trials.read(tmp_path / trials.RECORDS)
    made = [record["engine"] for record in records]
    assert {*made[:2]} == {*made[2:4]} == {"new", "old"}
    assert made.count("new") == 2
    assert all(record["at"] and record["processor"] for record in records)
    assert engines([1.03, 1.01], [1.01] * (4 - made.count("old")), n=4) == 0
    made = [record["engine"] for record in trials.read(tmp_path / trials.RECORDS)]
    assert made.count("new") == made.count("old") == 4
    text = (tmp_path / trials.TABLES).read_text()
    assert engines([], [], n=0) == 0
    assert (tmp_path / trials.TABLES).read_text() == text != ""


def test_the_published_tables_are_of_the_published_records() -> None:
    """The oldest, which have other fields, among them."""
    folder = trials.ROOT / "results" / "selftest"
    text = (folder / trials.TABLES).read_text("utf-8")
    assert trials.markdown(trials.read(folder / trials.RECORDS)) == text


def test_an_engine_is_not_measured_beside_itself(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        trials.main(["--folder", str(tmp_path / "new"), "--beside", str(trials.ROOT)])
    assert not (tmp_path / "new").exists()


def test_an_engine_without_trials_is_refused(
    tmp_path: Path, engines: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (script := trials.Engine(tmp_path / "other").script).unlink()
    with pytest.raises(SystemExit):
        engines([], [], n=1)
    assert f"other has no {script.name}: give a later commit" in capsys.readouterr().err


def test_the_code_of_an_engine_is_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = trials.Engine(trials.ROOT)
    assert engine.run(run="nothing")["failed"].endswith("KeyError: 'nothing'")
    out = '{"root": "/elsewhere", "numbers": {}}'
    fake = lambda *_, **__: (Path("out.json").write_text(out) and 0, "")  # noqa: E731
    monkeypatch.setattr(trials, "run", fake)
    with pytest.raises(SystemExit, match="/elsewhere was measured, not"):
        engine.run(run="nothing")


def test_a_commit_is_that_of_the_code(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        about = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *about, *arguments]
        return subprocess.check_output(command, text=True).strip()

    git("init", "-q")
    (tmp_path / "bench").mkdir()
    for name in ("bench/a.py", "README.md"):
        (tmp_path / name).write_text("1\n")
        git("add", "-A")
        git("commit", "-qm", name)
    engine, commit = trials.Engine(tmp_path), git("rev-parse", "--short=7", "HEAD~1")
    assert engine.commit() == commit
    (tmp_path / "bench/a.py").write_text("2\n")
    assert engine.commit() == f"{commit}+"


@pytest.mark.slow
def test_a_planted_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a step in 30 s: hardly any load of a machine hides that."""
    half = trials.Part("two arms, 50 %", "arms", 30, (50,))
    monkeypatch.setitem(trials.PARTS, "arms-1", half)
    monkeypatch.setenv("BAKEOFF_LOCK_FOLDER", str(tmp_path))
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")  # tests' programs are made quickly
    assert trials.main(["--folder", str(tmp_path), "--part", "arms-1"]) == 0
    records = trials.read(tmp_path / trials.RECORDS)
    assert [record["numbers"].get("right") for record in records] == [True], records
