"""The process in which an entrant is checked: `python -m bench.check.judge ABOUT`.

ABOUT are `Judge`'s arguments in JSON. It is a worker whose commands are checks. An entrant that
exits, hangs or takes all memory does so here, and the parent starts another process for the next
check.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import impls
from bench.check.checks import CHECKS, CheckOptions
from bench.check.findings import NOTE, CheckFinding
from bench.check.subject import Subject, sizes
from bench.worker.__main__ import adopt, answer_commands, begin
from bench.worker.integrity import Surroundings
from bench.worker.settings import ROOT
from bench.worker.workloads import load_workload, use

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST_FILE = 1 << 28
"""Bytes that the process may write into one file, its output included."""
LONGEST_SEEN = 600
"""Characters of a finding: JAX's exceptions can be pages."""
LOUD = 4096
"""Bytes on standard output and error that are still a line or two."""
CACHES = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".git", ".venv", ".uv"}
"""Folders that anything may write into."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
FORKS = {"os.fork", "os.forkpty"}
STARTS = {*FORKS, "subprocess.Popen", "os.posix_spawn", "os.system"}


def main() -> None:
    """Run the checks that standard input names, until it ends."""
    out = begin()
    adopt()
    answer_commands(out, Judge(**json.loads(sys.argv[1])).examine)


class Judge:
    """Checks one entrant, which is not imported yet; its path is empty if it is one of `impls/`.

    The stacks of a process that hangs or crashes are written to the file `stacks`.
    """

    def __init__(self, name: str, path: str, stacks: str, options: dict[str, Any]) -> None:
        about = CheckOptions(**options)
        if about.backend == "cpu":  # a driver has all of its device's memory among its own data
            _limit(about.memory)
        use(about.backend)
        if path:
            impls.add(path)
        self.name = name
        self.workloads = tuple(load_workload(workload).case for workload in about.workloads)
        self.subject: Subject | None = None
        self.stacks = Path(stacks).open("w")  # noqa: SIM115 -- open as long as the process lives
        faulthandler.enable(self.stacks)
        self.traces = Traces(impls.source(name))

    def examine(self, check: str, style: str | None, seconds: float) -> dict[str, Any]:
        """Run a check of a style, or of the file as a whole.

        After so many seconds the stacks are written down, since the check may never return.
        """
        if self.subject is None or self.subject.style != style:
            self.subject = Subject(self.name, style, self.workloads)
        subject, before = self.subject, Surroundings()
        faulthandler.dump_traceback_later(seconds, file=self.stacks)
        findings = findings_of(subject, check)
        faulthandler.cancel_dump_traceback_later()
        if changes := before.changes():
            expected = "an entrant changes nothing that all entrants of a process share"
            findings.append(subject.finding(expected, f"it {changes}"))
        imported = "entrant" in vars(subject)
        return {
            "findings": [_record(finding) for finding in findings],
            "traces": [_record(finding) for finding in self.traces.findings()],
            "styles": list(subject.entrant.styles) if imported else [],
            "started": self.traces.started,
        }


class Traces:
    """Records what an entrant does, from audit events: Python raises them, and no other code."""

    def __init__(self, own: Path) -> None:
        self.own = own.resolve()
        self.writes: dict[str, str] = {}
        """Paths in the repository, and the line of the entrant that was running."""
        self.forks = 0
        self.started = ""
        """The line that started a process last."""
        self.printed = _bytes_printed()
        self.threads = {thread.ident for thread in threading.enumerate()}
        sys.addaudithook(self._record)

    def _record(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS:
            self.started = self._line()
            self.forks += event in FORKS
        for path in changed_paths(event, arguments):
            full = Path(os.path.abspath(path))  # noqa: PTH100 -- it need not exist
            if full.is_relative_to(ROOT) and not CACHES & {*full.parts}:
                self.writes.setdefault(str(full.relative_to(ROOT)), self._line())

    def _line(self) -> str:
        """Return the line of the entrant's file that is running."""
        frame: Any = sys._getframe()
        while frame is not None and frame.f_code.co_filename != str(self.own):
            frame = frame.f_back
        return f"{self.own}:{frame.f_lineno}, {frame.f_code.co_name}" if frame else str(self.own)

    def findings(self) -> Iterator[CheckFinding]:
        """Yield what was recorded so far, and forget it."""
        expected = "nothing is written, renamed or removed in the repository"
        for path, line in self.writes.items():
            yield CheckFinding(expected, f"it wrote to {path}", line)
        if self.forks:
            expected = "the process does not fork: JAX's threads do not survive a fork"
            yield CheckFinding(expected, f"forks: {self.forks}", self.started)
        if names := [t.name for t in threading.enumerate() if t.ident not in self.threads]:
            expected, seen = "no thread runs on after the calls", f"threads: {', '.join(names[:4])}"
            yield CheckFinding(expected, seen, str(self.own), NOTE)
        if (count := _bytes_printed() - self.printed) > LOUD:
            expected, seen = "little is printed: it takes time", f"it printed {count} bytes"
            yield CheckFinding(expected, seen, str(self.own), NOTE)
        self.writes, self.forks, self.printed = {}, 0, _bytes_printed()


def changed_paths(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Return the paths that an audit event is about to change.

    A path that is relative to a descriptor, the last argument, is left out: its name says nothing.
    """
    if event == "open":
        changed = arguments[:1] if arguments[2] & WRITES else ()
    else:
        changed = arguments[:-1] if event in CHANGES and arguments[-1] == -1 else ()
    new = event in ("open", "os.mkdir")  # these fail for a folder that is there
    paths = [os.fsdecode(path) for path in changed if not isinstance(path, int)]
    return [path for path in paths if not (new and Path(path).is_dir())]


def findings_of(subject: Subject, name: str) -> list[CheckFinding]:
    """Run a check at one size after another, until something is found; so is an exception."""
    check, findings = CHECKS[name], list[CheckFinding]()
    function = check.of_style if subject.style else check.of_file
    assert function is not None
    for case in subject.cases[: check.sizes]:
        at = "" if check.sizes == 1 else f" ({sizes(case)})"
        try:
            for finding in function(subject, case):
                findings.append(replace(finding, expected=finding.expected + at))
        except BaseException as error:
            findings.append(subject.exception(check.about, error))
        if findings:
            break
    return findings


def _record(finding: CheckFinding) -> dict[str, Any]:
    return asdict(replace(finding, seen=finding.seen[:LONGEST_SEEN]))


def _bytes_printed() -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return os.fstat(sys.stderr.fileno()).st_size


def _limit(memory: int) -> None:
    """Make a request for more memory than that fail.

    Data is limited, not addresses: of those, JAX reserves many times what it uses.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:  # it can only be lowered
        memory = min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))


if __name__ == "__main__":
    main()
