"""The tracker: its records, and its workflow's shell with stand-ins for `gh` and `git push`."""

import math
import os
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scipy import special

from bench.cells import Cell
from bench.environments.uv import UnsolvableError
from bench.estimates import Estimate
from bench.runfile import EnvironmentInfo, ResultsWithSamples
from bench.stats.verdicts import make_bounds
from common.errors import BakeoffError
from tests.commands import ROOT, script

TRACK = script("results/tracking/track.py")
WEEKS = TRACK.kept
MONDAY = date(2026, 8, 24)
PUBLISHED = [week for week in WEEKS.read_weeks() if week.path.exists()]
"""Weeks that were measured."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weeks."""
    monkeypatch.setattr(WEEKS, "FOLDER", tmp_path)
    monkeypatch.setattr(TRACK, "FOLDER", tmp_path)
    monkeypatch.setattr(WEEKS, "RECORDS", tmp_path / "weeks.json")
    monkeypatch.setattr(TRACK, "RECORDS", tmp_path / "weeks.json")
    return tmp_path


def test_a_week_without_a_release_is_kept_and_not_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[date, ...]] = []

    def find_releases(*days: date) -> dict[str, str]:
        asked.append(days)
        return {}

    monkeypatch.setattr(TRACK, "find_releases", find_releases)
    for _ in range(2):
        TRACK.track(MONDAY, 60)
    assert asked == [(date(2026, 8, 17), MONDAY)]
    assert WEEKS.read_weeks() == [WEEKS.Week("2026-08-24")]
    assert [path.name for path in folder.iterdir()] == ["weeks.json"]


def test_a_week_that_cannot_be_measured_says_so_and_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise UnsolvableError("no release of flax fits jax 9")

    monkeypatch.setattr(TRACK, "find_releases", fail)
    TRACK.track(MONDAY, 60)
    [week] = WEEKS.read_weeks()
    assert week.problem == "no release of flax fits jax 9"
    *_, row = WEEKS.make_weeks_table([week])
    assert row.startswith("| 2026-08-24 | not measured: no release of flax fits jax 9 |")
    monkeypatch.setattr(TRACK, "find_releases", lambda *_: {})
    TRACK.track(MONDAY, 60)
    TRACK.track(date(2026, 8, 17), 60)
    assert [week.monday for week in WEEKS.read_weeks()] == ["2026-08-17", "2026-08-24"]
    assert not any(week.problem for week in WEEKS.read_weeks())
    assert (folder / "weeks.json").exists()


def test_a_command_without_a_file_is_a_problem_of_the_week(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TRACK, "find_releases", lambda *_: {"flax": ("1", "2")})
    path = folder / "2026-08-24.json"
    with pytest.raises(BakeoffError, match="is not a day; give one"):
        TRACK.call("ab", "--base", "@not a day", path=path)
    assert not path.exists()


def ratio(log: float, error: float, df: float = 10.0, metric: str = "step") -> Estimate:
    cell = Cell("haiku", "pure", "seed", "cpu")
    about: dict[str, Any] = {"standard_error": error, "df": df, "against": "base"}
    about |= {"environment": "new", **make_bounds(log - 3 * error, log + 3 * error, 0.02)}
    return Estimate(cell=cell, metric=metric, form="ratio", value=math.exp(log), **about)


NUMBER = ratio(0, 1).cell, "step"


def weeks_of(folder: Path, *logs: float | None, releases: str = "jax") -> list[Any]:
    """Return weeks in a row, each with a file that has a ratio, unless that is None."""
    weeks = []
    for number, log in enumerate(logs):
        week = WEEKS.Week(str(MONDAY + number * WEEKS.WEEK), {releases: ("1", "2")})
        rows = [] if log is None else [ratio(log, 0.03)]
        sides = {"base": EnvironmentInfo(spec="@a"), "new": EnvironmentInfo(spec="@b")}
        results = ResultsWithSamples(kind="ab", base="base", environments=sides, estimates=rows)
        data = msgspec.json.encode({"bakeoff": results}, enc_hook=float)
        (folder / week.path.name).write_bytes(data)
        WEEKS.compare.cache_clear()
        weeks.append(week)
    return weeks


def test_factors_multiply_and_their_variances_add_up(folder: Path) -> None:
    factors = WEEKS.list_factors(weeks_of(folder, 0.1, -0.2, 0.05), NUMBER)
    assert [math.log(row.value) for row in factors] == pytest.approx([0.1, -0.2, 0.05])
    product = WEEKS.multiply(factors)
    assert product.value == pytest.approx(math.exp(-0.05))
    assert product.standard_error == pytest.approx(math.sqrt(3) * 0.03)
    assert product.df == pytest.approx(30)
    half = float(special.stdtrit(30, 0.975)) * math.sqrt(3) * 0.03
    assert (math.log(product.low), math.log(product.high)) == pytest.approx(
        (-0.05 - half, -0.05 + half)
    )


def test_a_product_lacks_no_week_that_affects_it(folder: Path) -> None:
    assert WEEKS.list_factors(weeks_of(folder, 0.1, None), NUMBER) is None
    same, other = WEEKS.Week("2026-09-07"), WEEKS.Week("2026-09-07", {"flax": ("1", "2")})
    weeks = weeks_of(folder, 0.1, 0.2)
    for without in (same, other):
        assert len(WEEKS.list_factors([*weeks, without], NUMBER)) == 2, "Haiku has no release"
    failed = WEEKS.Week("2026-09-07", problem="no network")
    assert WEEKS.list_factors([*weeks, failed], NUMBER) is None
    late = WEEKS.Week("2026-09-14")
    assert WEEKS.list_factors([*weeks, late], NUMBER) is None, "a week between is missing"
    assert WEEKS.list_factors([same], NUMBER) == []


def test_what_became_slower_is_an_issue_with_its_command(folder: Path) -> None:
    slower, same = weeks_of(folder, 0.5, 0.0)
    for week, has_issue in ((slower, True), (same, False)):
        texts = folder / week.monday
        TRACK.describe([week], texts)
        assert (texts / "pull-request.md").read_text().startswith("| releases, week to |")
        assert (texts / f"issue-{week.monday}.md").exists() is has_issue
    text = (folder / slower.monday / f"issue-{slower.monday}.md").read_text()
    assert text.startswith("haiku/pure step at width 128 +65 %")
    command = (
        "bakeoff ab --base @a --new @b --entrant haiku --style pure --workload seed --metric step"
    )
    assert f"    {command} --budget 60\n" in text
    quiet = WEEKS.Week("2026-09-07")
    TRACK.describe([quiet], folder / "none")
    assert list((folder / "none").iterdir()) == []
    TRACK.describe([slower, quiet], folder / "both")
    assert (folder / "both/monday").read_text() == slower.monday, "a missed week is published"


def test_a_search_takes_metrics_that_are_measured_and_fails_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ratio(0.1, 0.01), ratio(0.5, 0.01, metric="host_cost_per_array"), ratio(-0.3, 0.01)]
    assert TRACK.choose_rows(rows) == [rows[2]]
    [week] = weeks_of(folder, 0.5, releases="dm-haiku")

    def fail(*_: object) -> None:
        raise BakeoffError("no index answers")

    monkeypatch.setattr(TRACK, "has_releases_between", fail)
    assert list(TRACK.search(week, MONDAY - WEEKS.WEEK, MONDAY)) == []


def test_only_files_of_new_weeks_are_taken_over(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    given = tmp_path_factory.mktemp("given")
    first, second, third = weeks_of(given, 0.1, 0.2, 0.3)
    weeks_of(folder, 0.7)
    TRACK.keep(first)
    here = (folder / first.path.name).read_bytes()
    (given / third.path.name).unlink()
    (given / third.path.name).symlink_to("/etc/passwd")
    (given / "evil.sh").write_text("echo")
    records = [first, second, third]
    (given / "weeks.json").write_bytes(msgspec.json.encode(records))
    assert [week.monday for week in TRACK.take(given)] == [second.monday, third.monday]
    assert (folder / first.path.name).read_bytes() == here, "what is here stays"
    names = {path.name for path in folder.iterdir()}
    assert names == {first.path.name, second.path.name, "weeks.json"}
    evil = [{"monday": "2026-08-24", "searches": ["../../../secret.json"]}]
    (given / "weeks.json").write_bytes(msgspec.json.encode(evil))
    with pytest.raises(BakeoffError, match="is damaged"):
        TRACK.take(given)


def test_the_published_weeks_have_a_table() -> None:
    assert PUBLISHED
    lines = list(WEEKS.make_weeks_table(PUBLISHED))
    assert len(lines) == 2 + len(PUBLISHED)
    assert not any("not measured" in line for line in lines)


# the workflow's shell


def run_publish(
    tmp_path: Path, stand_in: str, **texts: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run publish.sh in a clone with a change; return what it said, and how `gh` was called."""
    clone, texts_folder, calls = tmp_path / "clone", tmp_path / "texts", tmp_path / "calls"
    for path in (clone / "results", clone / "docs", texts_folder):
        path.mkdir(parents=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(clone)]
    for name in ("README.md", "results/a", "docs/a"):
        (clone / name).write_text("a")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    if texts.pop("changed", "yes") == "yes":
        (clone / "results/a").write_text("b")
    for name, text in ({"monday": "2026-08-24", "pull-request.md": "| a |"} | texts).items():
        (texts_folder / name).write_text(text)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("gh", stand_in), ("git", GIT)):
        (programs / name).write_text(
            f'#!/bin/bash\n[ {name} = gh ] && echo "$*" >> {calls}\n{text}\n'
        )
        (programs / name).chmod(0o755)
    calls.touch()
    env = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "GITHUB_REPOSITORY": "some/bakeoff",
        "GH_TOKEN": "secret",
    }
    command = [str(ROOT / ".github/track/publish.sh"), str(texts_folder)]
    done = subprocess.run(command, env=env, cwd=clone, capture_output=True, text=True)
    return done, calls.read_text().splitlines()


GIT = 'case "$*" in *push*) [ -z "$NO_PUSH" ];; *) exec /usr/bin/git "$@";; esac'
"""Shell of a `git` that pushes nothing."""
NOTHING_OPEN = 'case "$*" in *list*) ;; *) echo made;; esac'


def test_a_week_opens_a_pull_request_and_no_issue(tmp_path: Path) -> None:
    done, calls = run_publish(tmp_path, NOTHING_OPEN)
    assert done.returncode == 0, done.stderr
    assert [call.split(" --")[0] for call in calls] == ["pr list", "pr create"]
    assert "secret" not in done.stdout + done.stderr


def test_a_week_with_something_worse_opens_an_issue_once(tmp_path: Path) -> None:
    worse = {"issue-2026-08-24.md": "haiku is slower"}
    _, calls = run_publish(tmp_path / "first", NOTHING_OPEN, **worse)
    assert [call.split(" --")[0] for call in calls] == [
        "pr list",
        "pr create",
        "issue list",
        "issue create",
    ]
    done, calls = run_publish(tmp_path / "again", "echo 7", **worse)
    assert [call.split(" --")[0] for call in calls] == ["pr list", "issue list"]
    assert done.returncode == 0


def test_without_anything_new_nobody_is_written_to(tmp_path: Path) -> None:
    done, calls = run_publish(tmp_path, NOTHING_OPEN, changed="no")
    assert (done.returncode, calls) == (0, [])
    assert "nothing new" in done.stdout


def test_a_token_that_cannot_write_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses = 'case "$*" in *list*) ;; *) exit 1;; esac'
    done, _ = run_publish(tmp_path / "first", refuses)
    assert done.returncode == 1
    assert "::error::no pull request could be opened: allow Actions" in done.stdout
    monkeypatch.setenv("NO_PUSH", "1")
    done, calls = run_publish(tmp_path / "second", refuses)
    assert (done.returncode, calls) == (1, [])
    assert "the job needs `contents: write`" in done.stdout


def test_a_record_that_is_no_monday_reaches_no_shell(tmp_path: Path) -> None:
    done, calls = run_publish(tmp_path, NOTHING_OPEN, monday="$(touch owned)")
    assert (done.returncode, calls) == (1, [])
    assert not list(tmp_path.rglob("owned"))


def test_measuring_has_no_token_and_writing_measures_nothing() -> None:
    text = (ROOT / ".github/workflows/track.yml").read_text("utf-8")
    measure, publish = text.split("  publish:\n")
    assert "write" not in measure.split("permissions: {}")[1]
    assert "GH_TOKEN" not in measure
    assert "make track" not in publish
    assert "permissions: {}" in text
