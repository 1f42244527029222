"""The checks: their names, what each looks for, and the functions that do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bench.check import calls, contract, numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.check.findings import CheckFinding
    from bench.check.subject import Subject
    from common.equality import Case

    type CheckFunction = Callable[[Subject, Case], Iterable[CheckFinding]]
    """Looks for what is wrong at some sizes."""


class Check(NamedTuple):
    """One demand on an entrant: on each of its styles, and perhaps on its file as a whole."""

    about: str
    """What has to hold."""
    of_style: CheckFunction | None = None
    """None for what `bench.check.runner` finds from outside of the entrant's process."""
    of_file: CheckFunction | None = None
    sizes: int | None = 1
    """The first so many of `Subject.cases` are tried, until there is a finding; None: all."""
    needs: tuple[str, ...] = ("contract", "shapes")
    """Checks of the same style that have to pass before."""


CHECKS: dict[str, Check] = {
    "contract": Check(
        "the file can be imported and offers what the contract asks for",
        contract.style_contract,
        contract.file_contract,
    ),
    "shapes": Check(
        "arrays have the right shapes, dtypes and classes",
        contract.step_shapes,
        contract.model_shapes,
        sizes=2,
    ),
    "dtypes": Check("programs compute in float32 only", contract.dtypes),
    "weights": Check(
        "weights go in and out unchanged", contract.step_weights, contract.model_weights, sizes=2
    ),
    "equality": Check("the loss is the float64 reference's", numbers.equality, sizes=None),
    "gradient": Check("the gradient is the reference's", numbers.gradient, sizes=None),
    "ten-steps": Check("ten updates have plain JAX's losses", numbers.ten_steps, sizes=None),
    "state": Check("a call returns the reference's hidden state", numbers.state, sizes=2),
    "fresh": Check("every call computes its result anew", calls.fresh),
    "retrace": Check("a warm call compiles nothing", calls.retrace),
    "timed-region": Check("all work is done in the call that is timed", calls.timed_region),
    "watched": Check(
        "a step does the same when it is not measured", needs=("contract", "shapes", "equality")
    ),
    "purity": Check("no file, process or thread is left behind"),
}
"""In the order in which their findings are best read, and corrected."""
NEEDED = ("contract", "shapes", "weights")
"""Checks of the file, without which checks of its styles say nothing."""


@dataclass(frozen=True)
class CheckOptions:
    """Which checks to run, and within which limits."""

    styles: tuple[str, ...] = ()
    """Empty for all."""
    checks: tuple[str, ...] = tuple(CHECKS)
    workloads: tuple[str, ...] = ()
    """Numbers are compared at their sizes, in addition to two small ones."""
    seconds: float = 60.0
    """For each check."""
    memory: int = 8 << 30
    """Bytes for a process."""
    backend: str = "cpu"

    @property
    def complete(self) -> bool:
        """Whether all checks of all styles are run, so that an entrant can be called equal."""
        return set(self.checks) == set(CHECKS) and not self.styles
