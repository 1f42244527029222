"""The document of a check: the verdict on an entrant, checks by style, and the findings."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bench.check import DONATES, ERROR
from bench.check.judge import CHECKS
from bench.report.table import Column, Document, Row, Section, Table
from bench.wording import pluralise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.check import CheckFinding
    from bench.check.runner import CheckOptions, CheckResult


def describe_checks(path: str, options: CheckOptions, results: Sequence[CheckResult]) -> Document:
    """Return the verdict on an entrant, a table of checks by style, and the findings."""
    outcomes = {(result.check, result.style): result.outcome for result in results}
    checks, styles = (dict.fromkeys(names) for names in zip(*outcomes, strict=True))
    rows = [
        Row((name, *(outcomes.get((name, style), "") for style in styles), CHECKS[name].about))
        for name in checks
    ]
    columns = [Column("check"), *(Column(style or "file") for style in styles)]
    table = Table((*columns, Column("requirement", needed=False)), tuple(rows))
    reasons = dict.fromkeys(r.not_run for r in results if r.not_run)
    sections = [Section("Checks", tables=(table,))]
    findings = sorted(list_findings(results), key=lambda found: found[1].severity)
    for number, (result, finding) in enumerate(findings, 1):
        note = "" if finding.severity == ERROR else " (only a note: the entrant can be measured)"
        title = f"{number}. {result.check}, {result.style or 'the file'}{note}"
        about = {"expected": finding.expected, "seen": finding.seen, "look at": finding.where}
        lines = (f"   {name:8}  {text}" for name, text in about.items())
        sections.append(Section(title, (title, *lines)))
    return Document(
        f"Check of {path}",
        headline=f"{path}: {verdict(path, options, results)}",
        status="bad" if "finding" in outcomes.values() else "good",
        sections=tuple(sections),
        fine_print=tuple(f"not run: {why}" for why in reasons),
    )


def list_findings(results: Sequence[CheckResult]) -> list[tuple[CheckResult, CheckFinding]]:
    """Return all findings, each with the result that has it."""
    return [(result, finding) for result in results for finding in result.findings]


def verdict(path: str, options: CheckOptions, results: Sequence[CheckResult]) -> str:
    """Return in a sentence whether the entrant is equal, and what to do next."""
    findings = list_findings(results)
    if errors := [(result, finding) for result, finding in findings if finding.severity == ERROR]:
        (result, first), many = errors[0], pluralise(len(errors), "finding")
        of = f" of {result.style}" if result.style else ""
        return f"not equal: {many}; begin with {result.check}{of} at {first.where}"
    if {*options.checks} != {*CHECKS}:
        return "no findings in these checks; run all checks before you measure the entrant"
    command = f"pytest bench --entrant {shlex.quote(path)}"
    if options.styles:
        command += f" --style {','.join(options.styles)}"
    command += " --workload toy,seed"
    if any(finding.expected == DONATES for _, finding in findings):
        command += " --donate"
    return f"equal; to measure it: {command}"
