"""Measure comparisons on this machine, each by `pytest bench` in a process of its own.

That process is this module, run as a program: `pytest bench`, killed when its parent ends. The
folder of a matrix gets a run file for each comparison, and an index of all cells.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.engine.journal import FOLDER, SUFFIX
from common.files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from bench.fleet.plan import PlannedComparison

COMMAND = (sys.executable, "-m", "bench.fleet.process")
LOG_LINES = 15
INDEX = "index.jsonl"


class ProcessResult(NamedTuple):
    """What a comparison's process left behind."""

    run: bytes | None
    """The run file; None if the comparison failed."""
    log: str
    """The last lines of its output."""


def measure(arguments: Sequence[str], folder: Path, command: Sequence[str]) -> ProcessResult:
    """Measure one comparison by `pytest bench`, in a folder that keeps its journal.

    Raises:
        KeyboardInterrupt: Ctrl-C; the process has been interrupted too, and has ended.
    """
    run, log = folder / "run.json", folder / "log.txt"
    run.unlink(missing_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- our own benchmarks
            [*command, *arguments, f"--benchmark-json={run.resolve()}"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches this process only, which passes it on once
        )
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    text = "\n".join(lines[-LOG_LINES:]) or f"exit status {status}"
    return ProcessResult(run.read_bytes() if run.exists() else None, text)


def measure_here(
    comparisons: Iterable[PlannedComparison],
    folder: Path,
    tell: Callable[[str], None],
    command: Sequence[str] = COMMAND,
) -> Generator[tuple[PlannedComparison, ProcessResult], None, None]:
    """Measure comparisons on this machine, one after another; yield each with its result.

    One that was cut off goes on from its journal in the folder of the results. `tell` is called
    with a line about each that begins.

    Raises:
        KeyboardInterrupt: Ctrl-C; the comparison's journal is kept.
    """
    for comparison in comparisons:
        tell(f"measuring {comparison}")
        place = folder / f"{comparison.key}.unfinished"
        place.mkdir(exist_ok=True)
        begun = any(path.stat().st_size for path in (place / FOLDER).glob(f"*{SUFFIX}"))
        resume = ["--resume"] if begun else []
        result = measure([*comparison.arguments, *resume], place, command)
        yield comparison, result
        if result.run is not None:
            shutil.rmtree(place)


def run_file(folder: Path, comparison: PlannedComparison) -> Path:
    """Return the path of a comparison's run file."""
    return folder / f"{comparison.key}.json"


def save(folder: Path, comparison: PlannedComparison, result: ProcessResult) -> None:
    """Write a comparison's run file, or why it failed."""
    failure = folder / f"{comparison.key}.failed.txt"
    if result.run is None:
        atomic_write(failure, f"{result.log}\n")
    else:
        atomic_write(run_file(folder, comparison), result.run)
        failure.unlink(missing_ok=True)


def write_index(folder: Path, comparisons: Iterable[PlannedComparison]) -> int:
    """Write one line for each measured cell into the folder's index; return the number of cells.

    Only one run file is in memory at a time.
    """
    kept = ("entrant", "style", "workload", "backend", "failure", "metrics")
    lines = []
    for comparison in comparisons:
        path, table = run_file(folder, comparison), comparison.table
        about: dict[str, Any] = {"compare": table.name, "environment": comparison.environment}
        about |= {"number": comparison.number, "file": path.name}
        if path.exists():
            for cell in json.loads(path.read_bytes())["bakeoff"]["cells"]:
                lines.append(f"{json.dumps(about | {name: cell[name] for name in kept})}\n")
    atomic_write(folder / INDEX, "".join(lines))
    return len(lines)


if __name__ == "__main__":
    import pytest

    from bench.worker.__main__ import end_with_parent
    from bench.worker.settings import ROOT

    end_with_parent()  # a Ray node may die while its machine lives on
    sys.exit(pytest.main([str(ROOT / "bench"), *sys.argv[1:]]))
