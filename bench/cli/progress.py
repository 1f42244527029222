"""The output of a training run: a bar on a terminal, plain lines like the tutorial's in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from common.sample import sample

if TYPE_CHECKING:
    from bench.cli.training_run import TrainingRun
    from common.train import Epoch

SAMPLE_LENGTH = 100
"""Characters of a sample after its prompt."""
LAST = 10
"""Epochs whose mean loss is shown at the end: a single one's depends on its window of the text."""


class TrainingProgress:
    """Shows epochs as they come; a context manager, since a bar has to be taken down."""

    def __init__(self, run: TrainingRun, *, to_stdout: bool) -> None:
        self.run = run
        self.console = Console(
            file=None if to_stdout else sys.stderr, highlight=False, soft_wrap=True
        )
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("epoch", total=run.options.epochs - run.start.epoch)
        self.losses: dict[int, float] = {}
        """By epoch."""

    def __enter__(self) -> Self:
        start = self.run.start
        floor = self.run.corpus.entropy
        self.say(
            f"{start.entrant} {start.style}: {start.model.layers} layers of {start.model.width}, "
            f"{start.corpus}, {len(self.run.corpus.text)} characters, {len(start.vocab)} distinct"
            + ("" if floor is None else f", entropy {floor:.4f} nats per character")
        )
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.losses:
            last = [*self.losses.values()][-LAST:]
            of = "epoch" if len(last) == 1 else f"{len(last)} epochs"
            self.say(f"mean loss of the last {of}: {sum(last) / len(last):.4f} nats per character")

    def say(self, text: str) -> None:
        """Print a text as it is: a model may write what Rich takes for markup or an emoji."""
        self.console.out(text, highlight=False)

    def epoch(self, epoch: Epoch) -> None:
        """Show an epoch, and a sample after every `sample_every` epochs and the last one."""
        self.losses[epoch.number] = epoch.loss
        self.bar.update(self.task, advance=1, description=f"loss {epoch.loss:.4f}")
        every, end = self.run.options.sample_every, self.run.options.epochs - 1
        due = bool(every) and (epoch.number % every == 0 or epoch.number == end)
        if due or not self.console.is_terminal:
            self.say(f"epoch {epoch.number:4d}  loss {epoch.loss:.4f}  {epoch.seconds:.2f} s")
        if due:
            self.say(self.sample(epoch))

    def sample(self, epoch: Epoch) -> str:
        """Return what the model writes after an epoch, greedily."""
        model, start = self.run.model, self.run.start
        params = model.from_weights(epoch.checkpoint.weights)
        prompt, seed = self.run.options.prompt, start.seed
        return sample(model, params, start.model, start.vocab, prompt, SAMPLE_LENGTH, seed=seed)
