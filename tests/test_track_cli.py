"""`bakeoff bisect` and `history` as commands, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from bench.cli import main, run
from bench.compare.line import Series
from bench.compare.own_changes import find_changes
from bench.compare.pages import history_charts, history_page
from bench.compare.series import growth
from bench.engine.processes import Place
from bench.environments.builder import Environment

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "results" / "xeon-2-cores" / "2026-11-26-default.json"


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
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
            "output why.pdf ends in .pdf; .html, .json are known",
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


def test_ends_of_a_search_that_are_the_same_stack(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(specs: Any, *_: Any) -> list[Environment]:
        return [Environment(spec, Place(), ("jax==0.8.0",), python="3.13") for spec in specs]

    monkeypatch.setattr("bench.compare.experiment.built", built)
    done = bakeoff("bisect", "--metric", "step", "--good", "@2025-10-01", "--bad", "@2025-10-02")
    assert done.status == 2
    assert "@2025-10-01 and @2025-10-02 are the same stack, release by release" in done.err


@pytest.mark.parametrize("ends", [("flax==0.12.8", "flax==0.12.8"), ("@2025-10-01",) * 2])
def test_equal_ends_are_refused_before_anything_is_built(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, ends: tuple[str, str]
) -> None:
    def built(*_: Any) -> Any:
        raise AssertionError("an environment is built")

    monkeypatch.setattr("bench.compare.experiment.built", built)
    done = bakeoff("bisect", "--metric", "step", "--good", ends[0], "--bad", ends[1])
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert f"--good and --bad are both {ends[0]}" in done.err


def test_stacks_of_a_history_are_no_runs_of_this_code(bakeoff: Bakeoff, tmp_path: Path) -> None:
    data = json.loads(PUBLISHED.read_bytes())
    data["bakeoff"]["spec"] = "2025-12-01"
    past = tmp_path / "past"
    past.mkdir()
    for name in ("base.json", "new.json"):
        (past / name).write_text(json.dumps(data))
    none = bakeoff("history", "--runs", str(past))
    assert none.status == 2
    assert "2 files that each hold a stack of a history, or a side of an A/B" in none.err
    both = bakeoff("history", "--runs", str(past), "--runs", str(PUBLISHED), "--metric", "step")
    assert both.status == 0
    assert "2 files that each hold a stack of a history" in " ".join(both.out.split())


def test_a_corrupt_run_of_many_is_named_and_the_status_says_so(
    bakeoff: Bakeoff, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "good.json").write_bytes(PUBLISHED.read_bytes())
    (folder / "bad.json").write_bytes(PUBLISHED.read_bytes()[:5000])
    done = bakeoff("history", "--runs", "runs", "--metric", "step", "--workload", "seed")
    assert done.status == 1
    assert "bad.json" in done.out
    assert "equinox" in done.out
    page = bakeoff("history", "--runs", "runs", "-o", "line.html")
    assert page.status == 1
    assert "bad.json" in (tmp_path / "line.html").read_text()


def series(ratios: list[float], key: Any, error: float = 0.003) -> Series:
    count = len(ratios)
    full = np.full(count, np.nan)
    return Series(
        key=key,
        at=np.arange(count),
        median=np.ones(count),
        ratio=np.array(ratios),
        low=full,
        high=full,
        standard_error=np.full(count, error),
        df=np.full(count, 20.0),
        p=full,
        verdict=full,
    )


def key(metric: str = "step", workload: str = "seed", style: str = "pure") -> Any:
    from bench.compare.summaries import Key

    about: dict[str, Any] = {
        "metric": metric,
        "workload": workload,
        "style": style,
        "entrant": "haiku",
    }
    about |= {"entrant": "haiku", "machine": "m", "backend": "cpu", "unit": "s", "exact": False}
    return Key(**{name: about[name] for name in Key._fields if name in about})


def test_own_runs_that_differ_by_more_than_runs_wander_are_changes() -> None:
    [change] = find_changes([series([1.0, 1.005, 1.3, 1.29], key())])
    assert (change.before, change.after, change.width) == (1, 2, 1)
    assert change.low < 1.3 / 1.005 < change.high
    assert find_changes([series([1.0, 1.01, 0.99, 1.0], key())]) == []
    [gap] = find_changes([series([1.0, np.nan, 1.3], key())])
    assert (gap.before, gap.after) == (0, 2)


def past() -> dict[str, Any]:
    """Return a small history, with names that try to be something else."""
    days = ["2025-06-01", "2025-12-01"]
    cell = {"entrant": "pure_jax", "style": "pure", "workload": "toy", "backend": "cpu"}
    return {
        "kind": "history",
        "since": days[0],
        "until": days[1],
        "every": "6mo",
        "when": "2026-01-01T00:00:00",
        "machine": "<script>alert(1)</script>",
        "reference": days[1],
        "arguments": ["history", "-o", "a b; rm"],
        "seed": 1,
        "sweeps": 2,
        "alpha": 0.05,
        "comparisons": 1,
        "stacks": days,
        "warnings": [],
        "days": [
            {
                "day": d,
                "stack": d,
                "versions": {"jax": v},
                "python": "3.12",
                "gaps": g,
                "missing": m,
            }
            for d, v, g, m in (
                (days[0], "0.6.1", {"haiku pure": "<b>no</b>"}, None),
                (days[1], "0.8.1", {}, None),
            )
        ],
        "series": [
            cell
            | {
                "metric": "compile",
                "unit": "s",
                "ratio": [0.53, 1.0],
                "low": [0.5, 0.97],
                "high": [0.56, 1.03],
                "visits": [2, 2],
                "median": [0.2, 0.4],
                "sd_of_visit": 0.01,
                "df": 1,
            }
        ],
        "exact": [cell | {"metric": "python_calls", "value": [4, 6]}],
        "changes": [
            cell
            | {"metric": "compile", "before": days[0], "after": days[1], "ratio": 1.9}
            | {"low": 1.8, "high": 2.0, "p": 1e-6}
        ],
        "sentences": ["Compile time of toy rose to 1.90× between <i>then</i> and now."],
        "spent": {"wall_seconds": 10.0, "sampling_seconds": 5.0, "processes": 4},
    }


def test_the_page_of_a_history_says_what_changed_and_escapes_what_came_from_outside() -> None:
    text = history_page.page(past())
    assert "<script>alert(1)" not in text
    assert "&lt;i&gt;then&lt;/i&gt;" in text
    assert "Compile time of toy rose by 90 % between 2025-06-01 and 2025-12-01" in text
    assert "haiku pure: &lt;b&gt;no&lt;/b&gt;" in text
    assert "4 → 6 (2025-06-01 to 2025-12-01)" in text
    assert "bakeoff history -o &#39;a b; rm&#39;" in text
    assert "http://" not in text.split("<script")[0]


def test_a_series_of_one_day_is_not_drawn() -> None:
    """Relative to its only day, it is 1 whatever was measured."""
    history = past()
    [compiling] = history["series"]
    once = {"entrant": "haiku", "ratio": [1.0, None], "low": [None, None], "high": [None, None]}
    history["series"].append(compiling | once)
    [figure] = history_charts.figures(history)
    rows = figure.chart.to_dict()["data"]["values"]
    assert [(row["entrant"], row["day"]) for row in rows] == [
        ("pure_jax", "2025-06-01"),
        ("pure_jax", "2025-12-01"),
    ]
    assert "1.00×" not in figure.text
    assert "Measured on one day only, and not drawn: haiku." in figure.text
    history["series"] = [compiling | once]
    assert list(history_charts.figures(history)) == []


@pytest.mark.parametrize(
    ("ratios", "interval", "expected"),
    [
        ([1.3], (1.2, 1.41), "rose by 30 % (20–41 %)"),
        ([1.015], (1.01, 1.02), "rose by 1.5 % (1.0–2.0 %)"),
        ([1.97, 2.37], None, "rose by 97–137 %"),
        ([2.1, 2.4, 2.2], None, "rose to 2.1–2.4 times"),
        ([140.9], (108.0, 183.9), "rose to 141 times (108–184 times)"),
        ([0.86, 0.87], None, "fell by 13–14 %"),
        ([0.25], (0.24, 0.26), "fell by 75 % (74–76 %)"),
        ([0.0071], (0.0054, 0.0093), "fell by 99.29 % (99.07–99.46 %)"),
    ],
)
def test_a_change_keeps_the_digits_that_tell_it_apart(
    ratios: list[float], interval: tuple[float, float] | None, expected: str
) -> None:
    assert growth(ratios, interval) == expected
