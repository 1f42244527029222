"""`bakeoff train`: the tutorial's training run, in any entrant and style."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins
from msgspec.structs import replace

from bench.cli.backend import use
from bench.cli.loss_chart import draw, require_picture
from bench.cli.training_run import Options, TrainingRun, assemble
from common.errors import BakeoffError, InterruptedRunError, require_folder_to_be, require_new

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.weights import Saved

EXAMPLES = """Examples:\n
bakeoff train --entrant equinox --epochs 50\n
bakeoff train --corpus book.txt --prompt Gregor --save book.safetensors\n
bakeoff train --resume book.safetensors --epochs 400 --entrant haiku\n
bakeoff train --log losses.jsonl --plot losses.svg"""

EVERY = 25
"""Epochs after which a run shows a sample, and saves if it was given a file."""


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
    epoch_mode: Annotated[
        str, option("chunk: a call each; scan: one program (default: chunk)", TRAINING)
    ] = "chunk",
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
    log: Annotated[
        str | None, option("New file for the loss curve, as JSON lines; -: the output.", OUTPUT)
    ] = None,
    plot: Annotated[Path | None, option("New .svg or .png of the loss curve.", OUTPUT)] = None,
) -> int:
    """Train the character RNN on a text and show its samples.

    Ctrl-C saves what is done and says how to resume it.
    """
    require_files(save, resume, log, plot)
    use(backend)
    options = Options(
        entrant=entrant,
        style=style,
        corpus=corpus,
        seed=seed,
        model={"width": width, "layers": layers},
        data={"chunk": chunk, "batch": batch, "epoch_chars": epoch_chars},
        optimiser={"learning_rate": learning_rate, "weight_decay": weight_decay},
        epochs=epochs,
        epoch_mode=epoch_mode,
        sample_every=sample_every,
        prompt=prompt,
    )
    follow(assemble(options, resume), save or resume, log, plot)
    return 0


def require_files(
    save: Path | None, resume: Path | None, log: str | None, plot: Path | None
) -> None:
    """Raise BakeoffError unless all files can be written, before any library is imported."""
    if save is not None and save != resume:
        require_new(save, "--save")
    elif resume is not None and os.path.isfile(resume):  # noqa: PTH113 -- False for any bad name
        require_folder_to_be(resume.parent, "--resume")
    if log is not None and log != "-":
        require_new(Path(log), "--log")
        if save is not None and Path(log).resolve() == save.resolve():
            raise BakeoffError(f"--save and --log are both {log}; name two files")
    if plot is not None:
        require_picture(plot)
        require_new(plot, "--plot")


def follow(run: TrainingRun, path: Path | None, log: str | None, plot: Path | None) -> None:
    """Train, showing, logging and saving as it goes; draw the losses at the end."""
    from bench.cli.progress import TrainingProgress

    start = last = run.start
    progress = TrainingProgress(run, to_stdout=log != "-")
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        write(log, {"run": header(run)})
        with progress:
            for epoch in run.epochs():
                last = replace(start, checkpoint=epoch.checkpoint, epoch=epoch.number + 1)
                progress.epoch(epoch)
                write(log, {"epoch": epoch.number, "loss": epoch.loss, "seconds": epoch.seconds})
                if path is not None and last.epoch % EVERY == 0:
                    keep(last, path)
        if path is not None:
            progress.say(f"saved to {keep(last, path)}")
    except (KeyboardInterrupt, BakeoffError) as error:
        if last is start:
            raise
        kind = type(error) if isinstance(error, BakeoffError) else InterruptedRunError
        kept = keep(last, path)
        done = f"{last.epoch} epoch{'' if last.epoch == 1 else 's'}"
        raise kind(
            f"{str(error) or 'interrupted'}; {done} saved to {kept}; "
            f"go on with: {resume_command(kept)}"
        ) from error
    except BaseException:  # a reader that has left, or a mistake of ours
        if path is not None and last is not start:
            keep(last, path)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
        if plot is not None and progress.losses:
            name = f"{start.entrant} {start.style}, {Path(start.corpus).name}"
            draw(plot, name, progress.losses, run.corpus.entropy)


def resume_command(kept: Path) -> str:
    """Return the command that goes on from a file, for a shell: as given, but for its files."""
    arguments = sys.argv[2:]
    for name in ("--resume", "--save", "--log", "--plot"):
        arguments = without(arguments, name)
    return shlex.join(["bakeoff", "train", "--resume", str(kept), *arguments])


def without(arguments: Sequence[str], option: str) -> list[str]:
    """Return arguments without an option and its value."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept


def keep(saved: Saved, path: Path | None) -> Path:
    """Save to `path`, or to a new file of this folder where none was asked for."""
    from common import weights as disk

    if path is None:
        names = (Path(f"bakeoff-{saved.entrant}-{number}.safetensors") for number in count(1))
        path = next(name for name in names if not name.exists())
    disk.save(path, saved)
    return path


def header(run: TrainingRun) -> dict[str, Any]:
    """Return the first line of a log: everything that the losses depend on."""
    import jax
    from pytest_benchmark.utils import get_commit_info

    import impls
    from bench.worker.settings import ROOT, machine
    from common.versions import versions
    from common.weights import Run

    start = run.start
    commit = get_commit_info(str(ROOT))
    return {
        **{name: to_builtins(getattr(start, name)) for name in Run.__struct_fields__},
        "vocab": start.vocab.characters,
        "entropy": run.corpus.entropy,
        "epochs": run.options.epochs,
        "epoch_mode": run.options.epoch_mode,
        "arguments": sys.argv[1:],
        "commit": {name: commit[name] for name in ("id", "dirty") if name in commit},
        "device": str(jax.config.jax_default_device or jax.devices()[0]),
        "versions": versions([impls.load(start.entrant).distribution]),
        "machine": machine(),
    }


def write(log: str | None, record: dict[str, Any]) -> None:
    """Add a line of JSON to the log at once, so that a killed run keeps it."""
    if log == "-":
        print(json.dumps(record), flush=True)
    elif log is not None:
        try:
            with Path(log).open("a", encoding="utf-8") as file:
                print(json.dumps(record), file=file)
        except OSError as error:
            raise BakeoffError(
                f"cannot write --log {log}: {error.strerror}; make room, or name another file"
            ) from error
