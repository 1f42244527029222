"""A step in the benchmark's own worker and in a user's program: does it take as long in both?

In each, plain JAX takes turns with the entrant. Ratios to plain JAX are compared, so that other
load on the machine cancels out.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import impls
from bench.check.findings import CheckFinding
from bench.engine.processes import Worker, ask_once
from common.tolerances import TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from bench.check.checks import CheckOptions
    from bench.engine.processes import Place

HIDDEN = ("BAKEOFF", "PYTEST")
"""Prefixes of environment variables that a user's program does not have."""
USER_PROGRAM = Path(__file__).parent / "user_program.py"
WORKLOAD = "toy"
"""Its steps are short: small delays show."""
ROUNDS = 12
RATIO = 3.0
"""So many times longer or shorter is not chance."""
ATTEMPTS = 2
LEAST_SECONDS = 30.0
"""Time limit of each of these processes at least: most of their time is not spent in steps."""


def same_times(
    place: Place, arm: tuple[str, str], path: str, options: CheckOptions
) -> list[CheckFinding]:
    """Compare a step in the benchmark's worker with the same step in a user's program.

    Raises:
        WorkerFailedError: one of the two processes died, or took too long.
    """
    arms, silence = [(impls.BASELINE, "pure"), arm], max(options.seconds, LEAST_SECONDS)
    variables = {k: v for k, v in place.variables.items() if not k.startswith(HIDDEN)}
    command = (place.command[0], "-c", USER_PROGRAM.read_text(encoding="utf-8"))
    question = {"arms": arms, "path": path, "workload": WORKLOAD, "rounds": ROUNDS}
    for _ in range(ATTEMPTS):
        with Worker(place, silence) as worker:
            worker.start()
            timed, failures = _block(worker, arms, path, options.backend)
        if failures:
            return [CheckFinding("the benchmark's worker accepts the step", failures[0])]
        user = replace(place, command=command, variables=variables)
        found = differing_times(timed, ask_once(question, user, silence))
        if not found:
            break
    return found


def _block(
    worker: Worker, arms: list[tuple[str, str]], path: str, backend: str
) -> tuple[list[float], list[str]]:
    """Return each arm's median seconds in a block of the benchmark; else why arms failed."""
    names = ["/".join(arm) for arm in arms]
    load: dict[str, Any] = {"do": "load", "arms": arms, "cache": None, "seed": 0}
    load |= {"check_programs": True, "outside": {arms[1][0]: path} if path else {}}
    where = {"workload": WORKLOAD, "backend": backend}
    failures = [*worker.ask(load)["failures"].values()]
    proofs = [worker.ask(where | {"do": "prove", "arm": name}) for name in names]
    failures = [proof["failure"] for proof in proofs if "failure" in proof] + failures
    if failures:
        return [], failures
    turns = {"do": "block", "kind": "step", "arms": names, "rounds": ROUNDS, "seed": 0}
    block = worker.ask(where | turns)
    failures = [*block["failures"].values()]
    if failures:
        return [], failures
    return [statistics.median(block["seconds"]["step"][name]) for name in names], []


def differing_times(timed: list[float], user: dict[str, list[float]]) -> list[CheckFinding]:
    """Return what differs between the worker and the user's program.

    Each has the baseline's and the entrant's: seconds in the worker; `seconds` and last `losses` in
    the user's program.
    """
    found = []
    plain, loss = user["losses"]
    if not abs(loss - plain) <= TRAJECTORY_TOLERANCE:
        seen = f"after {2 * ROUNDS + 3} updates the loss is {loss:.6f}, plain JAX's is {plain:.6f}"
        found.append(CheckFinding("in a user's program, training has plain JAX's loss", seen))
    ratios = timed[1] / timed[0], user["seconds"][1] / user["seconds"][0]
    if max(ratios) > RATIO * min(ratios):
        expected = "a step takes as long in a user's program as in the benchmark's worker"
        seen = (
            f"relative to plain JAX it takes {ratios[1]:.2g} in the program, {ratios[0]:.2g} in "
            "the worker"
        )
        found.append(CheckFinding(expected, seen))
    return found
