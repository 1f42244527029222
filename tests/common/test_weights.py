import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from msgspec.structs import asdict, replace
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import Checkpoint
from common.equality import random_weights
from common.errors import BakeoffError
from common.vocab import Vocab
from common.weights import Saved, load, save

CONFIG = ModelConfig(vocab_size=5, width=8, layers=3)
SAVED = Saved(
    checkpoint=Checkpoint(
        random_weights(CONFIG, 0), random_weights(CONFIG, 1), random_weights(CONFIG, 2), updates=7
    ),
    vocab=Vocab("\n[é日😀"),
    model=CONFIG,
    data=DataConfig(chunk=16, batch=2, epoch_chars=99),
    optimiser=OptimiserConfig(learning_rate=0.1 + 0.2, weight_decay=0.0),
    seed=2**31 - 1,
    epoch=12,
    corpus="some folder/book.txt",
    corpus_sha256="0" * 64,
    entrant="haiku",
    style="transform",
)
ADVICE = "give a file that `bakeoff train --save` wrote"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file that `save` wrote."""
    path = tmp_path / "w.safetensors"
    save(path, SAVED)
    return path


def parts(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def refused(path: Path) -> str:
    """Return the message of the error, which is one line."""
    with pytest.raises(BakeoffError) as caught:
        load(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert caught.value.exit_status == 2
    return message


def test_a_file_gives_back_what_was_saved_to_the_bit(path: Path, tmp_path: Path) -> None:
    """Also where it replaces another one; it has the permissions of any new file."""
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


def test_any_safetensors_reader_finds_names_vocabulary_and_configuration(path: Path) -> None:
    tensors, metadata = parts(path)
    layers = ["cells.0", "cells.1", "cells.2", "readout"]
    trees = [f"{tree}{layer}" for tree in ("", "mu.", "nu.") for layer in layers]
    assert set(tensors) == {f"{layer}.{part}" for layer in trees for part in ("kernel", "bias")}
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    assert tensors["cells.0.kernel"].shape == (13, 8)
    assert metadata["format"] == "jax-bakeoff weights 1"
    about = json.loads(metadata["about"])
    assert about["vocab"] == "\n[é日😀"
    assert about["model"] == {"vocab_size": 5, "width": 8, "layers": 3}


def test_a_file_cut_short_anywhere(path: Path, tmp_path: Path) -> None:
    data, cut = path.read_bytes(), tmp_path / "cut.safetensors"
    for length in [*range(300), *range(300, len(data), 37), len(data) - 1]:
        cut.write_bytes(data[:length])
        message = refused(cut)
        assert message.startswith(f"{cut} is not a whole safetensors file (")
        assert message.endswith(ADVICE)
    cut.write_bytes(data + b"\0")
    assert "is not a whole safetensors file" in refused(cut)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none", "No such file or directory"),
        (".", "is a directory"),
        ("/dev/zero", "is a character device, not a regular file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_is_no_file(tmp_path: Path, name: str, problem: str) -> None:
    message = refused(tmp_path / name)
    assert message.startswith("cannot read weights ")
    assert f"({problem}); {ADVICE}" in message


def test_a_flipped_byte_of_the_header_is_never_a_traceback(path: Path, tmp_path: Path) -> None:
    data, damaged = path.read_bytes(), tmp_path / "damaged.safetensors"
    header = 8 + int.from_bytes(data[:8], "little")
    for position in range(0, header, 3):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 7
        damaged.write_bytes(flipped)
        with suppress(BakeoffError):  # or none: a flip within a number may leave a good file
            load(damaged)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}], ids=["none", "pt"])
def test_safetensors_of_somebody_else(path: Path, metadata: dict[str, str] | None) -> None:
    path.write_bytes(to_bytes({"weight": np.zeros(3, np.float32)}, metadata))
    given = (metadata or {}).get("format")
    says = f"{path} is a safetensors file of format {given!r}; allowed is 'jax-bakeoff weights 1'"
    assert refused(path) == f"{says}: {ADVICE}"


def altered(path: Path, tensors: dict[str, Any], **about: Any) -> Path:
    """Write the file anew with other tensors and metadata; None leaves one out."""
    old, metadata = parts(path)
    kept = {name: array for name, array in {**old, **tensors}.items() if array is not None}
    changed = {**json.loads(metadata["about"]), **about}
    changed = {name: value for name, value in changed.items() if value is not None}
    path.write_bytes(to_bytes(kept, {**metadata, "about": json.dumps(changed)}))
    return path


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        ("cells.1.kernel", np.zeros((16, 9), np.float32), "(16, 9) for {}, where its conf"),
        ("nu.readout.bias", None, "nothing for {}, where its configuration says (5,): " + ADVICE),
        ("readout.bias", np.full(5, np.nan, np.float32), "{} with NaN or infinity in it"),
        ("mu.cells.0.bias", np.full(8, np.inf, np.float32), "{} with NaN or infinity in it"),
        ("readout.bias", np.zeros(5), "{} in float64, where float32 is allowed: " + ADVICE),
    ],
    ids=["another shape", "missing", "NaN", "infinite moment", "float64"],
)
def test_a_wrong_tensor_is_named(path: Path, name: str, array: Any, says: str) -> None:
    assert load(altered(path, {})).epoch == 12, "it is the tensor that is refused"
    assert refused(altered(path, {name: array})).startswith(f"{path} has {says.format(name)}")


@pytest.mark.parametrize(
    ("about", "problem"),
    [
        ({"vocab": None}, "missing required field `vocab`"),
        ({"vocab": "abc"}, "the vocabulary does not have the size that the configuration says"),
        ({"vocab": "edcba"}, "the vocabulary is not sorted, or has a character twice"),
        ({"vocab": list("abcde")}, "Expected `str`, got `array` - at `$.vocab`"),
        ({"colour": "blue"}, "unknown field `colour`"),
        ({"seed": "0"}, "Expected `int`, got `str` - at `$.seed`"),
        ({"epoch": 1.5}, "Expected `int`, got `float` - at `$.epoch`"),
        ({"epoch": -1}, "Expected `int` >= 0 - at `$.epoch`"),
        ({"seed": 1 << 31}, "Expected `int` <= 2147483647 - at `$.seed`"),
        ({"checkpoint": {"updates": np.inf}}, "JSON is malformed"),
        ({"checkpoint": 3}, "Expected `object`, got `int` - at `$.checkpoint`"),
        ({"model": {"vocab_size": 5, "width": 0, "layers": 3}}, "width is 0; it must be"),
        (
            {"model": {"vocab_size": 5, "width": 1 << 14, "layers": 256}},
            "at most 268435456 are allowed: give a smaller width or fewer layers",
        ),
        ({"optimiser": {"learning_rate": "x"}}, "Expected `float`, got `str`"),
    ],
)
def test_metadata_that_make_no_sense(path: Path, about: dict[str, Any], problem: str) -> None:
    message = refused(altered(path, {}, **about))
    assert message.startswith(f"{path} has metadata that cannot be read (")
    assert problem in message
    assert message.endswith(ADVICE)


def test_a_forged_size_asks_for_no_memory(path: Path) -> None:
    altered(path, {}, model={"vocab_size": 5, "width": 1 << 13, "layers": 2})
    assert "where its configuration says (8197, 8192)" in refused(path)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("wrong", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, wrong: BaseException
) -> None:
    before, seen = path.read_bytes(), list[bool]()

    def fail(*_: object) -> None:
        seen.append(path.read_bytes() == before)
        raise wrong

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, fail)
    expected = BakeoffError if isinstance(wrong, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        save(path, replace(SAVED, epoch=13))
    if isinstance(wrong, OSError):
        says = f"cannot write {path}: No space left; choose another path, or make room there"
        assert str(caught.value) == says
    assert seen == [True]
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
