"""The command line: `bakeoff train`, `sample`, `entrants`, `report`, `compare`, `ab`, and more.

Libraries are imported when they are needed.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import typer

from bench import streams
from bench.cli import (
    ab,
    bisect,
    check,
    compare,
    cost,
    doctor,
    entrants,
    history,
    initialisers,
    matrix,
    new,
    report,
    sample,
    train,
)
from common.errors import BakeoffError, LostPeerError, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
for module in (
    *(train, sample, entrants, report, compare, ab),
    *(bisect, history, check, new, cost, initialisers, doctor, matrix),
):
    name = module.__name__.rpartition(".")[2]
    app.command(name, epilog=module.EXAMPLES)(getattr(module, name))


def program(command: Callable[..., object], name: str, examples: str = "") -> typer.Typer:
    """Return a command line of one command: `python -m bench.limit` and the like."""
    made = typer.Typer(name=name, add_completion=False, pretty_exceptions_enable=False)
    made.command(epilog=examples)(command)
    return made


def main(arguments: Sequence[str] | None = None, program: typer.Typer = app) -> int:
    """Run a command line; return its exit status: 0 done, 1 failed, 2 wrong use, 130 Ctrl-C.

    What was wrong in what was given is said in one line on standard error.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = str(program.info.name)
    try:
        try:
            status = program(given, prog_name=name, standalone_mode=False) or 0
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
        if status == INTERRUPTED:  # Typer's own answer to a Ctrl-C
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        known = explained(error, " ".join([name, *given[:1]]))
        if known is None:
            raise
        message, status = known
        if status == BROKEN_PIPE:  # before Python's own last flush
            streams.to_nowhere(sys.stdout.fileno())
        elif message:
            streams.say(message)
        hosts = sys.modules.get("common.hosts")
        joined = hosts is not None and hosts.joined()
        if joined or isinstance(error, LostPeerError):
            os._exit(status)  # jax would wait for the others, and then abort
    return status


def explained(error: BaseException, command: str) -> tuple[str, int] | None:
    """Return what is said of an error, and the exit status; None for a mistake of our own."""
    match error:
        case BakeoffError():
            return str(error), error.exit_status
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            path = context.command_path if context else command.partition(" -")[0]
            message = " ".join(error.format_message().split())
            # Typer's message lacks what was given; pydantic, which converts values, knows it
            problems: list[Any] = getattr(error.__cause__, "errors", list)()
            inputs = [repr(p["input"]) for p in problems if repr(p["input"]) not in message]
            message = message.replace("Value error, ", "").rstrip(".")
            message += "".join(f", not {value}" for value in inputs)
            # No arguments at all: the help has been printed
            return message and f"{message}; `{path} --help` says what is allowed", 2
        case KeyboardInterrupt():
            return "interrupted", INTERRUPTED
        case BrokenPipeError():
            return "", BROKEN_PIPE
        case SystemExit() if isinstance(error.__context__, BrokenPipeError):  # Rich's
            return "", BROKEN_PIPE
        case OSError():
            file = "a file" if error.filename is None else shortened(error.filename)
            if error.errno in FULL:
                return f"cannot write {file}: {error.strerror}; make room there", 2
            if error.errno in PLACES and error.filename is not None:
                return f"cannot use {file}: {error.strerror}; name another place", 2
    return None


def run() -> None:
    """Run `bakeoff` as a program."""
    run_program(app)


def run_program(program: typer.Typer) -> None:
    """Run a command line as a program: `main`, with its exit status."""
    streams.guard()
    try:
        status = main(program=program)
        if streams.is_lost(sys.stdout):
            status = max(status, 2)
    except Exception:
        traceback.print_exc()
        status = INTERNAL
        streams.say("this is a mistake of bakeoff's own; please report it")
    sys.exit(status)
