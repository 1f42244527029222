"""The file of a measurement: loss curves of several seeds from each initialiser, and its start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bench.runfile.atomic_write import whole_file
from common.errors import BakeoffError, shortened

if TYPE_CHECKING:
    from pathlib import Path

KIND, VERSION = "jax-bakeoff initialisers", 1
DIGITS = 5
"""Decimals of a loss in the file."""


class Layer(msgspec.Struct, frozen=True):
    """One layer at the start: means over seeds."""

    kernel: float
    """Standard deviation of the kernel."""
    bias: float
    """Standard deviation of the bias, about zero."""
    recurrent: float | None
    """Largest singular value of the part that reads the layer's own state; the readout has none."""
    below: float
    """Largest singular value of the part that reads the layer below, or the one-hot character."""
    activation: float
    """Standard deviation over the text's characters, root mean square over units."""


class Start(msgspec.Struct):
    """One initialiser of one library, and the training from it."""

    name: str
    entrant: str
    initialiser: str
    """Of `alternatives`; empty for the library's own."""
    like: str = ""
    """The first start whose arrays have the same distribution, as far as these seeds tell."""
    layers: list[Layer] = []
    """Bottom up, the readout last."""
    losses: dict[int, list[float]] = {}
    """By seed, the mean loss of each epoch in nats per character; fewer where it diverged."""


class Text(msgspec.Struct, frozen=True):
    """What is learned."""

    name: str
    sha256: str
    entropy: float | None = None
    """In nats per character, where it is known."""


class Settings(msgspec.Struct, frozen=True):
    """What all trainings share; the defaults are the tutorial's."""

    text: Text
    vocab_size: int
    steps: int
    """Of an epoch."""
    seeds: int = 10
    epochs: int = 150
    width: int = 128
    layers: int = 3
    chunk: int = 256
    epoch_chars: int = 10_000
    learning_rate: float = 0.002
    weight_decay: float = 1e-7


OF_TEXT = ("text", "vocab_size", "steps")
"""Fields of `Settings` that follow from the text and the others."""


class Measurement(msgspec.Struct):
    """All of it."""

    kind: str
    version: int
    settings: Settings
    starts: list[Start]
    versions: dict[str, str] = {}
    when: str = ""


def name(start: Start) -> str:
    """Return what a start is called where people read."""
    return f"{start.entrant} with {start.initialiser}" if start.initialiser else start.entrant


def read(path: Path) -> Measurement:
    """Return a measurement from its file.

    Raises:
        BakeoffError: it cannot be read, or is none.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Measurement)
    except OSError as error:
        raise BakeoffError(
            f"{shortened(path)} cannot be read ({error.strerror}); give what `bakeoff initialisers "
            "--save` wrote"
        ) from error
    except msgspec.MsgspecError as error:
        raise BakeoffError(
            f"{path} holds no losses of initialisers ({error}); give what `bakeoff initialisers "
            "--save` wrote"
        ) from error
    if (found.kind, found.version) != (KIND, VERSION):
        raise BakeoffError(f"{path} is {found.kind} {found.version}; {KIND} {VERSION} is needed")
    return found


def write(measurement: Measurement, path: Path) -> None:
    """Write a measurement, whole or not at all; what was there is replaced."""
    with whole_file(path) as partial:
        partial.write_bytes(json_of(measurement).encode())


def json_of(measurement: Measurement) -> str:
    """Return a measurement as the content of its file: a line for each curve."""
    text = msgspec.json.encode(measurement).decode()
    return text.replace('],"', '],\n"').replace('{"name"', '\n{"name"') + "\n"
