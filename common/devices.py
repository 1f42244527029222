"""Names of devices, as `gpu:1`."""

from __future__ import annotations

from typing import NamedTuple

from common.errors import BakeoffError

MOST_DEVICES = 1024
"""That may be asked for."""


class Device(NamedTuple):
    """What the name of a backend says, with a device's index or without: `gpu`, `gpu:1`."""

    backend: str
    number: int

    @classmethod
    def of(cls, name: str) -> Device:
        """Return what a name says.

        Raises:
            BakeoffError: what stands behind the colon is no number.
        """
        backend, colon, given = name.partition(":")
        if not backend or (colon and not given.isdecimal()):
            raise BakeoffError(
                f"backend is {name!r}; give its name, or that and a device's index, as in cpu:0"
            )
        return cls(backend, int(given or 0))

    def require(self, count: int) -> None:
        """Raise BakeoffError unless a backend with so many devices has this one."""
        if self.number >= count:
            raise BakeoffError(
                f"backend is '{self.backend}:{self.number}', and {self.backend} has {count} "
                f"device{'s' * (count != 1)} here: give {self.backend}:0"
                + (f" to {self.backend}:{count - 1}" if count > 1 else "")
            )
