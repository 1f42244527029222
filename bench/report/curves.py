"""Loss curves of training logs on top of each other, as a Markdown table.

`python -m bench.report.curves LOG.jsonl [MORE.jsonl ...]`, logs being what `bakeoff train --log`
wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 16
"""Rows of the table; epochs in between are left out."""


class Curve(NamedTuple):
    """One training log."""

    run: dict[str, Any]
    losses: dict[int, float]
    """Mean loss in nats per character, by epoch."""


def read(path: Path) -> Curve:
    """Return the curve that a log holds."""
    header, *records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return Curve(header["run"], {record["epoch"]: record["loss"] for record in records})


def table(curves: Sequence[Curve]) -> str:
    """Return epochs x runs in Markdown, and the largest difference of two runs in each row."""
    epochs = sorted(set.intersection(*(set(curve.losses) for curve in curves)))
    every = max(1, len(epochs) // SHOWN)
    shown = [epoch for epoch in epochs if epoch % every == 0 or epoch == epochs[-1]]
    names = [f"{curve.run['entrant']} {curve.run['style']}" for curve in curves]
    lines = [f"| epoch | {' | '.join(names)} | spread |", "|--:|" + "--:|" * (len(names) + 1)]
    for epoch in shown:
        losses = [curve.losses[epoch] for curve in curves]
        cells = " | ".join(f"{loss:.4f}" for loss in losses)
        lines.append(f"| {epoch} | {cells} | {max(losses) - min(losses):.1e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table([read(Path(name)) for name in sys.argv[1:]]))
