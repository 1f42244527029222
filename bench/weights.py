"""Weights on disk: a safetensors file with vocabulary, configuration and progress in its metadata.

The file is library-neutral, like `Weights`: `cells.0.kernel`, `cells.0.bias`, … and `readout.*`, in
float32; Adam's moments stand beside them as `mu.*` and `nu.*`, so that training goes on exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from msgspec.structs import asdict

from bench.files import atomic_write, require_regular
from bench.streams import shorten_message
from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import Checkpoint, Dense, Weights, flat, unflat
from common.errors import BakeoffError, shorten
from common.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from common.contract import AnyArray

FORMAT = "jax-bakeoff weights 1"
TREES = {"weights": "", "mu": "mu.", "nu": "nu."}
"""Field of `Checkpoint` → prefix of its arrays' names."""
ADVICE = "give a file that `bakeoff train --save` wrote"

type Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Training run of a model: all that it needs to go on, but arrays and vocabulary."""

    model: ModelConfig
    data: DataConfig
    optimiser: OptimiserConfig
    seed: Count
    """Seed of the run: of its initialisation and of its windows."""
    epoch: Count
    """Epochs done."""
    corpus: str
    """Name or path of the corpus, as it was given."""
    corpus_sha256: str
    entrant: str
    style: str


class Saved(Run, frozen=True, kw_only=True, eq=False):
    """The content of a file of weights: a training run, to sample from or to go on with."""

    checkpoint: Checkpoint
    vocab: Vocab


class Updates(msgspec.Struct, forbid_unknown_fields=True):
    """The part of a checkpoint that is no array."""

    updates: Count


class Metadata(Run, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file's metadata: JSON, in the field `about`."""

    checkpoint: Updates
    vocab: str
    """Characters of the vocabulary, sorted."""


def save(path: Path, saved: Saved) -> None:
    """Write `saved` to `path`, whole or not at all.

    Raises:
        BakeoffError: the path cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    tensors = {
        name: np.ascontiguousarray(array, np.float32)
        for tree, prefix in TREES.items()
        for name, array in name_arrays(getattr(saved.checkpoint, tree), prefix).items()
    }
    run = asdict(saved) | {
        "checkpoint": Updates(saved.checkpoint.updates),
        "vocab": saved.vocab.characters,
    }
    about = msgspec.json.encode(Metadata(**run)).decode()
    try:
        atomic_write(path, to_bytes(tensors, {"format": FORMAT, "about": about}))
    except OSError as error:
        raise BakeoffError(
            f"cannot write {path}: {error.strerror}; choose another path, or make room there"
        ) from error


def name_arrays(weights: Weights, prefix: str = "") -> dict[str, AnyArray]:
    """Return the arrays of `weights` by the names that they have on disk."""
    names = [*(f"cells.{i}" for i in range(len(weights.cells))), "readout"]
    return {
        f"{prefix}{name}.{part}": array
        for name, dense in zip(names, flat(weights), strict=True)
        for part, array in zip(Dense._fields, dense, strict=True)
    }


def load(path: Path) -> Saved:
    """Read the file that `save` wrote.

    Raises:
        BakeoffError: there is no such file, it is not safetensors, it is cut short, it is not one
            of ours, or its arrays do not have the shapes that its configuration says.
    """
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise BakeoffError(
            f"{path} is a safetensors file of format {metadata.get('format')!r}; "
            f"allowed is {FORMAT!r}: {ADVICE}"
        )
    try:
        about = msgspec.json.decode(metadata.get("about", ""), type=Metadata)
        vocab = Vocab(about.vocab)
        if Vocab.from_text(about.vocab) != vocab or len(vocab) != about.model.vocab_size:
            raise ValueError("its vocabulary is not sorted, or not of the configuration's size")
    except (ValueError, BakeoffError) as error:
        raise BakeoffError(
            f"{path} has metadata that cannot be read ({error}); {ADVICE}"
        ) from error
    weights, mu, nu = (_tree(path, tensors, prefix, about.model) for prefix in TREES.values())
    checkpoint = Checkpoint(weights, mu, nu, about.checkpoint.updates)
    return Saved(**asdict(about) | {"checkpoint": checkpoint, "vocab": vocab})


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        require_regular(path.stat())
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except OSError as error:
        problem = error.strerror or error
        raise BakeoffError(f"cannot read weights {shorten(path)} ({problem}); {ADVICE}") from error
    except SafetensorError as error:
        raise BakeoffError(
            f"{path} is not a whole safetensors file ({shorten_message(error)}); it may be cut "
            f"short, or something else: {ADVICE}"
        ) from error


def _tree(
    path: Path, tensors: Mapping[str, np.ndarray], prefix: str, config: ModelConfig
) -> Weights:
    zero = np.float32(0)  # shapes alone: a forged configuration must not ask for a terabyte
    skeleton = unflat(
        Dense(np.broadcast_to(zero, shape), np.broadcast_to(zero, shape[1:]))
        for shape in config.kernels
    )
    arrays: list[np.ndarray] = []
    for name, expected in name_arrays(skeleton, prefix).items():
        array, problem = tensors.get(name), ""
        if array is None or array.shape != expected.shape:
            shape = "nothing" if array is None else array.shape
            problem = f"{shape} for {name}, where its configuration says {expected.shape}"
        elif array.dtype != np.float32:
            problem = f"{name} in {array.dtype}, where float32 is allowed"
        elif not np.isfinite(array).all():
            problem = f"{name} with NaN or infinity in it"
        if array is None or problem:
            raise BakeoffError(f"{path} has {problem}: {ADVICE}")
        arrays.append(array)
    return unflat(map(Dense, arrays[::2], arrays[1::2]))
