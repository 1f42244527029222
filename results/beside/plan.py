"""What is planted in a trial, and how many trials each tool gets of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = {
    "pytest_benchmark": "pytest-benchmark",
    "pyperf": "pyperf",
    "asv": "asv",
    "pytest_codspeed": "pytest-codspeed",
    "google_benchmark": "google-benchmark",
    "samples_in_pairs": "calls in pairs (tango)",
    "runs": "this project, `compare`",
    "runs_on_one_core": "this project, `compare`, `--cores=one`",
    "arms": "this project, arms of a run",
    "sides": "this project, `ab`",
}
"""Tool → its name in tables."""
REQUIREMENTS = {
    "pytest_benchmark": ("pytest-benchmark==5.3.1",),
    "pyperf": ("pyperf==2.11.0",),
    "asv": ("asv==0.6.6", "virtualenv==21.15.11"),
    "pytest_codspeed": ("pytest-codspeed==5.0.4",),
    "google_benchmark": ("google-benchmark==1.9.5",),
    "samples_in_pairs": (),
}
"""Function of tools.py → what its environment has beside this project's lock."""
OURS: Mapping[str, Mapping[str, str]] = {
    "runs": {"run": "runs"},
    "runs_on_one_core": {"run": "runs", "cores": "one"},
    "arms": {"run": "arms"},
    "sides": {"run": "sides"},
}
"""Tool of this project → arguments of ../selftest/trial.py, which compares two runs, two arms of
one, and the two sides of `bakeoff ab`."""
TOOLS = tuple(name for name in NAMES if name != "runs_on_one_core")
"""Tools of a part that names none: ours with their default cores, the others with one core."""


class Plant(NamedTuple):
    """A difference between two sides."""

    fraction: float = 0.0
    """Fraction of a step by which the new side waits before each call."""
    microseconds: float = 0.0
    """Microseconds by which it waits as well."""
    slower: float = 0.0
    """Fraction of a step by which both sides are slower in the second half of the time."""
    imported: bool = False
    """Whether the new side waits because of a library that its process has imported."""
    apart: bool = False
    """Whether the sides have environments built apart, from one lock."""
    without: tuple[str, ...] = ()
    """Tools that cannot have it, or that cannot find it."""

    @property
    def is_slower(self) -> bool:
        """Whether the new side takes longer than the base side."""
        return bool(self.fraction or self.microseconds)


PLANTS = {
    "nothing": Plant(),
    "+0.5 %": Plant(fraction=0.005),
    "+1 %": Plant(fraction=0.01),
    "+5 %": Plant(fraction=0.05),
    "+20 µs": Plant(microseconds=20.0),
    "slower later": Plant(slower=0.05, without=("arms", "runs")),
    "built apart": Plant(
        apart=True, without=("arms", "asv", "google_benchmark", "samples_in_pairs")
    ),
    "+5 %, imported": Plant(
        fraction=0.05,
        imported=True,
        without=("arms", "runs", "google_benchmark", "samples_in_pairs"),
    ),
}
"""What is planted. With `slower later` and `built apart`, both sides have equal steps.

Two arms, and `compare`, relate a planted arm to an arm of the same run without a plant. In tools
with both sides in one process, an import affects both sides.
"""


class Part(NamedTuple):
    """Trials of one size and length."""

    workload: str
    seconds: int
    """Seconds of a trial, for two sides together."""
    trials: Mapping[str, int]
    """Plant → trials of each tool."""
    tools: tuple[str, ...] = TOOLS


MAIN = Part(
    "seed",
    30,
    {
        "nothing": 15,
        "+1 %": 10,
        "+5 %": 5,
        "+20 µs": 5,
        "slower later": 5,
        "built apart": 5,
        "+5 %, imported": 5,
    },
)
PARTS = (
    MAIN,
    Part("toy", 30, {"nothing": 5, "+1 %": 5}, (*TOOLS, "runs_on_one_core")),
    Part("seed", 120, {"nothing": 10, "+0.5 %": 10}, ("samples_in_pairs", "arms", "sides")),
)
"""The plan: every tool for 30 seconds, and for 120 the three that estimate best."""
UNMEASURABLE = [("arms", "+1 %", "toy")]
"""Trials that are not made: the waiting function itself takes a microsecond, as long as the wait
that it should plant, and the arm that it is compared with has no such function."""


class Trial(NamedTuple):
    """One comparison by one tool."""

    tool: str
    plant: str
    workload: str
    seconds: int


def list_trials() -> list[Trial]:
    """Return all trials of the plan, each as often as it is made."""
    return [
        Trial(tool, plant, part.workload, part.seconds)
        for part in PARTS
        for tool in part.tools
        for plant, times in part.trials.items()
        if tool not in PLANTS[plant].without and (tool, plant, part.workload) not in UNMEASURABLE
        for _ in range(times)
    ]


def find_pins(tool: str) -> dict[str, str]:
    """Return what a tool's environment has beside this project's lock: package → version."""
    return dict(text.split("==") for text in REQUIREMENTS.get(tool, ()))


if __name__ == "__main__":  # for `make lock`
    print("\n".join(text for texts in REQUIREMENTS.values() for text in texts))
