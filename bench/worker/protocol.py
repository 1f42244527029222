"""What a worker is told and what it answers, as dataclasses: JSON lines over two pipes.

The worker has nothing but the standard library here, in old and foreign environments too; the
parent decodes the same dataclasses with msgspec, which checks every field.

* At its start, and after each command, the worker says `Ready` and waits. In between comes exactly
  one answer to the command.
* A command is a JSON object whose `do` names it; its other fields are the command's arguments.
* A command that fails as a whole ends the process, with a traceback on standard error. What fails
  in one arm only is answered by `Failed`, or named in `failures`.
* An arm is named `entrant/style` everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PROTOCOL = 4
"""Raised whenever what is said changes, so that two revisions do not misunderstand each other."""


@dataclass
class Ready:
    """The worker waits for its next command."""

    ready: bool = True
    protocol: int = PROTOCOL


@dataclass
class Failed:
    """One arm's own failure; the worker lives on."""

    failure: str
    stderr: str = ""
    """Last lines of the traceback, where the words do not say all."""


@dataclass
class Failures:
    """Answer to `load` and `prepare`: why arms failed, by arm; the others are ready."""

    failures: dict[str, str]
    notes: list[str] = field(default_factory=list)
    """What somebody should know of this worker, in sentences."""


@dataclass
class Counted:
    """Answer to `count`: exact numbers of a step, by name."""

    exact: dict[str, int | None]


@dataclass
class Proven:
    """Answer to `prove`: how far an arm is from its reference, and what its program has."""

    proof: dict[str, Any]
    exact: dict[str, float | None]
    losses: list[float]
    """Of ten training steps: what a later worker's have to be again."""


@dataclass
class Opened:
    """Answer to `open`: the arm's step is made and has the losses that it was proven with."""


@dataclass
class Timed:
    """Answer to `block`."""

    seconds: dict[str, dict[str, list[float]]]
    """By metric and arm, in the order they were taken."""
    failures: dict[str, str] = field(default_factory=dict)
    """Arms whose samples do not count, and why: they are not in `seconds`."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """By arm: processor time per second of wall time while its calls were timed."""


@dataclass
class Trained:
    """Answer to `train`."""

    training: dict[str, Any]
    """`seconds` of each run, `same_weights`, `own_initialiser`, curves, the corpus."""


@dataclass
class Cold:
    """Answer to `cold`: one sample of each cold metric."""

    values: dict[str, float | None]
    """None where the system does not tell, or where there is nothing to measure."""
    timed_seconds: float
    trace_and_lower_split_by: str
    """`clock`, `jax.monitoring event`, or nothing where there is no program."""
    fingerprint: str = ""
    """Of the lowered program, in a process that has loaded this one entrant."""
