"""The checks, and the process in which a style, or a file as a whole, is checked.

`python -m bench.check.judge ARGUMENTS`, with the arguments of `_prepared` in JSON: a worker whose
commands are the names of checks. An entrant that exits, hangs or takes all memory does so here. It
runs in the entrant's environment, so it imports no package that such an environment may lack.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import threading
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import impls
from bench.check import contract, numbers
from bench.check.subject import NOTE, CheckFinding, Subject
from bench.worker.__main__ import answer_commands, begin
from bench.worker.arms import use
from bench.worker.integrity import Surroundings
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from common.equality import Case

    type CheckFunction = Callable[[Subject, Case], Iterable[CheckFinding]]
    """Looks for mistakes at some sizes."""

LONGEST_SEEN = 600
"""Characters of a finding: JAX's exceptions can be pages."""


class Check(NamedTuple):
    """One demand on every style of an entrant, and perhaps on its file as a whole."""

    about: str
    """What has to hold."""
    of_style: CheckFunction
    of_file: CheckFunction | None = None
    sizes: int | None = 1
    """The first so many of `Subject.cases` are tried, until there is a finding; None: all."""


CHECKS: dict[str, Check] = {
    "contract": Check(
        "the file can be imported, and offers what the contract asks for",
        contract.style_contract,
        contract.file_contract,
    ),
    "shapes": Check(
        "arrays have the right shapes, dtypes and classes",
        contract.step_shapes,
        contract.model_shapes,
        sizes=2,
    ),
    "weights": Check(
        "weights go in and out unchanged", contract.step_weights, contract.model_weights, sizes=2
    ),
    "equality": Check(
        "loss, state and gradient are the float64 reference's", numbers.equality, sizes=None
    ),
    "ten-steps": Check("ten updates have plain JAX's losses", numbers.ten_steps, sizes=None),
    "retrace": Check("warm calls compile nothing, also after a second load", contract.retrace),
}
"""Checks in the order in which their findings are best read, and corrected. In each of them,
changed settings, and threads and processes that run on after it, are findings too."""


def main() -> None:
    """Run the checks that standard input names, until it ends."""
    out = begin()
    answer_commands(out, partial(examine, _prepared(**json.loads(sys.argv[1]))))


def _prepared(path: str, name: str, style: str | None, memory: int, backend: str) -> Subject:
    """Return what this process is to check, at most so many bytes large; it is not imported yet.

    Data is limited, not addresses: of those, JAX reserves many times what it uses.
    """
    if backend == "cpu":  # a driver has all of its device's memory among its own data
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        memory = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    use(backend)
    if path:
        impls.add(path)
    return Subject(name, style)


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


def findings_of(subject: Subject, name: str) -> list[CheckFinding]:
    """Run a check at one size after another, until something is found; so is an exception."""
    check, findings = CHECKS[name], list[CheckFinding]()
    function = check.of_style if subject.style else check.of_file
    assert function is not None
    for case in subject.cases[: check.sizes]:
        at = "" if check.sizes == 1 else f" ({case.model}, chunk={case.chunk}, batch={case.batch})"
        try:
            for finding in function(subject, case):
                findings.append(replace(finding, expected=finding.expected + at))
        except BaseException as error:
            findings.append(subject.exception(check.about, error))
        if findings:
            break
    return [replace(finding, seen=finding.seen[:LONGEST_SEEN]) for finding in findings]


def _interrupt(seconds: float) -> None:
    """Raise BakeoffError after so many seconds, where Python code runs then; 0: do not."""

    def give_up(*_: object) -> None:
        raise BakeoffError(f"it did not return within {seconds:g} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main()
