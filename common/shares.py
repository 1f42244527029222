"""A loss over devices: each works on its own streams, and sums cross devices once, at the end.

Left alone, XLA would add up gradients over all devices at every character, for `lax.scan`'s
derivative carries a sum of them; here each device keeps a sum of its own until the scan is done.
Where there is no mesh in JAX's context, nothing is done, and nothing is traced differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import jax
from jax.sharding import PartitionSpec

from common.compatibility import abstract_mesh

if TYPE_CHECKING:
    from collections.abc import Callable

AXIS = "streams"
"""What a mesh of devices is over."""

WHOLE, STREAMS, TIMES = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, AXIS)


def over_devices() -> bool:
    """Tell whether a function is traced for all streams, which a mesh of devices is to share."""
    mesh = abstract_mesh()
    return mesh is not None and AXIS in mesh.auto_axes


def total[Tree](tree: Tree) -> Tree:
    """Return what each device has of sums, added up over those that share the streams."""
    mesh = abstract_mesh()
    if mesh is None or AXIS not in mesh.manual_axes:
        return tree
    return jax.lax.psum(tree, AXIS)


def divided[F: Callable[..., Any]](loss_of: F, *, gradients: bool = False) -> F:
    """Return a loss of `(params, hidden, chunk)` whose streams are shared between devices.

    Args:
        loss_of: Returns the loss of all streams, by `total`, and the state after the chunk.
        gradients: It also returns gradients by `params`, as `total` has them.
    """
    outputs = (WHOLE, STREAMS, WHOLE) if gradients else (WHOLE, STREAMS)

    def of_all(*arguments: Any) -> Any:
        if not over_devices():
            return loss_of(*arguments)
        # JAX does not check what differs between devices: it would give each use of the weights
        # its own sum over devices, backwards, where all have one if they are weights of a device.
        shared = jax.shard_map(
            loss_of, in_specs=(WHOLE, STREAMS, TIMES), out_specs=outputs, check_vma=False
        )
        return shared(*arguments)

    return cast("F", of_all)
