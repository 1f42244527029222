"""Kills at any moment: nothing measured is lost, no process stays, the next start tidies up."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Set
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.engine.journal import Journal
from bench.runfile.reader import Run as ReadRun
from bench.runfile.reader import read
from bench.track.timeline import Timeline
from bench.worker.protocol import NOBODY
from tests.commands import NIGHTLY, SCAN, bench, command
from tests.test_bench import Lab, journalled

pytestmark = pytest.mark.slow
MARK = "BAKEOFF_TEST_OF_KILLS"
"""Variable by whose value all processes of a test are found, whatever became of their parents."""
SMALL = ("--workload=toy", "--backend=cpu", "--style=pure", "--entrant=pure_jax", "--metric=step")
PAIRED = ["step", "host_cost", "compile"]
"""A metric of each kind of turns."""
AB = (
    *("ab", "--base=current", "--new=current", "--entrant=equinox", "--style=pure"),
    *("--workload=toy", "--budget=30", "--pairs=1"),
)
OUT = "-o", "out.json"
COMMANDS = {
    "bench": bench(*SMALL, "-pkeep", "--processes=2", "--blocks=12", "--benchmark-json=out.json"),
    "ab": command(*AB, f"--metric={','.join(PAIRED)}", "--blocks=6", *OUT),
    "pair": command(*AB, "--metric=step", "--blocks=20", *OUT),
    "cost": command("cost", "scan.py", "--style=pure", "--budget=30", *OUT),
    "bisect": command(
        *("bisect", "--good=jax==0.7.0", "--bad=jax==0.7.1", "--step=scan.py", "--metric=step"),
        *("--budget=400", *OUT),
    ),
    "history": command(
        *("history", "--since=2025-08-01", "--until=2025-10-01", "--every=2mo", "--step=scan.py"),
        *("--metric=step", "--pairs=2", "--blocks=6", *OUT),
    ),
}
"""Short ones."""
TIMED = re.compile(rb'"metric":"(step|host_cost)"')
"""What a journal has when blocks were measured."""
BY_DAY = "bisect", "history"
"""Commands that build environments."""
INT, TERM, HUP, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL
NO_SIGNAL = 0
KILLS: dict[str, list[tuple[str, int]]] = {
    "bench": [("group", INT), ("parent", HUP), ("group", TERM), ("parent", KILL), ("file", KILL)],
    "ab": [("parent", TERM), ("terminal", HUP), ("parent", KILL), ("file", KILL)],
    "cost": [("parent", HUP), ("terminal", NO_SIGNAL)],
    "bisect": [("parent", INT), ("parent", KILL)],
    "history": [("group", INT), ("group", KILL)],
}
"""What is killed, one after the other: the command alone, its group as a terminal does, the
command and before it its terminal, or the command at the moment when it writes its file."""
WRITING = """
import os, signal

def fsync(descriptor, sync=os.fsync):
    if os.path.dirname(os.readlink(f"/proc/self/fd/{descriptor}")) == os.getcwd():
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)

os.fsync = fsync
"""
"""What ends a process of Python when all of a file is written, and before it gets its name."""
RESUMED = re.compile(r"^ *(pytest .*--resume=\S+)$", re.M)
"""The command by which `pytest bench` says that it goes on."""


def until(what: Callable[[], Any], seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)
    return value


type Row = tuple[str, str, float]
"""A sample: its entrant, metric and value."""


class Run:
    """A command in a folder of its own, and what it leaves there."""

    def __init__(self, name: str, folder: Path, heard: Callable[[list[str]], list[str]]) -> None:
        (folder / "scan.py").write_text(SCAN)
        self.lab, self.folder, self.heard = Lab(folder), folder, heard
        self.line, self.output = COMMANDS[name], folder / "out.json"
        self.given: dict[str, Any] = {**self.lab.how, "stderr": subprocess.STDOUT}
        # Between two days, steps differ where they are optimised.
        optimised = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "false"} if name in BY_DAY else {}
        self.given["env"] = self.given["env"] | {MARK: str(folder)} | optimised

    @property
    def text(self) -> str:
        return (self.folder / "log").read_text()

    def start(self, output: int | None = None) -> subprocess.Popen[str]:
        with (self.folder / "log").open("wb") as log:
            line, output = self.heard(self.line), log.fileno() if output is None else output
            return subprocess.Popen(line, **self.given, stdout=output, start_new_session=True)

    def measure(self, output: int | None = None) -> subprocess.Popen[str]:
        """Start it, and wait until it is in the midst of measuring."""
        size = sum(path.stat().st_size for path in self.lab.journals)
        run = self.start(output)

        def is_measuring() -> bool:
            return any(TIMED.search(path.read_bytes()[size:]) for path in self.lab.journals)

        until(lambda: is_measuring() or run.poll() is not None)
        assert run.poll() is None, self.text
        time.sleep(0.3)
        return run

    def samples(self) -> set[Row]:
        """Return the samples in its journal."""
        journals = self.lab.journals
        return {*journalled(Journal.open(journals[0]))} if journals else set()

    def processes(self) -> Iterator[psutil.Process]:
        """Yield its processes that still run."""
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == str(self.folder)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except psutil.Error:
                continue

    def kill(self, whom: str, which: int) -> None:
        if whom == "file":
            writing = self.folder / "sitecustomize.py"
            writing.write_text(WRITING)
            status = self.start().wait(300)
            writing.unlink()
            assert len(list(self.folder.glob(".*.partial"))) == 1, self.text
        elif whom == "terminal":
            master, terminal = pty.openpty()
            with subprocess.Popen(["cat"], stdin=master, stdout=subprocess.DEVNULL) as screen:
                os.close(master)
                run = self.measure(terminal)
                screen.kill()
            os.close(terminal)
            run.send_signal(which)
            status = run.wait(120)
        else:
            run = self.measure()
            os.killpg(run.pid, which) if whom == "group" else run.send_signal(which)
            status = run.wait(120)
        interrupted = 2 if "pytest" in self.line else 130
        assert status == (-KILL if which == KILL else interrupted), self.text
        assert "Traceback" not in self.text
        assert not self.output.exists()
        until(lambda: not [*self.processes()], 20)

    def finish(self, process: subprocess.Popen[str], known: Set[Row] = frozenset()) -> ReadRun:
        """Return what it writes when it comes to its end: with all samples, and tidily."""
        assert process.wait(600) in (0, 1, 2)
        assert "Traceback" not in self.text
        assert self.output.exists(), self.text
        made = read(self.output)
        samples = {(s.cell.entrant, s.metric, s.value) for s in made.samples}
        asked = {entrant for entrant, *_ in samples}
        assert {row for row in known | self.samples() if row[0] in asked} <= samples
        until(lambda: not [*self.processes()], 20)
        assert [path.name for path in (self.folder / "tmp").glob("bakeoff-*")] == []
        assert list(self.folder.glob(".*.partial")) == []
        return made


@pytest.mark.parametrize("name", KILLS)
def test_nothing_is_lost_and_nothing_stays(
    name: str,
    tmp_path: Path,
    heard: Callable[[list[str]], list[str]],
    request: pytest.FixtureRequest,
) -> None:
    if name in BY_DAY:
        request.getfixturevalue("needs_network")
    run, known = Run(name, tmp_path, heard), set[Row]()
    for whom, which in KILLS[name]:
        run.kill(whom, which)
        assert known <= run.samples(), (whom, which)
        known = run.samples()
        if name == "bisect":  # it begins anew between the ends that it named
            assert "go on" in run.text or which == KILL
            assert not known or which == KILL
            known = set()
        elif name == "bench" and (resumed := RESUMED.search(run.text)):
            assert "interrupted: no run file is written; what was measured is safe" in run.text
            run.line = [sys.executable, "-m", *shlex.split(resumed[1])]
        else:
            assert "resume" in run.text or which == KILL or whom == "terminal"
            run.line = [*COMMANDS[name], "--resume"]
    made = run.finish(run.start(), known)
    assert name != "ab" or {sample.metric for sample in made.samples} >= {*PAIRED}
    assert name == "bench" or run.lab.journals == []
    if name == "bisect":
        record = made.results.search
        assert (record.package, record.releases) == ("jax", ("0.7.0", "0.7.1"))
    if name == "history":
        timeline = Timeline(made.results)  # how much they differ is for the machine's noise to say
        [days] = [[row.environment for row in rows] for rows in timeline.series.values()]
        assert days == timeline.moments == ["2025-08-01", "2025-10-01"]
        assert made.results.environments["2025-08-01"].versions["jax"] == "0.7.0"


PHASES = [
    *product(["ab", "cost", "bisect", "history"], ["proving", "measuring", "writing"]),
    *product(BY_DAY, ["building"]),
]


@pytest.mark.skipif(not NIGHTLY, reason="seven minutes: BAKEOFF_CASES=1 has it run")
@pytest.mark.usefixtures("needs_network")
@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_a_kill_in_every_phase(
    name: str, phase: str, tmp_path: Path, heard: Callable[[list[str]], list[str]]
) -> None:
    run = Run(name, tmp_path, heard)
    if phase == "building":  # anew
        run.given["env"] = run.given["env"] | {"BAKEOFF_CACHE": str(tmp_path / "cache")}
    if phase in ("measuring", "writing"):
        run.kill("file" if phase == "writing" else "parent", KILL)
    else:
        process, program = run.start(), "uv" if phase == "building" else "bench.worker"
        until(lambda: any(program in " ".join(p.cmdline()) for p in run.processes()))
        process.kill()
        assert process.wait(120) == -KILL
        until(lambda: not [*run.processes()], 20)
    known = set() if name == "bisect" else run.samples()  # which loses the step in progress
    run.line = [*COMMANDS[name], "--resume"]
    resumed = run.start()
    resumed.wait(600)
    if "there is nothing to resume" in run.text:
        assert resumed.returncode == 2
        assert phase in ("building", "proving") or name == "bisect"
        run.line = COMMANDS[name]
        resumed = run.start()
    run.finish(resumed, known)


def has_stopped(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_STOPPED


def stop_worker(parent: int, *, waits: bool) -> psutil.Process | None:
    """Return a worker of a command that is stopped in its turn, or while it waits for its turn.

    Only in a block with another one, a worker has a second socket, over which the token comes; the
    byte of shared memory says whether it is its turn. Both stay as they are when it is stopped.
    """
    for process in psutil.Process(parent).children():
        try:
            *_, module, page, _ = process.cmdline()
            if module != "bench.worker":
                continue
            process.suspend()
            until(partial(has_stopped, process), 10)
            files = Path(f"/proc/{process.pid}/fd")
            links = [str(file.readlink()) for file in files.iterdir()]
            has_turn = (files / Path(page).name).read_bytes() != bytes([NOBODY])
            has_partner = sum(link.startswith("socket:") for link in links) > 1
            if has_turn != waits and (has_turn or has_partner):
                return process
            process.resume()
        except (psutil.Error, OSError, ValueError):  # it has just begun, or ended
            continue
    return None


@pytest.mark.parametrize(
    ("name", "waits", "which"),
    [("bench", False, KILL), *product(["pair"], (False, True), (KILL, signal.SIGSTOP))],
)
def test_a_worker_that_dies_or_hangs_is_started_again(
    name: str,
    waits: bool,
    which: signal.Signals,
    tmp_path: Path,
    heard: Callable[[list[str]], list[str]],
) -> None:
    run = Run(name, tmp_path, heard)
    process = run.measure()
    until(lambda: stop_worker(process.pid, waits=waits)).send_signal(which)
    made = run.finish(process)
    assert any("was started again" in warning for warning in made.results.warnings)
