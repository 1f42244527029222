"""`bakeoff train`: the tutorial's training run, in any entrant and style."""

from __future__ import annotations

import os
import shlex
import signal
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

from bench.cli.training import prepared, use
from common.config import check_size
from common.errors import BakeoffError, InterruptedRunError, require_folder_to_be, require_new

if TYPE_CHECKING:
    from bench.cli.training import TrainingRun
    from common.weights import Saved

EXAMPLES = """Examples:
bakeoff train --entrant equinox --epochs 50
bakeoff train --corpus book.txt --prompt Gregor --save book.safetensors
bakeoff train --resume book.safetensors --epochs 400 --entrant haiku"""

EVERY = 25
"""Epochs after which a run shows a sample, and saves if it was given a file; the tutorial's."""
LAST = 10
"""Epochs whose mean loss is shown at the end: a single one's depends on its window of the text."""


def option(text: str, panel: str) -> Any:
    """Return an option whose default stands in its text, since a resumed run's file may have it."""
    return typer.Option(help=text, show_default=False, rich_help_panel=panel)


MODEL, DATA, TRAINING, OUTPUT = "Model", "Data", "Training", "What it shows and keeps"


def train(
    entrant: Annotated[str | None, option("Library (default: pure_jax)", MODEL)] = None,
    style: Annotated[str | None, option("Way to write the step (default: pure)", MODEL)] = None,
    width: Annotated[int | None, option("Units of each layer (default: 128)", MODEL)] = None,
    layers: Annotated[int | None, option("Tanh layers (default: 3)", MODEL)] = None,
    corpus: Annotated[
        str | None,
        option(
            "toy, synthetic, metamorphosis, tinyshakespeare, or a UTF-8 file of at most 128 MiB "
            "(default: synthetic)",
            DATA,
        ),
    ] = None,
    chunk: Annotated[int | None, option("Characters of one step (default: 256)", DATA)] = None,
    batch: Annotated[int | None, option("Streams read side by side (default: 1)", DATA)] = None,
    epoch_chars: Annotated[int | None, option("Characters an epoch (default: 10000)", DATA)] = None,
    epochs: Annotated[
        int, option("Total, with those of a resumed run (default: 100)", TRAINING)
    ] = 100,
    learning_rate: Annotated[float | None, option("Adam's step (default: 0.002)", TRAINING)] = None,
    weight_decay: Annotated[
        float | None, option("Decoupled weight decay (default: 1e-7)", TRAINING)
    ] = None,
    seed: Annotated[int | None, option("Seed of weights and texts (default: 0)", TRAINING)] = None,
    backend: Annotated[
        str | None, option("cpu, gpu, tpu, …, or a device, gpu:1 (default: jax chooses)", TRAINING)
    ] = None,
    sample_every: Annotated[
        int, option("Epochs between samples; 0: none (default: 25)", OUTPUT)
    ] = EVERY,
    prompt: Annotated[
        str, option("Start of samples; empty: a character drawn by seed", OUTPUT)
    ] = "",
    save: Annotated[Path | None, option("New file for the weights.", OUTPUT)] = None,
    resume: Annotated[
        Path | None, option("Weights to continue, and to save to unless --save is given.", OUTPUT)
    ] = None,
) -> None:
    """Train the character RNN on a text and show its samples.

    Ctrl-C saves what is done and says how to resume it.
    """
    if save is not None and save != resume:
        require_new(save, "--save")
    elif resume is not None and os.path.isfile(resume):  # noqa: PTH113 -- False for any bad name
        require_folder_to_be(resume.parent, "--resume")
    check_size("epochs", epochs, least=0)
    check_size("sample-every", sample_every, least=0)
    use(backend)
    options: dict[str, object] = {"entrant": entrant, "style": style, "seed": seed}
    options |= {"width": width, "layers": layers, "corpus": corpus, "chunk": chunk, "batch": batch}
    options |= {"epoch_chars": epoch_chars, "learning_rate": learning_rate}
    options |= {"weight_decay": weight_decay}
    given = {name: value for name, value in options.items() if value is not None}
    run = prepared(given, resume, epochs, sample_every, prompt)
    further = {"epochs": epochs, "sample-every": sample_every, "prompt": prompt, "backend": backend}
    texts = [f"--{name}={value}" for name, value in further.items() if value not in (None, "")]
    follow(run, save or resume, texts)


def follow(run: TrainingRun, path: Path | None, further: list[str]) -> None:
    """Train, showing and saving as it goes.

    Args:
        run: To train.
        path: Of the weights; without one, they are kept only if the run is cut off.
        further: Options of the command that goes on, beside the file.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM.
        BakeoffError: the training failed, or the file cannot be written.
    """
    start = last = run.start
    losses: list[float] = []
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(run.heading, flush=True)
        for epoch in run.epochs():
            last = replace(start, checkpoint=epoch.checkpoint, epoch=epoch.number + 1)
            losses = [*losses, epoch.loss][-LAST:]
            print(run.lines(epoch), flush=True)
            if path is not None and last.epoch % EVERY == 0:
                keep(last, path)
        if losses:
            of = "epoch" if len(losses) == 1 else f"{len(losses)} epochs"
            mean = sum(losses) / len(losses)
            print(f"mean loss of the last {of}: {mean:.4f} nats per character")
        if path is not None:
            print(f"saved to {keep(last, path)}")
    except (KeyboardInterrupt, BakeoffError) as error:
        if last is start:
            raise
        kind = type(error) if isinstance(error, BakeoffError) else InterruptedRunError
        kept = keep(last, path)
        done = f"{last.epoch} epoch{'' if last.epoch == 1 else 's'}"
        command = shlex.join(["bakeoff", "train", f"--resume={kept}", *further])
        raise kind(
            f"{str(error) or 'interrupted'}; {done} saved to {kept}; go on with: {command}"
        ) from error
    except BaseException:  # a reader that has left, or a mistake of ours
        if path is not None and last is not start:
            keep(last, path)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def keep(saved: Saved, path: Path | None) -> Path:
    """Save to `path`, or to a new file of this folder where none was asked for."""
    from common import weights as disk

    if path is None:
        names = (Path(f"bakeoff-{saved.entrant}-{number}.safetensors") for number in count(1))
        path = next(name for name in names if not name.exists())
    disk.save(path, saved)
    return path
