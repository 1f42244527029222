"""The table at the end of a run: one for each workload and backend."""

from __future__ import annotations

from statistics import mean, median
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from bench.measure.cells import BASELINE, COLD, PURE_ONLY, Cell, Found
from bench.stats.ratios import ratio_to_baseline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NOTE = (
    "Steps beside {baseline}'s, in the same rounds; in brackets the lowest and highest of {blocks} "
    "blocks. Without a confidence interval, nothing is to be read into a few per cent. Loss: after "
    "training from the same weights | from the library's own initialisers. Trace, lower, compile: "
    "lowest-highest of the processes. Ops: by how many "
    "operations the lowered program differs; part: more than one program makes a step."
)


def tables(found: Mapping[Cell, Found]) -> Iterator[Table | Text]:
    """Yield tables and their captions for each workload and backend that was measured."""
    for workload, backend in dict.fromkeys((cell.workload, cell.backend) for cell in found):
        rows = {c: f for c, f in found.items() if (c.workload, c.backend) == (workload, backend)}
        baseline = rows.get(Cell(*BASELINE, workload, backend), Found())
        yield table(f"{workload} on {backend}", rows, baseline)
        blocks = len(baseline.seconds.get("step", []))
        if blocks:
            yield Text(NOTE.format(baseline="-".join(BASELINE), blocks=blocks))
        pure = {c: f for c, f in rows.items() if any(m in f.seconds for m in PURE_ONLY)}
        if pure:
            yield pure_table(pure)
        for entropy in {f.facts["final_loss"]["entropy"] for f in rows.values() if has_loss(f)}:
            if entropy is not None:
                yield Text(f"Entropy of the text: {entropy:.4f} nats per character.")
        for cell, row in rows.items():
            if row.failure is not None:
                yield Text(f"FAILED {cell}: {row.failure}", style="red")


def has_loss(found: Found) -> bool:
    """Tell whether a cell was trained."""
    return "final_loss" in found.facts


def pure_table(rows: Mapping[Cell, Found]) -> Table:
    """Return the table of what does not depend on how a step is written."""
    out = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    out.add_column("pure style of", no_wrap=True)
    for name in ("epoch ms\nby chunk", "epoch ms\none scan", "500 characters\nms"):
        out.add_column(name, justify="right", no_wrap=True)
    for cell, found in rows.items():
        out.add_row(cell.entrant, *(milliseconds(found, metric, digits=1) for metric in PURE_ONLY))
    return out


def table(title: str, rows: Mapping[Cell, Found], baseline: Found) -> Table:
    """Return the table of entrants x metrics."""
    out = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left")
    out.add_column("entrant", no_wrap=True)
    out.add_column("step ms\nx baseline", justify="right", no_wrap=True)
    for metric in COLD:
        out.add_column(f"{metric}\nms", justify="right", no_wrap=True)
    out.add_column("loss:\nsame|own", justify="right", no_wrap=True)
    out.add_column("ops\ndiffer", justify="right", no_wrap=True)
    for cell, found in rows.items():
        name = f"{cell.entrant}\n  {cell.style}"
        if found.failure is not None:
            out.add_row(name, Text("failed", style="red"), *[""] * (len(COLD) + 1), "")
            continue
        out.add_row(
            name,
            step(found, baseline),
            *(milliseconds(found, metric, spread=True) for metric in COLD),
            loss(found),
            program(found),
        )
    return out


def step(found: Found, baseline: Found) -> str:
    """Return a step's time in milliseconds and its ratio to the baseline."""
    blocks = found.seconds.get("step")
    if not blocks:
        return ""
    middle = 1e3 * median(second for block in blocks for second in block)
    reference = baseline.seconds.get("step")
    if not reference:
        return f"{middle:.3f}"
    ratio = ratio_to_baseline(blocks, reference)
    digits = 2 if ratio.highest < 10 else 1
    low, high = (f"{value:.{digits}f}" for value in (ratio.lowest, ratio.highest))
    return f"{middle:.3f}\n{ratio.ratio:.{digits}f} ({low}-{high})"


def milliseconds(found: Found, metric: str, digits: int = 0, *, spread: bool = False) -> str:
    """Return the median of a metric's times in milliseconds, or the lowest and the highest."""
    seconds = [second for block in found.seconds.get(metric, []) for second in block]
    if not seconds:
        return ""
    low, middle, high = (f"{1e3 * f(seconds):.{digits}f}" for f in (min, median, max))
    return f"{low}-{high}" if spread and low != high else middle


def loss(found: Found) -> str:
    """Return the final loss from the same weights, and from the library's own initialiser."""
    facts = found.facts.get("final_loss")
    if facts is None:
        return ""
    own = facts["own_initialiser"]
    return f"{facts['same_weights']:.3f}" + (f"\n{mean(own):.3f}" if own else "")


def program(found: Found) -> str:
    """Return how many operations the lowered program has more or fewer than the baseline's."""
    proof = found.facts["proof"]
    if not proof["program"]["whole"]:
        return "part"
    if proof["same_program_as_baseline"]:
        return "0"
    away = sum(map(abs, proof["operations_beside_baseline"].values()))
    return str(away) if away else "order"
