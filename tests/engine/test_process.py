"""The protocol between the program and its workers, spoken by real processes: small scripts."""

import dataclasses
import os
import signal
import sys
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.cells import Arm
from bench.engine.actions import Action, parse_answer
from bench.engine.process import Interpreter, Worker, WorkerFailedError, ask_once
from bench.worker.protocol import (
    PROTOCOL,
    Command,
    Count,
    Describe,
    Load,
    MeasureCold,
    Open,
    Prove,
    TimeBlock,
)
from bench.worker.settings import CORES, ENVIRONMENT, conditions, environment
from tests.commands import ROOT
from tests.engine.simulated import PROOF

SPEAKS = f"""
import json, os, signal, sys, time

def say(**record):
    print(json.dumps(record), flush=True)

def heard():
    return json.loads(sys.stdin.readline())

def ready(**more):
    say(**{{"ready": True, "protocol": {PROTOCOL}, **more}})
"""


def script(text: str) -> Interpreter:
    return Interpreter(command=(sys.executable, "-c", SPEAKS + textwrap.dedent(text)))


def failure(text: str) -> WorkerFailedError:
    """Return how a worker failed that is asked for one thing."""
    with pytest.raises(WorkerFailedError) as caught:
        ask_once(Command(), script(text))
    return caught.value


@pytest.mark.parametrize(
    ("worker", "reason"),
    [
        ("sys.exit(3)", "exit status 3"),
        (
            "ready(); heard(); os.kill(os.getpid(), signal.SIGKILL)",
            "exit status -9; killed, perhaps for want of memory",
        ),
        ("ready(); heard(); print('{\"found\": [1, 2', end=''); sys.exit(4)", "exit status 4"),
        ("ready(); heard(); print('x' * 500)", f"it wrote {'x' * 80!r}: JSON is malformed"),
        ("sys.stdout.buffer.write(b'\\xff\\xfe\\n')", "it wrote '��': JSON is malformed"),
        ("ready(); heard(); print('[1, 2]')", "it wrote '[1, 2]': Expected `object`"),
        ("say(ready=True)", f"it speaks protocol None, not {PROTOCOL}"),
        ("say(found=1); ready()", "it spoke before it was asked: {'found': 1}"),
        ("ready(); heard(); say(a=1); say(b=2); ready()", "it said 2 records where one belongs"),
        ("ready(); heard(); os.close(1); time.sleep(60)", "it closed its output"),
    ],
)
def test_what_the_protocol_does_not_allow(
    worker: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.engine.process.LAST_SECONDS", 2.0)
    error = failure(worker)
    assert error.reason.startswith("worker failed (")
    assert reason in error.reason


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("time.sleep(60)", "it neither answered nor computed for 3 s"),
        ("sys.exit(3)", "exit status 3"),
    ],
)
def test_a_child_that_holds_the_output_open_ends_with_its_worker(
    end: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.engine.process.SILENCE_SECONDS", 3.0)
    error = failure(
        f"""
        import subprocess
        child = subprocess.Popen(["sleep", "300"])
        print(child.pid, file=sys.stderr)
        {end}
        """
    )
    assert error.reason == f"worker failed ({reason})"
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(error.stderr)).wait(10)  # raises TimeoutExpired if it lives


BURN = """
def burn(seconds):
    while time.process_time() < seconds:
        pass
"""
"""Computes until its process has used so many processor seconds."""


@pytest.fixture
def one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count a worker as hung after a second in which it neither answers nor computes."""
    monkeypatch.setattr("bench.engine.process.SILENCE_SECONDS", 1.0)


@pytest.mark.parametrize(
    "hangs",
    [
        "time.sleep(1e9)",
        "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    ],
)
@pytest.mark.parametrize("before", ["pass", "burn(2)"])
def test_a_worker_that_neither_answers_nor_computes_has_hung(
    before: str, hangs: str, one_second: None
) -> None:
    error = failure(f"{BURN}\nready(); heard(); {before}; {hangs}")
    assert error.reason == "worker failed (it neither answered nor computed for 1 s)"
    assert not error.is_hung, "more time would not help"


@pytest.mark.parametrize(
    "computes",
    ["burn(4)", "import subprocess; subprocess.run([sys.executable, '-c', code + 'burn(4)'])"],
)
def test_a_worker_that_computes_has_not_hung(computes: str, one_second: None) -> None:
    """Itself, or what it has started."""
    code = f"import time\n{BURN}"
    answer = ask_once(
        Command(),
        script(f"code = {code!r}\nexec(code)\nready(); heard(); {computes}; say(a=1); ready()"),
    )
    assert answer == {"a": 1}


def test_a_worker_that_computes_without_end_is_ended(one_second: None) -> None:
    with Worker(script("ready(); heard()\nwhile True: pass")) as worker:
        worker.start()
        with pytest.raises(
            WorkerFailedError, match=r"^worker failed \(it was still at work after 3 s"
        ):
            worker.ask(Command(), 3.0)


def test_a_worker_that_waits_for_its_partner_has_not_hung_while_that_one_computes(
    one_second: None,
) -> None:
    busy, idle = (
        script(f"{BURN}\nready(); heard(); burn(4)"),
        script("ready(); heard(); time.sleep(99)"),
    )
    with Worker(busy) as one, Worker(idle) as other:
        for worker in (one, other):
            worker.start()
        one.process.stdin.write(Command().encode())  # type: ignore[union-attr]
        one.process.stdin.flush()  # type: ignore[union-attr]
        with pytest.raises(WorkerFailedError, match="nor computed for 1 s"):
            other.ask(Command(), 60.0, one)
        used = psutil.Process(one.process.pid).cpu_times()
        assert sum(used[:2]) >= 3, "its partner had stopped computing"


def test_the_recorder_says_whose_turn_it_was() -> None:
    """The worker is killed in its second round, when it is the third arm's turn."""
    error = failure("""
        from types import SimpleNamespace
        from bench.worker.block import TimedBlock
        from bench.worker.protocol import ArmMarker, TimeBlock

        marker, calls = ArmMarker(sys.argv[1]), 0

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
        command = TimeBlock("seed", "cpu", "step", [], 3, seed=0)
        arms = SimpleNamespace(user_file=None, pairs_calls=False)
        block = TimedBlock(arms, command, marker.mark, int, str)
        block.members = range(4)
        block.interleave(lambda: {i: arm(i) for i in range(4)})
    """)
    assert error.arm == 2
    assert "exit status -9" in error.reason


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
        arms = ["noisy/pure", "pure_jax/pure", "nobody/pure"]
        found = worker.ask(Load(arms, 0, str(tmp_path), outside={"noisy": str(path)}))
        assert list(found["failures"]) == ["nobody/pure"]
        assert found["failures"]["nobody/pure"].startswith("unknown entrant 'nobody'")
        os.kill(worker.process.pid, signal.SIGINT)
        described = worker.ask(Describe(["pure_jax"]))
        assert described["backends"][0] == "cpu"
        assert worker.process.poll() is None
        worker.stderr.seek(0)
        said = worker.stderr.read()
        assert "hello from a library" in said
        assert "and from its C code" in said
        assert "Traceback" not in said


def test_the_environment_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    unwanted = ("JAX_DEBUG_NANS", "JAX_LOG_COMPILES", "JAX_DISABLE_JIT", "PYTHONDONTWRITEBYTECODE")
    for name in unwanted:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    monkeypatch.setenv("GIT_INDEX_FILE", "a hook's")
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -v")
    given = environment()
    assert "GIT_INDEX_FILE" not in given
    assert given["GIT_SSH_COMMAND"] == "ssh -v"
    assert not set(unwanted) & set(given)
    assert given["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"
    assert {name: given[name] for name in ENVIRONMENT} == ENVIRONMENT
    assert given["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


def test_only_variables_that_change_results_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "https://user:TOKEN@h/x")
    monkeypatch.setenv("JAX_MY_API_KEY", "TOKEN")
    monkeypatch.setenv("JAX_PLATFORMS_KEY", "TOKEN")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=https://user:TOKEN@h/x?pat=TOKEN")
    recorded = conditions()["environment"]
    assert "TOKEN" not in str(recorded)
    given = {"JAX_PLATFORMS": "cpu", "MALLOC_ARENA_MAX": "1"}
    assert recorded.items() >= given.items()
    assert recorded["XLA_FLAGS"] == "--xla_dump_to=https://***@h/x?pat=***"
    assert recorded["JAX_ENABLE_X64"] == "false"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_worker_keeps_to_the_cores_that_the_run_says() -> None:
    said, given = conditions(), environment()
    assert given[CORES] == ",".join(map(str, said["affinity"]))
    assert said["environment"]["NPROC"] == str(len(said["affinity"]))
    one = said["affinity"][-1]
    with Worker(Interpreter(variables=given | {CORES: str(one)})) as worker:
        worker.start()
        assert psutil.Process(worker.process.pid).cpu_affinity() == [one]


# Answers.


def row(arm: str, metric: str = "step", value: float = 1.0, calls: int = 8) -> list[Any]:
    return [Arm.parse(arm).make_cell("toy", "cpu"), metric, value, calls, 1.1, 1.2]


ROW, OTHER, FLOPS = row("a/b"), row("c/d"), row("a/b", "flops")
DISTANCES = dataclasses.asdict(PROOF)


@pytest.mark.parametrize(
    ("do", "record", "wrong"),
    [
        ("prove", {"proof": {}, "samples": [FLOPS], "losses": [1.0]}, "`loss`"),
        ("prove", {"proof": DISTANCES, "samples": [FLOPS], "losses": [1.0]}, None),
        ("prove", {"failure": "not equal"}, None),
        ("block", {"samples": [ROW, OTHER]}, None),
        ("block", {"samples": [ROW]}, "'c/d' was left out"),
        ("block", {"samples": [ROW], "failures": {"c/d": "no"}}, None),
        ("block", {"samples": [ROW, row("c/d", calls=4)]}, "other numbers of calls in 2 rounds"),
        ("block", {"samples": [row("a/b", value=0.0), OTHER]}, "'step' of a-b-toy-cpu is 0.0"),
        ("block", {"samples": [ROW, OTHER, row("e/f")]}, "'step' of e-f-toy-cpu was not asked"),
        ("block", {"samples": [ROW, row("c/d", "host_cost")]}, "not measured in a turn of"),
        ("block", {"samples": [ROW, OTHER, row("a/b", "newer")]}, "'newer' of a-b-toy-cpu was not"),
        ("cold", {"samples": [row("a/b", "import")]}, None),
        ("cold", {"failure": "it broke"}, "it has no samples"),
        ("open", {}, None),
        ("cold", {"samples": [row("a/b", "trace")]}, "'trace' is not measured in a cold process"),
        ("cold", {"samples": [row("a/b", "newer")]}, "'newer' of a-b-toy-cpu was not asked"),
    ],
)
def test_an_answer_has_to_be_one_to_its_question(
    do: Any, record: Mapping[str, Any], wrong: str | None
) -> None:
    command = {
        "block": TimeBlock("toy", "cpu", "step", ["a/b", "c/d"], 2, seed=0),
        "prove": Prove("toy", "cpu", "a/b"),
        "cold": MeasureCold("toy", "cpu", "a/b"),
        "open": Open("toy", "cpu", "a/b"),
    }[do]
    action = Action(1, command=command)
    if wrong is None:
        parse_answer(action, record)
        return
    with pytest.raises(ValueError, match=wrong):
        parse_answer(action, record)


def test_counts_that_only_the_worker_s_code_knows_are_left_out() -> None:
    """A revision with another table of metrics can be compared in all that both have."""
    samples, about = [FLOPS, row("a/b", "newer")], {"proof": DISTANCES, "losses": [1.0]}
    for command in (Prove("toy", "cpu", "a/b"), Count("toy", "cpu", "a/b")):
        action = Action(1, command=command)
        answer = parse_answer(action, {"samples": samples, **about})
        assert [sample.metric for sample in answer.samples] == ["flops"]
