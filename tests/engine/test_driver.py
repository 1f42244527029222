"""The driver with made-up workers: journals, resuming, deaths, wrong answers and a full disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import threading
from collections import defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bench.engine.actions import Action
from bench.engine.answers import AnswerError, typed
from bench.engine.driver import COMPILED, Driver, new_cache
from bench.engine.journal import DiskError, Journal
from bench.engine.process import HEAVY_SILENCE, WorkerFailedError
from common.errors import BakeoffError
from tests.engine.simulated import Machine, needed, plan_of, side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.engine.plan import Plan
    from bench.samples import Sample
    from tests.engine.simulated import Needed

METRICS = ("step", "host_cost", "import", "final_loss")
STYLES = {"pure_jax": ["pure"], "haiku": ["pure"]}
SMALL = needed(("toy",), METRICS, STYLES)
FIXED = {"processes": 2, "blocks": 2, "rounds": 2, "cold_samples": 2}


class Lab:
    """The made-up workers, and what they were asked."""

    machine: Machine

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: list[Action] = []
        self.commands: list[dict[str, Any]] = []
        self.living: set[int] = set()
        self.fails: Callable[[Action], None] = lambda _: None
        """Raises what an action is to end with."""
        self.spoils: Callable[[Action, Any], None] = lambda _action, _out: None
        """Changes a worker's answer."""

    def answer(self, action: Action) -> Any:
        """Return a worker's answer, as JSON has it."""
        self.asked.append(action)
        self.fails(action)
        answer = self.machine.answer(action)
        if answer is None:
            return None
        record = json.loads(json.dumps(dataclasses.asdict(answer)))
        for row in record.get("samples", []):  # no two samples are the same
            row[2] += len(self.asked) * 1e-9
        self.spoils(action, record)
        return record


class FakeDriver(Driver):
    """A driver whose workers are those of a lab."""

    lab: Lab

    def run(self) -> None:
        """Begin without workers: those of an earlier run are gone."""
        self.lab.machine = Machine()
        super().run()

    def asked(self, action: Action) -> Any:
        """Do what a worker would."""
        with self.lab.lock:
            if action.do in ("start", "cold"):
                worker: Any = SimpleNamespace(
                    kill=lambda: None,
                    close=lambda: self.lab.living.discard(action.worker),
                    recorder=SimpleNamespace(who=lambda: None),
                )
                self.workers[action.worker] = worker
                self.lab.living.add(action.worker)
            if action.do not in ("start", "close"):
                self.lab.commands.append(self.command(action))
            record = self.lab.answer(action)
            if action.do in ("cold", "close"):
                self.end(action)
            return record


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab()
    monkeypatch.setattr(FakeDriver, "lab", made, raising=False)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return made


def run(journal: Journal | None, wanted: Needed = SMALL, **options: int) -> Plan:
    plan = plan_of(wanted, **(FIXED | options), before=0.0)
    FakeDriver(plan, journal).run()
    return plan


def located(plan: Plan) -> list[Sample]:
    """Return the samples without the seconds when they were taken, in a fixed order."""
    return sorted(sample._replace(at=0.0) for sample in plan.visits.samples)


def is_whole(plan: Plan) -> bool:
    """Tell whether each cell has what was asked for."""
    fewest = {"step": 4, "host_cost": 4, "import": 2, "final_loss": 1}
    rows = [(sample.cell, sample.metric) for sample in plan.visits.samples]
    return all(
        rows.count((cell, m)) >= fewest[m] for cell, metrics in SMALL.items() for m in metrics
    )


def test_cut_anywhere_it_goes_on_and_nothing_is_lost(lab: Lab, tmp_path: Path) -> None:
    assert is_whole(run(Journal.create(tmp_path / "whole", {})))
    assert not lab.living
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    for records in range(0, len(lines), 3):
        path = tmp_path / f"{records}"
        half = lines[records + 1][:25] if records + 1 < len(lines) else b""
        path.write_bytes(b"".join(lines[: records + 1]) + half)
        known = journalled(Journal.open(path).records)
        resumed = run(Journal.open(path))
        assert is_whole(resumed), records
        assert known <= {sample.value for sample in resumed.visits.samples}

        # The new journal holds all of it again, and nothing is measured anew.
        asked = len(lab.commands)
        assert located(run(Journal.open(path))) == located(resumed)
        assert len(lab.commands) == asked


def journalled(records: list[dict[str, Any]]) -> set[float]:
    """Return the samples of all blocks in a journal."""
    return {
        row[2]
        for record in records
        if record["action"]["do"] == "block" and "death" not in record["outcome"]
        for row in record["outcome"]["answer"]["samples"]
    }


def test_ctrl_c_leaves_no_worker_and_goes_on_later(lab: Lab, tmp_path: Path) -> None:
    path, turns = tmp_path / "journal", 0
    Journal.create(path, {})
    while True:
        stop, turns = len(lab.asked) + 25, turns + 1

        def fails(_: Action, stop: int = stop) -> None:
            if len(lab.asked) == stop:
                raise KeyboardInterrupt

        lab.fails = fails
        try:
            resumed = run(Journal.open(path))
            break
        except KeyboardInterrupt:
            assert not lab.living, "a worker is left behind"
            assert turns < 30
    assert turns > 2
    assert is_whole(resumed)


def test_deaths_are_journalled(lab: Lab, tmp_path: Path) -> None:
    def fails(action: Action) -> None:
        if action.do == "prove" and action.arms == ("haiku/pure",):
            raise WorkerFailedError("worker failed (exit status -9)", "last words", 0)

    lab.fails = fails
    path = tmp_path / "journal"
    plan = run(Journal.create(path, {}))
    lab.fails = lambda _: pytest.fail("it is in the journal")
    again = run(Journal.open(path))
    assert located(again) == located(plan)
    [state], [before] = again.sides, plan.sides
    assert state.notes == before.notes
    assert any("exit status -9" in note for note in state.notes)


@pytest.mark.parametrize(
    ("wanted", "options"),
    [
        pytest.param(SMALL, {"seed": 1}, id="seed"),
        pytest.param(needed(("seed",), METRICS, STYLES), {}, id="workload"),
        pytest.param(SMALL, {"rounds": 3}, id="rounds"),
    ],
)
def test_a_journal_of_another_plan(
    wanted: Needed, options: dict[str, int], lab: Lab, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    run(Journal.create(path, {}))
    before = path.read_bytes()
    with pytest.raises(BakeoffError, match=r"does not fit this run: it holds .* to be done"):
        run(Journal.open(path), wanted, **options)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ('"do":"block"', '"do":"flock"'),
        ('"took":', '"tock":'),
        ('"haiku/pure","step"', '"nobody/pure","step"'),
    ],
)
def test_a_damaged_record_is_named(text: str, other: str, lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    run(Journal.create(path, {}))
    path.write_text(path.read_text().replace(text, other))
    with pytest.raises(BakeoffError, match=r"record \d+ of the journal .* is damaged: delete"):
        run(Journal.open(path))


@pytest.mark.parametrize("written", [1, 20])
def test_a_full_disk_ends_a_run_that_goes_on_later(
    written: int, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, left = Journal.create(tmp_path / "journal", {}), written

    def full(_: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match="the disk is full"):
            run(journal)
    assert not lab.living
    assert is_whole(run(Journal.open(tmp_path / "journal")))


@pytest.mark.parametrize("donate", [False, True])
def test_workers_are_told_names_seeds_and_a_cache(donate: bool, lab: Lab) -> None:
    groups = [(side(SMALL),), (side(SMALL, "heavy/one"),)]
    driver = FakeDriver(plan_of([*groups], donate=donate, **FIXED))
    driver.run()
    assert not driver.cache.exists()
    told: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for command in lab.commands:
        told[command["do"]].append(command)
    loads = told["load"]
    assert len({command["seed"] for command in loads}) == len(loads)
    assert len({command["cache"] for command in loads}) == 2, "one for each environment"
    assert {*map(tuple, (sorted(c["arms"]) for c in loads))} >= {
        ("control/pure", "haiku/pure", "pure_jax/pure")
    }
    assert all("cache" not in command for command in told["cold"])
    assert {command["entrant"] for command in told["cold"]} == {"pure_jax", "haiku"}
    assert {tuple(command["losses"] or ()) for command in told["open"]} <= {(), (1.0,) * 10}
    assert told["open"]
    assert all(command.get("donate", False) is donate for command in [*loads, *told["cold"]])


def test_a_wrong_answer_costs_a_worker_and_no_result(lab: Lab) -> None:
    spoilt: list[Action] = []

    def spoil(action: Action, record: Any) -> None:
        if action.do == "block" and not spoilt:
            spoilt.append(action)
            record["samples"] = [["nobody/pure", "step", 1.0, 8]]

    lab.spoils = spoil
    plan = run(None)
    [note] = plan.sides[0].notes
    assert "answered `block`: 'step' of 'nobody/pure' was not asked about" in note
    assert is_whole(plan)


def test_progress_is_told_before_each_action(lab: Lab) -> None:
    told: list[tuple[str, float]] = []
    plan = plan_of(SMALL, **FIXED)
    FakeDriver(plan, on_progress=lambda action, spent: told.append((action.do, spent.wall))).run()
    assert told[0] == ("start", 5.0)
    assert {do for do, _ in told} >= {"load", "prove", "open", "block", "cold", "train", "close"}
    assert [seconds for _, seconds in told] == sorted(seconds for _, seconds in told)


@pytest.mark.parametrize(
    ("budget", "spent", "do", "environment", "seconds"),
    [
        (60, 0, "block", "", 30),
        (600, 0, "block", "", 200),
        (3600, 0, "block", "", 300),
        (600, 550, "block", "", 56),  # what is left, and ten seconds
        (600, 599, "block", "", 20),
        (60, 0, "load", "heavy", HEAVY_SILENCE),
        (60, 0, "block", "heavy", 30),
        (600, 0, "prove", "", 10),  # the usual time of its kind is known: a quarter of a second
    ],
)
def test_a_worker_is_given_up_the_sooner_the_less_time_is_left(
    budget: float, spent: float, do: Any, environment: str, seconds: float
) -> None:
    plan = plan_of(SMALL, budget)
    driver = Driver(plan, heavy={"heavy"}, clock=lambda: spent)
    driver.zero = 0.0
    driver.longest["prove", "", "", ""] = 0.25
    patience = driver.patience(Action(do, 1, environment))
    assert patience == pytest.approx(seconds, abs=0.1)


ROW = ["a/b", "step", 1.0, 8, 1.1, 1.2]
OTHER = ["c/d", *ROW[1:]]


@pytest.mark.parametrize(
    ("do", "record", "wrong"),
    [
        ("start", {}, None),
        ("load", {"failures": {"a/b": "no"}}, None),
        ("load", {}, "missing required field `failures`"),
        ("load", {"failures": ["no"]}, "Expected `object`"),
        ("count", {"samples": [["a/b", "python_calls", 3.0]]}, None),
        ("count", {"samples": [["a/b", "python_calls", None]]}, "Expected `float`"),
        ("prove", {"proof": {}, "samples": [["a/b", "flops", 1.0]], "losses": [1.0]}, None),
        ("prove", {"failure": "not equal"}, None),
        ("open", {"failure": 3}, "Expected `str`"),
        ("block", {"failure": "not allowed"}, "missing required field `samples`"),
        ("block", {"samples": [ROW, OTHER]}, None),
        ("block", {"samples": [ROW]}, "'c/d' was left out"),
        ("block", {"samples": [ROW], "failures": {"c/d": "no"}}, None),
        ("block", {"samples": [ROW, [*OTHER[:3], 4]]}, "other numbers of calls in 2 rounds"),
        ("block", {"samples": [[*ROW[:3], 7], [*OTHER[:3], 7]]}, "other numbers of calls"),
        ("block", {"samples": [[*ROW[:2], 0.0, 8], OTHER]}, "'step' of 'a/b' is 0.0"),
        ("block", {"samples": [[*ROW[:2], "x", 8], OTHER]}, "Expected `float`"),
        ("block", {"samples": [ROW, OTHER, ["e/f", *ROW[1:]]]}, "'e/f' was not asked"),
        ("block", {"samples": [ROW, ["c/d", "host_cost", 1.0, 8]]}, "not measured in a turn of"),
        ("block", {"samples": [ROW, ["c/d", "tsep", 1.0, 8]]}, "'tsep' of 'c/d' was not asked"),
        ("cold", {"samples": [["a/b", "import", 1.0]]}, None),
        ("cold", {"samples": [["a/b", "import", -1.0]]}, "'import' of 'a/b' is -1.0"),
        ("cold", {"samples": [["a/b", "step", 1.0]]}, "'step' is not measured in a cold process"),
        ("train", {"samples": [["a/b", "final_loss", 2.0]]}, None),
    ],
)
def test_an_answer_has_to_be_one_to_its_question(
    do: Any, record: Mapping[str, Any], wrong: str | None
) -> None:
    action = Action(do, 1, arms=("a/b", "c/d"), kind="step" if do == "block" else "", rounds=2)
    if wrong is None:
        typed(action, record, ["a/b", "c/d"])
        return
    with pytest.raises(AnswerError, match=wrong):
        typed(action, record, ["a/b", "c/d"])


def test_the_cache_of_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs that were killed a day ago have left is deleted; no place for it is one line."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = {name: tmp_path / f"{COMPILED}{name}" for name in ("old", "young")}
    for folder in left.values():
        folder.mkdir()
    os.utime(left["old"], (0, 0))
    assert new_cache().is_dir()
    assert [name for name, folder in left.items() if not folder.exists()] == ["old"]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nosuch"))
    with pytest.raises(BakeoffError, match="No such file or directory; make room there, or set"):
        new_cache()
