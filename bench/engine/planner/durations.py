"""Durations of actions on this machine, in seconds: guesses until some have been measured."""

from __future__ import annotations

GUESSES = {"load": 3.0, "prove": 1.2, "open": 0.2, "cold": 3.6, "count": 0.5, "train": 5.0}
"""Action → guessed seconds: to start a worker and import, to prove one arm, to open it once it is
proven, of a cold process, and to count and to train one arm; on one core of an EPYC."""


class Durations:
    """The last duration of each kind of action, and what it leads to expect.

    A key is an action and where it was done, as in `("open", "seed")`.
    """

    def __init__(self) -> None:
        self.last: dict[tuple[str, ...], float] = {}

    def note(self, key: tuple[str, ...], seconds: float) -> None:
        """Keep the duration of an action that has ended."""
        self.last.pop(key, None)  # the last one noted is the last of the dict
        self.last[key] = seconds

    def expect(self, key: tuple[str, ...], guess: float | None = None) -> float:
        """Return the seconds that an action is expected to take.

        That is what the same one took, or else the last of its kind elsewhere; before any, a guess,
        which is as far off as it was for loading.
        """
        if key in self.last:
            return self.last[key]
        if guess is None:
            alike = [seconds for (action, *_), seconds in self.last.items() if action == key[0]]
            if alike:
                return alike[-1]
            if key[0] == "open":  # a proof makes the step too: a large model's takes as long
                return self.expect(("prove", *key[1:])) * GUESSES["open"] / GUESSES["prove"]
            guess = GUESSES[key[0]]
        return guess * self.slowness

    @property
    def slowness(self) -> float:
        """Ratio of the measured to the guessed seconds of loading; 1 before any."""
        loads = [seconds for (action, *_), seconds in self.last.items() if action == "load"]
        return loads[-1] / GUESSES["load"] if loads else 1.0
