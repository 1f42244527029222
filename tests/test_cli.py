"""Help, training, sampling and entrants, as users see them; wrong use has its own tests."""

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
from unittest.mock import MagicMock, Mock

import pytest

import impls
from bench.cli import app
from bench.cli import train as train_command
from bench.engine.processes import WorkerFailedError
from common import weights
from common.config import DataConfig, ModelConfig, OptimiserConfig
from tests.commands import Bakeoff, command, how, saved

SMALL = ("--corpus", "toy", "--width", "8", "--chunk", "16", "--sample-every", "0")
COMMANDS = sorted(str(each.name) for each in app.registered_commands)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("columns", ["60", "140"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, command: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = bakeoff(*command.split(), "--help")
    assert (done.status, done.err) == (0, "")
    assert "\x1b" not in done.out, "NO_COLOR is set"
    assert f"Usage: bakeoff {command}".strip() in done.out
    assert max(map(len, done.out.splitlines())) <= int(columns)
    assert not command or "Examples:" in done.out


def test_no_command_is_help_and_no_error_line(bakeoff: Bakeoff) -> None:
    done = bakeoff()
    assert (done.status, done.err) == (2, "")
    assert "Usage: bakeoff" in done.out


def test_a_worker_that_dies(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = MagicMock()
    error = WorkerFailedError("worker failed (exit status -9)", "last words", None)
    worker.return_value.__enter__.return_value.start.side_effect = error
    monkeypatch.setattr("bench.engine.processes.Worker", worker)
    monkeypatch.setattr(impls, "names", lambda: [impls.BASELINE])
    done = bakeoff("entrants", "--programs", "--workload", "toy")
    assert done == (2, "", "bakeoff: worker failed (exit status -9): last words\n")


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(30, "Read-only", "x"), 2, "cannot use x: Read-only; name another place"),
        (OSError(28, "No space", "x"), 2, "cannot write x: No space; make room there"),
        (OSError(28, "No space"), 2, "cannot write a file: No space; make room there"),
    ],
    ids=["Ctrl-C", "read-only", "full", "full, no name"],
)
def test_what_stops_a_command_is_one_line(
    bakeoff: Bakeoff,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    says: str,
) -> None:
    monkeypatch.setattr(train_command, "assemble", Mock(side_effect=error))
    assert bakeoff("train") == (status, "", f"bakeoff: {says}\n")


def test_the_longest_name_that_is_allowed(bakeoff: Bakeoff, tmp_path: Path) -> None:
    path, picture = "w" * 255, f"{'é' * 125}.svg"
    files = ("--save", path, "--plot", picture, "--log", "l" * 255)
    assert bakeoff("train", *SMALL, "--epochs", "1", *files).status == 0
    assert names(tmp_path) == sorted([path, picture, "l" * 255])


# Training


def test_plain_lines_a_log_and_a_file(bakeoff: Bakeoff, tmp_path: Path) -> None:
    options = ("--epochs", "3", "--sample-every", "2", "--prompt", "ab", "--seed", "4")
    files = ("--save", "w.safetensors", "--log", "l.jsonl")
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
    assert run["versions"].keys() >= {"python", "jax", "jaxlib", "flax", "equinox", "optax"}
    assert run["model"] == {"vocab_size": 5, "width": 8, "layers": 3}
    assert (run["corpus"], run["vocab"], run["seed"]) == ("toy", ".abcd", 4)
    assert (run["entrant"], run["style"], run["epochs"]) == ("pure_jax", "pure", 3)
    assert [record["epoch"] for record in curve] == [0, 1, 2]
    shown = re.findall(r"loss (\d\.\d{4})  ", done.out)
    assert [f"{record['loss']:.4f}" for record in curve] == shown
    assert all(record["seconds"] > 0 for record in curve)

    kept = weights.load(tmp_path / "w.safetensors")
    assert (kept.epoch, kept.seed, kept.checkpoint.updates) == (3, 4, 15)
    assert kept.data == DataConfig(chunk=16)
    assert names(tmp_path) == ["l.jsonl", "w.safetensors"]

    whole = bakeoff("train", *SMALL, "--epochs", "5", "--seed", "4", "--log", "-")
    resumed = bakeoff("train", "--resume", "w.safetensors", "--epochs", "5", "--log", "-")
    ours, theirs = records(resumed.out), records(whole.out)
    assert ours[0]["run"]["epoch"] == 3
    assert [(r["epoch"], r["loss"]) for r in ours[1:]] == [
        (r["epoch"], r["loss"]) for r in theirs[4:]
    ]
    assert "epoch    4  loss" in resumed.err
    assert weights.load(tmp_path / "w.safetensors").epoch == 5


def test_every_knob_reaches_the_run_and_replaces_what_was_saved(
    bakeoff: Bakeoff, tmp_path: Path
) -> None:
    given = (
        "--entrant haiku --style transform --corpus toy --width 9 --layers 2 --epochs 0 --chunk 7 "
        "--batch 2 --epoch-chars 30 --learning-rate 0.1 --weight-decay 0 --seed 3 --save w"
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


def test_a_resumed_text_that_has_changed_is_said(bakeoff: Bakeoff, tmp_path: Path) -> None:
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
    how = ("--entrant", "equinox", "--style", style) if style else ()
    options = ("--corpus", "short.txt", "--width", "8", "--chunk", "8", "--epochs", "2")
    done = bakeoff("train", *options, *how, "--sample-every", "0", "--log", "-")
    assert done.status == 0
    first, *curve = records(done.out)
    assert first["run"]["vocab"] == "\nab"
    assert first["run"]["entropy"] is None
    assert len(curve) == 2
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


def test_what_a_model_writes_is_shown_as_it_is(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither markup nor emoji codes are read, and no line is broken."""
    written = "[bold]a[/bold] :smile: :a: \\[b] \\\n" + "long " * 60
    monkeypatch.setattr("bench.cli.progress.sample", lambda *_, **__: written)
    done = bakeoff("train", *SMALL, "--epochs", "1", "--sample-every", "1")
    assert written in done.out


# Sampling


def test_any_entrant_samples_what_one_has_trained(bakeoff: Bakeoff, tmp_path: Path) -> None:
    weights.save(tmp_path / "w", saved())
    given = ("sample", "w", "--prompt", "ab", "--length", "50")
    done = bakeoff(*given)
    assert re.fullmatch(r"ab[.abcd]{50}\n", done.out)
    assert (done.status, done.err) == (0, "")
    assert bakeoff(*given, "--entrant", "haiku") == done
    warm = (*given, "--temperature", "1.5", "--seed")
    assert bakeoff(*warm, "3") == bakeoff(*warm, "3") != bakeoff(*warm, "4")


# Entrants


def test_a_table_of_entrants_fits_80_columns(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = bakeoff("entrants")
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "…" not in done.out
    for name in impls.names():
        assert name in done.out


def test_entrants_for_machines(bakeoff: Bakeoff) -> None:
    rows = json.loads(bakeoff("entrants", "--json").out)
    assert [row["entrant"] for row in rows] == impls.names()
    for row in rows:
        assert 20 < row["code_lines"] < 200
        assert (row["environment"] == "everybody's") == (row["entrant"] in impls.here())
        if row["entrant"] in impls.here():
            assert row["styles"] == list(impls.load(row["entrant"]).styles)
            assert re.match(r"\d+\.\d+", row["version"])
        else:
            assert row["requirements"] == list(impls.declared(row["entrant"]).requirements)
            assert row["size"], "its lock says it"


def test_an_entrant_whose_library_is_missing_costs_its_own_row(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "haiku", None)
    monkeypatch.delitem(sys.modules, "impls.haiku", raising=False)
    done = bakeoff("entrants", "--json")
    assert done.status == 0
    rows = {row["entrant"]: row for row in json.loads(done.out)}
    row = rows.pop("haiku")
    assert all("problem" not in other for other in rows.values())
    assert row["problem"] == (
        "entrant 'haiku' needs the package 'haiku', which is not installed; "
        "install it, or choose another entrant"
    )
    done = bakeoff("train", "--corpus", "toy", "--entrant", "haiku")
    assert (done.status, done.err) == (2, f"bakeoff: {row['problem']}\n")


@pytest.mark.slow
def test_what_styles_compile_to_fits_80_columns(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(impls, "names", lambda: ["pure_jax", "haiku"])
    done = bakeoff("entrants", "--programs", "--workload", "toy")
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "…" not in done.out
    assert "compiled programs at workload toy" in done.out
    assert re.search(r"pure_jax\b.*\bpure\b.*\bthe same\b", done.out)
    assert re.search(r"haiku\b.*\btransform\b.*[+-]\d", done.out)


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
    found = re.fullmatch(
        rf"bakeoff: interrupted; (\d+) epochs saved to {path}; go on with: (.*)\n", err
    )
    assert found
    done, told = int(found[1]), shlex.split(found[2])
    assert told == ["bakeoff", "train", "--resume", path, *SMALL, "--epochs", "1000000"]
    assert done >= 3
    assert names(tmp_path) == ["l", "tmp", path]
    kept = weights.load(tmp_path / path)
    assert (kept.epoch, kept.checkpoint.updates) == (done, 5 * done)
    assert records((tmp_path / "l").read_text())[-1]["epoch"] in (done - 2, done - 1)

    resumed = bakeoff(*told[1:-1], str(done + 1))
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
