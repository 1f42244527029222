"""What every command must do on bad input: one printable line, exit status 2, nothing written."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.cli import app
from bench.engine.journal import FOLDER
from common import weights
from common.config import ModelConfig
from common.contract import fresh_checkpoint
from common.equality import random_weights
from common.errors import words_of
from tests.commands import ROOT, bench, command, how, saved

if TYPE_CHECKING:
    from tests.commands import Bakeoff, Done

RUN = str(ROOT / "results/xeon-2-cores/2026-11-26-default.json")
COMMANDS = sorted(str(each.name) for each in app.registered_commands)
HOSTILE = "\x1b[31mred\x07\n[bold]:smile:\u202e\r"
LONG = "x" * 300


def folder(path: Path) -> dict[str, tuple[bytes, int]]:
    """Return all files below `path` with their contents and times."""
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_words_of_another_library_are_one_line_and_say_where_they_are_cut() -> None:
    assert words_of(ValueError("no\n luck")) == "no luck"
    assert words_of(ValueError(LONG)) == 200 * "x" + "…"


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


REFUSED = {  # what else is wrong with texts, sizes and files has its own tests
    "train --corpus missing.txt": "no such file 'missing.txt'; give",
    "train --corpus tiny": "unknown corpus 'tiny'; known: toy, ",
    "train --corpus latin.txt": "not UTF-8 (byte 0xe9 at offset 3); convert it",
    "train --prompt aZ": "'Z' at position 1",
    "train --entrant flex_linen": "unknown entrant 'flex_linen'; known: pure_jax, blox",
    "train --style jit": "unknown style of pure_jax 'jit'; known: pure, tuned",
    "train --entrant haiku --style jit": "unknown style of haiku 'jit'; known: pure, transform",
    "train --width 0": "width is 0; it must be a whole number from 1 to 16384",
    "train --width wide": "'--width': Input should be a valid integer, unable to parse",
    "train --layers 1.5": "not '1.5'",
    "train --batch nan": "not 'nan'",
    "train --epoch-chars 1": "it must be a whole number from 2",
    "train --epochs -1": "epochs is -1",
    "train --sample-every -1": "sample-every is -1",
    "train --learning-rate inf": "learning rate is inf; it must be a positive number",
    "train --weight-decay -1": "weight decay is -1.0; it must be zero or a positive number",
    "train --seed 2147483648": "seed is 2147483648; it must be from 0 to 2147483647",
    "train --epoch-mode fast": "it must be 'chunk' or 'scan'",
    "train --entrant flax_linen --style blog --epoch-mode scan": "'scan' is given for style 'blog'",
    "train --resume none": "there is no weights file none",
    "train --resume good --width 9": "the resumed model has 8",
    "train --resume good --epochs 2": "the resumed run has done 3 already",
    "train --resume good --corpus other.txt": "' ' at position 5",
    "train --resume good --style jit": "unknown style of equinox 'jit'",
    "train --resume good --chunk 0": "chunk is 0",
    "train --log new --save new": "--save and --log are both new",
    "train --plot a.jpg": "a.jpg",
    "train --width": "Option '--width' requires an argument",
    "train more": "unexpected extra argument",
    "train --devices 0": "devices is 0; it must be a whole number from 1",
    "train --processes 0": "--processes is 0; it must be a whole number from 1",
    "train --processes 1000": "whole number from 1 to 64",
    "train --process-id 1": "without --coordinator and --processes",
    "train --coordinator a:1 --processes 2": "without --process-id",
    "train --coordinator nowhere --process-id 0 --processes 2": "--coordinator is 'nowhere'; give",
    "train --coordinator a:1 --process-id 2 --processes 2": "--process-id is 2",
    "train --coordinator a:1 --process-id 0 --processes 2 --devices 3": "give a multiple of 2",
    "train --resume cut": "is not a whole safetensors file",
    "sample cut": "is not a whole safetensors file",
    "sample folder": "folder is a folder",
    "sample fifo": "is a pipe, not a regular file",
    "sample loop": "loop",
    f"sample {LONG}": "File name too long",
    "sample /dev/zero": "is a character device, not a regular file",
    "sample shape": "has (14, 9) for cells.0.kernel, where its configuration says (13, 8)",
    "sample": "Missing argument 'WEIGHTS'",
    "sample good --entrant nobody": "unknown entrant 'nobody'; known",
    "sample good --prompt é": "'é' at position 0",
    "sample good --length 0": "length is 0",
    "sample good --temperature nan": "temperature is nan",
    "sample good --temperature hot": "not 'hot'",
    "sample good --seed -1": "seed is -1",
    "entrants --workload nope": "unknown workload 'nope'; known: toy, seed",
    "entrants --build nope": "unknown entrant 'nope'; known",
    "entrants --build pure_jax": "has no environment of its own; those that have: blox",
    "entrants --workload": "requires an argument",
    "cost --arrays 8 --check --here": "--check and --here are given; give one of them",
    "initialisers --seeds 0": "--seeds is 0; it must be a whole number from 1",
    "initialisers --epochs 0": "--epochs is 0; it must be a whole number from 1",
    "initialisers --width 0": "width is 0; it must be a whole number from 1 to 16384",
    "initialisers --target nan": "--target is nan; a loss in nats per character is a positive",
    "initialisers --target -1": "--target is -1; a loss",
    "initialisers --corpus toy": "has 70 characters, and each epoch reads 10000 of them",
    "initialisers --corpus missing.txt": "no such file 'missing.txt'; give",
    "initialisers --entrant flex_linen": "unknown entrant 'flex_linen'; known: pure_jax, blox",
    "initialisers --entrant numpy": "entrant 'numpy' is not JAX; give one of pure_jax, ",
    "initialisers --entrant equinox+he": "unknown initialiser of equinox 'he'; known: lecun_normal",
    "initialisers --entrant stax+he": "no other initialiser is known for stax; give stax, or",
    "initialisers --from none": "none cannot be read (No such file or directory); give what",
    "initialisers --from good": "good holds no losses of initialisers",
    "initialisers --from exists --seeds 3": "--from trains nothing, and what is to be trained is",
    "initialisers --resume none --save new": "--save and --resume are given; give one of them",
    "initialisers --save exists": "--save exists exists already; files are never overwritten",
    "initialisers --diff equinox --target 2": "--diff equinox prints a change of a file; give no",
    "initialisers --diff equinox": "--diff equinox: this is the library's own; give one of",
    "nope": "No such command 'nope'",
    **{f"{name} --nope".strip(): "No such option" for name in ["", *COMMANDS]},
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
        *(f"train --{name} no/" for name in ("corpus", "entrant", "style", "save", "log", "plot")),
        *(f"train --{name} no/" for name in ("resume", "prompt", "coordinator", "width")),
        *("sample no/", "entrants --workload no/", "entrants --build no/", "report no/", "new no/"),
        *("compare no/", "check no/", "matrix no/", "history --runs no/", "report x.json -o no/"),
        *(f"initialisers --{name} no/" for name in ("entrant", "corpus", "from", "resume", "diff")),
        *("ab --base current --new no/", "nope no/", "--", "train --"),
    ],
)
def test_hostile_text_is_one_line_too(bakeoff: Bakeoff, tmp_path: Path, given: str) -> None:
    assert_one_line(bakeoff(*given.split()[:-1], given.split()[-1] + HOSTILE))
    assert list(tmp_path.iterdir()) == []


PLACES = {
    "other.txt/new": "other.txt is not a folder",
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


# `pytest bench`

BENCH = {
    "--budget=0": "--budget is 0.0; it must be a positive number",
    "--budget=1e9": "it may be 604800 at most: give seconds",
    "--margin=2": "it may be 0.5 at most: 0.02 is 2 %",
    "--blocks=0": "--blocks is 0; it must be a whole number from 1 to 100000",
    "--rounds=1000000": "--rounds is 1000000; it must be a whole number from 1 to 100000",
    "--cold-samples=-1": "--cold-samples is -1; it must be a whole number from 1",
    "--devices=two": "--devices is 'two'; give whole numbers, as in 1,2,4",
    "--metric=tiem": "unknown metric 'tiem'; known: step, step_pipelined, ",
    "--entrant=torhc": "unknown entrant 'torhc'; known: pure_jax, blox, ",
    "--entrant=nowhere.py": "no such entrant 'nowhere.py'; give a name, or a Python file's",
    "--entrant=equinox.py": "entrant 'equinox.py': there is another 'equinox'; rename the file",
    f"--entrant={HOSTILE}": "unknown entrant ",
    "--numprocesses=2": "-n is for tests; benchmarks are measured one at a time: leave it out",
    "--benchmark-json=there.json": "--benchmark-json there.json exists already; files are never",
    "--benchmark-json=/proc/run.json": "/proc/run.json: the folder /proc takes no new files (",
    "--resume": "there is nothing to resume: no journal in .bakeoff/; run without --resume",
    "--resume=there.json": "there.json is no journal of a run",
}
EACH = """
import contextlib, gc, io, json, sys
import pytest

found = {}
for option in json.loads(sys.argv[2]):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = pytest.main([sys.argv[1], option])
    found[option] = int(status), out.getvalue(), error.getvalue()
    gc.collect()  # a process that ends gives its lock back
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run `pytest bench` with each of the bad options, in one process, which is quick."""
    here = tmp_path_factory.mktemp("refused")
    (here / "there.json").write_text("{}")
    (here / "equinox.py").touch()
    before = folder(here)
    each = [sys.executable, "-c", EACH, str(ROOT / "bench"), json.dumps(list(BENCH))]
    done = subprocess.run(each, **how(here), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    left = {file for file in folder(here).items() if not file[0].startswith(str(here / "tmp"))}
    assert left == set(before.items())
    assert not (here / FOLDER).exists()
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("option", BENCH)
def test_bad_options_of_the_benchmarks(option: str, refused: dict[str, Any]) -> None:
    status, out, error = refused[option]
    assert status == 2
    assert error.count("\n") == 1, error
    assert error[:-1].isprintable()
    assert BENCH[option] in error
    assert "Traceback" not in out + error


# Standard output that is full, closed, or has no reader

FULL = "bakeoff: cannot write to standard output: No space left on device; make room there"
slow = pytest.mark.slow
TRAIN = "train --corpus toy --width 8 --chunk 16 --sample-every 0"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("given", "to", "unbuffered", "status"),
    [
        ("", "> /dev/full", "", 2),
        ("--help", "> /dev/full", "1", 2),
        ("--help", "> /dev/full 2>&1", "1", 2),
        (f"report {RUN} --format md", "> /dev/full", "1", 2),
        (f"{TRAIN} --epochs 2 --save new", "> /dev/full", "", 2),
        *(
            pytest.param(given, "> /dev/full", "", 2, marks=slow)
            for given in (
                *("entrants --json", "sample w", "new mine", f"compare {RUN} {RUN}"),
                f"report {RUN} --format csv",
            )
        ),
        ("--help", ">&-", "", 0),
        ("", "> >(exec true)", "", 141),
        ("--help", "> >(exec true)", "1", 141),
        (f"report {RUN} --format csv", "> >(exec true)", "", 141),
        ("sample w --length 5", "> >(exec true)", "", 141),
        ("sample w --length 200000", "> >(exec head -c 1 > first)", "", 141),
        (f"{TRAIN} --epochs 1000000", "> >(exec head -c 1 > first)", "", 141),
    ],
)
def test_output_that_cannot_be_written(
    tmp_path: Path, given: str, to: str, unbuffered: str, status: int
) -> None:
    """A full one is said in one line, and costs nothing but what is shown; the others are quiet."""
    weights.save(tmp_path / "w", saved())
    line = f"exec {shlex.join(command(*given.split()))} {to}"
    settings = how(tmp_path, PYTHONUNBUFFERED=unbuffered)
    done = subprocess.run(["bash", "-c", line], **settings, stderr=subprocess.PIPE, check=False)
    assert done.returncode == status
    said = [line[: len(FULL)] for line in done.stderr.splitlines()]
    assert said == [FULL] * (to == "> /dev/full")
    assert (tmp_path / "new").exists() == ("--save" in given)


@pytest.mark.slow
def test_measuring_goes_on_where_standard_output_is_full(tmp_path: Path) -> None:
    """What is shown is lost, and that is said once; the run file is there."""
    given = bench("-q", "--budget=10", "--entrant=pure_jax", "--style=pure", "--workload=toy")
    given += ["--metric=step", "--blocks=1", "--rounds=1", "--benchmark-json=run.json"]
    with Path("/dev/full").open("w") as file:
        done = subprocess.run(given, **how(tmp_path), stdout=file, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(FULL)
    assert done.stderr.count("bakeoff: ") == 1
    assert json.loads((tmp_path / "run.json").read_text())["bakeoff"]["cells"]
