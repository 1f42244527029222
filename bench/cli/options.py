"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Prompt = Annotated[str, typer.Option(help="Text to go on from; empty: a character drawn by seed.")]
Length = Annotated[int, typer.Option(help="Characters to write after the prompt.")]
Temperature = Annotated[
    float | None,
    typer.Option(help="Draw by probability, logits divided by this; without it, the likeliest."),
]
