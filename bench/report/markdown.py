"""The README's table from a run file: `python -m bench.report.markdown RUN.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

WORKLOADS = ("toy", "seed")

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
        "| entrant, style | step, `toy` | step, `seed` | trace + lower + compile | "
        "lowered program beside plain JAX's | loss: same weights, own |",
        "|---|--:|--:|--:|---|--:|",
    ]
    for entrant, style in dict.fromkeys(key[:2] for key in found):
        cells = [f"[{entrant}](impls/{entrant}.py) `{style}`"]
        cells += [step(found[entrant, style, workload, "step"]) for workload in WORKLOADS]
        cold = [found[entrant, style, "seed", metric] for metric in ("trace", "lower", "compile")]
        cells.append(f"{1e3 * sum(b['stats']['median'] for b in cold):.0f} ms")
        cells.append(program(found[entrant, style, "seed", "step"]["extra_info"]["proof"]))
        cells.append(loss(found[entrant, style, "seed", "final_loss"]["extra_info"]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def step(benchmark: dict[str, Any]) -> str:
    """Return a step's median and its ratio to the baseline, with the blocks' lowest and highest."""
    ratio = benchmark["extra_info"]["ratio_to_baseline"]
    spread = f"{ratio['ratio']:.2f} ({ratio['lowest']:.2f}–{ratio['highest']:.2f})"
    return f"{1e3 * benchmark['stats']['median']:.2f} ms × {spread}"


def program(proof: dict[str, Any]) -> str:
    """Return in words how a program differs."""
    if not proof["whole_step"]:
        return "the gradient alone"
    if proof["same_program_as_baseline"]:
        return "the same"
    counts = proof["operations_beside_baseline"]
    named = ", ".join(f"{n:+d} {kind.removeprefix('stablehlo.')}" for kind, n in counts.items())
    return named if len(counts) <= len(WORKLOADS) else f"{sum(counts.values()):+d} operations"


def loss(facts: dict[str, Any]) -> str:
    """Return the final losses, in nats per character."""
    own = facts["own_initialiser"]
    return f"{facts['same_weights']:.3f}" + (f", {mean(own):.3f}" if own else "")


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
