"""`bakeoff initialisers`: how many steps does each library's initialiser need to a target loss?"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path  # noqa: TC003 -- Typer reads annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.documents import format_of, give, rendered, show
from bench.cli.turns import names
from common.errors import BakeoffError, InterruptedRunError, require_folder, require_new

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.initialisers.losses import Measurement
    from bench.initialisers.measure import Trainings
    from bench.report.table import Document

EXAMPLES = """Examples:\n
bakeoff initialisers --seeds 3 --epochs 30\n
bakeoff initialisers --corpus metamorphosis --save losses.json -o page.html\n
bakeoff initialisers --resume losses.json --entrant mine.py\n
bakeoff initialisers --from losses.json --target 2 --target 1.5\n
bakeoff initialisers --diff equinox+lecun_normal"""
DATA, SHOWN = "What is trained", "What it shows and keeps"


class InitialisersFormat(StrEnum):
    """What can be written."""

    TEXT = "text"
    MD = "md"
    HTML = "html"
    JSON = "json"


def option(text: str, panel: str = DATA, **more: Any) -> Any:
    """Return an option of a panel of the help."""
    return typer.Option(help=text, rich_help_panel=panel, **more)


def sized(text: str, default: str) -> Any:
    """Return an option of `Settings`, whose default a file that is resumed may replace."""
    return option(text, show_default=default)


def initialisers(
    entrant: Annotated[
        list[str] | None,
        option(
            "Libraries, or files: again, or as a,b; equinox+lecun_normal has another initialiser.",
            show_default="JAX libraries, and all other initialisers",
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        option("As for `bakeoff train`: a name, or a UTF-8 file.", show_default="synthetic"),
    ] = None,
    seeds: Annotated[
        int | None, sized("Trainings from each initialiser: seeds 0, 1, …", "10")
    ] = None,
    epochs: Annotated[int | None, sized("Epochs of each training.", "150")] = None,
    width: Annotated[int | None, sized("Units of each layer.", "128")] = None,
    layers: Annotated[int | None, sized("Tanh layers.", "3")] = None,
    chunk: Annotated[int | None, sized("Characters of one step.", "256")] = None,
    epoch_chars: Annotated[int | None, sized("Characters of an epoch.", "10000")] = None,
    learning_rate: Annotated[float | None, sized("Adam's step.", "0.002")] = None,
    weight_decay: Annotated[float | None, sized("Decoupled weight decay.", "1e-7")] = None,
    target: Annotated[
        list[float] | None,
        option(
            "Loss to reach, in nats per character; again for another one.",
            SHOWN,
            show_default="what the first one reaches after a tenth and a third of the epochs",
        ),
    ] = None,
    save: Annotated[
        Path | None, option("New file for the losses; kept after each training.", SHOWN)
    ] = None,
    resume: Annotated[
        Path | None,
        option("Losses to go on with, and to save to: what is missing is trained.", SHOWN),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="Losses to show; trains nothing.", rich_help_panel=SHOWN),
    ] = None,
    diff: Annotated[
        str | None,
        option("Print the change to a library's file that another initialiser needs.", SHOWN),
    ] = None,
    format_: Annotated[
        InitialisersFormat | None,
        typer.Option(
            "--format", show_default="by the output's ending, else text", rich_help_panel=SHOWN
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A new file.",
            show_default="standard output",
            rich_help_panel=SHOWN,
        ),
    ] = None,
) -> int:
    """Train from each library's own initialiser, with several seeds; say which needs fewer steps.

    All libraries compute the same function, so that plain JAX trains for all. Every start reads
    the same text in the same order. On two cores, ten seeds take about a minute and a half
    for each initialiser.
    """
    from bench.initialisers.document import check_targets, document
    from bench.initialisers.losses import json_of, read

    chosen = format_of(format_, output, InitialisersFormat)
    check_targets(target or ())
    files = {"--save": save, "--resume": resume, "--from": from_}
    given = [name for name, path in files.items() if path is not None]
    if len(given) > 1:
        raise BakeoffError(f"{' and '.join(given)} are given; give one of them")
    sizes = {
        "seeds": seeds,
        "epochs": epochs,
        "width": width,
        "layers": layers,
        "chunk": chunk,
        "epoch_chars": epoch_chars,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
    }
    options = {name: value for name, value in sizes.items() if value is not None}
    if diff is not None:
        if any((entrant, corpus, options, target, given, format_, output)):
            raise BakeoffError(f"--diff {diff} prints a change of a file; give no other option")
        return show_diff(diff)
    if from_ is None:
        measurement = measured(names(entrant), corpus, options, save, resume)
    elif entrant or corpus or options:
        raise BakeoffError(
            "--from trains nothing, and what is to be trained is given; use --resume, or leave it "
            "out"
        )
    else:
        measurement = read(from_)

    def made(*, figures: bool = False) -> Document:
        return document(measurement, target or (), figures=figures)

    if chosen is InitialisersFormat.JSON:
        give(json_of(measurement), output)
    elif output is None and chosen in (None, InitialisersFormat.TEXT):
        show(made())
    else:
        give(rendered(made, str(chosen)), output)
    return 0


def show_diff(text: str) -> int:
    """Print the change of one other initialiser."""
    from bench.initialisers.alternatives import Named, diff, others

    named = Named.of(text)
    if not named.initialiser:
        raise BakeoffError(
            f"--diff {text}: this is the library's own; give one of {', '.join(map(str, others()))}"
        )
    print(diff(named))
    return 0


def measured(
    entrants: Sequence[str],
    corpus: str | None,
    options: dict[str, Any],
    save: Path | None,
    resume: Path | None,
) -> Measurement:
    """Train what is asked for and not yet in the file; return all of it."""
    from msgspec.structs import asdict

    from bench.initialisers.alternatives import Named
    from bench.initialisers.losses import OF_TEXT, read
    from bench.initialisers.measure import Trainings, settings_of, usual
    from common import corpus as corpora

    if save is not None:
        require_new(save, "--save")
    before = None
    if resume is not None:
        before = read(resume)
        require_folder(resume, "--resume")
        own = asdict(before.settings)
        options = {name: own[name] for name in own if name not in OF_TEXT} | options
        corpus = corpus or before.settings.text.name
    named = [Named.of(text) for text in entrants] or ([] if before else usual())
    settings, tokens = settings_of(corpora.load(corpus or "synthetic"), options)
    trainings = Trainings(settings, tokens, named, before)
    follow(trainings, save or resume)
    return trainings.measurement


def follow(trainings: Trainings, path: Path | None) -> None:
    """Train, showing a bar on a terminal, and keeping what is done in a file."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from bench.initialisers.losses import write
    from bench.worker.settings import affinity

    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    total = len(trainings.missing)
    task, done = bar.add_task("training", total=total), 0
    if path is not None:
        write(trainings.measurement, path)
    try:
        with bar:
            for name, seed in trainings.run(len(affinity() or (0,))):
                done += 1
                bar.update(task, advance=1, description=f"{name}, seed {seed}")
                if not console.is_terminal:
                    console.out(f"{done}/{total} {name}, seed {seed}", highlight=False)
                if path is not None:
                    write(trainings.measurement, path)
    except KeyboardInterrupt as error:
        what = f"interrupted after {done} of {total} trainings"
        if path is None:
            raise InterruptedRunError(f"{what}; nothing is kept without --save") from error
        raise InterruptedRunError(
            f"{what}, kept in {path}; go on with: bakeoff initialisers --resume {path}"
        ) from error
