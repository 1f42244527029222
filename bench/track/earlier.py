"""An earlier bisection, read from its run file, which another one goes on with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from bench.engine.journal import FOLDER
from bench.engine.session import SETUP_PARTS, describe_differences
from bench.estimates import Estimate, group_by_key
from bench.runfile import Results, SearchPhase, SearchStep
from bench.runfile.reader import read
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.samples import Sample

QUESTION = "good", "bad", "cell", "metric"
"""Parts of a search's setup that are words; the others are digests."""


def steps_path(*arguments: object) -> Path:
    """Return the file in which a search with these arguments keeps its steps."""
    return FOLDER / f"{hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]}-bisect.json"


@dataclass(frozen=True)
class Earlier:
    """An earlier search; by default, an empty one."""

    path: Path | None = None
    is_resumed: bool = False
    """Whether it was cut off: its undecided steps stay so, and its time counts in this budget."""
    results: Results = field(default_factory=Results)
    samples: list[Sample] = field(default_factory=list)
    attempts: Mapping[tuple[SearchPhase, str, str], list[tuple[Estimate, SearchStep]]] = field(
        default_factory=dict
    )
    """Phase, base and new of a step → the attempts at it."""

    @classmethod
    def read(cls, path: Path, *, resume: bool) -> Earlier:
        """Read the run file of a search.

        Raises:
            BakeoffError: there is none to resume, the file cannot be read, or is no bisection's.
        """
        if resume and not path.exists():
            raise BakeoffError(
                f"there is nothing to resume: {FOLDER}/ has no step of it; run without --resume"
            )
        run = read(path)
        results, spent = run.results, run.results.spent
        if results.kind != "bisect":
            raise BakeoffError(
                f"{path} is of kind {results.kind!r}; give what `bakeoff bisect -o FILE.json` wrote"
            )
        pairs = zip(results.estimates, results.search.steps, strict=True)
        attempts = group_by_key(((s.phase, r.against, r.environment), (r, s)) for r, s in pairs)
        if not resume:
            results.spent = msgspec.structs.replace(spent, earlier_seconds=spent.wall_seconds)
        return cls(path, resume, results, run.samples, attempts)

    def require_same(self, setup: Mapping[str, str]) -> None:
        """Raise BakeoffError if it is a search with another setup."""
        if self.path is None:
            return
        before = self.results.setup
        words = {name: f"its {name} is {before.get(name)}" for name in QUESTION}
        differing = describe_differences(before, setup, words) or describe_differences(
            before, setup, SETUP_PARTS
        )
        if differing:
            raise BakeoffError(
                f"{self.path} is of another search ({differing if before else 'an older version'}"
                "); give one of the same, or leave --more and --resume out"
            )
