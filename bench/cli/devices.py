"""Where a training run runs: its backend and devices, and the processes that train as one.

The first of several processes on this machine is this one; it starts the others.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.streams import opened, to_nowhere
from bench.worker.gpus import gpus
from common.config import check_size
from common.devices import MOST_DEVICES, Device
from common.errors import BakeoffError, LostPeerError, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.hosts import Peers

MOST = 64
STARTED = "BAKEOFF_STARTED"
"""Tells a process that it ends with the one that has started it."""
LAST_SECONDS = 5.0
"""Once the first has ended, the others have so long to end too."""


def own_stdout() -> None:
    """Keep standard output to Python: Gloo prints lines of its own, which are nobody's log."""
    sys.stdout.flush()
    kept = os.dup(sys.stdout.fileno())
    to_nowhere(sys.stdout.fileno())
    sys.stdout = opened(kept, sys.stdout)


@dataclass(frozen=True)
class Devices:
    """What was asked for; None leaves it to jax."""

    backend: str | None = None
    devices: int | None = None
    """Of all processes together."""
    peers: Peers | None = None

    def __post_init__(self) -> None:
        if self.backend is not None:
            Device.of(self.backend)
        if self.devices is not None:
            check_size("devices", self.devices, most=MOST_DEVICES)
        if self.peers is not None and (self.devices or 0) % self.peers.processes:
            raise BakeoffError(
                f"--devices is {self.devices}, of {self.peers.processes} processes together; give "
                f"a multiple of {self.peers.processes}"
            )

    @property
    def first(self) -> bool:
        """Whether this process is the one that shows and saves."""
        return self.peers is None or self.peers.first

    def settle(self) -> None:
        """Choose backend and devices, and join the others; before anything else is asked of JAX.

        Raises:
            BakeoffError: there is no such backend, or the others cannot be joined, or were asked
                for other devices.
        """
        import jax

        jax.config.update("jax_default_matmul_precision", "float32")  # as workers have it
        own = self.devices and self.devices // (self.peers.processes if self.peers else 1)
        if own and own > 1:
            jax.config.update("jax_num_cpu_devices", own)
        device = None if self.backend is None else Device.of(self.backend)
        if device is not None:
            jax.config.update("jax_platforms", device.backend)
        if self.peers is not None:
            from common.hosts import join, require_alike

            own_stdout()
            join(self.peers)
        try:
            found = jax.local_devices()
        except (RuntimeError, AssertionError) as error:  # the one where jax knows of no such name
            there = f" (jax says: {words_of(error)})" if str(error) else ""
            raise BakeoffError(
                f"backend {self.backend!r} cannot be used here{there}; `bakeoff doctor` says which "
                "there are"
            ) from error
        if device is not None:
            device.require(len(found))
            jax.config.update("jax_default_device", found[device.number])
        if self.peers is not None:
            require_alike({"devices": self.devices, "backend": self.backend})

    @property
    def sharing(self) -> int:
        """How many devices share the streams; 0 where none were asked for."""
        import jax

        if self.peers is None and self.devices is None:
            return 0
        return self.devices or len(jax.devices())


def peers_of(
    coordinator: str | None, process_id: int | None, processes: int | None
) -> Peers | None:
    """Return this process among several; None for one that trains alone.

    Raises:
        BakeoffError: some of the options are given, and others lack.
    """
    from common.hosts import Peers

    given = {"--coordinator": coordinator, "--process-id": process_id, "--processes": processes}
    lacking = [name for name, value in given.items() if value is None]
    if lacking and len(lacking) < len(given):
        there = ", ".join(name for name in given if name not in lacking)
        raise BakeoffError(
            f"{there} without {' and '.join(lacking)}; give all three to each process, or "
            "--processes alone to start them all on this machine"
        )
    if coordinator is None or process_id is None or processes is None:
        return None
    return Peers(coordinator, process_id, processes)


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
