"""`bakeoff train` and `bakeoff sample` as users see them: output, files, resuming."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import pytest

from bench import weights
from common.config import DataConfig, ModelConfig, OptimiserConfig
from tests.commands import Bakeoff, command, how, saved

SMALL = ("--corpus", "toy", "--width", "8", "--chunk", "16", "--sample-every", "0")
EPOCH = re.compile(r"^epoch +(\d+)  loss (\d+\.\d{4})  \d+\.\d\d s$", re.M)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_lines_like_the_tutorial_s_and_a_file_that_goes_on_exactly(
    bakeoff: Bakeoff, tmp_path: Path
) -> None:
    options = ("--sample-every", "2", "--prompt", "ab", "--seed", "4")
    done = bakeoff("train", *SMALL, *options, "--epochs", "3", "--save", "w.safetensors")
    assert (done.status, done.err) == (0, "")
    line, text = r"epoch    {}  loss \d\.\d{{4}}  \d+\.\d\d s\n", r"ab[.abcd]{100}\n"
    assert re.fullmatch(
        "pure_jax/pure: 3 layers of 8, toy, 70 characters, 5 distinct, "
        r"entropy 0\.0000 nats per character\n"
        + line.format(0) + text + line.format(1) + line.format(2) + text
        + r"mean loss of the last 3 epochs: \d\.\d{4} nats per character\n"
        r"saved to w\.safetensors\n",
        done.out,
    )  # fmt: skip
    kept = weights.load(tmp_path / "w.safetensors")
    assert (kept.epoch, kept.seed, kept.checkpoint.updates) == (3, 4, 15)
    assert names(tmp_path) == ["w.safetensors"]

    whole = bakeoff("train", *SMALL, "--epochs", "5", "--seed", "4")
    resumed = bakeoff("train", "--resume", "w.safetensors", "--epochs", "5")
    assert EPOCH.findall(done.out) + EPOCH.findall(resumed.out) == EPOCH.findall(whole.out)
    assert weights.load(tmp_path / "w.safetensors").epoch == 5


def test_a_backend_that_jax_chose_has_no_name(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "devices", Mock(side_effect=RuntimeError("no such platform")))
    error = bakeoff("train", *SMALL, "--epochs", "1").err
    assert "the backend that jax chooses cannot be used here (jax says: no such platform)" in error


@pytest.mark.slow
def test_every_option_reaches_the_run_and_replaces_what_was_saved(
    bakeoff: Bakeoff, tmp_path: Path
) -> None:
    file = "w" * 255  # the longest name that is allowed
    given = (
        "--entrant haiku --style transform --corpus toy --width 9 --layers 2 --epochs 0 --chunk 7 "
        "--batch 2 --epoch-chars 30 --learning-rate 0.1 --weight-decay 0 --seed 3 --backend cpu:0 "
        f"--save {file}"
    )
    assert bakeoff("train", *given.split()).status == 0
    kept = weights.load(tmp_path / file)
    assert (kept.entrant, kept.style, kept.corpus) == ("haiku", "transform", "toy")
    assert kept.model == ModelConfig(5, width=9, layers=2)
    assert kept.data == DataConfig(chunk=7, batch=2, epoch_chars=30)
    assert kept.optimiser == OptimiserConfig(learning_rate=0.1, weight_decay=0)
    assert (kept.seed, kept.epoch) == (3, 0)

    before = (tmp_path / file).read_bytes()
    anew = f"--resume {file} --epochs 0 --entrant equinox --seed 7 --chunk 8 --learning-rate 1"
    assert bakeoff("train", *anew.split(), "--save", "v").status == 0
    assert (tmp_path / file).read_bytes() == before
    kept = weights.load(tmp_path / "v")
    assert (kept.entrant, kept.style, kept.seed, kept.epoch) == ("equinox", "pure", 7, 0)
    assert kept.data == DataConfig(chunk=8, batch=2, epoch_chars=30)
    assert kept.optimiser == OptimiserConfig(learning_rate=1, weight_decay=0)


def test_a_run_that_diverges_keeps_the_last_good_weights(bakeoff: Bakeoff, tmp_path: Path) -> None:
    rates = ("--learning-rate", "1e38", "--weight-decay", "0", "--chunk", "256")
    done = bakeoff("train", *SMALL, *rates, "--epochs", "9", "--save", "w")
    assert done.status == 1
    assert "the loss became nan in epoch 1; training stopped there" in done.err
    assert "; 1 epoch saved to w; go on with: bakeoff train --resume=w --epochs=9" in done.err
    assert done.err.count("\n") == 1
    assert weights.load(tmp_path / "w").epoch == 1
    assert bakeoff("sample", "w", "--length", "5").status == 0


@pytest.mark.slow
def test_an_interrupted_run_without_a_file_names_a_new_one(
    bakeoff: Bakeoff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that goes on has what the file has not. Before an epoch, nothing is kept."""
    (tmp_path / "bakeoff-pure_jax-1.safetensors").write_text("mine")
    (tmp_path / "text").write_text("a b")
    interrupted = Mock(side_effect=KeyboardInterrupt)
    options = ("--epochs", "7", "--sample-every", "1", "--prompt", "a b", "--backend", "cpu")
    further = "--epochs=7 --sample-every=1 '--prompt=a b' --backend=cpu"
    for where, done in (
        ("common.train.epochs", ""),
        (
            "common.sample.sample",
            "; 1 epoch saved to bakeoff-pure_jax-2.safetensors; go on with: "
            f"bakeoff train --resume=bakeoff-pure_jax-2.safetensors {further}",
        ),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(where, interrupted)
            stopped = bakeoff("train", *SMALL, "--corpus", "text", *options)
        assert (stopped.status, stopped.err) == (130, f"bakeoff: interrupted{done}\n")
        assert len(names(tmp_path)) == 2 + bool(done)
    assert weights.load(tmp_path / "bakeoff-pure_jax-2.safetensors").epoch == 1
    assert (tmp_path / "bakeoff-pure_jax-1.safetensors").read_text() == "mine"


def test_any_entrant_samples_what_one_has_trained(bakeoff: Bakeoff, tmp_path: Path) -> None:
    weights.save(tmp_path / "w", saved())
    given = ("sample", "w", "--prompt", "ab", "--length", "50")
    done = bakeoff(*given)
    assert re.fullmatch(r"ab[.abcd]{50}\n", done.out)
    assert (done.status, done.err) == (0, "")
    assert bakeoff(*given, "--entrant", "haiku", "--backend", "cpu") == done
    warm = (*given, "--temperature", "1.5", "--seed")
    assert bakeoff(*warm, "3") == bakeoff(*warm, "3") != bakeoff(*warm, "4")


def test_a_signal_saves_and_says_how_to_go_on(bakeoff: Bakeoff, tmp_path: Path) -> None:
    path = "two words.safetensors"
    given = command("train", *SMALL, "--epochs", "1000000", "--save", path)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(given, **how(tmp_path), **pipes) as process:
        assert any("epoch    2 " in line for line in process.stdout or ())
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    message = re.fullmatch(
        rf"bakeoff: interrupted; (\d+) epochs saved to {path}; go on with: (.*)\n", err
    )
    assert message
    done, further = int(message[1]), shlex.split(message[2])
    assert done >= 3
    assert names(tmp_path) == ["tmp", path]
    kept = weights.load(tmp_path / path)
    assert (kept.epoch, kept.checkpoint.updates) == (done, 5 * done)

    assert further[:2] == ["bakeoff", "train"]
    resumed = bakeoff(*further[1:], "--epochs", str(done + 1))
    assert resumed.status == 0
    assert [number for number, _ in EPOCH.findall(resumed.out)] == [str(done)]
