"""What docs/architecture.md says of additions: with one row or field, all rooms have it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, how

ROWS = """
    Metric("openings", "of files in a step"),
    Metric("swaps", "of a fresh process", Kind.COLD, "B"),
    Metric("faults", "of pages in a fresh process", Kind.COLD),
    Metric("lateness", "after a long training", Kind.ONCE, "nats"),
"""
METRIC = """
from pathlib import Path
from bench.cli import main
from bench.metrics import METRICS
from bench.report import run_tables, summary
from bench.runfile.writer import run_file, write
from tests.engine.plans import run
from tests.engine.simulated import FEW, Machine, needed
from tests.report.runs import Planted, made_run

summary.ONCE = (*summary.ONCE, "openings", "swaps", "lateness")  # columns of the first table
planted = Planted(1.2, counts={"openings": 7, "lateness": 1.25})
write(Path("run.json"), run_file(made_run({"haiku/pure": planted}).results))
for ending in ("txt", "md", "csv", "html"):
    assert main(["report", "run.json", "-o", f"run.{ending}"]) == 0
assert {*METRICS} <= {name for names in run_tables.COLUMNS.values() for name in names}
machine = Machine()
run(needed(("toy",), ("lateness", "swaps"), FEW), 60.0, machine)
assert {"train", "cold"} <= {action.do for _, _, action in machine.log}
"""
FIELDS = """
    warm_up: int = 3
    sentences: Annotated[int, AMOUNT] = 5
"""
OPTION = """
import msgspec
from bench.engine.measurement import digest_setup
from bench.options import Options
from bench.runfile import RunOptions
from tests.engine.test_measurement import task_of

base, other, more = (
    digest_setup(task_of(options=Options(**given)))
    for given in ({}, {"warm_up": 4}, {"sentences": 6})
)
assert {name for name in base if base[name] != other[name]} == {"options"}
assert base == more, "how much is measured may change where a run goes on"
kept = msgspec.convert(Options(warm_up=4, sentences=6), RunOptions, from_attributes=True)
print(msgspec.json.encode(kept).decode())
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with a copy of the code, to be changed."""
    for name in ("bench", "common", "impls", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


def run(folder: Path, file: str, after: str, added: str, script: str) -> str:
    """Add lines to a file of a copy after the first of its lines; return what a script prints."""
    path = folder / file
    before, line, rest = path.read_text("utf-8").partition(after)
    assert line
    path.write_text(before + line + added.rstrip("\n") + rest, encoding="utf-8")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, **how(folder, folder), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_metric_is_a_row(copy: Path) -> None:
    run(copy, "bench/metrics.py", "\nTABLE = (", ROWS, METRIC)
    for ending in ("txt", "md", "csv", "html"):
        text = (copy / f"run.{ending}").read_text("utf-8")
        for name in ("openings", "swaps", "faults", "lateness"):
            assert name in text, (name, ending)


def test_an_option_is_a_field(copy: Path) -> None:
    """It is in run files, and `--resume` heeds it, unless it says how much is measured."""
    after = "    donate: bool = False"
    kept = json.loads(run(copy, "bench/options.py", after, FIELDS, OPTION))
    assert (kept["warm_up"], kept["sentences"]) == (4, 6)
