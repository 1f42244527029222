"""The checks: their names, what each looks for, and the functions that do it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from bench.check import calls, contract, numbers
from bench.check.findings import CheckFinding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.check.subject import Subject
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
    of_jax: bool = False
    """Whether it is about JAX's programs, which a library that is not JAX's does not have."""


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
    "dtypes": Check("programs compute in float32 only", contract.dtypes, of_jax=True),
    "weights": Check(
        "weights go in and out unchanged", contract.step_weights, contract.model_weights, sizes=2
    ),
    "equality": Check("the loss is the float64 reference's", numbers.equality, sizes=None),
    "gradient": Check("the gradient is the reference's", numbers.gradient, sizes=None),
    "ten-steps": Check("ten updates have plain JAX's losses", numbers.ten_steps, sizes=None),
    "state": Check("a call returns the reference's hidden state", numbers.state, sizes=2),
    "fresh": Check("every call computes its result anew", calls.fresh),
    "retrace": Check("a warm call compiles nothing", calls.retrace, of_jax=True),
    "timed-region": Check("all work is done in the call that is timed", calls.timed_region),
}
"""Checks in the order in which their findings are best read, and corrected. In each of them,
changed settings, and threads and processes that run on after it, are findings too."""


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
