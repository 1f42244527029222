"""A real worker: commands and answers, and entrants that make mistakes beside honest ones."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from bench.engine.process import Worker
from bench.metrics import COLD, METRICS, STAGES
from bench.worker import settings
from bench.worker.counts import count_code_lines
from bench.worker.proof import MISSING_DONATION, UNEXPECTED_DONATION
from bench.worker.protocol import OWN_SEEDS, Load, MeasureCold, Open, Prove, TimeBlock, Train
from bench.worker.settings import Surroundings
from tests.commands import ROOT
from tests.worker.step_files import MODEL, WHOLE

TOY = "toy", "cpu"
PLAIN, HAIKU = "pure_jax/pure", "haiku/pure"
HONEST = [PLAIN, "control/pure", HAIKU]
MISTAKES = ROOT / "tests" / "mistakes"
WHILE_TIMED = {
    "steps/by_identity": ("its timed training gave a wrong result", "3 updates in 36 calls"),
    "steps/leaves_one_out": ("its timed training gave a wrong result", "its weights are off by"),
    "steps/forgets_one": ("its timed training gave a wrong result", "35 updates in 36 calls"),
    "steps/old_loss": ("its timed training gave a wrong result", "the last loss is off by"),
    "steps/compiles_again": ("compiled again while it was timed",),
    "steps/fails": ("raised OSError: no such planet (while it was timed)",),
    "steps/changes_setting": ("it changed jax_debug_nans from False to True",),
    "steps/leaves_child": ("while it was timed it left running: sleep (",),
    "steps/leaves_thread": ("while it was timed it left a thread that computes",),
    "steps/leaves_native_thread": ("while it was timed it left a thread that computes",),
    "steps/gives_way": ("while it was timed it changed the priority from",),
}
"""Styles that begin after some twenty calls, so that all are proven; and what is seen of them."""
DONATES, ASKED, NOTHING = (f"steps/donates_{style}" for style in ("state", "if_asked", "nothing"))
TAKES_HIDDEN = "your step donates `hidden`; donate only your state"


class Child(Worker):
    """A real worker with the usual arguments of these tests."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def load(self, arms: list[str], cache: Path, **more: Any) -> Any:
        outside = {path.stem: str(path) for path in MISTAKES.glob("*.py")}
        return self.ask(Load(arms, seed=0, cache=str(cache), outside=outside, **more))

    def opened(self, arms: list[str], losses: list[float] | None = None) -> None:
        for arm in arms:
            assert self.ask(Open(*TOY, arm, losses or []))["samples"] == [], arm

    def block(self, arms: list[str], kind: str = "step", rounds: int = 2) -> Any:
        return self.ask(TimeBlock(*TOY, kind, arms, rounds, seed=3))


def samples(answer: Any) -> dict[str, dict[str, Any]]:
    """Return the samples of an answer, by metric and arm: value, calls, median and 95 %."""
    table: dict[str, dict[str, Any]] = {}
    for (entrant, style, *_), metric, value, calls, median, high, *_ in answer["samples"]:
        table.setdefault(metric, {})[f"{entrant}/{style}"] = [value, calls, median, high]
    return table


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the compilation cache of all workers here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def worker(cache: Path) -> Iterator[Child]:
    """Return a worker that has loaded honest arms and others, and whose honest arms are open."""
    with Child() as child:
        arms = [*HONEST, *WHILE_TIMED, DONATES]
        assert child.load(arms, cache) == {"failures": {}, "spoiled": False}
        yield child


@pytest.fixture(scope="module")
def proofs(worker: Child) -> dict[str, Any]:
    """Return the proofs of its honest arms, the baseline's last."""
    proofs = {arm: worker.ask(Prove(*TOY, arm)) for arm in HONEST[::-1]}
    assert worker.recorder.read_arm() is None
    return proofs


# Commands and answers.


def test_a_proof_needs_no_baseline_before_it(proofs: dict[str, Any]) -> None:
    assert next(iter(proofs)) == HAIKU
    for arm, proof in proofs.items():
        assert len(proof["losses"]) == 10
        assert proof["proof"]["trajectory"] <= 1e-5
        assert proof["proof"]["same_program_as_baseline"]
        assert proof["proof"]["donates"] is False
        counts = {metric: by_arm[arm][0] for metric, by_arm in samples(proof).items()}
        assert counts["alias_bytes"] == 0
        assert counts["parameters"] > 0
        name = "pure_jax" if arm == "control/pure" else arm.split("/")[0]
        assert counts["code_lines"] == count_code_lines(ROOT / "impls" / f"{name}.py")
    assert proofs[PLAIN]["losses"] == proofs["control/pure"]["losses"]


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        ("step", {"step": 4}),
        ("pipelined", {"step_pipelined": 2}),
        ("host_cost", {"host_cost": 20, "host_cost_pipelined": 2}),
    ],
)
@pytest.mark.usefixtures("proofs")
def test_a_block_of_some_arms(worker: Child, kind: str, calls: dict[str, int]) -> None:
    """Of two rounds, with so many calls of each metric."""
    arms = [PLAIN, HAIKU]
    answer = worker.block(arms, kind)
    table = samples(answer)
    others = {name: table.pop(name) for name in [*table] if not METRICS[name].compared}
    pinned = len(os.sched_getaffinity(0)) == 1
    assert ("cores_used" in others) == (kind == "step" and not pinned)
    assert all({*rows} == {*arms} for rows in others.values())
    assert answer["failures"] == {}
    assert answer["seconds"].keys() == {*arms}
    assert table.keys() == calls.keys()
    for metric, number in calls.items():
        assert {*table[metric]} == {*arms}
        for value, count, median, high in table[metric].values():
            assert count == number
            assert 0 < value <= median <= high


def test_a_block_of_stages(cache: Path) -> None:
    """Of two rounds, in a worker that does nothing else."""
    with Child() as child:
        assert child.load(HONEST, cache) == {"failures": {}, "spoiled": False}
        answer = child.block(HONEST, STAGES)
        assert child.recorder.read_arm() is None
    assert answer["failures"] == {}
    table = samples(answer)
    timed = [name for name, metric in METRICS.items() if metric.turn == STAGES]
    assert [*table] == timed == ["trace", "lower", "compile"]
    for by_arm in table.values():
        assert {*by_arm} == {*HONEST}
        assert all(calls == 2 and value > 0 for value, calls, *_ in by_arm.values())


def test_a_second_process_reads_what_the_first_has_compiled_and_proven(
    worker: Child, proofs: dict[str, Any], cache: Path
) -> None:
    losses = proofs[PLAIN]["losses"]
    worker.opened(HONEST, losses)
    assert worker.block(HONEST)["failures"] == {}
    kept = {path.name for path in cache.iterdir() if "cache" in path.name}
    with Child() as child:
        assert child.load(HONEST, cache) == {"failures": {}, "spoiled": False}
        child.opened(HONEST, losses)
        assert child.block(HONEST)["failures"] == {}
        wrong = [*losses[:9], losses[9] + 1e-3]
        answer = child.ask(Open(*TOY, HAIKU, wrong))
    assert answer["failure"].startswith("not equal in this process, though it was in another")
    assert {path.name for path in cache.iterdir() if "cache" in path.name} == kept != set()


@pytest.mark.usefixtures("proofs")
def test_training(worker: Child) -> None:
    rows = worker.ask(Train(*TOY, HAIKU))["samples"]
    assert [metric for _, metric, *_ in rows] == ["final_loss", *["final_loss_own"] * OWN_SEEDS]
    losses = [value for _, _, value, *_ in rows]
    assert all(0 < loss < 3 for loss in losses), "less than that of guessing, which is 3"
    assert len({*losses}) == 1 + OWN_SEEDS


SLOW_START = """
import time
from impls import equinox

DISTRIBUTION, STYLES = "equinox", equinox.STYLES

def build(config):
    time.sleep(1.5)
    return equinox.build(config)
"""


@pytest.mark.parametrize(
    ("entrant", "style", "compiling"),
    [
        pytest.param(
            "mine", "filter_jit", 0.3, id="building is part of init", marks=pytest.mark.slow
        ),
        pytest.param("numpy", "loop", 0.0, id="not JAX's"),
    ],
)
def test_a_cold_process_measures_what_happens_once(
    entrant: str, style: str, compiling: float, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SLOW_START)
    outside = {"mine": str(path)} if entrant == "mine" else {}
    with Child() as child:
        answer = child.ask(MeasureCold(*TOY, f"{entrant}/{style}", outside))
    values = {metric: by_arm[f"{entrant}/{style}"][0] for metric, by_arm in samples(answer).items()}
    assert {*values} == {*COLD}
    assert min(values.values()) > 0
    assert entrant != "mine" or values["init"] > 1.5, "it slept for as long"
    times = sum(values[name] for name in ("import", "init", "first_step"))
    assert answer["timed_seconds"] == values["startup"] > 0.999 * (times + compiling)


# Entrants that make mistakes.


@pytest.mark.slow
@pytest.mark.usefixtures("proofs")
def test_mistakes_have_no_times_and_the_others_have(worker: Child) -> None:
    worker.opened([HAIKU, "steps/by_identity"])
    answer = worker.block([HAIKU, "steps/by_identity"], rounds=8)
    assert HAIKU in samples(answer)["step"], "without the baseline too"
    assert "updates in" in answer["failures"]["steps/by_identity"]

    arms = [*HONEST, *WHILE_TIMED]
    worker.opened(arms)
    answer = worker.block(arms, rounds=10)
    assert {*samples(answer)["step"]} == {*answer["seconds"]} == {*HONEST}
    assert {*answer["failures"]} == {*WHILE_TIMED}
    for arm, words in WHILE_TIMED.items():
        for word in words:
            assert word in answer["failures"][arm], arm
    answer = worker.block(arms, "host_cost", rounds=2)
    for metric in ("host_cost", "host_cost_pipelined"):
        assert {*samples(answer)[metric]} == {*HONEST}
    assert {*answer["failures"]} == {*WHILE_TIMED}
    assert worker.block(HONEST)["failures"] == {}


@pytest.mark.slow
def test_a_worker_fails_steps_that_do_not_donate_as_it_does(
    worker: Child, proofs: dict[str, Any], cache: Path
) -> None:
    assert worker.ask(Prove(*TOY, DONATES))["failure"] == UNEXPECTED_DONATION
    with Child() as child:
        arms = [PLAIN, ASKED, NOTHING]
        assert not child.load(arms, cache, donate=True)["failures"]
        ours, *others = (child.ask(Prove(*TOY, arm)) for arm in arms)
        assert [answer["failure"] for answer in others] == [TAKES_HIDDEN, MISSING_DONATION]
        assert child.block([PLAIN])["failures"] == {}
    assert ours["proof"]["donates"]
    before, after = (samples(proof) for proof in (proofs[PLAIN], ours))
    live = before["live_bytes"][PLAIN][0]
    assert after["alias_bytes"][PLAIN][0] == after["live_bytes"][PLAIN][0] == live > 0
    assert ours["losses"] == pytest.approx(proofs[PLAIN]["losses"], abs=1e-5)


def test_what_has_changed_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("JAX_LEFT", "1")
    before = Surroundings()
    assert before.changes() == ""
    os.environ["XLA_FLAGS"] = "--fast"
    del os.environ["JAX_LEFT"]
    assert before.changes() == (
        "changed JAX_LEFT from '1' to None; changed XLA_FLAGS from None to '--fast'"
    )
    assert ("XLA_FLAGS" in os.environ, os.environ["JAX_LEFT"]) == (False, "1")
    assert before.changes() == ""


@pytest.mark.parametrize("lists", [True, False])
def test_a_child_is_found_and_ended_where_the_system_lists_none_too(
    monkeypatch: pytest.MonkeyPatch, lists: bool
) -> None:
    if not lists:
        monkeypatch.setattr(settings, "CHILDREN", Path("no such file"))
    before = Surroundings()
    assert before.changes() == ""
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    assert before.changes() == f"left running: sleep ({child.pid})"
    child.wait()
    assert before.changes() == ""


LEAVING = {
    "import threading\n\ndef spin():\n    while True:\n        pass\n\n"
    "threading.Thread(target=spin, daemon=True).start()\n": "left a thread that computes",
    "import subprocess\nsubprocess.Popen(['sleep', '60'])\n": "left running: sleep (",
    "import os\nos.nice(1)\n": "changed the priority from",
}
"""Code that a user's own step may not run when it is imported, by what is said of it."""


@pytest.mark.slow
@pytest.mark.parametrize("code", LEAVING)
def test_a_step_s_file_may_leave_nothing_behind(code: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"import jax\n{code}\ndef make_step():\n    return print\n")
    with Child() as worker:
        command = Load(["mine/step"], 0, str(tmp_path / "cache"), outside={"mine": str(path)})
        [why] = worker.ask(command)["failures"].values()
    assert why.startswith(f"mine.py: importing it {LEAVING[code]}")


@pytest.mark.parametrize(
    ("text", "arm", "failure"),
    [
        pytest.param(
            MODEL.replace(
                "make_model():\n", "make_model(made=[]):\n    made.append(10 // (2 - len(made)))\n"
            ),
            "pure_jax/pure",
            "mine.py:8 raised ZeroDivisionError: integer division or modulo by zero",
            id="before the baseline's proof",
        ),
        pytest.param(
            WHOLE.replace(
                "return loss", "CALLS.append(10 // (60 - len(CALLS)))\n        return loss"
            )
            + "\nCALLS = []\n",
            "mine/step",
            "mine.py:14 raised ZeroDivisionError: integer division or modulo by zero (while",
            id="while it is timed",
        ),
    ],
)
def test_an_exception_of_a_user_s_step_is_told_with_its_line(
    text: str, arm: str, failure: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with Child() as child:
        loading = Load([arm], seed=0, cache=str(tmp_path), outside={"mine": str(path)})
        assert child.ask(loading)["failures"] == {}
        proven = child.ask(Prove("mine", "cpu", arm))
        timed = child.ask(TimeBlock("mine", "cpu", "step", [arm], 40, seed=1))
    assert proven.get("failure", timed["failures"].get(arm)).startswith(failure)
