"""Loss curves of training logs, which `bakeoff train --log` wrote: a picture or a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bench.runfile.atomic_write import whole_file
from common.errors import BakeoffError, shortened
from common.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOST_BYTES = 1 << 30
"""Of a log: ten million epochs."""
SHOWN = 16
"""Rows of the table; epochs in between are left out."""


class Curve(msgspec.Struct):
    """One training: what its log says of it in the first line, and its losses."""

    entrant: str
    style: str = ""
    entropy: float | None = None
    """Of the text, in nats per character."""
    losses: dict[int, float] = {}
    """Mean loss in nats per character, by epoch."""
    file: str = ""
    """Name of the log."""


class FirstLine(msgspec.Struct):
    """Of a log."""

    run: Curve


class Epoch(msgspec.Struct):
    """A further line."""

    epoch: int
    loss: float


def read(path: Path) -> Curve:
    """Return the curve that a log holds.

    Raises:
        BakeoffError: it cannot be read, or is not what `bakeoff train --log` wrote.
    """
    try:
        first, *lines = read_regular(path, MOST_BYTES).splitlines() or [b""]
        curve = msgspec.json.decode(first, type=FirstLine).run
        epochs = [msgspec.json.decode(line, type=Epoch) for line in lines]
    except OSError as error:
        raise BakeoffError(
            f"{shortened(path)} cannot be read ({error.strerror}); give a training log"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BakeoffError(
            f"{path} is no training log; give what `bakeoff train --log` wrote"
        ) from error
    if not epochs:
        raise BakeoffError(f"{path} has no epoch yet; train one, or give another log")
    curve.losses = {each.epoch: each.loss for each in epochs}
    curve.file = path.stem
    return curve


def named(curves: Sequence[Curve]) -> dict[str, Curve]:
    """Return curves by what they are called; two of the same style have their files' names too."""
    plain = [f"{c.entrant} {c.style}".strip() for c in curves]
    return {
        name if plain.count(name) == 1 else f"{name}, {curve.file}": curve
        for name, curve in zip(plain, curves, strict=True)
    }


def check_picture(path: Path) -> None:
    """Raise BakeoffError unless a picture can have this name."""
    if path.suffix not in (".svg", ".png"):
        raise BakeoffError(f"a picture's name ends in .svg or .png, {path} does not: name it so")


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Draw loss curves on top of each other, as SVG or PNG by the ending of `path`.

    Raises:
        BakeoffError: the ending is another one, or the file cannot be written.
    """
    import altair

    from bench.report.charts import figure

    check_picture(path)
    curves_by_name = named(curves)
    rows = [
        {"curve": name, "epoch": epoch, "loss": loss}
        for name, curve in curves_by_name.items()
        for epoch, loss in curve.losses.items()
    ]
    last = {name: curve.losses[max(curve.losses)] for name, curve in curves_by_name.items()}
    low, high = min(last, key=last.__getitem__), max(last, key=last.__getitem__)
    title = f"{low} ends at {last[low]:.3f} nats per character"
    if len(curves) > 1:
        title += f", {high} at {last[high]:.3f}"
    floors = {curve.entropy for curve in curves} - {None}
    y = "mean loss, nats per character" + ("; grey: the text's entropy" if floors else "")
    entrants = [curve.entrant for curve in curves]
    scale = altair.Scale(domain=list(curves_by_name), range=figure.colours_of(entrants))
    if len(set(entrants)) < len(entrants):  # one has several curves
        scale = altair.Scale(range=list(figure.PALETTE))
    lines = figure.chart(rows).encode(
        x=altair.X("epoch:Q", title="epoch", axis=altair.Axis(tickMinStep=1)),
        y=altair.Y("loss:Q", title=y, scale=altair.Scale(zero=False)),
        color=altair.Color("curve:N", title=None, scale=scale),
    )
    rules = figure.chart([{"entropy": e} for e in floors]).encode(y="entropy:Q")
    layers = [rules.mark_rule(strokeDash=[4, 4], color="#888")] if floors else []
    chart = altair.layer(lines.mark_line(opacity=0.8), *layers)
    chart = chart.properties(width=560, height=300, title=title).configure(background="white")
    with whole_file(path) as partial:
        chart.save(str(partial), format=path.suffix[1:], ppi=144)


def table(curves: Sequence[Curve]) -> str:
    """Return epochs x runs in Markdown, and the largest difference of two runs in each row."""
    from bench.report.markdown import markdown_table
    from bench.report.table import Column, Row, Table

    epochs = sorted(set.intersection(*(set(curve.losses) for curve in curves)))
    every = max(1, len(epochs) // SHOWN)
    shown = [epoch for epoch in epochs if epoch % every == 0 or epoch == epochs[-1]]
    rows = []
    for epoch in shown:
        losses = [curve.losses[epoch] for curve in curves]
        spread = f"{max(losses) - min(losses):.1e}"
        rows.append(Row((str(epoch), *(f"{loss:.4f}" for loss in losses), spread)))
    columns = [Column(title, number=True) for title in ("epoch", *named(curves), "spread")]
    return "\n".join(markdown_table(Table(tuple(columns), tuple(rows))))
