"""The parent's side of checks: a process for the file, then one for each style.

An entrant that ends or blocks its process has a finding; the other styles go on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import impls
from bench.cells import parse_entrants, require_known
from bench.check import ERROR, FILE, CheckFinding, Subject
from bench.check.judge import CHECKS, Examine
from bench.engine.process import Interpreter, Worker, WorkerFailedError, find_descendants
from bench.environments.builder import Builder
from bench.streams import say
from bench.worker.__main__ import adopt_orphans
from bench.worker.settings import end_processes
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OVERRUN = 1.2
"""Ratio to a check's time limit after which its process is ended from outside: it should have
ended the check itself, but code that is not Python's cannot be interrupted."""
NEEDED = ("contract", "shapes", "weights")
"""Checks that others need: a finding ends its style's later checks; one in the file ends all."""


@dataclass(frozen=True)
class CheckOptions:
    """The checks to run, and their limits."""

    styles: tuple[str, ...] = ()
    """Styles to check; empty for all."""
    checks: tuple[str, ...] = tuple(CHECKS)
    seconds: float = 60.0
    """Time limit of each check."""
    backend: str = "cpu"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check of one style, or of the file."""

    check: str
    style: str | None
    findings: tuple[CheckFinding, ...] = ()
    not_run: str = ""
    """Reason why the check was not run; empty if it was."""

    @property
    def outcome(self) -> str:
        """The result in a word: `finding`, `not run`, `note` or `ok`."""
        if any(finding.severity == ERROR for finding in self.findings):
            return "finding"
        if self.not_run:
            return "not run"
        return "note" if self.findings else "ok"


def find_entrant(given: str) -> str | Path:
    """Return the entrant that a name or a path stands for; raise BakeoffError if there is none."""
    [name], files = parse_entrants([given])
    require_known("entrant", [name], [*files, *impls.names(), "a Python file's path"])
    return impls.locate(name, files)


class Runner:
    """Runs the checks of one entrant, those of a style in a process of their own.

    Args:
        given: The entrant's name, or the path of its file.
        options: Which checks, and their limits.
        on_progress: Called with the style, or `file`, and the check before each check.

    Raises:
        BakeoffError: there is no such entrant, it lacks a requested style, there is no such
            backend, or its environment cannot be built.
    """

    def __init__(
        self, given: str, options: CheckOptions, on_progress: Callable[[str, str], None]
    ) -> None:
        self.entrant, self.options, self.on_progress = find_entrant(given), options, on_progress
        self.path, of_user = impls.source(self.entrant), isinstance(self.entrant, Path)
        self.shown = given if of_user else os.path.relpath(self.path)
        """Name of the file in findings."""
        self.styles: tuple[str, ...] = ()
        """Styles to check; known once the file is imported."""
        self.before = find_descendants(os.getpid())
        isolated = impls.find_declaration(self.entrant).own_environment
        interpreter = (
            Builder(notify=say).build_entrant(self.entrant).interpreter
            if isolated
            else Interpreter()
        )
        # No compilation is timed here, so programs may come from a cache, if the user keeps one
        variables = {**interpreter.variables, "JAX_ENABLE_COMPILATION_CACHE": "true"}
        command = (interpreter.command[0], "-m", "bench.check.judge")
        self.interpreter = replace(interpreter, command=command, variables=variables)

    def run(self) -> list[CheckResult]:
        """Return the results of all checks, the file's first."""
        adopt_orphans()  # what a process leaves behind when it ends
        results = [*self.run_checks(FILE)]
        if all(result.outcome in ("ok", "note") for result in results):
            for style in self.styles:
                results += self.run_checks(style)
        return results

    def run_checks(self, style: str | None) -> Iterator[CheckResult]:
        """Run the checks of one style, or of the file, in a process; yield their results."""
        subject, obstacle = Subject(self.entrant, style), ""
        with Worker(self.interpreter) as worker:
            worker.start()
            for name, check in CHECKS.items():
                if name not in ("contract", *self.options.checks) or not (
                    style or check.check_file
                ):
                    continue
                self.on_progress(style or "file", name)
                findings = () if obstacle else tuple(self._findings(worker, subject, name))
                result = CheckResult(name, style, findings, not_run=obstacle)
                if not obstacle and worker.process.poll() is not None:
                    obstacle = f"its process ended in {name}"
                elif name in NEEDED and result.outcome == "finding":
                    obstacle = f"needs {name} to pass"
                yield result

    def _findings(self, worker: Worker, subject: Subject, name: str) -> Iterator[CheckFinding]:
        """Yield what one check finds, with places as the user knows them."""
        findings = list[CheckFinding]()
        backend, seconds = self.options.backend, self.options.seconds
        command = Examine(str(self.entrant), subject.style, backend, name, seconds)
        try:
            answer = worker.ask(command, OVERRUN * seconds)
            if "failure" in answer:
                why = answer["failure"].removeprefix("raised RuntimeError: ")
                raise BakeoffError(f"nothing can be checked on {backend!r}: {why}")
            findings += [CheckFinding(**finding) for finding in answer["findings"]]
            if subject.style is FILE and name == "contract":
                if offered := answer["styles"]:
                    require_known(f"style of {self.path.stem}", self.options.styles, offered)
                self.styles = self.options.styles or tuple(offered)
        except WorkerFailedError as error:
            seen = f"it ended or blocked its process: {error.reason}"
            if last := error.stderr.strip().splitlines()[-1:]:
                seen += f"; its last line of output: {last[0][:200]}"
            findings.append(subject.finding("the check finishes", seen))
        # What a process that has ended leaves behind comes to us
        if names := end_processes(
            find_descendants(os.getpid()) - self.before - {worker.process.pid}
        ):
            seen = f"left behind: {', '.join(names)}; ended now"
            findings.append(subject.finding("no process runs on after the calls", seen))
        for finding in findings:
            yield replace(finding, where=finding.where.replace(str(subject.path), self.shown))
