"""Judging an entrant: its checks run one after another in a process, each within its time.

What an entrant does to its process costs the check that it does it in: that check has a finding,
and the next one begins in a fresh process.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil

import impls
from bench.check.findings import CHECKS, ERROR, FILE, NOTE, Finding, Judgement, Outcome
from bench.check.traces import changed_files, snapshot
from bench.check.user_times import same_times
from bench.engine.processes import Place, Worker, WorkerFailedError
from bench.worker.__main__ import adopt
from bench.worker.settings import ROOT
from common.devices import Device
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    type Progress = Callable[[str, str], None]
    """Told of each check before it begins: style, check."""

JUDGE = "bench.check.judge"
STACKS_AFTER = 0.9
"""Of the time limit: then a process that hangs writes its stacks down."""
START_SECONDS = 120.0
"""So long may a process take to import jax, before anything of an entrant is run."""


@dataclass(frozen=True)
class CheckOptions:
    """Which checks to run, and within which limits."""

    styles: tuple[str, ...] = ()
    """Empty for all."""
    checks: tuple[str, ...] = tuple(CHECKS)
    workloads: tuple[str, ...] = ()
    """Whose sizes numbers are compared at, beside two small ones."""
    seconds: float = 60.0
    """For each check."""
    memory: int = 8 << 30
    """Bytes for a process."""
    backend: str = "cpu"
    root: Path = ROOT
    """Of the repository, which nothing may write into."""

    @property
    def complete(self) -> bool:
        """Whether all checks of all styles are run, so that an entrant can be called equal."""
        return set(self.checks) == set(CHECKS) and not self.styles


def entrant_name(given: str) -> str:
    """Return the entrant that a name or a path stands for; raise BakeoffError if there is none."""
    if given in impls.names() and given not in impls.OUTSIDE:
        return given
    if not given.endswith(".py"):
        raise BakeoffError(
            f"no such entrant {given!r}; give a Python file's path, or one of "
            f"{', '.join(impls.names())}"
        )
    return impls.add(given)


def judge(
    given: str, options: CheckOptions, progress: Progress = lambda _style, _check: None
) -> Judgement:
    """Return all that the checks find in one entrant.

    Args:
        given: Its name, or the path of its file.
        options: What to check.
        progress: Told of each check before it begins.

    Raises:
        BakeoffError: there is no such entrant, or it has none of the styles that are asked for.
    """
    name = entrant_name(given)
    source = impls.source(name)
    path = given if name in impls.OUTSIDE else os.path.relpath(source)
    styles: tuple[str, ...] = ()
    expected = "the file is Python, its constants literals"
    try:
        impls.declared(name)
        expected = "its environment can be built"
        place = place_of(name, options.backend)
    except BakeoffError as error:
        line = re.search(r"in line (\d+)", str(error))
        where = f"{source}:{line[1]}" if line else str(source)
        finding = Finding(expected, str(error), where, check="contract")
        outcomes = [Outcome("contract", FILE, (finding,))]
    else:
        before = snapshot(options.root)
        with Runner(name, options, place) as runner:
            outcomes = list(runner.outcomes(progress))
        styles, changed = runner.styles, changed_files(before, snapshot(options.root))
        _note_changes(outcomes, changed, str(source))
    order = list(CHECKS)
    outcomes.sort(key=lambda outcome: order.index(outcome.check))

    def relative(finding: Finding) -> Finding:
        return replace(finding, where=finding.where.replace(str(source.resolve()), path))

    named = (replace(o, findings=tuple(map(relative, o.findings))) for o in outcomes)
    return Judgement(name, given, styles, tuple(named), options.complete)


def _note_changes(outcomes: list[Outcome], changed: list[str], where: str) -> None:
    """Add a note on files that have changed and that no finding names to the file's `purity`."""
    seen = " ".join(finding.seen for outcome in outcomes for finding in outcome.findings)
    unnamed = [path for path in changed if f"wrote to {path}" not in seen]
    for index, outcome in enumerate(outcomes):
        if unnamed and (outcome.check, outcome.style) == ("purity", FILE):
            note = Finding(
                "no file of the repository changes meanwhile",
                f"{', '.join(unnamed[:4])} changed; it may have been somebody else",
                where,
                NOTE,
                check="purity",
            )
            outcomes[index] = replace(outcome, findings=(*outcome.findings, note))


def place_of(name: str, backend: str) -> Place:
    """Return where an entrant runs: its own environment, built if need be, or this one.

    Raises:
        BakeoffError: its environment cannot be built; why.
    """
    place = Place()
    if impls.declared(name).own_environment:
        from bench.environments.builder import Builder

        place = Builder(notify=lambda line: print(line, file=sys.stderr)).place_of(name)
    platform = Device.of(backend).backend
    platforms = platform if platform == "cpu" else f"{platform},cpu"  # some steps need the CPU
    return replace(place, variables={**place.variables, "JAX_PLATFORMS": platforms})


class Runner:
    """Runs the checks of one entrant in processes of their own.

    Args:
        name: The entrant's.
        options: What to check.
        place: Where its workers run.
    """

    def __init__(self, name: str, options: CheckOptions, place: Place) -> None:
        self.name, self.options, self.place = name, options, place
        self.source = str(impls.source(name).resolve())
        self.path = str(impls.OUTSIDE.get(name, ""))
        self.styles: tuple[str, ...] = ()
        """Those that are judged."""
        self.failed: set[tuple[str, str]] = set()
        """Checks and styles that have an error."""
        self.exceptions: dict[tuple[str, str], str] = {}
        """Exceptions that were found, by text and place, and the check that found them first."""
        self.traces: list[Finding] = []
        """What the style at hand has left behind."""
        self.where = ""
        """Where the style at hand is defined, when that is known."""
        self.started = ""
        """The line that has started a process."""
        self.worker: Worker | None = None

    def __enter__(self) -> Self:
        adopt()
        self.before = set(psutil.Process().children())
        self.folder = tempfile.TemporaryDirectory(prefix="bakeoff-check-")
        self.stacks = Path(self.folder.name) / "stacks"
        return self

    def __exit__(self, *_: object) -> None:
        self._end_children()  # those of checks that were not asked for: nothing of it lives on
        self._end()
        self.folder.cleanup()

    def outcomes(self, progress: Progress) -> Iterator[Outcome]:
        """Run all checks, of the file and then of one style after another."""
        yield from self._outcomes_of(FILE, progress)
        for style in self.styles:
            yield from self._outcomes_of(style, progress)
            self._end()  # a style may change what the process is like

    def _outcomes_of(self, style: str, progress: Progress) -> Iterator[Outcome]:
        """Run the checks of one style, or of the file."""
        self.traces, self.where, self.started = [], "", ""
        for check, about in CHECKS.items():
            if check not in ("contract", *self.options.checks) or not (style or about.of_file):
                continue
            if check == "purity":
                self.traces += self._end_children()
                unique = dict.fromkeys(replace(f, check=check, style=style) for f in self.traces)
                yield Outcome(check, style, tuple(unique))
                continue
            progress(style, check)
            outcome = self._outcome(check, style)
            if outcome.failed or outcome.not_run:
                self.failed.add((check, style))
            yield outcome

    def _outcome(self, check: str, style: str) -> Outcome:
        """Run one check, unless it has nothing to go by."""
        for need in CHECKS[check].needs:
            lacking = (need, style) in self.failed
            if (need, style) == ("contract", FILE):  # a file that offers styles can be judged
                lacking = not self.styles
            if lacking:
                return Outcome(check, style, not_run=f"needs {need}, which has a finding")
        if check == "retrace" and not impls.declared(self.name).jax:
            return Outcome(check, style, not_run="not JAX: nothing is traced")
        start = time.monotonic()
        try:
            found = self._examined(check, style)
            if check == "watched" and not found:
                arm = [self.name, style]
                found = same_times(self.place, arm, self.path, self.where, self.options)
        except WorkerFailedError as error:
            found = [self._death(error)]
            self._end()
        seconds = time.monotonic() - start
        findings = tuple(replace(finding, check=check, style=style) for finding in found)
        errors = [finding for finding in findings if finding.severity == ERROR]
        if errors and all(finding.raised for finding in errors):
            first = [self.exceptions.setdefault((f.seen, f.where), check) for f in errors]
            if check not in first:
                reason = f"stops where {first[0]} does"
                return Outcome(check, style, not_run=reason, seconds=seconds)
        return Outcome(check, style, findings, seconds=seconds)

    def _examined(self, check: str, style: str) -> list[Finding]:
        """Have the process run a check, and return its findings."""
        seconds = self.options.seconds
        command = {"check": check, "style": style, "seconds": STACKS_AFTER * seconds}
        record = self._judge().ask(command, seconds)
        self.started, self.where = record["started"], record["where"]
        self.traces += [Finding(**finding) for finding in record["traces"]]
        if check == "contract" and style == FILE:
            offered, wanted = record["styles"], self.options.styles
            self.styles = tuple(style for style in offered if not wanted or style in wanted)
            if offered and not self.styles:
                given = " and ".join(map(repr, wanted))
                raise BakeoffError(
                    f"unknown style of {self.name} {given}; known: {', '.join(offered)}; choose "
                    "one of them"
                )
        return [Finding(**finding) for finding in record["findings"]]

    def _judge(self) -> Worker:
        """Return the judge's process, started when there is none."""
        if self.worker is None:
            command = (self.place.command[0], "-m", JUDGE)
            place = replace(self.place, command=command, root=self.options.root)
            options = asdict(self.options) | {"root": str(self.options.root)}
            self.worker = Worker(place, START_SECONDS)
            self.worker.start()
            about = {"name": self.name, "path": self.path, "stacks": str(self.stacks)}
            self.worker.ask(about | {"options": options})
        return self.worker

    def _death(self, error: WorkerFailedError) -> Finding:
        """Return the finding that a process did not come to the check's end."""
        reason = error.reason.removeprefix("worker failed (").removesuffix(")")
        if reason.startswith("silent for"):
            seen = f"it did not return within {self.options.seconds:g} s"
        elif reason.startswith("exit status"):
            seen = f"it ended the process: {reason}"
        else:
            seen = f"it broke the judge's process: {reason}"
        last = error.stderr.strip().splitlines()[-1:]
        said = f"; its last words: {last[0][:200]}" if last else ""
        return Finding("the check comes to its end", seen + said, self._last_line())

    def _last_line(self) -> str:
        """Return the innermost line of the entrant's file in the stacks that were written down."""
        with suppress(OSError):
            text = self.stacks.read_text(errors="replace")
            found = re.search(rf'File "{re.escape(self.source)}", line (\d+) in (\S+)', text)
            if found:
                return f"{self.source}:{found[1]}, {found[2]}"
        return self.where or self.source

    def _end_children(self) -> list[Finding]:
        """End the processes that the entrant has started and that still run; return a finding.

        A process that has ended leaves its own children to this one.
        """
        ended: list[str] = []
        while children := self._children():
            for child in children:
                with suppress(psutil.Error):
                    name = f"{child.name()} ({child.pid})"
                    child.kill()
                    ended.append(name)
                with suppress(psutil.Error):
                    child.wait(1)
        if not ended:
            return []
        seen = f"left behind: {', '.join(ended[:4])}; ended now"
        where = self.started or self.where or self.source
        return [Finding("no process goes on after the calls", seen, where)]

    def _children(self) -> list[psutil.Process]:
        """Return the processes that the entrant has started, and that still run."""
        children = set(psutil.Process().children()) - self.before
        if self.worker is not None:
            with suppress(psutil.Error):
                judge = psutil.Process(self.worker.process.pid)
                children = children - {judge} | set(judge.children(recursive=True))
        running = []
        for child in children:
            with suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE:
                    running.append(child)
                elif child.ppid() == os.getpid():
                    child.wait(1)
        return running

    def _end(self) -> None:
        """End the judge's process, and what it has started."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None
