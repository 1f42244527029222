"""The gate: what counts as worse. It is `[tool.bakeoff.gate]` of a pyproject.toml.

Every part may be left out. Of several rules for a row, the one that names most decides; of those,
the last.

    [tool.bakeoff.gate]
    threshold = 0.02                # worse: slower by more than that

    [[tool.bakeoff.gate.rule]]
    metric = "compile"
    entrant = "flax_nnx"            # also: style, workload, backend
    threshold = 0.10                # or: ignore = true

    [[tool.bakeoff.gate.accept]]    # a known shift does not fail until that day is over
    metric = "step"
    entrant = "flax_nnx"
    up_to = 1.15
    reason = "nnx 0.12.9 checks its graph anew"
    until = 2026-12-31
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec.structs import replace

import impls
from bench.metrics import EXACT, METRICS
from bench.report.table import percent
from common.config import WORKLOADS
from common.errors import BakeoffError, unknown
from common.files import MOST_JSON, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.compare.comparison import ComparedRow

TABLE = "tool.bakeoff.gate"
BACKENDS = ("cpu", "gpu", "tpu")
SLACK = 1e-9
"""Added to a threshold: 110 calls are not more than 10 % above 100."""
HINT = (
    "a rule has a threshold (a fraction: 0.1 is 10 %) or ignore = true; an accept has up_to "
    "(a ratio: 1.1), reason and until (a day: 2026-12-31); both name one or more of metric, "
    "entrant, style, workload, backend"
)

type Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
type Ratio = Annotated[float, msgspec.Meta(gt=1, le=1000)]
type Reason = Annotated[str, msgspec.Meta(pattern=r"\S")]


class Scope(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Which rows something applies to: those that match every name it gives."""

    metric: str | None = None
    entrant: str | None = None
    style: str | None = None
    workload: str | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        if not self.named:
            raise ValueError("names no rows")

    @property
    def named(self) -> dict[str, str]:
        """The names it gives, by kind."""
        kinds = Scope.__struct_fields__
        return {kind: name for kind in kinds if (name := getattr(self, kind)) is not None}

    def holds(self, row: ComparedRow) -> bool:
        """Tell whether it applies to a row; to a cell that failed, if it names no metric."""
        of_row = {kind: getattr(row, kind) for kind in self.named}
        if "style" in of_row:
            of_row["style"] = row.cell.arm.full_style
        return of_row == self.named

    def __str__(self) -> str:
        return ", ".join(f"{kind} {name}" for kind, name in self.named.items())


class GateRule(Scope, frozen=True, kw_only=True):
    """A threshold of some rows, or that they are left out."""

    threshold: Fraction | None = None
    ignore: bool = False

    def __post_init__(self) -> None:
        Scope.__post_init__(self)
        if (self.threshold is None) != self.ignore:
            raise ValueError("needs either a threshold or ignore = true")


class Accept(Scope, frozen=True, kw_only=True):
    """A shift that is known."""

    up_to: Ratio
    """New to base; what is more is worse."""
    reason: Reason
    until: datetime.date
    """The last day."""


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as worse."""

    threshold: Fraction | None = None
    """Of times; None for the margin inside which two times are equivalent."""
    rule: tuple[GateRule, ...] = ()
    accept: tuple[Accept, ...] = ()

    def judged(self, row: ComparedRow, margin: float, today: datetime.date) -> ComparedRow:
        """Return a row with what the gate says of it.

        Two times within the `margin` are equivalent; `today` decides whether an accepted shift
        still is.
        """
        rule = best(self.rule, row)
        if rule is not None and rule.ignore:
            return replace(row, ignored=True, p=None, verdict=None)
        if row.missing:
            return row
        if not row.metric:
            return replace(row, worse=row.base is None)
        limit = self.limit(row, margin)
        row = replace(row, threshold=limit)
        if not row.more:
            return row
        ratio = math.inf if row.ratio is None else row.ratio
        if ratio <= 1 + limit + SLACK:
            return replace(row, note=f"{percent(limit)} are allowed")
        known = best(self.accept, row)
        if known is None:
            note = f"more than the {percent(limit)} allowed" if limit else ""
            return replace(row, worse=True, note=note)
        if today > known.until:
            note = f"was accepted until {known.until}, which has passed"
        elif ratio > known.up_to + SLACK:
            note = f"more than the accepted {known.up_to:g}"
        else:
            note = f"accepted until {known.until}: {known.reason}"
            return replace(row, accepted=known, note=note)
        return replace(row, worse=True, note=f"{note}: {known.reason}")

    def limit(self, row: ComparedRow, margin: float) -> float:
        """Return the threshold of a row.

        Of an exact metric it is 0 unless a rule names that metric: a rule that gives the times of a
        workload some room shall not let a tenth more Python calls pass.
        """
        exact = row.outcome is not None
        rules = [r for r in self.rule if r.threshold is not None and (r.metric or not exact)]
        rule = best(rules, row)
        if rule is not None and rule.threshold is not None:
            return rule.threshold
        if exact:
            return 0.0
        return margin if self.threshold is None else self.threshold

    def unmatched(self, rows: Sequence[ComparedRow]) -> Iterator[str]:
        """Yield warnings about accepted shifts and styles of rules that match no row.

        A rule may be about something that was not measured today; but nothing else would show that
        its style is mistyped.
        """
        for accept in self.accept:
            if not any(map(accept.holds, rows)):
                yield f"the gate names {accept}, but there is no such row"
        for rule in self.rule:
            styles = {row.style for row in rows if rule.entrant in (None, row.entrant)}
            if rule.style is not None and styles and rule.style not in styles:
                yield f"the gate names {rule}, but there is no such style here"


def best[S: Scope](among: Sequence[S], row: ComparedRow) -> S | None:
    """Return what decides about a row: the one that names most, of several the last."""
    meant = [one for one in reversed(among) if one.holds(row)]
    return max(meant, key=lambda one: len(one.named), default=None)


def read_gate(config: Path | None, entrants: Iterable[str] = ()) -> Gate:
    """Return the gate that a TOML file asks for; given none, this folder's or the usual one.

    `entrants` are known beside the project's own.

    Raises:
        BakeoffError: the file cannot be read, its table is not a gate, or names something unknown.
    """
    path = config or Path("pyproject.toml")
    option = f"--config {path}"
    if config is None and not path.exists():
        return Gate()
    try:
        found: Any = msgspec.toml.decode(read_regular(path, MOST_JSON))
        for name in TABLE.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        gate = msgspec.convert(found, Gate | None)
    except OSError as error:
        raise BakeoffError(f"{option} cannot be read ({error.strerror}); give a file") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BakeoffError(f"{option} is wrong: {error}; in [{TABLE}], {HINT}") from error
    if gate is None and config is not None:
        raise BakeoffError(f"{option} has no table [{TABLE}]; add it, or leave the option out")
    gate = gate or Gate()
    names = {
        "metric": [*METRICS, *EXACT],
        "entrant": list(dict.fromkeys([*impls.names(), *entrants])),
        "workload": list(WORKLOADS),
        "backend": list(BACKENDS),
    }
    for scope in (*gate.rule, *gate.accept):
        for kind, name in scope.named.items():
            if kind in names and name not in names[kind]:
                raise BakeoffError(f"{option}: [{TABLE}]: {unknown(kind, name, names[kind])}")
    return gate
