"""Where training gets to: from the same weights, and from the libraries' own initialisers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import altair

from bench.report import wording
from bench.report.charts.drawn import ROW, Figure, chart, coloured, dashed, row_axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.wording import Facts


ONE_CURVE = 0.01
"""Nats within which losses from the same weights are one curve."""


def curves(cells: Sequence[Facts], workload: str) -> Figure | None:
    """Return the losses from the same weights on top of each other, over the text's entropy."""
    trained = [c for c in cells if (c["final_loss"] or {}).get("curve_same_weights")]
    if not trained:
        return None
    every = trained[0]["final_loss"]["mean_of_steps"]
    rows = [
        {
            "style": wording.name(cell),
            "entrant": cell["entrant"],
            "way": cell["style"],
            "steps": (i + 1) * every,
            "loss": loss,
        }
        for cell in trained
        for i, loss in enumerate(cell["final_loss"]["curve_same_weights"])
    ]
    points = list(zip(*(c["final_loss"]["curve_same_weights"] for c in trained), strict=False))
    spread = max(max(losses) - min(losses) for losses in points)
    entropy = trained[0]["final_loss"].get("entropy")
    y = "loss, nats per character" + ("" if entropy is None else "; grey: the text's entropy")
    layers = [
        chart(rows)
        .mark_line(point=True, opacity=0.6)
        .encode(
            x=altair.X("steps:Q", title=f"training steps, means of {every}"),
            y=altair.Y("loss:Q", title=y, scale=altair.Scale(zero=False)),
            color=coloured(cells),
            strokeDash=dashed(rows),
            detail="style:N",
            tooltip=["style:N", "steps:Q", altair.Tooltip("loss:Q", format=".4f")],
        )
    ]
    if entropy is not None:
        layers.append(
            chart([{"entropy": entropy, "what": "entropy of the text"}])
            .mark_rule(strokeDash=[4, 4], color="#888")
            .encode(y="entropy:Q", tooltip=["what:N", "entropy:Q"])
        )
    title = f"{wording.name(trained[0])}'s loss from the baseline's weights"
    if len(trained) > 1:
        how = "follow one curve, less than" if spread <= ONE_CURVE else "part: they get up to"
        title = f"From the same weights, {len(trained)} styles {how} {above(spread)} nats apart"
    ends = "; ".join(f"{wording.name(c)} {c['final_loss']['same_weights']:.4f}" for c in trained)
    floor = "" if entropy is None else f" The text's entropy is {entropy:.3f}."
    return Figure(
        "curves",
        title,
        f"Loss at the end, at {wording.sized(workload)}: {ends}.{floor}",
        altair.layer(*layers).properties(width="container", height=300),
    )


def above(value: float) -> str:
    """Return a number with one digit that is not below it."""
    if value <= 0:
        return "1e-9"
    scale = 10.0 ** math.floor(math.log10(value))
    return f"{(math.floor(value / scale) + 1) * scale:.1g}"


def initialisers(cells: Sequence[Facts], workload: str) -> Figure | None:
    """Return the losses from libraries' own initialisers, a point for each seed."""
    trained = [c for c in cells if (c["final_loss"] or {}).get("own_initialiser")]
    if len(trained) < 2:
        return None
    rows = [
        {"style": wording.name(c), "entrant": c["entrant"], "loss": loss, "seed": seed}
        for c in trained
        for seed, loss in enumerate(c["final_loss"]["own_initialiser"])
    ]
    means = {wording.name(c): wording.own_loss(c["final_loss"]) or 0.0 for c in trained}
    best, worst = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    steps = trained[0]["final_loss"]["steps"]
    made = (
        chart(rows)
        .mark_point(filled=True, size=70, opacity=0.8)
        .encode(
            x=altair.X(
                "loss:Q", title="final loss, nats per character", scale=altair.Scale(zero=False)
            ),
            y=row_axis(trained),
            color=coloured(cells),
            tooltip=["style:N", "seed:Q", altair.Tooltip("loss:Q", format=".4f")],
        )
        .properties(width="container", height=ROW * len(trained))
    )
    title = (
        f"From their own initialisers, {steps} steps lead to {wording.loss(means[best])} "
        f"({best}) to {wording.loss(means[worst])} ({worst}), means of seeds"
    )
    text = "; ".join(f"{name} {wording.loss(mean)}" for name, mean in means.items())
    return Figure(
        "initialisers",
        title,
        f"Means over seeds at {wording.sized(workload)}, in nats per character: {text}.",
        made,
    )
