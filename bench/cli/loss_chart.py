"""The picture of a training's loss curve, which `bakeoff train --plot` draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import BakeoffError
from common.files import partial_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WIDTH, HEIGHT = 560, 300
"""Size of the plot without its axes, in pixels."""
PPI = 144
"""Resolution of a PNG, in pixels per inch; 72 is one to one."""


def require_picture(path: Path) -> None:
    """Raise BakeoffError unless the ending of a file's name is that of a picture."""
    if path.suffix not in (".svg", ".png"):
        raise BakeoffError(f"a picture's name ends in .svg or .png, {path} does not: name it so")


def draw(path: Path, name: str, losses: Mapping[int, float], entropy: float | None) -> None:
    """Draw a loss curve, as SVG or PNG by the ending of `path`.

    Args:
        path: Of the new file.
        name: What was trained, for the title.
        losses: Mean loss of each epoch by its number, in nats per character.
        entropy: Entropy of the text in nats per character, for a grey line; None if not known.

    Raises:
        BakeoffError: the file cannot be written.
    """
    import altair  # here, since it takes a second

    last = max(losses)
    rows = [{"epoch": epoch, "loss": loss} for epoch, loss in losses.items()]
    y = "mean loss, nats per character" + ("" if entropy is None else "; grey: the text's entropy")
    curve = altair.Chart(altair.Data(values=rows)).mark_line()
    chart = curve.encode(
        x=altair.X("epoch:Q", title="epoch", axis=altair.Axis(tickMinStep=1)),
        y=altair.Y("loss:Q", title=y, scale=altair.Scale(zero=False)),
    )
    if entropy is not None:
        floor = altair.Chart(altair.Data(values=[{"loss": entropy}])).encode(y="loss:Q")
        chart = chart + floor.mark_rule(strokeDash=[4, 4], color="#888")
    title = f"{name}: {losses[last]:.3f} nats per character in epoch {last}"
    chart = chart.properties(width=WIDTH, height=HEIGHT, title=title).configure(background="white")
    try:
        with partial_file(path) as partial:
            chart.save(str(partial), format=path.suffix[1:], ppi=PPI)
    except OSError as error:
        raise BakeoffError(
            f"cannot write --plot {path}: {error.strerror}; make room there"
        ) from error
