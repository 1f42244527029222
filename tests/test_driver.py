"""The driver with workers that are made up: journals, resuming, deaths and wrong answers."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import threading
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bench.engine.actions import Action, Options
from bench.engine.answers import AnswerError, typed
from bench.engine.driver import COMPILED, Driver, new_cache
from bench.engine.journal import DiskError, Journal
from bench.engine.machine import Others
from bench.engine.processes import WorkerFailedError
from bench.engine.run_plan import Run
from common.errors import BakeoffError
from tests.simulated import LANES, Machine, needed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.engine.state import State
    from tests.simulated import Needed

METRICS = ("step", "host_cost", "sample", "import", "final_loss")
STYLES = {"pure_jax": ["pure"], "haiku": ["pure"]}
SMALL = needed(("toy",), METRICS, STYLES, styles=STYLES)
FIXED = Options(300, processes=2, blocks=2, rounds=2, cold_samples=2)


class Lab:
    """Where workers are made up; commands are counted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.machine = Machine()
        self.commands: list[dict[str, Any]] = []
        self.living: list[FakeWorker] = []
        self.workers = 0
        self.fails: Callable[[dict[str, Any]], None] = lambda _: None
        """Raises what a command of a worker is to end with."""
        self.spoils: Callable[[dict[str, Any], Any], None] = lambda _command, _out: None
        """Changes what a worker answers to a command."""


class FakeWorker:
    """What the driver sees of a worker."""

    def __init__(self, lab: Lab, place: object, silence: float, cores: tuple[int, ...]) -> None:
        del place, silence
        self.lab, self.cores = lab, cores
        self.recorder = SimpleNamespace(who=lambda: None)
        with lab.lock:
            lab.workers += 1
            self.number = lab.workers
            lab.living.append(self)
            lab.machine.cores[self.number] = cores

    def start(self) -> None:
        """Begin."""

    def cpu_now(self) -> float:
        """Return no time at all."""
        return 0.0

    def ask(self, command: dict[str, Any], silence: float) -> Any:
        """Do something: the command becomes an action again."""
        del silence
        lab = self.lab
        with lab.lock:
            lab.commands.append(command)
            lab.fails(command)
            arms = [command["arm"]] if "arm" in command else command.get("arms", ())
            if command["do"] == "load":
                arms = ["/".join(arm) for arm in arms]
            if command["do"] == "cold":
                arms = [f"{command['entrant']}/{command['style']}"]
                lab.machine.cores.pop(self.number)
            extra = {name: command[name] for name in ("kind", "rounds") if name in command}
            workload = command.get("workload", "")
            action = Action(
                command["do"], self.number, workload=workload, arms=tuple(arms), **extra
            )
            out = json.loads(json.dumps(dataclasses.asdict(lab.machine.answer(action))))
            if command["do"] == "block":  # no two samples are the same
                for by_arm in out["seconds"].values():
                    for values in by_arm.values():
                        values[0] += len(lab.commands) * 1e-9
            lab.spoils(command, out)
            return out

    def kill(self) -> None:
        """Be ended by another thread, which closes it later."""

    def close(self) -> None:
        """End."""
        with self.lab.lock:
            if self in self.lab.living:
                self.lab.living.remove(self)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab()
    monkeypatch.setattr("bench.engine.driver.Worker", partial(FakeWorker, made))
    monkeypatch.setattr("bench.engine.driver.busy_seconds", lambda: (0.0, 0.0))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return made


def run(journal: Journal | None, wanted: Needed = SMALL, options: Options = FIXED) -> State:
    plan = Run(wanted, options, lanes=LANES)
    Driver(plan, journal).run()
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
    for cell, metrics in SMALL.items():
        found = state.cells[cell]
        have = {
            "step": len(found.blocks.get("step", [])) >= 4,
            "host_cost": len(found.blocks.get("host_cost", [])) >= 4,
            "sample": len(found.blocks.get("sample", [])) >= 4,
            "import": len(found.values("import")) >= 2,
            "final_loss": found.training is not None,
        }
        if not all(have[metric] for metric in metrics):
            return False
    return True


def test_cut_anywhere_it_goes_on_and_nothing_is_lost(lab: Lab, tmp_path: Path) -> None:
    assert whole(run(Journal.create(tmp_path / "whole", {})))
    assert lab.living == []
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
        stop, turns = len(lab.commands) + 25, turns + 1

        def fails(_: dict[str, Any], stop: int = stop) -> None:
            if len(lab.commands) == stop:
                raise KeyboardInterrupt

        lab.fails = fails
        try:
            resumed = run(Journal.open(path))
            break
        except KeyboardInterrupt:
            assert lab.living == [], "a worker is left behind"
            assert turns < 30
    assert turns > 2
    assert whole(resumed)


def test_deaths_are_journalled(lab: Lab, tmp_path: Path) -> None:
    def fails(command: dict[str, Any]) -> None:
        if command["do"] == "prove" and command["arm"] == "haiku/pure":
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
    path.write_text(path.read_text().replace('"do": "block"', '"do": "flock"'))
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
    assert lab.living == []
    assert whole(run(Journal.open(tmp_path / "journal")))


def test_workers_are_told_names_seeds_and_a_cache(lab: Lab) -> None:
    driver = Driver(Run(SMALL, FIXED, lanes=LANES))
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
    spoilt: list[dict[str, Any]] = []

    def spoil(command: dict[str, Any], out: Any) -> None:
        if command["do"] == "block" and not spoilt:
            spoilt.append(command)
            out["seconds"] = {"step": {"nobody/pure": [1.0, 1.0]}}

    lab.spoils = spoil
    state = run(None)
    assert len(spoilt) == 1
    [note] = state.notes
    assert "answered `block`: " in note
    assert whole(state)


def test_progress_is_told_before_each_action(lab: Lab) -> None:
    told: list[tuple[str, float]] = []
    plan = Run(SMALL, FIXED, lanes=LANES)
    Driver(plan, told=lambda action, spent: told.append((action.do, spent.wall))).run()
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
        ("block", {"seconds": {"step": TIMED | {"c/d": [1.0] * 4}}}, r"\[2, 4\] samples in 2"),
        ("block", {"seconds": {"step": {"a/b": [], "c/d": []}}}, r"have \[0\] samples"),
        ("block", {"seconds": {"step": TIMED | {"c/d": [1.0, 0.0]}}}, "is not positive"),
        ("block", {"seconds": {"step": TIMED | {"c/d": [1.0, "x"]}}}, "Expected `float`"),
        ("block", {"seconds": {"step": TIMED | {"e/f": [1.0, 2.0]}}}, "'e/f' was not asked"),
        ("block", {"seconds": {"sample": TIMED}}, "'sample' is not measured"),
        ("block", {"seconds": {"nosuch": TIMED}}, "'nosuch' is not measured"),
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
    busy = others.busiest()
    assert busy is not None
    assert (busy.name, round(busy.cores, 1)) == ("cc", 0.9)


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
