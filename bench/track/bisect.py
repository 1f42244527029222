"""An earlier search, read from its run file for another one to go on with."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.engine.journal import FOLDER
from bench.runfile.reader import read
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.runfile import Results

CUT_OFF = "it was cut off"
"""Reason in the file of a search that goes on: it stands there if nothing else takes its place."""
QUESTION = "good", "bad", "cell", "metric"
"""Parts of a search's setup that are words; the others are digests."""


def steps_path(*arguments: object) -> Path:
    """Return the file in which a search with these arguments keeps its steps."""
    return FOLDER / f"{hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]}-bisect.json"


def read_search(path: Path) -> Results:
    """Return an earlier search.

    The time of one that was cut off counts in a new budget, that of one that has stopped does not.

    Raises:
        BakeoffError: there is none to resume, the file cannot be read, or is no bisection's.
    """
    if path.parent == FOLDER and not path.exists():
        raise BakeoffError(
            f"there is nothing to resume: {FOLDER}/ has no step of it; run without --resume"
        )
    results = read(path, samples=False).results
    if results.kind != "bisect":
        raise BakeoffError(
            f"{path} is of kind {results.kind!r}; give what `bakeoff bisect -o FILE.json` wrote"
        )
    if not was_cut_off(results):
        spent = results.spent
        # A budget is charged for the difference of both
        results.spent = replace(spent, earlier_seconds=spent.wall_seconds)
    return results


def was_cut_off(results: Results) -> bool:
    """Tell whether a search neither came to its end nor stopped: its undecided steps stay so."""
    return results.search.stopped == CUT_OFF


def require_same_search(path: Path, before: Mapping[str, str], setup: Mapping[str, str]) -> None:
    """Raise BakeoffError if the search in a file had another setup."""
    from bench.engine.measurement import SETUP_PARTS, describe_differences  # takes half a second

    words = {name: f"its {name} is {before.get(name)}" for name in QUESTION}
    differing = describe_differences(before, setup, words) or describe_differences(
        before, setup, SETUP_PARTS
    )
    if differing:
        raise BakeoffError(
            f"{path} is of another search ({differing if before else 'an older version'}); give "
            "one of the same, or leave --resume out"
        )
