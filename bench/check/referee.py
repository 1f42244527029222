"""A whole judgement of one entrant: its declarations, its checks, and the repository afterwards."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import impls
from bench.check import tree
from bench.check.checks import CHECKS
from bench.check.finding import FILE, NOTE, Finding, Judged, Outcome
from bench.check.place import judging, place_of
from bench.check.runner import PURE, Bench
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path

    from bench.check.runner import Tell
    from bench.check.wanted import Asked, Wanted


def judged(who: Asked, wanted: Wanted, tell: Tell = lambda *_: None) -> Judged:
    """Return all that the checks find in one entrant."""
    source = impls.source(who.name)
    try:
        expected = "the file is Python, its constants literals"
        impls.declared(who.name)
        expected = "its environment can be built from its REQUIREMENTS"
        place = place_of(who.name)
    except BakeoffError as error:
        line = re.search(r"in line (\d+)", str(error))
        where = f"{source}:{line[1]}" if line else str(source)
        finding = Finding(expected, str(error), where)
        outcome = Outcome("contract", FILE, (replace(finding, check="contract"),))
        return Judged(who.name, who.given, (), (with_path(outcome, who, source),))
    before = tree.snapshot(wanted.root)
    with Bench(who, wanted, judging(place, wanted.root, wanted.backend)) as bench:
        outcomes = list(bench.outcomes(tell))
        unheard = [
            path
            for path in tree.changed(before, tree.snapshot(wanted.root))
            if not any(f"wrote to {path}" in f.seen for o in outcomes for f in o.findings)
        ]
    if unheard and PURE in wanted.checks:
        outcomes = with_changes(outcomes, unheard, str(source))
    found = tuple(with_path(outcome, who, source) for outcome in in_order(outcomes))
    return Judged(who.name, who.given, bench.styles, found)


def with_path(outcome: Outcome, who: Asked, source: Path) -> Outcome:
    """Return an outcome whose findings name the file as it was given, or from here."""
    given = who.given if who.path else os.path.relpath(source)
    findings = (
        replace(finding, where=finding.where.replace(str(source.resolve()), given))
        for finding in outcome.findings
    )
    return replace(outcome, findings=tuple(findings))


def with_changes(outcomes: list[Outcome], paths: list[str], where: str) -> list[Outcome]:
    """Return outcomes with a note on files that changed, by whatever hand."""
    finding = Finding(
        "no file of the repository changes meanwhile",
        f"{', '.join(paths[:4])} changed; it may have been somebody else",
        where,
        NOTE,
        check=PURE,
    )
    return [
        replace(outcome, findings=(*outcome.findings, finding))
        if (outcome.check, outcome.style) == (PURE, FILE)
        else outcome
        for outcome in outcomes
    ]


def in_order(outcomes: list[Outcome]) -> tuple[Outcome, ...]:
    """Return outcomes check by check, the file's before its styles'."""
    names = list(CHECKS)
    return tuple(sorted(outcomes, key=lambda outcome: names.index(outcome.check)))
