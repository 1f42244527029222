"""Help, exit statuses and interruptions of all commands; what is refused has its own tests."""

import sys
from typing import Any
from unittest.mock import Mock

import pytest

from bench.cli import COMMANDS, commands, run
from common.errors import InterruptedRunError
from tests.commands import Bakeoff


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
    monkeypatch.setattr("common.weights.load", Mock(side_effect=error))
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
        commands.finish(Mock(), "text", None, kept=kept)
    assert commands.SAFE_TEXT in capsys.readouterr().err
    kept.unlink.assert_not_called()
