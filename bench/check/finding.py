"""What a check says: findings, each with what was expected, what was seen, and where to look."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ERROR, NOTE = "error", "note"
FILE = ""
"""In the place of a style: what is found in the file as a whole."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it has to be."""

    expected: str
    """What the contract asks for."""
    seen: str
    """What there was instead."""
    where: str = ""
    """`file:line, in function` to look at."""
    severity: str = ERROR
    """`error`, or `note` for what is no reason to refuse an entrant."""
    raised: bool = False
    """Whether an exception is all that was seen."""
    check: str = ""
    style: str = FILE
    """Empty for the file as a whole."""


@dataclass(frozen=True)
class Outcome:
    """What came of one check of one style, or of the file."""

    check: str
    style: str
    findings: tuple[Finding, ...] = ()
    not_run: str = ""
    """Why it says nothing; empty where it ran to its end."""
    seconds: float = 0.0
    """Wall time."""

    @property
    def failed(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == ERROR for finding in self.findings)

    @property
    def word(self) -> str:
        """What it came to: `finding`, `not run`, `note` or `ok`."""
        if self.failed:
            return "finding"
        if self.not_run:
            return "not run"
        return "note" if self.findings else "ok"


@dataclass(frozen=True)
class Judged:
    """One entrant: all that was found."""

    name: str
    path: str
    """As it was given."""
    styles: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def findings(self) -> list[Finding]:
        """All findings, in the order of the checks: the first one is the one to look at."""
        return [finding for outcome in self.outcomes for finding in outcome.findings]

    @property
    def errors(self) -> list[Finding]:
        """Findings that refuse it."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    def as_json(self, *, whole: bool) -> dict[str, Any]:
        """Return what `--json` prints of it; equal is null where not all checks were asked for."""
        equal = not self.errors if whole or self.errors else None
        return {
            "entrant": self.name,
            "path": self.path,
            "equal": equal,
            "styles": list(self.styles),
            "checks": [
                {
                    "check": outcome.check,
                    "style": outcome.style or None,
                    "outcome": outcome.word,
                    "not_run": outcome.not_run or None,
                    "seconds": round(outcome.seconds, 3),
                }
                for outcome in self.outcomes
            ],
            "findings": [
                {name: value for name, value in asdict(finding).items() if name != "raised"}
                | {"style": finding.style or None}
                for finding in self.findings
            ],
        }


def finding_of(record: Mapping[str, Any], check: str, style: str) -> Finding:
    """Return the finding that a judge's record says."""
    return Finding(**{**record, "check": check, "style": style})
