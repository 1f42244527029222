"""The parent's side of a worker: start it, let it do one thing, read its answer."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import msgspec
import psutil

from bench.worker.protocol import LOST_STATUS, PROTOCOL, TOKEN, Command, Recorder
from bench.worker.settings import ROOT, end_processes, environment, restore_user_settings, threads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MODULE = "bench.worker"
SILENCE_SECONDS = 120.0
"""Silence before a worker counts as hung, in seconds: no command of a shared environment takes a
quarter of that on two cores."""
HEAVY_SILENCE = 180.0
"""Silence allowed while a library with its own environment is imported, in seconds: PyTorch took a
minute on a cold disk."""
MOST_AT_ONCE = 1 << 16
"""Maximum number of bytes of a worker's output that are read at once."""
LEAST_SILENCE = 30.0
"""Minimum silence before a worker counts as hung, in seconds, however small the budget is."""
LAST_SECONDS = 10.0
"""Seconds that a worker may live on after its output has ended."""
STDERR_LINES = 8
"""Lines of a failed worker's stderr that are kept: the end of a traceback."""


def choose_silence(budget: float) -> float:
    """Return the silence after which a worker that describes its environment counts as hung."""
    return min(SILENCE_SECONDS, max(LEAST_SILENCE, budget / 5))


@dataclass(eq=False)
class WorkerFailedError(Exception):
    """A worker died, hung, or broke the protocol."""

    reason: str
    stderr: str
    """Last lines of its standard error."""
    arm: int | None
    """Index of the arm that was at work, or None."""
    lost_token: bool = False
    """Whether it ended because its partner, with which it alternated, did not go on."""
    number: int = 0
    """Number of the worker; of two that alternated, both are ended."""
    blamed: str = ""
    """Name of the arm that was at work; empty where none was."""

    def __str__(self) -> str:
        """Return the reason, and the last line of standard error."""
        return ": ".join([self.reason, *self.stderr.splitlines()[-1:]])


@dataclass(frozen=True)
class Place:
    """Place of a worker: an interpreter with its packages, environment variables, and code."""

    command: Sequence[str] = (sys.executable, "-m", MODULE)
    variables: Mapping[str, str] = field(default_factory=environment)
    root: Path = ROOT
    """Root folder of the code that it runs."""

    @classmethod
    def from_python(cls, python: str, root: Path = ROOT) -> Place:
        """Return the place of another interpreter, or of another revision's code."""
        return cls((python, "-m", MODULE), environment(root, own=python == sys.executable), root)

    def apply_step_settings(self) -> Place:
        """Return the same place under the settings of a user's own step."""
        return replace(self, variables=restore_user_settings(self.variables))


class Worker:
    """One worker process. Several may live, in different places, and work at the same time."""

    def __init__(
        self,
        place: Place | None = None,
        silence: float = SILENCE_SECONDS,
        cores: Sequence[int] = (),
    ) -> None:
        place = Place() if place is None else place
        self.silence = silence
        self.recorder = Recorder()
        self.channel, channel = socket.socketpair()
        self.stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 -- `close` does
        inherited = self.recorder.file.fileno(), channel.fileno()
        self.process = subprocess.Popen(  # noqa: S603 -- our own module, no shell
            [*place.command, self.recorder.path, str(channel.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            cwd=place.root,
            env=dict(place.variables) | (threads(cores) if cores else {}),
            pass_fds=inherited,
            process_group=0,  # so that what it starts can be ended with it
        )
        channel.close()
        assert self.process.stdout is not None
        self.output, self.unread = select.poll(), b""
        self.output.register(self.process.stdout, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Wait until the worker is ready for its first command."""
        records = self._read_records(self.silence)
        if records:
            raise self.make_failure(f"it spoke before it was asked: {str(records[0])[:80]}")

    def ask(self, command: Command, silence: float | None = None) -> dict[str, Any]:
        """Send the worker a command, and return its record.

        Raises:
            WorkerFailedError: it died, was silent for too long, or broke the protocol.
        """
        assert self.process.stdin is not None
        with suppress(OSError):  # it may have died already; reading says how
            self.process.stdin.write(command.encode())
            self.process.stdin.flush()
        records = self._read_records(silence or self.silence)
        if len(records) != 1:
            raise self.make_failure(f"it said {len(records)} records where one belongs")
        return records[0]

    def close(self) -> None:
        """End the process, whatever it does."""
        self.kill()
        files = self.process.stdin, self.process.stdout, self.stderr, self.recorder.file
        for file in (*files, self.channel):
            if file is not None:
                with suppress(OSError):  # what was still to be written has no reader
                    file.close()

    def kill(self) -> None:
        """End the process and its descendants, which may hold its output open."""
        if self.process.returncode is not None:  # its id may be another's by now
            return
        started = find_descendants(self.process.pid)
        self._end_group()
        self.process.kill()
        self.process.wait()
        end_processes(started)  # those of another session, too

    def _end_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # all of them have ended
            os.killpg(self.process.pid, signal.SIGKILL)

    def _read_records(self, silence: float) -> list[dict[str, Any]]:
        """Return the records that come before the worker is ready again."""
        records: list[dict[str, Any]] = []
        while True:
            line = self._read_line(silence)
            try:
                record = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError as error:
                raise self.make_failure(f"it wrote {line.rstrip()[:80]!r}: {error}") from None
            if "ready" not in record:
                records.append(record)
            elif record.get("protocol") == PROTOCOL:
                return records
            else:
                raise self.make_failure(
                    f"it speaks protocol {record.get('protocol')!r}, not {PROTOCOL}"
                )

    def _read_line(self, silence: float) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self.unread:
            silent = not self.output.poll(1000 * silence)
            data = b"" if silent else os.read(self.process.stdout.fileno(), MOST_AT_ONCE)
            if not data:
                raise self._explain_end(silence if silent else None)
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        return line.decode(errors="replace")

    def _explain_end(self, silence: float | None) -> WorkerFailedError:
        """Return the error that says why no line came, in so many seconds or at all."""
        if silence is not None and self.process.poll() is None:
            return self.make_failure(f"silent for {silence:g} s")
        try:
            status = self.process.wait(LAST_SECONDS)
            self._end_group()
        except subprocess.TimeoutExpired:
            return self.make_failure("it closed its output")
        if status == LOST_STATUS:
            return self.make_failure(
                "lost the token: the other worker died or hung", lost_token=True
            )
        killed = "; killed, perhaps for want of memory" if status == -9 else ""
        return self.make_failure(f"exit status {status}{killed}")

    def make_failure(self, reason: str, *, lost_token: bool = False) -> WorkerFailedError:
        """End the process, and return the error that says why."""
        self.kill()
        self.stderr.seek(0)
        tail = self.stderr.read().strip().splitlines()[-STDERR_LINES:]
        words, arm = f"worker failed ({reason})", None if lost_token else self.recorder.read_arm()
        return WorkerFailedError(words, "\n".join(tail), arm, lost_token=lost_token)


def link(*workers: Worker) -> None:
    """Give two workers the ends of a pair of sockets, over which they pass a token."""
    ends = socket.socketpair()
    for worker, end in zip(workers, ends, strict=True):
        with end, suppress(OSError):  # it may have died already; reading says how
            socket.send_fds(worker.channel, [TOKEN], [end.fileno()])


def find_descendants(pid: int) -> set[int]:
    """Return the ids of a process's descendants."""
    with suppress(psutil.Error):
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return set()


def ask_once(
    command: Command, place: Place | None = None, silence: float = SILENCE_SECONDS
) -> dict[str, Any]:
    """Let a fresh worker do one thing, and return its record."""
    with Worker(place, silence) as worker:
        worker.start()
        return worker.ask(command)
