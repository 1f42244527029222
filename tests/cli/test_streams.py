"""What commands print and write where text cannot be kept as it is, or there is no memory."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.runfile.reader import read
from tests.commands import ROOT, command, how

RUN = ROOT / "results/epyc-2-cores/2026-11-30.json"
"""A run in whose report there are µ, –, and in Markdown a space without width."""
ODD = os.fsdecode(b"caf\xe9")
"""A file's name in Latin-1."""


def run(folder: Path, line: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of a shell, in which `bakeoff` is the command."""
    line = line.replace("bakeoff", shlex.join(command()))
    about = how(folder, **variables) | {"text": False}
    return subprocess.run(["bash", "-c", line], **about, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("encoding", "line", "shown"),
    [
        ("ascii", "report run.json --format md", b"62.2 us"),
        ("ascii", "report run.json --format text", b"62.2 us"),
        ("ascii", "report run.json --format md", b"| ^ +"),  # `?` would be undecided
        ("cp1252", "report run.json --format md", b"62.2 \xb5s"),
        ("ascii", "report run.json --format csv", b"host_cost"),
        # a page says that it is in UTF-8, and JSON is
        ("cp1252", "history run.json --format html", "▲".encode()),
        ("ascii", f"history '{ODD}.json' --format json", b'"caf?.json"'),
    ],
)
def test_every_format_fits_every_encoding(
    tmp_path: Path, encoding: str, line: str, shown: bytes
) -> None:
    for name in ("run", ODD):
        shutil.copy(RUN, tmp_path / f"{name}.json")
    done = run(tmp_path, f"bakeoff {line}", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (2 if "history" in line else 0, b"")
    assert shown in done.stdout


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """They are files like others; what cannot have them says so, before it does anything."""
    (tmp_path / ODD).mkdir()
    for name in ("mine.py", f"{ODD}.txt"):
        (tmp_path / ODD / name).write_text("def make_model(): pass")
    shutil.copy(RUN, tmp_path / f"{ODD}.json")
    odd = shlex.quote(ODD)
    for line in (
        f"report {odd}.json -o {odd}.html",
        f"report {odd}.json -o {odd}.md",
        f"history {odd}.json -o {odd}-past.json",
        f"report {odd}-past.json --format text",
    ):
        done = run(tmp_path, f"bakeoff {line}")
        assert b"Traceback" not in done.stderr, done.stderr
        assert b"caf?" in done.stdout
    assert "<h1>jax-bakeoff: caf?" in (tmp_path / f"{ODD}.html").read_text("utf-8")
    assert read(tmp_path / f"{ODD}-past.json").results.arguments[1] == "caf?.json"
    inside = run(tmp_path, f"cd {odd}; bakeoff history ../{odd}.json -o again.json")
    assert inside.stdout == b"again.json\n", "it keeps the name of the folder"
    for line in (
        f"cost {odd}/mine.py",
        f"check {odd}/mine.py",
        f"train --corpus {odd}/{odd}.txt --save {odd}.safetensors",
    ):
        done = run(tmp_path, f"bakeoff {line}")
        assert (done.returncode, done.stdout) == (2, b"")
        assert rb"udce9" in done.stderr
        assert b"is not UTF-8; rename the file or its folder" in done.stderr
        assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / f"{ODD}.safetensors").exists()


def test_closed_streams_leave_the_others_as_they_are(tmp_path: Path) -> None:
    shutil.copy(RUN, tmp_path / "run.json")
    assert run(tmp_path, "bakeoff nope 2>&-").stdout == b"", "a message is no result"
    done = run(tmp_path, "bakeoff history run.json -o past.json <&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")
    assert json.loads((tmp_path / "past.json").read_text())["bakeoff"]["kind"] == "history"


@pytest.mark.parametrize("kilobytes", [60_000, 300_000])
@pytest.mark.parametrize("given", ["report run.json --format text", "entrants", "train"])
def test_too_little_memory_for_a_library_is_one_line(
    tmp_path: Path, given: str, kilobytes: int
) -> None:
    """A library wraps what the loader says: it cannot be imported."""
    shutil.copy(RUN, tmp_path / "run.json")
    done = run(tmp_path, f"ulimit -v {kilobytes}; exec bakeoff {given}")
    words = b"bakeoff: there is too little memory for this, or `ulimit -v` is too low\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", words)


def test_a_page_has_no_pictures_where_drawing_would_end_the_process(tmp_path: Path) -> None:
    shutil.copy(RUN, tmp_path / "run.json")
    done = run(tmp_path, "ulimit -v 30000000; exec bakeoff report run.json --format html")
    words = b"bakeoff: charts are told as text: drawing needs 72 GiB of `ulimit -v`; raise it\n"
    assert (done.returncode, done.stderr) == (0, words)
    assert b"<figure" in done.stdout
    assert b"<img" not in done.stdout
    assert b"<p>step, beside pure_jax/pure, with 95 % intervals." in done.stdout
