"""The journal: a run file that grows, so that samples are on the disk before more are taken.

Its JSON lines are parts of a run file. The first says which run it is, and what it adds to; each
further one has the news since the last. A run that was cut off goes on from all of them, and a new
one may go on from the run file of one that has ended.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench.files import FULL_DISK_ERRORS, MOST_JSON, read_regular, require_folder_to_be
from bench.metrics import TRAINED
from bench.runfile import ResultsWithSamples, TimeSpent, pack_samples, unpack_samples
from bench.runfile.gate import check_rows
from bench.runfile.reader import is_run, read
from bench.streams import shorten_message
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.engine.actions import Do
    from bench.engine.state import RunState

FOLDER = Path(".bakeoff")
SUFFIX = ".journal"
ONCE: dict[str, Do] = {"compilations_first": "count", **dict.fromkeys(TRAINED, "train")}
"""Metric → the action that always samples it, once for a cell."""
SAFE = "what was measured before is in the journal: go on with --resume"


class DiskError(BakeoffError):
    """The journal cannot be written."""


class Part(ResultsWithSamples, omit_defaults=True, forbid_unknown_fields=True):
    """A line of a journal."""


@dataclass
class Journal:
    """An open journal; lines are appended and reach the disk at once."""

    path: Path
    known: Part
    """Contents when it was opened or created."""
    has_ended: bool = False
    """Whether it is the run file of a run that has ended: another journal goes on with it."""
    size: int | None = None
    """Bytes of its whole lines when it was opened; what follows is cut off when a run goes on."""
    known_texts: set[bytes | str] = field(default_factory=set)
    """Cells, as JSON, and notes of a run that it has."""
    known_samples: int = 0
    """Number of samples of a run that it has."""

    @classmethod
    def create(cls, path: Path, known: Part) -> Journal:
        """Start a new journal; raise BakeoffError if it cannot be written, or is there already."""
        journal = cls(path, known)
        try:
            make_journals_folder(path.parent)
            path.touch(exist_ok=False)
        except OSError as error:
            raise BakeoffError(f"cannot write the journal {path}: {error.strerror}") from error
        try:
            journal.write(known)
        except DiskError as error:  # of which nothing is kept
            path.unlink()
            raise BakeoffError(str(error)) from error
        return journal

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Read a journal to go on with, except half a line at its end: it was never finished.

        Or the run file of one that has ended, whose time does not count in a new budget.

        Raises:
            BakeoffError: it cannot be read, is damaged before its end, or is of another version.
        """
        if path.suffix == ".json" or is_run(path):
            run = read(path)
            results, spent = run.results, run.results.spent
            known = Part(
                kind=results.kind,
                arguments=results.arguments,
                environments=results.environments,
                setup=results.setup,
                cells=results.cells,
                samples=pack_samples(run.samples),
                spent=TimeSpent(
                    sampling_seconds=spent.sampling_seconds,
                    processes=spent.processes,
                    blocks=spent.blocks,
                    earlier_seconds=spent.wall_seconds,
                    earlier_processes=spent.processes,
                ),
            )
            return cls(path, known, has_ended=True)
        try:
            data = read_regular(path, MOST_JSON)
        except OSError as error:
            raise BakeoffError(f"cannot read the journal {path}: {error.strerror}") from error
        whole = data[: data.rfind(b"\n") + 1]
        parts: list[Part] = []
        for line in whole.splitlines():
            try:
                parts.append(msgspec.json.decode(line, type=Part))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                why = shorten_message(error)
                raise BakeoffError(
                    f"line {len(parts) + 1} of the journal {path} is damaged, or of another "
                    f"version ({why}): delete it and what follows to keep what is before, resume "
                    "it with the program that began it, or start anew without --resume"
                ) from error
        if not parts or not parts[0].setup:
            raise BakeoffError(
                f"{path} is no journal of a run: its first line does not say so; "
                "name another one, or start anew without --resume"
            )
        rows = {(row.environment, row.cell): row for part in parts for row in part.cells}
        known = msgspec.structs.replace(
            parts[0],
            cells=list(rows.values()),
            samples=[series for part in parts for series in part.samples],
            warnings=[text for part in parts for text in part.warnings],
            spent=parts[-1].spent,
        )
        if problem := next(check_rows(known, unpack_samples(known.samples)), ""):
            raise BakeoffError(
                f"the journal {path} is damaged: {problem}; start anew without --resume"
            )
        return cls(path, known, size=len(whole))

    def continue_run(self, state: RunState) -> None:
        """Continue a run from it, and from what that run adds to.

        Raises:
            BakeoffError: it has samples of unrequested cells or metrics.
        """
        from bench.engine.requests import NOT_JAX, UNKNOWN_PROGRAM  # a file is read without these

        if self.size is not None:
            os.truncate(self.path, self.size)
        known = self.known
        sides = {(side.environment, cell): side for side in state.sides for cell in side.cells}
        for row in known.cells:
            if side := sides.get((row.environment, row.cell)):
                kept = (NOT_JAX, UNKNOWN_PROGRAM)
                missing = {name: why for name, why in row.missing.items() if why in kept}
                side.cells[row.cell] = msgspec.structs.replace(row, missing=missing)
        samples = unpack_samples(known.samples)
        for s in samples:
            side = sides.get((s.environment, s.cell))
            if side is None:
                raise BakeoffError(
                    f"the journal {self.path} is damaged: {s.metric!r} of {str(s.cell)!r} was "
                    "not asked for; start anew without --resume"
                )
            if do := ONCE.get(s.metric):
                state.finished_once.add((do, side, s.cell))
        state.samples += samples
        state.spent = known.spent
        state.sides[0].notes += known.warnings
        state.count_earlier_work(s for s in samples if s.worker > known.spent.earlier_processes)
        self.known_texts = {*map(msgspec.json.encode, state.rows), *state.sides[0].notes}
        self.known_samples = len(samples)

    def write_news(self, state: RunState) -> None:
        """Append the samples, cells and notes that it does not have yet; raise DiskError."""
        rows = {msgspec.json.encode(row): row for row in state.rows}
        notes = [note for side in state.sides for note in side.notes]
        news = Part(
            samples=pack_samples(state.samples[self.known_samples :]),
            cells=[row for text, row in rows.items() if text not in self.known_texts],
            warnings=[note for note in notes if note not in self.known_texts],
            spent=state.spent,
        )
        self.known_texts.update(rows, notes)
        self.known_samples = len(state.samples)
        self.write(news)

    def write(self, part: Part) -> None:
        """Append a line, whole or not at all as far as the disk allows.

        Raises:
            DiskError: there is no room for it; what was written before is safe.
        """
        try:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(part) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskError(describe_disk_error(error, str(self.path))) from error

    def remove(self) -> None:
        """Delete it, when all that it holds is in a run file."""
        self.path.unlink(missing_ok=True)


def describe_disk_error(error: OSError, path: str) -> str:
    """Return in words why `path` cannot be written."""
    if error.errno in FULL_DISK_ERRORS:
        return f"the disk is full: {path} cannot be written; make room"
    return f"cannot write {path}: {error.strerror}"


def find_journals(kind: str, folder: Path = FOLDER) -> list[Path]:
    """Return the journals of a kind of measurement that are not empty, the newest first."""
    begun = [path for path in folder.glob(f"*-{kind}{SUFFIX}") if path.stat().st_size]
    return sorted(begun, key=lambda path: path.stat().st_mtime, reverse=True)


def require_journals_folder() -> None:
    """Raise BakeoffError unless journals can be written in this folder."""
    advice = "remove it, or start in a folder of your own"
    require_folder_to_be(FOLDER, "the journals' folder", advice)


def make_journals_folder(folder: Path) -> None:
    """Make the journals' folder unless it is there; git ignores a new one."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", "ascii")


def open_journals(kind: str, path: str = "") -> Iterator[Journal]:
    """Yield the journal or run file at a path, or else journals of a kind, the newest first.

    Raises:
        BakeoffError: there is none, or one cannot be read, or is of something else.
    """
    paths = [Path(path)] if path else find_journals(kind)
    if not paths:
        raise BakeoffError(
            f"there is nothing to resume: no journal in {FOLDER}/; run without --resume"
        )
    for journal in map(Journal.open, paths):
        if journal.known.kind != kind or not journal.known.setup:
            raise BakeoffError(
                f"{journal.path} is of another command, or of an older version; give what the same "
                "command has measured, or leave --resume out"
            )
        yield journal
