"""The parent's side of checks: a process for the file, then one for each style.

An entrant that ends or blocks its process has a finding; the other styles go on.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil

import impls
from bench.check.checks import CHECKS
from bench.check.findings import FILE, CheckFinding, CheckResult, Judgement
from bench.check.subject import Subject
from bench.engine.process import Place, Worker, WorkerFailedError
from bench.worker.__main__ import adopt
from common.devices import Device
from common.errors import unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JUDGE = "bench.check.judge"
START_SECONDS = 120.0
"""Time limit for a process to import jax, before anything of an entrant is run."""
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
    workloads: tuple[str, ...] = ()
    """Numbers are compared at their sizes, in addition to two small ones."""
    seconds: float = 60.0
    """For each check."""
    memory: int = 8 << 30
    """Bytes for a process."""
    backend: str = "cpu"


def entrant_name(given: str) -> str:
    """Return the entrant that a name or a path stands for; raise BakeoffError if there is none."""
    if given.endswith(".py"):
        return impls.add(given)
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
        BakeoffError: there is no such entrant, it has none of the requested styles, or its
            environment cannot be built.
    """
    adopt()  # what a process leaves behind when it ends
    runner = Runner(given, options, on_progress)
    try:
        results = [*runner.results_of(FILE)]
        for style in () if FILE in runner.obstacles else runner.styles:
            results += runner.results_of(style)
    finally:
        runner.end_processes()
    complete = set(options.checks) == set(CHECKS) and not options.styles
    return Judgement(runner.name, given, runner.styles, tuple(results), complete)


def place_of(name: str, backend: str) -> Place:
    """Return where an entrant runs: its own environment, built if need be, or this one."""
    place = Place()
    if impls.readable(name).own_environment:
        from bench.environments.builder import Builder

        place = Builder(notify=lambda line: print(line, file=sys.stderr)).place_of(name)
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
        self.obstacles: dict[str | None, str] = {}
        """Why no further check of a style is run; with FILE, none of any style."""
        self.before = set(psutil.Process().children(recursive=True))

    def results_of(self, style: str | None) -> Iterator[CheckResult]:
        """Yield the results of one style, or of the file."""
        subject, options = Subject(self.name, style), self.options
        about = {"path": self.outside, "name": self.name, "style": style}
        limits = {"workloads": options.workloads, "memory": options.memory}
        arguments = json.dumps(about | limits | {"backend": options.backend})
        command = (self.place.command[0], "-m", JUDGE, arguments)
        with Worker(replace(self.place, command=command), START_SECONDS) as worker:
            worker.start()
            for name, check in CHECKS.items():
                if name not in ("contract", *options.checks) or not (style or check.of_file):
                    continue
                self.on_progress(style or "file", name)
                start, findings = time.monotonic(), tuple[CheckFinding, ...]()
                reason = self.obstacles.get(style, "")
                if check.of_jax and not subject.jax:
                    reason = "not a JAX library"
                if not reason:
                    findings = tuple(self._findings(worker, subject, name))
                seconds = round(time.monotonic() - start, 3)
                result = CheckResult(name, style, findings, reason, seconds)
                if worker.process.poll() is not None:
                    self.obstacles.setdefault(style, f"its process ended in {name}")
                elif name in NEEDED and result.outcome == "finding":
                    self.obstacles[style] = f"needs {name} to pass"
                yield result

    def _findings(self, worker: Worker, subject: Subject, name: str) -> Iterator[CheckFinding]:
        """Yield what one check finds, with places as the user knows them."""
        findings, seconds = list[CheckFinding](), self.options.seconds
        try:
            answer = worker.ask({"check": name, "seconds": seconds}, OVERRUN * seconds)
            findings += [CheckFinding(**finding) for finding in answer["findings"]]
            if subject.style is FILE and name == "contract":
                self._choose_styles(answer["styles"])
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

    def _choose_styles(self, offered: list[str]) -> None:
        chosen = self.options.styles
        self.styles = tuple(style for style in offered if not chosen or style in chosen)
        if offered and not self.styles:
            raise unknown(f"style of {self.name}", " and ".join(chosen), offered)

    def end_processes(self, judge: int | None = None) -> list[str]:
        """End the processes that the entrant has started and that still run; return their names.

        A process that has ended leaves its own children to us. `judge` is the one that goes on.
        """
        names: list[str] = []
        while processes := self._running(judge):
            for process in processes:
                with suppress(psutil.Error):
                    names.append(f"{process.name()} ({process.pid})")
                    process.kill()
            psutil.wait_procs(processes, timeout=1)
        return names

    def _running(self, judge: int | None) -> list[psutil.Process]:
        processes = []
        for process in set(psutil.Process().children(recursive=True)) - self.before:
            with suppress(psutil.Error):
                if process.pid != judge and process.status() != psutil.STATUS_ZOMBIE:
                    processes.append(process)
        return processes
