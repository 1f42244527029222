"""Help and exit statuses of all commands; what is refused has its own tests."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from bench.cli import COMMANDS, app, main, paragraphs
from common.errors import InterruptedRunError

if TYPE_CHECKING:
    from tests.commands import Bakeoff

NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]


@pytest.mark.parametrize("columns", ["60", "140"])
@pytest.mark.parametrize("command", ["", *NAMES])
def test_help(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, command: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = bakeoff(*command.split(), "--help")
    assert (done.status, done.err) == (0, "")
    assert "\x1b" not in done.out, "NO_COLOR is set"
    assert f"Usage: bakeoff {command}".strip() in done.out
    assert max(map(len, done.out.splitlines())) <= int(columns)
    assert not command or "Examples:" in done.out
    assert "<bool>" not in done.out, "a flag takes no value"


@pytest.mark.parametrize("name", NAMES)
def test_help_is_wrapped_once(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    [function] = [c.callback for c in app.registered_commands if c.name == name]
    lines = [line.strip() for line in bakeoff(name, "--help").out.splitlines()]
    for paragraph in paragraphs(inspect.getdoc(function) or "").split("\n\n"):
        assert paragraph in lines


def test_no_command_is_help_and_no_error_line(bakeoff: Bakeoff) -> None:
    done = bakeoff()
    assert (done.status, done.err) == (2, "")
    assert "Usage: bakeoff" in done.out


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (InterruptedRunError("interrupted; go on with: x"), 130, "interrupted; go on with: x"),
        (OSError(30, "Read-only", "x"), 2, "cannot use x: Read-only; name another place"),
        (OSError(28, "No space", "x"), 2, "cannot write x: No space; make room there"),
        (OSError(28, "No space"), 2, "cannot write a file: No space; make room there"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stops_a_command_is_one_line(
    bakeoff: Bakeoff,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    message: str,
) -> None:
    monkeypatch.setattr("common.weights.load", Mock(side_effect=error))
    done = bakeoff("sample", "w")
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith(f"bakeoff: {message}")
    assert done.err.count("\n") == 1


def test_a_mistake_of_our_own_is_not_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.weights.load", Mock(side_effect=KeyError("ours")))
    with pytest.raises(KeyError):
        main(["sample", os.devnull])
