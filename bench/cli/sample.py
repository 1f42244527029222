"""`bakeoff sample`: what a trained model writes, in whichever library."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Length, Prompt, Temperature

EXAMPLES = """Examples:\n
bakeoff sample kafka.safetensors --prompt Gregor\n
bakeoff sample kafka.safetensors --entrant equinox --temperature 0.8 --seed 3"""


def sample(
    weights: Annotated[Path, typer.Argument(help="A file that `bakeoff train --save` wrote.")],
    prompt: Prompt = "",
    length: Length = 500,
    temperature: Temperature = None,
    seed: Annotated[int, typer.Option(help="Seeds what is drawn.")] = 0,
    entrant: Annotated[
        str | None, typer.Option(help="Library that samples.", show_default="the one that trained")
    ] = None,
) -> None:
    """Write text with trained weights, in the library that trained them or in another."""
    import impls
    from common import weights as disk
    from common.sample import sample as write

    saved = disk.load(weights)
    model = impls.load(saved.entrant if entrant is None else entrant).build(saved.model)
    params = model.from_weights(saved.checkpoint.weights)
    print(write(model, params, saved.model, saved.vocab, prompt, length, temperature, seed))
