"""All processes of a training run on this machine, started and ended together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING

from bench.worker.gpus import gpus
from common.config import check_size
from common.errors import LostPeerError

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST = 64
LAUNCHED = "BAKEOFF_LAUNCHED"
"""Tells a process that it ends with the one that has started it."""
GRACE_SECONDS = 40.0
"""Once one has failed, the others have so long to see it, and to save."""
LAST_SECONDS = 5.0
"""Once the first has ended, the others have so long to end too."""
LOOK_SECONDS = 0.1


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `bakeoff` with these arguments in so many processes; return the exit status.

    The first one's output is this one's; of the others, what they say when they fail.

    Raises:
        LostPeerError: one was lost, and which.
    """
    check_size("--processes", processes, most=MOST)
    port = free_port()
    common = [sys.executable, "-m", "bench.cli", *without(arguments, "--processes")]
    said = [
        tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 -- closed below
        for _ in range(processes)
    ]
    running = [
        subprocess.Popen(  # noqa: S603 -- our own module, no shell
            [
                *common,
                *("--coordinator", f"127.0.0.1:{port}"),
                *("--process-id", str(number), "--processes", str(processes)),
            ],
            stdout=None if number == 0 else subprocess.DEVNULL,
            stderr=None if number == 0 else words,
            env=os.environ | {LAUNCHED: "1"} | cards(number, processes),
        )
        for number, words in enumerate(said)
    ]
    previous = signal.signal(signal.SIGTERM, partial(passed_on, running))
    try:
        return awaited(running, said)
    except KeyboardInterrupt:  # they have heard it too: the first saves, and says how to go on
        for process in running:
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(GRACE_SECONDS)
        return running[0].returncode or 130
    finally:
        signal.signal(signal.SIGTERM, previous)
        for process in running:
            process.kill()
            process.wait()
        for words in said:
            words.close()


def passed_on(running: Sequence[subprocess.Popen[bytes]], *_: object) -> None:
    """Have all processes end as this one does, for they have not heard it."""
    for process in running:
        process.send_signal(signal.SIGTERM)
    raise KeyboardInterrupt


def awaited(running: Sequence[subprocess.Popen[bytes]], said: Sequence[IO[str]]) -> int:
    """Return the exit status of processes that end together."""
    end, began = float("inf"), False
    while any(process.poll() is None for process in running) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
        if end == float("inf") and any(process.poll() for process in running):
            end = time.monotonic() + GRACE_SECONDS
            # The others end since the first has failed, unless one was killed at the same look.
            began = (running[0].poll() or 0) > 0 and all(
                (process.poll() or 0) >= 0 for process in running
            )
        if running[0].poll() is not None:  # nobody goes on without the first
            end = min(end, time.monotonic() + LAST_SECONDS)
    failed = [n for n, process in enumerate(running) if process.poll() != 0]
    if not failed:
        return 0
    lost = min(failed, key=lambda n: running[n].returncode or 0)  # one that was killed, if any was
    if began or (lost == 0 and (running[0].returncode or 0) > 0):  # it has said why
        return int(running[0].returncode)
    raise LostPeerError(
        f"process {lost} of {len(running)} ended with {status(running[lost])}, and the others with "
        "it; go on with --resume and the file of the last checkpoint"
        f"{last_words(said[lost])}"
    )


def last_words(said: IO[str]) -> str:
    """Return the last line that a process has written to its standard error."""
    said.seek(0)
    lines = said.read().strip().splitlines()
    return f" ({lines[-1]})" if lines else ""


def status(process: subprocess.Popen[bytes]) -> str:
    """Return how a process has ended, in words."""
    code = process.poll()
    if code is None:
        return "no answer"
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def free_port() -> int:
    """Return a port of this host that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cards(number: int, processes: int) -> dict[str, str]:
    """Return the variable that shares this machine's GPUs out, where there are enough of them."""
    found = gpus() or []
    share = len(found) // processes
    if not share or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    mine = range(number * share, (number + 1) * share)
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, mine))}


def without(arguments: Sequence[str], option: str) -> list[str]:
    """Return arguments without an option and its value."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept
