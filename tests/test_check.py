"""`bakeoff check`: each cheat is found by the check that is named for it; honest entrants pass."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
CHEATS = ROOT / "tests" / "cheats"
HARMFUL = (
    *("in_float64", "missing_import", "never_imported", "never_returns", "own_cores"),
    *("slow_clock", "takes_all_memory"),
)
"""Cheats that may not run in the process of these tests."""
WATCHED = "sleeps_less_when_watched"


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards which files took part."""
    monkeypatch.setattr(impls, "OUTSIDE", dict(impls.OUTSIDE))


def begun(folder: Path, *arguments: str, wrapped: Any = list) -> subprocess.Popen[str]:
    """Start `bakeoff check` in a folder."""
    return subprocess.Popen(
        wrapped([sys.executable, "-m", "bench.cli", "check", *arguments]),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class Apart:
    """Judgements of harmful files, begun in processes of their own before anything is tested."""

    def __init__(self, folder: Path) -> None:
        (folder / "syntax_error.py").write_text((CHEATS / "syntax_error.txt").read_text())
        cheats = [str(CHEATS / f"{name}.py") for name in HARMFUL]
        patient = [str(CHEATS / f"{name}.py") for name in ("exits", "misbehaves")]
        few = ["--memory=2", "--json"]
        hanging = ["--time-limit=8", "--only=contract", *few]
        self.running = [
            begun(folder, "syntax_error.py", *cheats, *hanging),
            begun(folder, *patient, *few, "--only=contract,purity"),
            begun(folder, str(CHEATS / f"{WATCHED}.py"), *few, "--only=watched"),
        ]

    @cache  # noqa: B019 -- one object, as long as the tests
    def results(self) -> tuple[dict[str, Any], str]:
        """Return what was found by the entrant's name, and what was said on the side."""
        said = [process.communicate(timeout=400) for process in self.running]
        assert [process.returncode for process in self.running] == [1, 1, 1], said
        rows = [row for out, _ in said for row in json.loads(out)]
        return {row["entrant"]: row for row in rows}, "".join(err for _, err in said)


@pytest.fixture(scope="module", autouse=True)
def background(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Apart | None]:
    """Begin what may not run here, if a test asks for it; drop what it left in the repository."""
    if not any("apart" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    judgements = Apart(tmp_path_factory.mktemp("apart"))
    yield judgements
    for process in judgements.running:
        process.kill()
        with process:  # waits, and closes its streams
            pass
    (ROOT / "left_behind.txt").unlink(missing_ok=True)


@pytest.fixture
def apart(background: Apart | None) -> Apart:
    """Return the judgements that were begun."""
    assert background is not None
    return background


def line_of(where: str) -> str:
    """Return the line of code that a finding points at."""
    place = re.match(r"(.*):(\d+), ", where)
    assert place, where
    return Path(place[1]).read_text().splitlines()[int(place[2]) - 1]


subject_of = cache(Subject)
"""By entrant and style: each is compiled once."""

# Cheats whose numbers or times tell.

NUMBERS = [
    ("computes_ahead", "ahead", "timed-region", r"a new chunk takes \d"),
    ("caches", "by_all", "timed-region", r"results were computed ahead, or kept"),
    ("caches", "by_chunk", "fresh", r"call 2 .*; this is the loss that call 1 returned"),
    ("stale_loss", "stale", "fresh", r"call 2 .*; this is the loss that call 1 returned"),
    ("skips_optimiser", "never", "gradient", r"no update was made"),
    ("skips_optimiser", "never", "ten-steps", r"no weight changed"),
    ("skips_optimiser", "now_and_then", "ten-steps", r"loss \d+ is \d\.\d+ instead of \d\.\d+$"),
    ("in_bfloat16", "pure", "dtypes", r"\d+ of its operations use bf16; the first one is convert"),
    ("in_bfloat16", "pure", "equality", r"it is 1\.5445"),
    ("detached", "pure", "gradient", r"6 of 8 .* cells\[0\].* detached, as by stop_gradient"),
    ("ignores_input", "pure", "equality", r"inputs are not used"),
    ("input_first", "pure", "equality", r"cells read concatenate\(\[x, hidden\]\) instead of"),
    ("puts_off", "later", "timed-region", r"work is put off until then"),
    (
        "in_the_background",
        "threaded",
        "timed-region",
        r"something goes on in the background|it does other work",
    ),
    ("retraces", "anew", "retrace", r"6 further calls compiled 6 programs"),
    ("one_way", FILE, "weights", r"cells\[0\]\.bias differs in 8 of 8 numbers"),
    ("one_way", "pure", "weights", r"cells\[0\]\.bias differs in 8 of 8 numbers"),
    ("returns_numpy", "numpy_arrays", "shapes", r"hidden\[0\] is a numpy\.ndarray instead of"),
    ("returns_numpy", "float64", "shapes", r"loss is a numpy\.float64"),
    ("returns_numpy", "other_shape", "shapes", r"float32\[1\] instead of float32\[\]$"),
    ("returns_numpy", "nan", "equality", r"it is nan"),
]


@pytest.mark.parametrize(("name", "style", "check", "seen"), NUMBERS)
def test_a_cheat_is_found(name: str, style: str, check: str, seen: str) -> None:
    subject = subject_of(impls.add(CHEATS / f"{name}.py"), style)
    found = findings_of(subject, check)
    assert any(re.search(seen, finding.seen) for finding in found), found
    for finding in found:
        assert finding.where.startswith(str(CHEATS / f"{name}.py"))
        assert re.search(r"def |STYLES", line_of(finding.where))


# Cheats that take a process of their own: what is seen, and the line that did it, even of what
# never came back, since its stacks are written down before it is ended.

OWN = [
    ("syntax_error", FILE, "contract", r"has a syntax error in line 3: expected ':'", ""),
    (
        *("missing_import", FILE, "contract"),
        r"needs the package 'a_library_that_nobody_has'",
        "import a_library_that_nobody_has",
    ),
    ("never_imported", FILE, "contract", r"did not return within 8 s", "time.sleep(600)"),
    ("in_float64", FILE, "contract", r"changed jax_enable_x64 from False to True", ""),
    ("slow_clock", FILE, "contract", r"replaced time\.perf_counter", ""),
    ("own_cores", FILE, "contract", r"changed the priority from \d+ to", ""),
    ("exits", "politely", "contract", r"called sys\.exit\(3\)", "sys.exit(3)"),
    ("exits", "at_once", "contract", r"it ended the process: exit status 4", ""),
    ("never_returns", "waits", "contract", r"did not return within 8 s", "time.sleep(1)"),
    ("takes_all_memory", "hungry", "contract", r"asked for more memory than it may", "np.ones("),
    ("misbehaves", "prints", "purity", r"it printed 1048577 bytes", ""),
    ("misbehaves", "forks", "purity", r"forks: 1", "os.fork()"),
    (
        *("misbehaves", "leaves_a_child", "purity"),
        r"left behind: sleep \(\d+\); ended now",
        "subprocess.Popen",
    ),
    ("misbehaves", "writes", "purity", r"it wrote to left_behind\.txt", "left_behind.txt"),
    (WATCHED, "sleepy", "watched", r"in the program, \S+ in the worker", ""),
    (WATCHED, "idle", "watched", r"what it computed while it was timed is not what was", ""),
]


@pytest.mark.parametrize(("name", "style", "check", "seen", "line"), OWN)
def test_what_it_does_to_its_process(
    apart: Apart, name: str, style: str, check: str, seen: str, line: str
) -> None:
    rows = apart.results()[0][name]["findings"]
    ours = [row for row in rows if (row["check"], row["style"]) == (check, style or None)]
    [found, *_] = [row for row in ours if re.search(seen, row["seen"])] or [None]
    assert found, rows
    if line:
        assert line in line_of(found["where"])


def test_the_others_go_on(apart: Apart) -> None:
    """A style that ends its process costs the other styles nothing, and nothing of it lives on."""
    rows, said = apart.results()
    outcomes = {(o["check"], o["style"]): o["outcome"] for o in rows["exits"]["checks"]}
    assert outcomes["contract", "pure"] == outcomes["purity", "pure"] == "ok"
    assert outcomes["contract", "at_once"] == "finding"
    assert not any(row["equal"] for row in rows.values())
    assert rows["syntax_error"]["styles"] == []
    assert "will be executed now, with your rights" in said
    ended = re.findall(r"\((\d+)\); ended now", str(rows["misbehaves"]["findings"]))
    assert ended
    assert not any(psutil.pid_exists(int(pid)) for pid in ended)


IN_WORKER = {
    "by_identity": r"3 updates in \d+ calls",
    "compiles_again": "compiled again while it was timed",
    "counts_on": "its weights are off by",
    "low_precision": "changed jax_default_matmul_precision",
    "other_baseline": "importing it changed the program of pure_jax/pure",
    "slow_clock_later": "while it was timed it replaced time.perf_counter",
    "wrong_loss": "the last loss is off by",
}


@pytest.mark.slow
def test_what_the_benchmarks_worker_finds(tmp_path: Path) -> None:
    paths = [str(CHEATS / f"{name}.py") for name in IN_WORKER]
    out, err = begun(tmp_path, *paths, "--only=watched", "--json").communicate(timeout=400)
    rows = {row["entrant"]: row["findings"] for row in json.loads(out)}
    for name, seen in IN_WORKER.items():
        assert any(re.search(seen, finding["seen"]) for finding in rows[name]), (rows[name], err)


# Honest entrants.

HONEST = [
    *(("pure_jax", "tuned"), ("equinox", "filter_jit"), ("flax_linen", "blog")),
    *(("flax_nnx", "jit"), ("haiku", "transform"), ("numpy", "loop")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("entrant", "style"), HONEST, ids=["-".join(row) for row in HONEST])
def test_an_honest_style_has_no_finding(entrant: str, style: str) -> None:
    for name, check in CHECKS.items():
        if check.of_style and (name, entrant) != ("retrace", "numpy"):
            assert findings_of(subject_of(entrant, style), name) == [], name


@pytest.mark.parametrize("entrant", dict(HONEST))
def test_an_honest_file_has_no_finding(entrant: str) -> None:
    for name in ("contract", "shapes", "weights"):
        assert findings_of(subject_of(entrant, FILE), name) == [], name


def test_an_entrant_of_another_kind_returns_its_own_arrays() -> None:
    for name in ("contract", "shapes", "dtypes", "equality", "ten-steps", "state", "fresh"):
        assert findings_of(subject_of("numpy", "loop"), name) == [], name


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
STYLES = {"pure": pure_style(build)}
"""


def test_constants_that_are_not_what_they_have_to_be(tmp_path: Path) -> None:
    """Two that cannot be read without running the file, and one that names an unknown style."""
    (tmp_path / "hidden.py").write_text(HIDDEN)
    subject = Subject(impls.add(tmp_path / "hidden.py"), FILE)
    found = findings_of(subject, "contract")
    assert [finding.expected.split()[0] for finding in found] == ["DISTRIBUTION", "NOTE", "ALONE"]
    assert line_of(found[0].where).strip() == 'DISTRIBUTION = "jax"'
    assert "fast" in found[2].seen


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
        "flex_linen": "no such entrant 'flex_linen'; give a Python file's path, or one of pure_jax",
        "haiku --backend npu": "unknown backend 'npu'; known: cpu; choose one of them",
        "haiku --only speed": "unknown check 'speed'; known: contract, shapes",
        "haiku --workload huge": "unknown workload 'huge'; known: toy, seed",
        "haiku --time-limit nan": "--time-limit is nan; it must be a positive number",
        "haiku --memory 0.1": "--memory is 0.1; jax alone needs 1 GiB: give more",
        "haiku --style jit --only contract": "unknown style of haiku 'jit'; known: pure, transform",
        "": "Missing argument 'PATH...'",
    }.items(),
)
def test_wrong_use(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_ends_all_of_it(heard: Callable[[list[str]], list[str]], tmp_path: Path) -> None:
    process = begun(tmp_path, str(CHEATS / "never_imported.py"), wrapped=heard)
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


@pytest.mark.slow
def test_what_is_forked_and_left_alone_holds_nobody(tmp_path: Path) -> None:
    """It and its child live on for a minute, in a group of their own, with all that was open."""
    orphan = str(CHEATS / "leaves_an_orphan.py")
    process = begun(tmp_path, orphan, "--only=contract,purity", "--json")
    out, _ = process.communicate(timeout=50)
    assert process.returncode == 1
    [row] = json.loads(out)
    assert any("it ended the process: exit status 3" in f["seen"] for f in row["findings"])
    [left] = [f for f in row["findings"] if f["check"] == "purity"]
    pids = [int(pid) for pid in re.findall(r"\((\d+)\)", left["seen"])]
    assert len(pids) == 2, left["seen"]
    assert not any(map(psutil.pid_exists, pids))
    assert "Bad file descriptor" not in str(row["findings"])
    assert str(left["where"]).startswith(orphan)
