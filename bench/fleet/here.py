"""This machine as a cluster of one: comparisons one after another."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from bench.environments.store import replace
from bench.fleet.drive import Event, Kind
from bench.fleet.planner import Machine
from bench.fleet.work import COMMAND, Running

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from bench.fleet.plan import Comparison

POLL_SECONDS = 0.05
JOURNALS = "interrupted.json"


class Here:
    """Measures on this machine."""

    busy = 0

    def __init__(
        self, backends: Iterable[str], folder: Path, command: Sequence[str] = COMMAND
    ) -> None:
        self.machine = Machine("here", frozenset(backends))
        self.command, self.said, self.kept = command, False, folder / JOURNALS
        self.running: Running | None = None
        self.comparison: Comparison | None = None

    def begin(self, machine: Machine, comparison: Comparison) -> None:  # noqa: ARG002, D102
        journal = self.journals().get(comparison.key)
        resume = [f"--resume={journal}"] if journal else []
        self.comparison = comparison
        self.running = Running([*comparison.arguments, *resume], self.command, self.kept.parent)

    def events(self, seconds: float) -> list[Event]:  # noqa: D102
        if not self.said:
            self.said = True
            return [Event(Kind.COME, self.machine)]
        end = time.monotonic() + seconds
        while self.running is not None:
            if self.running.process.poll() is not None:
                done, self.running = self.running.done(), None
                assert self.comparison is not None
                self.remember(self.comparison.key, None)
                return [Event(Kind.ENDED, self.machine, done)]
            if time.monotonic() > end:
                break
            time.sleep(POLL_SECONDS)
        return []

    def close(self) -> None:
        """End what is measured; it is taken up where it was by the next run."""
        if self.running is None:
            return
        self.running.interrupt()
        try:
            done = self.running.done()
        finally:
            self.running.kill()
            self.running = None
        if self.comparison is not None and done.journal:
            self.remember(self.comparison.key, done.journal)

    def journals(self) -> dict[str, str]:
        """Return which comparisons were interrupted, and in which journal they are."""
        return dict(json.loads(self.kept.read_text())) if self.kept.exists() else {}

    def remember(self, key: str, journal: str | None) -> None:
        """Write down that a comparison was interrupted, or no longer is."""
        known = {k: v for k, v in self.journals().items() if k != key}
        if journal is not None:
            known[key] = journal
        if known:
            replace(self.kept, json.dumps(known))
        else:
            self.kept.unlink(missing_ok=True)
