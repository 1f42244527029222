"""`bakeoff ab`: a real tiny A/B as a command, and releases that differ between its sides."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.cells import Cell, Offer
from bench.compare.ab_result import comparison, differences
from bench.compare.comparison import CountOutcome, Status
from bench.compare.experiment import Offered
from bench.compare.gate import Gate
from bench.engine.actions import Options
from bench.engine.processes import Place
from bench.engine.sides_plan import AB, BASE, NEW
from bench.environments.builder import Environment
from bench.environments.spec import parse
from bench.runfile.reader import read
from bench.stats.verdicts import Verdict
from tests.commands import command, how
from tests.simulated import LANES, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
COUNTS = ("--pairs", "2", "--blocks", "2", "--cold-samples", "1")
SELF = (
    *("ab", "--base", "current", "--new", "current", "--entrant", "equinox", "--style", "pure"),
    *("--workload", "toy", "--budget", "60"),
)


@pytest.mark.slow
def test_an_ab_is_measured_interrupted_taken_up_and_written(
    tmp_path: Path, heard: Callable[[list[str]], list[str]]
) -> None:
    started = heard(command(*SELF, *COUNTS))
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(started, **how(tmp_path), **streams) as process:
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            found = list(tmp_path.glob(".bakeoff/ab/*.journal"))
            if found and '"block"' in found[0].read_text():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "go on with the same command and --resume" in errors
    [journal] = tmp_path.glob(".bakeoff/ab/*.journal")
    kept = len(journal.read_text().splitlines())

    again = command(*SELF, *COUNTS, "--resume", "--save-runs", "runs", "-o", "ab.json")
    done = subprocess.run(again, **how(tmp_path), **streams, timeout=120, check=False)
    assert done.returncode in (0, 2), done.stderr  # noise may leave every row open
    assert not journal.exists(), done.stderr
    assert kept > 10
    made = json.loads((tmp_path / "ab.json").read_text())
    rows = {row["metric"] for row in made["rows"] if row["ratio"] is not None}
    assert {"step", "host_cost", "compile", "import", "peak_rss"} <= rows
    assert {row["outcome"] for row in made["exact"]} == {"equal"}
    assert made["failures"] == []
    for name in ("base", "new"):
        run = read(tmp_path / "runs" / f"{name}.json")
        assert run.lacking == []
        assert {cell.entrant for cell in run.section.cells} == {"pure_jax", "equinox"}
        blocks = {c.entrant: c.metrics["step"].blocks for c in run.section.cells}
        assert blocks["equinox"] >= 4  # the pair that was cut off has some
        assert blocks["pure_jax"] >= 2  # not asked for: it is in the first block of a pair

    other = command(*SELF, "--pairs", "3", "--resume")
    nothing = subprocess.run(other, **how(tmp_path), **streams, timeout=60, check=False)
    assert nothing.returncode == 2
    assert "there is nothing to resume: no journal in .bakeoff/ab/" in nothing.stderr


def side(versions: dict[str, str], *pins: str) -> Offered:
    environment = Environment(parse("flax==0.12.8" if pins else "current"), Place(), pins)
    return Offered(environment, Offer({}, {}, ["cpu"], versions, {}))


def test_a_slower_arm_is_found_and_a_failed_one_is_worse() -> None:
    cells = [Cell("pure_jax", "pure", "seed", "cpu"), Cell("haiku", "transform", "seed", "cpu")]
    plan = AB(cells, frozenset({"step"}), Options(60), 0.0, LANES)
    machine = Machine(noise=0.01, effects={(NEW, "haiku/transform"): 1.1})
    machine.drive(plan)
    plan.found(NEW).cells[cells[0]].exact["python_calls"] = 5
    plan.found(BASE).cells[cells[0]].exact["python_calls"] = 4
    sides = {name: side({"jax": "0.12.0"}) for name in (BASE, NEW)}
    selected = {BASE: cells, NEW: cells[:1]}
    found = comparison(plan, sides, selected, Gate(), 0.02)
    verdicts = {row.cell: (row.verdict, row.worse) for row in found.rows}
    assert verdicts[cells[0]] == (Verdict.EQUIVALENT, False)
    assert verdicts[cells[1]] == (Verdict.SLOWER, True)
    changed = [(row.cell, row.outcome) for row in found.exact if row.changed]
    assert changed == [(cells[0], CountOutcome.WORSE)]
    assert [row.cell for row in found.only_base] == cells[1:]
    assert found.status is Status.WORSE
    plan.found(NEW).cells[cells[1]].failure = "not equal"
    again = comparison(plan, sides, selected, Gate(), 0.02)
    assert [(row.cell, row.new) for row in again.failures] == [(cells[1], "not equal")]
    assert cells[1] not in {row.cell for row in again.rows}


def test_what_only_the_environment_at_hand_has_is_no_difference() -> None:
    here = metadata.version("numpy"), metadata.version("scipy")
    known = {"jax": "0.12.0", "numpy": here[0]}
    current = side(known | {"flax": "0.12.12", "equinox": "0.13.8"})
    built = side(
        known | {"flax": "0.12.8"},
        *(f"{n}=={v}" for n, v in known.items()),
        "flax==0.12.8",
        "scipy==1.0",
        "uvloop==0.23.0",
    )
    found = [str(each) for each in differences({BASE: built, NEW: current})]
    assert found == [
        "equinox none, then 0.13.8",
        "flax 0.12.8, then 0.12.12",
        f"scipy 1.0, then {here[1]}",
    ]
    both = side(known, "jax==0.12.0", f"numpy=={here[0]}", "zipp==4.1.2")
    told = [str(each) for each in differences({BASE: both, NEW: built})]
    assert "uvloop none, then 0.23.0" in told
    assert "zipp 4.1.2, then none" in told
