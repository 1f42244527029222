"""The README's table from a run file: `bakeoff report RUN.json --format md`."""

from __future__ import annotations

import re

from bench.cells import BASELINE
from bench.metrics import STARTUP
from bench.report import scaling, wording
from bench.report.runs import TIME
from bench.report.wording import Facts, is_baseline, measured
from bench.worker.settings import ROOT

SPECIAL = re.compile(r"([\\`*\[\]<>|])")

type Row = dict[str, Facts]
"""The cells of a style, by workload."""


def table(section: Facts) -> str:
    """Return styles x metrics in Markdown, each row linking to the entrant's file."""
    cells = section["cells"]
    if not cells:
        return "Nothing was measured."
    if any(TIME in cell["metrics"] for cell in cells):
        return plain(cells)
    workloads, main = wording.workloads(cells), wording.main_workload(cells)
    rows: dict[tuple[str, str, str], Row] = {}
    for cell in cells:
        row = rows.setdefault((cell["entrant"], cell["style"], cell["backend"]), {})
        row[cell["workload"]] = cell
    backends = dict.fromkeys(backend for _, _, backend in rows)
    out = [
        f"| entrant, style | {' | '.join(f'step at `{w}`' for w in workloads)} | "
        f"import to first step, at `{main}` | Python calls | program | "
        "final loss: same weights, own |",
        f"|---|{'--:|' * len(workloads)}--:|--:|---|--:|",
    ]
    for (entrant, style, backend), row in rows.items():
        first = f"{linked(entrant)} {quoted(style)}"
        texts = [first if len(backends) == 1 else f"{first} on {escaped(backend)}"]
        texts += [step(row.get(workload)) for workload in workloads]
        cell = row.get(main)
        texts += [""] * 4 if cell is None or cell["failure"] is not None else facts(cell)
        out.append(f"| {' | '.join(texts)} |")
    margin = wording.percent(section["plan"]["margin"])
    out += [
        "",
        f"Ratios to {BASELINE[0]}; `=`: within ±{margin}, `?`: not told apart, "
        "**bold**: slower or faster.",
        *(f"{escaped(n)}: {escaped(text)}" for n, text in section.get("notes", {}).items()),
    ]
    if section.get("scaling"):
        out += ["", scaling.markdown(section["scaling"])]
    return "\n".join(out)


def linked(entrant: str) -> str:
    """Return an entrant, with a link to its file if it is this project's."""
    known = entrant.isidentifier() and (ROOT / "impls" / f"{entrant}.py").exists()
    return f"[{entrant}](impls/{entrant}.py)" if known else escaped(entrant)


def quoted(name: str) -> str:
    """Return a name as code, where it is one."""
    return f"`{name}`" if name.isidentifier() else escaped(name)


def plain(cells: list[Facts]) -> str:
    """Return the medians of a file of pytest-benchmark alone, and their ratios by group."""
    out = ["| benchmark | group | median | ratio of medians |", "|---|---|--:|--:|"]
    for cell in cells:
        found = cell["metrics"][TIME]
        ratio = f"{found['ratio']:.2f}" if "ratio" in found else ""
        name, group = escaped(cell["entrant"]), escaped(cell["workload"])
        out.append(f"| {name} | {group} | {wording.seconds(found['median'])} | {ratio} |")
    return "\n".join(out)


def facts(cell: Facts) -> list[str]:
    """Return what is said of one workload alone."""
    calls = cell["exact"].get("python_calls")
    program = "" if is_baseline(cell) else wording.program(cell["proof"])
    return [cold(cell), "" if calls is None else str(calls), program, loss(cell["final_loss"])]


def step(cell: Facts | None) -> str:
    """Return a step's ratio to the baseline with its interval, and its median; or its failure."""
    if cell is None:
        return ""
    if cell["failure"] is not None:
        return f"failed: {escaped(cell['failure'])}"
    found = measured(cell, "step")
    if found is None:
        missing = cell["metrics"].get("step", {}).get("missing", "")
        return escaped(missing)
    median = wording.amount(found["median"], found["unit"])
    if is_baseline(cell):
        return f"1, {median}"
    if found.get("ratio") is None:
        return median
    sign = wording.mark(found)
    ratio = wording.ratio(found)
    return f"{sign} {ratio}, {median}" if sign else f"**{ratio}**, {median}"


def cold(cell: Facts) -> str:
    """Return the sum of the medians of what happens before the first step, if all are there."""
    found = [measured(cell, metric) for metric in STARTUP]
    medians = [metric["median"] for metric in found if metric is not None]
    return f"{1e3 * sum(medians):.0f} ms" if len(medians) == len(STARTUP) else ""


def loss(final: Facts | None) -> str:
    """Return the final losses, in nats per character."""
    if final is None:
        return ""
    own = wording.own_loss(final)
    return wording.loss(final["same_weights"]) + ("" if own is None else f", {wording.loss(own)}")


def escaped(text: str) -> str:
    """Return a text that Markdown and its tables show as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(wording.printable(text).split()))
