"""Several processes, on one host or many, that train as one: `jax.distributed`.

The first process coordinates: the others find it by its address, and whoever is lost is noticed by
its silence. Arrays are divided over the devices of all; each process reads the whole text, and
keeps its own devices' part of the streams.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from common.errors import BakeoffError, LostPeerError, words_of
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SILENCE_SECONDS = 20
"""Without a sign of life for so long, a process is lost."""
JOIN_SECONDS = 60
"""So long a process waits for the others to come."""
LONGEST = 1 << 16
"""Bytes of what each process says of itself."""
LOST = (jax.errors.JaxRuntimeError, ValueError)
"""What JAX raises where another process has gone."""
ALIKE = ("jax-bakeoff", "jax", "jaxlib", "optax", "numpy")
"""Packages that have to be the same everywhere; and so have Python and what was asked for."""


@dataclass(frozen=True)
class Peers:
    """One process among several."""

    coordinator: str
    """Address of the first process, `host:port`."""
    process_id: int
    """This one's number, from 0."""
    processes: int

    def __post_init__(self) -> None:
        host, colon, port = self.coordinator.rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise BakeoffError(
                f"--coordinator is {self.coordinator!r}; give the first process's host and port, "
                "as in 10.0.0.1:1234"
            )
        if self.processes < 1:
            raise BakeoffError(f"--processes is {self.processes}; give 1 or more")
        if not 0 <= self.process_id < self.processes:
            raise BakeoffError(
                f"--process-id is {self.process_id}; with --processes {self.processes} it may be "
                f"from 0 to {self.processes - 1}: give each process another one"
            )

    @property
    def first(self) -> bool:
        """Whether it is the one that shows and saves."""
        return self.process_id == 0


def join(peers: Peers) -> None:
    """Become one of several processes, before anything else is asked of JAX.

    Where another one does not come, JAX ends this process, and has the last word.

    Raises:
        BakeoffError: the coordinator does not answer, or its address is taken.
    """
    answers(peers, JOIN_SECONDS)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator_address=peers.coordinator,
            num_processes=peers.processes,
            process_id=peers.process_id,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=SILENCE_SECONDS,
            shutdown_timeout_seconds=SILENCE_SECONDS,
        )
    except Exception as error:
        raise BakeoffError(
            f"process {peers.process_id} of {peers.processes} could not join at "
            f"{peers.coordinator} within {JOIN_SECONDS} s: {words_of(error)}; start all of them, "
            "each with a --process-id of its own"
        ) from error


def joined() -> bool:
    """Tell whether this process is one of several."""
    return jax.distributed.is_initialized()


def answers(peers: Peers, seconds: float) -> None:
    """Wait until the coordinator listens; raise BakeoffError if it does not, or cannot.

    Otherwise JAX ends the process where nobody answers, with nothing but its own log.
    """
    import time

    host, _, port = peers.coordinator.rpartition(":")
    address = host.strip("[]"), int(port)
    if peers.first:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", address[1]))
            except OSError as error:
                raise BakeoffError(
                    f"--coordinator is {peers.coordinator}, and its port cannot be had here "
                    f"({error.strerror}): name another one, the same to all processes"
                ) from error
        return
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(address, timeout=1):
            return
        time.sleep(0.1)
    raise BakeoffError(
        f"the coordinator {peers.coordinator} does not answer for {seconds:g} s: start process 0 "
        "there, and see that this host can reach it"
    )


def require_alike(run: Mapping[str, Any]) -> None:
    """Compare what all processes have and were asked for.

    Args:
        run: What was asked of this process, as JSON has it.

    Raises:
        BakeoffError: their packages or what they were asked for differ, and in what.
        LostPeerError: another one has gone meanwhile.
    """
    found = versions()
    about = {name: found.get(name, "none") for name in (*ALIKE, "python")} | dict(run)
    said = json.dumps(about, sort_keys=True, default=str).encode()
    assert len(said) < LONGEST
    try:
        rows = everybody(np.frombuffer(said.ljust(LONGEST), np.uint8))
    except LOST as error:
        raise LostPeerError(
            f"another process was lost before training began ({words_of(error)}); start all of "
            "them again"
        ) from None
    texts = [json.loads(bytes(row).decode()) for row in rows]
    wrong = list(unlike(texts))
    if wrong:
        raise BakeoffError(f"processes differ: {'; '.join(wrong)}; make them the same everywhere")


def everybody(row: np.ndarray) -> np.ndarray:
    """Return a row of each process, in the order of their numbers.

    Over one device of each, for they may have different numbers of them.
    """
    first: dict[int, Any] = {}
    for device in jax.devices():
        first.setdefault(device.process_index, device)
    mesh = Mesh(np.array([first[process] for process in sorted(first)]), ("process",))
    rows = jax.make_array_from_callback(
        (len(first), len(row)), NamedSharding(mesh, PartitionSpec("process")), lambda _: row[None]
    )
    whole = jax.jit(lambda rows: rows, out_shardings=NamedSharding(mesh, PartitionSpec()))(rows)
    return np.asarray(whole.addressable_data(0))


def unlike(texts: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what differs between what processes say, and who says what."""
    for name in texts[0]:
        values: dict[str, list[int]] = {}
        for process, about in enumerate(texts):
            values.setdefault(str(about.get(name)), []).append(process)
        if len(values) > 1:
            who = (f"{value} in process {', '.join(map(str, p))}" for value, p in values.items())
            yield f"{name} is {' but '.join(who)}"
