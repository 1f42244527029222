"""Reasons to doubt the numbers of a measurement, in sentences.

The compared number is the mean of the fastest half of an arm's turns in a block. A few slow turns
hardly change it; the warnings are about causes that do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.estimates import ALPHA, Estimate, Verdict
from bench.metrics import label
from bench.wording import name_place
from common.versions import COMMON

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.offer import Offer
    from bench.runfile import Results, TimeSpent

SHARED_PACKAGES = ("python", *COMMON)
"""Packages that are part of the times of every entrant, including the baseline: an entrant's own
environment should have the same."""
MOST_STOLEN = 0.02
"""Fraction of the processor time taken by other guests above which a run warns: it moves medians by
0.1 %, half of a usual standard error."""
MOST_OTHERS = 0.10
"""Fraction of the machine used by other processes above which a run warns: it moves medians by half
a per cent or more, in all arms alike; intervals widen."""


def collect_warnings(results: Results, offer: Offer, notes: Iterable[str]) -> list[str]:
    """Return sentences with reasons to doubt a measurement, none where there are none.

    Remarks of workers, `notes`, stand first.
    """
    sentences = [
        *offer.notes,
        *notes,
        *warn_of_processes(results.spent),
        *warn_of_imports(offer.uncached),
    ]
    if results.kind == "run":
        sentences += [*warn_of_environments(results), *warn_of_controls(results.estimates)]
    return sentences


def warn_of_processes(spent: TimeSpent) -> Iterator[str]:
    """Yield a warning if other guests or processes used the machine meanwhile."""
    parts = []
    if spent.stolen > MOST_STOLEN:
        parts.append(f"{spent.stolen:.0%} of the processor time went to other guests of the host")
    if spent.others > MOST_OTHERS:
        most = f", most of it {spent.busiest}" if spent.busiest else ""
        parts.append(f"other processes used {spent.others:.0%} of the machine{most}")
    if parts:
        left_out = " What these interrupted was left out." * (spent.others > MOST_OTHERS)
        slower = " Times may be those of a slower machine." * (spent.stolen > MOST_STOLEN)
        yield f"During this measurement, {' and '.join(parts)}.{left_out}{slower}"


def warn_of_imports(modules: int) -> Iterator[str]:
    """Yield a warning that imports are slow, if modules are uncached."""
    if modules:
        yield (
            f"Python can store no bytecode of {modules} module{'s' * (modules > 1)}, so each "
            "process compiles the source again, and import times are too long. Make the folders of "
            "the source writable, or set PYTHONPYCACHEPREFIX to a writable folder."
        )


def warn_of_environments(results: Results) -> Iterator[str]:
    """Yield a warning for each environment whose `SHARED_PACKAGES` differ from the shared one's."""
    shared = results.versions
    for name, info in results.environments.items():
        differing = [
            f"{package} {info.versions.get(package)} instead of {shared.get(package)}"
            for package in SHARED_PACKAGES
            if info.versions.get(package) != shared.get(package)
        ]
        if differing:
            yield (
                f"{name} runs in its own environment with {', '.join(differing)}: its steps and "
                "compile times are compared with a baseline in that environment, its imports and "
                "first steps with the baseline in the shared environment."
            )


def warn_of_controls(estimates: Iterable[Estimate]) -> Iterator[str]:
    """Yield a warning for each metric in which the control differs from the baseline, its copy."""
    rows = [row for row in estimates if row.cell.is_control and row.p is not None]
    for row in rows:
        if (row.p or 0.0) * len(rows) < ALPHA and row.verdict is not Verdict.EQUIVALENT:
            difference = f"has {row.value:.3f} times the baseline's value"
            if row.form == "added":
                difference = f"differs from the baseline by {row.value * 1e6:+.1f} µs"
            yield (
                f"{label(row.metric)} at {name_place(row.cell)}: the control, a second copy of the "
                f"baseline, {difference}. Do not trust differences of this size: measure again."
            )
