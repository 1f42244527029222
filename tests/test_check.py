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
from bench.check import diagnose, times, traces, tree, watching
from bench.check.checks import CHECKS
from bench.check.finding import FILE, NOTE, Finding, Judged, Outcome
from bench.check.judge import found
from bench.check.place import judging, place_of
from bench.check.referee import judged
from bench.check.register import FILE_CHECKS, STYLE_CHECKS
from bench.check.report import report
from bench.check.subject import SMALL, Subject
from bench.check.wanted import Wanted, asked
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
APART = {
    "exits": "contract,purity",
    "in_float64": "contract,dtypes",
    "misbehaves": "contract,purity",
    "missing_import": "contract",
    "never_imported": "contract",
    "never_returns": "contract",
    "takes_all_memory": "contract",
    "sleeps_less_when_watched": "contract,watched",
}
"""Cheats that may not run in the process of these tests, and the checks they are for."""
SYNTAX_ERROR = 'DISTRIBUTION = "jax"\n\ndef build(config)\n    return None\n'


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards which files took part."""
    monkeypatch.setattr(impls, "OUTSIDE", dict(impls.OUTSIDE))


def command(*arguments: str) -> list[str]:
    """Return the command of a check."""
    return [sys.executable, "-m", "bench.cli", "check", *arguments]


class Apart:
    """Judgements of processes of their own, which are begun before anything else is tested."""

    def __init__(self, folder: Path) -> None:
        (folder / "syntax_error.py").write_text(SYNTAX_ERROR)
        cheats = [
            str(CHEATS / f"{name}.py") for name in APART if name != "sleeps_less_when_watched"
        ]
        few = ["--time-limit=8", "--memory=2", "--json"]
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        both = ["--only=contract,dtypes,purity"], ["--only=watched"]
        self.running = [
            subprocess.Popen(
                command(*given, *few, *only),
                cwd=folder,
                env=env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for given, only in zip(
                (["syntax_error.py", *cheats], [str(CHEATS / "sleeps_less_when_watched.py")]),
                both,
                strict=True,
            )
        ]

    @cache  # noqa: B019 -- one object, as long as the tests
    def found(self) -> tuple[dict[str, Any], str]:
        """Return what was found by the entrant's name, and what was said on the side."""
        said = [process.communicate(timeout=400) for process in self.running]
        assert [process.returncode for process in self.running] == [1, 1], said
        rows = [row for out, _ in said for row in json.loads(out)]
        return {row["entrant"]: row for row in rows}, "".join(err for _, err in said)


@pytest.fixture(scope="module", autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """Return the judgements of what may not run here; drop what it left in the repository."""
    begun = Apart(tmp_path_factory.mktemp("apart"))
    yield begun
    for process in begun.running:
        process.kill()
        process.wait()
        for stream in filter(None, (process.stdout, process.stderr)):
            stream.close()
    (ROOT / "left_behind.txt").unlink(missing_ok=True)


def cheat(name: str) -> str:
    """Return the name of a cheat that takes part."""
    return impls.add(CHEATS / f"{name}.py")


subject_of = cache(Subject)
"""By entrant and style: what it compiles, it compiles once."""


def findings(entrant: str, style: str, check: str) -> list[Finding]:
    """Return what a check finds, run here; the checks before it have been passed."""
    subject = subject_of(entrant, style)
    table = STYLE_CHECKS if style else FILE_CHECKS
    return found(subject, check, table[check])


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
    subject = subject_of(cheat(name), style)
    assert [found(subject, check, STYLE_CHECKS[check]) for check in checks] == [[]] * len(checks)


def test_a_finding_says_where_to_look() -> None:
    [finding, *_] = findings(cheat("detached"), "pure", "state")
    line = re.fullmatch(r"(.*/detached\.py):(\d+), step", finding.where)
    assert line, finding.where
    assert "def step(" in Path(line[1]).read_text().splitlines()[int(line[2]) - 1]


# Cheats that take a process of their own.

OWN = [
    ("syntax_error", FILE, "contract", r"has a syntax error in line 3: expected ':'"),
    ("missing_import", FILE, "contract", r"needs the package 'a_library_that_nobody_has'"),
    ("never_imported", FILE, "contract", r"did not return within 8 s"),
    ("in_float64", FILE, "contract", r"jax_enable_x64 is True after it"),
    ("in_float64", FILE, "dtypes", r"19 of its values are float64"),
    ("exits", "politely", "contract", r"called sys\.exit\(3\)"),
    ("exits", "at_once", "contract", r"it ended the process: exit status 4"),
    ("never_returns", "waits", "contract", r"did not return within 8 s"),
    ("takes_all_memory", "hungry", "contract", r"asked for more memory than it may have"),
    ("misbehaves", "prints", "purity", r"it wrote 1 048 577 bytes"),
    ("misbehaves", "forks", "purity", r"it forked"),
    ("misbehaves", "leaves_a_child", "purity", r"left behind: sleep \(\d+\); ended now"),
    ("misbehaves", "writes", "purity", r"it wrote to left_behind\.txt"),
    ("sleeps_less_when_watched", "sleepy", "watched", r"of plain JAX's time where it is timed"),
    ("sleeps_less_when_watched", "idle", "watched", r"updates made: 1, in a plain loop 5"),
]


@pytest.mark.parametrize(("name", "style", "check", "seen"), OWN)
def test_what_it_does_to_its_process(
    apart: Apart, name: str, style: str, check: str, seen: str
) -> None:
    row = apart.found()[0][name]
    texts = [
        finding["seen"]
        for finding in row["findings"]
        if (finding["check"], finding["style"]) == (check, style or None)
    ]
    assert any(re.search(seen, text) for text in texts), row["findings"]


LINES = {
    ("never_returns", "waits"): "time.sleep(1)",
    ("never_imported", None): "time.sleep(600)",
    ("takes_all_memory", "hungry"): "np.ones(",
    ("missing_import", None): "import a_library_that_nobody_has",
    ("exits", "politely"): "sys.exit(3)",
    ("misbehaves", "writes"): "left_behind.txt",
    ("misbehaves", "forks"): "os.fork()",
    ("misbehaves", "leaves_a_child"): "subprocess.Popen",
}


def test_the_line_that_did_it(apart: Apart) -> None:
    """Even of what never came back: its stacks are written down before it is ended."""
    for (name, style), text in LINES.items():
        row = apart.found()[0][name]
        [place, *_] = [f["where"] for f in row["findings"] if f["style"] == style and f["where"]]
        path, number = re.match(r"(.*):(\d+), ", place).groups()  # type: ignore[union-attr]
        assert text in Path(path).read_text().splitlines()[int(number) - 1], place


def test_the_others_go_on(apart: Apart) -> None:
    """A style that ends its process costs nobody else anything."""
    rows, said = apart.found()
    outcomes = {(o["check"], o["style"]): o["outcome"] for o in rows["exits"]["checks"]}
    assert outcomes["contract", "pure"] == outcomes["purity", "pure"] == "ok"
    assert outcomes["contract", "at_once"] == "finding"
    assert not any(row["equal"] for row in rows.values())
    assert rows["syntax_error"]["styles"] == []
    assert "will be executed now, with your rights" in said


def test_nothing_of_it_lives_on(apart: Apart) -> None:
    found_now = apart.found()[0]["misbehaves"]["findings"]
    ended = [int(n) for f in found_now for n in re.findall(r"\((\d+)\); ended now", f["seen"])]
    assert len(ended) >= 1
    assert not any(psutil.pid_exists(pid) for pid in ended)


# Honest entrants.


@pytest.mark.slow
@pytest.mark.parametrize(("entrant", "style"), HONEST, ids=["-".join(row) for row in HONEST])
def test_an_honest_style_has_no_finding(entrant: str, style: str) -> None:
    subject = Subject(entrant, style)
    for check, function in STYLE_CHECKS.items():
        assert found(subject, check, function) == [], check


@pytest.mark.parametrize("entrant", dict(HONEST))
def test_an_honest_file_has_no_finding(entrant: str) -> None:
    subject = Subject(entrant, FILE)
    for check, function in FILE_CHECKS.items():
        if check != "contract":  # whose settings are those of these tests
            assert found(subject, check, function) == [], check


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


def test_every_check_has_a_function_and_a_level() -> None:
    judged_here = {name for name in CHECKS if name != "purity"}
    assert set(STYLE_CHECKS) == {name for name in judged_here if CHECKS[name].of_style}
    assert set(FILE_CHECKS) == {name for name in judged_here if CHECKS[name].of_file}
    names = list(CHECKS)
    for name, check in CHECKS.items():
        assert all(names.index(need) < names.index(name) for need in check.needs)


@pytest.mark.parametrize("mistake", diagnose.MISTAKES.items(), ids=lambda pair: pair[1].__name__)
def test_a_usual_mistake_is_recognised(mistake: tuple[str, Callable[..., float]]) -> None:
    words, wrong = mistake
    weights, hidden = random_weights(SMALL.model), random_hidden(SMALL)
    chunk = random_chunk(SMALL, 1, masked=2)
    right = reference.loss_and_grads(weights, hidden, chunk).loss
    assert abs(wrong(weights, hidden, chunk) / right - 1) > 10 * diagnose.NEAR
    assert words in diagnose.explained(wrong(weights, hidden, chunk), weights, hidden, chunk)
    assert diagnose.explained(right * 1.01, weights, hidden, chunk) == ""


def test_times_within_the_margins_are_no_finding() -> None:
    subject = Subject("pure_jax", "pure")
    usual = times.Times(seen=1, new=1.2, load=0.4, save=0.3, save_again=0.1, idle=0.1, busy=1)
    assert list(times.outside(subject, usual, plain_load=0.3)) == []
    for change in ({"seen": 0.3}, {"load": 2.0}, {"save": 1.0}, {"idle": 0.8}):
        assert len(list(times.outside(subject, usual._replace(**change), plain_load=0.3))) == 1


def test_a_step_that_differs_where_nobody_looks() -> None:
    same = {"losses": [1.0, 1.0], "seconds": [1.0, 2.5]}
    assert watching.compared([1.0, 1.0], same) == []
    assert len(watching.compared([1.0, 1.0], same | {"seconds": [1.0, 3.5]})) == 1
    assert len(watching.compared([1.0, 3.5], same | {"seconds": [1.0, 1.0]})) == 1
    assert len(watching.compared([1.0, 1.0], same | {"losses": [1.0, 1.1]})) == 1
    assert len(watching.compared([1.0, 1.0], same | {"losses": [1.0, float("nan")]})) == 1


def test_what_changed_in_a_folder(tmp_path: Path) -> None:
    for name in ("kept", "removed", "written"):
        (tmp_path / name).write_text("a")
    (tmp_path / "__pycache__").mkdir()
    before = tree.snapshot(tmp_path)
    (tmp_path / "removed").unlink()
    (tmp_path / "written").write_text("other")
    (tmp_path / "made").touch()
    (tmp_path / "__pycache__" / "cached").touch()
    assert tree.changed(before, tree.snapshot(tmp_path)) == ["made", "removed", "written"]


def test_the_judge_runs_where_its_entrant_does() -> None:
    place = judging(place_of("pure_jax"), Path("elsewhere"))
    assert place.command == (sys.executable, "-m", "bench.check.judge")
    assert place.root == Path("elsewhere")
    assert place.variables["JAX_PLATFORMS"] == "cpu"


def test_which_events_change_which_files(tmp_path: Path) -> None:
    new, folder = str(tmp_path / "new"), str(tmp_path)
    assert traces.changed("open", (new, "w", 0)) == [new]
    assert traces.changed("open", (new, "r", 0)) == []
    assert traces.changed("open", (new, None, os.O_WRONLY | os.O_CREAT)) == [new]
    assert traces.changed("open", (new, None, os.O_RDONLY)) == []
    assert traces.changed("open", (3, "w", 0)) == [], "a descriptor is open already"
    assert traces.changed("os.rename", (new, "other", -1, -1)) == [new, "other"]
    assert traces.changed("os.remove", (new, -1)) == [new]
    assert traces.changed("os.remove", ("new", 7)) == [], "relative to whatever 7 is"
    assert traces.changed("os.mkdir", (new, 0o777, -1)) == [new]
    assert traces.changed("os.mkdir", (folder, 0o777, -1)) == [], "it is there"
    assert traces.changed("os.rmdir", (folder, -1)) == [folder]
    assert traces.changed("import", ("json", None, None, None, None)) == []


HIDDEN = """
from common.steps import pure_style
from impls.pure_jax import build as build

if True:
    DISTRIBUTION = "jax"
JAX, NOTE = True, "said at once"
STYLES = {"pure": pure_style(build)}
"""


def test_a_constant_that_cannot_be_read_without_running_the_file(tmp_path: Path) -> None:
    (tmp_path / "hidden.py").write_text(HIDDEN)
    caught = findings(impls.add(tmp_path / "hidden.py"), FILE, "contract")
    assert [finding.expected.split()[0] for finding in caught] == ["DISTRIBUTION", "NOTE"]
    assert caught[0].seen == "it is 'jax' once the file is imported, and what is read is ''"
    assert caught[0].where.endswith("hidden.py:6, DISTRIBUTION")


def test_alone_names_styles_of_the_file(tmp_path: Path) -> None:
    text = HIDDEN.replace("if True:", 'ALONE = ("pure", "fast")\nif True:')
    (tmp_path / "mistyped.py").write_text(text)
    caught = findings(impls.add(tmp_path / "mistyped.py"), FILE, "contract")
    [found] = [finding for finding in caught if finding.expected.startswith("ALONE")]
    assert found.expected == "ALONE names styles of the file: pure"
    assert found.seen.startswith("it names fast, which")


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


FOREIGN = """
from typing import Any
import jax
import numpy as np
from common.steps import functional, pure_update
from impls.pure_jax import build as build

DISTRIBUTION = "numpy"
JAX = False

def own(config: Any, optimiser: Any) -> Any:
    model = build(config)
    jitted = jax.jit(pure_update(model, optimiser))

    def update(state: Any, hidden: Any, chunk: Any) -> Any:
        state, hidden, loss = jax.tree.map(np.asarray, jitted(state, hidden, chunk))
        return state, hidden, loss

    return functional(update, model, optimiser, lambda *_: None)

STYLES = {"own": own}
"""


def test_an_entrant_of_another_kind_returns_its_own_arrays(tmp_path: Path) -> None:
    (tmp_path / "foreign.py").write_text(FOREIGN)
    name = impls.add(tmp_path / "foreign.py")
    for check in ("contract", "shapes", "dtypes", "equality", "state"):
        assert findings(name, "own", check) == [], check


def test_files_that_somebody_changes_are_a_note(tmp_path: Path) -> None:
    """What no line of Python in the judge's process has written may be another's doing."""
    text = (CHEATS / "missing_import.py").read_text()
    (tmp_path / "waiting.py").write_text("import time\ntime.sleep(1)\n" + text)
    (tmp_path / "tree").mkdir()

    def tell(*_: str) -> None:
        (tmp_path / "tree" / "mine").write_text("edited meanwhile")

    wanted = Wanted(checks=("contract", "purity"), root=tmp_path / "tree")
    row = judged(asked(str(tmp_path / "waiting.py")), wanted, tell)
    [note] = [finding for finding in row.findings if finding.check == "purity"]
    assert note.severity == NOTE
    assert note.seen == "mine changed; it may have been somebody else"


# What is printed.


def verdict(*findings: Finding) -> Judged:
    outcomes = (
        Outcome("contract", FILE),
        Outcome("equality", "pure", tuple(f for f in findings if f.check == "equality")),
        Outcome("retrace", "pure", not_run="needs equality, which has a finding"),
    )
    return Judged("mine", "mine.py", ("pure",), outcomes)


WRONG = Finding("the loss is 1", "it is 2; [bold]not[/bold] markup", "mine.py:3", check="equality")


@pytest.mark.parametrize("width", [80, 160])
def test_the_report_fits(width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report(verdict(WRONG), width, whole=True))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert ("a warm call compiles nothing" in text) == (width == 160)
    assert "it is 2; [bold]not[/bold] markup" in text
    assert "not run: retrace (needs equality, which has a finding)" in text
    last = [line for line in text.splitlines() if line.strip()][-1]
    assert last.startswith(
        "1 finding in 1 check; the first one to look at is equality at mine.py:3"
    )


def test_a_note_is_no_reason_to_refuse() -> None:
    note = Finding("little is printed", "a megabyte", severity=NOTE, check="equality")
    row = Judged("mine", "my own.py", ("pure",), (Outcome("equality", "pure", (note,)),))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report(row, 100, whole=True))
    assert "equal: it may be measured: pytest bench --entrant 'my own.py'" in console.export_text()
    assert row.as_json(whole=True)["equal"] is True
    assert row.as_json(whole=False)["equal"] is None
    assert verdict(WRONG).as_json(whole=False)["equal"] is False


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
    process = subprocess.Popen(
        heard(command(str(CHEATS / "never_imported.py"))),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
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


def test_a_fresh_process_knows_nothing_of_the_benchmark() -> None:
    text = watching.ALONE.read_text()
    assert "bench" not in re.sub(r'""".*?"""', "", text, flags=re.S)


@pytest.mark.slow
def test_what_is_forked_and_left_alone_holds_nobody(tmp_path: Path) -> None:
    """It and its child live on for a minute, in a group of their own, with all that was open."""
    orphan = str(CHEATS / "leaves_an_orphan.py")
    done = subprocess.run(
        command(orphan, "--only=contract,purity", "--json"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 1
    [row] = json.loads(done.stdout)
    assert any("it ended the process: exit status 3" in f["seen"] for f in row["findings"])
    [left] = [f for f in row["findings"] if f["check"] == "purity"]
    pids = [int(pid) for pid in re.findall(r"\((\d+)\)", left["seen"])]
    assert len(pids) == 2, left["seen"]
    assert not any(map(psutil.pid_exists, pids))
    assert "Bad file descriptor" not in str(row["findings"])
    assert str(left["where"]).startswith(orphan)
