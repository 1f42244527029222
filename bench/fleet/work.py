"""One comparison, measured by `pytest bench` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = (sys.executable, "-m", "bench.fleet.benchmark")
LOG_LINES = 15
RESUME = re.compile(r"--resume=(\S+)")


@dataclass(frozen=True)
class Done:
    """What came of it."""

    status: int
    """Exit status of pytest."""
    run: bytes | None
    """The run file, compressed; None if there is none."""
    log: str
    """The last lines of what it printed."""
    journal: str | None = None
    """What it was interrupted in, and can be taken up from."""
    seconds: float = 0.0
    """From its beginning to its end."""

    @property
    def text(self) -> bytes | None:
        """The run file."""
        return None if self.run is None else zlib.decompress(self.run)


class Running:
    """A process that measures."""

    def __init__(
        self, arguments: Sequence[str], command: Sequence[str] = COMMAND, cwd: Path | None = None
    ) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bakeoff-matrix-")
        self.file = Path(self.folder.name) / "run.json"
        self.log = (Path(self.folder.name) / "log").open("w+")
        self.cwd, self.start = cwd or Path(self.folder.name), time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 -- our own benchmarks
            [*command, *arguments, f"--benchmark-json={self.file}"],
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is ours to pass on
        )

    def interrupt(self) -> None:
        """Have it stop, and keep what it has."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it, and what it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def done(self) -> Done:
        """Wait for its end, and return what came of it."""
        status = self.process.wait()
        seconds = time.monotonic() - self.start
        self.log.seek(0)
        text = self.log.read()
        self.log.close()
        last = "\n".join(text.splitlines()[-LOG_LINES:])
        found = RESUME.findall(text)
        path = self.cwd / found[-1] if found else None
        journal = str(path.resolve()) if path is not None and path.exists() else None
        run = zlib.compress(self.file.read_bytes()) if self.file.exists() else None
        self.folder.cleanup()
        return Done(status, run, last, journal, seconds)


def measure(arguments: Sequence[str], command: Sequence[str] | None = None) -> Done:
    """Measure one comparison, with this host's own program, and return what came of it."""
    running = Running(arguments, command or COMMAND)
    try:
        return running.done()
    finally:
        running.kill()
