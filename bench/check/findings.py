"""Findings, results of checks and judgements of entrants, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ERROR, NOTE = "error", "note"
FILE = None
"""Stands in the place of a style's name where the file as a whole is checked."""
DONATES = "a step that donates its state is measured beside others that do, with --donate"
"""What is expected of a step that always donates: `pytest bench` needs the option for it."""


@dataclass(frozen=True)
class CheckFinding:
    """One mistake in an entrant, or something worth a note."""

    expected: str
    """What the contract asks for."""
    seen: str
    """What happened instead."""
    where: str = ""
    """The place to look at: `file:line, function`."""
    severity: str = ERROR
    """`error`, or `note` for what does not keep an entrant from being measured."""
    check: str = ""
    style: str | None = FILE


@dataclass(frozen=True)
class CheckResult:
    """The result of one check of one style, or of the file."""

    check: str
    style: str | None
    findings: tuple[CheckFinding, ...] = ()
    not_run: str = ""
    """Why the check was not run; empty if it was."""
    seconds: float = 0.0
    """Wall time."""

    @property
    def outcome(self) -> str:
        """The result in a word: `finding`, `not run`, `note` or `ok`."""
        if any(finding.severity == ERROR for finding in self.findings):
            return "finding"
        if self.not_run:
            return "not run"
        return "note" if self.findings else "ok"


@dataclass(frozen=True)
class Judgement:
    """The results of all checks of one entrant."""

    entrant: str
    path: str
    """The path or name that the user gave."""
    styles: tuple[str, ...]
    results: tuple[CheckResult, ...]
    complete: bool
    """Whether all checks of all styles were requested; otherwise nothing is called equal."""

    @property
    def findings(self) -> list[CheckFinding]:
        """All findings, in the order of the checks."""
        return [finding for result in self.results for finding in result.findings]

    @property
    def errors(self) -> list[CheckFinding]:
        """Findings that keep the entrant from being measured."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    def as_json(self) -> dict[str, Any]:
        """Return the record that `--json` prints; `equal` is null if it is not known."""
        names = ("check", "style", "outcome", "not_run", "seconds")
        return {
            "entrant": self.entrant,
            "path": self.path,
            "equal": False if self.errors else (True if self.complete else None),
            "styles": list(self.styles),
            "checks": [{name: getattr(result, name) for name in names} for result in self.results],
            "findings": [asdict(finding) for finding in self.findings],
        }
