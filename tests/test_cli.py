"""Help, errors and entrants, as users see them; wrong use and training have their own tests."""

import json
import re
import sys
from unittest.mock import MagicMock, Mock

import pytest

import impls
from bench.cli import app
from bench.cli import train as train_command
from bench.engine.process import WorkerFailedError
from tests.commands import Bakeoff

COMMANDS = sorted(str(each.name) for each in app.registered_commands)


@pytest.mark.parametrize("columns", ["60", "140"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
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


def test_no_command_is_help_and_no_error_line(bakeoff: Bakeoff) -> None:
    done = bakeoff()
    assert (done.status, done.err) == (2, "")
    assert "Usage: bakeoff" in done.out


def test_a_worker_that_dies(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = MagicMock()
    error = WorkerFailedError("worker failed (exit status -9)", "last words", None)
    worker.return_value.__enter__.return_value.start.side_effect = error
    monkeypatch.setattr("bench.engine.process.Worker", worker)
    monkeypatch.setattr(impls, "names", lambda: [impls.BASELINE])
    done = bakeoff("entrants", "--programs", "--workload", "toy")
    assert done == (2, "", "bakeoff: worker failed (exit status -9): last words\n")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(30, "Read-only", "x"), 2, "cannot use x: Read-only; name another place"),
        (OSError(28, "No space", "x"), 2, "cannot write x: No space; make room there"),
        (OSError(28, "No space"), 2, "cannot write a file: No space; make room there"),
    ],
    ids=["Ctrl-C", "read-only", "full", "full, no name"],
)
def test_what_stops_a_command_is_one_line(
    bakeoff: Bakeoff,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    says: str,
) -> None:
    monkeypatch.setattr(train_command, "assemble", Mock(side_effect=error))
    assert bakeoff("train") == (status, "", f"bakeoff: {says}\n")


# Entrants


def test_a_table_of_entrants_fits_80_columns(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = bakeoff("entrants")
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "…" not in done.out
    for name in impls.names():
        assert name in done.out


def test_entrants_for_machines(bakeoff: Bakeoff) -> None:
    rows = json.loads(bakeoff("entrants", "--json").out)
    assert [row["entrant"] for row in rows] == impls.names()
    for row in rows:
        assert 20 < row["code_lines"] < 200
        assert (row["environment"] == "everybody's") == (row["entrant"] in impls.here())
        if row["entrant"] in impls.here():
            assert row["styles"] == list(impls.load(row["entrant"]).styles)
            assert re.match(r"\d+\.\d+", row["version"])
        else:
            assert row["requirements"] == list(impls.declared(row["entrant"]).requirements)
            assert row["size"], "its lock says it"


def test_an_entrant_whose_library_is_missing_costs_its_own_row(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "haiku", None)
    monkeypatch.delitem(sys.modules, "impls.haiku", raising=False)
    done = bakeoff("entrants", "--json")
    assert done.status == 0
    rows = {row["entrant"]: row for row in json.loads(done.out)}
    row = rows.pop("haiku")
    assert all("problem" not in other for other in rows.values())
    assert row["problem"] == (
        "entrant 'haiku' needs the package 'haiku', which is not installed; "
        "install it, or choose another entrant"
    )
    done = bakeoff("train", "--corpus", "toy", "--entrant", "haiku")
    assert (done.status, done.err) == (2, f"bakeoff: {row['problem']}\n")


@pytest.mark.slow
def test_what_styles_compile_to_fits_80_columns(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(impls, "names", lambda: ["pure_jax", "haiku"])
    done = bakeoff("entrants", "--programs", "--workload", "toy")
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "…" not in done.out
    assert "compiled programs at workload toy" in done.out
    assert re.search(r"pure_jax\b.*\bpure\b.*\bthe same\b", done.out)
    assert re.search(r"haiku\b.*\btransform\b.*[+-]\d", done.out)
