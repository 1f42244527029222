"""Weights on disk: a safetensors file with vocabulary, configuration and progress in its metadata.

The file is library-neutral, like `Weights`: `cells.0.kernel`, `cells.0.bias`, … and `readout.*`, in
float32; Adam's moments stand beside them as `mu.*` and `nu.*`, so that training goes on exactly.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from common.config import DataConfig, ModelConfig, OptimiserConfig, check_size
from common.contract import Checkpoint, Dense, Weights, flat, unflat
from common.errors import BakeoffError, shortened
from common.files import UnfitFileError, atomic_write, require_regular
from common.vocab import Vocab

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from common.contract import AnyArray

FORMAT = "jax-bakeoff weights 1"
TREES = {"weights": "", "mu": "mu.", "nu": "nu."}
STRINGS = ("vocab", "corpus", "corpus_sha256", "entrant", "style")


@dataclass(frozen=True)
class Saved:
    """All that a file of weights holds."""

    checkpoint: Checkpoint
    vocab: Vocab
    model: ModelConfig
    data: DataConfig
    optimiser: OptimiserConfig
    seed: int
    """Seed of the run: of its initialisation and of its windows."""
    epoch: int
    """Epochs done."""
    corpus: str
    """Name or path of the corpus, as it was given."""
    corpus_sha256: str
    entrant: str
    style: str


def save(path: Path, saved: Saved) -> None:
    """Write `saved` to `path`, whole or not at all.

    Raises:
        BakeoffError: the path cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    tensors = {}
    for tree, prefix in TREES.items():
        for name, array in named(getattr(saved.checkpoint, tree), prefix).items():
            tensors[name] = np.ascontiguousarray(array, np.float32)
    about = asdict(saved)
    about["vocab"] = saved.vocab.characters
    about["checkpoint"] = {"updates": saved.checkpoint.updates}
    metadata = {"format": FORMAT, "about": json.dumps(about)}
    try:
        atomic_write(path, to_bytes(tensors, metadata))
    except OSError as error:
        raise BakeoffError(
            f"cannot write {path}: {error.strerror}; choose another path, or make room there"
        ) from error


def named(weights: Weights, prefix: str = "") -> dict[str, AnyArray]:
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
            f"allowed is {FORMAT!r}: give a file that `bakeoff train --save` wrote"
        )
    try:
        saved, updates = _about(metadata["about"])
    except (KeyError, TypeError, ValueError, BakeoffError) as error:
        raise BakeoffError(
            f"{path} has metadata that cannot be read ({error}); "
            "allowed is a file that `bakeoff train --save` wrote: give another one"
        ) from error
    trees = [_tree(path, tensors, prefix, saved["model"]) for prefix in TREES.values()]
    return Saved(**{**saved, "checkpoint": Checkpoint(trees[0], trees[1], trees[2], updates)})


def _about(text: str) -> tuple[dict[str, Any], int]:
    """Return the fields of `Saved`, all but the checkpoint in their types, and the updates."""
    about = json.loads(text)
    saved: dict[str, Any] = {
        **about,
        "vocab": Vocab(about["vocab"]),
        "model": ModelConfig(**about["model"]),
        "data": DataConfig(**about["data"]),
        "optimiser": OptimiserConfig(**about["optimiser"]),
    }
    updates = about["checkpoint"]["updates"]
    counts = {"seed": about["seed"], "epoch": about["epoch"], "updates": updates}
    for name, number in counts.items():
        check_size(name, number, least=0, most=(1 << 31) - 1)
    wrong = {field.name for field in fields(Saved)} ^ set(about)
    wrong |= {name for name in STRINGS if not isinstance(about[name], str)}
    if wrong:
        raise ValueError(f"wrong, missing or unknown: {', '.join(sorted(wrong))}")
    if Vocab.of(saved["vocab"].characters) != saved["vocab"]:
        raise ValueError("the vocabulary is not sorted, or has a character twice")
    if len(saved["vocab"]) != saved["model"].vocab_size:
        raise ValueError("the vocabulary does not have the size that the configuration says")
    return saved, updates


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if os.path.isdir(path):  # noqa: PTH112 -- Path.is_dir raises for a name that is too long
        raise BakeoffError(f"{path} is a folder; give a file that `bakeoff train --save` wrote")
    try:
        require_regular(path)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except UnfitFileError as error:
        raise BakeoffError(
            f"{path} {error.strerror}; give a file that `bakeoff train --save` wrote"
        ) from error
    except FileNotFoundError as error:
        raise BakeoffError(
            f"there is no weights file {path}; make one with `bakeoff train --save {path}`"
        ) from error
    except OSError as error:
        raise BakeoffError(
            f"cannot read {shortened(path)}: {error.strerror or error}; give a file"
        ) from error
    except SafetensorError as error:
        raise BakeoffError(
            f"{path} is not a whole safetensors file ({error}); it may be cut short, or something "
            "else: give a file that `bakeoff train --save` wrote"
        ) from error


def _tree(
    path: Path, tensors: Mapping[str, np.ndarray], prefix: str, config: ModelConfig
) -> Weights:
    zero = np.float32(0)  # shapes alone: a forged configuration must not ask for a terabyte
    skeleton = unflat(
        Dense(np.broadcast_to(zero, (rows, columns)), np.broadcast_to(zero, columns))
        for rows, columns in [
            *((rows, config.width) for rows in config.in_features),
            (config.width, config.vocab_size),
        ]
    )
    for name, array in named(skeleton, prefix).items():
        given = tensors[name].shape if name in tensors else "nothing"
        if given != array.shape:
            raise BakeoffError(
                f"{path} has {given} for {name}, where its configuration says {array.shape}: "
                "give a file that `bakeoff train --save` wrote"
            )
        if tensors[name].dtype != np.float32:
            raise BakeoffError(
                f"{path} has {name} in {tensors[name].dtype}, where float32 is allowed: "
                "give a file that `bakeoff train --save` wrote"
            )
        if not np.isfinite(tensors[name]).all():
            raise BakeoffError(f"{path} has {name} with NaN or infinity in it: give another file")
    arrays = iter(tensors[name] for name in named(skeleton, prefix))
    return unflat(Dense(kernel, next(arrays)) for kernel in arrays)
