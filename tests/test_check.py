"""`bakeoff check`: each cheat is found by the check that is named for it; honest entrants pass."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from rich.console import Console

import impls
from bench.check import numbers, user_times
from bench.check.checks import CHECKS
from bench.check.findings import FILE, NOTE, CheckFinding, CheckResult, Judgement
from bench.check.judge import changed_paths, findings_of
from bench.check.runner import place_of
from bench.check.subject import SMALL, Subject
from bench.cli import main
from bench.cli.check import report
from tests.commands import command, how

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
CHEATS = ROOT / "tests" / "cheats"


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards which files took part."""
    monkeypatch.setattr(impls, "OUTSIDE", dict(impls.OUTSIDE))


def files(*names: str) -> list[str]:
    return [str(CHEATS / f"{name}.py") for name in names]


GROUPS = {
    "quick": (
        *("syntax_error.py", *files("never_imported", "slow_clock", "takes_all_memory", "exits")),
        *("--only=contract,purity", "--time-limit=10", "--style=pure,hungry,politely,at_once"),
    ),
    "contract": (
        *files("in_float64", "missing_import", "never_returns", "own_cores"),
        *("--only=contract", "--time-limit=10", "--style=pure,waits"),
    ),
    "purity": (
        *files("misbehaves", "leaves_an_orphan"),
        *("--only=contract,purity", "--time-limit=30"),
    ),
    "watched": (*files("steps", "other_baseline"), "--only=watched", "--style=sleepy,idle,pure"),
}
"""Arguments of `bakeoff check` with cheats that may not run in the process of these tests."""


@cache
def judged(group: str) -> tuple[dict[str, Any], str]:
    """Return what is found in a group by the entrant's name, and what is said on the side."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "syntax_error.py").write_text((CHEATS / "syntax_error.txt").read_text())
        try:
            done = subprocess.run(
                command("check", *GROUPS[group], "--memory=2", "--json"),
                **how(Path(folder), PYTHONWARNINGS="error"),
                capture_output=True,
                timeout=400,
                check=False,
            )
        finally:
            (ROOT / "left_behind.txt").unlink(missing_ok=True)
    assert done.returncode == 1, done.stderr
    return {row["entrant"]: row for row in json.loads(done.stdout)}, done.stderr


def line_of(where: str) -> str:
    """Return the line of code that a finding points at."""
    place = re.match(r"(.*):(\d+), ", where)
    assert place, where
    return Path(place[1]).read_text().splitlines()[int(place[2]) - 1]


subject_of = cache(Subject)
"""By entrant and style: each is compiled once."""

# Cheats whose numbers or times tell.

CALLS = [
    ("ahead", "timed-region", r"a new chunk takes \d"),
    ("by_all", "timed-region", r"results were computed ahead, or kept"),
    ("by_chunk", "fresh", r"call 2 .*; this is the loss that call 1 returned"),
    ("stale", "fresh", r"call 2 .*; this is the loss that call 1 returned"),
    ("never_updates", "gradient", r"no update was made"),
    ("never_updates", "ten-steps", r"no weight changed"),
    ("sometimes_updates", "ten-steps", r"loss \d+ is \d\.\d+ instead of \d\.\d+$"),
    ("later", "timed-region", r"work is put off until then"),
    ("in_a_thread", "timed-region", r"something goes on in the background|does other work"),
    ("retraces", "retrace", r"6 further calls compiled 6 programs"),
    ("numpy_arrays", "shapes", r"hidden\[0\] is a numpy\.ndarray instead of"),
    ("float64", "shapes", r"loss is a numpy\.float64"),
    ("other_shape", "shapes", r"float32\[1\] instead of float32\[\]$"),
    ("nan", "equality", r"it is nan"),
]
COMPUTES = [
    ("in_bfloat16", "dtypes", r"\d+ of its operations use bf16; the first one is convert"),
    ("in_bfloat16", "equality", r"it is 1\.5445"),
    ("detached", "gradient", r"6 of 8 .* cells\[0\].* detached, as by stop_gradient"),
    ("ignores_input", "equality", r"inputs are not used"),
    ("input_first", "equality", r"cells read concatenate\(\[x, hidden\]\) instead of"),
]
NUMBERS = [
    *(("steps", *row) for row in CALLS),
    *(("models", *row) for row in COMPUTES),
    ("one_way", FILE, "weights", r"cells\[0\]\.bias differs in 8 of 8 numbers"),
    ("one_way", "pure", "weights", r"cells\[0\]\.bias differs in 8 of 8 numbers"),
]
ALIKE = {"by_all", "stale", "sometimes_updates", "float64", "ignores_input"}
"""Styles that another style's check would miss too, if it were broken."""


@pytest.mark.parametrize(
    ("name", "style", "check", "seen"),
    [pytest.param(*row, marks=pytest.mark.slow if row[1] in ALIKE else ()) for row in NUMBERS],
)
def test_a_cheat_is_found(name: str, style: str, check: str, seen: str) -> None:
    subject = subject_of(impls.add(CHEATS / f"{name}.py"), style)
    found = findings_of(subject, check)
    assert any(re.search(seen, finding.seen) for finding in found), found
    for finding in found:
        assert finding.where.startswith(str(CHEATS / f"{name}.py"))
        assert re.search(r"def |STYLES", line_of(finding.where))


# Cheats that take a process of their own: what is seen, and the line that did it, even of what
# never came back, since its stacks are written down before it is ended.

OWN: dict[str, list[tuple[str, str | None, str, str, str]]] = {
    "quick": [
        ("syntax_error", FILE, "contract", r"has a syntax error in line 3: expected ':'", ""),
        ("never_imported", FILE, "contract", r"did not return within 10 s", "time.sleep(600)"),
        ("slow_clock", FILE, "contract", r"replaced time\.perf_counter", ""),
        ("takes_all_memory", "hungry", "contract", r"raised .*MemoryError", "np.ones("),
        ("exits", "politely", "contract", r"raised SystemExit: 3", "sys.exit(3)"),
        ("exits", "at_once", "contract", r"it ended the process: exit status 4", ""),
    ],
    "contract": [
        ("missing_import", FILE, "contract", r"'a_library_that_nobody_has'", "import a_library"),
        ("in_float64", FILE, "contract", r"changed jax_enable_x64 from False to True", ""),
        ("own_cores", FILE, "contract", r"changed the priority from \d+ to", ""),
        ("never_returns", "waits", "contract", r"did not return within 10 s", "time.sleep(1)"),
    ],
    "purity": [
        ("leaves_an_orphan", "orphaned", "contract", r"it ended the process: exit status 3", ""),
        ("leaves_an_orphan", "orphaned", "purity", r"\(\d+\), .*\(\d+\); ended", "def orphaned"),
        ("misbehaves", "prints", "purity", r"it printed 1048577 bytes", ""),
        ("misbehaves", "forks", "purity", r"forks: 1", "os.fork()"),
        ("misbehaves", "leaves_a_child", "purity", r"left behind: sleep \(", "subprocess.Popen"),
        ("misbehaves", "writes", "purity", r"it wrote to left_behind\.txt", "left_behind.txt"),
    ],
    "watched": [
        ("steps", "sleepy", "watched", r"in the program, \S+ in the worker", ""),
        ("steps", "idle", "watched", r"what it computed while it was timed is not what was", ""),
        ("other_baseline", "pure", "watched", r"changed the program of pure_jax/pure", ""),
    ],
}


@pytest.mark.parametrize(
    ("group", "name", "style", "check", "seen", "line"),
    [
        pytest.param(group, *row, marks=() if group == "quick" else pytest.mark.slow)
        for group, rows in OWN.items()
        for row in rows
    ],
)
def test_what_it_does_to_its_process(
    group: str, name: str, style: str | None, check: str, seen: str, line: str
) -> None:
    rows = judged(group)[0][name]["findings"]
    ours = [row for row in rows if (row["check"], row["style"]) == (check, style)]
    [found, *_] = [row for row in ours if re.search(seen, row["seen"])] or [None]
    assert found, rows
    if line:
        assert line in line_of(found["where"])


def test_the_others_go_on() -> None:
    """A style that ends its process costs the other styles nothing."""
    rows, said = judged("quick")
    outcomes = {(o["check"], o["style"]): o["outcome"] for o in rows["exits"]["checks"]}
    assert outcomes["contract", "pure"] == outcomes["purity", "pure"] == "ok"
    assert outcomes["contract", "at_once"] == "finding"
    assert not any(row["equal"] for row in rows.values())
    assert rows["syntax_error"]["styles"] == []
    assert "will be executed now, with your rights" in said


@pytest.mark.slow
def test_nothing_that_was_left_behind_lives_on() -> None:
    """An orphan and its child would, in a group of their own, with all that was open."""
    rows, _ = judged("purity")
    for name, count in {"misbehaves": 1, "leaves_an_orphan": 2}.items():
        left = re.findall(r"left behind: (.*?); ended now", str(rows[name]["findings"]))
        pids = re.findall(r"\((\d+)\)", str(left))
        assert len(pids) >= count, left
        assert not any(psutil.pid_exists(int(pid)) for pid in pids)
    assert "Bad file descriptor" not in str(rows)


# Honest entrants.

HONEST = [
    *(("pure_jax", "tuned"), ("equinox", "filter_jit"), ("flax_linen", "blog")),
    *(("flax_nnx", "jit"), ("haiku", "transform"), ("numpy", "loop")),
]


QUICK = {("pure_jax", FILE), ("equinox", FILE), ("numpy", "loop")}


@pytest.mark.parametrize(
    ("entrant", "style"),
    [
        pytest.param(entrant, style, marks=() if (entrant, style) in QUICK else pytest.mark.slow)
        for name, own in HONEST
        for entrant, style in [(name, own), (name, FILE)]
    ],
)
def test_an_honest_entrant_has_no_finding(entrant: str, style: str | None) -> None:
    subject = subject_of(entrant, style)
    for name, check in CHECKS.items():
        function = check.of_style if style else check.of_file
        if function and (name != "retrace" or subject.jax):
            assert findings_of(subject, name) == [], name


@pytest.mark.slow
def test_all_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way, in processes of its own: the benchmark's worker too."""
    assert main(["check", "pure_jax", "--style", "pure"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("bakeoff: pure_jax will be executed now, with your rights")
    for name in CHECKS:
        assert re.search(rf"^ {name} .*ok", printed.out, re.M), name
    assert "\x1b" not in printed.out


# The pieces.


def test_a_usual_mistake_is_recognised() -> None:
    _, padded = subject_of("pure_jax", "pure").calls(SMALL)
    right = padded.answer.loss
    mistakes = numbers.losses_of_mistakes(padded)
    assert len(mistakes) == 10
    for words, loss in mistakes.items():
        assert abs(loss / right - 1) > 10 * numbers.EXPLAINED, words
        assert numbers.usual_mistake(padded._replace(loss=loss)) == words
    assert numbers.usual_mistake(padded._replace(loss=right * 1.01)) is None


@pytest.mark.parametrize(
    ("timed", "seconds", "losses", "count"),
    [
        ([1.0, 1.0], [1.0, 2.5], [1.0, 1.0], 0),
        ([1.0, 1.0], [1.0, 3.5], [1.0, 1.0], 1),
        ([1.0, 3.5], [1.0, 1.0], [1.0, 1.0], 1),
        ([1.0, 1.0], [1.0, 2.5], [1.0, 1.1], 1),
        ([1.0, 1.0], [1.0, 2.5], [1.0, float("nan")], 1),
    ],
)
def test_a_step_that_differs_in_a_user_program(
    timed: list[float], seconds: list[float], losses: list[float], count: int
) -> None:
    assert len(user_times.differing_times(timed, {"seconds": seconds, "losses": losses})) == count


def test_a_user_program_knows_nothing_of_the_benchmark() -> None:
    text = user_times.USER_PROGRAM.read_text()
    assert "bench" not in re.sub(r'""".*?"""', "", text, flags=re.S)


def test_the_judge_imports_what_every_environment_has() -> None:
    """Entrants with environments of their own are judged there, without this project's packages."""
    command = [sys.executable, "-c", "import sys, bench.check.judge; print(*sys.modules)"]
    modules = subprocess.check_output(command, cwd=ROOT, text=True).split()
    assert {"msgspec", "psutil", "rich", "typer"}.isdisjoint(modules)


def test_an_entrant_is_judged_on_the_backend_that_is_asked_for() -> None:
    for backend, platforms in {"cpu": "cpu", "gpu:1": "gpu,cpu"}.items():
        assert place_of("pure_jax", backend).variables["JAX_PLATFORMS"] == platforms


NEW, FOLDER = "/new/file", str(ROOT)


@pytest.mark.parametrize(
    ("event", "arguments", "paths"),
    [
        ("open", (NEW, "w", os.O_WRONLY | os.O_CREAT), [NEW]),
        ("open", (NEW, None, os.O_RDWR), [NEW]),
        ("open", (NEW, "r", os.O_RDONLY), []),
        ("open", (3, "w", os.O_WRONLY), []),  # a descriptor is open already
        ("os.rename", (NEW, "other", -1, -1), [NEW, "other"]),
        ("os.remove", (NEW, -1), [NEW]),
        ("os.remove", ("new", 7), []),  # relative to whatever 7 is
        ("os.mkdir", (NEW, 0o777, -1), [NEW]),
        ("os.mkdir", (FOLDER, 0o777, -1), []),  # it is there
        ("os.rmdir", (FOLDER, -1), [FOLDER]),
        ("import", ("json", None, None, None, None), []),
    ],
)
def test_which_events_change_which_files(event: str, arguments: Any, paths: list[str]) -> None:
    assert changed_paths(event, arguments) == paths


HIDDEN = """
from common.steps import pure_style
from impls.pure_jax import build as build

if True:
    DISTRIBUTION = "jax"
JAX, NOTE = True, "said at once"
ALONE = ("pure", "fast")
IF_NAMED = ("slow",)
STYLES = {"pure": pure_style(build)}
"""


def test_constants_that_are_not_what_they_have_to_be(tmp_path: Path) -> None:
    """Two that cannot be read without running the file, and one that names an unknown style."""
    (tmp_path / "hidden.py").write_text(HIDDEN)
    subject = Subject(impls.add(tmp_path / "hidden.py"), FILE)
    found = findings_of(subject, "contract")
    assert [finding.expected.split()[0] for finding in found] == [
        *("DISTRIBUTION", "NOTE", "ALONE", "IF_NAMED"),
    ]
    assert line_of(found[0].where).strip() == 'DISTRIBUTION = "jax"'
    assert "fast" in found[2].seen
    assert "slow" in found[3].seen


def test_packages_of_an_environment_of_its_own_are_no_constants(tmp_path: Path) -> None:
    """They are in a comment, which the imported file does not have."""
    block = '# /// script\n# requires-python = ">=3.12"\n# dependencies = ["jax"]\n# ///\n'
    text = impls.source("stax").read_text("utf-8")
    (tmp_path / "apart.py").write_text(block + text)
    subject = Subject(impls.add(tmp_path / "apart.py"), FILE)
    assert impls.declared("apart").requirements == ("jax",)
    assert list(findings_of(subject, "contract")) == []


# The command.

WRONG = CheckFinding("the loss is 1", "it is 2; [bold]not[/bold] markup", "mine.py:3")
LOUD = CheckFinding("little is printed", "a megabyte", severity=NOTE)


@pytest.mark.parametrize(
    ("finding", "complete", "equal", "verdict"),
    [
        (WRONG, True, False, "not equal: 1 finding; begin with"),
        (WRONG, False, False, "not equal: 1 finding; begin with"),
        (LOUD, True, True, "equal; to measure it: pytest bench --entrant 'my own.py'"),
        (LOUD, False, None, "no findings in these checks; run all checks"),
    ],
)
@pytest.mark.parametrize("width", [80, 160])
def test_the_verdict(
    finding: CheckFinding, complete: bool, equal: bool | None, verdict: str, width: int
) -> None:
    skipped = CheckResult("retrace", "pure", not_run="not a JAX library")
    results = (CheckResult("contract", FILE), CheckResult("equality", "pure", (finding,)), skipped)
    judgement = Judgement("mine", "my own.py", ("pure",), results, complete)
    assert judgement.as_json()["equal"] is equal
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report(judgement, width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert ("a warm call compiles nothing" in text) == (width == 160)
    for part in (finding.seen, "not run: retrace (not a JAX library)", verdict):
        assert part in text


@pytest.mark.slow
def test_files_that_lack_a_style_cost_the_others_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = ["--only", "contract", "--json"]
    assert main(["check", "stax", "haiku", "--style", "transform", *few]) == 2
    printed = capsys.readouterr()
    [row] = json.loads(printed.out)
    assert (row["entrant"], row["styles"]) == ("haiku", ["transform"])
    assert "bakeoff: unknown style of stax 'transform'; known: pure" in printed.err
    assert main(["check", "haiku", "--style", "transform,jit", *few]) == 2
    assert "bakeoff: unknown style 'jit'; known: transform" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    {
        "missing.py": "no such entrant 'missing.py'; give a name, or a Python file's path",
        "flex_linen": "unknown entrant 'flex_linen'; known: pure_jax",
        "haiku --backend npu": "unknown backend 'npu'; known: cpu; choose one of them",
        "haiku --only speed": "unknown check 'speed'; known: contract, shapes",
        "haiku --workload huge": "unknown workload 'huge'; known: toy, seed",
        "haiku --time-limit nan": "--time-limit is nan; it must be a positive number",
        "haiku --memory 0": "--memory is 0.0; it must be a positive number",
        "haiku --memory 0.1": "--memory is 0.1; jax alone needs 1 GiB: give more",
        "haiku --style jit --only contract": "unknown style of haiku 'jit'; known: pure, transform",
        "": "Missing argument 'PATH...'",
    }.items(),
)
def test_wrong_use(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_ends_all_of_it(heard: Callable[[list[str]], list[str]], tmp_path: Path) -> None:
    process = subprocess.Popen(
        heard(command("check", str(CHEATS / "never_imported.py"))),
        **how(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        parent, judges = psutil.Process(process.pid), list[psutil.Process]()
        end = time.monotonic() + 60
        while not judges and time.monotonic() < end:
            judges = [p for p in parent.children() if "bench.check.judge" in p.cmdline()]
            time.sleep(0.1)
        assert judges
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.endswith("bakeoff: interrupted\n")
    assert psutil.wait_procs(judges, timeout=10)[1] == []
