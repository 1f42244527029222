"""A worker: a fresh interpreter that carries out commands, one at a time.

`python -m bench.worker PAGE CHANNEL`. It reads commands from standard input and writes answers to
standard output, both JSON lines (see `bench.worker.protocol`). PAGE is the file that
`ArmMarker` maps, CHANNEL the descriptor of a socket over which tokens come
(`bench.worker.block.Token`). When standard input is closed, the worker ends.

This module needs no package: the cost of imports is one of the measurements.
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

from bench.worker.protocol import COMMANDS, READY, ArmMarker, Command, Describe, MeasureCold
from bench.worker.settings import CORES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.worker.session import Session


def main() -> None:
    """Answer commands from standard input until it ends."""
    serve(COMMANDS, partial(answer_to, ArmMarker(sys.argv[1])))


def serve(
    commands: Mapping[str, Callable[..., Command]], answer_to: Callable[[Any], object]
) -> None:
    """Make this process a worker: it calls `answer_to` with each command.

    It ends with its standard input, or with its parent. Entrants may print, and what they print
    must not get between the answers: from now on, standard output is standard error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    end_with_parent()
    adopt_orphans()  # so that processes that leave our group can be found
    keep_to_cores()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    close_in_forks(out.fileno())

    def emit(answer: Any) -> None:
        record = answer if isinstance(answer, dict) else asdict(answer)
        print(json.dumps(record), file=out, flush=True)

    pid = os.getpid()
    emit(READY)
    for line in sys.stdin:
        fields = json.loads(line)
        answer = answer_to(commands[fields.pop("do")](**fields))
        if os.getpid() != pid:  # a fork that an entrant made came back to here
            os._exit(0)
        emit(answer)
        emit(READY)


def answer_to(marker: ArmMarker, command: Command) -> object:
    """Carry out a command, and return its answer."""
    match command:
        case Describe():
            from bench.worker.offers import describe

            return describe(marker, command)
        case MeasureCold():
            from bench.worker.cold import measure_cold

            return measure_cold(command)
        case _:
            return make_session(marker).answer(command)


@cache
def make_session(marker: ArmMarker) -> Session:
    """Return the session of this process, made in the first call."""
    from bench.worker.session import Session

    return Session(marker, int(sys.argv[2]))


def close_in_forks(descriptor: int) -> None:
    """Close our output in forked processes: its reader waits until all copies are closed."""
    left = [descriptor]

    def close() -> None:
        while left:  # once: what is forked again has the number for something else, perhaps
            with suppress(OSError):
                os.close(left.pop())

    os.register_at_fork(after_in_child=close)


def end_with_parent() -> None:
    """Have Linux kill this process when its parent ends, for whatever reason.

    Elsewhere, it ends after its command, when it finds standard input closed.
    """
    prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def adopt_orphans() -> None:
    """Have Linux make us the parent of processes that our children leave behind."""
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def prctl(option: int, value: int) -> None:
    """Set an option of this process on Linux, as the manual's section 2 says."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value)


def keep_to_cores() -> None:
    """Run on the cores that `CORES` names, even if another program started this process."""
    cores = os.environ.get(CORES)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, map(int, cores.split(",")))


if __name__ == "__main__":
    main()
