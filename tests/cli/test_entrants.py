"""Commands about entrants: who takes part, whose environment is built, and the verdict on one."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import impls
from bench.check import DONATES, FILE, NOTE, CheckFinding
from bench.check.judge import CHECKS
from bench.check.runner import CheckOptions, CheckResult
from bench.cli.output import publish
from bench.environments.builder import Builder
from bench.report.documents.check import describe_checks, verdict
from tests.commands import Bakeoff, command, how

WRONG = CheckFinding("the loss is 1", "it is 2; [bold]not[/bold] markup", "mine.py:3")
THREAD = CheckFinding("no thread runs on", "a pool", severity=NOTE)
TAKES = CheckFinding(DONATES, "it does so always", severity=NOTE)


def test_a_file_that_cannot_be_loaded_costs_its_own_row(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "haiku", None)
    monkeypatch.delitem(sys.modules, "impls.haiku", raising=False)
    (tmp_path / "stax.py").write_text("def (")
    files, source = {"stax": tmp_path / "stax.py"}, impls.source
    monkeypatch.setattr(impls, "source", lambda name: files.get(name) or source(name))
    monkeypatch.setenv("COLUMNS", "200")
    done = bakeoff("entrants")
    assert done.status == 0
    assert max(map(len, done.out.splitlines())) <= 200
    assert done.out.count("warning: ") == 2
    assert "needs the package 'haiku', which is not installed" in done.out
    assert "syntax error" in done.out
    for name in {*impls.names()} - {"haiku", "stax"}:
        [row] = re.findall(rf"^ *{name} +(.*)", done.out, re.M)
        shared = name in impls.list_shared()
        where = "shared" if shared else impls.read_declaration(name).installed + " to build"
        styles = ", ".join(impls.load(name).styles if shared else impls.list_styles(name))
        assert re.fullmatch(rf"[\w-]+ +[\w.]+ +{where} +\d+ +{re.escape(styles)} *", row)


def test_building(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    monkeypatch.setattr(Builder, "build_entrant", lambda self, name: built.append(name))
    assert bakeoff("entrants", "--build", "keras", "--build", "penzai").status == 0
    assert built == ["keras", "penzai"]
    assert bakeoff("entrants", "--build", "all").status == 0
    assert built[2:] == [name for name in impls.names() if name not in impls.list_shared()]


@pytest.mark.parametrize(
    ("finding", "complete", "words"),
    [
        (WRONG, True, "not equal: 1 finding; begin with equality of pure at mine.py"),
        (THREAD, True, "equal; to measure it: pytest bench --entrant 'my own.py' --style"),
        (TAKES, True, "--entrant 'my own.py' --style pure --workload toy,seed --donate"),
        (THREAD, False, "no findings in these checks; run all checks"),
    ],
)
def test_the_verdict(
    finding: CheckFinding,
    complete: bool,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    skipped = CheckResult("retrace", "pure", not_run="needs weights to pass")
    results = (CheckResult("contract", FILE), CheckResult("equality", "pure", (finding,)), skipped)
    options = CheckOptions(("pure",), tuple(CHECKS) if complete else ("equality",))
    assert words in verdict("my own.py", options, results)
    publish([describe_checks("my own.py", options, results)])
    text = capsys.readouterr().out
    assert all(part in text for part in (finding.seen, "not run: needs weights to pass"))


def test_a_file_with_a_mistake(bakeoff: Bakeoff) -> None:
    Path("mine.py").write_text("def build(config)\n")
    done = bakeoff("check", "mine.py")
    assert done.status == 1
    assert done.err.startswith("bakeoff: mine.py will be executed now, with your rights")
    assert "not equal: 1 finding; begin with contract at mine.py" in done.out
    assert "not run: needs contract to pass" in done.out
    outcomes = re.findall(r"^ *(contract|shapes|weights) +(finding|not run)\b", done.out, re.M)
    assert outcomes == [("contract", "finding"), ("shapes", "not run"), ("weights", "not run")]


def test_ctrl_c_ends_all_of_it(heard: Callable[[list[str]], list[str]], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import time\ntime.sleep(600)\n")
    check = heard(command("check", "mine.py"))
    with subprocess.Popen(check, **how(tmp_path), stderr=subprocess.PIPE) as process:
        parent, judges = psutil.Process(process.pid), list[psutil.Process]()
        while not judges:
            assert process.poll() is None
            judges = [p for p in parent.children() if "bench.check.judge" in p.cmdline()]
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("bakeoff: interrupted\n")
    assert psutil.wait_procs(judges, timeout=10)[1] == []
