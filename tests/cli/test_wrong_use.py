"""What every command must do on bad input: one printable line, exit status 2, nothing written.

What is wrong with the values of a command's own options is tested beside that command.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.cli import COMMANDS
from bench.engine.journal import FOLDER
from bench.runfile import ResultsWithSamples
from bench.runfile.writer import run_file, write
from common import weights
from tests.commands import ROOT, bench, command, how, saved
from tests.report.runs import BASELINE, Planted, made_run

if TYPE_CHECKING:
    from tests.commands import Bakeoff, Done

NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]
HOSTILE = "\x1b[31mred\x07\n[bold]:smile:\u202e\r"
LONG = "x" * 300
GONE = ("initialisers", "limit", "tricks")


def folder(path: Path) -> dict[str, tuple[bytes, int]]:
    """Return all files below `path` with their contents and times."""
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def assert_one_line(done: Done, *words: str) -> None:
    """Check that wrong use was refused by a whole, printable line with some words."""
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("bakeoff: ")
    assert done.err.endswith("\n")
    assert done.err[:-1].isprintable()
    for word in words:
        assert word in done.err


REFUSED = {
    **{f"{name} --nope".strip(): "No such option" for name in ["", *NAMES]},
    **{name: f"No such command '{name}'" for name in ("nope", *GONE)},
    "report run.json --format parquet": "'parquet'",
    "report run.json --limit limit.json": "No such option: --limit",
    "ab --base current --config gate.toml": "No such option: --config",
    "entrants --programs": "No such option: --programs",
    "train --processes 2": "No such option: --processes",
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_is_unknown_or_gone_is_refused(bakeoff: Bakeoff, tmp_path: Path, given: str) -> None:
    assert_one_line(bakeoff(*given.split()), REFUSED[given])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "given",
    [
        *(f"train --{name} no/" for name in ("corpus", "entrant", "style", "save", "log", "plot")),
        *(f"train --{name} no/" for name in ("resume", "prompt", "backend", "width")),
        *("sample no/", "entrants --build no/", "report no/", "new no/", "cost --from no/"),
        *("compare no/", "check no/", "matrix no/", "history no/", "report x.json -o no/"),
        *("ab --base current --new no/", "bisect --good no/", "nope no/", "--", "train --"),
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
"""Words about a place for a new file; endings are added, and nothing is imported before."""
WRITERS = {
    "--save": "train --corpus missing.txt --save",
    "--log": "train --corpus missing.txt --log",
    "--plot": "train --corpus missing.txt --plot",
    "output": "report missing.json -o",
    "--pictures": "report missing.json --pictures",
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[:20])
@pytest.mark.parametrize("option", WRITERS)
def test_a_place_that_cannot_be_written_to_is_refused_first(
    bakeoff: Bakeoff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, place: str
) -> None:
    if option == "--pictures" and place == "none/new":
        pytest.skip("folders are made with all that is above them")
    ending = {"--plot": ".svg", "output": ".md"}.get(option, "")
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
    "--metric=tiem": "unknown metric 'tiem'; known: step, ",
    "--style=jti": "unknown style 'jti'; known: ",
    "--backend=tpu": "unknown backend 'tpu'; known: cpu",
    "--backend=cpu:7": "backend is 'cpu:7', and cpu has 1 device here",
    "--environment=HEAD": "a git revision; give a day or releases, or compare",
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
    """Run `pytest bench` with each of the bad options, most in one process, which is quick."""
    here = tmp_path_factory.mktemp("refused")
    (here / "there.json").write_text("{}")
    (here / "equinox.py").touch()
    before = folder(here)
    found: dict[str, Any] = {}
    resuming = [option for option in BENCH if option.startswith("--resume")]  # these take the lock
    for options in ([o for o in BENCH if o not in resuming], *([o] for o in resuming)):
        script = [sys.executable, "-c", EACH, str(ROOT / "bench"), json.dumps(options)]
        done = subprocess.run(script, **how(here), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        found |= json.loads(done.stdout)
    left = {file for file in folder(here).items() if not file[0].startswith(str(here / "tmp"))}
    assert left == set(before.items())
    assert not (here / FOLDER).exists()
    return found


@pytest.mark.parametrize("option", BENCH)
def test_bad_options_of_the_benchmarks(option: str, refused: dict[str, Any]) -> None:
    status, out, error = refused[option]
    assert status == 2
    assert error.strip().isprintable(), "it is one line"
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
        ("report run.json --format md", "> /dev/full", "1", 2),
        (f"{TRAIN} --epochs 2 --save new", "> /dev/full", "", 2),
        *(
            pytest.param(given, "> /dev/full", "", 2, marks=slow)
            for given in (
                *("entrants --json", "sample w", "new mine", "compare run.json run.json"),
                *("report run.json --format csv", "cost --arrays 8"),
            )
        ),
        ("--help", ">&-", "", 0),
        ("", "> >(exec true)", "", 141),
        ("--help", "> >(exec true)", "1", 141),
        ("report run.json --format csv", "> >(exec true)", "", 141),
        ("sample w --length 200000", "> >(exec head -c 1 > first)", "", 141),
        (f"{TRAIN} --epochs 1000000", "> >(exec head -c 1 > first)", "", 141),
    ],
)
def test_output_that_cannot_be_written(
    tmp_path: Path, given: str, to: str, unbuffered: str, status: int
) -> None:
    """A full one is reported in one line, and costs only what is shown; the others are quiet."""
    weights.save(tmp_path / "w", saved())
    results = made_run(BASELINE | {"haiku/pure": Planted()}).results
    assert isinstance(results, ResultsWithSamples)
    write(tmp_path / "run.json", run_file(results))
    line = f"exec {shlex.join(command(*given.split()))} {to}"
    settings = how(tmp_path, PYTHONUNBUFFERED=unbuffered)
    done = subprocess.run(["bash", "-c", line], **settings, stderr=subprocess.PIPE, check=False)
    assert done.returncode == status
    lines = [line[: len(FULL)] for line in done.stderr.splitlines()]
    assert lines == [FULL] * (to == "> /dev/full")
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
