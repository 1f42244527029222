"""The benchmark's own worker beside a program that knows nothing of it: is a step the same in both?

In each, plain JAX takes turns with the entrant, so that what is compared is a ratio of ratios,
whatever else the machine does.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.check.finding import Finding
from bench.check.place import interpreter, only
from bench.check.wanted import CPU
from bench.engine.processes import Worker
from common.tolerances import TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from bench.engine.processes import Place

WORKLOAD = "toy"
"""A step there is all dispatch, so that little is enough to show."""
ROUNDS = 12
RATIO = 3.0
"""So many times longer or shorter is not chance."""
ATTEMPTS = 2
LEAST_SECONDS = 30.0
"""So long each of these processes may be silent at least: most of what it does is not a step."""
BASELINE = ["pure_jax", "pure"]
HIDDEN = ("BAKEOFF", "PYTEST")
"""Beginnings of environment variables that a user's program does not have."""
ALONE = Path(__file__).parent / "alone.py"


def watched(
    place: Place,
    name: str,
    style: str,
    path: str,
    where: str,
    seconds: float,
    backend: str = CPU,
) -> list[Finding]:
    """Compare a step in the benchmark's worker with itself in a user's program.

    Raises:
        WorkerFailedError: one of the two died, or was silent for `seconds`.
    """
    arms, seconds = [BASELINE, [name, style]], max(seconds, LEAST_SECONDS)
    found: list[Finding] = []
    for _ in range(ATTEMPTS):
        seen = in_worker(place, arms, path, seconds, backend)
        if isinstance(seen, Finding):
            return [replace(seen, where=where)]
        unseen = by_itself(place, arms, path, seconds, backend)
        found = [replace(finding, where=where) for finding in compared(seen, unseen)]
        if not found:
            return []
    return found


def in_worker(
    place: Place, arms: list[list[str]], path: str, seconds: float, backend: str
) -> list[float] | Finding:
    """Return each arm's median seconds in a block of the benchmark, or why there is no block."""
    names = ["/".join(arm) for arm in arms]
    load: dict[str, Any] = {"do": "load", "arms": arms, "cache": None, "seed": 0}
    outside = {arms[1][0]: path} if path else {}
    where = {"workload": WORKLOAD, "backend": backend}
    alone = replace(place, variables={**place.variables, **only(backend)})
    with Worker(alone, seconds) as worker:
        worker.start()
        failures = worker.ask(load | {"outside": outside})["failures"]
        for arm in names:
            record = worker.ask(where | {"do": "prove", "arm": arm})
            if "failure" in record:
                failures = {arm: record["failure"]} | failures
        if not failures:
            turns = {"do": "block", "kind": "step", "arms": names, "rounds": ROUNDS, "seed": 0}
            block = worker.ask(where | turns)
            failures = block["failures"]
    if failures:
        return Finding(
            "the benchmark's own worker finds the same as this judge: equal",
            f"there it is not: {next(iter(failures.values()))}",
        )
    return [statistics.median(block["seconds"]["step"][arm]) for arm in names]


def by_itself(
    place: Place, arms: list[list[str]], path: str, seconds: float, backend: str
) -> dict[str, list[float]]:
    """Return each arm's median seconds and last loss in a program of its own."""
    variables = {k: v for k, v in place.variables.items() if not k.startswith(HIDDEN)}
    variables |= only(backend)
    command = (interpreter(place), "-c", ALONE.read_text(encoding="utf-8"))
    with Worker(replace(place, command=command, variables=variables), seconds) as worker:
        worker.start()
        question = {"arms": arms, "path": path, "workload": WORKLOAD, "rounds": ROUNDS}
        return worker.ask(question)


def compared(seen: list[float], unseen: dict[str, list[float]]) -> list[Finding]:
    """Return what differs between the two."""
    plain, loss = unseen["losses"]
    findings = []
    if not abs(loss - plain) <= TRAJECTORY_TOLERANCE:
        findings.append(
            Finding(
                "in a program of its own it trains as plain JAX does",
                f"after {2 * ROUNDS + 3} updates its loss is {loss:.6f}, plain JAX's {plain:.6f}",
            )
        )
    times = seen[1] / seen[0], unseen["seconds"][1] / unseen["seconds"][0]
    if max(times) > RATIO * min(times):
        findings.append(
            Finding(
                "a step takes as long in the benchmark's worker as in a user's program, measured "
                "in plain JAX's steps",
                f"{times[0]:.2g} of plain JAX's time where it is timed, {times[1]:.2g} elsewhere",
            )
        )
    return findings
