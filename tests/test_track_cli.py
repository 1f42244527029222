"""`bakeoff ab`, `bisect` and `history` as commands: a real tiny A/B, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from bench.cells import Offer
from bench.cli import main, run
from bench.compare.ab_result import differences
from bench.compare.driven import Offered
from bench.compare.environments import Environment
from bench.compare.spec import parse
from bench.engine.processes import Place
from bench.report.runs import read

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
COUNTS = ("--pairs", "2", "--blocks", "2", "--cold-samples", "1")
SELF = (
    *("ab", "--base", "current", "--new", "current", "--entrant", "equinox", "--style", "pure"),
    *("--workload", "toy", "--budget", "60"),
)


class Done(NamedTuple):
    status: int
    out: str
    err: str


type Bakeoff = Callable[..., Done]


@pytest.fixture
def bakeoff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bakeoff:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAKEOFF_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        return Done(main(list(arguments)), *capsys.readouterr())

    return run


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bench.cli", *arguments]


def how(folder: Path) -> dict[str, Any]:
    """Return how a command is started: in a folder, with a lock and temporary files of its own."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    variables = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return {"cwd": folder, "env": variables, "text": True}


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

    again = command(*SELF, *COUNTS, "--resume", "--runs", "runs", "-o", "ab.json")
    done = subprocess.run(again, **how(tmp_path), **streams, timeout=120, check=False)
    assert done.returncode in (0, 2), done.stderr  # noise may leave every row open
    assert not journal.exists(), done.stderr
    assert kept > 10
    found = json.loads((tmp_path / "ab.json").read_text())
    rows = {row["metric"] for row in found["rows"] if row["ratio"] is not None}
    assert {"step", "host_cost", "compile", "import", "peak_rss"} <= rows
    assert {row["outcome"] for row in found["exact"]} == {"equal"}
    assert found["failures"] == []
    for name in ("base", "new"):
        run = read(tmp_path / "runs" / f"{name}.json")
        assert run.lacking == []
        assert {cell["entrant"] for cell in run.section["cells"]} == {"pure_jax", "equinox"}
        blocks = {c["entrant"]: c["metrics"]["step"]["blocks"] for c in run.section["cells"]}
        assert blocks["equinox"] >= 4  # the pair that was cut off has some
        assert blocks["pure_jax"] >= 2  # nobody asked for it: it is in the first block of a pair

    other = command(*SELF, "--pairs", "3", "--resume")
    nothing = subprocess.run(other, **how(tmp_path), **streams, timeout=60, check=False)
    assert nothing.returncode == 2
    assert "there is nothing to resume: no journal in .bakeoff/ab/" in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ab", "--base", "-x"), "--base '-x' looks like an option"),
        (("ab", "--base", "a b"), "--base 'a b' is no SPEC"),
        (("ab", "--base", "current", "--new", "nope"), "there is no revision 'nope'"),
        (("ab", "--base", "current", "--budget", "0"), "--budget is 0"),
        (("ab", "--base", "current", "--pairs", "0"), "--pairs is 0"),
        (("ab", "--base", "current", "--metric", "epoch_by_scan"), "measured by `pytest bench`"),
        (("ab", "--base", "current", "--metric", "speed"), "unknown metric 'speed'; known: "),
        (("ab", "--base", "current", "--entrant", "jraph"), "unknown entrant 'jraph'; known: "),
        (("ab", "--base", "current", "-o", "x.doc"), "output x.doc ends in .doc"),
        (("ab", "--base", "current", "--config", "none.toml"), "none.toml"),
        (
            ("bisect", "--metric", "step", "--good", "main", "--bad", "HEAD"),
            "--good main is a revision of this project; bisect is for releases and days",
        ),
        (
            ("bisect", "--metric", "step", "--good", "@2025-01-01", "--bad", "soon!"),
            "--bad 'soon!' is no SPEC",
        ),
        (
            ("bisect", "--metric", "step", "--workload", "huge", "--good", "x==1", "--bad", "y"),
            "unknown workload 'huge'",
        ),
        (("history", "--since", "yesterday"), "--since: 'yesterday' is no day"),
        (("history", "--since", "2026-02", "--until", "2026-01"), "--since 2026-02-01 is after"),
        (("history", "--every", "now"), "--every 'now' is no step"),
        (("history", "--sweeps", "0"), "--sweeps is 0"),
        (("history", "--metric", "sample"), "measured by `pytest bench` alone"),
        (("history", "--format", "csv"), "--format is for --runs"),
        (("history", "--runs", "nowhere"), "--runs nowhere: there is no such folder"),
        (
            ("history", "--runs", ".", "--budget", "5"),
            "--budget is for measuring; with --runs",
        ),
        (
            ("history", "--runs", ".", "--resume"),
            "--resume is for measuring; with --runs",
        ),
        (("history", "-o", "none/past"), "there is no folder none; make it first"),
        (("ab", "--base", "current", "--margin", "5"), "--margin is 5; it is a fraction below 1"),
        (("ab", "--base", "current", "--metric", "flops"), "'flops' is an exact count, which is"),
        (
            (
                "bisect",
                "--metric",
                "step",
                "--good",
                "jax==0.8.0",
                "--bad",
                "jax==0.8.1",
                "-o",
                "why.pdf",
            ),
            "output why.pdf ends in .pdf; .html, .json, .md are known",
        ),
        (("history", "-o", "."), "output . exists already"),
    ],
)
def test_wrong_use_is_one_line(bakeoff: Bakeoff, arguments: tuple[str, ...], message: str) -> None:
    done = bakeoff(*arguments)
    assert done.status == 2
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ab", "[tool.bakeoff.gate]"),
        ("compare", "[tool.bakeoff.gate]"),
        ("history", "[default: (step, host_cost and all cold ones)]"),
        ("history", "[default: (as the budget goes, 2 at least)]"),
        ("bisect", "--runs"),
    ],
)
def test_the_help_shows_words_in_brackets(bakeoff: Bakeoff, command: str, words: str) -> None:
    """Rich takes what is in brackets for markup, and eats it."""
    said = " ".join(bakeoff(command, "--help").out.replace("│", " ").split())
    assert words in said


@pytest.mark.parametrize("command", ["compare", "history"])
def test_a_reader_that_leaves_is_no_finding(tmp_path: Path, command: str) -> None:
    """Status 1 says that something is worse, or cannot be read."""
    run = str(min((ROOT / "results").glob("xeon*/2026-*.json")))
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


def test_ends_of_a_search_that_are_the_same_stack(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(specs: Any, *_: Any) -> list[Environment]:
        return [Environment(spec, Place(), ("jax==0.8.0",), python="3.13") for spec in specs]

    monkeypatch.setattr("bench.compare.driven.built", built)
    done = bakeoff("bisect", "--metric", "step", "--good", "@2025-10-01", "--bad", "@2025-10-02")
    assert done.status == 2
    assert "@2025-10-01 and @2025-10-02 are the same stack, release by release" in done.err


@pytest.mark.parametrize("ends", [("flax==0.12.8", "flax==0.12.8"), ("@2025-10-01",) * 2])
def test_equal_ends_are_refused_before_anything_is_built(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, ends: tuple[str, str]
) -> None:
    def built(*_: Any) -> Any:
        raise AssertionError("an environment is built")

    monkeypatch.setattr("bench.compare.driven.built", built)
    done = bakeoff("bisect", "--metric", "step", "--good", ends[0], "--bad", ends[1])
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert f"--good and --bad are both {ends[0]}" in done.err


def side(versions: dict[str, str], *pins: str) -> Offered:
    environment = Environment(parse("flax==0.12.8" if pins else "current"), Place(), pins)
    return Offered(environment, Offer({}, {}, ["cpu"], versions, {}))


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
    found = [str(each) for each in differences({"base": built, "new": current})]
    assert found == [
        "equinox none, then 0.13.8",
        "flax 0.12.8, then 0.12.12",
        f"scipy 1.0, then {here[1]}",
    ]
    both = side(known, "jax==0.12.0", f"numpy=={here[0]}", "zipp==4.1.2")
    told = [str(each) for each in differences({"base": both, "new": built})]
    assert "uvloop none, then 0.23.0" in told
    assert "zipp 4.1.2, then none" in told


def test_stacks_of_a_history_are_no_runs_of_this_code(bakeoff: Bakeoff, tmp_path: Path) -> None:
    past = ROOT / "results" / "tracking" / "2024-06-to-2026-11"
    none = bakeoff("history", "--runs", str(past))
    assert none.status == 2
    assert "17 files that each hold a stack of a history, or a side of an A/B" in none.err
    run = min((ROOT / "results").glob("xeon*/2026-*.json"))
    both = bakeoff("history", "--runs", str(past), "--runs", str(run), "--metric", "step")
    assert both.status == 0
    assert "17 files that each hold a stack of a history" in " ".join(both.out.split())


def test_a_corrupt_run_of_many_is_named_and_the_status_says_so(
    bakeoff: Bakeoff, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    good = sorted((ROOT / "results").glob("*/2026-*.json"))[0]
    (folder / "good.json").write_bytes(good.read_bytes())
    (folder / "bad.json").write_bytes(good.read_bytes()[:5000])
    done = bakeoff("history", "--runs", "runs", "--metric", "step", "--workload", "seed")
    assert done.status == 1
    assert "bad.json" in done.out
    assert "equinox" in done.out
    page = bakeoff("history", "--runs", "runs", "-o", "line.html")
    assert page.status == 1
    assert "bad.json" in (tmp_path / "line.html").read_text()
