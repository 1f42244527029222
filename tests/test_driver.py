"""The driver with workers that are made up: journals, resuming, deaths and wrong answers."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import threading
from collections import defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from bench.cells import Cell
from bench.engine.actions import Action, Options
from bench.engine.answers import AnswerError, typed
from bench.engine.driver import COMPILED, Driver, new_cache
from bench.engine.journal import DiskError, Journal
from bench.engine.machine import Others, require_memory
from bench.engine.process import WorkerFailedError
from bench.engine.run_plan import RunPlan
from common.errors import BakeoffError
from tests.simulated import LANES, Machine, needed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.samples import State
    from tests.simulated import Needed

METRICS = ("step", "host_cost", "sample", "import", "final_loss")
STYLES = {"pure_jax": ["pure"], "haiku": ["pure"]}
SMALL = needed(("toy",), METRICS, STYLES, styles=STYLES)
FIXED = Options(300, processes=2, blocks=2, rounds=2, cold_samples=2)


class Lab:
    """Where workers are made up; what they are asked is counted."""

    machine: Machine

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: list[Action] = []
        self.commands: list[dict[str, Any]] = []
        self.living: set[int] = set()
        self.fails: Callable[[Action], None] = lambda _: None
        """Raises what an action is to end with."""
        self.spoils: Callable[[Action, Any], None] = lambda _action, _out: None
        """Changes what a worker answers."""

    def answer(self, action: Action) -> Any:
        """Return what a worker says."""
        self.asked.append(action)
        self.fails(action)
        answer = self.machine.answer(action)
        if answer is None:
            return None
        out = json.loads(json.dumps(dataclasses.asdict(answer)))
        for by_arm in out.get("seconds", {}).values():  # no two samples are the same
            for values in by_arm.values():
                values[0] += len(self.asked) * 1e-9
        self.spoils(action, out)
        return out


class FakeDriver(Driver):
    """A driver whose workers are those of a lab."""

    lab: Lab

    def run(self) -> None:
        """Begin with no worker: those of an earlier run are gone."""
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


def run(journal: Journal | None, wanted: Needed = SMALL, options: Options = FIXED) -> State:
    plan = RunPlan(wanted, options, lanes=LANES)
    FakeDriver(plan, journal).run()
    return plan.state


def samples(state: State) -> dict[tuple[str, str, int, int], list[float]]:
    return {
        (str(cell), metric, each.process, each.number): each.values
        for cell, found in state.cells.items()
        for metric, several in found.blocks.items()
        for each in several
    }


def whole(state: State) -> bool:
    """Tell whether each cell has what was asked for."""
    fewest = dict.fromkeys(("step", "host_cost", "sample"), 4) | {"import": 2}
    return all(
        found.training is not None
        if metric == "final_loss"
        else len(found.blocks.get(metric, [])) >= fewest[metric]
        for cell, metrics in SMALL.items()
        for found in [state.cells[cell]]
        for metric in metrics
    )


def test_cut_anywhere_it_goes_on_and_nothing_is_lost(lab: Lab, tmp_path: Path) -> None:
    assert whole(run(Journal.create(tmp_path / "whole", {})))
    assert not lab.living
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    for records in range(0, len(lines), 3):
        path = tmp_path / f"{records}"
        half = lines[records + 1][:25] if records + 1 < len(lines) else b""
        path.write_bytes(b"".join(lines[: records + 1]) + half)
        known = journalled(Journal.open(path).records)
        resumed = run(Journal.open(path))
        assert whole(resumed), records
        kept = list(samples(resumed).values())
        assert all(values in kept for values in known)

        # The new journal holds all of it again, and nothing is measured anew.
        asked = len(lab.commands)
        assert samples(run(Journal.open(path))) == samples(resumed)
        assert len(lab.commands) == asked


def journalled(records: list[dict[str, Any]]) -> list[list[float]]:
    """Return the samples of all blocks in a journal."""
    return [
        values
        for record in records
        if record["action"]["do"] == "block" and "death" not in record["outcome"]
        for by_arm in record["outcome"]["answer"]["seconds"].values()
        for values in by_arm.values()
    ]


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
    assert whole(resumed)


def test_deaths_are_journalled(lab: Lab, tmp_path: Path) -> None:
    def fails(action: Action) -> None:
        if action.do == "prove" and action.arms == ("haiku/pure",):
            raise WorkerFailedError("worker failed (exit status -9)", "last words", 0)

    lab.fails = fails
    path = tmp_path / "journal"
    state = run(Journal.create(path, {}))
    lab.fails = lambda _: pytest.fail("it is in the journal")
    again = run(Journal.open(path))
    assert samples(again) == samples(state)
    assert again.notes == state.notes
    assert any("exit status -9" in note for note in state.notes)


@pytest.mark.parametrize(
    ("wanted", "options"),
    [
        (SMALL, dataclasses.replace(FIXED, seed=1)),
        (needed(("seed",), METRICS, STYLES, styles=STYLES), FIXED),
        (SMALL, dataclasses.replace(FIXED, rounds=3)),
    ],
    ids=["seed", "workload", "rounds"],
)
def test_a_journal_of_another_run(
    wanted: Needed, options: Options, lab: Lab, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    run(Journal.create(path, {}))
    before = path.read_bytes()
    with pytest.raises(BakeoffError, match=r"does not fit this run: it holds .* to be done"):
        run(Journal.open(path), wanted, options)
    assert path.read_bytes() == before


def test_a_damaged_record_is_named(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    run(Journal.create(path, {}))
    path.write_text(path.read_text().replace('"do":"block"', '"do":"flock"'))
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
    assert whole(run(Journal.open(tmp_path / "journal")))


def test_workers_are_told_names_seeds_and_a_cache(lab: Lab) -> None:
    driver = FakeDriver(RunPlan(SMALL, FIXED, lanes=LANES))
    driver.run()
    assert not driver.cache.exists()
    told: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for command in lab.commands:
        told[command["do"]].append(command)
    loads = told["load"]
    assert len({command["seed"] for command in loads}) == len(loads)
    assert len({command["cache"] for command in loads}) == 1
    names = ["control", "haiku", "pure_jax"]
    assert sorted(map(tuple, loads[0]["arms"])) == [(name, "pure") for name in names]
    assert all("cache" not in command for command in told["cold"])
    assert {tuple(command["losses"] or ()) for command in told["open"]} <= {(), (1.0,) * 10}
    assert told["open"]


def test_a_wrong_answer_costs_a_worker_and_no_result(lab: Lab) -> None:
    spoilt: list[Action] = []

    def spoil(action: Action, out: Any) -> None:
        if action.do == "block" and not spoilt:
            spoilt.append(action)
            out["seconds"] = {"step": {"nobody/pure": [1.0, 1.0]}}

    lab.spoils = spoil
    state = run(None)
    [note] = state.notes
    assert "answered `block`: " in note
    assert whole(state)


def test_progress_is_told_before_each_action(lab: Lab) -> None:
    told: list[tuple[str, float]] = []
    plan = RunPlan(SMALL, FIXED, lanes=LANES)
    FakeDriver(plan, told=lambda action, spent: told.append((action.do, spent.wall))).run()
    assert told[0][0] == "start"
    assert {do for do, _ in told} >= {"load", "prove", "open", "block", "cold", "train", "close"}
    assert [seconds for _, seconds in told] == sorted(seconds for _, seconds in told)


TIMED = {"a/b": [1.0, 2.0], "c/d": [1.0, 2.0]}
COLD = {"values": {"import": 1.0}, "timed_seconds": 1.0, "trace_and_lower_split_by": "clock"}


@pytest.mark.parametrize(
    ("do", "found", "wrong"),
    [
        ("start", {}, None),
        ("load", {"failures": {"a/b": "no"}}, None),
        ("load", {}, "missing required field `failures`"),
        ("load", {"failures": ["no"]}, "Expected `object`"),
        ("count", {"exact": {"python_calls": None}}, None),
        ("prove", {"proof": {}, "exact": {"flops": 1.0}, "losses": [1.0]}, None),
        ("prove", {"failure": "not equal"}, None),
        ("open", {"failure": 3}, "Expected `str`"),
        ("block", {"failure": "not allowed"}, "missing required field `seconds`"),
        ("block", {"seconds": {"step": TIMED}}, None),
        ("block", {"seconds": {"step": {"a/b": [1.0, 2.0]}}}, "'c/d' was left out"),
        ("block", {"seconds": {"step": {"a/b": [1.0, 2.0]}}, "failures": {"c/d": "no"}}, None),
        ("block", {"seconds": {"step": TIMED | {"c/d": [1.0]}}}, r"have \[1, 2\] samples in 2"),
        ("block", {"seconds": {"step": {"a/b": [], "c/d": []}}}, r"have \[0\] samples"),
        ("block", {"seconds": {"step": TIMED | {"c/d": [1.0, 0.0]}}}, "is not positive"),
        ("block", {"seconds": {"step": TIMED | {"c/d": [1.0, "x"]}}}, "Expected `float`"),
        ("block", {"seconds": {"step": TIMED | {"e/f": [1.0, 2.0]}}}, "'e/f' was not asked"),
        ("block", {"seconds": {"sample": TIMED}}, "'sample' is not measured"),
        ("cold", COLD, None),
        ("cold", COLD | {"values": {"import": -1.0}}, "'import' is -1.0"),
        ("cold", COLD | {"values": {"step": 1.0}}, "'step' is 1.0"),
        ("train", {"training": {"seconds": [1.0]}}, None),
    ],
)
def test_an_answer_has_to_be_one_to_its_question(
    do: Any, found: Mapping[str, Any], wrong: str | None
) -> None:
    action = Action(do, 1, arms=("a/b", "c/d"), kind="step" if do == "block" else "", rounds=2)
    if wrong is None:
        typed(action, found, ["a/b", "c/d"])
        return
    with pytest.raises(AnswerError, match=wrong):
        typed(action, found, ["a/b", "c/d"])


def test_the_process_that_uses_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [{1: ("cc", 5.0), 2: ("idle", 1.0)}, {1: ("cc", 95.0), 2: ("idle", 1.1), 3: ("x", 2.0)}]
    monkeypatch.setattr("bench.engine.machine.processor_seconds", lambda: seen.pop(0))
    others = Others()
    others.start -= 100
    others.machine = (others.machine[0] - 10, others.machine[1] - 50)
    others.own -= 20  # of these, our workers used so many
    cores = os.cpu_count() or 1
    stolen, used, busiest = others.seen()
    assert busiest is not None
    assert (busiest.name, round(busiest.cores, 1)) == ("cc", 0.9)
    assert stolen == pytest.approx(0.1 / cores, rel=0.1)
    assert used == pytest.approx(0.3 / cores, rel=0.1)


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


def test_arms_that_memory_cannot_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [Cell("pure_jax", style, "widex128", "cpu") for style in ("pure", "tuned")]
    require_memory(cells[:1])
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=3e9))
    with pytest.raises(BakeoffError, match=r"2 styles at widex128 need about 3 GB .* 3.0 GB are"):
        require_memory(cells)
    require_memory([dataclasses.replace(cell, workload="wide") for cell in cells])
