"""The judge's process: `python -m bench.check.judge PAGE`, a worker that runs one check at a time.

It speaks the protocol of `bench.worker.protocol`. What the code under judgement does to its process
happens in this one: it exits, hangs, or takes all memory that it may have, and the parent starts
another one for the next check.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import impls
from bench.check import calls, contract, numbers, timing
from bench.check.findings import CHECKS, Finding
from bench.check.subject import Subject
from bench.check.traces import Traces
from bench.worker.__main__ import PROTOCOL, adopt, closed_in_forks, end_with_parent, keep_to_cores
from bench.worker.recorder import Turn
from bench.worker.setting import case_of, use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    type CheckFunction = Callable[[Subject], Iterable[Finding]]

FILE_CHECKS: dict[str, CheckFunction] = {
    "contract": contract.file_contract,
    "shapes": contract.model_shapes,
    "dtypes": contract.model_dtypes,
    "weights": contract.model_weights,
}
STYLE_CHECKS: dict[str, CheckFunction] = {
    "contract": contract.style_contract,
    "shapes": contract.step_shapes,
    "dtypes": contract.step_dtypes,
    "weights": contract.step_weights,
    "equality": numbers.equality,
    "gradient": numbers.gradient,
    "ten-steps": numbers.ten_steps,
    "optimiser": numbers.optimiser,
    "inputs": numbers.inputs,
    "state": numbers.state,
    "fresh": calls.fresh,
    "retrace": timing.retrace,
    "timed-region": timing.timed_region,
    "watched": calls.same_updates,
}
LARGEST_FILE = 1 << 28
"""Bytes that it may write into one file, its output included."""
LONGEST_SEEN = 1000
"""Characters of what was seen."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def main() -> None:
    """Do what standard input says until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    end_with_parent()
    adopt()
    keep_to_cores()
    Turn(sys.argv[1])
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    closed_in_forks(out.fileno())
    pid, judge = os.getpid(), Judge(**json.loads(_asked(out)))
    answer: dict[str, Any] = {"begun": judge.name}
    while os.getpid() == pid:
        print(json.dumps(answer), file=out, flush=True)
        answer = judge.examine(**json.loads(_asked(out)))
    os._exit(0)  # a fork of an entrant's came back to here


def _asked(out: Any) -> str:
    """Say that the last command is done, and return the next one; there is none at the end."""
    ready = {"ready": 0.0, "protocol": PROTOCOL, "cpu_seconds": 0.0}
    print(json.dumps(ready), file=out, flush=True)
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    return line


class Judge:
    """Judges one entrant, which is not imported yet.

    Args:
        name: The entrant's.
        path: Its file, where that is none of `impls/`; else empty.
        stacks: File for the stacks of a process that hangs or crashes.
        options: Fields of `CheckOptions`.
    """

    def __init__(self, name: str, path: str, stacks: str, options: dict[str, Any]) -> None:
        backend = options["backend"]
        if backend == "cpu":  # a driver has all of its device's memory among its own data
            _limit(options["memory"])
        use(backend)
        if path:
            impls.add(path)
        self.name = name
        self.workloads = tuple(case_of(workload, backend) for workload in options["workloads"])
        self.subjects: dict[str, Subject] = {}
        self.stacks = Path(stacks).open("w")  # noqa: SIM115 -- open as long as the process lives
        faulthandler.enable(self.stacks)
        self.traces = Traces(Path(options["root"]), impls.source(name))

    def examine(self, check: str, style: str, seconds: float) -> dict[str, Any]:
        """Run one check; after `seconds` the stacks are written down, for it may never return."""
        function = (STYLE_CHECKS if style else FILE_CHECKS)[check]
        if style not in self.subjects:
            self.subjects[style] = Subject(self.name, style, self.workloads)
        subject = self.subjects[style]
        with self._observed(seconds):
            findings = findings_of(subject, check, function)
        return {
            "findings": [_record(finding) for finding in findings],
            "traces": [_record(finding) for finding in self.traces.findings()],
            "styles": list(subject.entrant.styles) if subject.imported else [],
            "where": subject.location() if style else "",
            "started": self.traces.started,
        }

    @contextmanager
    def _observed(self, seconds: float) -> Iterator[None]:
        """Count what is printed, and write stacks down if it takes longer than `seconds`."""
        before = _bytes_printed()
        faulthandler.dump_traceback_later(seconds, file=self.stacks)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.traces.printed += _bytes_printed() - before


def findings_of(subject: Subject, check: str, function: CheckFunction) -> list[Finding]:
    """Run a check; what it raises is a finding too."""
    findings: list[Finding] = []
    try:
        for finding in function(subject):
            findings.append(finding)
    except BaseException as error:
        findings.append(subject.exception(CHECKS[check].about, error))
    return findings


def _record(finding: Finding) -> dict[str, Any]:
    return asdict(replace(finding, seen=COLOUR.sub("", finding.seen)[:LONGEST_SEEN]))


def _bytes_printed() -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return os.fstat(sys.stderr.fileno()).st_size


def _limit(memory: int) -> None:
    """Have a request for more memory than that fail, instead of the machine.

    Data is limited, not addresses: of those, JAX reserves many times what it uses.
    """
    try:
        import resource
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
