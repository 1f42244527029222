"""Names of devices, and of styles over several of them: `gpu:1`, `pure@4` and `pure@4x`.

`pure@4` shares the streams between four devices, `pure@4x` gives each of four as many as there are.
"""

from __future__ import annotations

from typing import NamedTuple

from common.errors import BakeoffError

AT, COPIES = "@", "x"
MOST_DEVICES = 1024
"""That may be asked for."""


class Over(NamedTuple):
    """What a style's name says of devices."""

    style: str
    """On one device."""
    devices: int
    """0: it knows of no mesh."""
    weak: bool
    """Each device has all streams of its own."""

    @classmethod
    def of(cls, name: str) -> Over:
        """Return what the name of a style says.

        Raises:
            BakeoffError: what stands behind the `@` is no number of devices.
        """
        style, at, given = name.partition(AT)
        number = given.removesuffix(COPIES)
        if at and not (number.isdecimal() and int(number)):
            raise BakeoffError(
                f"style {name!r} is to run on {given!r} devices; give a number, as in "
                f"{style}{AT}4, or {style}{AT}4{COPIES} for as many streams on each"
            )
        return cls(style, int(number or 0), given.endswith(COPIES))


def names(style: str, devices: tuple[int, ...]) -> list[str]:
    """Return the names of a style over so many devices, strong and weak."""
    strong = [f"{style}{AT}{n}" for n in devices]
    return strong + [f"{style}{AT}{n}{COPIES}" for n in devices if n > 1]


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
