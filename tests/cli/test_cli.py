"""Help, exit statuses and interruptions of all commands, and terminals of all kinds.

What is refused has its own tests.
"""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from typer.main import get_command

from bench.cli import COMMANDS, app, main, run
from bench.cli.output import SAFE_TEXT, Output, finish
from bench.runfile.reader import read
from bench.streams import discard_output, print_text
from common.errors import InterruptedRunError
from tests.commands import ROOT, Bakeoff, command, refusal

RUN = ROOT / "results/selftest/aa/hour/05.json"
SEARCH = ROOT / "results/tracking/flax-0.12.1.json"
NO_MEMORY = "there is too little memory for this, or `ulimit -v` is too low"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    for columns in (60, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        done = bakeoff(*command.split(), "--help")
        assert (done.status, done.err) == (0, "")
        assert max(map(len, done.out.splitlines())) <= columns
    assert "\x1b" not in done.out, "NO_COLOR is set"
    assert f"Usage: bakeoff {command}".strip() in done.out
    assert not command or "Examples:" in done.out
    assert "<bool>" not in done.out, "a flag takes no value"

    if not command:
        shown = bakeoff()
        assert (shown.status, shown.out.strip(), shown.err) == (2, done.out.strip(), "")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (InterruptedRunError("interrupted; go on with: x"), 130, "interrupted; go on with: x"),
        (MemoryError(), 2, NO_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, NO_MEMORY),
        (OSError(30, "Read-only", "x"), 2, "cannot use x: Read-only; name another place"),
        (OSError(28, "No space", "x"), 2, "cannot write x: No space; make room there"),
        (KeyError("ours"), 70, "this is a mistake of bakeoff's own; please report it"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stops_a_command_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    message: str,
) -> None:
    monkeypatch.setattr("bench.weights.load", Mock(side_effect=error))
    monkeypatch.setattr("sys.argv", ["bakeoff", "sample", "w"])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"bakeoff: {message}\n")
    assert (err.count("\n") == 1) is (status != 70), "of our own mistake, there is a traceback"


class Interrupted:
    """A module during whose import Ctrl-C comes."""

    def __getattr__(self, name: str) -> Any:
        raise KeyboardInterrupt


def test_ctrl_c_between_measuring_and_showing_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module: Any = Interrupted()
    monkeypatch.setitem(sys.modules, "bench.runfile.writer", module)
    kept = Mock()
    with pytest.raises(KeyboardInterrupt):
        finish(Mock(), Output(), kept)
    assert SAFE_TEXT in capsys.readouterr().err
    kept.unlink.assert_not_called()


@pytest.fixture
def full_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for names of files, and not for their contents."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    (tmp_path / "full").write_bytes(bytes(4096))
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("form", ["json", "md"])
def test_a_file_on_a_full_disk_says_how_to_go_on(full_folder: Path, form: str) -> None:
    kept, file = Mock(), full_folder / f"run.{form}"
    full = f"{'output ' * (form == 'md')}{file} cannot be written: {os.strerror(errno.ENOSPC)}"
    assert refusal(finish, read(RUN).results, Output(form, file), kept) == f"{full}; {SAFE_TEXT}"
    assert refusal(finish, read(RUN).results, Output(form, file)) == full, "nothing is kept"
    kept.unlink.assert_not_called()


@pytest.mark.parametrize("form", ["json", "text"])
def test_so_does_a_full_standard_output(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    kept, stdout = Mock(), os.open("/dev/full", os.O_WRONLY)
    full = "the disk is full: a file or standard output cannot be written; make room"
    with open(stdout, "w", encoding="utf-8", closefd=False) as file:
        monkeypatch.setattr("sys.stdout", file)
        said = refusal(finish, read(RUN).results, Output(form), kept)
        discard_output(stdout)
    os.close(stdout)
    assert said == f"{full}; {SAFE_TEXT}"
    kept.unlink.assert_not_called()


@pytest.mark.parametrize(
    "variables",
    [
        {"COLUMNS": "0"},
        {"COLUMNS": "1"},
        {"COLUMNS": "-5"},
        {"COLUMNS": "wide"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict", "LC_ALL": "C"},
        {"PYTHONOPTIMIZE": "2"},
        {"TERM": "dumb"},
    ],
    ids=str,
)
def test_a_report_is_shown(variables: dict[str, str]) -> None:
    shown, env = command("report", str(SEARCH), "--format", "text"), os.environ | variables
    done = subprocess.run(shown, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.12.1" in done.stdout


@pytest.mark.slow
def test_temporary_files_need_no_room(tmp_path: Path) -> None:
    """Proofs in a worker, and a report, where `TMPDIR` is full."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with suppress(OSError):
            (tmp_path / "full").write_bytes(bytes(100_000))
        env = os.environ | {"TMPDIR": str(tmp_path)}
        for words in (
            ("check", "haiku", "--only", "shapes"),
            ("report", str(SEARCH), "--format=md"),
        ):
            done = subprocess.run(command(*words), capture_output=True, text=True, env=env)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_text_steers_no_terminal_and_stays_as_it_is_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    print_text("a\x1b[31m\u202eb\n\tc'")
    shown = "a\\x1b[31m\\u202eb\n\tc'\n" if is_terminal else "a\x1b[31m\u202eb\n\tc'\n"
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    "words",
    [("ab", "--base", "@2025-06-01"), ("history",), ("cost", "mine.py")],
)
def test_a_damaged_file_to_go_on_with_is_refused_before_anything_is_built(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.environments.builder.Builder", Mock(side_effect=AssertionError))
    (tmp_path / "mine.py").write_text("def make_step(): ...\n")
    text = RUN.read_text().replace('"metric":"step"', '"metric":"leap"')
    (tmp_path / "bad.json").write_text(text)
    assert main([*words, "--resume", "bad.json"]) == 2
    error = capsys.readouterr().err
    assert "bad.json is damaged: it has a metric leap, which this version does not know" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "resume", "output"),
    [
        ("", None, None),
        ("--resume", "", None),
        ("--resume -o ab.json", "", "ab.json"),
        ("--resume --output=ab.json", "", "ab.json"),
        ("--resume ab.json -o new.json", "ab.json", "new.json"),
        ("--resume=ab", "ab", None),
    ],
)
def test_a_resume_without_a_file_takes_no_other_word(
    words: str, resume: str | None, output: str | None
) -> None:
    group: Any = get_command(app)
    given = group.commands["ab"].make_context("ab", ["--base", "current", *words.split()]).params
    assert (given["resume"], given["output"] and str(given["output"])) == (resume, output)
