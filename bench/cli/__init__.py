"""The command line: `bakeoff report`, `ab`, `check`, `train`, and more.

Libraries are imported when they are needed.
"""

from __future__ import annotations

import errno
import inspect
import os
import resource
import sys
import traceback
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from bench import streams
from bench.cli.parameters import RESUME_METAVAR
from bench.files import FULL_DISK_ERRORS
from bench.streams import INTERRUPTED, interrupt_on_signals
from common.errors import BakeoffError, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEPT_ENDINGS = (".json", ".journal")
"""Endings of files that a measurement goes on with: other words after `--resume` are none, unless
they are written `--resume=FILE`."""
BROKEN_PIPE = 141
"""Exit status where the reader of the output has left."""
INTERNAL_ERROR = 70
"""Exit status of an internal error; 1 is already the result of a comparison."""
PLACE_ERRORS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors about a file that a user has named, or about the machine: no mistake of ours."""
NO_MEMORY_WORDS = (
    "MemoryError",
    "failed to map segment from shared object",
    "numpy._core.multiarray failed to import",
    os.strerror(errno.ENOMEM),
)
"""Words of Python, the loader, NumPy inside of jaxlib, and the system for refused memory."""
COMMANDS = {
    "cost": ("cost", "Measure"),
    "ab": ("versions", "Measure"),
    "bisect": ("versions", "Measure"),
    "history": ("history", "Measure"),
    "matrix": ("matrix", "Measure"),
    "doctor": ("doctor", "Measure"),
    "report": ("report", "Read"),
    "compare": ("history", "Read"),
    "new": ("entrants", "Extend"),
    "check": ("entrants", "Extend"),
    "entrants": ("entrants", "Extend"),
    "train": ("train", "Train"),
    "sample": ("sample", "Train"),
}
"""Command → the module of this package that has its function, and its heading in the help."""


class Help:
    """Help in which a flag has no type: Typer shows `<bool>`, though a flag takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, `--help` too."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(Help, TyperCommand):
    """One command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse words; a `--resume` without a file is empty: Typer's options need a value."""
        if any(param.metavar == RESUME_METAVAR for param in self.params):
            for place, word in enumerate(args):
                following = "".join(args[place + 1 : place + 2])
                names_file = following.lower().endswith(KEPT_ENDINGS) and following[0] != "-"
                if word == "--":
                    break
                if word == "--resume" and not names_file:
                    args[place] = "--resume="
        return super().parse_args(ctx, args)


class Group(Help, TyperGroup):
    """All commands."""


def spread_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command whose parameters are the fields of the dataclasses that a function takes.

    Their defaults are those of the dataclass that is the parameter's default. A parameter of the
    function's own stands in place of a field of its name, which keeps its default.
    """
    given = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, tuple[Any, list[str]]] = {}  # parameter → its default, and fields
    parameters: list[inspect.Parameter] = []
    for name, parameter in given.items():
        group = parameter.annotation
        if not is_dataclass(group):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        types = get_type_hints(group, include_extras=True)
        names = [field.name for field in fields(group) if field.name not in given]
        assert is_dataclass(parameter.default), f"{name} has no default"
        groups[name] = parameter.default, names
        parameters += [
            parameter.replace(
                name=field,
                kind=inspect.Parameter.KEYWORD_ONLY,
                default=getattr(parameter.default, field),
                annotation=types[field],
            )
            for field in names
        ]

    def command(**values: Any) -> Any:
        for name, (usual, names) in groups.items():
            values[name] = replace(usual, **{field: values.pop(field) for field in names})
        return function(**values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {}
    command.__name__ = function.__name__
    return command


app = typer.Typer(
    name="bakeoff",
    cls=Group,
    help="One character RNN in every JAX library: read results, find what became slower, check an "
    "entrant of your own, train the model.\n\n"
    "Benchmarks run with pytest, from a clone of the repository: "
    "[bold]pytest bench --benchmark-json=run.json[/bold]",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for command, (where, panel) in COMMANDS.items():
    module = import_module(f"bench.cli.{where}")
    function = getattr(module, command)
    written = function.__doc__ or ""  # `python -OO` keeps none
    # Each on a line, which a terminal wraps once
    summary, *others = (" ".join(part.split()) for part in written.split("\n\n"))
    lines = (line for line in module.EXAMPLES.splitlines() if line.split()[1] == command)
    examples = "\n".join(["\b", "Examples:", *lines])  # after \b, Typer keeps the lines
    text = "\n\n".join([summary, examples, *others])
    make = app.command(command, cls=Command, help=text, short_help=summary, rich_help_panel=panel)
    make(spread_options(function))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit status: 0 done, 1 failed, 2 wrong use, 130 Ctrl-C.

    An error in the input is one line on standard error.
    """
    message, status = "", 0
    try:
        if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
            import numpy  # noqa: F401 -- where jaxlib imports it first, it prints a traceback
        status = app(arguments, prog_name="bakeoff", standalone_mode=False) or 0
        sys.stdout.flush()
    except BakeoffError as error:
        message, status = str(error), error.exit_status
    except typer.TyperException as error:
        message, status = explain_wrong_use(error), 2
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        status = BROKEN_PIPE
    except SystemExit as error:  # Rich's
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        status = BROKEN_PIPE
    except Exception as error:
        message, status = explain_unusable(error), 2
        if not message and isinstance(error, OSError) and streams.has_lost_terminal():
            status = INTERRUPTED  # also where that was to be told
        elif not message:
            raise
    if status == INTERRUPTED:  # which Typer may return, too
        message = message or "interrupted"
    if message:
        streams.say(message)
    return status


def explain_unusable(error: Exception) -> str:
    """Return what is wrong with a file or with the machine; empty for a mistake of our own."""
    story = "".join(traceback.format_exception(error, limit=0))  # with the errors that led to it
    if any(words in story for words in NO_MEMORY_WORDS):
        return "there is too little memory for this, or `ulimit -v` is too low"
    if not isinstance(error, OSError):
        return ""
    named = error.filename is not None  # neither file nor output has a name while it is written to
    name = shorten(error.filename) if named else "a file or standard output"
    if error.errno in FULL_DISK_ERRORS:
        return f"cannot write {name}: {error.strerror}; make room there"
    if error.errno in PLACE_ERRORS and named:
        return f"cannot use {name}: {error.strerror}; name another place"
    return ""


def explain_wrong_use(error: typer.TyperException) -> str:
    """Return Typer's message on one line, with the value given; empty if it printed the help.

    Typer's message lacks that value; pydantic, which converts values, knows it.
    """
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "bakeoff"
    message = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
    problems: list[Any] = getattr(error.__cause__, "errors", list)()
    inputs = [repr(p["input"]) for p in problems if repr(p["input"]) not in message]
    message += "".join(f", not {value}" for value in inputs)
    return message and f"{message}; `{command} --help` says what is allowed"


def run() -> None:
    """Run `bakeoff` as a program, with its exit status."""
    streams.prepare_streams()
    try:
        with interrupt_on_signals():
            status = main()
    except Exception:
        with suppress(OSError):
            traceback.print_exc()
        status = INTERNAL_ERROR
        streams.say("this is a mistake of bakeoff's own; please report it")
    try:
        sys.stdout.flush()
    except OSError:  # reported; Python would say it again
        streams.discard_output(sys.stdout.fileno())
    sys.exit(status)
