"""The devices of a training run: which backend, how many, and which of several processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from common.devices import MOST_DEVICES, Device
from common.errors import BakeoffError, words_of

if TYPE_CHECKING:
    from common.hosts import Peers

Backend = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="cpu, gpu, tpu, … or one device of it, as gpu:1",
        show_default="what jax prefers",
    ),
]
"""`--backend` of what runs in this very process."""


def own_stdout() -> None:
    """Keep standard output to Python: Gloo prints lines of its own, which are nobody's log."""
    import os
    import sys

    from bench.streams import opened, to_nowhere

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
        from common.config import check_size

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
