"""`bakeoff train`: the tutorial's training run, in any entrant and style."""

from __future__ import annotations

import os
import shlex
from collections import deque
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

import impls
from bench.files import require_folder_to_be, require_new
from bench.streams import print_text, say, shorten_message
from common.config import MAX_SEED, DataConfig, Device, ModelConfig, OptimiserConfig, check_size
from common.errors import BakeoffError, InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.corpus import Corpus
    from bench.weights import Saved

EXAMPLES = """\
bakeoff train --entrant equinox --epochs 50
bakeoff train --corpus book.txt --prompt Gregor --save book.safetensors
bakeoff train --resume book.safetensors --epochs 400 --entrant haiku"""

SAMPLE_EPOCHS = 25
"""Epochs between two samples, and between two saves: the tutorial's number."""
LAST_EPOCHS = 10
"""Epochs whose mean loss is shown at the end: a single one's depends on its window of the text."""
SAMPLE_LENGTH = 100
"""Characters of a sample after its prompt."""


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
    chunk: Annotated[int | None, option("Characters per step (default: 256)", DATA)] = None,
    batch: Annotated[int | None, option("Streams read side by side (default: 1)", DATA)] = None,
    epoch_chars: Annotated[
        int | None, option("Characters per epoch (default: 10000)", DATA)
    ] = None,
    epochs: Annotated[
        int, option("Epochs in all, including a resumed run's (default: 100)", TRAINING)
    ] = 100,
    learning_rate: Annotated[
        float | None, option("Learning rate of Adam (default: 0.002)", TRAINING)
    ] = None,
    weight_decay: Annotated[
        float | None, option("Decoupled weight decay (default: 1e-7)", TRAINING)
    ] = None,
    seed: Annotated[int | None, option("Seed of weights and texts (default: 0)", TRAINING)] = None,
    backend: Annotated[
        str | None, option("cpu, gpu, tpu, …, or a device, gpu:1 (default: jax chooses)", TRAINING)
    ] = None,
    sample_every: Annotated[
        int, option("Epochs between samples; 0: none (default: 25)", OUTPUT)
    ] = SAMPLE_EPOCHS,
    prompt: Annotated[
        str, option("Start of samples; if empty, the seed draws a character", OUTPUT)
    ] = "",
    save: Annotated[Path | None, option("New file for the weights.", OUTPUT)] = None,
    resume: Annotated[
        Path | None,
        option("File of weights to continue from, and to save to unless --save is given.", OUTPUT),
    ] = None,
) -> None:
    """Train the character RNN on a text and show its samples.

    Ctrl-C saves the finished epochs, and prints the command that continues.
    """
    given = {name: value for name, value in locals().items() if value is not None}  # options alone
    if save is not None and save != resume:
        require_new(save, "--save")
    elif resume is not None and os.path.isfile(resume):  # noqa: PTH113 -- False for any bad name
        require_folder_to_be(resume.parent, "--resume")
    check_size("epochs", epochs, least=0)
    check_size("sample-every", sample_every, least=0)
    use_backend(backend)
    start, text = prepare_run(given, resume)
    if epochs < start.epoch:
        raise BakeoffError(
            f"epochs is {epochs}, but the resumed run has done {start.epoch} already; "
            "it counts those in: give a larger number"
        )
    start.vocab.encode(prompt, "the prompt")  # raises if a character is unknown
    further = {"epochs": epochs, "sample-every": sample_every, "prompt": prompt, "backend": backend}
    texts = [f"--{name}={value}" for name, value in further.items() if value not in (None, "")]
    run_epochs(start, text, epochs, sample_every, prompt, save or resume, texts)


def use_backend(name: str | None) -> None:
    """Have JAX compute on a backend, or on one device of it, with matrix products in float32.

    To be called before JAX computes anything.

    Args:
        name: `cpu`, `gpu`, `gpu:1`, …; None leaves the choice to JAX.

    Raises:
        BakeoffError: there is no such backend or device here.
    """
    import jax

    from bench.worker.arms import use_device

    jax.config.update("jax_default_matmul_precision", "float32")  # as in workers
    try:
        if name is None:
            jax.devices()
        else:
            jax.config.update("jax_platforms", Device.parse(name).backend)
            use_device(name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: JAX does not know the name
        reason = f" (jax says: {shorten_message(error)})" if str(error) else ""
        what = "the backend that jax chooses" if name is None else f"backend {name!r}"
        raise BakeoffError(
            f"{what} cannot be used here{reason}; `bakeoff doctor` lists those that can"
        ) from error


def prepare_run(given: Mapping[str, Any], resume: Path | None) -> tuple[Saved, Corpus]:
    """Return the start of the run that options ask for, and its text; nothing is written yet.

    Args:
        given: Options by their names. They replace what a resumed file has, or the defaults of a
            new run, whose weights come from the entrant's own initialisers.
        resume: A file of weights.

    Raises:
        BakeoffError: an option, the file or the text is wrong.
    """
    import jax

    from bench import corpus as corpora
    from bench import weights as disk
    from common.contract import fresh_checkpoint
    from common.steps import move_to_host
    from common.vocab import Vocab

    saved = disk.load(resume) if resume else None
    corpus = corpora.load(given.get("corpus") or (saved.corpus if saved else "synthetic"))
    if saved:
        require_same_sizes(saved, given)
        start = msgspec.structs.asdict(saved)
        if corpus.sha256 != saved.corpus_sha256 and "corpus" not in given:
            say(f"the text of {corpus.name!r} is not the one that was trained on")
    else:
        vocab = Vocab.from_text(corpus.text)
        start = {"vocab": vocab, "model": ModelConfig(len(vocab)), "data": DataConfig()}
        start |= {"optimiser": OptimiserConfig(), "seed": 0, "epoch": 0}
        start |= {"entrant": impls.BASELINE, "style": "pure"}
    if given.get("entrant", start["entrant"]) != start["entrant"]:
        start["style"] = "pure"  # a style belongs to its library
    start |= {name: given[name] for name in ("entrant", "style", "seed") if name in given}
    start |= {"corpus": corpus.name, "corpus_sha256": corpus.sha256}
    check_size("seed", start["seed"], least=0, most=MAX_SEED)
    for part in ("model", "data", "optimiser"):
        names = [field.name for field in fields(start[part]) if field.name in given]
        start[part] = replace(start[part], **{name: given[name] for name in names})
    if not saved:
        model = impls.load(start["entrant"]).build(start["model"])
        weights = move_to_host(model.to_weights(model.init(jax.random.key(start["seed"]))))
        start["checkpoint"] = fresh_checkpoint(weights)
    return disk.Saved(**start), corpus


def require_same_sizes(saved: Saved, given: Mapping[str, Any]) -> None:
    """Raise BakeoffError if options ask for another model than a resumed one."""
    for name in ("width", "layers"):
        size = getattr(saved.model, name)
        if given.get(name, size) != size:
            raise BakeoffError(
                f"{name} is given as {given[name]}, but the resumed model has {size}: leave "
                f"--{name} out, or start a new run"
            )


def run_epochs(
    start: Saved,
    corpus: Corpus,
    until: int,
    sample_every: int,
    prompt: str,
    path: Path | None,
    further: list[str],
) -> None:
    """Train, showing epochs as the tutorial does, and saving as it goes.

    The run has `until` epochs in all. Every `sample_every` epochs, unless that is 0, it shows what
    the model writes after `prompt`, greedily. Without a `path`, weights are kept only if the run is
    cut off. `further` are options of the command that goes on, beside the file.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM.
        BakeoffError: the training failed, or the file cannot be written.
    """
    from common.sample import sample
    from common.steps import adamw
    from common.train import epochs, make_chunk_loop

    entrant, last = impls.load(start.entrant), start
    model = entrant.build(start.model)
    step = entrant.style(start.style)(start.model, adamw(start.optimiser))
    tokens = start.vocab.encode(corpus.text, f"the corpus {corpus.name!r}")
    losses, numbers = deque[float](maxlen=LAST_EPOCHS), range(start.epoch, until)
    try:
        print_text(describe_training(start, corpus, len(tokens)))
        step.load(start.checkpoint)
        for epoch in epochs(
            make_chunk_loop(step), step, tokens, start.model, start.data, start.seed, numbers
        ):
            number = epoch.number
            last = msgspec.structs.replace(start, checkpoint=epoch.checkpoint, epoch=number + 1)
            losses.append(epoch.loss)
            print(f"epoch {number:4d}  loss {epoch.loss:.4f}  {epoch.seconds:.2f} s", flush=True)
            if sample_every and (number % sample_every == 0 or number == until - 1):
                params = model.from_weights(epoch.checkpoint.weights)
                about = start.model, start.vocab, prompt, SAMPLE_LENGTH
                print_text(sample(model, params, *about, seed=start.seed))
            if path is not None and last.epoch % SAMPLE_EPOCHS == 0:
                save_run(last, path)
        if losses:
            of = "epoch" if len(losses) == 1 else f"{len(losses)} epochs"
            print(f"mean loss of the last {of}: {fmean(losses):.4f} nats per character")
        if path is not None:
            print(f"saved to {save_run(last, path)}")
    except (KeyboardInterrupt, BakeoffError) as error:
        if last is start:
            raise
        raise explain_end(error, last, save_run(last, path), further) from error
    except BaseException:  # a reader that has left, or a mistake of ours
        if path is not None and last is not start:
            save_run(last, path)
        raise


def describe_training(start: Saved, corpus: Corpus, characters: int) -> str:
    """Return the first line of a run: its model and its text."""
    known = corpus.entropy
    entropy = "" if known is None else f", entropy {known:.4f} nats per character"
    return (
        f"{start.entrant}/{start.style}: {start.model.layers} layers of {start.model.width}, "
        f"{start.corpus}, {characters} characters, {len(start.vocab)} distinct{entropy}"
    )


def explain_end(
    error: KeyboardInterrupt | BakeoffError, last: Saved, path: Path, further: list[str]
) -> BakeoffError:
    """Return the error that ends a run, with how to go on from the file that it was saved to."""
    kind = type(error) if isinstance(error, BakeoffError) else InterruptedRunError
    done = f"{last.epoch} epoch{'' if last.epoch == 1 else 's'}"
    command = shlex.join(["bakeoff", "train", f"--resume={path}", *further])
    return kind(f"{str(error) or 'interrupted'}; {done} saved to {path}; go on with: {command}")


def save_run(saved: Saved, path: Path | None) -> Path:
    """Save to `path`, or to a new file in the current folder if it is None; return the file."""
    from bench import weights as disk

    if path is None:
        names = (Path(f"bakeoff-{saved.entrant}-{number}.safetensors") for number in count(1))
        path = next(name for name in names if not name.exists())
    disk.save(path, saved)
    return path
