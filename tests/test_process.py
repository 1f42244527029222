"""The protocol between the program and its workers, spoken by real processes: small scripts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench.cells import Arm
from bench.engine.process import Place, Worker, WorkerFailedError, ask_once
from bench.worker import turns
from bench.worker.protocol import PROTOCOL, Failures
from bench.worker.recorder import NOBODY, Recorder, TurnMarker
from bench.worker.session import Session
from bench.worker.settings import CORES, ENVIRONMENT, conditions, environment

ROOT = Path(__file__).parents[1]
SPEAKS = f"""
import json, os, signal, sys, time

def say(**record):
    print(json.dumps(record), flush=True)

def heard():
    return json.loads(sys.stdin.readline())

def ready(**more):
    say(**{{"ready": 0.0, "protocol": {PROTOCOL}, **more}})
"""


def script(text: str) -> Place:
    """Return where a script is the worker."""
    return Place(command=(sys.executable, "-c", SPEAKS + textwrap.dedent(text)))


def failure(text: str, silence: float = 60) -> WorkerFailedError:
    """Return how a worker failed that is asked for one thing."""
    with pytest.raises(WorkerFailedError) as caught:
        ask_once({"do": "something"}, script(text), silence)
    return caught.value


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        ("sys.exit(3)", "exit status 3"),
        ("ready(); heard(); sys.exit('out of cheese')", "exit status 1"),
        ("ready(); heard(); os.abort()", "exit status -6"),
        (
            "ready(); heard(); os.kill(os.getpid(), signal.SIGKILL)",
            "exit status -9; killed, perhaps for want of memory",
        ),
        ("ready(); heard(); say(found=1)", "exit status 0"),
        ("ready(); heard(); print('{\"found\": [1, 2', end=''); sys.exit(4)", "exit status 4"),
        ("print('hello')", "it wrote 'hello': JSON is malformed"),
        ("ready(); heard(); print('x' * 500)", f"it wrote {'x' * 80!r}: JSON is malformed"),
        ("sys.stdout.buffer.write(b'\\xff\\xfe\\n')", "it wrote '��': JSON is malformed"),
        ("ready(); heard(); say(found=float('nan'))", "JSON is malformed"),
        ("ready(); heard(); print('[1, 2]')", "it wrote '[1, 2]': Expected `object`"),
        ("say(ready=0.0)", "it speaks protocol None, not 4"),
        ("say(found=1); ready()", "it spoke before it was asked: {'found': 1}"),
        ("ready(); heard(); say(a=1); say(b=2); ready()", "it said 2 records where one belongs"),
        ("ready(); heard(); ready()", "it said 0 records where one belongs"),
    ],
)
def test_what_the_protocol_does_not_allow(worker: str, reason: str) -> None:
    error = failure(worker)
    assert error.reason.startswith("worker failed (")
    assert reason in error.reason
    assert str(error) == error.reason
    assert error.arm is None


@pytest.mark.parametrize("worker", ["time.sleep(60)", "ready(); heard(); time.sleep(60)"])
def test_a_worker_that_hangs_is_killed(worker: str) -> None:
    assert failure(worker, silence=0.5).reason == "worker failed (silent for 0.5 s)"


def test_a_worker_that_closes_its_output_and_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.engine.process.LAST_SECONDS", 0.25)
    error = failure("ready(); heard(); os.close(1); time.sleep(60)")
    assert error.reason == "worker failed (it closed its output)"


def test_its_last_words_are_kept() -> None:
    error = failure("""
        ready()
        heard()
        for i in range(20):
            print(f"line {i}", file=sys.stderr)
        raise OSError("no such planet")
    """)
    assert error.reason == "worker failed (exit status 1)"
    lines = error.stderr.splitlines()
    assert len(lines) == 8
    assert lines[-1] == "OSError: no such planet"
    assert lines[0] == "line 16"


COUNTS = """
    total = 0
    ready()
    while True:
        total += heard()["n"]
        say(total=total, place=os.environ.get("PLACE"))
        ready()
"""


def test_two_workers_take_turns_and_keep_what_they_know() -> None:
    command = script(COUNTS).command
    a, b = (Worker(Place(command, environment() | {"PLACE": place})) for place in "AB")
    with a, b:
        a.start()
        b.start()
        said = [worker.ask({"n": n}) for worker, n in ((a, 1), (b, 10), (a, 2), (b, 20), (a, 3))]
    assert [record["total"] for record in said] == [1, 10, 3, 30, 6]
    assert "".join(record["place"] for record in said) == "ABABA"


def test_closing_ends_a_worker_that_is_at_work() -> None:
    worker = Worker(script("ready(); heard(); time.sleep(60)"))
    path = worker.recorder.path
    assert path.exists()
    worker.start()
    assert not path.exists(), "it would stay behind if this process were killed"
    worker.close()
    worker.close()
    assert worker.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("end", "reason"), [("time.sleep(60)", "silent for 0.5 s"), ("sys.exit(3)", "exit status 3")]
)
def test_a_child_that_holds_the_output_open_ends_with_its_worker(end: str, reason: str) -> None:
    error = failure(
        f"""
        import subprocess
        child = subprocess.Popen(["sleep", "300"])
        print(child.pid, file=sys.stderr)
        {end}
        """,
        silence=0.5,
    )
    assert error.reason == f"worker failed ({reason})"
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(error.stderr)).wait(10)  # raises TimeoutExpired if it lives


def test_the_recorder_says_whose_turn_it_was() -> None:
    """The worker is killed in its second round, when it is the third arm's turn."""
    error = failure("""
        from bench.worker.block import TimedBlock
        from bench.worker.recorder import TurnMarker

        turn, calls = TurnMarker(sys.argv[1]), 0

        def arm(index):
            def unit():
                global calls
                calls += index == 2
                if calls == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                return {"step": [0.0]}
            return unit

        ready()
        heard()
        block = TimedBlock(turn.at, compiled=lambda: 0, changes=str, seed=0)
        block.interleave({i: arm(i) for i in range(4)}, rounds=3, untimed=0)
    """)
    assert error.arm == 2
    assert "exit status -9" in error.reason


def test_a_recorder_and_its_turn() -> None:
    with Recorder() as recorder:
        turn = TurnMarker(str(recorder.path))
        assert recorder.who() is None
        for index in (0, 3, NOBODY - 1):
            turn.at(index)
            assert recorder.who() == index
        turn.at()
        assert recorder.who() is None
    assert not recorder.path.exists()


def test_preparing_is_the_turn_of_whom_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with Recorder() as recorder:
        session = Session(TurnMarker(str(recorder.path)))
    names = ("pure_jax/pure", "control/pure", "haiku/pure")
    session.index = {Arm.of(name): i for i, name in enumerate(names)}
    opened, seen = SimpleNamespace(prepared={}), list[tuple[str, int]]()

    def prepared(_: object, arm: Arm) -> Any:
        seen.append((arm.entrant, session.turn.page[0]))
        if arm.entrant == "haiku":
            raise OSError("no such planet")
        return dict

    monkeypatch.setitem(turns.KINDS, "sample", prepared)
    monkeypatch.setattr(session, "on", lambda *_: opened)
    arms = ["pure_jax/pure", "haiku/pure", "control/pure"]
    found = session.prepare("toy", "cpu", "sample", arms)
    assert seen == [("pure_jax", 0), ("haiku", 2), ("control", 1)]
    assert found == Failures({"haiku/pure": "raised OSError: no such planet"})
    assert opened.prepared.keys() == {("sample", Arm.of(arms[0])), ("sample", Arm.of(arms[2]))}
    assert session.turn.page[0] == NOBODY


NOISY = """
import os, sys
print("hello from a library")
os.write(1, b"and from its C code\\n")
print("and to stderr", file=sys.stderr)
from impls.pure_jax import *
from impls import pure_jax
DISTRIBUTION, STYLES, build = "jax", pure_jax.STYLES, pure_jax.build
"""


def test_what_entrants_print_and_ctrl_c_do_not_get_between(tmp_path: Path) -> None:
    path = tmp_path / "noisy.py"
    path.write_text(NOISY)
    with Worker() as worker:
        worker.start()
        os.kill(worker.process.pid, signal.SIGINT)
        command = {"do": "load", "cache": None, "seed": 0}
        arms = [["noisy", "pure"], ["pure_jax", "pure"], ["nobody", "pure"]]
        found = worker.ask({**command, "arms": arms, "outside": {"noisy": str(path)}})
        assert list(found["failures"]) == ["nobody/pure"]
        assert found["failures"]["nobody/pure"].startswith("unknown entrant 'nobody'")
        os.kill(worker.process.pid, signal.SIGINT)
        described = worker.ask({"do": "describe", "entrants": ["pure_jax"], "outside": {}})
        assert described["backends"][0] == "cpu"
        assert worker.process.poll() is None
        worker.stderr.seek(0)
        said = worker.stderr.read()
        assert "hello from a library" in said
        assert "and from its C code" in said
        assert "Traceback" not in said
        with pytest.raises(WorkerFailedError) as caught:
            worker.ask({"do": "fly"})
    assert "exit status 1" in caught.value.reason
    assert caught.value.stderr.splitlines()[-1].startswith("ValueError: unknown command 'fly'")


def modules_after(statement: str) -> set[str]:
    """Return the names of what is imported after a statement, outside the standard library."""
    code = f"import sys; {statement}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.split() if name not in sys.stdlib_module_names} - {
        "__main__"
    }


@pytest.mark.parametrize("module", ["__main__", "cold", "integrity", "protocol", "recorder"])
def test_a_worker_begins_with_the_standard_library_alone(module: str) -> None:
    assert modules_after(f"import bench.worker.{module}") <= {"bench"}


def test_the_environment_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    unwanted = ("JAX_DEBUG_NANS", "JAX_LOG_COMPILES", "JAX_DISABLE_JIT", "PYTHONDONTWRITEBYTECODE")
    for name in unwanted:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    given = environment()
    assert not set(unwanted) & set(given)
    assert given["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"
    assert {name: given[name] for name in ENVIRONMENT} == ENVIRONMENT
    assert given["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


@pytest.mark.slow
def test_a_worker_says_how_many_modules_have_no_bytecode(tmp_path: Path) -> None:
    command = {"do": "describe", "entrants": ["pure_jax"], "outside": {}}
    kept = {"PYTHONPYCACHEPREFIX": str(tmp_path)}
    none = Place(variables=environment() | kept | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert ask_once(command, none)["uncached"] > 300  # jax's
    assert ask_once(command, Place(variables=environment() | kept))["uncached"] == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_worker_keeps_to_the_cores_that_the_run_says() -> None:
    said, given = conditions(), environment()
    assert given[CORES] == ",".join(map(str, said["affinity"]))
    assert said["environment"]["NPROC"] == str(len(said["affinity"]))
    one = said["affinity"][-1]
    with Worker(Place(variables=given | {CORES: str(one)})) as worker:
        worker.start()
        assert psutil.Process(worker.process.pid).cpu_affinity() == [one]


@pytest.mark.slow
def test_what_a_build_does_is_part_of_init(tmp_path: Path) -> None:
    """Else a library that makes a model there would have its initialisers compiled for nothing."""
    path = tmp_path / "slow.py"
    path.write_text(
        "import time\nfrom impls import pure_jax\nDISTRIBUTION = 'jax'\n"
        "STYLES = pure_jax.STYLES\n"
        "def build(config):\n    time.sleep(5)\n    return pure_jax.build(config)\n"
    )
    command = {"do": "cold", "entrant": "slow", "style": "pure", "workload": "toy"}
    found = ask_once({**command, "backend": "cpu", "outside": {"slow": str(path)}})
    assert found["values"]["init"] > 5, "it slept for as long"


def test_a_cold_process_measures_every_stage() -> None:
    # filter_jit cannot trace alone: its split comes from JAX's events, the others' from a clock.
    where = {"workload": "toy", "backend": "cpu", "outside": {}}
    found = ask_once({"do": "cold", "entrant": "equinox", "style": "filter_jit", **where})
    assert set(found["values"]) == {
        *("import", "init", "trace", "lower", "compile", "first_step", "peak_rss"),
    }
    assert all(value > 0 for value in found["values"].values())
    times = [value for name, value in found["values"].items() if name != "peak_rss"]
    assert found["timed_seconds"] == pytest.approx(sum(times))
    assert len(found["fingerprint"]) == 16
    assert found["trace_and_lower_split_by"] == "jax.monitoring event"
