"""Where a training run runs: which backend, how many devices, and which of several processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from common.devices import MOST_DEVICES, Device
from common.errors import BakeoffError, LostPeerError

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

    from bench.stdout import opened, to_nowhere

    sys.stdout.flush()
    kept = os.dup(sys.stdout.fileno())
    to_nowhere(sys.stdout.fileno())
    sys.stdout = opened(kept, sys.stdout)


def require_backend(name: str) -> None:
    """Raise BakeoffError unless a worker has this backend; this process does not open a device."""
    from bench.engine.processes import WorkerFailedError, ask_once
    from common.errors import unknown

    try:
        found = ask_once({"do": "describe", "entrants": ["pure_jax"], "outside": {}})
    except WorkerFailedError as error:
        raise BakeoffError(f"{error.reason}: {error.stderr or 'nothing on stderr'}") from error
    device = Device.of(name)
    if device.backend not in found["backends"]:
        raise unknown("backend", device.backend, found["backends"])
    device.require(found["details"][device.backend]["count"])


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
            BakeoffError: there is no such backend, or the others cannot be joined.
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
            from common.hosts import join

            own_stdout()
            join(self.peers)
        try:
            found = jax.local_devices()
        except (RuntimeError, AssertionError) as error:  # the one where jax knows of no such name
            words = " ".join(str(error).split())[:200]
            there = f" (jax says: {words})" if words else ""
            raise BakeoffError(
                f"backend {self.backend!r} cannot be used here{there}; `bakeoff doctor` says which "
                "there are"
            ) from error
        if device is not None:
            device.require(len(found))
            jax.config.update("jax_default_device", found[device.number])

    @property
    def lost(self) -> tuple[type[Exception], ...]:
        """What is raised where another process has gone; nothing where there is none."""
        import jax

        return () if self.peers is None else (jax.errors.JaxRuntimeError, ValueError)

    def together(self, about: dict[str, Any]) -> None:
        """Compare what all processes were asked for, if there are several.

        Raises:
            BakeoffError: they differ, and in what.
            LostPeerError: another one has gone meanwhile.
        """
        if self.peers is None:
            return
        from common.hosts import require_alike

        try:
            require_alike(about)
        except self.lost as error:
            words = " ".join(str(error).split())[:200]
            raise LostPeerError(
                f"another process was lost before training began ({words}); start all of them again"
            ) from None

    @property
    def sharing(self) -> int:
        """How many devices share the streams; 0 where none were asked for."""
        import jax

        if self.peers is None and self.devices is None:
            return 0
        return self.devices or len(jax.devices())


def where(
    backend: str | None,
    devices: int | None,
    coordinator: str | None,
    process_id: int | None,
    processes: int | None,
) -> Devices:
    """Return where a run runs; raise BakeoffError where options do not go together."""
    from common.hosts import Peers

    given = {"--coordinator": coordinator, "--process-id": process_id, "--processes": processes}
    lacking = [name for name, value in given.items() if value is None]
    if len(lacking) == len(given):
        return Devices(backend, devices)
    if lacking:
        there = ", ".join(name for name in given if name not in lacking)
        raise BakeoffError(
            f"{there} without {' and '.join(lacking)}; give all three to each process, or "
            "--processes alone to start them all on this machine"
        )
    assert coordinator is not None
    assert process_id is not None
    assert processes is not None
    return Devices(backend, devices, Peers(coordinator, process_id, processes))
