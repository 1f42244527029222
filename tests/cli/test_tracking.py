"""The commands of tracking: what is refused, their help, and what ends them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bench.cli import run
from bench.engine.process import Place
from bench.environments.builder import Environment
from bench.runfile.writer import write
from tests.commands import how
from tests.track.simulated import a_run, file_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.commands import Bakeoff

SEARCH = "bisect --metric step --good"
WRONG = {
    "ab --base -x": "--base '-x' looks like an option",
    "ab --base current --new nope": "there is no revision 'nope'",
    "ab --base current --budget 0": "--budget is 0",
    "ab --base current --pairs 0": "--pairs is 0",
    "ab --base current --cold-samples 0": "--cold-samples is 0",
    "ab --base current --margin 5": "--margin is 5",
    "ab --base current --metric flops": "metric 'flops' is not measured side by side; give one of ",
    "ab --base current --metric nothing": "unknown metric 'nothing'; known: step",
    "ab --base current --workload huge": "unknown workload 'huge'",
    "ab --base current --entrant jraph": "unknown entrant 'jraph'; known: ",
    "ab --base current -o x.doc": "output x.doc ends in .doc",
    "ab --base current --config gate.toml": "No such option: --config",
    f"{SEARCH} main --bad HEAD": "--good main is not made of releases; give",
    f"{SEARCH} current --bad jax==0.8.1": "--good current is not made of releases",
    f"{SEARCH} @2025-01-01 --bad soon!": "--bad 'soon!' is not a SPEC",
    f"{SEARCH} @2025-10-01 --bad @2025-10-01": "--good and --bad are both @2025-10-01",
    f"{SEARCH} jax==0.8.1 --bad jax==0.8.1": "--good and --bad are both jax==0.8.1",
    f"{SEARCH} jax==0.8.0 --bad jax==0.8.1 --workload huge": "unknown workload 'huge'",
    f"{SEARCH} jax==0.8.0 --bad jax==0.8.1 --workload sweep": "unknown workload 'sweep'",
    f"{SEARCH} jax==0.8.0 --bad jax==0.8.1 -o why.pdf": "why.pdf ends in .pdf; .txt, ",
    "history --since yesterday": "--since: 'yesterday' is not a day",
    "history --since 2026-02 --until 2026-01": "--since 2026-02-01 is after",
    "history --every now": "--every 'now' is no step",
    "history --every 1d": "--every 1d gives more than 400 days",
    "history --pairs 0": "--pairs is 0",
    "history --metric final_loss": "metric 'final_loss' is not measured side by side",
    "history --machine x": "--machine is for run files",
    "history --runs x": "No such option: --runs",
    "history --resume": "there is no history to resume",
    "history nowhere": "there is no nowhere; give run files, or folders that hold them",
    "history .": ".: none of 0 JSON files is a run; give what",
    "history . --until 2026-02-30": "--until: '2026-02-30' is not a day",
    "history . --last 0": "--last",
    "history . --resume": "--resume is for measuring, and run files are given",
    "history . -o line.pdf": "output line.pdf ends in .pdf; .txt, .text, .md, .markdown, ",
    "history -o none/past": "there is no folder none; make it first",
    "history -o .": "output . exists already",
}


@pytest.mark.parametrize("given", WRONG)
def test_wrong_use_is_one_line(bakeoff: Bakeoff, given: str) -> None:
    done = bakeoff(*given.split())
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert WRONG[given] in done.err


@pytest.mark.parametrize("command", ["ab", "bisect", "compare", "history"])
def test_the_help_shows_options_and_defaults(bakeoff: Bakeoff, command: str) -> None:
    """Rich takes what is in brackets for markup, and eats it."""
    text = " ".join(bakeoff(command, "--help").out.replace("│", " ").split())
    assert "<bool>" not in text.lower()
    assert "BOOLEAN" not in text
    assert "Exit status: 0" in text
    assert "--format" in text
    if command == "history":
        assert "[default: (step, host_cost and all cold ones)]" in text


@pytest.mark.parametrize("command", ["compare", "history"])
def test_a_reader_that_leaves_is_no_finding(tmp_path: Path, command: str) -> None:
    """Status 1 says that something is worse, or cannot be read."""
    path = tmp_path / "run.json"
    write(path, file_of(a_run(1)))
    given = [str(path), str(path)] if command == "compare" else [str(path)]
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
        return [Environment(spec, Place(), ("jax==0.8.1",)) for spec in specs]

    monkeypatch.setattr("bench.track.bisection.built", built)
    done = bakeoff(*f"{SEARCH} @2025-10-01 --bad @2025-10-02".split())
    assert done.status == 2
    assert "@2025-10-01 and @2025-10-02 are the same stack, release by release" in done.err


def test_a_search_that_is_cut_off_says_how_to_go_on(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: Any, good: Any, bad: Any) -> None:
        self.record.good, self.record.bad = "@2025-03-01", "@2025-04-01"
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.track.bisection.Bisection.run", cut)
    done = bakeoff(*f"{SEARCH} @2025-01-01 --bad @2025-10-02 --entrant haiku".split())
    assert done.status == 130
    assert (
        "go on between what is known by now: bakeoff bisect --metric step --entrant haiku "
        "--style pure --workload toy --good @2025-03-01 --bad @2025-04-01"
    ) in " ".join(done.err.split())
