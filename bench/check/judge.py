"""The process in which a style, or a file as a whole, is checked.

`python -m bench.check.judge ARGUMENTS`, with the arguments of `prepared` in JSON: a worker whose
commands are the names of checks. An entrant that exits, hangs or takes all memory does so here. It
runs in the entrant's environment, so it imports no package that such an environment may lack.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import threading
from dataclasses import asdict
from functools import partial
from typing import Any

import impls
from bench.check.checks import findings_of
from bench.check.findings import NOTE
from bench.check.subject import Subject
from bench.worker.__main__ import adopt, answer_commands, begin
from bench.worker.integrity import Surroundings
from bench.worker.workloads import load_workload, use
from common.errors import BakeoffError

LARGEST_FILE = 1 << 28
"""Bytes that the process may write into one file, its output included: a step that prints without
end must not fill the disk."""


def main() -> None:
    """Run the checks that standard input names, until it ends."""
    out = begin()
    adopt()
    answer_commands(out, partial(examine, prepared(**json.loads(sys.argv[1]))))


def prepared(
    path: str, name: str, style: str | None, workloads: list[str], memory: int, backend: str
) -> Subject:
    """Return what this process is to check; nothing of it is imported yet.

    Args:
        path: File of the entrant; empty if it is one of `impls/`.
        name: Of the entrant.
        style: Or None for the file as a whole.
        workloads: Further sizes at which numbers are compared.
        memory: Bytes that this process may use.
        backend: That the entrant runs on.
    """
    if backend == "cpu":  # a driver has all of its device's memory among its own data
        _limit(memory)
    use(backend)
    if path:
        impls.add(path)
    return Subject(name, style, tuple(load_workload(workload).case for workload in workloads))


def examine(subject: Subject, check: str, seconds: float) -> dict[str, Any]:
    """Run a check for at most so many seconds; return its findings, and the styles of the file."""
    surroundings, threads = Surroundings(), threading.enumerate()
    _interrupt(seconds)
    findings = findings_of(subject, check)
    _interrupt(0)
    if changes := surroundings.changes():
        expected = "an entrant changes nothing that all entrants of a process share"
        findings.append(subject.finding(expected, f"it {changes}"))
    if names := [thread.name for thread in threading.enumerate() if thread not in threads]:
        expected, seen = "no thread runs on after the calls", f"threads: {', '.join(names)}"
        findings.append(subject.finding(expected, seen, severity=NOTE))
    styles = list(subject.entrant.styles) if "entrant" in vars(subject) else []
    return {"findings": [asdict(finding) for finding in findings], "styles": styles}


def _interrupt(seconds: float) -> None:
    """Raise BakeoffError after so many seconds, where Python code runs then; 0: do not."""

    def give_up(*_: object) -> None:
        raise BakeoffError(f"it did not return within {seconds:g} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit(memory: int) -> None:
    """Make a request for more memory than that fail.

    Data is limited, not addresses: of those, JAX reserves many times what it uses.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    memory = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))


if __name__ == "__main__":
    main()
