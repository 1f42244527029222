"""`bakeoff check`: each cheat is caught by the check that is named for it, and honest ones pass."""

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
from bench.check import numbers, timing, traces, user_times
from bench.check.findings import CHECKS, FILE, NOTE, Finding, Judgement, Outcome
from bench.check.judge import FILE_CHECKS, STYLE_CHECKS, findings_of
from bench.check.report import report
from bench.check.runner import CheckOptions, judge, place_of
from bench.check.subject import SMALL, Subject
from bench.cli import main
from common import reference
from common.equality import random_chunk, random_hidden, random_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
CHEATS = ROOT / "tests" / "cheats"
HONEST = [
    *(("pure_jax", "tuned"), ("equinox", "filter_jit"), ("flax_linen", "blog")),
    *(("flax_nnx", "jit"), ("haiku", "transform"), ("numpy", "loop")),
]
SYNTAX_ERROR = 'DISTRIBUTION = "jax"\n\ndef build(config)\n    return None\n'
HARMFUL = (
    *("exits", "in_float64", "misbehaves", "missing_import"),
    *("never_imported", "never_returns", "takes_all_memory"),
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
        (folder / "syntax_error.py").write_text(SYNTAX_ERROR)
        cheats = [str(CHEATS / f"{name}.py") for name in HARMFUL]
        few = ["--time-limit=8", "--memory=2", "--json"]
        self.running = [
            begun(folder, "syntax_error.py", *cheats, *few, "--only=contract,dtypes,purity"),
            begun(folder, str(CHEATS / f"{WATCHED}.py"), *few, "--only=watched"),
        ]

    @cache  # noqa: B019 -- one object, as long as the tests
    def results(self) -> tuple[dict[str, Any], str]:
        """Return what was found by the entrant's name, and what was said on the side."""
        said = [process.communicate(timeout=400) for process in self.running]
        assert [process.returncode for process in self.running] == [1, 1], said
        rows = [row for out, _ in said for row in json.loads(out)]
        return {row["entrant"]: row for row in rows}, "".join(err for _, err in said)


@pytest.fixture(scope="module", autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """Judge what may not run here; drop what it left in the repository."""
    judgements = Apart(tmp_path_factory.mktemp("apart"))
    yield judgements
    for process in judgements.running:
        process.kill()
        with process:  # waits, and closes its streams
            pass
    (ROOT / "left_behind.txt").unlink(missing_ok=True)


def cheat(name: str) -> str:
    """Return the name of a cheat that takes part."""
    return impls.add(CHEATS / f"{name}.py")


subject_of = cache(Subject)
"""By entrant and style: each is compiled once."""


def findings(entrant: str, style: str, check: str) -> list[Finding]:
    """Return what a check finds, run here; the checks before it have been passed."""
    function = (STYLE_CHECKS if style else FILE_CHECKS)[check]
    return findings_of(subject_of(entrant, style), check, function)


# Cheats whose numbers or times tell.

NUMBERS = [
    ("computes_ahead", "ahead", "timed-region", r"a new one takes \d+ times as long: results were"),
    ("caches", "by_all", "timed-region", r"results were computed ahead, or kept"),
    ("caches", "by_chunk", "fresh", r"call 2 had returned this loss: it is stale|changed in place"),
    ("stale_loss", "stale", "fresh", r"call 1 had returned this loss: it is stale"),
    ("skips_optimiser", "never", "optimiser", r"no weight changed"),
    ("skips_optimiser", "never", "gradient", r"save\(\).mu is zero after an update"),
    ("skips_optimiser", "now_and_then", "ten-steps", r"step \d+ of 10 has \d\.\d+, not \d\.\d+"),
    ("in_bfloat16", "pure", "dtypes", r"22 of its values are bfloat16; the first one comes from"),
    ("in_bfloat16", "pure", "equality", r"it is 1\.5445"),
    ("in_bfloat16", "", "dtypes", r"11 of its values are bfloat16"),
    ("detached", "pure", "state", r"the state is detached, as by stop_gradient"),
    ("detached", "pure", "gradient", r"6 of 8 arrays are off, the worst cells\[0\]"),
    ("ignores_input", "pure", "inputs", r"another input at time 0 changes it by 0 nats instead of"),
    ("ignores_input", "pure", "equality", r"where inputs are not used"),
    ("puts_off", "later", "timed-region", r"work is put off until then"),
    ("in_the_background", "threaded", "timed-region", r"something goes on in the background"),
    ("retraces", "anew", "retrace", r"6 further calls compiled 6 programs"),
    ("input_first", "pure", "equality", r"applied to concatenate\(\[x, hidden\]\), not to"),
    ("one_way", "", "weights", r"cells\[0\]\.bias differs in 8 of 8 numbers"),
    ("one_way", "pure", "weights", r"cells\[0\]\.bias differs in 8 of 8 numbers"),
    ("returns_numpy", "numpy_arrays", "dtypes", r"hidden\[0\] is a numpy\.ndarray, hidden\[1\]"),
    ("returns_numpy", "float64", "dtypes", r"the loss is a numpy\.float64"),
    ("returns_numpy", "nan", "equality", r"it is nan"),
    ("returns_numpy", "other_shape", "shapes", r"^\(1,\)$"),
]


@pytest.mark.parametrize(("name", "style", "check", "seen"), NUMBERS)
def test_a_cheat_is_caught(name: str, style: str, check: str, seen: str) -> None:
    caught = findings(cheat(name), style, check)
    assert any(re.search(seen, finding.seen) for finding in caught), caught
    assert all(finding.expected for finding in caught)
    assert all(str(CHEATS / f"{name}.py") in finding.where for finding in caught), caught


PASSED = [
    ("computes_ahead", "ahead", ("equality", "ten-steps", "optimiser", "inputs", "state")),
    ("puts_off", "later", ("equality", "ten-steps", "optimiser", "state", "fresh")),
    ("detached", "pure", ("equality", "optimiser", "inputs")),
    ("retraces", "anew", ("equality",)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "style", "checks"), PASSED)
def test_a_cheat_passes_what_it_does_right(name: str, style: str, checks: tuple[str, ...]) -> None:
    entrant = cheat(name)
    assert [findings(entrant, style, check) for check in checks] == [[]] * len(checks)


def test_a_finding_says_where_to_look() -> None:
    [finding, *_] = findings(cheat("detached"), "pure", "state")
    line = re.fullmatch(r"(.*/detached\.py):(\d+), step", finding.where)
    assert line, finding.where
    assert "def step(" in Path(line[1]).read_text().splitlines()[int(line[2]) - 1]


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
    ("in_float64", FILE, "contract", r"jax_enable_x64 is True after it", ""),
    ("in_float64", FILE, "dtypes", r"19 of its values are float64", ""),
    ("exits", "politely", "contract", r"called sys\.exit\(3\)", "sys.exit(3)"),
    ("exits", "at_once", "contract", r"it ended the process: exit status 4", ""),
    ("never_returns", "waits", "contract", r"did not return within 8 s", "time.sleep(1)"),
    ("takes_all_memory", "hungry", "contract", r"asked for more memory than it may", "np.ones("),
    ("misbehaves", "prints", "purity", r"it wrote 1 048 577 bytes", ""),
    ("misbehaves", "forks", "purity", r"it forked", "os.fork()"),
    (
        *("misbehaves", "leaves_a_child", "purity"),
        r"left behind: sleep \(\d+\); ended now",
        "subprocess.Popen",
    ),
    ("misbehaves", "writes", "purity", r"it wrote to left_behind\.txt", "left_behind.txt"),
    (WATCHED, "sleepy", "watched", r"of plain JAX's time where it is timed", ""),
    (WATCHED, "idle", "watched", r"updates made: 1, in a plain loop 5", ""),
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
        place = re.match(r"(.*):(\d+), ", found["where"])
        assert place, found
        assert line in Path(place[1]).read_text().splitlines()[int(place[2]) - 1]


def test_the_others_go_on(apart: Apart) -> None:
    """A style that ends its process costs the other styles nothing, and nothing of it lives on."""
    rows, said = apart.results()
    outcomes = {(o["check"], o["style"]): o["outcome"] for o in rows["exits"]["checks"]}
    assert outcomes["contract", "pure"] == outcomes["purity", "pure"] == "ok"
    assert outcomes["contract", "at_once"] == "finding"
    assert not any(row["equal"] for row in rows.values())
    assert rows["syntax_error"]["styles"] == []
    assert "will be executed now, with your rights" in said
    text = str(rows["misbehaves"]["findings"])
    ended = [int(pid) for pid in re.findall(r"\((\d+)\); ended now", text)]
    assert ended
    assert not any(psutil.pid_exists(pid) for pid in ended)


# Honest entrants.


@pytest.mark.slow
@pytest.mark.parametrize(("entrant", "style"), HONEST, ids=["-".join(row) for row in HONEST])
def test_an_honest_style_has_no_finding(entrant: str, style: str) -> None:
    for check in STYLE_CHECKS:
        assert findings(entrant, style, check) == [], check


@pytest.mark.parametrize("entrant", dict(HONEST))
def test_an_honest_file_has_no_finding(entrant: str) -> None:
    for check in FILE_CHECKS:
        if check != "contract":  # whose settings are those of these tests
            assert findings(entrant, FILE, check) == [], check


@pytest.mark.slow
def test_all_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way, in processes of its own: the benchmark's worker too."""
    assert main(["check", "pure_jax", "--style", "pure"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("bakeoff: pure_jax will be executed now, with your rights")
    for name in CHECKS:
        assert re.search(rf"^ {name} .*ok", printed.out, re.M), name
    assert "\x1b" not in printed.out
    assert "no finding in what was checked; run all checks" in printed.out


# The pieces.


def test_every_check_has_a_function_and_comes_after_those_that_it_needs() -> None:
    names = list(CHECKS)
    assert [*STYLE_CHECKS, "purity"] == names
    assert [*FILE_CHECKS, "purity"] == [name for name in names if CHECKS[name].of_file]
    for name, check in CHECKS.items():
        assert all(names.index(need) < names.index(name) for need in check.needs)


def test_a_usual_mistake_is_recognised() -> None:
    given = random_weights(SMALL.model), random_hidden(SMALL), random_chunk(SMALL, 1, masked=2)
    right = reference.loss_and_grads(*given).loss
    mistakes = numbers.losses_of_mistakes(*given)
    assert len(mistakes) == 9
    for words, loss in mistakes.items():
        assert abs(loss / right - 1) > 10 * numbers.EXPLAINED, words
        assert numbers.usual_mistake(loss, *given) == words
    assert numbers.usual_mistake(right * 1.01, *given) is None


@pytest.mark.parametrize(
    "change", [{}, {"seen": 0.3}, {"load": 2.0}, {"save": 1.0}, {"idle": 0.8}], ids=str
)
def test_times_outside_of_the_margins_are_findings(change: dict[str, float]) -> None:
    times = timing.CallTimes(seen=1, new=1.2, load=0.4, save=0.3, save_again=0.1, idle=0.1, busy=1)
    times = times._replace(**change)
    found = list(timing.work_outside_of_calls(Subject("pure_jax", "pure"), times, plain_load=0.3))
    assert len(found) == len(change)


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
    user = {"seconds": seconds, "losses": losses}
    assert len(list(user_times.differing_times(timed, user))) == count


def test_a_user_program_knows_nothing_of_the_benchmark() -> None:
    text = user_times.USER_PROGRAM.read_text()
    assert "bench" not in re.sub(r'""".*?"""', "", text, flags=re.S)


def test_the_judge_imports_what_every_environment_has() -> None:
    """Entrants with environments of their own are judged there, without this project's packages."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, bench.check.judge; print(*sys.modules)"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    assert {"msgspec", "psutil", "rich", "typer"}.isdisjoint(done.stdout.split())


def test_an_entrant_is_judged_on_the_backend_that_is_asked_for() -> None:
    for backend, platforms in {"cpu": "cpu", "gpu:1": "gpu,cpu"}.items():
        assert place_of("pure_jax", backend).variables["JAX_PLATFORMS"] == platforms


def test_which_files_have_changed(tmp_path: Path) -> None:
    for name in ("kept", "removed", "written"):
        (tmp_path / name).write_text("a")
    (tmp_path / "__pycache__").mkdir()
    before = traces.snapshot(tmp_path)
    (tmp_path / "removed").unlink()
    (tmp_path / "written").write_text("other")
    (tmp_path / "made").touch()
    (tmp_path / "__pycache__" / "cached").touch()
    after = traces.snapshot(tmp_path)
    assert traces.changed_files(before, after) == ["made", "removed", "written"]


NEW, FOLDER = "/new/file", str(ROOT)


@pytest.mark.parametrize(
    ("event", "arguments", "paths"),
    [
        ("open", (NEW, "w", 0), [NEW]),
        ("open", (NEW, "r", 0), []),
        ("open", (NEW, None, os.O_WRONLY | os.O_CREAT), [NEW]),
        ("open", (NEW, None, os.O_RDONLY), []),
        ("open", (3, "w", 0), []),  # a descriptor is open already
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
    assert traces.changed_paths(event, arguments) == paths


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
    caught = findings(impls.add(tmp_path / "hidden.py"), FILE, "contract")
    assert [finding.expected.split()[0] for finding in caught] == ["DISTRIBUTION", "NOTE", "ALONE"]
    assert caught[0].seen == "it is 'jax' once the file is imported, and what is read is ''"
    assert caught[0].where.endswith("hidden.py:6, DISTRIBUTION")
    assert caught[2].expected == "ALONE names styles of the file: pure"
    assert caught[2].seen.startswith("it names fast, which")


def test_an_entrant_of_another_kind_returns_its_own_arrays() -> None:
    for check in ("contract", "shapes", "dtypes", "equality", "state"):
        assert findings("numpy", "loop", check) == [], check


def test_files_that_somebody_changes_are_a_note(tmp_path: Path) -> None:
    """What no line of Python in the judge's process has written may be another's doing."""
    text = (CHEATS / "missing_import.py").read_text()
    (tmp_path / "waiting.py").write_text("import time\ntime.sleep(1)\n" + text)
    (tmp_path / "tree").mkdir()

    def edit(*_: str) -> None:
        (tmp_path / "tree" / "mine").write_text("edited meanwhile")

    options = CheckOptions(checks=("contract", "purity"), root=tmp_path / "tree")
    judgement = judge(str(tmp_path / "waiting.py"), options, edit)
    [note] = [finding for finding in judgement.findings if finding.check == "purity"]
    assert note.severity == NOTE
    assert note.seen == "mine changed; it may have been somebody else"


# The command.


WRONG = Finding("the loss is 1", "it is 2; [bold]not[/bold] markup", "mine.py:3", check="equality")
LOUD = Finding("little is printed", "a megabyte", severity=NOTE, check="equality")


@pytest.mark.parametrize(
    ("finding", "complete", "equal", "verdict"),
    [
        (WRONG, True, False, "1 finding in 1 check; the first one to look at is equality at mine"),
        (WRONG, False, False, "1 finding in 1 check; the first one"),
        (LOUD, True, True, "equal: it may be measured: pytest bench --entrant 'my own.py'"),
        (LOUD, False, None, "no finding in what was checked; run all checks"),
    ],
)
@pytest.mark.parametrize("width", [80, 160])
def test_the_verdict(
    finding: Finding, complete: bool, equal: bool | None, verdict: str, width: int
) -> None:
    skipped = Outcome("retrace", "pure", not_run="not JAX: nothing is traced")
    outcomes = (Outcome("contract", FILE), Outcome("equality", "pure", (finding,)), skipped)
    judgement = Judgement("mine", "my own.py", ("pure",), outcomes, complete)
    assert judgement.as_json()["equal"] is equal
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report(judgement, width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert ("a warm call compiles nothing" in text) == (width == 160)
    assert finding.seen in text
    assert "not run: retrace (not JAX: nothing is traced)" in text
    assert [line for line in text.splitlines() if verdict in line]


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
    err = capsys.readouterr().err
    assert "bakeoff: nobody has the style jit; there are transform: choose some of them" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    {
        "missing.py": "no such entrant 'missing.py'; give a name, or a Python file's path",
        "flex_linen": "no such entrant 'flex_linen'; give a Python file's path, or one of pure_jax",
        "haiku --backend npu": "unknown backend 'npu'; known: cpu; choose one of them",
        "haiku --only speed": "unknown check 'speed'; known: contract, shapes",
        "haiku --workload huge": "unknown workload 'huge'; known: toy, seed",
        "haiku --time-limit 0": "--time-limit is 0.0; it must be a positive number",
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
