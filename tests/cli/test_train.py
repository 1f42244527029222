"""`bakeoff train` and `bakeoff sample` as users see them: output, files, resuming, wrong use."""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from bench.cli import train as train_command
from common import weights
from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import fresh_checkpoint
from common.equality import random_weights
from tests.commands import Bakeoff, command, how, saved

SMALL = ("--corpus", "toy", "--width", "8", "--chunk", "16", "--sample-every", "0")


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_plain_lines_a_log_a_picture_and_a_file(bakeoff: Bakeoff, tmp_path: Path) -> None:
    options = ("--epochs", "3", "--sample-every", "2", "--prompt", "ab", "--seed", "4")
    files = ("--save", "w.safetensors", "--log", "l.jsonl", "--plot", "p.svg")
    done = bakeoff("train", *SMALL, *options, *files)
    assert (done.status, done.err) == (0, "")
    header, *rest = done.out.splitlines()
    assert header == (
        "pure_jax pure: 3 layers of 8, toy, 70 characters, 5 distinct, "
        "entropy 0.0000 nats per character"
    )
    line = r"epoch    {}  loss \d\.\d{{4}}  \d+\.\d\d s\n"
    text = r"ab[.abcd]{100}\n"
    assert re.fullmatch(
        line.format(0) + text + line.format(1) + line.format(2) + text
        + r"mean loss of the last 3 epochs: \d\.\d{4} nats per character\n"
        r"saved to w\.safetensors\n",
        "\n".join([*rest, ""]),
    )  # fmt: skip

    first, *curve = records((tmp_path / "l.jsonl").read_text())
    run = first["run"]
    assert run["entropy"] == 0
    assert run["versions"].keys() >= {"python", "jax", "jaxlib", "optax", "numpy"}
    assert run["model"] == {"vocab_size": 5, "width": 8, "layers": 3}
    assert (run["corpus"], run["vocab"], run["seed"]) == ("toy", ".abcd", 4)
    assert (run["entrant"], run["style"], run["epochs"]) == ("pure_jax", "pure", 3)
    assert [record["epoch"] for record in curve] == [0, 1, 2]
    shown = re.findall(r"loss (\d\.\d{4})  ", done.out)
    assert [f"{record['loss']:.4f}" for record in curve] == shown
    assert all(record["seconds"] > 0 for record in curve)
    picture = (tmp_path / "p.svg").read_text()
    assert f"pure_jax pure, toy: {curve[-1]['loss']:.3f} nats per character in epoch 2" in picture
    assert "grey: the text's entropy" in picture.replace("&#39;", "'")

    kept = weights.load(tmp_path / "w.safetensors")
    assert (kept.epoch, kept.seed, kept.checkpoint.updates) == (3, 4, 15)
    assert kept.data == DataConfig(chunk=16)
    assert names(tmp_path) == ["l.jsonl", "p.svg", "w.safetensors"]

    whole = bakeoff("train", *SMALL, "--epochs", "5", "--seed", "4", "--log", "-")
    resumed = bakeoff("train", "--resume", "w.safetensors", "--epochs", "5", "--log", "-")
    ours, theirs = records(resumed.out), records(whole.out)
    assert ours[0]["run"]["epoch"] == 3
    assert [(r["epoch"], r["loss"]) for r in ours[1:]] == [
        (r["epoch"], r["loss"]) for r in theirs[4:]
    ]
    assert "epoch    4  loss" in resumed.err
    assert weights.load(tmp_path / "w.safetensors").epoch == 5


def test_every_option_reaches_the_run_and_replaces_what_was_saved(
    bakeoff: Bakeoff, tmp_path: Path
) -> None:
    given = (
        "--entrant haiku --style transform --corpus toy --width 9 --layers 2 --epochs 0 --chunk 7 "
        "--batch 2 --epoch-chars 30 --learning-rate 0.1 --weight-decay 0 --seed 3 --backend cpu:0 "
        "--save w"
    )
    assert bakeoff("train", *given.split()).status == 0
    kept = weights.load(tmp_path / "w")
    assert (kept.entrant, kept.style, kept.corpus) == ("haiku", "transform", "toy")
    assert kept.model == ModelConfig(5, width=9, layers=2)
    assert kept.data == DataConfig(chunk=7, batch=2, epoch_chars=30)
    assert kept.optimiser == OptimiserConfig(learning_rate=0.1, weight_decay=0)
    assert (kept.seed, kept.epoch) == (3, 0)

    before = (tmp_path / "w").read_bytes()
    anew = "--resume w --epochs 0 --entrant equinox --seed 7 --chunk 8 --learning-rate 1 --save v"
    assert bakeoff("train", *anew.split()).status == 0
    assert (tmp_path / "w").read_bytes() == before
    kept = weights.load(tmp_path / "v")
    assert (kept.entrant, kept.style, kept.seed, kept.epoch) == ("equinox", "pure", 7, 0)
    assert kept.data == DataConfig(chunk=8, batch=2, epoch_chars=30)
    assert kept.optimiser == OptimiserConfig(learning_rate=1, weight_decay=0)


def test_a_resumed_text_that_has_changed_is_reported(bakeoff: Bakeoff, tmp_path: Path) -> None:
    weights.save(tmp_path / "w", saved(corpus_sha256="0" * 64))
    done = bakeoff("train", "--resume", "w", "--epochs", "3")
    assert done.status == 0
    assert done.err == "bakeoff: the text of 'toy' is not the one that was trained on\n"


@pytest.mark.parametrize("style", ["filter_jit", None])
def test_short_texts_as_an_editor_reads_them(
    bakeoff: Bakeoff, tmp_path: Path, style: str | None
) -> None:
    """Shorter than a chunk, and one character more than a chunk; BOM and CRLF."""
    short = "\ufeffab\r\n" if style else "\ufeffab\r\nab\r\nab\r\n"
    (tmp_path / "short.txt").write_bytes(short.encode())
    way = ("--entrant", "equinox", "--style", style) if style else ()
    options = ("--corpus", "short.txt", "--width", "8", "--chunk", "8", "--epochs", "2")
    done = bakeoff("train", *options, *way, "--sample-every", "0", "--log", "-")
    assert done.status == 0
    first, *curve = records(done.out)
    assert first["run"]["vocab"] == "\nab"
    assert first["run"]["entropy"] is None
    assert all(0 < record["loss"] < 3 for record in curve)
    assert f"{len(short.replace('\r', '')) - 1} characters, 3 distinct\n" in done.err


def test_a_run_that_diverges_keeps_the_last_good_weights(bakeoff: Bakeoff, tmp_path: Path) -> None:
    rates = ("--learning-rate", "1e38", "--weight-decay", "0", "--chunk", "256")
    done = bakeoff("train", *SMALL, *rates, "--epochs", "9", "--save", "w", "--log", "l")
    assert done.status == 1
    assert "the loss became nan in epoch 1; training stopped there" in done.err
    assert "; 1 epoch saved to w; go on with: bakeoff train --resume w" in done.err
    assert done.err.count("\n") == 1
    assert weights.load(tmp_path / "w").epoch == 1
    assert len(records((tmp_path / "l").read_text())) == 2
    assert bakeoff("sample", "w", "--length", "5").status == 0


def test_an_interrupted_run_without_a_file_names_a_new_one(
    bakeoff: Bakeoff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that goes on is the one that was given, but for its files."""
    (tmp_path / "bakeoff-pure_jax-1.safetensors").write_text("mine")
    interrupted = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("bench.cli.progress.TrainingProgress.epoch", interrupted)
    given = ("train", *SMALL, "--epochs", "7", "--epoch-mode", "scan", "--prompt", "a.b")
    monkeypatch.setattr(sys, "argv", ["bakeoff", *given, "--plot=p.svg", "--log", "l"])
    done = bakeoff(*sys.argv[1:])
    kept = "bakeoff-pure_jax-2.safetensors"
    assert done.status == 130
    command = shlex.join(["bakeoff", "train", "--resume", kept, *given[1:]])
    assert done.err == f"bakeoff: interrupted; 1 epoch saved to {kept}; go on with: {command}\n"
    assert weights.load(tmp_path / kept).epoch == 1
    assert (tmp_path / "bakeoff-pure_jax-1.safetensors").read_text() == "mine"


def test_ctrl_c_before_the_first_epoch_keeps_nothing(
    bakeoff: Bakeoff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_command, "header", Mock(side_effect=KeyboardInterrupt))
    done = bakeoff("train", *SMALL, "--log", "l", "--save", "w")
    assert (done.status, done.err) == (130, "bakeoff: interrupted\n")
    assert names(tmp_path) == []


def test_what_a_model_writes_is_shown_as_it_is(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither markup nor emoji codes are read, and no line is broken."""
    written = "[bold]a[/bold] :smile: :a: \\[b] \\\n" + "long " * 60
    monkeypatch.setattr("bench.cli.progress.sample", lambda *_, **__: written)
    done = bakeoff("train", *SMALL, "--epochs", "1", "--sample-every", "1")
    assert written in done.out


def test_the_longest_name_that_is_allowed(bakeoff: Bakeoff, tmp_path: Path) -> None:
    path, picture = "w" * 255, f"{'é' * 125}.png"
    files = ("--save", path, "--plot", picture, "--log", "l" * 255)
    assert bakeoff("train", *SMALL, "--epochs", "1", *files).status == 0
    assert names(tmp_path) == sorted([path, picture, "l" * 255])


def test_any_entrant_samples_what_one_has_trained(bakeoff: Bakeoff, tmp_path: Path) -> None:
    weights.save(tmp_path / "w", saved())
    given = ("sample", "w", "--prompt", "ab", "--length", "50")
    done = bakeoff(*given)
    assert re.fullmatch(r"ab[.abcd]{50}\n", done.out)
    assert (done.status, done.err) == (0, "")
    assert bakeoff(*given, "--entrant", "haiku", "--backend", "cpu") == done
    warm = (*given, "--temperature", "1.5", "--seed")
    assert bakeoff(*warm, "3") == bakeoff(*warm, "3") != bakeoff(*warm, "4")


REFUSED = {  # wrong texts, sizes and files have tests of their own
    "train --corpus missing.txt": "no such file 'missing.txt'; give",
    "train --corpus tiny": "unknown corpus 'tiny'; known: toy, ",
    "train --corpus latin.txt": "not UTF-8 (byte 0xe9 at offset 3); convert it",
    "train --prompt aZ": "'Z' at position 1",
    "train --entrant flex_linen": "unknown entrant 'flex_linen'; known: pure_jax, blox",
    "train --style jit": "unknown style of pure_jax 'jit'; known: pure, tuned",
    "train --width 0": "width is 0; it must be a whole number from 1 to 16384",
    "train --width wide": "'--width': Input should be a valid integer, unable to parse",
    "train --layers 1.5": "not '1.5'",
    "train --epochs -1": "epochs is -1",
    "train --sample-every -1": "sample-every is -1",
    "train --learning-rate inf": "learning rate is inf; it must be a positive number",
    "train --seed 2147483648": "seed is 2147483648; it must be a whole number from 0 to 2147483647",
    "train --epoch-mode fast": "it must be 'chunk' or 'scan'",
    "train --entrant flax_linen --style blog --epoch-mode scan": "'scan' is given for style 'blog'",
    "train --backend npu": "backend 'npu' cannot be used here (jax says: ",
    "train --backend cpu:x": "backend is 'cpu:x'; give its name, or that and a device's index",
    "train --resume none": "cannot read weights none (No such file or directory); give",
    "train --resume good --width 9": "the resumed model has 8",
    "train --resume good --epochs 2": "the resumed run has done 3 already",
    "train --resume good --corpus other.txt": "' ' at position 5",
    "train --resume good --style jit": "unknown style of equinox 'jit'",
    "train --resume good --chunk 0": "chunk is 0",
    "train --resume cut": "is not a whole safetensors file",
    "train --log new --save new": "--save and --log are both new",
    "train --plot a.jpg": "a picture's name ends in .svg or .png, a.jpg does not",
    "train --width": "Option '--width' requires an argument",
    "train --devices 2": "No such option: --devices",
    "train more": "unexpected extra argument",
    "sample cut": "is not a whole safetensors file",
    "sample fifo": "is a pipe, not a regular file",
    "sample shape": "has (14, 9) for cells.0.kernel, where its configuration says (13, 8)",
    "sample": "Missing argument 'WEIGHTS'",
    "sample good --entrant nobody": "unknown entrant 'nobody'; known",
    "sample good --prompt é": "'é' at position 0",
    "sample good --length 0": "length is 0",
    "sample good --temperature nan": "temperature is nan",
    "sample good --temperature hot": "not 'hot'",
    "sample good --seed -1": "seed is -1",
    "sample good --backend cpu:99": "backend is 'cpu:99', and cpu has 1 device here: give cpu:0",
}


@pytest.mark.parametrize("given", REFUSED)
def test_wrong_use_is_one_line_and_no_file(
    bakeoff: Bakeoff, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--backend npu" in given:  # JAX keeps the backends that it has made
        refuse = Mock(side_effect=RuntimeError("Unknown backend npu"))
        monkeypatch.setattr("jax.devices", refuse)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "other.txt").write_text("abcd. and more")
    os.mkfifo(tmp_path / "fifo")
    weights.save(tmp_path / "good", saved())
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:-1])
    shape = random_weights(ModelConfig(5, width=9, layers=3))
    weights.save(tmp_path / "shape", saved(checkpoint=fresh_checkpoint(shape)))
    before = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    arguments = shlex.split(given)
    if arguments[0] == "train":
        # What is given comes last and wins; the rest shows that nothing is written.
        common = () if "--resume" in arguments else ("--width", "8", "--corpus", "toy")
        arguments[1:1] = [*common, "--save", "new.safetensors", "--log", "new.jsonl"]
    done = bakeoff(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("bakeoff: ")
    assert done.err[:-1].isprintable()
    assert REFUSED[given] in done.err
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before


# In processes of their own


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_says_how_to_go_on(
    bakeoff: Bakeoff,
    tmp_path: Path,
    heard: Callable[[list[str]], list[str]],
    number: signal.Signals,
) -> None:
    path = "two words.safetensors"
    given = heard(command("train", *SMALL, "--epochs", "1000000", "--save", path, "--log", "l"))
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(given, **how(tmp_path), **pipes) as process:
        assert any("epoch    2 " in line for line in process.stdout or ())
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    message = re.fullmatch(
        rf"bakeoff: interrupted; (\d+) epochs saved to {path}; go on with: (.*)\n", err
    )
    assert message
    done, further = int(message[1]), shlex.split(message[2])
    assert further == ["bakeoff", "train", "--resume", path, *SMALL, "--epochs", "1000000"]
    assert done >= 3
    assert names(tmp_path) == ["l", "tmp", path]
    kept = weights.load(tmp_path / path)
    assert (kept.epoch, kept.checkpoint.updates) == (done, 5 * done)
    assert records((tmp_path / "l").read_text())[-1]["epoch"] in (done - 2, done - 1)

    resumed = bakeoff(*further[1:-1], str(done + 1))
    assert resumed.status == 0
    assert re.findall(r"^epoch +(\d+) ", resumed.out, re.MULTILINE) == [str(done)]


@pytest.mark.parametrize(
    "colour", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["colour", "NO_COLOR"]
)
def test_a_terminal_shows_a_bar(tmp_path: Path, colour: bool) -> None:
    ours, theirs = pty.openpty()
    settings = how(tmp_path, TERM="xterm-256color", COLUMNS="100", NO_COLOR="" if colour else "1")
    given = command("train", *SMALL, "--epochs", "200", "--sample-every", "100")
    with subprocess.Popen(given, **settings, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # Linux says so when the other end has closed
                break
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert "━━━" in text
    assert "/200" in text
    assert re.search(r"loss \d\.\d{4}", text)
    assert re.findall(r"epoch +(\d+)  loss", text) == ["0", "100", "199"]
    assert "mean loss of the last 10 epochs" in text
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9;]*m", text)) == colour
