"""The table of what each trick gains on its own, from a run that measured them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import impls
from bench.cells import BASELINE
from bench.report import markdown, wording
from bench.tuned.beside import TUNED
from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from bench.report.runs import Run
    from bench.report.wording import Facts

TRICKS = ROOT / "bench" / "tuned" / "tricks.py"


def table(run: Run) -> str:
    """Return tricks x workloads in Markdown: ratios to the shared step, and `tuned` at the end.

    Raises:
        BakeoffError: the run did not measure the tricks.
    """
    cells = [cell for cell in run.section["cells"] if cell["entrant"] == TRICKS.stem]
    if not cells:
        raise BakeoffError(
            f"{run.name} has no tricks; measure them: "
            f"pytest bench --entrant {BASELINE[0]} --entrant {TRICKS.relative_to(ROOT)}"
        )
    cells += [c for c in run.section["cells"] if (c["entrant"], c["style"]) == TUNED]
    rows: dict[tuple[str, str], dict[tuple[str, str], Facts]] = {}
    for cell in cells:
        row = rows.setdefault((cell["entrant"], cell["style"]), {})
        row[cell["workload"], cell["backend"]] = cell
    backends = dict.fromkeys(cell["backend"] for cell in cells)
    columns = [(w, b) for w in wording.workloads(cells) for b in backends]
    heads = [f"`{w}`" if len(backends) == 1 else f"`{w}` on {b}" for w, b in columns]
    said = docs()
    out = [
        f"| trick | what it does | {' | '.join(f'step at {head}' for head in heads)} |",
        f"|---|---|{'--:|' * len(columns)}",
    ]
    for name, row in rows.items():
        entrant, style = name
        first = markdown.quoted(style) if name != TUNED else f"{entrant} `{style}`: most of them"
        texts = [first, said.get(name, ""), *(markdown.step(row.get(key)) for key in columns)]
        out.append(f"| {' | '.join(texts)} |")
    margin = wording.percent(run.section["plan"]["margin"])
    legend = (
        f"Ratios to the shared step of {BASELINE[0]}, with 95 % intervals; below 1 is a gain; "
        f"`=`: within ±{margin}, `?`: not told apart, **bold**: slower or faster."
    )
    return "\n".join([*out, "", legend])


def docs() -> dict[tuple[str, str], str]:
    """Return what each style says of itself, by entrant and style."""
    impls.add(TRICKS)
    styles = impls.load(TRICKS.stem).styles
    found = {(TRICKS.stem, name): style for name, style in styles.items()}
    found[TUNED] = impls.load(TUNED[0]).style(TUNED[1])
    said = {name: inspect.cleandoc(style.__doc__ or "") for name, style in found.items()}
    return said | {(TRICKS.stem, BASELINE[1]): "None: what it differs by is noise."}
