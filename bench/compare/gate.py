"""What counts as worse: the gate's thresholds, what it leaves out, and shifts that are known."""

from __future__ import annotations

import datetime  # noqa: TC003 -- msgspec reads the annotation
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from bench.metrics import EXACT, METRICS
from bench.report import wording

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.cells import Cell

SLACK = 1e-9
"""Of a threshold: 110 calls are not more than 10 % above 100."""

type Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
type Ratio = Annotated[float, msgspec.Meta(gt=1, le=1000)]
type Words = Annotated[str, msgspec.Meta(pattern=r"\S")]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Rows that something is said of; what is not named is all of them."""

    metric: str | None = None
    entrant: str | None = None
    style: str | None = None
    workload: str | None = None
    backend: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """What it names."""
        found = {field.name: getattr(self, field.name) for field in fields(Where)}
        return {name: value for name, value in found.items() if value is not None}

    def holds(self, cell: Cell, metric: str | None) -> bool:
        """Tell whether a row is meant; without a metric, whether the whole cell is."""
        row = {**cell._asdict(), "metric": metric}
        return all(row[name] == value for name, value in self.named.items())

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.named.items())


@dataclass(frozen=True, kw_only=True)
class Rule(Where):
    """A threshold of some rows, or that they are left out."""

    threshold: Fraction | None = None
    ignore: bool = False


@dataclass(frozen=True, kw_only=True)
class Accept(Where):
    """A shift that is known."""

    up_to: Ratio
    """New to base; what is more is worse."""
    reason: Words
    until: datetime.date
    """The last day."""


class Decision(NamedTuple):
    """What the gate says of a row that is slower, or more."""

    threshold: float
    worse: bool
    accepted: Accept | None = None
    note: str = ""
    """Why, in words."""


@dataclass(frozen=True)
class Gate:
    """What counts as worse."""

    threshold: Fraction | None = None
    """Of times; None for the margin inside which two times are equivalent."""
    rule: tuple[Rule, ...] = ()
    accept: tuple[Accept, ...] = ()

    def ignores(self, cell: Cell, metric: str | None) -> bool:
        """Tell whether a row, or without a metric a cell, is left out."""
        rule = best(self.rule, cell, metric)
        return rule is not None and rule.ignore

    def limit(self, cell: Cell, metric: str, margin: float) -> float:
        """Return the threshold of a row.

        Of an exact metric it is 0 unless a rule names that metric: a rule that gives the times of a
        workload some room shall not let a tenth more Python calls pass.
        """
        exact = metric in EXACT or metric == "final_loss" or metric not in METRICS
        rules = [r for r in self.rule if r.threshold is not None and (r.metric or not exact)]
        rule = best(rules, cell, metric)
        if rule is not None and rule.threshold is not None:
            return rule.threshold
        if exact:
            return 0.0
        return margin if self.threshold is None else self.threshold

    def decide(
        self, cell: Cell, metric: str, ratio: float, margin: float, today: datetime.date
    ) -> Decision:
        """Say whether a row that is slower, or more, is worse."""
        limit = self.limit(cell, metric, margin)
        if ratio <= 1 + limit + SLACK:
            return Decision(limit, worse=False, note=f"{wording.percent(limit)} are allowed")
        known = best(self.accept, cell, metric)
        if known is None:
            allowed = f"more than the {wording.percent(limit)} allowed" if limit else ""
            return Decision(limit, worse=True, note=allowed)
        if today > known.until:
            said = f"was accepted until {known.until}, which has passed"
            return Decision(limit, worse=True, note=f"{said}: {known.reason}")
        if ratio > known.up_to + SLACK:
            said = f"more than the accepted {known.up_to:g}"
            return Decision(limit, worse=True, note=f"{said}: {known.reason}")
        note = f"accepted until {known.until}: {known.reason}"
        return Decision(limit, worse=False, accepted=known, note=note)

    def unmatched(self, rows: Iterable[tuple[Cell, str]]) -> Iterator[str]:
        """Yield warnings about what is said of rows that there are none of.

        A rule may well be about something that was not measured today; its style may not be
        mistyped, which nothing else would show.
        """
        known = list(rows)
        for accept in self.accept:
            if not any(accept.holds(*row) for row in known):
                yield f"the gate accepts a shift of {accept}, but there is no such row"
        styles: dict[str, set[str]] = {}
        for cell, _ in known:
            styles.setdefault(cell.entrant, set()).add(cell.style)
        every = set().union(*styles.values())
        for rule in self.rule:
            having = every if rule.entrant is None else styles.get(rule.entrant, set())
            if rule.style is not None and having and rule.style not in having:
                yield f"the gate has a rule for {rule}, but there is no such style here"


def best[W: Where](among: Sequence[W], cell: Cell, metric: str | None) -> W | None:
    """Return what decides about a row: the one that names most, of several the last."""
    meant = [(len(one.named), place, one) for place, one in enumerate(among)]
    meant = [each for each in meant if each[2].holds(cell, metric)]
    return max(meant, key=lambda each: each[:2])[2] if meant else None
