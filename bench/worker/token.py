"""The order of a block's turns, and the token of two workers that measure one together.

The holder of the token takes turns. The parent gives each worker an end of a pair of sockets. A
byte that one sends is the token, which is then the other's: on one core that costs a change of
process, and no parent is in between. A worker that has ended closes its end, so that the other one
hears of it at once.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.cells import Arm

LOST_STATUS = 75
"""Exit status of a worker to which the token does not come back (EX_TEMPFAIL of sysexits.h)."""
BYTE = b"."


@dataclass
class Token:
    """One worker's end of the pair of sockets that the token takes."""

    place: int
    """Number of this worker's side: 0 or 1."""
    end: socket.socket

    @classmethod
    def receive(cls, channel: int, place: int, patience: float) -> Token:
        """Receive the end that the parent sends over the socket of a descriptor.

        After `patience` seconds, the other worker is taken to hang.
        """
        with socket.socket(fileno=os.dup(channel)) as parent:
            _, [descriptor], *_ = socket.recv_fds(parent, len(BYTE), 1)
        os.set_inheritable(descriptor, False)  # what a library starts does not hold it open
        end = socket.socket(fileno=descriptor)
        end.settimeout(patience)
        return cls(place, end)

    def send(self) -> None:
        """Give the token to the other side; where that has ended, this worker ends too."""
        try:
            self.end.sendall(BYTE)
        except OSError:
            os._exit(LOST_STATUS)

    def wait(self, mark_arm: Callable[[None], None]) -> None:
        """Wait for the token; where it does not come, this worker ends."""
        mark_arm(None)
        try:
            came = self.end.recv(len(BYTE))
        except OSError:
            came = b""
        if not came:
            os._exit(LOST_STATUS)


def share[Item](
    order: Iterable[tuple[int, Item]], token: Token | None, mark_arm: Callable[[None], None]
) -> Iterator[Item]:
    """Yield this side's items of an order that both workers follow, each at its time.

    Args:
        order: Sides with their items; the first one's side has the token.
        token: This worker's token; without one, all items are its own.
        mark_arm: Called with None while the other side has the token.
    """
    holder: int | None = None
    for side, item in order:
        if token and holder not in (None, side):
            if holder == token.place:
                token.send()
            else:
                token.wait(mark_arm)
        holder = side
        if not token or side == token.place:
            yield item


def schedule(
    rng: random.Random, members: Sequence[Arm], rounds: Iterable[int], sides: int
) -> Iterator[tuple[int, tuple[int, Arm]]]:
    """Yield the turns of a block: the side that takes each, 0 or 1 of two; its round and its arm.

    Arms come in random order, an arm's turns on both sides one after the other. Every second round
    reverses the one before: so each arm, and each side, is as often before another one as after it.
    """
    turns: list[tuple[int, Arm]] = []
    for place, number in enumerate(rounds):
        if place % 2:
            turns = turns[::-1]
        else:
            turns = [
                (side, arm)
                for arm in rng.sample(members, len(members))
                for side in rng.sample(range(sides), sides)
            ]
        yield from ((side, (number, arm)) for side, arm in turns)
