"""Checks an entrant: one check after another in a process, each within its time.

If an entrant ends or blocks its process, that check has a finding, and the next one begins in a
fresh process.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import impls
from bench.check.checks import CHECKS, NEEDED
from bench.check.findings import FILE, CheckFinding, CheckResult, Judgement
from bench.check.subject import Subject
from bench.check.user_times import same_times
from bench.engine.processes import Place, Worker, WorkerFailedError
from bench.worker.__main__ import adopt
from common.devices import Device
from common.errors import BakeoffError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.check.checks import CheckOptions

    type Progress = Callable[[str, str], None]
    """Is told style, or `file`, and check before each check begins."""

JUDGE = "bench.check.judge"
STACKS_AFTER = 0.9
"""Part of the time limit after which a process writes its stacks down."""
START_SECONDS = 120.0
"""Time limit for a process to import jax, before anything of an entrant is run."""


def entrant_name(given: str) -> str:
    """Return the entrant that a name or a path stands for; raise BakeoffError if there is none."""
    if given.endswith(".py"):
        return impls.add(given)
    if given not in impls.names():
        raise unknown("entrant", given, [*impls.names(), "a Python file's path"])
    return given


def judge(given: str, options: CheckOptions, progress: Progress) -> Judgement:
    """Return all that the checks find in one entrant, given by its name or the path of its file.

    Raises:
        BakeoffError: there is no such entrant, or it has none of the requested styles.
    """
    name = entrant_name(given)
    shown = given if name in impls.OUTSIDE else os.path.relpath(impls.source(name))
    expected = "the file is Python, its constants are literals"
    try:
        impls.declared(name)
        expected = "its environment can be built"
        place = place_of(name, options.backend)
    except BakeoffError as error:
        line = re.search(r"in line (\d+)", str(error))
        where = f"{shown}:{line[1]}" if line else shown
        finding = CheckFinding(expected, str(error), where, check="contract")
        failed = CheckResult("contract", FILE, (finding,))
        return Judgement(name, given, (), (failed,), options.complete)
    runner, order = Runner(name, shown, options, place), list(CHECKS)
    runner.run(progress)
    results = sorted(runner.results, key=lambda result: order.index(result.check))
    return Judgement(name, given, runner.styles, tuple(results), options.complete)


def place_of(name: str, backend: str) -> Place:
    """Return where an entrant runs: its own environment, built if need be, or this one.

    Raises:
        BakeoffError: its file cannot be read, or its environment cannot be built; why.
    """
    place = Place()
    if impls.declared(name).own_environment:
        from bench.environments.builder import Builder

        place = Builder(notify=lambda line: print(line, file=sys.stderr)).place_of(name)
    platform = Device.of(backend).backend
    platforms = platform if platform == "cpu" else f"{platform},cpu"  # some steps need the CPU
    return replace(place, variables={**place.variables, "JAX_PLATFORMS": platforms})


class Runner:
    """Runs the checks of one entrant in processes of their own; findings call its file `shown`."""

    def __init__(self, name: str, shown: str, options: CheckOptions, place: Place) -> None:
        self.name, self.shown, self.options, self.place = name, shown, options, place
        self.path = str(impls.OUTSIDE.get(name, ""))
        self.styles: tuple[str, ...] = ()
        """Those that are checked; known once the file is imported."""
        self.results: list[CheckResult] = []
        self.traces: list[CheckFinding] = []
        """What the style at hand has left behind."""
        self.started = ""
        """The line that started a process."""
        self.worker: Worker | None = None

    def run(self, progress: Progress) -> None:
        """Run all checks: of the file, then of one style after another."""
        adopt()
        self.before = set(psutil.Process().children())
        with tempfile.TemporaryDirectory(prefix="bakeoff-check-") as folder:
            self.stacks = Path(folder) / "stacks"
            try:
                self._run_checks(FILE, progress)
                for style in self.styles:
                    self._run_checks(style, progress)
                    self._end()  # a style may change its process
            finally:
                self._end_children()
                self._end()

    def _run_checks(self, style: str | None, progress: Progress) -> None:
        """Run the checks of one style, or of the file."""
        self.traces, self.started = [], ""
        subject = Subject(self.name, style)
        for name, check in CHECKS.items():
            requested = name in ("contract", *self.options.checks)
            if not requested or not (style or check.of_file or name == "purity"):
                continue
            progress(style or "file", name)
            start = time.monotonic()
            why = self._obstacle(name, subject)
            found = [] if why else self._found(name, subject)
            seconds = time.monotonic() - start
            self.results.append(CheckResult(name, style, tuple(found), why, seconds))

    def _obstacle(self, name: str, subject: Subject) -> str | None:
        """Return why a check is not run: it depends on one that has not passed, for instance."""
        needs: dict[str | None, tuple[str, ...]] = {subject.style: CHECKS[name].needs}
        needs[FILE] = NEEDED[1:] if self.styles else NEEDED  # a file with styles can be checked
        for earlier in self.results if name != "purity" else ():
            needed = earlier.check in needs.get(earlier.style, ())
            if needed and earlier.outcome in ("finding", "not run"):
                return f"needs {earlier.check} to pass"
        return "not a JAX library" if name == "retrace" and not subject.jax else None

    def _found(self, name: str, subject: Subject) -> list[CheckFinding]:
        """Return what one check finds."""
        style, where = subject.style, subject.location()
        try:
            if name == "purity":
                found = [*self.traces, *self._end_children()]
            elif name == "watched":
                found = same_times(self.place, (self.name, style or ""), self.path, self.options)
            else:
                found = self._examined(name, style)
        except WorkerFailedError as error:
            found = [self._death(error)]
            self._end()
        of_file = {f.seen for r in self.results if r.style is FILE for f in r.findings}
        return [
            replace(f, check=name, style=style, where=at.replace(str(subject.path), self.shown))
            for f in dict.fromkeys(found)
            for at in [f.where or where]
            if not style or f.seen not in of_file  # a style's process imports the file again
        ]

    def _examined(self, check: str, style: str | None) -> list[CheckFinding]:
        """Run a check in the process, started if there is none, and return its findings."""
        if self.worker is None:
            about = {"name": self.name, "path": self.path, "stacks": str(self.stacks)}
            arguments = json.dumps(about | {"options": asdict(self.options)})
            command = (self.place.command[0], "-m", JUDGE, arguments)
            self.worker = Worker(replace(self.place, command=command), START_SECONDS)
            self.worker.start()
        seconds = self.options.seconds
        question = {"check": check, "style": style, "seconds": STACKS_AFTER * seconds}
        answer = self.worker.ask(question, seconds)
        self.started = answer["started"]
        self.traces += [CheckFinding(**finding) for finding in answer["traces"]]
        if check == "contract" and style is FILE:
            offered, chosen = answer["styles"], self.options.styles
            self.styles = tuple(style for style in offered if not chosen or style in chosen)
            if offered and not self.styles:
                raise unknown(f"style of {self.name}", " and ".join(chosen), offered)
        return [CheckFinding(**finding) for finding in answer["findings"]]

    def _death(self, error: WorkerFailedError) -> CheckFinding:
        """Return the finding that a process did not finish the check."""
        reason = error.reason.removeprefix("worker failed (").removesuffix(")")
        if reason.startswith("silent for"):
            seen = f"it did not return within {self.options.seconds:g} s"
        else:
            seen = f"it ended the process: {reason}"
        last = error.stderr.strip().splitlines()[-1:]
        said = f"; its last line of output: {last[0][:200]}" if last else ""
        source = str(impls.source(self.name).resolve())
        stacks = self.stacks.read_text(errors="replace") if self.stacks.exists() else ""
        line = re.search(rf'File "{re.escape(source)}", line (\d+) in (\S+)', stacks)
        where = f"{source}:{line[1]}, {line[2]}" if line else ""
        return CheckFinding("the check finishes", seen + said, where)

    def _end_children(self) -> list[CheckFinding]:
        """End the processes that the entrant has started and that still run.

        A process that has ended leaves its own children to this one.
        """
        ended: list[str] = []
        while running := self._children():
            for child in running:
                with suppress(psutil.Error):
                    name = f"{child.name()} ({child.pid})"
                    child.kill()
                    ended.append(name)
            psutil.wait_procs(running, timeout=1)
        if not ended:
            return []
        seen = f"left behind: {', '.join(ended[:4])}; ended now"
        return [CheckFinding("no process runs on after the calls", seen, self.started)]

    def _children(self) -> list[psutil.Process]:
        """Return the processes that the entrant has started, and that still run."""
        children = set(psutil.Process().children()) - self.before
        if self.worker is not None:
            with suppress(psutil.Error):
                judge = psutil.Process(self.worker.process.pid)
                children = children - {judge} | set(judge.children(recursive=True))
        running = []
        for child in psutil.wait_procs(children, timeout=0)[1]:
            with suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE:
                    running.append(child)
        return running

    def _end(self) -> None:
        """End the process, and what it has started."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None
