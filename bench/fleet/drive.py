"""From a plan to a folder of run files, whatever machines there are."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bench.environments.store import replace
from bench.fleet.planner import ATTEMPTS, Planner
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.fleet.plan import Comparison
    from bench.fleet.planner import Machine
    from bench.fleet.work import Done

    type Tell = Callable[[str, Progress], None]

INDEX = "index.jsonl"
WAIT_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
"""So long nothing may be going on, and no machine come that could do what is left."""


class Kind(StrEnum):
    """What can happen."""

    COME = "come"
    REFUSED = "refused"
    GONE = "gone"
    ENDED = "ended"


class Event(NamedTuple):
    """Something that a cluster tells."""

    kind: Kind
    machine: Machine
    done: Done | None = None
    """Of what has ended."""
    why: str = ""
    """Of a machine that is refused."""


class Cluster(Protocol):
    """Machines that measure."""

    @property
    def busy(self) -> int:
        """How many there are that somebody else uses."""

    def begin(self, machine: Machine, comparison: Comparison) -> None:
        """Let a machine measure a comparison; it is that machine's alone until it has ended."""

    def events(self, seconds: float) -> list[Event]:
        """Return what has happened, after so many seconds at most; machines come first."""

    def close(self) -> None:
        """End what is still measured."""


@dataclass
class Progress:
    """How far it is."""

    all: int
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    """Of measuring that are still to come, on one machine."""
    machines: int = 0
    given_up: int = 0
    """Comparisons that took too many machines with them."""
    measured: float = 0.0
    """Seconds that processes have measured."""
    refused: list[str] = field(default_factory=list)
    """Machines that are left out, and why."""


def drive(
    comparisons: Sequence[Comparison],
    cluster: Cluster,
    folder: Path,
    tell: Tell,
    patience: float = PATIENCE_SECONDS,
) -> Progress:
    """Measure what has not been measured yet, into `folder`.

    Raises:
        BakeoffError: no machine can do what is left, or the folder cannot be written.
    """
    made(folder)
    left = [c for c in comparisons if not file_of(folder, c).exists()]
    progress = Progress(len(comparisons), len(comparisons) - len(left))
    progress.seconds = sum(c.budget for c in left)
    planner = Planner()
    planner.add(left)
    since = time.monotonic()
    try:
        while planner.left:
            for machine, comparison in planner.begun():
                tell(f"{comparison} on {machine.name}", progress)
                cluster.begin(machine, comparison)
            for event in cluster.events(WAIT_SECONDS):
                taken(event, planner, folder, progress, tell)
                since = time.monotonic()
            if planner.busy:
                since = time.monotonic()
            elif planner.left and time.monotonic() - since > patience:
                raise BakeoffError(nobody(planner, patience, cluster.busy, progress.refused))
    finally:
        cluster.close()
    progress.failed += progress.given_up
    return progress


def taken(event: Event, planner: Planner, folder: Path, progress: Progress, tell: Tell) -> None:
    """Take in what has happened."""
    machine = event.machine
    if event.kind is Kind.COME:
        planner.come(machine)
        progress.machines += 1
        return
    if event.kind is Kind.REFUSED:
        progress.refused.append(f"{machine.name} is left out: {event.why}")
        tell(progress.refused[-1], progress)
        return
    if event.kind is Kind.GONE:
        again = planner.gone(machine.name)
        progress.machines -= 1
        tell(f"{machine.name} is lost" + (f"; {again} begins anew" if again else ""), progress)
        for given_up in planner.given_up[progress.given_up :]:
            text = f"{ATTEMPTS} machines were lost under it, one after another\n"
            write(folder / f"{given_up.key}.failed.txt", text.encode())
            tell(f"{given_up} is given up: {text.strip()}", progress)
        progress.given_up = len(planner.given_up)
        return
    comparison, done = planner.ended(machine.name), event.done
    assert done is not None
    progress.seconds -= comparison.budget
    progress.measured += done.seconds
    if done.text is None:
        progress.failed += 1
        write(folder / f"{comparison.key}.failed.txt", f"{done.log}\n".encode())
        tell(f"{comparison} failed: {last_line(done)}", progress)
    else:
        progress.done += 1
        write(file_of(folder, comparison), done.text)
        (folder / f"{comparison.key}.failed.txt").unlink(missing_ok=True)


def last_line(done: Done) -> str:
    """Return the last line that is not empty, of what a comparison has printed."""
    lines = [line.strip() for line in done.log.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit status {done.status}"


def nobody(planner: Planner, patience: float, busy: int, refused: Sequence[str]) -> str:
    """Say that nobody does what is left."""
    lacking = planner.unservable()
    what = f" with {', '.join(sorted(lacking))}" if lacking else ""
    return "; ".join(
        [
            f"no machine{what} for {planner.left} comparisons, and none has come for {patience:g} "
            "s: start one, or leave their backend out",
            *([f"{busy} are there, and do something else"] if busy else []),
            *refused,
            "what was measured is kept, and the same command goes on",
        ]
    )


def made(folder: Path) -> None:
    """Make a folder if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BakeoffError(f"cannot make {folder}: {error.strerror}; name another one") from error


def file_of(folder: Path, comparison: Comparison) -> Path:
    """Return where the run file of a comparison is, or will be."""
    return folder / f"{comparison.key}.json"


def write(path: Path, text: bytes) -> None:
    """Write a file whole or not at all."""
    try:
        replace(path, text)
    except OSError as error:
        raise BakeoffError(
            f"cannot write {path}: {error.strerror}; make room: the same command goes on"
        ) from error


def collect(comparisons: Sequence[Comparison], folder: Path) -> int:
    """Write a line for each cell that was measured into the folder's index; return how many.

    One run file is in memory at a time.
    """
    count = 0
    partial = folder / f"{INDEX}.partial"
    with partial.open("w", encoding="utf-8") as lines:
        for comparison in comparisons:
            path = file_of(folder, comparison)
            if not path.exists():
                continue
            for row in rows(json.loads(path.read_bytes()), comparison):
                lines.write(json.dumps(row | {"file": path.name}) + "\n")
                count += 1
    partial.replace(folder / INDEX)
    return count


def rows(run: dict[str, Any], comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield what a run says of each of its cells, in short."""
    kept = ("median", "ratio", "low", "high", "verdict")
    for cell in run["bakeoff"]["cells"]:
        yield {
            "compare": comparison.name,
            "environment": comparison.environment,
            "number": comparison.number,
            **{name: cell[name] for name in ("entrant", "style", "workload", "backend")},
            "failure": cell["failure"],
            "metrics": {
                name: {key: metric[key] for key in kept}
                for name, metric in cell["metrics"].items()
                if "missing" not in metric
            },
        }
