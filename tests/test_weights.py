import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from msgspec.structs import asdict, replace
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from bench.weights import load, save
from common.config import DataConfig, OptimiserConfig
from common.contract import Checkpoint
from common.equality import random_weights
from common.errors import BakeoffError
from common.vocab import Vocab
from tests.commands import refusal, saved

WEIGHTS, MU, NU = (random_weights(saved().model, seed) for seed in range(3))
SAVED = saved(
    checkpoint=Checkpoint(WEIGHTS, MU, NU, updates=7),
    vocab=Vocab("\n[é日😀"),
    data=DataConfig(chunk=16, batch=2, epoch_chars=99),
    optimiser=OptimiserConfig(learning_rate=0.1 + 0.2, weight_decay=0.0),
    seed=2**31 - 1,
    epoch=12,
    corpus="some folder/book.txt",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save(path, SAVED)
    return path


def parts(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def refused(path: Path) -> str:
    message = refusal(load, path)
    assert message.isprintable()
    assert message.endswith("give a file that `bakeoff train --save` wrote")
    return message


def test_a_file_gives_back_what_was_saved_to_the_bit(path: Path, tmp_path: Path) -> None:
    """Also where it replaces another one; it has the permissions of any new file, and any reader of
    safetensors finds names, shapes, vocabulary and configuration."""
    save(path, replace(SAVED, epoch=13))
    assert load(path).epoch == 13
    assert list(tmp_path.iterdir()) == [path]
    save(path, SAVED)
    loaded = load(path)
    assert asdict(loaded) | {"checkpoint": None} == asdict(SAVED) | {"checkpoint": None}
    assert [array.dtype for array in jax.tree.leaves(loaded.checkpoint[:3])] == [np.float32] * 24
    jax.tree.map(np.testing.assert_array_equal, loaded.checkpoint, SAVED.checkpoint)
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    tensors, metadata = parts(path)
    layers = ["cells.0", "cells.1", "cells.2", "readout"]
    trees = [f"{tree}{layer}" for tree in ("", "mu.", "nu.") for layer in layers]
    assert set(tensors) == {f"{layer}.{part}" for layer in trees for part in ("kernel", "bias")}
    assert tensors["cells.0.kernel"].shape == (13, 8)
    about = json.loads(metadata["about"])
    assert about["vocab"] == "\n[é日😀"
    assert about["model"] == {"vocab_size": 5, "width": 8, "layers": 3}


def test_a_damaged_file_is_never_a_traceback(path: Path) -> None:
    """Cut short anywhere, with something behind its end, or with a flipped byte of its header."""
    data = path.read_bytes()
    for cut in (*(data[:length] for length in range(0, len(data), 41)), data + b"\0"):
        path.write_bytes(cut)
        assert refused(path).startswith(f"{path} is not a whole safetensors file (")
    for position in range(0, 8 + int.from_bytes(data[:8], "little"), 7):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with suppress(BakeoffError):  # or none: a flip within a number may leave a good file
            load(path)


@pytest.mark.parametrize("name", [".", "/dev/zero"])
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path / name).startswith("cannot read weights ")


def changed(**new: Any) -> Callable[[Path], None]:
    """Return what writes a file anew with other tensors and metadata; None leaves one out."""

    def change(path: Path) -> None:
        tensors, metadata = parts(path)
        about = json.loads(metadata["about"])
        about |= {name: value for name, value in new.items() if name in about}
        tensors |= {name: value for name, value in new.items() if name not in about}
        tensors = {name: array for name, array in tensors.items() if array is not None}
        about = {name: value for name, value in about.items() if value is not None}
        path.write_bytes(to_bytes(tensors, metadata | {"about": json.dumps(about)}))

    return change


def foreign(metadata: dict[str, str] | None) -> Callable[[Path], object]:
    """Return what writes somebody else's safetensors file."""
    return lambda path: path.write_bytes(to_bytes({"weight": np.zeros(3, np.float32)}, metadata))


MALFORMED = "has metadata that cannot be read ("
FORGED: list[tuple[Callable[[Path], object], str]] = [
    (foreign(None), "is a safetensors file of format None; allowed is 'jax-bakeoff weights 1'"),
    (foreign({"format": "pt"}), "is a safetensors file of format 'pt'; allowed is "),
    (changed(**{"nu.readout.bias": None}), "has nothing for nu.readout.bias, where its"),
    (
        changed(**{"cells.1.kernel": np.zeros((16, 9), np.float32)}),
        "has (16, 9) for cells.1.kernel, where its configuration says (16, 8)",
    ),
    (changed(**{"mu.cells.0.bias": np.full(8, np.inf, np.float32)}), "has mu.cells.0.bias with"),
    (changed(**{"readout.bias": np.zeros(5)}), "has readout.bias in float64, where float32 is"),
    (  # of 256 MiB, which are not made
        changed(model={"vocab_size": 5, "width": 1 << 13, "layers": 2}),
        "has (13, 8) for cells.0.kernel, where its configuration says (8197, 8192)",
    ),
    (changed(vocab=None), f"{MALFORMED}Object missing required field `vocab`"),
    (changed(vocab="edcba"), f"{MALFORMED}its vocabulary is not sorted, or not of the"),
    (changed(epoch=-1), f"{MALFORMED}Expected `int` >= 0 - at `$.epoch`"),
    (changed(checkpoint={"updates": np.inf}), f"{MALFORMED}JSON is malformed"),
]


@pytest.mark.parametrize(("change", "message"), FORGED)
def test_a_file_that_makes_no_sense(
    path: Path, change: Callable[[Path], object], message: str
) -> None:
    changed()(path)
    assert load(path).epoch == 12, "it is the change that is refused"
    change(path)
    assert refused(path).startswith(f"{path} {message}")


@pytest.mark.parametrize("wrong", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, wrong: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", Mock(side_effect=wrong))
    with pytest.raises((BakeoffError, KeyboardInterrupt), match=r"No space left; choose|^$"):
        save(path, replace(SAVED, epoch=13))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
