"""The README's table from a run file: `python -m bench.report.markdown RUN.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

WORKLOADS = ("toy", "seed")
COLD = ("trace", "lower", "compile")
LISTED = 3
"""Kinds of operations that are named."""

type Entries = dict[tuple[str, str, str, str], dict[str, Any]]
"""Benchmarks by entrant, style, workload and metric."""


def entries(run: dict[str, Any]) -> Entries:
    """Return a run's benchmarks by what they measure."""
    names = ("entrant", "style", "workload", "metric")
    return {tuple(b["extra_info"][n] for n in names): b for b in run["benchmarks"]}


def table(run: dict[str, Any]) -> str:
    """Return styles x metrics in Markdown, each row linking to the entrant's file."""
    found = entries(run)
    lines = [
        "| entrant, style | step at `toy` | step at `seed` | trace + lower + compile | "
        "program | final loss: same weights, own |",
        "|---|--:|--:|--:|---|--:|",
    ]
    for entrant, style in dict.fromkeys(key[:2] for key in found):
        cells = [f"[{entrant}](impls/{entrant}.py) `{style}`"]
        cells += [step(found.get((entrant, style, workload, "step"))) for workload in WORKLOADS]
        seed = {key[3]: found[key] for key in found if key[:3] == (entrant, style, "seed")}
        cells += [cold(seed), program(seed.get("step")), loss(seed.get("final_loss"))]
        lines.append(f"| {' | '.join(cells)} |")
    for cell, reason in run["bakeoff"]["failed"].items():
        lines.append(f"| {cell} | failed: {reason.replace('|', '/')} |")
    return "\n".join(lines)


def cold(seed: dict[str, dict[str, Any]]) -> str:
    """Return the lowest and the highest sum of trace, lower and compile of a process."""
    if not set(COLD) <= set(seed):
        return ""
    sums = [
        1e3 * sum(times) for times in zip(*(seed[m]["stats"]["data"] for m in COLD), strict=False)
    ]
    return f"{min(sums):.0f}–{max(sums):.0f} ms"


def step(benchmark: dict[str, Any] | None) -> str:
    """Return a step's median and its ratio to the baseline, with the blocks' lowest and highest."""
    if benchmark is None:
        return ""
    milliseconds = 1e3 * benchmark["stats"]["median"]
    ratio = benchmark["extra_info"].get("ratio_to_baseline")
    if ratio is None:
        return f"{milliseconds:.3g} ms"
    spread = f"{ratio['ratio']:.2f} ({ratio['lowest']:.2f}–{ratio['highest']:.2f})"
    return f"{spread}, {milliseconds:.3g} ms"


def program(benchmark: dict[str, Any] | None) -> str:
    """Return in words how a program differs."""
    if benchmark is None:
        return ""
    proof = benchmark["extra_info"]["proof"]
    if not proof["whole_step"]:
        return "the gradient alone"
    if proof["same_program_as_baseline"]:
        return "the same"
    counts = proof["operations_beside_baseline"]
    named = ", ".join(f"{n:+d} {kind.removeprefix('stablehlo.')}" for kind, n in counts.items())
    return named if len(counts) <= LISTED else f"{sum(counts.values()):+d} operations"


def loss(benchmark: dict[str, Any] | None) -> str:
    """Return the final losses, in nats per character."""
    if benchmark is None:
        return ""
    facts = benchmark["extra_info"]
    own = facts["own_initialiser"]
    return f"{facts['same_weights']:.3f}" + (f", {mean(own):.3f}" if own else "")


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
