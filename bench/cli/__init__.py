"""The command line: `bakeoff train`, `sample`, `entrants`, `report`, `compare`, `ab`, and more.

Libraries are imported when they are needed.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from contextlib import suppress
from typing import Any

import typer

from bench import stdout
from bench.cli import (
    ab,
    bisect,
    check,
    compare,
    doctor,
    entrants,
    history,
    matrix,
    new,
    report,
    sample,
    train,
)
from common.errors import BakeoffError, LostPeerError, shortened

INTERRUPTED = 130
BROKEN_PIPE = 141
INTERNAL = 70
"""Status of an error of our own: 1 says something of what was compared."""
FULL = (errno.ENOSPC, errno.EDQUOT)
PLACES = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""What a system says of a file that a user has named, or of the machine: no mistake of ours."""

app = typer.Typer(
    name="bakeoff",
    help="One character RNN in every JAX library: train it, sample it, see who takes part.\n\n"
    "Benchmarks run with pytest, from a clone of the repository: "
    "[bold]pytest bench --benchmark-json=run.json[/bold]",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("train", epilog=train.EXAMPLES)(train.train)
app.command("sample", epilog=sample.EXAMPLES)(sample.sample)
app.command("entrants", epilog=entrants.EXAMPLES)(entrants.entrants)
app.command("report", epilog=report.EXAMPLES)(report.report)
app.command("compare", epilog=compare.EXAMPLES)(compare.compare)
app.command("ab", epilog=ab.EXAMPLES)(ab.ab)
app.command("bisect", epilog=bisect.EXAMPLES)(bisect.bisect)
app.command("history", epilog=history.EXAMPLES)(history.history)
app.command("check", epilog=check.EXAMPLES)(check.check)
app.command("new", epilog=new.EXAMPLES)(new.new)
app.command("doctor", epilog=doctor.EXAMPLES)(doctor.doctor)
app.command("matrix", epilog=matrix.EXAMPLES)(matrix.matrix)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status: 0 done, 1 failed, 2 wrong use, 130 Ctrl-C."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(given, prog_name="bakeoff", standalone_mode=False) or 0
        stdout.flushed()
        # Typer makes a Ctrl-C that no command has answered to this status, and says nothing.
        return _say("interrupted", status) if status == INTERRUPTED else status
    except LostPeerError as error:
        _say(str(error), error.exit_status)
        os._exit(
            _closed(error.exit_status)
        )  # or jax waits for the lost one, and then ends with a stack
    except BakeoffError as error:
        status = _say(str(error), error.exit_status)
        hosts = sys.modules.get("common.hosts")
        if hosts is not None and hosts.joined():  # jax would wait for the others, and then abort
            os._exit(_closed(status))
        return status
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        words = [word for word in given[:1] if not word.startswith("-")]
        command = context.command_path if context else " ".join(["bakeoff", *words])
        message = " ".join(error.format_message().split())
        if not message:  # no arguments: the help has been printed instead
            return 2
        # Typer's message lacks what was given; pydantic, which it converts values with, knows it.
        problems: list[Any] = getattr(error.__cause__, "errors", list)()
        given_instead = [repr(p["input"]) for p in problems if repr(p["input"]) not in message]
        message = message.replace("Value error, ", "").rstrip(".")
        message += "".join(f", not {value}" for value in given_instead)
        return _say(f"{message}; `{command} --help` says what is allowed", 2)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _left()
    except OSError as error:
        name = "a file" if error.filename is None else shortened(error.filename)
        if error.errno in FULL:
            return _say(f"cannot write {name}: {error.strerror}; make room there", 2)
        if error.errno in PLACES and error.filename is not None:
            return _say(f"cannot use {name}: {error.strerror}; name another place", 2)
        raise
    except SystemExit as error:  # Rich makes the one of the other, and has done the same
        if isinstance(error.__context__, BrokenPipeError):
            return BROKEN_PIPE
        raise


def run() -> None:
    """Run the command line as a program."""
    stdout.guard()
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        status = _say("this is a mistake of bakeoff's own; please report it", INTERNAL)
    sys.exit(_closed(status))


def _closed(status: int) -> int:
    """Write what standard output still holds back; return the exit status."""
    try:
        stdout.flushed()
    except stdout.OutputError as error:
        return _say(str(error), error.exit_status)
    except BrokenPipeError:
        return _left()
    return status


def _left() -> int:
    """Return the status where whoever read the output has gone, before Python's own last flush."""
    stdout.to_nowhere(sys.stdout.fileno())
    return BROKEN_PIPE


def _say(message: str, status: int) -> int:
    try:
        print(f"bakeoff: {message}", file=sys.stderr)
    except OSError:  # standard error is full, too
        with suppress(OSError):
            stdout.to_nowhere(sys.stderr.fileno())
    return status
