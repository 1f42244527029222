"""The parent's side of a worker: start it, let it do one thing, read its answer."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
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
SILENCE_SECONDS = 30.0
"""Seconds in which a worker that neither answers nor computes counts as hung: what it waits for,
such as a cold disk, lets it compute now and then."""
COMPUTING = 0.02
"""Fraction of a core from which on a worker computes: idle threads that wake up now and then use a
tenth of it, and a process gets more where ten want the core."""
LIMIT_SECONDS = 300.0
"""Longest time in which a worker says what it offers, in seconds: PyTorch took a minute to import
from a cold disk, and nothing takes that long without a mistake in a user's file."""
MOST_AT_ONCE = 1 << 16
"""Maximum number of bytes of a worker's output that are read at once."""
LAST_SECONDS = 10.0
"""Seconds that a worker may live on after its output has ended."""
STDERR_LINES = 8
"""Lines of a failed worker's stderr that are kept: the end of a traceback."""


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
    is_hung: bool = False
    """Whether it was ended while it was still at work."""
    is_late: bool = False
    """Whether that was after the end of the run's time: what it was to do is not measured yet."""
    number: int = 0
    """Number of the worker; of two that alternated, both are ended."""
    blamed: str = ""
    """Name of the arm that was at work; empty where none was."""

    def __str__(self) -> str:
        """Return the reason, and the last line of standard error."""
        return ": ".join([self.reason, *self.stderr.splitlines()[-1:]])


@dataclass(frozen=True)
class Interpreter:
    """How a worker is started: a Python with its packages, environment variables, and code."""

    command: Sequence[str] = (sys.executable, "-m", MODULE)
    variables: Mapping[str, str] = field(default_factory=environment)
    root: Path = ROOT
    """Root folder of the code that it runs."""

    @classmethod
    def from_python(cls, python: str, root: Path = ROOT) -> Interpreter:
        """Return another Python of this machine, or the same with another revision's code."""
        return cls((python, "-m", MODULE), environment(root, own=python == sys.executable), root)

    def apply_step_settings(self) -> Interpreter:
        """Return the same Python under the settings of a user's own step."""
        return replace(self, variables=restore_user_settings(self.variables))


class Worker:
    """One worker process. Several may live, each of its own Python, and work at the same time."""

    def __init__(self, interpreter: Interpreter | None = None, cores: Sequence[int] = ()) -> None:
        interpreter = Interpreter() if interpreter is None else interpreter
        self.recorder = Recorder()
        self.channel, their_end = socket.socketpair()
        self.stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 -- `close` does
        inherited = self.recorder.file.fileno(), their_end.fileno()
        self.process = subprocess.Popen(  # noqa: S603 -- our own module, no shell
            [*interpreter.command, self.recorder.path, str(their_end.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            cwd=interpreter.root,
            env=dict(interpreter.variables) | (threads(cores) if cores else {}),
            pass_fds=inherited,
            process_group=0,  # so that what it starts can be ended with it
        )
        their_end.close()
        assert self.process.stdout is not None
        self.poller, self.unread = select.poll(), b""
        self.poller.register(self.process.stdout, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, limit: float = LIMIT_SECONDS) -> None:
        """Wait until the worker is ready for its first command, at most `limit` seconds."""
        records = self._read_records(limit, self)
        if records:
            raise self.make_failure(f"it spoke before it was asked: {str(records[0])[:80]}")

    def ask(
        self, command: Command, limit: float = LIMIT_SECONDS, partner: Worker | None = None
    ) -> dict[str, Any]:
        """Send the worker a command, and return its record.

        Args:
            command: Command to send.
            limit: Seconds after which it has hung, although it computes.
            partner: Worker that it alternates with: while that one computes, this one may wait.

        Raises:
            WorkerFailedError: it died, hung, or broke the protocol.
        """
        assert self.process.stdin is not None
        with suppress(OSError):  # it may have died already; reading says how
            self.process.stdin.write(command.encode())
            self.process.stdin.flush()
        records = self._read_records(limit, self, *filter(None, [partner]))
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

    def _read_records(self, limit: float, *computing: Worker) -> list[dict[str, Any]]:
        """Return the records that come before the worker is ready again."""
        records: list[dict[str, Any]] = []
        end = time.monotonic() + limit
        while True:
            line = self._read_line(end, computing)
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

    def _read_line(self, end: float, computing: Sequence[Worker]) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self.unread:
            self._await_output(end, computing)
            data = os.read(self.process.stdout.fileno(), MOST_AT_ONCE)
            if not data:
                raise self._explain_end()
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        return line.decode(errors="replace")

    def _await_output(self, end: float, computing: Sequence[Worker]) -> None:
        """Wait for output, as long as one of some workers computes, until a time at most.

        Processor time is read after `SILENCE_SECONDS`, since that disturbs what is timed.
        """
        start, used = time.monotonic(), sum(worker.read_own_seconds() for worker in computing)
        while True:
            seconds = min(SILENCE_SECONDS, max(0.0, end - time.monotonic()))
            if self.poller.poll(1000 * seconds):
                return
            before, used = used, sum(worker.read_processor_seconds() for worker in computing)
            if self.process.poll() is not None:  # what it has started holds its output open
                raise self._explain_end()
            if seconds == SILENCE_SECONDS and used - before < COMPUTING * seconds:
                raise self.make_failure(f"it neither answered nor computed for {seconds:g} s")
            if time.monotonic() >= end:
                waited = time.monotonic() - start
                hung = self.make_failure(f"it was still at work after {waited:.0f} s")
                hung.is_hung = True
                raise hung

    def read_own_seconds(self) -> float:
        """Return the processor seconds of the process, without those of living descendants."""
        with suppress(psutil.Error):
            return sum(psutil.Process(self.process.pid).cpu_times()[:4])
        return 0.0

    def read_processor_seconds(self) -> float:
        """Return the processor seconds of the process and its descendants."""
        total = self.read_own_seconds()
        for pid in find_descendants(self.process.pid):
            with suppress(psutil.Error):
                total += sum(psutil.Process(pid).cpu_times()[:4])
        return total

    def _explain_end(self) -> WorkerFailedError:
        """Return the error that says why the output has ended."""
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


def ask_once(command: Command, interpreter: Interpreter | None = None) -> dict[str, Any]:
    """Let a fresh worker do one thing, and return its record."""
    with Worker(interpreter) as worker:
        worker.start()
        return worker.ask(command)
