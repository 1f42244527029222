"""Names of workloads that are a user's own training step, beside those of the project."""

from __future__ import annotations

from dataclasses import replace

from common.config import WORKLOADS, Workload

SKELETON = ".skeleton"
"""End of the name of a workload that is the skeleton of a user's own step: `mine.skeleton` has the
trees of `mine`, with arrays of one element."""


def is_user_step(workload: str) -> bool:
    """Tell whether a workload is a user's own training step, or its skeleton."""
    return workload not in WORKLOADS


def is_skeleton(workload: str) -> bool:
    """Tell whether a workload is the skeleton of a user's own training step."""
    return workload.endswith(SKELETON)


def is_real_step(workload: str) -> bool:
    """Tell whether a workload is a user's own step itself: making it may take a minute."""
    return is_user_step(workload) and not is_skeleton(workload)


def find_workload(name: str) -> Workload:
    """Return a workload; in place of a user's own step, whose sizes are unknown, `seed`'s.

    A skeleton computes as little as `toy`.
    """
    like = "toy" if is_skeleton(name) else "seed"
    return WORKLOADS.get(name) or replace(WORKLOADS[like], name=name, corpus="")
