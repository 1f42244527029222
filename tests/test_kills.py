"""Kills at any moment: nothing measured is lost, no process stays, the next start tidies up."""

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.engine.journal import Journal
from bench.runfile.reader import read
from common import weights
from tests.commands import SCAN, bench, command
from tests.test_bench import Lab, journalled

pytestmark = pytest.mark.slow
MARK = "BAKEOFF_TEST_OF_KILLS"
"""Variable by whose value all processes of a test are found, whatever became of their parents."""
SMALL = ("--workload=toy", "--backend=cpu", "--style=pure", "--entrant=pure_jax", "--metric=step")
AB = "ab", "--base=current", "--new=current", "--entrant=equinox", "--style=pure", "--workload=toy"
COMMANDS = {
    "bench": bench(*SMALL, "--processes=2", "--blocks=12", "--benchmark-json=out.json"),
    "ab": command(*AB, "--metric=step", "--pairs=2", "--blocks=6", "-o", "out.json"),
    "cost": command("cost", "scan.py", "--style=pure", "--budget=30", "-o", "out.json"),
    "bisect": command(
        *("bisect", "--good=jax==0.7.0", "--bad=jax==0.7.1", "--step=scan.py", "--metric=step"),
        *("--budget=20", "-o", "out.json"),
    ),
    "history": command(
        *("history", "--since=2025-08-01", "--until=2025-10-01", "--every=2mo", "--step=scan.py"),
        *("--metric=step", "--pairs=1", "--blocks=6", "-o", "out.json"),
    ),
    "train": command("train", "--corpus=toy", "--epochs=9999", "--save=out"),
}
TIMED = re.compile(rb'"metric":"(step|host_cost)"')
"""What a journal has when blocks were measured."""
INT, TERM, HUP, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
STOP = signal.SIGSTOP
KILLS = [
    *(("bench", "parent", which) for which in (INT, TERM, HUP, KILL)),
    *(("bench", "group", which) for which in (INT, TERM, KILL)),
    *(("bench", "worker", which) for which in (TERM, KILL)),
    *(("bench", "resumed", which) for which in (INT, KILL)),
    *(("ab", "parent", which) for which in (INT, HUP, KILL)),
    *(("ab", side, which) for side in ("holder", "waiter") for which in (KILL, STOP)),
    *(("cost", "parent", which) for which in (INT, TERM, KILL)),
    *(("train", "parent", which) for which in (INT, TERM, KILL)),
    ("train", "group", HUP),
    ("bench", "file", KILL),
    ("ab", "file", KILL),
    *(("bisect", "parent", which) for which in (INT, KILL)),
    *(("history", "group", which) for which in (INT, KILL)),
]
"""What is killed: the command alone, its group as a terminal does, a worker of it (of two that take
turns, the one that has the token, or the one that waits for it), or the command at the moment when
it writes its file."""
WORKERS = "worker", "holder", "waiter"
BY_DAY = "bisect", "history"
"""Commands that build environments."""
WRITING = """
import os, signal
from common import files

class Killed:
    def fsync(self, descriptor):
        if os.path.dirname(os.readlink(f"/proc/self/fd/{descriptor}")) == os.getcwd():
            os.kill(os.getpid(), signal.SIGKILL)
    def __getattr__(self, name):
        return getattr(os, name)

files.os = Killed()
"""
"""What ends a process of Python when all of a file is written, and before it gets its name."""
ENDED = {INT: {2, 130}, TERM: {2, 130}, HUP: {2, 130}, KILL: {-9}}
"""Exit statuses: `pytest` has its own for Ctrl-C."""


def processes(token: str) -> list[psutil.Process]:
    """Return what still runs of a test."""
    alive = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == token and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
        except psutil.Error:
            continue
    return alive


def worker_of(pid: int, whom: str) -> int:
    """Return the id of a worker of a command; 0 where none is there at this moment."""
    for process in psutil.Process(pid).children():
        with suppress(psutil.Error):
            computes = process.status() == psutil.STATUS_RUNNING
            if "bench.worker" in process.cmdline() and computes == (whom != "waiter"):
                return process.pid
    return 0


def until(what: Callable[[], Any], seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)
    return value


@pytest.mark.parametrize(("name", "whom", "which"), KILLS)
def test_nothing_is_lost_and_nothing_stays(
    name: str,
    whom: str,
    which: signal.Signals,
    tmp_path: Path,
    heard: Callable[[list[str]], list[str]],
    request: pytest.FixtureRequest,
) -> None:
    lab, output = Lab(tmp_path), tmp_path / "out.json"
    (tmp_path / "scan.py").write_text(SCAN)
    if name in BY_DAY:
        request.getfixturevalue("needs_network")
    writing = tmp_path / "sitecustomize.py"
    if whom == "file":
        writing.write_text(WRITING)
    given: dict[str, Any] = {**lab.how, "stderr": subprocess.STDOUT}
    given["env"] = given["env"] | {MARK: str(tmp_path)}
    plugin = ["-pkeep"] if name == "bench" else []
    resume = [] if name in ("train", "bisect") else ["--resume"]

    def under_way(size: int) -> bool:
        if name == "train":
            return b"epoch" in (tmp_path / "log").read_bytes()
        return any(TIMED.search(path.read_bytes()[size:]) for path in lab.journals)

    def killed(*more: str) -> int:
        size = sum(path.stat().st_size for path in lab.journals)
        with (tmp_path / "log").open("wb") as log:
            line = heard([*COMMANDS[name], *more])
            run = subprocess.Popen(line, **given, stdout=log, start_new_session=True)
            if whom == "file":
                return run.wait(120)
            until(lambda: under_way(size) or run.poll() is not None, 300)
            assert run.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.3)
            if whom == "group":
                os.killpg(run.pid, which)
            elif whom in WORKERS:
                os.kill(until(lambda: worker_of(run.pid, whom)), which)
            else:
                run.send_signal(which)
            return run.wait(120)

    def known() -> list[tuple[str, str, float]]:
        return journalled(Journal.open(lab.journals[0])) if lab.journals else []

    status = killed(*plugin)
    before = known()
    if whom == "resumed":
        assert killed("--resume", *plugin) in ENDED[which]
        assert {*before} <= {*known()}
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text
    until(lambda: not processes(str(tmp_path)), 20)
    if whom in WORKERS:
        assert status in (0, 1, 2), text
        assert any("was started again" in warning for warning in read(output).results.warnings)
    else:
        assert status in ENDED[which], text
        assert not output.exists()
        assert ("go on" if name == "bisect" else "resume") in text or which == KILL
    if whom == "file":
        assert len(list(tmp_path.glob(".*.partial"))) == 1
        writing.unlink()
    if name == "train":
        assert which == KILL or weights.load(tmp_path / "out").epoch > 0
    if name == "bisect":  # it begins anew between the ends that it named
        assert lab.journals == [] or which == KILL
    if name == "train" or (whom == "parent" and which != KILL):
        return  # what else signals do to it is seen with a group
    if whom not in WORKERS:
        line = [*COMMANDS[name], *resume, *plugin]
        done = subprocess.run(line, **given, stdout=subprocess.PIPE, timeout=300, check=False)
        assert output.exists(), done.stdout
    if name == "bisect":
        assert lab.journals == []
    elif whom not in WORKERS or name == "bench":
        there = {(s.cell.entrant, s.metric, s.value) for s in read(output).samples}
        asked = {row for row in before if row[0] in {entrant for entrant, *_ in there}}
        assert asked <= there, shlex.join(COMMANDS[name])
    assert [path.name for path in (tmp_path / "tmp").glob("bakeoff-*")] == []
    assert list(tmp_path.glob(".*.partial")) == []
