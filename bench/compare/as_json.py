"""A comparison as JSON, for other programs: `comparison.schema.json` says what is in it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.compare.words import headline

if TYPE_CHECKING:
    from bench.compare.comparison import Comparison, ExactRow, Row, Side

KIND = "jax-bakeoff comparison"
VERSION = 1


def as_json(comparison: Comparison) -> str:
    """Return a comparison as a JSON text."""
    return json.dumps(as_data(comparison), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_data(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON has it."""
    return {
        "kind": KIND,
        "version": VERSION,
        "status": int(comparison.status),
        "headline": headline(comparison),
        "margin": comparison.margin,
        "base": [side(one) for one in comparison.bases],
        "new": side(comparison.new),
        "rows": [row(one) for one in comparison.rows],
        "exact": [exact(one) for one in comparison.exact],
        "failures": [
            {**one.cell._asdict(), "base": one.base, "new": one.new, "worse": one.worse}
            for one in comparison.failures
        ],
        "only_base": [cell._asdict() for cell in comparison.only_base],
        "only_new": [cell._asdict() for cell in comparison.only_new],
        "differences": [one._asdict() for one in comparison.differences],
        "warnings": list(comparison.warnings),
        "reading": list(comparison.reading),
    }


def side(one: Side) -> dict[str, Any]:
    """Return a side."""
    return asdict(one)


def row(one: Row) -> dict[str, Any]:
    """Return a row of a metric that varies."""
    values = one.values
    return {
        **one.cell._asdict(),
        "metric": one.metric,
        "unit": one.unit,
        "base": values and values.base,
        "new": values and values.new,
        "base_ratio": values and values.base_ratio,
        "new_ratio": values and values.new_ratio,
        "absolute": bool(values and values.absolute),
        "ratio": one.ratio,
        "low": one.low,
        "high": one.high,
        "p": one.p,
        "verdict": one.verdict and str(one.verdict),
        "missing": one.missing,
        **judged(one),
    }


def exact(one: ExactRow) -> dict[str, Any]:
    """Return a row of a metric that comes out the same every time."""
    return {
        **one.cell._asdict(),
        "metric": one.metric,
        "base": one.base,
        "new": one.new,
        "outcome": str(one.outcome),
        **judged(one),
    }


def judged(one: Row | ExactRow) -> dict[str, Any]:
    """Return what the gate says of a row."""
    accepted = one.accepted
    return {
        "threshold": one.threshold,
        "worse": one.worse,
        "ignored": one.ignored,
        "note": one.note,
        "accepted": accepted
        and {
            "up_to": accepted.up_to,
            "reason": accepted.reason,
            "until": accepted.until.isoformat(),
        },
    }
