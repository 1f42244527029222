"""The device that `bakeoff train` and `bakeoff sample` compute on."""

from __future__ import annotations

from common.devices import Device
from common.errors import BakeoffError, words_of


def use(name: str | None) -> None:
    """Have JAX compute on a backend, or on one device of it, with matrix products in float32.

    To be called before JAX computes anything.

    Args:
        name: `cpu`, `gpu`, `gpu:1`, …; None leaves the choice to JAX.

    Raises:
        BakeoffError: there is no such backend or device here.
    """
    device = None if name is None else Device.of(name)
    import jax

    jax.config.update("jax_default_matmul_precision", "float32")  # as in workers
    if device is not None:
        jax.config.update("jax_platforms", device.backend)
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError: JAX does not know the name
        reason = f" (jax says: {words_of(error)})" if str(error) else ""
        raise BakeoffError(
            f"backend {name!r} cannot be used here{reason}; `bakeoff doctor` lists those that can"
        ) from error
    if device is not None:
        device.require(len(devices))
        jax.config.update("jax_default_device", devices[device.number])
