"""Data parallel: each device has some of the streams, and all devices have all weights.

No entrant knows of it. `jax.jit` goes by where its arguments lie, and by the mesh of JAX's context:
a loss is divided by `common.shares`, and what else there is, by XLA. One device is a mesh of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from common.compatibility import set_mesh
from common.contract import Checkpoint, Chunk
from common.errors import BakeoffError
from common.shares import AXIS

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Array, Float

    from common.config import ModelConfig
    from common.contract import AnyArray, Hidden, Program, Style, TrainStep
    from common.steps import Configured


@dataclass(frozen=True)
class Placement:
    """Where the arrays of a training run lie."""

    mesh: Mesh

    @property
    def devices(self) -> int:
        """How many devices share the streams."""
        return int(self.mesh.devices.size)

    def checkpoint(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return a checkpoint whose arrays are whole on every device."""
        weights, mu, nu = (jax.tree.map(self.put, tree) for tree in checkpoint[:3])
        return Checkpoint(weights, mu, nu, checkpoint.updates)

    def hidden(self, hidden: Hidden) -> Hidden:
        """Return each layer's state, `batch width`, its streams shared between the devices.

        Raises:
            BakeoffError: they cannot be shared evenly.
        """
        check_batch(hidden[0].shape[0], self.devices)
        return tuple(self.put(rows, AXIS) for rows in hidden)

    def chunk(self, chunk: Chunk) -> Chunk:
        """Return a chunk, `time batch`, or several, `chunks time batch`, placed like a state.

        Raises:
            BakeoffError: its streams cannot be shared evenly.
        """
        check_batch(chunk.inputs.shape[-1], self.devices)
        axes = [*[None] * (chunk.inputs.ndim - 1), AXIS]
        return Chunk(*(self.put(array, *axes) for array in chunk))

    def put(self, array: AnyArray, *axes: str | None) -> Array:
        """Return an array divided along these axes; whole on every device where there are none."""
        if self.devices == 1:  # what a step returns is whole: else it would be compiled for twice
            axes = ()
        sharding = NamedSharding(self.mesh, PartitionSpec(*axes))
        if isinstance(array, jax.Array) and array.sharding == sharding:
            return array
        if sharding.is_fully_addressable:
            return jax.device_put(array, sharding)
        host = np.asarray(array)  # each process has all of it, and gives its own devices' part
        return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)


def placement(devices: int) -> Placement:
    """Return the placement over so many devices of the default one's kind.

    Of several processes each has as many; of one, the default device is the first.

    Raises:
        BakeoffError: there are not so many.
    """
    default: Any = jax.config.jax_default_device
    found = jax.devices(default.platform if default is not None else None)
    if default in found and jax.process_count() == 1:
        found = [default, *(device for device in found if device != default)]
    own: dict[int, list[Any]] = {}
    for device in found:
        own.setdefault(device.process_index, []).append(device)
    share = devices // len(own)
    chosen = [device for process in sorted(own) for device in own[process][:share]]
    if not 0 < devices == len(chosen):
        kind, here = found[0].platform, "here"
        if len(own) > 1:
            here = f"in {len(own)} processes together, and each has to have as many"
        raise BakeoffError(
            f"devices is {devices}; {kind} has {len(found)} {here}: give a smaller number"
            + f", or set JAX_NUM_CPU_DEVICES={devices} before it starts" * (kind == "cpu")
        )
    auto = (jax.sharding.AxisType.Auto,)
    return Placement(Mesh(np.array(chosen), (AXIS,), axis_types=auto))


def check_batch(batch: int, devices: int) -> None:
    """Raise BakeoffError unless so many streams can be shared evenly between so many devices."""
    if batch % devices:
        raise BakeoffError(
            f"batch {batch} does not divide among {devices} devices; give a multiple of {devices}, "
            "or another number of devices"
        )


class Sharded:
    """A training step whose streams are shared between devices; else as the one that it is made of.

    States and chunks are placed when they are first seen, and known again: in training, that is the
    work of whoever reads the text, and no part of a step.
    """

    def __init__(self, step: TrainStep, place: Placement, *, copies: bool) -> None:
        self.step, self.place = step, place
        self.copies = place.devices if copies else 1
        """Each stream is there so often: then the mean loss, and its gradient, are the same."""
        self.settings = {"devices": place.devices}
        self.known: dict[str, tuple[Any, Any]] = {}

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        self.step.load(self.place.checkpoint(checkpoint))

    def save(self) -> Checkpoint:  # noqa: D102
        return self.step.save()

    def __call__(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Float[Array, ""]]:  # noqa: D102
        placed = self.placed(hidden, chunk)
        with set_mesh(self.place.mesh):
            return self.step(*placed)

    def program(self, hidden: Hidden, chunk: Chunk) -> Program | None:  # noqa: D102
        found = self.step.program(*self.placed(hidden, chunk))
        if found is None:
            return None
        lower, trace = self.within(found.lower), found.trace and self.within(found.trace)
        return found._replace(lower=lower, jaxpr=self.within(found.jaxpr), trace=trace)

    def within[R](self, stage: Callable[[], R]) -> Callable[[], R]:
        """Return a stage of a program that is made over these devices."""

        def made() -> R:
            with set_mesh(self.place.mesh):
                return stage()

        return made

    def placed(self, hidden: Hidden, chunk: Chunk) -> tuple[Hidden, Chunk]:
        """Return state and chunk where they belong."""
        first = hidden[0].shape[0] == chunk.inputs.shape[1]  # else it is what a call returned
        copies = self.copies if first else 1
        rows = self.once("hidden", hidden, lambda: self.place.hidden(repeated(hidden, copies, 0)))
        data = self.once("chunk", chunk, lambda: self.place.chunk(repeated(chunk, self.copies, 1)))
        return rows, data

    def once(self, name: str, given: Any, make: Callable[[], Any]) -> Any:
        """Return what is made of something, made anew only if it is another one than last time."""
        known, made = self.known.get(name, (None, None))
        if known is not given:
            made = make()
            self.known[name] = given, made
        return made


def repeated[Tree](tree: Tree, times: int, axis: int) -> Tree:
    """Return arrays repeated along an axis."""
    if times == 1:
        return tree
    return jax.tree.map(lambda array: np.concatenate([np.asarray(array)] * times, axis), tree)


def over(style: Style, devices: int, *, copies: bool = False) -> Style:
    """Return a style whose streams are shared between devices; with copies, as many on each."""

    def shared(config: ModelConfig, optimiser: Configured) -> TrainStep:
        return Sharded(style(config, optimiser), placement(devices), copies=copies)

    return shared
