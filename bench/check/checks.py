"""The checks by name, in the order in which their findings are to be read."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One thing that is demanded of an entrant."""

    about: str
    """What has to hold."""
    of_file: bool = False
    """Whether there is a part that concerns the file as a whole."""
    of_style: bool = True
    needs: tuple[str, ...] = ("contract",)
    """Checks that have to be passed first: without them, this one can say nothing."""


NUMBERS = ("contract", "shapes")

CHECKS: dict[str, Check] = {
    "contract": Check("it can be imported, and offers what is asked for", of_file=True, needs=()),
    "shapes": Check("sizes are those that were asked for", of_file=True),
    "dtypes": Check("float32 throughout, in jax's arrays", of_file=True, needs=NUMBERS),
    "weights": Check("weights go in and out, and nothing is lost", of_file=True),
    "equality": Check("the loss is the float64 reference's", needs=NUMBERS),
    "gradient": Check("the gradient is the reference's", needs=NUMBERS),
    "ten-steps": Check("ten updates are plain JAX's", needs=NUMBERS),
    "optimiser": Check("an update is the one of AdamW", needs=NUMBERS),
    "inputs": Check("every character and the state matter", needs=NUMBERS),
    "state": Check("the state is carried, and gradients flow through it", needs=NUMBERS),
    "fresh": Check("every call computes anew, from what it is given", needs=NUMBERS),
    "retrace": Check("a warm call compiles nothing", needs=NUMBERS),
    "timed-region": Check("the work is done in the call that is timed", needs=NUMBERS),
    "watched": Check("it does the same when nobody looks", needs=(*NUMBERS, "equality")),
    "purity": Check("nothing is written, started or left behind", of_file=True, needs=()),
}


def concerns(check: str, style: str) -> bool:
    """Return whether a check has a part for a style, or for the file where that is empty."""
    return CHECKS[check].of_style if style else CHECKS[check].of_file
