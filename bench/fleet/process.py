"""Measure runs on this machine, each by `pytest bench` in a process of its own.

That process is this module, run as a program: `pytest bench`, killed when its parent ends.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

from bench.engine.journal import FOLDER, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    from bench.fleet.plan import PlannedRun

COMMAND = (sys.executable, "-m", "bench.fleet.process")
LOG_LINES = 15
"""Last lines of a run's output that are kept: a traceback's end, or pytest's summary."""


class RunOutput(NamedTuple):
    """What a run's process left behind."""

    file: bytes | None
    """The run file; None if the run failed."""
    log: str
    """The last lines of its output."""


def measure(arguments: Sequence[str], folder: Path, command: Sequence[str]) -> RunOutput:
    """Measure one run by `pytest bench`, in a folder that keeps its journal.

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
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    text = "\n".join(lines[-LOG_LINES:]) or f"exit status {status}"
    return RunOutput(run.read_bytes() if run.exists() else None, text)


def measure_here(
    runs: Iterable[PlannedRun],
    folder: Path,
    tell: Callable[[str], None],
    command: Sequence[str] = COMMAND,
) -> Generator[tuple[PlannedRun, RunOutput], None, None]:
    """Measure runs on this machine, one after another; yield each with its output.

    One that was cut off goes on from its journal in the folder of the results. `tell` is called
    with a line about each that begins.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run's journal is kept.
    """
    for run in runs:
        tell(f"measuring {run}")
        place = folder / f"{run.key}.unfinished"
        place.mkdir(exist_ok=True)
        begun = any(path.stat().st_size for path in (place / FOLDER).glob(f"*{SUFFIX}"))
        output = measure([*run.arguments, *["--resume"] * begun], place, command)
        yield run, output
        if output.file is not None:
            shutil.rmtree(place)


if __name__ == "__main__":
    import pytest

    from bench.worker.__main__ import end_with_parent
    from bench.worker.settings import ROOT

    end_with_parent()  # a Ray node may die while its machine lives on
    sys.exit(pytest.main([str(ROOT / "bench"), *sys.argv[1:]]))
