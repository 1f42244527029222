"""`bakeoff check` as a command: its verdicts, what it prints, wrong use and Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

import impls
from bench.check.checks import CHECKS
from bench.check.findings import DONATES, FILE, NOTE, CheckFinding, CheckResult, Judgement
from bench.cli.check import document, verdict
from bench.cli.documents import show
from tests.commands import command, how

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.commands import Bakeoff

WRONG = CheckFinding("the loss is 1", "it is 2; [bold]not[/bold] markup\x1b[31m", "mine.py:3")
THREAD = CheckFinding("no thread runs on", "a pool", severity=NOTE)
TAKES = CheckFinding(DONATES, "it does so always", severity=NOTE)


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards which files took part."""
    monkeypatch.setattr(impls, "OUTSIDE", dict(impls.OUTSIDE))


@pytest.mark.parametrize(
    ("finding", "complete", "equal", "words"),
    [
        (WRONG, True, False, "not equal: 1 finding; begin with equality of pure at mine.py:3"),
        (WRONG, False, False, "not equal: 1 finding; begin with"),
        (THREAD, True, True, "equal; to measure it: pytest bench --entrant 'my own.py' --workload"),
        (TAKES, True, True, "--entrant 'my own.py' --workload toy,seed --donate"),
        (THREAD, False, None, "no findings in these checks; run all checks"),
    ],
)
@pytest.mark.parametrize("width", [80, 160])
def test_the_verdict(
    finding: CheckFinding,
    complete: bool,
    equal: bool | None,
    words: str,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    finding = replace(finding, check="equality", style="pure")
    skipped = CheckResult("retrace", "pure", not_run="not a JAX library")
    results = (CheckResult("contract", FILE), CheckResult("equality", "pure", (finding,)), skipped)
    judgement = Judgement("mine", "my own.py", ("pure",), results, complete)
    assert judgement.as_json()["equal"] is equal
    assert words in verdict(judgement)
    show(document(judgement))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    for part in (finding.seen.removesuffix("\x1b[31m"), "not run: retrace (not a JAX library)"):
        assert part in text
    assert (CHECKS["retrace"].about in text) == (width == 160)


@pytest.mark.slow
def test_all_of_the_command(bakeoff: Bakeoff) -> None:
    done = bakeoff("check", "pure_jax", "--style", "pure")
    assert done.status == 0
    assert done.err.startswith("bakeoff: pure_jax will be executed now, with your rights")
    for name in CHECKS:
        assert re.search(rf"^{name} .*ok", done.out, re.M), name


@pytest.mark.slow
def test_files_that_lack_a_style_cost_the_others_nothing(bakeoff: Bakeoff) -> None:
    few = ["--only", "contract", "--json"]
    done = bakeoff("check", "stax", "haiku", "--style", "transform", *few)
    [row] = json.loads(done.out)
    assert (row["entrant"], row["styles"], done.status) == ("haiku", ["transform"], 2)
    assert "bakeoff: unknown style of stax 'transform'; known: pure" in done.err
    done = bakeoff("check", "haiku", "--style", "transform,jit", *few)
    assert done.status == 2
    assert "bakeoff: unknown style 'jit'; known: transform" in done.err


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
        "": "Missing argument 'PATH...'",
    }.items(),
)
def test_wrong_use(arguments: str, message: str, bakeoff: Bakeoff) -> None:
    done = bakeoff("check", *arguments.split())
    assert done.status == 2
    assert message in done.err


def test_ctrl_c_ends_all_of_it(heard: Callable[[list[str]], list[str]], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import time\ntime.sleep(600)\n")
    process = subprocess.Popen(
        heard(command("check", "mine.py")),
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
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.endswith("bakeoff: interrupted\n")
    assert psutil.wait_procs(judges, timeout=10)[1] == []
