"""An earlier search, read from its run file for another one to go on with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from bench.engine.journal import FOLDER
from bench.runfile import Results
from bench.runfile.reader import read
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.estimates import Estimate
    from bench.runfile import SearchPhase, SearchStep
    from bench.samples import Sample

ALPHA = 0.01
"""Probability that a step is decided wrongly: a search takes about ten steps."""
QUESTION = "good", "bad", "cell", "metric"
"""Parts of a search's setup that are words; the others are digests."""


def steps_path(*arguments: object) -> Path:
    """Return the file in which a search with these arguments keeps its steps."""
    return FOLDER / f"{hashlib.sha256(repr(arguments).encode()).hexdigest()[:16]}-bisect.json"


@dataclass(frozen=True)
class Earlier:
    """An earlier search; by default, an empty one."""

    path: Path | None = None
    results: Results = field(default_factory=Results)
    samples: list[Sample] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Earlier:
        """Read the run file of a search.

        Raises:
            BakeoffError: there is none to resume, the file cannot be read, or is no bisection's.
        """
        if path.parent == FOLDER and not path.exists():
            raise BakeoffError(
                f"there is nothing to resume: {FOLDER}/ has no step of it; run without --resume"
            )
        run = read(path)
        results, spent = run.results, run.results.spent
        if results.kind != "bisect":
            raise BakeoffError(
                f"{path} is of kind {results.kind!r}; give what `bakeoff bisect -o FILE.json` wrote"
            )
        if results.search.stopped is not None:
            results.spent = replace(spent, earlier_seconds=spent.wall_seconds)
        return cls(path, results, run.samples)

    @property
    def was_cut_off(self) -> bool:
        """Whether its undecided steps stay so, and its time counts in this budget."""
        return self.results.search.stopped is None

    def require_same(self, setup: Mapping[str, str]) -> None:
        """Raise BakeoffError if it is a search with another setup."""
        from bench.engine.measurement import (  # takes half a second
            SETUP_PARTS,
            describe_differences,
        )

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
                "); give one of the same, or leave --resume out"
            )

    def list_attempts(
        self, phase: SearchPhase, base: str, new: str
    ) -> list[tuple[Estimate, SearchStep]]:
        """Return the attempts at a step between two SPECs, each with its estimate."""
        question, pairs = (phase, base, new), zip_steps(self.results)
        return [(r, s) for r, s in pairs if (s.phase, r.against, r.environment) == question]


def zip_steps(results: Results) -> Iterator[tuple[Estimate, SearchStep]]:
    """Return the steps of a search, each after its estimate."""
    return zip(results.estimates, results.search.steps, strict=True)
