"""`bakeoff bisect` and `history` as commands, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cli import run
from bench.engine.processes import Place
from bench.environments.builder import Environment
from tests.commands import Bakeoff, how

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "results" / "xeon-2-cores" / "2026-11-26-default.json"


SEARCH = "bisect --metric step --good"
WRONG = {
    "ab --base -x": "--base '-x' looks like an option",
    "ab --base current --new nope": "there is no revision 'nope'",
    "ab --base current --budget 0": "--budget is 0",
    "ab --base current --pairs 0": "--pairs is 0",
    "ab --base current --cold-samples 0": "--cold-samples is 0",
    "ab --base current --margin 5": "--margin is 5; it is a fraction below 1",
    "ab --base current --metric flops": "metric 'flops' is not measured side by side; give one of ",
    "ab --base current --entrant jraph": "unknown entrant 'jraph'; known: ",
    "ab --base current -o x.doc": "output x.doc ends in .doc",
    "ab --base current --config none.toml": "none.toml",
    f"{SEARCH} main --bad HEAD": "--good main is not made of releases; give",
    f"{SEARCH} current --bad jax==0.8.1": "--good current is not made of releases",
    f"{SEARCH} @2025-01-01 --bad soon!": "--bad 'soon!' is not a SPEC",
    f"{SEARCH} @2025-10-01 --bad @2025-10-01": "--good and --bad are both @2025-10-01",
    f"{SEARCH} jax==0.8.1 --bad jax==0.8.1": "--good and --bad are both jax==0.8.1",
    f"{SEARCH} x==1 --bad y --workload huge": "unknown workload 'huge'",
    f"{SEARCH} jax==0.8.0 --bad jax==0.8.1 -o why.pdf": "why.pdf ends in .pdf; .html, .htm, ",
    "history --since yesterday": "--since: 'yesterday' is not a day",
    "history --since 2026-02 --until 2026-01": "--since 2026-02-01 is after",
    "history --every now": "--every 'now' is no step",
    "history --sweeps 0": "--sweeps is 0",
    "history --metric sample": "metric 'sample' is not measured side by side",
    "history --format csv": "--format is for --runs",
    "history --runs nowhere": "--runs nowhere: there is no such folder",
    "history --runs . --until 2026-02-30": "--until: '2026-02-30' is not a day",
    "history --runs . --last 0": "--last",
    "history --runs . --resume": "--resume is for measuring; with --runs",
    "history --runs . -o line.pdf": "output line.pdf ends in .pdf; .txt, .text, .md, .markdown, ",
    "history -o none/past": "there is no folder none; make it first",
    "history -o .": "output . exists already",
}


@pytest.mark.parametrize("given", WRONG)
def test_wrong_use_is_one_line(bakeoff: Bakeoff, given: str) -> None:
    done = bakeoff(*given.split())
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert WRONG[given] in done.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ab", "[tool.bakeoff.gate]"),
        ("compare", "[tool.bakeoff.gate]"),
        ("history", "[default: (step, host_cost and all cold ones)]"),
        ("history", "[default: (as the budget goes, 2 at least)]"),
        ("bisect", "--save-runs"),
    ],
)
def test_the_help_shows_words_in_brackets(bakeoff: Bakeoff, command: str, words: str) -> None:
    """Rich takes what is in brackets for markup, and eats it."""
    said = " ".join(bakeoff(command, "--help").out.replace("│", " ").split())
    assert words in said


@pytest.mark.parametrize("command", ["compare", "history"])
def test_a_reader_that_leaves_is_no_finding(tmp_path: Path, command: str) -> None:
    """Status 1 says that something is worse, or cannot be read."""
    run = str(PUBLISHED)
    given = [run, run] if command == "compare" else ["--runs", run]
    with subprocess.Popen(
        [sys.executable, "-m", "bench.cli", command, *given],
        **how(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, "")


def test_what_goes_wrong_inside_is_no_finding_either(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("bench.cli.main", broken)
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 70


def test_equal_ends_are_refused(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(specs: Any, *_: Any) -> list[Environment]:
        return [Environment(spec, Place(), ("jax==0.8.0",), python="3.13") for spec in specs]

    monkeypatch.setattr("bench.compare.experiment.built", built)
    ends = "--good", "@2025-10-01", "--bad", "@2025-10-02"
    done = bakeoff("bisect", "--metric", "step", *ends)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "@2025-10-01 and @2025-10-02 are the same stack" in done.err


def test_files_that_hold_no_run_of_this_code_are_said(bakeoff: Bakeoff, tmp_path: Path) -> None:
    """Sides of an A/B, and a corrupt file, which the exit status tells too."""
    run = json.loads(PUBLISHED.read_bytes())
    for name, about in {"new": {"spec": "2025-12-01"}, "day": {"history": {"day": "x"}}}.items():
        side = run | {"bakeoff": run["bakeoff"] | about}
        (tmp_path / f"{name}.json").write_text(json.dumps(side))
    (tmp_path / "bisection.json").write_text(json.dumps({"kind": "bisect", "runs": [run]}))
    sides = "2 files that each hold a stack of a history, or a side of an A/B"
    none = bakeoff("history", "--runs", ".")
    assert (none.status, sides in none.err) == (2, True)
    (tmp_path / "good.json").write_bytes(PUBLISHED.read_bytes())
    options = ("--runs", ".", "--metric", "step", "--workload", "seed")
    good = bakeoff("history", *options)
    assert (good.status, sides in " ".join(good.out.split())) == (0, True)
    (tmp_path / "bad.json").write_bytes(PUBLISHED.read_bytes()[:5000])
    some = bakeoff("history", *options)
    said = "".join(some.out.split())  # lines are wrapped, perhaps within a name
    assert (some.status, "bad.json" in said, "equinox" in said) == (1, True, True)
