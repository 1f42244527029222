"""The checks, and the process in which a style, or a file as a whole, is checked.

`python -m bench.check.judge` is a worker whose one command is `Examine`. An entrant
that exits or hangs does so here. It runs in the entrant's environment, so it imports no package
that such an environment may lack.
"""

from __future__ import annotations

import signal
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.check import RAGGED, SMALL, CheckFinding, Subject, contract, numbers
from bench.worker.__main__ import serve
from bench.worker.arms import catch_failure, use_device
from bench.worker.protocol import Command, Failed
from bench.worker.settings import Surroundings
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from common.equality import Case

    type CheckFunction = Callable[[Subject, Case], Iterable[CheckFinding]]
    """Function that looks for mistakes at some sizes."""

BOTH = SMALL, RAGGED
LONGEST_SEEN = 600
"""Most characters of a finding: JAX's exceptions can be pages."""


class Check(NamedTuple):
    """A condition on entrants, and the functions that check a style and a file."""

    about: str
    """Condition that has to hold."""
    check_style: CheckFunction
    check_file: CheckFunction | None = None
    cases: tuple[Case, ...] = (SMALL,)
    """Sizes to check at, one after another, until there is a finding."""


CHECKS: dict[str, Check] = {
    "contract": Check(
        "the file can be imported, and offers what the contract asks for",
        contract.check_style,
        contract.check_file,
    ),
    "shapes": Check(
        "arrays have the right shapes, dtypes and classes",
        contract.check_step_shapes,
        contract.check_model_shapes,
        BOTH,
    ),
    "weights": Check(
        "weights go in and out unchanged",
        contract.check_step_weights,
        contract.check_model_weights,
        BOTH,
    ),
    "equality": Check(
        "loss, state and gradient are the float64 reference's", numbers.check_equality, cases=BOTH
    ),
    "ten-steps": Check("ten updates have plain JAX's losses", numbers.check_ten_steps, cases=BOTH),
    "retrace": Check(
        "warm calls compile nothing, also after a second load", contract.check_retracing
    ),
}
"""Name → check, in the order in which findings are best read and corrected. For each of them,
changed settings, threads that compute on and processes that run on after it are findings, too."""


make_subject = cache(Subject)
"""Entrant and style → the subject that this process checks; it is not imported yet."""


@dataclass(frozen=True)
class Examine(Command):
    """Run a check; say what it finds, and which styles the file has."""

    entrant: str
    """The entrant's name, or the path of a user's own file."""
    style: str | None
    """The style to check; None for the file as a whole."""
    backend: str
    """The backend to run on; where it cannot be used, the answer is `Failed`."""
    check: str
    """A key of `CHECKS`."""
    seconds: float
    """Time limit of the check."""


def examine(command: Examine) -> dict[str, Any]:
    """Run a check for at most its time; return its findings, and the styles of the file."""
    failure = catch_failure(partial(use_device, command.backend))
    if isinstance(failure, Failed):
        return asdict(failure)
    is_file = command.entrant.endswith(".py")
    subject = make_subject(Path(command.entrant) if is_file else command.entrant, command.style)
    surroundings = Surroundings()
    _interrupt(command.seconds)
    findings = run_check(subject, command.check)
    _interrupt(0)
    if changes := surroundings.changes():
        expected = "an entrant changes nothing that all entrants of a process share"
        findings.append(subject.finding(expected, f"it {changes}"))
    styles = list(subject.entrant.styles) if subject.is_imported else []
    return {"findings": [asdict(finding) for finding in findings], "styles": styles}


def run_check(subject: Subject, name: str) -> list[CheckFinding]:
    """Run a check at one size after another, until there is a finding; an exception is one."""
    check, findings = CHECKS[name], list[CheckFinding]()
    function = check.check_style if subject.style else check.check_file
    assert function is not None
    for case in check.cases:
        sizes = f" ({case.model}, chunk={case.chunk}, batch={case.batch})"
        try:
            for finding in function(subject, case):
                expected = finding.expected + sizes * (len(check.cases) > 1)
                findings.append(replace(finding, expected=expected))
        except BaseException as error:
            findings.append(subject.exception(check.about, error))
        if findings:
            break
    return [replace(finding, seen=finding.seen[:LONGEST_SEEN]) for finding in findings]


def _interrupt(seconds: float) -> None:
    """Raise BakeoffError after so many seconds, where Python code runs then; 0 cancels that."""

    def give_up(*_: object) -> None:
        raise BakeoffError(f"it did not return within {seconds:g} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    serve({Examine.__name__: Examine}, examine)
