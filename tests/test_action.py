"""The GitHub action: its shell, with stand-ins for `uvx` and `gh`."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.commands import ROOT

INPUTS = {
    **dict.fromkeys(("PACKAGE", "BASE", "NEW", "STEP", "OPTIONS"), ""),
    "FOLDER": ".",
    "BUDGET": "300",
}
"""Variables of the action's inputs, as their defaults are."""
TABLE = "<!-- bakeoff comparison -->\n# new beside base\n\n"


class Step(NamedTuple):
    """Exit status and output of a step of the job."""

    status: int
    shown: str
    outputs: str
    summary: str
    calls: list[str]
    """Words that the stand-in was called with, one call a line."""


def run_script(folder: Path, name: str, stand_in: str, **variables: str) -> Step:
    """Run one of the action's scripts; `stand_in` is the shell of `uvx` and of `gh`."""
    paths = {n: folder / n for n in ("outputs", "summary", "calls")}
    for path in paths.values():
        path.touch()
    for command in ("uvx", "gh"):
        program = folder / command
        program.write_text(f'#!/bin/bash\necho "$*" >> {paths["calls"]}\n{stand_in}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    env = {
        **INPUTS,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "RUNNER_TEMP": str(folder),
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_OUTPUT": str(paths["outputs"]),
        "GITHUB_STEP_SUMMARY": str(paths["summary"]),
        "GITHUB_REPOSITORY": "some/library",
        "NUMBER": "7",
    } | variables
    script = [str(ROOT / ".github/action" / name)]
    done = subprocess.run(script, env=env, capture_output=True, text=True, cwd=folder)
    outputs, summary, calls = (path.read_text() for path in paths.values())
    return Step(done.returncode, done.stdout + done.stderr, outputs, summary, calls.splitlines())


def test_the_inputs_reach_the_shell_as_variables_alone() -> None:
    text = (ROOT / "action.yml").read_text("utf-8")
    scripts = re.findall(r"^ +run: (.*)$", text, re.MULTILINE)
    assert scripts[0] == "'\"$GITHUB_ACTION_PATH/.github/action/ab.sh\"'"
    assert "${{" not in "".join(scripts)
    assert "github.token" not in text, "a token that writes never stands beside measured code"
    given = set(re.findall(r"^        ([A-Z]+): \$\{\{ inputs\.", text, re.MULTILINE))
    assert given == {*INPUTS}


@pytest.mark.parametrize(
    ("status", "cannot_say", "fails"),
    [
        ("0", "pass", False),
        ("1", "pass", True),
        ("2", "pass", False),
        ("2", "fail", True),
        ("0", "fail", False),
    ],
)
def test_the_job_fails_where_something_is_worse(
    status: str, cannot_say: str, *, fails: bool
) -> None:
    text = (ROOT / "action.yml").read_text("utf-8")
    last = re.findall(r"^ +run: '(.*)'$", text, re.MULTILINE)[-1]
    env = {"STATUS": status, "CANNOT_SAY": cannot_say}
    done = subprocess.run(["bash", "-c", last], env=env)
    assert (done.returncode != 0) is fails


WRITES = f"printf '%s' '{TABLE}Worse: x.' > \"${{@: -1}}\""
"""Shell that writes the table to the place that its last word names."""


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_verdict_is_handed_on_with_its_table(tmp_path: Path, status: int) -> None:
    done = run_script(tmp_path, "ab.sh", f"{WRITES}; exit {status}", PACKAGE="flax")
    assert done.status == 0  # a later step fails, when the comment is there
    outputs = dict(line.split("=", 1) for line in done.outputs.splitlines())
    assert outputs["status"] == str(status)
    assert Path(outputs["table"]).read_text().startswith(TABLE)
    assert Path(outputs["folder"], "status").read_text() == f"{status}\n"
    assert re.search(r"::notice::measured in \d+ s, environments included", done.shown)
    assert done.summary.startswith(TABLE)
    assert ("::warning::" in done.shown) == (status > 0)
    [call] = done.calls
    sides = "--base flax @ .@HEAD^1 --new flax @ . --budget 300"
    assert f"bakeoff ab {sides} --format md -o {tmp_path}/" in call


def test_an_earlier_table_of_the_same_job_is_no_result(tmp_path: Path) -> None:
    run_script(tmp_path, "ab.sh", WRITES, PACKAGE="flax")
    done = run_script(tmp_path, "ab.sh", "exit 2", PACKAGE="flax")
    assert done.status == 1
    assert "::error::nothing was measured (exit status 2)" in done.shown


@pytest.mark.parametrize("status", [1, 2, 127, 137])
def test_without_a_table_no_status_is_a_verdict(tmp_path: Path, status: int) -> None:
    """uvx fails with 1 where it cannot build, and with 2 where it is used wrongly."""
    done = run_script(tmp_path, "ab.sh", f"echo no such index >&2; exit {status}", PACKAGE="flax")
    assert (done.status, done.outputs, done.summary) == (1, "", "")
    assert "no such index" in done.shown
    assert f"::error::nothing was measured (exit status {status})" in done.shown


def test_a_status_that_bakeoff_does_not_have_fails_the_step(tmp_path: Path) -> None:
    done = run_script(tmp_path, "ab.sh", f"{WRITES}; exit 70", PACKAGE="flax")
    assert done.status == 1
    assert "::error::bakeoff ended with exit status 70" in done.shown


def test_a_step_alone_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    done = run_script(tmp_path, "ab.sh", WRITES, STEP="mine.py")
    assert (done.status, done.calls) == (1, [])
    assert "::error::nothing to compare with: give `base`" in done.shown


def test_a_step_of_ones_own_and_further_options(tmp_path: Path) -> None:
    options = "--with\neinops\n\n--metric\nstep"
    about = {"STEP": "a b.py", "BASE": "@-7d", "OPTIONS": options}
    [call] = run_script(tmp_path, "ab.sh", WRITES, **about).calls
    own = "--step a b.py --with einops --metric step --format md -o"
    assert f"ab --base @-7d --new current --budget 300 {own}" in call


@pytest.mark.parametrize(
    ("status", "headline", "earlier", "calls"),
    [
        (1, "Worse: haiku/pure step at seed +5 %.", "", ["api {}/7/comments -F body=@"]),
        (1, "new (flax==1) does not run mine.py.", "", ["api {}/7/comments -F body=@"]),
        (0, "Faster: haiku/pure step at seed -5 %.", "", ["api {}/7/comments -F body=@"]),
        (0, "No change found. Changes above 1 % would show.", "", []),
        (2, "Nothing is settled yet.", "", []),
        (0, "No change found.", "41\n42", ["api -X PATCH {}/comments/41 -F body=@"]),
    ],
)
def test_a_comment_is_posted_once_and_only_where_something_was_called(
    tmp_path: Path, status: int, headline: str, earlier: str, calls: list[str]
) -> None:
    (tmp_path / "ab.md").write_text(f"{TABLE}{headline}\n")
    (tmp_path / "status").write_text(f"{status}\n")
    stand_in = f'case "$*" in *--jq*) echo "{earlier}";; esac'
    done = run_script(tmp_path, "comment.sh", stand_in, FOLDER=str(tmp_path))
    assert done.status == 0, done.shown
    look, *rest = done.calls
    assert "--jq" in look
    assert [call.split("@")[0] + "@" for call in rest] == [
        call.format("repos/some/library/issues") for call in calls
    ]
