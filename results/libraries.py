"""A page for each library: what its styles cost, what to write, what each release has changed.

`publish.py` writes them to `libraries/`, each with a badge beside it: the JSON that shields.io's
endpoint takes (https://shields.io/badges/endpoint-badge).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.version import Version

import impls
from bench.cells import PURE, Arm
from bench.metrics import label
from bench.numbers import signed_amount, words
from bench.report.documents.run import describe_origin, list_remedies
from bench.report.markdown import table_lines
from bench.report.summary import View, list_views, make_summary_table
from bench.track.comparison import order_releases
from bench.wording import name_workload
from bench.worker.settings import ROOT
from results.tracking import weeks
from results.tracking.weeks import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.runfile.reader import Run

FOLDER = ROOT / "results/libraries"
TRACKING = ROOT / "results/tracking"
SLOW_SECONDS = 100e-6
"""Seconds added to a call above which a badge is orange: 3 % of a step of 3 ms."""


def make_pages(run: Run) -> dict[Path, str]:
    """Return the pages and badges of the libraries in a run, by their files."""
    [view] = list_views(run.results)
    files = {}
    for entrant in dict.fromkeys(arm.entrant for arm in view.arms):
        files[FOLDER / f"{entrant}.md"] = "\n".join(describe_library(entrant, run, view)) + "\n"
        files[FOLDER / f"{entrant}.json"] = json.dumps(make_badge(entrant, view)) + "\n"
    return files


def describe_library(entrant: str, run: Run, view: View) -> Iterator[str]:
    """Yield the lines of a library's page."""
    about = impls.find_declaration(entrant)
    version = run.results.versions.get(about.distribution, "")
    yield "<!-- made by `make results` -->"
    yield f"# {entrant}: {about.distribution} {version}\n"
    if about.note:
        yield f"{about.note}\n"
    yield "## What each style costs\n"
    table = make_summary_table(view)
    rows = [row for row in table.rows if Arm.parse(str(row.cells[0])).entrant == entrant]
    yield from table_lines(replace(table, rows=tuple(rows)).drop_empty_columns())
    yield f"\n{describe_origin(run)}. [What the marks mean](../../docs/words.md)\n"
    yield f"The styles are in [impls/{entrant}.py](../../impls/{entrant}.py).\n"
    remedies = [text for text in list_remedies(view) if text.startswith(f"{entrant}/")]
    if remedies:
        yield "## What to write\n"
    for remedy in remedies:
        first, *lines = remedy.splitlines()
        yield "\n".join([f"{first}\n", "```diff", *(line.strip("`") for line in lines), "```\n"])
    yield "## What its releases changed\n"
    if changes := list(list_changes(about.distribution)):
        yield from lines_of(("release", "change", "measured", "search"), changes)
        yield "\nNegative changes are savings. A search found each release and measured its change."
    else:
        yield "No search has traced a change to one of its releases."
    yield "[All weeks and searches](../tracking/README.md)\n"
    sides = f'--base "{about.distribution}=={version}" --new "{about.distribution} @ CHECKOUT"'
    yield "## To repeat it\n"
    yield f"```\npytest bench --entrant {entrant} --benchmark-json={entrant}.json"
    yield f"bakeoff ab {sides}\n```\n"
    badge = f"[{entrant}.json]({entrant}.json)"
    yield f"Badge: `https://img.shields.io/endpoint?url=`, followed by the address of {badge}."


def list_changes(distribution: str) -> list[tuple[str, ...]]:
    """Return the changes that searches have found in a package's releases, the newest first."""
    files = [*TRACKING.glob("*.json"), *weeks.FOLDER.glob("*.json")]
    changes = []
    for run in weeks.read_runs(files):
        record = run.results.search
        if record.package != distribution or record.stopped is not None:
            continue
        newest = max(Version(release) for release in record.releases if release)
        _, row = order_releases(record.releases, record.steps[-1].row)
        at = name_workload(record.cell.workload)
        what = f"{record.cell.arm} {label(record.metric)} at {at} {words(row)}"
        cells = f"{distribution} {newest}", what, run.when[:10], weeks.link(run)
        changes.append((newest, cells))
    return [cells for _, cells in sorted(changes, reverse=True)]


def make_badge(entrant: str, view: View) -> dict[str, object]:
    """Return the badge of a library: the time that its own style adds to a call."""
    about = impls.find_declaration(entrant)
    usual = [arm.style for arm in view.arms if arm.entrant == entrant]
    usual = [style for style in usual if style not in (*about.if_named, *about.references)]
    style = next((style for style in usual if style != PURE), PURE)
    row = view.host_costs.get(Arm(entrant, style))
    made = {"schemaVersion": 1, "label": f"{entrant}/{style}"}
    if row is None:  # the baseline itself
        return made | {"message": "the baseline", "color": "blue"}
    slow = row.low is not None and row.low > SLOW_SECONDS
    message = f"{signed_amount(row.value, row.unit)} a call"
    return made | {"message": message, "color": "orange" if slow else "brightgreen"}
