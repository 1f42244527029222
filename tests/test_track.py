"""The tracker: its records, and its workflow's shell with stand-ins for `gh` and `git push`."""

import json
import os
import subprocess
from datetime import date
from pathlib import Path

import pytest

from bench.environments.uv import UnsolvableError
from common.errors import BakeoffError
from tests.commands import ROOT, script

TRACK = script("results/tracking/track.py")
WEEKS = TRACK.kept
MONDAY = date(2026, 8, 24)
PUBLISHED = sorted(week.path.name for week in WEEKS.read_weeks() if week.path.exists())


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
    with pytest.raises(BakeoffError, match="`bakeoff ab` ended with status 2"):
        TRACK.call("ab", "--base", "@not a day", path=path)
    assert not path.exists()


def test_factors_multiply_and_their_variances_add_up() -> None:
    weeks = [week for week in WEEKS.read_weeks() if week.path.exists()]
    row = next(row for row in WEEKS.compare(weeks[0].path).times if row.standard_error)
    product = WEEKS.multiply([row, row])
    assert product.value == pytest.approx(row.value**2)
    assert product.standard_error == pytest.approx(2**0.5 * row.standard_error)
    assert product.low < row.value**2 < product.high


def test_a_product_lacks_no_week_that_affects_it() -> None:
    weeks = [week for week in WEEKS.read_weeks() if week.path.exists()]
    for cell, metric in WEEKS.list_numbers(weeks)[:10]:
        factors = WEEKS.list_factors(weeks, (cell, metric))
        affecting = [week for week in weeks if week.affects(cell.entrant)]
        assert factors is None or len(factors) == len(affecting)
    broken = WEEKS.Week("2026-01-05", problem="no network")
    assert WEEKS.list_factors([broken, *weeks], WEEKS.list_numbers(weeks)[0]) is None


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
    worse = {"issue.md": "haiku is slower"}
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
    assert "nothing new for the week to 2026-08-24" in done.stdout


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


def test_only_files_of_weeks_are_taken_over(tmp_path: Path) -> None:
    given, clone = tmp_path / "given", tmp_path / "clone"
    (clone / "results/tracking/weeks").mkdir(parents=True)
    given.mkdir()
    for name in ("2026-08-24.json", "2026-08-24-flax_nnx-jit-step.json", "weeks.json"):
        (given / name).write_text("{}")
    (given / "evil.json").write_text("{}")
    (given / "2026-08-31.json").write_text("x" * 1_000_001)
    (given / "2026-09-07.json").symlink_to("/etc/passwd")
    (given / "run.sh").write_text("echo")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "make").write_text("#!/bin/bash\n")
    (programs / "make").chmod(0o755)
    python = clone / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\necho "$*" > asked\n')
    python.chmod(0o755)
    command = [str(ROOT / ".github/track/take.sh"), str(given), str(tmp_path / "texts")]
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    taken = {path.name for path in (clone / "results/tracking/weeks").iterdir()}
    assert taken == {"2026-08-24.json", "2026-08-24-flax_nnx-jit-step.json", "weeks.json"}
    assert done.stdout.count("::warning::left out") == 3
    assert json.dumps(str(tmp_path / "texts"))[1:-1] in (clone / "asked").read_text()


def test_measuring_has_no_token_and_writing_measures_nothing() -> None:
    text = (ROOT / ".github/workflows/track.yml").read_text("utf-8")
    measure, publish = text.split("  publish:\n")
    assert "write" not in measure.split("permissions: {}")[1]
    assert "GH_TOKEN" not in measure
    assert "make track" not in publish
    assert "permissions: {}" in text
