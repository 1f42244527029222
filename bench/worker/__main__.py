"""A worker: a fresh interpreter that does what it is told, one command at a time.

`python -m bench.worker PAGE`. It reads commands from standard input and writes answers to standard
output, both JSON lines: `bench.worker.protocol` says which. PAGE is the file that `recorder.Turn`
maps. When standard input is closed, the worker ends.

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
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.worker.protocol import PROTOCOL, Ready
from bench.worker.recorder import Turn
from bench.worker.settings import CORES

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.worker.session import Session

    type Emit = Callable[[Any], None]

__all__ = [
    "PROTOCOL",
    "adopt",
    "closed_in_forks",
    "end_with_parent",
    "keep_to_cores",
    "main",
]


def main() -> None:
    """Do what standard input says until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    end_with_parent()
    keep_to_cores()
    # Entrants may print; what they print must not get between the lines.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    closed_in_forks(out.fileno())

    def emit(answer: Any) -> None:
        record = answer if isinstance(answer, dict) else asdict(answer)
        print(json.dumps(record), file=out, flush=True)

    commands = Commands(Turn(sys.argv[1]))
    clock, took = time.perf_counter, 0.0
    while True:
        emit(Ready(took, PROTOCOL, time.process_time()))
        line = sys.stdin.readline()
        if not line:
            return
        command = json.loads(line)
        start = clock()
        emit(commands.do(command.pop("do"), command))
        took = clock() - start


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


OF_SESSION = ("load", "count", "prove", "open", "prepare", "block", "train")
"""Commands about steps that stay compiled from command to command."""


class Commands:
    """What a worker can be told; one session of warm steps lives as long as the worker."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.warm: Session | None = None

    def do(self, name: str, arguments: dict[str, Any]) -> Any:
        """Carry out a command, and return its answer.

        Raises:
            ValueError: there is no such command.
        """
        if name == "describe":
            return self.describe(**arguments)
        if name == "cold":
            return self.cold(**arguments)
        if name in OF_SESSION:
            return getattr(self.session(), name)(**arguments)
        known = ", ".join(("describe", "cold", *OF_SESSION))
        raise ValueError(f"unknown command {name!r}; known: {known}")

    def describe(self, **arguments: Any) -> dict[str, Any]:
        """Say what this environment offers."""
        from bench.worker.offers import describe

        return describe(**arguments)

    def cold(self, **arguments: Any) -> Any:
        """Measure what happens once in a process; it has to be this process's first command."""
        from bench.worker.cold import cold

        self.turn.at(0)
        found = cold(**arguments)
        self.turn.nobody()
        return found

    def session(self) -> Session:
        """Return the session, begun when first asked for."""
        from bench.worker.session import Session

        self.warm = self.warm or Session(self.turn)
        return self.warm


if __name__ == "__main__":
    main()
