"""The benchmark's own worker beside a program that knows nothing of it: does a step differ?

In each, plain JAX takes turns with the entrant, so that what is compared is a ratio of ratios,
whatever else the machine does.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import impls
from bench.check.findings import Finding
from bench.engine.processes import Worker
from common.tolerances import TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.check.runner import CheckOptions
    from bench.engine.processes import Place

HIDDEN = ("BAKEOFF", "PYTEST")
"""Beginnings of environment variables that a user's program does not have."""
USER_PROGRAM = Path(__file__).parent / "user_program.py"
WORKLOAD = "toy"
"""A step there is all dispatch, so that little is enough to show."""
ROUNDS = 12
RATIO = 3.0
"""So many times longer or shorter is not chance."""
ATTEMPTS = 2
LEAST_SECONDS = 30.0
"""So long each of these processes may be silent at least: most of what it does is not a step."""


def same_times(
    place: Place, arm: list[str], path: str, where: str, options: CheckOptions
) -> list[Finding]:
    """Compare a step in the benchmark's worker with itself in a user's program.

    Args:
        place: Where the entrant's workers run.
        arm: Its entrant and style.
        path: Of its file, where that is none of `impls/`; else empty.
        where: Where findings point at.
        options: Their seconds and backend hold here too.

    Raises:
        WorkerFailedError: one of the two died, or was silent for too long.
    """
    arms, silence = [[impls.BASELINE, "pure"], arm], max(options.seconds, LEAST_SECONDS)
    found: list[Finding] = []
    for _ in range(ATTEMPTS):
        timed = _in_worker(place, arms, path, silence, options.backend)
        if isinstance(timed, str):
            expected = "the benchmark's own worker finds the same as this judge: equal"
            return [Finding(expected, f"there it is not: {timed}", where)]
        user = _in_user_program(place, arms, path, silence)
        found = list(differing_times(timed, user, where))
        if not found:
            break
    return found


def _in_worker(
    place: Place, arms: list[list[str]], path: str, silence: float, backend: str
) -> list[float] | str:
    """Return each arm's median seconds in a block of the benchmark, or why there is no block."""
    names = ["/".join(arm) for arm in arms]
    load: dict[str, Any] = {"do": "load", "arms": arms, "cache": None, "seed": 0}
    where = {"workload": WORKLOAD, "backend": backend}
    with Worker(place, silence) as worker:
        worker.start()
        failures = worker.ask(load | {"outside": {arms[1][0]: path} if path else {}})["failures"]
        for name in names:
            proof = worker.ask(where | {"do": "prove", "arm": name})
            if "failure" in proof:
                failures = {name: proof["failure"]} | failures
        if not failures:
            turns = {"do": "block", "kind": "step", "arms": names, "rounds": ROUNDS, "seed": 0}
            block = worker.ask(where | turns)
            failures = block["failures"]
    if failures:
        return str(next(iter(failures.values())))
    return [statistics.median(block["seconds"]["step"][name]) for name in names]


def _in_user_program(
    place: Place, arms: list[list[str]], path: str, silence: float
) -> dict[str, list[float]]:
    """Return each arm's median seconds and last loss in a program of its own."""
    variables = {k: v for k, v in place.variables.items() if not k.startswith(HIDDEN)}
    command = (place.command[0], "-c", USER_PROGRAM.read_text(encoding="utf-8"))
    with Worker(replace(place, command=command, variables=variables), silence) as worker:
        worker.start()
        question = {"arms": arms, "path": path, "workload": WORKLOAD, "rounds": ROUNDS}
        return worker.ask(question)


def differing_times(
    timed: list[float], user: dict[str, list[float]], where: str = ""
) -> Iterator[Finding]:
    """Yield what differs between a worker's times and a user's program.

    Args:
        timed: Seconds of the baseline and of the entrant in the worker.
        user: `seconds` of both in the user's program, and their last `losses`.
        where: Where findings point at.
    """
    plain, loss = user["losses"]
    if not abs(loss - plain) <= TRAJECTORY_TOLERANCE:
        expected = "in a program of its own it trains as plain JAX does"
        seen = f"after {2 * ROUNDS + 3} updates its loss is {loss:.6f}, plain JAX's {plain:.6f}"
        yield Finding(expected, seen, where)
    ratios = timed[1] / timed[0], user["seconds"][1] / user["seconds"][0]
    if max(ratios) > RATIO * min(ratios):
        yield Finding(
            "a step takes as long in the benchmark's worker as in a user's program, measured in "
            "plain JAX's steps",
            f"{ratios[0]:.2g} of plain JAX's time where it is timed, {ratios[1]:.2g} elsewhere",
            where,
        )
