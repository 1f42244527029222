"""The driver with made-up workers: journals, resuming, deaths, wrong answers and a full disk."""

import dataclasses
import errno
import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from bench.cells import Cell
from bench.engine.actions import Action
from bench.engine.driver import GRACE_SECONDS, Driver, make_duration_key
from bench.engine.journal import DiskError, Journal, Part
from bench.engine.plan import Plan
from bench.engine.process import WorkerFailedError
from bench.runfile import unpack_samples
from bench.samples import Sample
from bench.worker.protocol import Command, Load, MeasureCold, Open, Prove
from tests.commands import refusal
from tests.engine.plans import plan_of
from tests.engine.simulated import Machine, Needed, needed, side

METRICS = ("step", "host_cost", "trace", "import", "final_loss")
STYLES = {"pure_jax": ["pure"], "haiku": ["pure"]}
SMALL = needed(("toy",), METRICS, STYLES)
FIXED: dict[str, Any] = {"processes": 2, "blocks": 2, "rounds": 2, "cold_samples": 2}
FEWEST = {"step": 4, "host_cost": 4, "trace": 4, "import": 2, "final_loss": 1}
"""Samples that these counts give each cell."""
TASK: Any = Mock(sides={"": Mock(offer=Mock(versions={}))}, outside={})


class FakeWorker:
    """A worker of a lab, in the place of a process."""

    def __init__(self, lab: "Lab") -> None:
        self.lab, self.number = lab, next(lab.numbers)
        lab.living.add(self.number)
        self.start = self.kill = lambda *_: None
        self.read_own_seconds = lambda: 0.0

    def ask(self, command: Command, *_: object) -> Any:
        action = Action(self.number, command=command)
        with self.lab.lock:
            self.lab.commands.append(command)
            return self.lab.answer(action)

    def make_failure(self, reason: str) -> WorkerFailedError:
        return WorkerFailedError(f"worker failed ({reason})", "", None)

    def close(self) -> None:
        self.lab.living.discard(self.number)


class Lab:
    """The made-up workers, and what they were asked."""

    def __init__(self) -> None:
        self.lock, self.machine, self.numbers = threading.Lock(), Machine(), itertools.count(1)
        self.asked: list[Action] = []
        self.commands: list[Command] = []
        self.living: set[int] = set()
        self.fails: Callable[[Action], None] = lambda _: None
        """Raises what an action is to end with."""
        self.spoils: Callable[[Action, Any], None] = lambda _action, _out: None
        """Changes a worker's answer."""

    def make_worker(self, *_: object) -> FakeWorker:
        return FakeWorker(self)

    def answer(self, action: Action) -> Any:
        """Return a worker's answer, as JSON has it."""
        self.asked.append(action)
        self.fails(action)
        [answer] = self.machine.answers(action)
        record = json.loads(json.dumps(dataclasses.asdict(answer)))
        for row in record.get("samples", []):  # no two samples are the same
            row[2] += len(self.asked) * 1e-9
        self.spoils(action, record)
        return record


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab()
    monkeypatch.setattr("bench.engine.driver.Worker", made.make_worker)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return made


def begun(path: Path) -> Journal:
    return Journal.create(path, Part(setup={"code": "c0de"}))


def run(journal: Journal, wanted: Needed = SMALL, **options: Any) -> Plan:
    plan = plan_of(wanted, **(FIXED | options), before=0.0)
    journal.continue_run(plan.state)
    Driver(plan, journal, TASK).run()
    return plan


def values(samples: Iterable[Sample]) -> list[float]:
    return sorted(sample.value for sample in samples)


def counts(plan: Plan) -> dict[tuple[Cell, str], int]:
    """Return the samples of each cell and metric that was asked for."""
    rows = [(sample.cell, sample.metric) for sample in plan.state.samples]
    return {(cell, m): rows.count((cell, m)) for cell, metrics in SMALL.items() for m in metrics}


def is_whole(plan: Plan) -> bool:
    """Tell whether each cell has what was asked for."""
    return all(count >= FEWEST[metric] for (_, metric), count in counts(plan).items())


def test_cut_anywhere_it_goes_on_and_nothing_is_lost(lab: Lab, tmp_path: Path) -> None:
    deaths = [WorkerFailedError("worker failed (exit status -9)", "last words", 0)]

    def fails(action: Action) -> None:
        if action.do == "prove" and action.arms == ["haiku/pure"] and deaths:
            raise deaths.pop()

    lab.fails = fails
    whole = run(begun(tmp_path / "whole"))
    assert is_whole(whole)
    assert any("exit status -9" in note for note in whole.state.sides[0].notes)
    assert not lab.living
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    for number in range(0, len(lines), 3):
        path = tmp_path / f"{number}"
        some = 25 if number % 2 else -1  # half of a line, or all of it but its end
        cut = [*lines[: number + 1], *(line[:some] for line in lines[number + 1 :][:1])]
        path.write_bytes(b"".join(cut))
        known = Journal.open(path).known
        begins = len(lab.asked)
        resumed = run(Journal.open(path))
        assert is_whole(resumed), number
        assert resumed.state.spent.wall_seconds >= known.spent.wall_seconds, "the clock goes on"
        assert {*values(unpack_samples(known.samples))} <= {*values(resumed.state.samples)}
        assert {*known.warnings} <= {*resumed.state.sides[0].notes}
        notes = Journal.open(path).known.warnings
        assert len({*notes}) == len(notes), "they are not written again"
        for (_, metric), count in counts(resumed).items():
            assert count <= FEWEST[metric] + 2, "what was cut off is done again, in each lane"
        done = {("prove", str(row.cell.arm)) for row in known.cells if row.proof}
        trained = (s.cell for s in unpack_samples(known.samples) if s.metric == "final_loss")
        done |= {("train", str(cell.arm)) for cell in trained}
        assert not done & {(a.do, a.arms[0]) for a in lab.asked[begins:] if a.arms}

        # The journal holds all of it, and nothing is measured anew.
        asked = len(lab.asked)
        assert values(run(Journal.open(path)).state.samples) == values(resumed.state.samples)
        assert len(lab.asked) == asked


def test_ctrl_c_leaves_no_worker_and_goes_on_later(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    begun(path)
    for stop in (15, 30, 45):

        def fails(_: Action, stop: int = stop) -> None:
            if len(lab.asked) == stop:
                raise KeyboardInterrupt

        lab.fails = fails
        with pytest.raises(KeyboardInterrupt):
            run(Journal.open(path))
        assert not lab.living, "a worker is left behind"
    assert is_whole(run(Journal.open(path)))


def swap(text: bytes, other: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(text, other)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"", "is no journal of a run: its first line does not say so"),
        (lambda _: b"{}\n", "is no journal of a run"),
        (lambda _: b'{"version":3}\n', "^line 1 of the journal"),
        (lambda data: data + b"\0" * 40 + b"\n", r"^line \d+ of the journal"),
        (swap(b'"rows":', b'rows":'), r"^line \d+ of the journal .* is damaged"),
        (swap(b'"rows":', b'"lines":'), r"^line \d+ of the journal .* or of another version"),
        (swap(b'"metric":"step"', b'"metric":"leap"'), "damaged: it has a metric leap, which this"),
        (
            swap(b'"haiku","pure"', b'"nobody","pure"'),
            "damaged: .* of 'nobody-pure-toy-cpu' was",
        ),
    ],
)
def test_a_damaged_journal_is_left_alone(
    damage: Callable[[bytes], bytes], message: str, lab: Lab, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    run(begun(path))
    path.write_bytes(before := damage(path.read_bytes()))
    refused = refusal(lambda: run(Journal.open(path)))
    assert re.search(message, refused)
    assert str(path) in refused
    assert path.read_bytes() == before


@pytest.mark.parametrize("written", [1, 20])
def test_a_full_disk_ends_a_run_that_goes_on_later(
    written: int, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, left = tmp_path / "journal", written
    journal = begun(path)

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.truncate(path, os.fstat(descriptor).st_size - 1)  # the last bytes are lost
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match=rf"^the disk is full: {path} cannot .*; make room$"):
            run(journal)
    assert not lab.living
    assert is_whole(run(Journal.open(path)))


@pytest.mark.parametrize("donate", [False, True])
def test_workers_are_told_names_seeds_and_a_cache(donate: bool, lab: Lab, tmp_path: Path) -> None:
    """Sides that compile with the same share what is compiled."""
    jax = {"jax": "0.12", "jaxlib": "0.12"}
    releases = {"": jax, "flax": jax | {"flax": "1"}, "older": jax | {"jaxlib": "0.11"}}
    groups: Any = [(side(SMALL, name),) for name in releases]
    plan = plan_of(groups, donate=donate, **FIXED)
    sides = {name: Mock(offer=Mock(versions=versions)) for name, versions in releases.items()}
    driver = Driver(plan, begun(tmp_path / "journal"), Mock(sides=sides, outside={}))
    driver.run()
    assert not driver.cache.exists()
    loads = [command for command in lab.commands if isinstance(command, Load)]
    colds = [command for command in lab.commands if isinstance(command, MeasureCold)]
    opens = [command for command in lab.commands if isinstance(command, Open)]
    assert len({command.seed for command in loads}) == len(loads)
    assert len({command.cache for command in loads}) == 2
    assert {command.arm for command in colds} == {"pure_jax/pure", "control/pure", "haiku/pure"}
    assert (1.0,) * 10 in {tuple(command.losses) for command in opens}
    assert {command.donate for command in loads} == {donate}
    assert {command.donate for command in colds} == {donate}


def test_a_wrong_answer_costs_a_worker_and_no_result(lab: Lab, tmp_path: Path) -> None:
    spoilt: list[Action] = []

    def spoil(action: Action, record: Any) -> None:
        if action.do == "block" and not spoilt:
            spoilt.append(action)
            record["samples"] = [[["nobody", "pure", "toy", "cpu"], "step", 1.0, 8]]

    lab.spoils = spoil
    plan = run(begun(tmp_path / "journal"))
    [note] = plan.state.sides[0].notes
    assert "answered `block`: 'step' of nobody-pure-toy-cpu was not asked about" in note
    assert is_whole(plan)


@pytest.mark.parametrize(("options", "left"), [({}, 20.0), (FIXED, 60.0)])
def test_a_worker_that_computes_is_ended_with_the_budget(
    options: Any, left: float, lab: Lab, tmp_path: Path
) -> None:
    """And as long after that as the longest action of its kind took before; with a given number of
    blocks, each has the whole budget."""
    driver = Driver(plan_of(SMALL, 60.0, **options), begun(tmp_path / "journal"), TASK)
    action = Action(1, command=Prove("toy", "cpu", "haiku/pure"))
    driver.zero = time.monotonic() - driver.plan.options.budget + 20
    about = partial(pytest.approx, abs=10)
    assert driver.choose_limit(action) == about(left + GRACE_SECONDS)
    driver.longest[make_duration_key(action)] = 50.0
    assert driver.choose_limit(action) == about(left + 50 + GRACE_SECONDS)
    driver.zero -= 1e6
    assert driver.choose_limit(action) == about((left if options else 0) + 50 + GRACE_SECONDS)


@pytest.mark.parametrize(("is_hung", "after"), [(True, 1e6), (True, 0.0), (False, 1e6)])
def test_a_worker_is_late_if_it_was_silent_until_the_budget_had_ended(
    is_hung: bool, after: float, lab: Lab, tmp_path: Path
) -> None:
    def fails(_: Action) -> None:
        raise WorkerFailedError("worker failed (it waits)", "", None, is_hung=is_hung)

    lab.fails = fails
    driver = Driver(plan_of(SMALL, 60.0), begun(tmp_path / "journal"), TASK)
    driver.cache, driver.processes_before = tmp_path, set()
    driver.zero = time.monotonic() - after
    driver.workers[1] = FakeWorker(lab)  # type: ignore[assignment]
    death = driver.perform(Action(1, command=Prove("toy", "cpu", "haiku/pure"))).death
    assert death is not None
    assert death.is_late == (is_hung and after > 0)
