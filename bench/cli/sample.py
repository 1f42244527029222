"""`bakeoff sample`: text from a trained model, in any library."""

from pathlib import Path
from typing import Annotated

import typer

import impls
from bench.cli.train import use_backend
from bench.streams import print_text

EXAMPLES = """\
bakeoff sample book.safetensors --prompt Gregor
bakeoff sample book.safetensors --entrant equinox --temperature 0.8 --seed 3"""


def sample(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS", help="A file that `bakeoff train --save` wrote.")
    ],
    prompt: Annotated[
        str, typer.Option(help="Text to continue; if empty, the seed draws a character.")
    ] = "",
    length: Annotated[int, typer.Option(help="Characters to write after the prompt.")] = 500,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Draw each character by its probability, with logits divided by this.",
            show_default="always the likeliest character",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the characters drawn.")] = 0,
    entrant: Annotated[
        str | None, typer.Option(help="Library that samples.", show_default="the one that trained")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="cpu, gpu, tpu, … or one device of it, as gpu:1.",
            show_default="what jax prefers",
        ),
    ] = None,
) -> None:
    """Write text with trained weights, in the library that trained them or in another."""
    use_backend(backend)
    from bench import weights as disk
    from common.sample import sample as write

    saved = disk.load(weights)
    model = impls.load(saved.entrant if entrant is None else entrant).build(saved.model)
    params = model.from_weights(saved.checkpoint.weights)
    print_text(write(model, params, saved.model, saved.vocab, prompt, length, temperature, seed))
