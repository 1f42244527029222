"""`bakeoff train`: the blog post's training run, in any entrant and style."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.assemble import Run, assemble
from bench.cli.last_words import last_words
from bench.cli.launch import LAUNCHED
from bench.cli.where import where
from bench.report.curves import Curve, check_picture, draw
from bench.worker.__main__ import end_with_parent
from common.errors import BakeoffError, LostPeerError, require_folder, require_new

if TYPE_CHECKING:
    from common.hosts import Peers
    from common.weights import Saved

EXAMPLES = """Examples:\n
bakeoff train --entrant equinox --epochs 50\n
bakeoff train --corpus book.txt --prompt Gregor --save book.safetensors\n
bakeoff train --resume book.safetensors --epochs 400 --entrant haiku\n
bakeoff train --batch 8 --devices 4\n
bakeoff train --batch 8 --processes 2"""

SAMPLE_EVERY = 25
SAVE_EVERY = 25
"""Epochs after which a run that was given a file saves to it, whatever may happen later."""


class InterruptedRunError(BakeoffError):
    """Ctrl-C; what was done is saved, and the message says how to go on."""

    exit_status = 130


def option(text: str, panel: str) -> Any:
    """Return an option whose default stands in its text, since a resumed run's file may have it."""
    return typer.Option(help=text, show_default=False, rich_help_panel=panel)


MODEL, DATA, TRAINING, OUTPUT = "Model", "Data", "Training", "What it shows and keeps"
WHERE = "Where it runs"


def train(
    entrant: Annotated[
        str | None, option("Library; see `bakeoff entrants` (default: pure_jax)", MODEL)
    ] = None,
    style: Annotated[
        str | None,
        option("Way of writing the step; see `bakeoff entrants` (default: pure)", MODEL),
    ] = None,
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
        int, option("Epochs in all, a resumed run's included (default: 100)", TRAINING)
    ] = 100,
    learning_rate: Annotated[float | None, option("Adam's step (default: 0.002)", TRAINING)] = None,
    weight_decay: Annotated[
        float | None, option("Decoupled weight decay (default: 1e-7)", TRAINING)
    ] = None,
    seed: Annotated[
        int | None,
        option("Seeds first weights, and the text of an epoch (default: 0)", TRAINING),
    ] = None,
    epoch_mode: Annotated[
        str,
        option("chunk: a call each; scan: an epoch as one program (default: chunk)", TRAINING),
    ] = "chunk",
    backend: Annotated[
        str | None,
        option("cpu, gpu, tpu, …, or a device, gpu:1 (default: jax chooses)", WHERE),
    ] = None,
    devices: Annotated[
        int | None,
        option("Share the streams between so many devices (default: one, and no mesh)", WHERE),
    ] = None,
    processes: Annotated[
        int | None,
        option(
            "Processes that train as one; without a coordinator, all are started here (default: "
            "this one alone)",
            WHERE,
        ),
    ] = None,
    coordinator: Annotated[
        str | None, option("HOST:PORT of process 0, the same for all processes", WHERE)
    ] = None,
    process_id: Annotated[
        int | None, option("Number of this process, from 0, which shows and saves", WHERE)
    ] = None,
    sample_every: Annotated[
        int, option("Epochs between samples; 0: none (default: 25)", OUTPUT)
    ] = SAMPLE_EVERY,
    prompt: Annotated[
        str, option("Text that samples go on from; empty: a character drawn by seed.", OUTPUT)
    ] = "",
    save: Annotated[Path | None, option("New file for the weights.", OUTPUT)] = None,
    resume: Annotated[
        Path | None,
        option("File of weights to go on from, and in, unless --save names another.", OUTPUT),
    ] = None,
    log: Annotated[
        str | None, option("New file for the loss curve, as JSON lines; -: the output.", OUTPUT)
    ] = None,
    plot: Annotated[
        Path | None, option("New .svg or .png for the loss curve, over the entropy.", OUTPUT)
    ] = None,
) -> int:
    """Train the character RNN on a text and show its samples.

    Ctrl-C saves what is done and says how to resume it.
    """
    if process_id in (None, 0):  # the others write nothing
        check_places(save, resume, log, plot)
    if processes is not None and coordinator is None and process_id is None:
        from bench.cli.launch import launch

        return launch(sys.argv[1:], processes)
    place = where(backend, devices, coordinator, process_id, processes)
    given = {
        "entrant": entrant,
        "style": style,
        "corpus": corpus,
        "model": {"width": width, "layers": layers},
        "data": {"chunk": chunk, "batch": batch, "epoch_chars": epoch_chars},
        "optimiser": {"learning_rate": learning_rate, "weight_decay": weight_decay},
        "seed": seed,
    }
    if not place.first:
        save, log, plot = None, None, None
    losses: dict[int, float] = {}
    with ExitStack() as stack:
        if place.peers is not None:
            if os.environ.get(LAUNCHED):
                end_with_parent(signal.SIGTERM)
            stack.enter_context(last_words(silenced(place.peers, save or resume)))
        place.settle()
        place.together({"devices": devices, "backend": backend})
        run = assemble(given, epochs, epoch_mode, sample_every, prompt, resume, place)
        lines = open_log(log, stack)
        try:
            path = (save or resume) if place.first else None
            return follow(run, path, lines, losses, to_stdout=lines is not sys.stdout)
        finally:
            if plot is not None and losses:
                draw([Curve(header(run), losses)], plot)


def check_places(
    save: Path | None, resume: Path | None, log: str | None, plot: Path | None
) -> None:
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


def silenced(peers: Peers, path: Path | None) -> str:
    """Return what is to be said where JAX's runtime ends this process."""
    from common.hosts import JOIN_SECONDS, SILENCE_SECONDS

    return (
        f"bakeoff: process {peers.process_id} of {peers.processes} was ended from outside, or by "
        f"JAX, for another one did not come within {JOIN_SECONDS} s, or was silent for "
        f"{SILENCE_SECONDS} s; start all of them again, with --resume if there is a checkpoint"
        f"{f', {path}' if path else ''}"
    )


def open_log(log: str | None, stack: ExitStack) -> IO[str] | None:
    """Return where the loss curve goes, if anywhere."""
    if log is None or log == "-":
        return sys.stdout if log else None
    try:
        file = Path(log).open("x", encoding="utf-8")  # noqa: SIM115 -- closed below
    except OSError as error:
        raise BakeoffError(
            f"cannot write --log {log}: {error.strerror}; name another file"
        ) from error
    stack.callback(close_quietly, file)
    return file


def close_quietly(file: IO[str]) -> None:
    """Close a file; what could not be written has been reported already."""
    with suppress(OSError):
        file.close()


def follow(
    run: Run,
    path: Path | None,
    lines: IO[str] | None,
    losses: dict[int, float],
    *,
    to_stdout: bool,
) -> int:
    """Train, showing and saving as it goes; return the exit status. Fills `losses` by epoch."""
    from bench.cli.shown import Shown
    from common.train import by_chunk, by_scan, epochs

    start = run.start
    run.step.load(start.checkpoint)
    run_epoch = by_scan(run.step) if run.epoch_mode == "scan" else by_chunk(run.step)  # type: ignore[arg-type]
    numbers = range(start.epoch, max(run.epochs, start.epoch))
    last = start
    if lines is not None:
        write_line(lines, {"run": header(run)})
    show = Shown(run, numbers, to_stdout=to_stdout, quiet=not run.where.first)
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with show:
            training = epochs(
                run_epoch, run.step, run.tokens, start.model, start.data, start.seed, numbers
            )
            for epoch in training:
                last = replace(start, checkpoint=epoch.checkpoint, epoch=epoch.number + 1)
                show.epoch(epoch)
                losses[epoch.number] = epoch.loss
                if lines is not None:
                    record = {"epoch": epoch.number, "loss": epoch.loss, "seconds": epoch.seconds}
                    write_line(lines, record)
                if path is not None and last.epoch % SAVE_EVERY == 0:
                    keep(last, path)
    except KeyboardInterrupt:
        if not run.where.first:
            raise InterruptedRunError("interrupted; process 0 saves") from None
        kept = keep(last, path)
        raise InterruptedRunError(
            f"interrupted after {counted(last.epoch)}; saved to {kept}; go on with: "
            f"{resume_command(run, kept)}"
        ) from None
    except run.where.lost as error:
        words = " ".join(str(error).split())[:200]
        if not run.where.first:
            raise LostPeerError(f"another process was lost ({words}); process 0 saves") from None
        kept = keep(last, path)
        raise LostPeerError(
            f"another process was lost after {counted(last.epoch)} ({words}); saved to {kept}; go "
            f"on with: {resume_command(run, kept)}"
        ) from None
    except BakeoffError as error:
        if not run.where.first or (path is None and last is start):  # nothing is lost
            raise
        kept = keep(last, path)
        done = f"the weights after {counted(last.epoch)} are in {kept}"
        raise type(error)(f"{error}; {done}") from error
    except (BrokenPipeError, SystemExit):  # Rich makes the one of the other
        if path is not None:
            keep(last, path)
        raise BrokenPipeError from None
    finally:
        signal.signal(signal.SIGTERM, previous)
    if path is not None:
        show.say(f"saved to {keep(last, path)}")
    return 0


def counted(epochs: int) -> str:
    """Return how many epochs, in words."""
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"


def resume_command(run: Run, kept: Path) -> str:
    """Return the command that goes on, for a shell; what the file holds need not be given again."""
    command = ["bakeoff", "train", "--resume", str(kept), "--epochs", str(run.epochs)]
    if run.epoch_mode != "chunk":
        command += ["--epoch-mode", run.epoch_mode]
    if run.sample_every != SAMPLE_EVERY:
        command += ["--sample-every", str(run.sample_every)]
    if run.prompt:
        command += ["--prompt", run.prompt]
    where = run.where
    if where.backend is not None:
        command += ["--backend", where.backend]
    if where.devices is not None:
        command += ["--devices", str(where.devices)]
    if where.peers is not None:
        command += ["--processes", str(where.peers.processes)]
        if not os.environ.get(LAUNCHED):  # the others need the file too
            command += ["--coordinator", where.peers.coordinator]
            command += ["--process-id", str(where.peers.process_id)]
    return shlex.join(command)


def keep(saved: Saved, path: Path | None) -> Path:
    """Save to `path`, or to a new file of this folder where none was asked for."""
    from common import weights as disk

    if path is None:
        names = (Path(f"bakeoff-{saved.entrant}-{i}.safetensors") for i in range(1, sys.maxsize))
        path = next(name for name in names if not name.exists())
    disk.save(path, saved)
    return path


def header(run: Run) -> dict[str, Any]:
    """Return what a log says about its run."""
    import jax
    from pytest_benchmark.utils import get_commit_info

    from bench.worker.settings import ROOT, machine
    from common.versions import versions

    commit = get_commit_info(str(ROOT))
    about = asdict(replace(run.start, checkpoint=None, vocab=None))  # type: ignore[arg-type]
    del about["checkpoint"]
    return about | {
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


def write_line(lines: IO[str], record: dict[str, Any]) -> None:
    """Write one line of JSON at once, so that a killed run keeps its log."""
    try:
        print(json.dumps(record), file=lines, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BakeoffError(
            f"cannot write the log: {error.strerror}; make room, or name another file"
        ) from error
