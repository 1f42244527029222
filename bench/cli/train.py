"""`bakeoff train`: the blog post's training run, in any entrant and style."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from bench.cli.devices import STARTED, Devices, free_address, others, peers_of
from bench.cli.training_run import TrainingRun, assemble, described
from bench.report.curves import Curve, check_picture, draw
from bench.worker.__main__ import end_with_parent
from common.errors import (
    BakeoffError,
    InterruptedRunError,
    LostPeerError,
    require_folder,
    require_new,
    words_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from common.weights import Saved

EXAMPLES = """Examples:\n
bakeoff train --entrant equinox --epochs 50\n
bakeoff train --corpus book.txt --prompt Gregor --save book.safetensors\n
bakeoff train --resume book.safetensors --epochs 400 --entrant haiku\n
bakeoff train --batch 8 --devices 4\n
bakeoff train --batch 8 --processes 2"""

EVERY = 25
"""Epochs after which a run shows a sample, and saves if it was given a file."""


def option(text: str, panel: str) -> Any:
    """Return an option whose default stands in its text, since a resumed run's file may have it."""
    return typer.Option(help=text, show_default=False, rich_help_panel=panel)


MODEL, DATA, TRAINING, OUTPUT = "Model", "Data", "Training", "What it shows and keeps"
WHERE = "Where it runs"


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
        str | None, option("cpu, gpu, tpu, …, or a device, gpu:1 (default: jax chooses)", WHERE)
    ] = None,
    devices: Annotated[
        int | None, option("Devices that share the streams (default: one)", WHERE)
    ] = None,
    processes: Annotated[
        int | None,
        option("Processes that train as one; all start here without --coordinator", WHERE),
    ] = None,
    coordinator: Annotated[str | None, option("HOST:PORT of process 0", WHERE)] = None,
    process_id: Annotated[
        int | None, option("This process's number; 0 shows and saves", WHERE)
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
    if process_id in (None, 0):  # the others write nothing
        check_files(save, resume, log, plot)
    else:
        log, plot = None, None
    here = coordinator is None and process_id is None
    starting: AbstractContextManager[None] = nullcontext()
    if processes is not None and here:
        coordinator, process_id = free_address(processes), 0
        starting = others(coordinator, processes)
    place = Devices(backend, devices, peers_of(coordinator, process_id, processes))
    if os.environ.get(STARTED):
        end_with_parent()
    given = {
        "entrant": entrant,
        "style": style,
        "corpus": corpus,
        "model": {"width": width, "layers": layers},
        "data": {"chunk": chunk, "batch": batch, "epoch_chars": epoch_chars},
        "optimiser": {"learning_rate": learning_rate, "weight_decay": weight_decay},
        "seed": seed,
    }
    with starting:
        place.settle()
        run = assemble(given, epochs, epoch_mode, sample_every, prompt, resume, place)
        follow(run, (save or resume) if place.first else None, log, plot)
    return 0


def check_files(save: Path | None, resume: Path | None, log: str | None, plot: Path | None) -> None:
    """Raise BakeoffError unless all files can be written, before any library is imported."""
    if save is not None and save != resume:
        require_new(save, "--save")
    elif resume is not None and os.path.isfile(resume):  # noqa: PTH113 -- False for any bad name
        require_folder(resume, "--resume")
    if log is not None and log != "-":
        require_new(Path(log), "--log")
        if save is not None and Path(log).resolve() == save.resolve():
            raise BakeoffError(f"--save and --log are both {log}; name two files")
    if plot is not None:
        check_picture(plot)
        require_new(plot, "--plot")


def follow(run: TrainingRun, path: Path | None, log: str | None, plot: Path | None) -> None:
    """Train, showing, logging and saving as it goes; draw the losses at the end."""
    from bench.cli.progress import TrainingProgress
    from common.train import by_chunk, by_scan, epochs

    start = run.start
    run.step.load(start.checkpoint)
    run_epoch = by_scan(run.step) if run.epoch_mode == "scan" else by_chunk(run.step)  # type: ignore[arg-type]
    numbers = range(start.epoch, run.epochs)
    last = start
    show = TrainingProgress(run, to_stdout=log != "-")
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        write(log, {"run": header(run)})
        with show:
            for epoch in epochs(
                run_epoch, run.step, run.tokens, start.model, start.data, start.seed, numbers
            ):
                last = replace(start, checkpoint=epoch.checkpoint, epoch=epoch.number + 1)
                show.epoch(epoch)
                write(log, {"epoch": epoch.number, "loss": epoch.loss, "seconds": epoch.seconds})
                if path is not None and last.epoch % EVERY == 0:
                    keep(last, path)
        if path is not None:
            show.say(f"saved to {keep(last, path)}")
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        told = stopped(error, run, last, path)
        if told is None:
            raise
        raise told from error
    finally:
        signal.signal(signal.SIGTERM, previous)
        if plot is not None and show.losses:
            draw([msgspec.convert(header(run) | {"losses": show.losses}, Curve)], plot)


def stopped(
    error: BaseException, run: TrainingRun, last: Saved, path: Path | None
) -> BakeoffError | None:
    """Save what is done; return the error that says so and how to go on, None to leave it as is."""
    from common.hosts import LOST

    kind: type[BakeoffError]
    if isinstance(error, KeyboardInterrupt):
        kind, what = InterruptedRunError, "interrupted"
    elif run.devices.peers and isinstance(error, LOST):
        kind, what = LostPeerError, f"another process was lost ({words_of(error)})"
    elif isinstance(error, BakeoffError):
        kind, what = type(error), str(error)
    else:  # a reader that has left, or a mistake of ours
        if path is not None and last is not run.start:
            keep(last, path)
        return None
    if not run.devices.first:
        return kind(f"{what}; process 0 saves")
    if last is run.start:
        return kind(what)
    kept = keep(last, path)
    done = f"{last.epoch} epoch{'' if last.epoch == 1 else 's'}"
    return kind(f"{what}; {done} saved to {kept}; go on with: {resume_command(kept)}")


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
    """Return what a log says about its run."""
    import jax
    from pytest_benchmark.utils import get_commit_info

    from bench.worker.settings import ROOT, machine
    from common.versions import versions

    commit = get_commit_info(str(ROOT))
    return described(run.start) | {
        "vocab": run.start.vocab.characters,
        "entropy": run.corpus.entropy,
        "epochs": run.epochs,
        "epoch_mode": run.epoch_mode,
        "arguments": sys.argv[1:],
        "commit": {name: commit[name] for name in ("id", "dirty") if name in commit},
        "device": str(jax.devices()[0]),
        "versions": versions(),
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
