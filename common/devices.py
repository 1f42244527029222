"""Names of devices, as `gpu:1`."""

from __future__ import annotations

from typing import NamedTuple

from common.errors import BakeoffError


class Device(NamedTuple):
    """One device of a backend; the name `gpu` is its first, `gpu:1` its second."""

    backend: str
    number: int

    @classmethod
    def of(cls, name: str) -> Device:
        """Return the device with this name.

        Raises:
            BakeoffError: the part behind the colon is not a number.
        """
        backend, colon, number = name.partition(":")
        if not backend or (colon and not number.isdecimal()):
            raise BakeoffError(
                f"backend is {name!r}; give its name, or that and a device's index, as in cpu:0"
            )
        return cls(backend, int(number or 0))

    def require(self, count: int) -> None:
        """Raise BakeoffError if the backend, which has `count` devices, lacks this one."""
        if self.number >= count:
            raise BakeoffError(
                f"backend is '{self.backend}:{self.number}', and {self.backend} has {count} "
                f"device{'s' * (count != 1)} here: give {self.backend}:0"
                + (f" to {self.backend}:{count - 1}" if count > 1 else "")
            )
