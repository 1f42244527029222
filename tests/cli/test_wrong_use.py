"""Bad input of every command: one printable line, exit status 2, and nothing is written."""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from bench import weights
from bench.cli import COMMANDS
from bench.engine.journal import FOLDER
from bench.runfile.writer import run_file, write
from tests.commands import ROOT, Bakeoff, command, how, saved
from tests.report.runs import Planted, made_run
from tests.worker.step_files import MODEL

HOSTILE = "\x1b[31mred\x07\n[bold]:smile:\u202e\r"


def folder(path: Path) -> dict[str, tuple[bytes, int]]:
    """Return all files below `path` with their contents and times."""
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


AB, BISECT = "ab --base current", "bisect --metric step"
REFUSED = {
    "nope": "No such command 'nope'",
    **{f"{name} --nope": "No such option: --nope" for name in ("", *COMMANDS)},
    "train --corpus tiny": "unknown corpus 'tiny'; known: toy, ",
    "train --prompt aZ": "'Z' at position 1",
    "train --entrant flex_linen": "unknown entrant 'flex_linen'; known: pure_jax, ",
    "train --style jit": "unknown style of pure_jax 'jit'; known: pure, tuned",
    "train --width wide": "'--width': Input should be a valid integer, unable to parse",
    "train --epochs -1": "epochs is -1",
    "train --seed 2147483648": "seed is 2147483648; it must be a whole number from 0 to 2147483647",
    "train --backend npu": "backend 'npu' cannot be used here (jax says: ",
    "train --resume good --width 9": "the resumed model has 8",
    "train --resume good --epochs 2": "the resumed run has done 3 already",
    "train --resume good --corpus other.txt": "' ' at position 5",
    "sample": "Missing argument 'WEIGHTS'",
    "sample good --entrant nobody": "unknown entrant 'nobody'; known",
    "sample good --prompt é": "'é' at position 0",
    "sample good --temperature nan": "temperature is nan",
    "sample good --backend cpu:99": "backend is 'cpu:99', and cpu has 1 device here: give cpu:0",
    "entrants --build pure_jax": "an environment of its own 'pure_jax'; known: ",
    "check missing.py": "no such entrant 'missing.py'; give a name, or a Python file's path",
    "check haiku --only speed": "unknown check 'speed'; known: contract, shapes",
    "check haiku --time-limit nan": "--time-limit is nan; it must be a positive number",
    "new a-b": "'a-b' is not a Python identifier; give a name of letters, digits and _",
    "new haiku": "there is an entrant 'haiku' already; give another name",
    "new json": "a file json.py would hide the module json; give another name",
    "new jax": "a file jax.py would hide the module jax",
    "new control": "there is a reserved name 'control' already; give another name",
    "new mine --into nowhere": "there is no folder nowhere; make it first",
    "report nowhere.json": "nowhere.json cannot be read (No such file",
    "report other.txt -o page.html": "other.txt is not JSON (",
    "report run.json -o page.pdf": "ends in .pdf; .html, .htm, .txt, .text, .md, .markdown, .csv",
    "report run.json --format parquet": "'parquet'",
    "cost": "give either the file of your step",
    "cost gone.py": "there is no Python file gone.py",
    "cost .": "there is no Python file .",
    "cost text.py": "text.py has neither make_model nor make_step",
    "cost broken.py": "syntax error in line 1",
    "cost mine.py --arrays 3": "give either the file of your step",
    "cost mine.py --style wrong": "unknown style 'wrong'",
    "cost --arrays 0": "--arrays is 0; it must be a whole number from 1 to 10000",
    "cost --arrays 8 --model numpy": "unknown model 'numpy'",
    "cost --arrays 8 --backend cpu": "are for a file: name one",
    "cost mine.py --model equinox": "--model is for --arrays",
    "cost --arrays 8 --format json": "json has one library's stack: name it",
    "cost --arrays 8 --style flax_nnx/jet": "unknown style 'flax_nnx/jet'; known: ",
    "matrix plan.toml --ray auto": "--ray without --out; name the folder",
    "matrix plan.toml --out plan.toml": "is not a folder",
    "ab --base -x": "--base '-x' looks like an option",
    f"{AB} --new nope": "there is no revision 'nope'",
    f"{AB} --budget 0": "--budget is 0",
    f"{AB} --margin 5": "--margin is 5; it must be from 1e-06 to 0.5: 0.02 is 2 %",
    f"{AB} --margin 1e-320": "--margin is 9.99989e-321",
    f"{AB} --budget 1e308": "--budget is 1e+308",
    f"{AB} --entrant=": "a name is empty; give one, or leave its option out",
    f"{AB} --metric flops": "metric 'flops' is not measured side by side; give one of ",
    f"{AB} --entrant jraph": "unknown entrant 'jraph'; known: ",
    f"{AB} -o x.doc": "output x.doc ends in .doc",
    f"{AB} --step mine.py --entrant haiku": "--step is",
    f"{AB} --entrant mine.py": "is a training step, and no entrant",
    f"{BISECT} --good main --bad HEAD": "--good main is not made of releases; give",
    f"{BISECT} --good @2025-01-01 --bad soon!": "--bad soon! is not made of releases",
    f"{BISECT} --good jax==0.8.1 --bad jax==0.8.1": "--good and --bad are both jax==0.8.1",
    f"{BISECT} --good jax==0.8.0 --bad jax==0.8.1 --workload sweep": "unknown workload 'sweep'",
    "history --since yesterday": "--since: 'yesterday' is not a day",
    "history --since 2026-02-01 --until 2026-01-01": "--since 2026-02-01 is after",
    "history --every 1d": "--every 1d gives more than 400 days",
    "history nowhere": "there is no nowhere; give run files, or folders that hold them",
    "history none": "none: none of 0 JSON files is a run; give what",
    "history none --resume": "--resume is for measuring, and run files are given",
    "history -o past": "output past ends in nothing; .txt",
    "history run.json -o run.json": "output run.json exists already",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with files that are named in the table; each refusal leaves it as it was."""
    place = tmp_path_factory.mktemp("place")
    (place / "none").mkdir()
    (place / "__pycache__").touch()  # no folder, so that Python keeps no bytecode of mine.py
    (place / "plan.toml").write_text("[[compare]]")
    (place / "other.txt").write_text("abcd. and more")
    for name, text in {"mine": MODEL, "text": "x = 1", "broken": "def ("}.items():
        (place / f"{name}.py").write_text(text)
    weights.save(place / "good", saved())
    results: Any = made_run({"haiku/pure": Planted()}).results
    write(place / "run.json", run_file(results))
    return place


@pytest.mark.parametrize("given", REFUSED)
def test_what_is_wrong_unknown_or_gone_is_refused(
    bakeoff: Bakeoff, place: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(place)
    if "--backend npu" in given:  # JAX keeps the backends that it has made
        refuse = Mock(side_effect=RuntimeError("Unknown backend npu"))
        monkeypatch.setattr("jax.devices", refuse)
    before = folder(place)
    arguments = shlex.split(given)
    if arguments[0] == "train":
        # What is given comes last and wins; the rest shows that nothing is written.
        common = () if "--resume" in arguments else ("--width", "8", "--corpus", "toy")
        arguments[1:1] = [*common, "--save", "new.safetensors"]
    done = bakeoff(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("bakeoff: ")
    assert done.err[:-1].isprintable(), "it is one line"
    assert REFUSED[given] in done.err
    assert folder(place) == before


@pytest.mark.parametrize(
    "given",
    [
        *(f"train --corpus toy --{name}" for name in ("style", "save", "resume", "prompt")),
        *("sample", "entrants --build", "report", "new", "cost", "compare", "check"),
        *("matrix", "history", "report x.json -o", "ab --base current --new", "bisect --good"),
        *("nope", "--", "train --"),
    ],
)
def test_hostile_text_is_one_line_too(bakeoff: Bakeoff, tmp_path: Path, given: str) -> None:
    done = bakeoff(*given.split(), f"no/{HOSTILE}")
    assert (done.status, done.out) == (2, "")
    assert done.err[:-1].isprintable()
    assert list(tmp_path.iterdir()) == []


PLACES = {
    "other.txt/new": "other.txt is not a folder",
    "exists": "",
    "dangling": "",
    "none/new": "none",
    f"{'x' * 300}/new": "File name too long; name another one",
    "/proc/new": "/proc takes no new files",
    "readonly/new": "(Read-only file system)",
}
"""Words about a place for a new file; endings are added, and nothing is imported before."""


@pytest.mark.parametrize(
    ("given", "ending"),
    [("train --corpus missing.txt --save", ""), ("report missing.json -o", ".md")],
)
def test_a_place_that_cannot_be_written_to_is_refused_first(
    bakeoff: Bakeoff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, ending: str
) -> None:
    (tmp_path / "other.txt").write_text("abcd. and more")
    (tmp_path / f"dangling{ending}").symlink_to("nowhere")
    (tmp_path / f"exists{ending}").write_text("mine")
    (tmp_path / "readonly").mkdir()
    temporary = tempfile.TemporaryFile

    def simulated(dir: Path) -> Any:  # noqa: A002
        if dir.name == "readonly":  # root, who runs many a CI, may write anywhere
            raise OSError(30, "Read-only file system")
        return temporary(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", simulated)
    before = folder(tmp_path)
    for place, words in PLACES.items():
        done = bakeoff(*given.split(), f"{place}{ending}")
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert words in done.err
        assert "missing" not in done.err
        assert folder(tmp_path) == before


# `pytest bench`

BENCH = {
    "--budget=0": "--budget is 0; it must be from 0.001 to 604800: give seconds",
    "--workload=tiny": "unknown workload 'tiny'; known: toy, seed, wide, ",
    "--style=jti": "unknown style 'jti'; known: ",
    "--metric=tiem": "unknown metric 'tiem'; known: step, ",
    "--environment=HEAD": "a git revision; give a day or releases, or compare",
    "--entrant=torhc": "unknown entrant 'torhc'; known: pure_jax, ",
    "--entrant=nowhere.py": "no such entrant 'nowhere.py'; give a name, or a Python file's",
    "--entrant=equinox.py": "entrant 'equinox.py': there is another 'equinox'; rename the file",
    f"--entrant={HOSTILE}": "unknown entrant ",
    "--numprocesses=2": "-n is for tests; benchmarks are measured one at a time: leave it out",
    "--benchmark-json=there.json": "--benchmark-json there.json exists already; files are never",
    "--benchmark-json=/proc/run.json": "/proc/run.json: the folder /proc takes no new files (",
    "--resume": "there is nothing to resume: no journal in .bakeoff/; run without --resume",
    "--resume=there.json": "there.json is no run of jax-bakeoff; give what",
}
SCRIPT = """
import contextlib, gc, io, json, sys
import pytest

answers = {}
for option in json.loads(sys.argv[2]):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = pytest.main([sys.argv[1], option])
    answers[option] = int(status), out.getvalue(), error.getvalue()
    gc.collect()  # a run that ends gives its lock back
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run `pytest bench` with each of the bad options in one process, which is quick."""
    here = tmp_path_factory.mktemp("refused")
    (here / "there.json").write_text("{}")
    (here / "equinox.py").touch()
    before = folder(here)
    script = [sys.executable, "-c", SCRIPT, str(ROOT / "bench"), json.dumps([*BENCH])]
    done = subprocess.run(script, **how(here), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    left = {file for file in folder(here).items() if not file[0].startswith(str(here / "tmp"))}
    assert left == set(before.items())
    assert not (here / FOLDER).exists()
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("option", BENCH)
def test_bad_options_of_the_benchmarks(option: str, refused: dict[str, Any]) -> None:
    status, out, error = refused[option]
    assert status == 2
    assert error.strip().isprintable(), "it is one line"
    assert BENCH[option] in error
    assert "Traceback" not in out + error


# Standard output that is full, closed, or has no reader

FULL = "bakeoff: cannot write a file or standard output: No space left on device; make room there\n"
TRAIN = "train --corpus toy --width 8 --chunk 16 --sample-every 0 --save new"


@pytest.mark.parametrize(
    ("given", "to", "status", "error"),
    [
        ("--help", "> /dev/full", 2, FULL),
        (f"{TRAIN} --epochs 2", "> /dev/full", 2, FULL),
        ("--help", ">&-", 0, ""),
        (f"{TRAIN} --epochs 1000000", "> >(exec head -n 3 > first)", 141, ""),
    ],
)
def test_output_that_cannot_be_written(
    tmp_path: Path, given: str, to: str, status: int, error: str
) -> None:
    """A full one is reported in one line; the others are quiet."""
    line = f"exec {shlex.join(command(*given.split()))} {to}"
    shell = ["bash", "-c", line]
    done = subprocess.run(shell, **how(tmp_path), stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (status, error)
    assert (tmp_path / "new").exists() == ("head" in to), "what was trained is kept"
