"""The judge's process: `python -m bench.check.judge PAGE`, a worker that runs one check at a time.

It speaks the protocol of `bench.worker.__main__`. Whatever the code under judgement does to its
process, it does to this one: it exits, hangs, or takes all memory that it may have, and whoever
asked starts another one for the next check.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.check.finding import FILE, Finding
from bench.check.wanted import CPU
from bench.worker.__main__ import PROTOCOL, adopt, closed_in_forks, end_with_parent, keep_to_cores
from bench.worker.recorder import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bench.check.subject import Subject
    from bench.check.traces import Traces

    type Examine = Callable[[Subject], Iterable[Finding]]

LARGEST_FILE = 1 << 28
"""Bytes that it may write into one file, its output included."""
LONGEST = 1000
"""Characters of what was seen."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def main() -> None:
    """Do what standard input says until it ends."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    end_with_parent()
    adopt()
    keep_to_cores()
    Turn(sys.argv[1])
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    closed_in_forks(out.fileno())
    pid, commands, took = os.getpid(), Commands(), 0.0
    say = {"ready": took, "protocol": PROTOCOL, "cpu_seconds": 0.0}
    while True:
        print(json.dumps(say), file=out, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        command = json.loads(line)
        record = getattr(commands, command.pop("do"))(**command)
        if os.getpid() != pid:  # what an entrant has forked came back to here
            os._exit(0)
        print(json.dumps(record), file=out, flush=True)


class Commands:
    """What the judge can be told."""

    name: str
    stacks: Any
    traces: Traces

    def begin(
        self,
        name: str,
        path: str,
        root: str,
        stacks: str,
        memory: int,
        extra: list[str],
        backend: str,
    ) -> dict[str, Any]:
        """Get ready to judge an entrant, which is not imported yet.

        Args:
            name: The entrant's.
            path: Its file, where that is none of `impls/`; else empty.
            root: Of the repository, which nothing may write into.
            stacks: File for the stacks of a process that hangs or crashes.
            memory: Bytes that it may have.
            extra: Workloads whose sizes numbers are compared at too.
            backend: What it runs on.
        """
        import impls
        from bench.check import traces
        from bench.worker.setting import case_of, use

        if backend == CPU:  # a driver has all of its device's memory among its own data
            limit(memory)
        use(backend)
        if path:
            impls.add(path)
        self.name, self.subjects = name, dict[str, Any]()
        self.extra = tuple(case_of(workload, backend) for workload in extra)
        self.stacks = Path(stacks).open("w")  # noqa: SIM115 -- open as long as the process lives
        faulthandler.enable(self.stacks)
        self.traces = traces.Traces(Path(root), impls.source(name))
        return {"begun": name}

    def examine(self, check: str, style: str, seconds: float) -> dict[str, Any]:
        """Run one check; after `seconds` the stacks are written down, for it may never return."""
        from bench.check.register import FILE_CHECKS, STYLE_CHECKS
        from bench.check.subject import Subject

        function = (FILE_CHECKS if style == FILE else STYLE_CHECKS)[check]
        if style not in self.subjects:
            self.subjects[style] = Subject(self.name, style, self.extra)
        subject = self.subjects[style]
        start = time.perf_counter()
        with self.heard(seconds):
            findings = found(subject, check, function)
        record = {
            "findings": [said(finding) for finding in findings],
            "seconds": time.perf_counter() - start,
        }
        if check == "contract" and style == FILE:
            record["styles"] = styles(subject) if not raised(findings) else []
        if style != FILE:
            record["at"] = subject.style_at
        record["started"] = self.traces.started
        record["traces"] = [said(finding) for finding in self.traces.findings()]
        return record

    @contextmanager
    def heard(self, seconds: float) -> Iterator[None]:
        """Count what is printed, and write stacks down if it takes longer than `seconds`."""
        before = written()
        faulthandler.dump_traceback_later(seconds, file=self.stacks)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.traces.printed += written() - before


def found(subject: Subject, check: str, function: Examine) -> list[Finding]:
    """Run a check; what it raises is a finding too."""
    findings: list[Finding] = []
    try:
        for finding in function(subject):
            findings.append(finding)
    except BaseException as error:
        from bench.check.checks import CHECKS

        findings.append(subject.raised(f"{CHECKS[check].about}", error))
    return findings


def raised(findings: list[Finding]) -> bool:
    """Return whether the file could not even be imported."""
    from bench.check.contract import IMPORTED

    return any(finding.expected == IMPORTED for finding in findings)


def styles(subject: Subject) -> list[str]:
    """Return the names of the entrant's styles, if it has come so far."""
    try:
        return [str(name) for name in subject.entrant.styles]
    except Exception:
        return []


def said(finding: Finding) -> dict[str, Any]:
    """Return a finding as a record; whoever asked knows the check and the style."""
    record = asdict(replace(finding, seen=COLOUR.sub("", finding.seen)[:LONGEST]))
    del record["check"], record["style"]
    return record


def written() -> int:
    """Return the size of what has been printed so far."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return os.fstat(sys.stderr.fileno()).st_size


def limit(memory: int) -> None:
    """Have what asks for more memory than that fail, instead of the machine.

    Data is what is limited, not addresses: of those, JAX reserves many times what it uses.
    """
    try:
        import resource
        import signal
    except ImportError:  # not on Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard != resource.RLIM_INFINITY:  # it can only be lowered
        memory = min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write that fails says more
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))


if __name__ == "__main__":
    main()
