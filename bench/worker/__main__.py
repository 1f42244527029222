"""A worker: a fresh interpreter that does what it is told, one command at a time.

`python -m bench.worker.__main__ PAGE`. It reads commands from standard input and writes records to
standard output, both JSON lines; PAGE is the file that `recorder.Turn` maps. The protocol:

* At its start, and after each command, the worker says `{"ready": …, "protocol": 3}` and waits. It
  never speaks otherwise, so whoever holds several workers, in different environments if need be,
  lets one work at a time.
* A command is `{"do": NAME, …}`; in between come its records. `ready` holds the seconds that the
  command took; at its end standard input is closed, and the worker ends.
* A command that fails as a whole ends the process, with a traceback on standard error. What fails
  in one arm only is a record `{"failure": …}`.

This module imports the standard library alone: what an import costs is one of the measurements.
Commands import numpy, jax, optax and the entrants that they name, nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bench.worker.recorder import Turn
from bench.worker.settings import CORES

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.worker.session import Session

    type Emit = Callable[[dict[str, Any]], None]

PROTOCOL = 3


def main() -> None:
    """Do what standard input says until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    end_with_parent()
    keep_to_cores()
    # Entrants may print; what they print must not get between the lines.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    closed_in_forks(out.fileno())

    def emit(record: dict[str, Any]) -> None:
        print(json.dumps(record), file=out, flush=True)

    commands = Commands(emit, Turn(sys.argv[1]))
    took = 0.0
    while True:
        used = time.process_time()
        emit({"ready": took, "protocol": PROTOCOL, "cpu_seconds": used})
        line = sys.stdin.readline()
        if not line:
            return
        command = json.loads(line)
        start = time.perf_counter()
        getattr(commands, command.pop("do"))(**command)
        took = time.perf_counter() - start


def closed_in_forks(descriptor: int) -> None:
    """Let nothing that an entrant forks hold our output open: its reader waits for the end."""
    left = [descriptor]

    def close() -> None:
        while left:  # once: what is forked again has the number for something else, perhaps
            with suppress(OSError):
                os.close(left.pop())

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)


def end_with_parent(sign: signal.Signals = signal.SIGKILL) -> None:
    """Have Linux end this process when its parent has ended, however that was: see prctl(2).

    Elsewhere it ends with its command, when it finds standard input closed.
    """
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, sign)


def adopt() -> None:
    """Have Linux give us what our children leave behind when they end: see prctl(2)."""
    if sys.platform == "linux":
        import ctypes

        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1)


def keep_to_cores() -> None:
    """Run on the cores that the run says, whatever started this process in between."""
    cores = os.environ.get(CORES)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, map(int, cores.split(",")))


class Commands:
    """What a worker can be told; one session of warm steps lives as long as the worker."""

    def __init__(self, emit: Emit, turn: Turn) -> None:
        self.emit, self.turn = emit, turn
        self.warm: Session | None = None

    def describe(self, **command: Any) -> None:
        """Say what this environment offers."""
        from bench.worker.session import describe

        self.emit(describe(**command))

    def cold(self, **command: Any) -> None:
        """Measure what happens once in a process; it has to be this process's first command."""
        from bench.worker.cold import cold

        self.turn.at(0)
        self.emit(cold(**command))
        self.turn.nobody()

    def session(self, action: str, **command: Any) -> None:
        """Do something with steps that stay compiled from command to command."""
        from bench.worker.session import Session

        self.warm = self.warm or Session(self.turn)
        self.emit(getattr(self.warm, action)(**command))


if __name__ == "__main__":
    main()
