"""A worker: a fresh interpreter that does what it is told, one command at a time.

`python -m bench.worker PAGE CHANNEL`. It reads commands from standard input and writes answers to
standard output, both JSON lines: `bench.worker.protocol` says which. PAGE is the file that
`TurnMarker` maps, CHANNEL the descriptor of a socket over which tokens come
(`bench.worker.token`). When standard input is closed, the worker ends.

This module imports the standard library alone: what an import costs is one of the measurements.
Commands import numpy, jax, optax and the entrants that they name, nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from bench.worker.protocol import READY, TurnMarker
from bench.worker.settings import CORES

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.worker.session import Session


def main() -> None:
    """Do what standard input says until it ends."""
    serve(partial(answer_to, TurnMarker(sys.argv[1])))


def serve(answer_to: Callable[..., Any]) -> None:
    """Make this process a worker: it answers commands by a function of their fields.

    It ends with its standard input, or with its parent. Entrants may print, and what they print
    must not get between the answers: from now on, standard output is standard error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    end_with_parent()
    adopt()  # what leaves our group is still found
    keep_to_cores()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    closed_in_forks(out.fileno())

    def emit(answer: Any) -> None:
        record = answer if isinstance(answer, dict) else asdict(answer)
        print(json.dumps(record), file=out, flush=True)

    pid = os.getpid()
    emit(READY)
    for line in sys.stdin:
        answer = answer_to(**json.loads(line))
        if os.getpid() != pid:  # a fork that an entrant made came back to here
            os._exit(0)
        emit(answer)
        emit(READY)


def answer_to(turn: TurnMarker, do: str, **arguments: Any) -> Any:
    """Carry out a command, and return its answer."""
    if do == "describe":
        from bench.worker.offers import describe

        return describe(turn, **arguments)
    if do == "cold":  # it has to be this process's first command
        from bench.worker.cold import cold

        return cold(**arguments)
    return getattr(session(turn), do)(**arguments)  # about steps that stay compiled


@cache
def session(turn: TurnMarker) -> Session:
    """Return the session, begun when first asked for."""
    from bench.worker.session import Session

    return Session(turn, int(sys.argv[2]))


def closed_in_forks(descriptor: int) -> None:
    """Let nothing that an entrant forks hold our output open: its reader waits for the end."""
    left = [descriptor]

    def close() -> None:
        while left:  # once: what is forked again has the number for something else, perhaps
            with suppress(OSError):
                os.close(left.pop())

    os.register_at_fork(after_in_child=close)


def end_with_parent() -> None:
    """Have Linux end this process when its parent has ended, however that was.

    Elsewhere it ends with its command, when it finds standard input closed.
    """
    prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def adopt() -> None:
    """Have Linux give us what our children leave behind when they end."""
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def prctl(option: int, value: int) -> None:
    """Set an option of this process on Linux, as the manual's section 2 says."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value)


def keep_to_cores() -> None:
    """Run on the cores that the run says, whatever started this process in between."""
    cores = os.environ.get(CORES)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, map(int, cores.split(",")))


if __name__ == "__main__":
    main()
