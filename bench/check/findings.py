"""The checks by name, what each finds, and the judgement of an entrant."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

ERROR, NOTE = "error", "note"
FILE = ""
"""In the place of a style: the file as a whole."""


NUMBERS = ("contract", "shapes")
"""Checks that have to be passed before numbers mean anything."""


class Check(NamedTuple):
    """One thing that is demanded of an entrant: of each of its styles, and perhaps of its file."""

    about: str
    """What has to hold."""
    of_file: bool = False
    """Whether a part of it concerns the file as a whole."""
    needs: tuple[str, ...] = NUMBERS
    """Checks that have to be passed first: without them, this one says nothing."""


CHECKS: dict[str, Check] = {
    "contract": Check("it can be imported, and offers what is asked for", of_file=True, needs=()),
    "shapes": Check("sizes are those that were asked for", of_file=True, needs=("contract",)),
    "dtypes": Check("float32 throughout, in jax's arrays", of_file=True),
    "weights": Check(
        "weights go in and out, and nothing is lost", of_file=True, needs=("contract",)
    ),
    "equality": Check("the loss is the float64 reference's"),
    "gradient": Check("the gradient is the reference's"),
    "ten-steps": Check("ten updates are plain JAX's"),
    "optimiser": Check("an update is the one of AdamW"),
    "inputs": Check("every character and the state matter"),
    "state": Check("the state is carried, and gradients flow through it"),
    "fresh": Check("every call computes anew, from what it is given"),
    "retrace": Check("a warm call compiles nothing"),
    "timed-region": Check("the work is done in the call that is timed"),
    "watched": Check("it does the same when nobody looks", needs=(*NUMBERS, "equality")),
    "purity": Check("nothing is written, started or left behind", of_file=True, needs=()),
}
"""In the order in which their findings are best read, and mended."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it has to be."""

    expected: str
    """What the contract asks for."""
    seen: str
    """What there was instead."""
    where: str = ""
    """`file:line, function` to look at."""
    severity: str = ERROR
    """`error`, or `note` for what is no reason to refuse an entrant."""
    raised: bool = False
    """Whether an exception is all that was seen."""
    check: str = ""
    style: str = FILE


@dataclass(frozen=True)
class Outcome:
    """The result of one check of one style, or of the file."""

    check: str
    style: str
    findings: tuple[Finding, ...] = ()
    not_run: str = ""
    """Why it has no result; empty where it ran to its end."""
    seconds: float = 0.0
    """Wall time."""

    @property
    def failed(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == ERROR for finding in self.findings)

    @property
    def word(self) -> str:
        """The result in a word: `finding`, `not run`, `note` or `ok`."""
        if self.failed:
            return "finding"
        if self.not_run:
            return "not run"
        return "note" if self.findings else "ok"


@dataclass(frozen=True)
class Judgement:
    """All that was found in one entrant."""

    name: str
    path: str
    """As it was given."""
    styles: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    complete: bool
    """Whether all checks of all styles were asked for; without that, it is not called equal."""

    @property
    def findings(self) -> list[Finding]:
        """All findings, in the order of the checks: the first one is the one to look at."""
        return [finding for outcome in self.outcomes for finding in outcome.findings]

    @property
    def errors(self) -> list[Finding]:
        """Findings that refuse it."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints; `equal` is null where it is not known."""
        return {
            "entrant": self.name,
            "path": self.path,
            "equal": False if self.errors else (True if self.complete else None),
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
