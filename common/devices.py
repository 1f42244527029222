"""Names of styles over several devices: `pure@4` and `pure@4x`.

The one shares the streams between four devices, the other gives each of four as many as there are.
"""

from __future__ import annotations

from typing import NamedTuple

from common.errors import BakeoffError

AT, COPIES = "@", "x"


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
