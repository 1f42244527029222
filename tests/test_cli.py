"""What every command does alike, in one table each; then training, sampling and entrants."""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import impls
from bench.cli import app
from bench.cli import train as train_command
from common import weights
from common.config import DataConfig, ModelConfig, OptimiserConfig
from common.contract import fresh_checkpoint
from common.corpus import TOY
from common.equality import random_weights
from common.vocab import Vocab
from tests.commands import Bakeoff, Done, bench, how

ROOT = Path(__file__).parents[1]
RUN = str(ROOT / "results/xeon-2-cores/2026-11-26-default.json")
SMALL = ("--corpus", "toy", "--width", "8", "--chunk", "16", "--sample-every", "0")
COMMANDS = sorted(str(command.name) for command in app.registered_commands)


def saved(**about: Any) -> weights.Saved:
    """Return a run of 3 epochs on the toy corpus that is quickly made."""
    vocab = Vocab.of(TOY)
    config = ModelConfig(len(vocab), width=8, layers=3)
    return weights.Saved(
        **{
            "checkpoint": fresh_checkpoint(random_weights(config)),
            "vocab": vocab,
            "model": config,
            "data": DataConfig(chunk=16),
            "optimiser": OptimiserConfig(),
            "seed": 0,
            "epoch": 3,
            "corpus": "toy",
            "corpus_sha256": "a7096eb0d137e69a3fd613a8dce4134734ba811e4f05640d9cae7335de15fbe5",
            "entrant": "equinox",
            "style": "filter_jit",
            **about,
        }
    )


def folder(path: Path) -> dict[str, tuple[bytes, int]]:
    """Return all files below `path` with their contents and times."""
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# Every command

HOSTILE = "\x1b[31mred\x07\n[bold]:smile:\u202e\r"
LONG = "x" * 300


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


@pytest.mark.parametrize("command", ["", *COMMANDS])
@pytest.mark.parametrize("given", ["--nope", f"--{HOSTILE}"], ids=["unknown", "hostile"])
def test_an_unknown_option_is_one_line(bakeoff: Bakeoff, command: str, given: str) -> None:
    assert_one_line(bakeoff(*command.split(), given), "No such option")


def assert_one_line(done: Done, *words: str) -> None:
    """Check that something was refused as wrong use is: whole, printable, with some words."""
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("bakeoff: ")
    assert done.err.endswith("\n")
    assert done.err[:-1].isprintable()
    for word in words:
        assert word in done.err


def furnish(here: Path) -> None:
    """Make the files that bad input is about."""
    (here / "one.txt").write_text("a")
    (here / "latin.txt").write_bytes(b"caf\xe9\n")
    (here / "other.txt").write_text("abcd. and more")
    (here / "folder").mkdir()
    (here / "exists").write_text("mine")
    (here / "loop").symlink_to("loop")
    os.mkfifo(here / "fifo")
    weights.save(here / "good", saved())
    (here / "cut").write_bytes((here / "good").read_bytes()[:-1])
    shape = random_weights(ModelConfig(5, width=9, layers=3))
    weights.save(here / "shape", saved(checkpoint=fresh_checkpoint(shape)))


BAD = {  # what else is wrong with texts, sizes and files has its own tests
    "--corpus missing.txt": "no such file 'missing.txt'; give",
    "--corpus tiny": "unknown corpus 'tiny'; known: toy, ",
    "--corpus latin.txt": "not UTF-8 (byte 0xe9 at offset 3); convert it",
    "--prompt aZ": "'Z' at position 1",
    "--entrant flex_linen": "unknown entrant 'flex_linen'; known: pure_jax, equinox",
    "--style jit": "unknown style of pure_jax 'jit'; known: pure, tuned",
    "--entrant haiku --style jit": "unknown style of haiku 'jit'; known: pure, transform",
    "--width 0": "width is 0; it must be a whole number from 1 to 16384",
    "--width wide": "'--width': Input should be a valid integer, unable to parse",
    "--layers 1.5": "not '1.5'",
    "--batch nan": "not 'nan'",
    "--epoch-chars 1": "it must be a whole number from 2",
    "--epochs -1": "epochs is -1",
    "--sample-every -1": "sample-every is -1",
    "--learning-rate inf": "learning rate is inf; it must be a positive number",
    "--weight-decay -1": "weight decay is -1.0; it must be zero or a positive number",
    "--seed 2147483648": "seed is 2147483648; it must be from 0 to 2147483647",
    "--epoch-mode fast": "it must be 'chunk' or 'scan'",
    "--entrant flax_linen --style blog --epoch-mode scan": "'scan' is given for style 'blog'",
    "--resume none": "there is no weights file none",
    "--resume good --width 9": "the resumed model has 8",
    "--resume good --epochs 2": "the resumed run has done 3 already",
    "--resume good --corpus other.txt": "' ' at position 5",
    "--resume good --style jit": "unknown style of equinox 'jit'",
    "--resume good --chunk 0": "chunk is 0",
    "--log new --save new": "--save and --log are both new",
    "--plot a.jpg": "a.jpg",
    "--width": "Option '--width' requires an argument",
    "more": "unexpected extra argument",
    "--devices 0": "devices is 0; it must be a whole number from 1",
    "--style pure@4": "style is 'pure@4'; give --style pure --devices 4",
    "--processes 0": "--processes is 0; it must be a whole number from 1",
    "--processes 1000": "whole number from 1 to 64",
    "--process-id 1": "without --coordinator and --processes",
    "--coordinator a:1 --processes 2": "without --process-id",
    "--coordinator nowhere --process-id 0 --processes 2": "--coordinator is 'nowhere'; give",
    "--coordinator a:1 --process-id 2 --processes 2": "--process-id is 2",
    "--coordinator a:1 --process-id 0 --processes 2 --devices 3": "give a multiple of 2",
}
WEIGHTS = {
    "folder": "folder is a folder",
    "fifo": "is a pipe, not a regular file",
    "loop": "loop",
    LONG: "File name too long",
    "/dev/zero": "is a character device, not a regular file",
    "cut": "is not a whole safetensors file",
    "shape": "has (14, 9) for cells.0.kernel, where its configuration says (13, 8)",
}
REFUSED = {
    **{f"train {given}": says for given, says in BAD.items()},
    "train --resume cut": WEIGHTS["cut"],
    **{f"sample {file}": says for file, says in WEIGHTS.items()},
    "sample": "Missing argument 'WEIGHTS'",
    "sample good --entrant nobody": "unknown entrant 'nobody'; known",
    "sample good --prompt é": "'é' at position 0",
    "sample good --length 0": "length is 0",
    "sample good --temperature nan": "temperature is nan",
    "sample good --temperature hot": "not 'hot'",
    "sample good --seed -1": "seed is -1",
    "entrants --workload nope": "unknown workload 'nope'; known: toy, seed",
    "entrants --build nope": "unknown entrant 'nope'; known",
    "entrants --build pure_jax": "has no environment of its own; those that have: keras",
    "entrants --workload": "requires an argument",
    "nope": "No such command 'nope'",
}


@pytest.mark.parametrize("given", REFUSED, ids=lambda given: given[:60])
def test_bad_input_is_one_line_and_no_file(bakeoff: Bakeoff, tmp_path: Path, given: str) -> None:
    furnish(tmp_path)
    before = folder(tmp_path)
    arguments = shlex.split(given)
    if arguments[0] == "train":
        # What is given comes last and wins; the rest shows that nothing is written.
        common = () if "--resume" in arguments else ("--width", "8", "--corpus", "toy")
        arguments[1:1] = [*common, "--save", "new.safetensors", "--log", "new.jsonl"]
    assert_one_line(bakeoff(*arguments), REFUSED[given])
    assert folder(tmp_path) == before


@pytest.mark.parametrize(
    "given",
    [
        *("train --corpus", "train --entrant", "train --style", "train --save", "train --log"),
        *("train --plot", "train --resume", "train --prompt", "train --coordinator"),
        *("sample", "entrants --workload", "entrants --build", "report", "compare", "check"),
        *("new", "matrix", "ab --base current --new", "history --runs", "report x.json -o"),
        *("train --width", "nope"),
    ],
)
def test_hostile_text_is_one_line_too(bakeoff: Bakeoff, tmp_path: Path, given: str) -> None:
    assert_one_line(bakeoff(*given.split(), f"no/{HOSTILE}"))
    assert names(tmp_path) == []


PLACES = {
    "one.txt/new": "one.txt is not a folder",
    "exists": "",
    "dangling": "",
    "none/new": "none",
    f"{LONG}/new": "at most 255 are allowed",
    "/proc/new": "/proc takes no new files",
    "readonly/new": "(Read-only file system)",
}
"""What is said of a place for a new file; endings are added, and nothing is imported before."""
WRITERS = {
    "--save": "train --corpus missing.txt --save",
    "--log": "train --corpus missing.txt --log",
    "--plot": "train --corpus missing.txt --plot",
    "output": "report missing.json -o",
    "--pictures": "report missing.json --pictures",
    "--save-runs": "ab --base current --new current --workload nope --save-runs",
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[:20])
@pytest.mark.parametrize("option", WRITERS)
def test_a_place_that_cannot_be_written_to_is_refused_first(
    bakeoff: Bakeoff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, place: str
) -> None:
    if option in ("--pictures", "--save-runs") and place == "none/new":
        pytest.skip("folders are made with all that is above them")
    furnish(tmp_path)
    ending = {"--plot": ".svg", "output": ".md"}.get(option, "")
    (tmp_path / f"dangling{ending}").symlink_to("nowhere")
    (tmp_path / f"exists{ending}").touch()
    (tmp_path / "readonly").mkdir()
    temporary = tempfile.TemporaryFile

    def simulated(dir: Path) -> Any:  # noqa: A002
        if dir.name == "readonly":  # root, who runs many a CI, may write anywhere
            raise OSError(30, "Read-only file system")
        return temporary(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", simulated)
    before = folder(tmp_path)
    done = bakeoff(*shlex.split(WRITERS[option]), f"{place}{ending}")
    assert_one_line(done, f"{option} ", PLACES[place])
    assert "missing" not in done.err
    assert folder(tmp_path) == before


def test_the_longest_name_that_is_allowed(bakeoff: Bakeoff, tmp_path: Path) -> None:
    path, picture = "w" * 255, f"{'é' * 125}.svg"
    files = ("--save", path, "--plot", picture, "--log", "l" * 255)
    assert bakeoff("train", *SMALL, "--epochs", "1", *files).status == 0
    assert names(tmp_path) == sorted([path, picture, "l" * 255])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(30, "Read-only", "x"), "cannot use x: Read-only; name another place"),
        (OSError(28, "No space", "x"), "cannot write x: No space; make room there"),
        (OSError(28, "No space"), "cannot write a file: No space; make room there"),
    ],
    ids=["read-only", "full", "full, no name"],
)
def test_any_other_place_is_one_line_too(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, error: OSError, says: str
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(train_command, "assemble", failing)
    assert bakeoff("train") == (2, "", f"bakeoff: {says}\n")


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


def test_every_knob_reaches_the_run(bakeoff: Bakeoff, tmp_path: Path) -> None:
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


def test_what_is_given_anew_replaces_what_was_saved(bakeoff: Bakeoff, tmp_path: Path) -> None:
    weights.save(tmp_path / "w", saved())
    before = (tmp_path / "w").read_bytes()
    given = "--resume w --epochs 3 --entrant haiku --seed 7 --chunk 8 --learning-rate 1 --save v"
    assert bakeoff("train", *given.split()).status == 0
    assert (tmp_path / "w").read_bytes() == before
    kept = weights.load(tmp_path / "v")
    assert (kept.entrant, kept.style, kept.seed, kept.epoch) == ("haiku", "pure", 7, 3)
    assert kept.data.chunk == 8
    assert kept.optimiser.learning_rate == 1


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


def test_ctrl_c_before_the_first_epoch(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "assemble", interrupted)
    assert bakeoff("train") == (130, "", "bakeoff: interrupted\n")


def test_an_interrupted_run_without_a_file_names_a_new_one(
    bakeoff: Bakeoff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that goes on is the one that was given, but for its files."""
    (tmp_path / "bakeoff-pure_jax-1.safetensors").write_text("mine")

    def interrupted(self: Any, epoch: Any) -> None:
        raise KeyboardInterrupt

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
    texts = {
        bakeoff("sample", "w", "--prompt", "ab", "--length", "50", "--entrant", name)
        for name in ("pure_jax", "haiku")
    }
    [done] = texts
    assert re.fullmatch(r"ab[.abcd]{50}\n", done.out)
    assert (done.status, done.err) == (0, "")
    assert bakeoff("sample", "w", "--prompt", "ab", "--length", "50") == done


def test_a_temperature_draws_with_the_seed(bakeoff: Bakeoff, tmp_path: Path) -> None:
    weights.save(tmp_path / "w", saved())
    warm = ("sample", "w", "--length", "30", "--temperature", "1.5", "--seed")
    assert bakeoff(*warm, "3") == bakeoff(*warm, "3")
    assert bakeoff(*warm, "3") != bakeoff(*warm, "4")


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


def slowly(*rows: tuple[Any, ...]) -> list[Any]:
    """Return rows of a table that are left to `make test-all`: the others fail for most of it."""
    return [pytest.param(*row, marks=pytest.mark.slow) for row in rows]


PROGRAM = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('bench.cli', run_name='__main__')"
)
"""`python -m bench.cli`, also where Ctrl-C is ignored, as it is for a job in the background."""


def start(
    here: Path,
    *arguments: str,
    stdout: int = subprocess.PIPE,
    stderr: int | None = None,
    **env: str,
) -> Any:
    """Start `bakeoff` in a folder; standard error is a file there, or the same as `stdout`."""
    inherited = {
        k: v
        for k, v in os.environ.items()
        if k not in {"NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED"}
    }
    python_path = os.pathsep.join([str(ROOT), inherited.get("PYTHONPATH", "")]).strip(os.pathsep)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=here,
        env={**inherited, "PYTHONPATH": python_path, "COLUMNS": "100", **env},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr or (subprocess.PIPE if stdout == subprocess.PIPE else stdout),
    )


def test_help_does_not_wait_for_jax() -> None:
    program = (
        "import sys; from bench.cli import app, main\n"
        "for command in app.registered_commands:\n"
        "    assert main([command.name, '--help']) == 0\n"
        "print(sorted({'jax', 'flax', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout.splitlines()[-1]) == ("", "[]")


def wait_for(stream: Any, sign: bytes) -> bytes:
    """Read lines until one has `sign` in it; return them all."""
    seen = b""
    for line in stream:
        seen += line
        if sign in line:
            return seen
    raise AssertionError(f"it ended without {sign!r}: {seen!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, *slowly((signal.SIGTERM,))])
def test_a_signal_saves_and_says_how_to_go_on(
    bakeoff: Bakeoff, tmp_path: Path, number: signal.Signals
) -> None:
    path = "two words.safetensors"
    process = start(tmp_path, "train", *SMALL, "--epochs", "1000000", "--save", path, "--log", "l")
    out = wait_for(process.stdout, b"epoch    2 ")
    process.send_signal(number)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"\x1b" not in out + rest + err
    found = re.fullmatch(
        rf"bakeoff: interrupted; (\d+) epochs saved to {path}; go on with: (.*)\n",
        err.decode(),
    )
    assert found
    done, command = int(found[1]), shlex.split(found[2])
    assert command == ["bakeoff", "train", "--resume", path, *SMALL, "--epochs", "1000000"]
    assert done >= 3
    assert names(tmp_path) == ["l", path]
    kept = weights.load(tmp_path / path)
    assert (kept.epoch, kept.checkpoint.updates) == (done, 5 * done)
    assert records((tmp_path / "l").read_text())[-1]["epoch"] in (done - 2, done - 1)

    resumed = bakeoff(*command[1:-1], str(done + 1))
    assert resumed.status == 0
    assert re.findall(r"^epoch +(\d+) ", resumed.out, re.MULTILINE) == [str(done)]


@pytest.mark.parametrize("colour", [True, *slowly((False,))], ids=["colour", "NO_COLOR"])
def test_a_terminal_shows_a_bar(tmp_path: Path, colour: bool) -> None:
    ours, theirs = pty.openpty()
    setting: dict[str, Any] = {} if colour else {"NO_COLOR": "1"}
    arguments = ("train", *SMALL, "--epochs", "200", "--sample-every", "100")
    process = start(tmp_path, *arguments, stdout=theirs, TERM="xterm-256color", **setting)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            shown += os.read(ours, 1 << 16)
        except OSError:  # Linux says so when the other end has closed
            break
    os.close(ours)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "━━━" in text
    assert "/200" in text
    assert re.search(r"loss \d\.\d{4}", text)
    assert re.findall(r"epoch +(\d+)  loss", text) == ["0", "100", "199"]
    assert "mean loss of the last 10 epochs" in text
    coloured = re.search(r"\x1b\[[0-9;]*3[0-9;]*m", text)
    assert bool(coloured) == colour


def piped_into_head(here: Path, *arguments: str, read: int = 1) -> tuple[str, str]:
    """Read a little of what the command writes, then close; return that and its errors."""
    process = start(here, *arguments)
    first = process.stdout.read(read).decode()
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) != 0
    return first, err


def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path) -> None:
    weights.save(tmp_path / "w", saved())
    long = ("--length", "200000", "--prompt", "a")
    assert piped_into_head(tmp_path, "sample", "w", *long) == ("a", "")
    assert piped_into_head(tmp_path, "sample", "w", "--length", "5", read=0) == ("", "")


def test_a_reader_that_leaves_training_early(tmp_path: Path) -> None:
    first, err = piped_into_head(tmp_path, "train", *SMALL, "--epochs", "1000000")
    assert first == "p"
    assert "Traceback" not in err


FULL = "bakeoff: cannot write to standard output: No space left on device; make room there"
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


@full
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [
        ("", ""),
        ("--help", "1"),
        (f"report {RUN} --format md", "1"),
        *slowly(
            ("entrants --json", ""),
            ("sample w", ""),
            ("new mine", ""),
            (f"compare {RUN} {RUN}", ""),
            (f"report {RUN} --format csv", ""),
        ),
    ],
)
def test_a_full_standard_output_is_one_line(tmp_path: Path, command: str, unbuffered: str) -> None:
    weights.save(tmp_path / "w", saved())
    how: dict[str, Any] = {"stderr": subprocess.PIPE, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as file:
        process = start(tmp_path, *command.split(), stdout=file.fileno(), **how)
        err = process.communicate(timeout=60)[1].decode()
        if command == "--help":  # standard error as well
            assert start(tmp_path, "--help", stdout=file.fileno()).wait(60) == 2
    assert process.returncode == 2
    assert err.startswith(FULL)
    assert err.count("\n") == 1


@full
@pytest.mark.parametrize("files", [("--save", "w"), *slowly((("--log", "-"),))], ids=" ".join)
def test_training_onto_a_full_standard_output(tmp_path: Path, files: tuple[str, ...]) -> None:
    arguments = ("train", *SMALL, "--epochs", "2", *files)
    with Path("/dev/full").open("w") as file:
        process = start(tmp_path, *arguments, stdout=file.fileno(), stderr=subprocess.PIPE)
    err = process.communicate(timeout=60)[1].decode()
    [line] = [line for line in err.splitlines() if line.startswith("bakeoff: ")]
    assert process.returncode == 2
    assert line.startswith(FULL)
    assert "Traceback" not in err


def test_a_closed_standard_output_is_no_error(tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -m bench.cli entrants --help >&-"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [("", ""), ("--help", "1"), (f"report {RUN} --format csv", "")],
    ids=["none", "help", "report"],
)
def test_a_reader_that_has_left_is_quiet(tmp_path: Path, command: str, unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(
        tmp_path,
        *command.split(),
        stdout=write,
        stderr=subprocess.PIPE,
        PYTHONUNBUFFERED=unbuffered,
    )
    os.close(write)
    err = process.communicate(timeout=60)[1].decode()
    assert (process.returncode, err) == (141, "")


@full
@pytest.mark.slow
def test_measuring_goes_on_where_standard_output_is_full(tmp_path: Path) -> None:
    """What is shown is lost, and that is said once; the run file is there."""
    command = bench("-q", "--budget=10", "--entrant=pure_jax", "--style=pure", "--workload=toy")
    command += ["--metric=step", "--blocks=1", "--rounds=1", "--benchmark-json=run.json"]
    with Path("/dev/full").open("w") as file:
        done = subprocess.run(command, **how(tmp_path), stdout=file, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(FULL)
    assert done.stderr.count("bakeoff: ") == 1
    assert json.loads((tmp_path / "run.json").read_text())["bakeoff"]["cells"]
