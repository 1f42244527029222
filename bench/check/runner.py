"""The process in which checks are run one after another, each within its time.

What an entrant does to its process costs the check that it does it in: that check is a finding, and
the next one begins in a fresh process.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

import impls
from bench.check.checks import CHECKS, concerns
from bench.check.finding import ERROR, FILE, Finding, Outcome, finding_of
from bench.check.place import place_of
from bench.check.watching import watched
from bench.engine.processes import Worker, WorkerFailedError
from bench.worker.__main__ import adopt
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.check.wanted import Asked, Wanted
    from bench.engine.processes import Place

    type Tell = Callable[[str, str, str], None]
    """Told of each check before it begins: entrant, style, check."""

EARLIER = 0.9
"""Of the time limit: then a process that hangs writes its stacks down."""
START_SECONDS = 120.0
"""So long may a process take to import jax, before anything of an entrant is run."""
PURE = "purity"


@dataclass
class Bench:
    """The process in which checks are run, and what has come of them."""

    who: Asked
    wanted: Wanted
    place: Place
    worker: Worker | None = None
    styles: tuple[str, ...] = ()
    """Those that are judged."""
    offered: tuple[str, ...] = ()
    """Those that the file has; none until it could be imported."""
    failed: set[tuple[str, str]] = field(default_factory=set)
    """Checks and styles that have an error."""
    raised: dict[tuple[str, str], str] = field(default_factory=dict)
    """Exceptions that were found, by text and place, and the check that found them first."""
    traces: list[Finding] = field(default_factory=list)
    """What the style at hand has left behind."""

    at: str = ""
    """Where the style at hand is defined, when that is known."""
    started: str = ""
    """The line that has started a process."""

    def __enter__(self) -> Self:
        adopt()
        self.before = set(psutil.Process().children())
        self.folder = tempfile.TemporaryDirectory(prefix="bakeoff-check-")
        self.stacks = Path(self.folder.name) / "stacks"
        return self

    def __exit__(self, *_: object) -> None:
        self.children()  # those of checks that were not asked for: nothing of it lives on
        self.end()
        self.folder.cleanup()

    def outcomes(self, tell: Tell) -> Iterator[Outcome]:
        """Run all checks, of the file and then of one style after another."""
        yield from self.of(FILE, tell)
        for number, style in enumerate(self.styles):
            if number:
                self.end()  # a style may change what the process is like
            yield from self.of(style, tell)

    def of(self, style: str, tell: Tell) -> Iterator[Outcome]:
        """Run the checks of one style, or of the file."""
        chosen = {"contract", *self.wanted.checks}
        self.traces, self.at, self.started = [], "", ""
        for check in CHECKS:
            if check in chosen and check != PURE and concerns(check, style):
                tell(self.who.given, style, check)
                outcome = self.one(check, style)
                if outcome.failed or outcome.not_run:
                    self.failed.add((check, style))
                yield outcome
        if PURE in chosen:
            self.traces += self.children()
            yield Outcome(PURE, style, tuple(unique(self.traces, PURE, style)))

    def one(self, check: str, style: str) -> Outcome:
        """Run one check, unless it has nothing to go by."""
        start = time.monotonic()
        for need in CHECKS[check].needs:
            if self.lacks(need, style):
                return Outcome(check, style, not_run=f"needs {need}, which has a finding")
        if check == "retrace" and not self.jax:
            return Outcome(check, style, not_run="not JAX: nothing is traced")
        try:
            found = self.asked(check, style)
            if check == "watched" and not found:
                found = self.outside(style)
        except WorkerFailedError as error:
            found = [self.death(error)]
            self.end()
        seconds = time.monotonic() - start
        findings = tuple(replace(finding, check=check, style=style) for finding in found)
        if first := self.known(check, findings):
            return Outcome(check, style, not_run=f"stops where {first} does", seconds=seconds)
        return Outcome(check, style, findings, seconds=seconds)

    def lacks(self, need: str, style: str) -> bool:
        """Return whether a check that others need has failed."""
        if (need, style) == ("contract", FILE):  # a file that offers styles has something to judge
            return not self.offered
        return (need, style) in self.failed

    @property
    def jax(self) -> bool:
        """Whether the entrant computes with JAX."""
        return impls.declared(self.who.name).jax

    def known(self, check: str, findings: tuple[Finding, ...]) -> str:
        """Return the check that has found the same exception already; empty if none has."""
        errors = [finding for finding in findings if finding.severity == ERROR]
        if not errors or not all(finding.raised for finding in errors):
            return ""
        keys = [(finding.seen, finding.where) for finding in errors]
        first = [self.raised.setdefault(key, check) for key in keys]
        return first[0] if check not in first else ""

    def asked(self, check: str, style: str) -> list[Finding]:
        """Have the process run a check, and return its findings."""
        worker = self.begun()
        seconds = self.wanted.seconds
        command = {"do": "examine", "check": check, "style": style, "seconds": EARLIER * seconds}
        record = worker.ask(command, seconds)
        self.started, self.at = record["started"], record.get("at", "")
        self.traces += [finding_of(said, PURE, style) for said in record["traces"]]
        if "styles" in record:
            self.offered = tuple(record["styles"])
            self.styles = self.chosen(self.offered)
        return [finding_of(said, check, style) for said in record["findings"]]

    def chosen(self, styles: tuple[str, ...]) -> tuple[str, ...]:
        """Return the styles to judge; raise BakeoffError if there is none of those asked for."""
        found = tuple(s for s in styles if not self.wanted.styles or s in self.wanted.styles)
        if styles and not found:
            raise BakeoffError(
                f"unknown style of {self.who.name} "
                f"{' and '.join(map(repr, self.wanted.styles))}; known: {', '.join(styles)}; "
                "choose one of them"
            )
        return found

    def begun(self) -> Worker:
        """Return the process, started when there is none."""
        if self.worker is None:
            self.worker = Worker(self.place, START_SECONDS)
            self.worker.start()
            about: dict[str, Any] = {"name": self.who.name, "path": self.who.path}
            about |= {"root": str(self.wanted.root), "stacks": str(self.stacks)}
            about |= {"memory": self.wanted.memory, "extra": list(self.wanted.workloads)}
            about["backend"] = self.wanted.backend
            self.worker.ask({"do": "begin"} | about)
        return self.worker

    def outside(self, style: str) -> list[Finding]:
        """Compare a step in the benchmark's worker with one in a program of its own."""
        place, who, wanted = place_of(self.who.name), self.who, self.wanted
        return watched(place, who.name, style, who.path, self.at, wanted.seconds, wanted.backend)

    def death(self, error: WorkerFailedError) -> Finding:
        """Return the finding that a process did not come to the check's end."""
        reason = error.reason.removeprefix("worker failed (").removesuffix(")")
        if reason.startswith("silent for"):
            seen = f"it did not return within {self.wanted.seconds:g} s"
        elif reason.startswith("exit status"):
            seen = f"it ended the process: {reason}"
        else:
            seen = f"it broke the judge's process: {reason}"
        last = error.stderr.strip().splitlines()[-1:]
        said = f"; its last words: {last[0][:200]}" if last else ""
        return Finding("the check comes to its end", seen + said, self.stack())

    def stack(self) -> str:
        """Return the innermost line of the entrant's file in the stacks that were written down."""
        source = str(impls.source(self.who.name).resolve())
        with suppress(OSError):
            text = self.stacks.read_text(errors="replace")
            found = re.search(rf'File "{re.escape(source)}", line (\d+) in (\S+)', text)
            if found:
                return f"{source}:{found[1]}, {found[2]}"
        return self.at or source

    def children(self) -> list[Finding]:
        """Return what the process has started that is still alive; it ends with it.

        What a process that has ended had started is ours by now.
        """
        alive: list[str] = []
        while left := self.left():  # whoever is killed leaves its own children to us
            for child in left:
                with suppress(psutil.Error):
                    name = f"{child.name()} ({child.pid})"
                    child.kill()
                    alive.append(name)
                with suppress(psutil.Error):
                    child.wait(1)
        if not alive:
            return []
        seen = f"left behind: {', '.join(alive[:4])}; ended now"
        where = self.started or self.at or str(impls.source(self.who.name))
        return [Finding("no process goes on after the calls", seen, where)]

    def left(self) -> list[psutil.Process]:
        """Return the processes that the entrant has started, and that still run."""
        found = set(psutil.Process().children()) - self.before
        if self.worker is not None:
            with suppress(psutil.Error):
                judge = psutil.Process(self.worker.process.pid)
                found = found - {judge} | set(judge.children(recursive=True))
        running = []
        for child in found:
            with suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE:
                    running.append(child)
                elif child.ppid() == os.getpid():
                    child.wait(1)
        return running

    def end(self) -> None:
        """End the process, and what it has started."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None


def unique(findings: list[Finding], check: str, style: str) -> list[Finding]:
    """Return each finding once."""
    return list(dict.fromkeys(replace(f, check=check, style=style) for f in findings))
