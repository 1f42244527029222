"""The other processes of a training run on this machine; the first one is this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from bench.worker.gpus import gpus
from common.config import check_size
from common.errors import LostPeerError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 64
STARTED = "BAKEOFF_STARTED"
"""Tells a process that it ends with the one that has started it."""
LAST_SECONDS = 5.0
"""Once the first has ended, the others have so long to end too."""


def free_address(processes: int) -> str:
    """Return `host:port` of this machine, for so many processes to meet at."""
    check_size("--processes", processes, most=MOST)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def others(coordinator: str, processes: int) -> Iterator[None]:
    """Start the other processes with this one's arguments, and end them with the block.

    Their output is not shown. If the block fails because one of them was lost, what each failed
    one said last is printed on standard error.
    """
    with ExitStack() as stack:
        running = []
        for number in range(1, processes):
            said = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
            process = subprocess.Popen(  # noqa: S603 -- our own module, no shell
                [
                    *(sys.executable, "-m", "bench.cli", *sys.argv[1:]),
                    *("--coordinator", coordinator, "--process-id", str(number)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=os.environ | {STARTED: "1"} | cards(number, processes),
                process_group=0,  # Ctrl-C is for the first process, which saves
            )
            running.append((process, said))
            stack.callback(process.wait)
            stack.callback(process.kill)
        os.environ.update(cards(0, processes))
        try:
            yield
            import jax

            with suppress(jax.errors.JaxRuntimeError):  # one was lost after the last step
                jax.distributed.shutdown()  # waits for the others
        except LostPeerError:
            for number, (process, said) in enumerate(running, 1):
                with suppress(subprocess.TimeoutExpired):
                    if code := process.wait(LAST_SECONDS):
                        how = f"signal {-code}" if code < 0 else f"exit status {code}"
                        said.seek(0)
                        words = "".join(f" ({line})" for line in said.read().splitlines()[-1:])
                        print(
                            f"bakeoff: process {number} of {processes} ended with {how}{words}",
                            file=sys.stderr,
                        )
            raise
        for process, _ in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST_SECONDS)


def cards(number: int, processes: int) -> dict[str, str]:
    """Return the variable that shares this machine's GPUs out, where there are enough of them."""
    share = len(gpus() or ()) // processes
    if not share or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    mine = range(number * share, (number + 1) * share)
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, mine))}
