"""What an entrant leaves behind: files written, forks, threads, text printed."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

from bench.check.findings import NOTE, Finding

LOUD = 4096
"""Bytes on standard output and error that are still a line or two."""
CACHES = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".git", ".venv", ".uv"}
NO_SOURCES = {*CACHES, ".bakeoff", ".benchmarks", "build", "dist", "node_modules"}
"""Folders whose files are not compared."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.remove", "os.mkdir", "os.rmdir"}
FORKS = {"os.fork", "os.forkpty"}
STARTS = {*FORKS, "subprocess.Popen", "os.posix_spawn", "os.system"}

type Snapshot = dict[str, tuple[int, int]]
"""Time of change in nanoseconds and size, by path."""


class Traces:
    """Hears what the code under judgement does; one lives in a process, from before it is run.

    Python tells of it by audit events. What a library does beneath Python is not heard: comparing
    snapshots of the repository finds that.
    """

    def __init__(self, root: Path, own: Path) -> None:
        self.root, self.own = root.resolve(), own.resolve()
        self.writes: dict[str, str] = {}
        """Paths in the repository, and the line of the entrant that was at it."""
        self.forks = 0
        self.started = ""
        """The line that has started a process last."""
        self.printed = 0
        """Bytes."""
        self.threads = {thread.ident for thread in threading.enumerate()}
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS:
            self.started = self._line()
            self.forks += event in FORKS
        for path in changed_paths(event, arguments):
            full = Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 -- it need not exist
            if full.is_relative_to(self.root) and not CACHES & {*full.parts}:
                self.writes.setdefault(str(full.relative_to(self.root)), self._line())

    def _line(self) -> str:
        """Return the line of the entrant's file that is being run."""
        frame: Any = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename == str(self.own):
                return f"{self.own}:{frame.f_lineno}, {frame.f_code.co_name}"
            frame = frame.f_back
        return str(self.own)

    def findings(self) -> list[Finding]:
        """Return what was heard so far, and forget it."""
        expected = "nothing is written, renamed or removed in the repository"
        found = [Finding(expected, f"it wrote to {p}", line) for p, line in self.writes.items()]
        if self.forks:
            seen = f"it forked{'' if self.forks == 1 else f' {self.forks} times'}"
            expected = "the process does not fork: JAX has threads, which do not survive that"
            found.append(Finding(expected, seen, self.started))
        if names := [t.name for t in threading.enumerate() if t.ident not in self.threads]:
            seen = f"threads of Python that go on: {', '.join(names[:4])}"
            expected = "no thread goes on after the calls"
            found.append(Finding(expected, seen, str(self.own), NOTE))
        if self.printed > LOUD:
            seen = f"it wrote {self.printed:,} bytes".replace(",", " ")
            expected = "little is printed: text takes time, and lands in nobody's terminal"
            found.append(Finding(expected, seen, str(self.own), NOTE))
        self.writes, self.forks, self.printed = {}, 0, 0
        return found


def changed_paths(event: str, arguments: tuple[Any, ...]) -> list[Any]:
    """Return the paths that an audit event is about to change.

    A path that is relative to a descriptor, the last argument, is left out: its name says nothing.
    """
    paths: tuple[Any, ...] = ()
    if event == "open":
        path, mode, flags = arguments
        if flags & WRITES if mode is None else set(mode) & set("wax+"):
            paths = (path,)
    elif event == "os.rename" and arguments[2:] == (-1, -1):
        paths = arguments[:2]
    elif event in CHANGES and arguments[-1] == -1:
        paths = arguments[:1]
    named = [path for path in paths if isinstance(path, (str, bytes, os.PathLike))]
    if event in ("open", "os.mkdir"):  # which fail for a folder that is there
        return [path for path in named if not os.path.isdir(path)]  # noqa: PTH112 -- bytes too
    return named


def snapshot(root: Path) -> Snapshot:
    """Return what the files below `root` are like, without caches and what git keeps."""
    found: Snapshot = {}
    for folder, below, files in root.walk():
        below[:] = [name for name in below if name not in NO_SOURCES]
        for path in (folder / name for name in files):
            try:
                about = path.lstat()
            except OSError:  # gone meanwhile
                continue
            found[str(path.relative_to(root))] = about.st_mtime_ns, about.st_size
    return found


def changed_files(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the files that were written, made or removed between two snapshots."""
    return sorted({path for path, _ in before.items() ^ after.items()})
