import errno
import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import Checkpoint, flat
from common.equality import random_weights
from common.errors import BakeoffError
from common.vocab import Vocab
from common.weights import Saved, load, save, write_whole

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


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """Return whether two checkpoints are equal to the bit."""
    trees = zip(one[:3], other[:3], strict=True)
    return one.updates == other.updates and all(
        np.asarray(a).dtype == np.asarray(b).dtype and np.asarray(a).tobytes() == b.tobytes()
        for ours, theirs in trees
        for x, y in zip(flat(ours), flat(theirs), strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_a_file_gives_back_what_was_saved_to_the_bit(path: Path) -> None:
    loaded = load(path)
    assert same(SAVED.checkpoint, loaded.checkpoint)
    bare = {"checkpoint": None}
    assert replace(loaded, **bare) == replace(SAVED, **bare)  # type: ignore[arg-type]


def test_any_safetensors_reader_finds_names_vocabulary_and_configuration(path: Path) -> None:
    tensors, metadata = parts(path)
    layers = ["cells.0", "cells.1", "cells.2", "readout"]
    assert set(tensors) == {
        f"{tree}{layer}.{part}"
        for tree in ("", "mu.", "nu.")
        for layer in layers
        for part in ("kernel", "bias")
    }
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    assert tensors["cells.0.kernel"].shape == (13, 8)
    assert tensors["readout.kernel"].shape == (8, 5)
    assert np.array_equal(tensors["cells.1.bias"], SAVED.checkpoint.weights.cells[1].bias)
    assert np.array_equal(tensors["nu.readout.bias"], SAVED.checkpoint.nu.readout.bias)
    assert metadata["format"] == "jax-bakeoff weights 1"
    about = json.loads(metadata["about"])
    assert about["vocab"] == "\n[é日😀"
    assert about["model"] == {"vocab_size": 5, "width": 8, "layers": 3}
    assert about["epoch"] == 12


def test_saving_again_replaces_the_file_and_leaves_no_other(path: Path) -> None:
    save(path, replace(SAVED, epoch=13))
    assert load(path).epoch == 13
    assert list(path.parent.iterdir()) == [path]


def test_the_file_has_the_permissions_of_any_new_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_file_cut_short_anywhere(path: Path, tmp_path: Path) -> None:
    data, cut = path.read_bytes(), tmp_path / "cut.safetensors"
    for length in [*range(300), *range(300, len(data), 37), len(data) - 1]:
        cut.write_bytes(data[:length])
        message = refused(cut)
        assert message.startswith(f"{cut} is not a whole safetensors file (")
        assert message.endswith("give a file that `bakeoff train --save` wrote")


def test_a_flipped_byte_of_the_header_is_never_a_traceback(path: Path, tmp_path: Path) -> None:
    data, damaged = path.read_bytes(), tmp_path / "damaged.safetensors"
    header = 8 + int.from_bytes(data[:8], "little")
    for position in range(0, header, 3):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 7
        damaged.write_bytes(flipped)
        with suppress(BakeoffError):  # or none: a flip within a number may leave a good file
            load(damaged)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\0",
        lambda _: b"",
        lambda _: b"some text, longer than a header\n" * 9,
        lambda _: b"\0" * 64,
        lambda _: b"\xff" * 64,
        lambda _: b"\x80\x04K\x01.",
    ],
    ids=["one byte more", "empty", "text", "zeros", "ones", "pickle"],
)
def test_something_else_than_safetensors(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))
    assert refused(path).startswith(f"{path} is not a whole safetensors file (")


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}], ids=["none", "empty", "pt"])
def test_safetensors_of_somebody_else(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(to_bytes({"weight": np.zeros(3, np.float32)}, metadata))
    given = (metadata or {}).get("format")
    assert refused(path) == (
        f"{path} is a safetensors file of format {given!r}; allowed is 'jax-bakeoff weights 1': "
        "give a file that `bakeoff train --save` wrote"
    )


def altered(path: Path, tensors: dict[str, Any], **about: Any) -> Path:
    """Write the file anew with other tensors (None: without) and other facts about it."""
    old, metadata = parts(path)
    kept = {name: array for name, array in {**old, **tensors}.items() if array is not None}
    told = {**json.loads(metadata["about"]), **about}
    told = {name: value for name, value in told.items() if value is not None}
    path.write_bytes(to_bytes(kept, {**metadata, "about": json.dumps(told)}))
    return path


ADVICE = ": give a file that `bakeoff train --save` wrote"


@pytest.mark.parametrize(
    ("name", "array", "says"),
    [
        (
            "cells.1.kernel",
            np.zeros((16, 9), np.float32),
            "(16, 9) for cells.1.kernel, where its configuration says (16, 8)" + ADVICE,
        ),
        (
            "nu.readout.bias",
            None,
            "nothing for nu.readout.bias, where its configuration says (5,)" + ADVICE,
        ),
        (
            "readout.bias",
            np.array([0, 0, np.nan, 0, 0], np.float32),
            "readout.bias with NaN or infinity in it: give another file",
        ),
        (
            "mu.cells.0.bias",
            np.full(8, np.inf, np.float32),
            "mu.cells.0.bias with NaN or infinity in it: give another file",
        ),
        (
            "readout.bias",
            np.zeros(5, np.float64),
            "readout.bias in float64, where float32 is allowed" + ADVICE,
        ),
        (
            "readout.bias",
            np.zeros(5, np.int32),
            "readout.bias in int32, where float32 is allowed" + ADVICE,
        ),
    ],
    ids=["another shape", "missing", "NaN", "infinite moment", "float64", "int32"],
)
def test_a_wrong_tensor_is_named(path: Path, name: str, array: Any, says: str) -> None:
    assert same(SAVED.checkpoint, load(altered(path, {})).checkpoint)
    assert refused(altered(path, {name: array})) == f"{path} has {says}"


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ({"vocab": None}, "'vocab'"),
        ({"vocab": "abc"}, "the vocabulary does not have the size that the configuration says"),
        ({"vocab": "edcba"}, "the vocabulary is not sorted, or has a character twice"),
        ({"vocab": "aabcd"}, "the vocabulary is not sorted, or has a character twice"),
        ({"vocab": list("abcde")}, "wrong, missing or unknown: vocab"),
        ({"corpus": 5}, "wrong, missing or unknown: corpus"),
        ({"style": ["pure"]}, "wrong, missing or unknown: style"),
        ({"colour": "blue"}, "wrong, missing or unknown: colour"),
        ({"seed": "0"}, "seed is '0'; it must be a whole number from 0 to 2147483647"),
        ({"epoch": -1}, "epoch is -1; it must be a whole number from 0 to 2147483647"),
        ({"epoch": 1.5}, "epoch is 1.5; it must be a whole number from 0 to 2147483647"),
        ({"checkpoint": {"updates": np.inf}}, "updates is inf; it must be a whole number"),
        ({"checkpoint": {}}, "'updates'"),
        ({"checkpoint": 3}, "'int' object is not subscriptable"),
        ({"model": {"vocab_size": 5, "width": 0, "layers": 3}}, "width is 0; it must be"),
        ({"model": [5, 8, 3]}, "ModelConfig() argument after ** must be a mapping"),
        ({"data": {"chunk": 8, "colour": 3}}, "unexpected keyword argument 'colour'"),
        ({"optimiser": {"learning_rate": "x"}}, "must be real number, not str"),
    ],
)
def test_metadata_that_make_no_sense(path: Path, about: dict[str, Any], says: str) -> None:
    message = refused(altered(path, {}, **about))
    assert message.startswith(f"{path} has metadata that cannot be read (")
    assert says in message
    assert message.endswith("a file that `bakeoff train --save` wrote: give another one")


@pytest.mark.parametrize("about", ["", "not JSON", "[]", "null", '"text"', "3"])
def test_metadata_that_are_no_object(path: Path, about: str) -> None:
    tensors, metadata = parts(path)
    path.write_bytes(to_bytes(tensors, {**metadata, "about": about}))
    assert refused(path).startswith(f"{path} has metadata that cannot be read (")


def test_a_forged_size_asks_for_no_memory(path: Path) -> None:
    altered(path, {}, model={"vocab_size": 5, "width": 1 << 13, "layers": 2})
    assert "where its configuration says (8197, 8192)" in refused(path)
    altered(path, {}, model={"vocab_size": 5, "width": 1 << 14, "layers": 256})
    assert "at most 268435456 are allowed: give a smaller width or fewer layers" in refused(path)


def test_nothing_to_load(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    assert refused(path) == (
        f"there is no weights file {path}; make one with `bakeoff train --save {path}`"
    )
    assert refused(tmp_path) == f"{tmp_path} is a folder; {ADVICE.removeprefix(': ')}"


@pytest.mark.parametrize(
    ("place", "says"),
    [("none/w.safetensors", "No such file or directory"), ("", "Is a directory")],
)
def test_no_place_to_save_in(tmp_path: Path, place: str, says: str) -> None:
    path = tmp_path / place
    with pytest.raises(BakeoffError) as caught:
        save(path, SAVED)
    advice = "choose another path, or make room there"
    assert str(caught.value) == f"cannot write {path}: {says}; {advice}"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_one_may_not_write_in(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("root, as in many a CI, may write anywhere")
    with pytest.raises(BakeoffError, match=r": Permission denied; choose another path"):
        save(folder / "w.safetensors", SAVED)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("wrong", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, wrong: BaseException
) -> None:
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise wrong

    monkeypatch.setattr(os, "fsync", fail)
    if failing == "replace":
        monkeypatch.undo()
        monkeypatch.setattr(Path, "replace", fail)
    expected = BakeoffError if isinstance(wrong, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        save(path, replace(SAVED, epoch=13))
    if isinstance(wrong, OSError):
        assert str(caught.value) == (
            f"cannot write {path}: No space left; choose another path, or make room there"
        )
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_nobody_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "w", []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(path.exists()))
    write_whole(path, b"whole")
    assert seen == [False]
    assert path.read_bytes() == b"whole"
