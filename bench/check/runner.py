"""The parent's side of checks: a process for the file, then one for each style.

An entrant that ends or blocks its process has a finding; the other styles go on.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import impls
from bench.cells import added_files, require_known
from bench.check.judge import CHECKS
from bench.check.subject import ERROR, FILE, CheckFinding, Subject
from bench.engine.process import Place, Worker, WorkerFailedError, descendants
from bench.environments.builder import Builder
from bench.streams import say
from bench.worker.__main__ import adopt
from bench.worker.integrity import end_processes
from common.config import Device
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY = 8 << 30
"""Bytes that a process may use: a step that takes more and more is to fail before the machine."""
OVERRUN = 1.2
"""Ratio to a check's time limit after which its process is ended from outside: it should have
ended the check itself, but code that is not Python's cannot be interrupted."""
NEEDED = ("contract", "shapes", "weights")
"""Checks that have to pass before later ones of the same style say anything; of the file, before
those of any style do."""


@dataclass(frozen=True)
class CheckOptions:
    """The checks to run, and their limits."""

    styles: tuple[str, ...] = ()
    """Empty for all."""
    checks: tuple[str, ...] = tuple(CHECKS)
    seconds: float = 60.0
    """For each check."""
    backend: str = "cpu"


@dataclass(frozen=True)
class CheckResult:
    """The result of one check of one style, or of the file."""

    check: str
    style: str | None
    findings: tuple[CheckFinding, ...] = ()
    not_run: str = ""
    """Why the check was not run; empty if it was."""

    @property
    def outcome(self) -> str:
        """The result in a word: `finding`, `not run`, `note` or `ok`."""
        if any(finding.severity == ERROR for finding in self.findings):
            return "finding"
        if self.not_run:
            return "not run"
        return "note" if self.findings else "ok"


@dataclass(frozen=True)
class Judgement:
    """The results of all checks of one entrant."""

    path: str
    """The path or name that the user gave."""
    options: CheckOptions
    styles: tuple[str, ...]
    """The styles that were checked."""
    results: tuple[CheckResult, ...]

    @property
    def findings(self) -> list[CheckFinding]:
        """All findings, in the order of the checks."""
        return [finding for result in self.results for finding in result.findings]

    @property
    def errors(self) -> list[CheckFinding]:
        """Findings that keep the entrant from being measured."""
        return [finding for finding in self.findings if finding.severity == ERROR]


def entrant_name(given: str) -> str:
    """Return the entrant that a name or a path stands for; raise BakeoffError if there is none."""
    if given.endswith(".py"):
        [name], _ = added_files([given])
        return name
    if given not in impls.names():
        raise unknown("entrant", given, [*impls.names(), "a Python file's path"])
    return given


def judge(given: str, options: CheckOptions, on_progress: Callable[[str, str], None]) -> Judgement:
    """Run all checks of one entrant.

    Args:
        given: Its name, or the path of its file.
        options: Which checks, and their limits.
        on_progress: Called with the style, or `file`, and the check before each check.

    Raises:
        BakeoffError: there is no such entrant, it lacks a requested style, there is no such
            backend, or its environment cannot be built.
    """
    adopt()  # what a process leaves behind when it ends
    runner = Runner(given, options, on_progress)
    try:
        results = [*runner.results_of(FILE)]
        if all(result.outcome in ("ok", "note") for result in results):
            for style in runner.styles:
                results += runner.results_of(style)
    finally:
        runner.end_processes()
    return Judgement(given, options, runner.styles, tuple(results))


def place_of(name: str, backend: str) -> Place:
    """Return where an entrant runs: its own environment, built if need be, or this one."""
    own = impls.readable(name).own_environment
    place = Builder(notify=say).place_of(name) if own else Place()
    platform = Device.of(backend).backend
    platforms = platform if platform == "cpu" else f"{platform},cpu"  # some steps need the CPU
    # No compilation is timed here, so programs may come from a cache, if the user keeps one
    variables = {"JAX_PLATFORMS": platforms, "JAX_ENABLE_COMPILATION_CACHE": "true"}
    return replace(place, variables={**place.variables, **variables})


class Runner:
    """Runs the checks of one entrant, those of a style in a process of their own."""

    def __init__(
        self, given: str, options: CheckOptions, on_progress: Callable[[str, str], None]
    ) -> None:
        self.name, self.options, self.on_progress = entrant_name(given), options, on_progress
        self.outside = str(impls.OUTSIDE.get(self.name, ""))
        self.shown = given if self.outside else os.path.relpath(impls.source(self.name))
        """What findings call the file."""
        self.place = place_of(self.name, options.backend)
        self.styles: tuple[str, ...] = ()
        """Styles to check; known once the file is imported."""
        self.before = descendants(os.getpid())

    def results_of(self, style: str | None) -> Iterator[CheckResult]:
        """Yield the results of one style, or of the file."""
        subject, obstacle = Subject(self.name, style), ""
        with self._started(style) as worker:
            for name, check in CHECKS.items():
                if name not in ("contract", *self.options.checks) or not (style or check.of_file):
                    continue
                self.on_progress(style or "file", name)
                if obstacle:
                    yield CheckResult(name, style, not_run=obstacle)
                    continue
                result = CheckResult(name, style, tuple(self._findings(worker, subject, name)))
                if worker.process.poll() is not None:
                    obstacle = f"its process ended in {name}"
                elif name in NEEDED and result.outcome == "finding":
                    obstacle = f"needs {name} to pass"
                yield result

    def _started(self, style: str | None) -> Worker:
        """Return a process that is ready for the checks of a style; it has run nothing of it."""
        backend = self.options.backend
        about: dict[str, Any] = {"path": self.outside, "name": self.name, "style": style}
        about |= {"memory": MEMORY, "backend": backend}
        command = (self.place.command[0], "-m", "bench.check.judge", json.dumps(about))
        worker = Worker(replace(self.place, command=command))
        try:
            worker.start()
        except WorkerFailedError as error:
            worker.close()
            *_, last = error.reason, *error.stderr.splitlines()
            message = last.partition("Error: ")[2] or last
            raise BakeoffError(f"nothing can be checked on {backend!r}: {message}") from error
        return worker

    def _findings(self, worker: Worker, subject: Subject, name: str) -> Iterator[CheckFinding]:
        """Yield what one check finds, with places as the user knows them."""
        findings, seconds = list[CheckFinding](), self.options.seconds
        try:
            answer = worker.ask({"check": name, "seconds": seconds}, OVERRUN * seconds)
            findings += [CheckFinding(**finding) for finding in answer["findings"]]
            if subject.style is FILE and name == "contract":
                if offered := answer["styles"]:
                    require_known(f"style of {self.name}", self.options.styles, offered)
                self.styles = self.options.styles or tuple(offered)
        except WorkerFailedError as error:
            seen = f"it ended or blocked its process: {error.reason}"
            if last := error.stderr.strip().splitlines()[-1:]:
                seen += f"; its last line of output: {last[0][:200]}"
            findings.append(subject.finding("the check finishes", seen))
        if names := self.end_processes(worker.process.pid):
            seen = f"left behind: {', '.join(names)}; ended now"
            findings.append(subject.finding("no process runs on after the calls", seen))
        for finding in findings:
            where = finding.where.replace(str(subject.path), self.shown)
            yield replace(finding, check=name, style=subject.style, where=where)

    def end_processes(self, judge: int | None = None) -> list[str]:
        """End the processes that the entrant has started and that still run; return their names.

        A process that has ended leaves its own children to us. `judge` is the one that goes on.
        """
        return end_processes(descendants(os.getpid()) - self.before - {judge or 0})
