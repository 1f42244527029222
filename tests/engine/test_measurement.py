"""From a task to its results, and what of a journal has to fit to go on with it."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from msgspec import structs

from bench.cells import BASELINE, Cell
from bench.cli.parameters import Measuring
from bench.engine import measurement
from bench.engine.driver import Driver
from bench.engine.journal import DiskError, Journal, Part, find_journals
from bench.engine.measurement import Measurement, measure
from bench.engine.process import Interpreter
from bench.engine.task import Environment, Task, make_groups
from bench.offer import Offer
from bench.options import Options
from bench.runfile import CellResult, EnvironmentInfo, TimeSpent
from bench.runfile.writer import run_file, write
from common.errors import BakeoffError
from tests.engine.plans import plan_of
from tests.engine.simulated import FEW, Machine, needed

OFFER = Offer(
    styles={"pure_jax": ["pure"], "haiku": ["pure"]},
    problems={},
    backends=["cpu"],
    versions={"jax": "0.1"},
    devices={"cpu": "cpu"},
)
OPTIONS = Options(60.0, processes=1, blocks=2, rounds=2, cold_samples=1)
HAIKU, PLAIN = Cell("haiku", "pure", "toy", "cpu"), BASELINE.make_cell("toy", "cpu")
ONCE = ("flops", "compilations_first")
"""Metrics of proofs and of counts."""
NEEDED = {HAIKU: frozenset({"step", "first_step"})}


def values(measured: Measurement) -> list[float]:
    return sorted(sample.value for sample in measured.samples)


def side_of(spec: str = "current", offer: Offer = OFFER) -> Environment:
    info = EnvironmentInfo(spec=spec, versions={"jax": spec})
    return Environment(Interpreter(), info, offer=offer)


def task_of(kind: Any = "ab", **more: Any) -> Task:
    """Return a task: of two environments that are the same one, unless told otherwise."""
    names = ("base", "new") if kind == "ab" else ("",)
    usual: dict[str, Any] = {
        "arguments": (kind, "--new", "a b"),
        "needed": dict.fromkeys(names, NEEDED),
        "sides": {name: side_of(name) for name in names},
        "options": OPTIONS,
        "groups": (names,),
        "base": "base" if kind == "ab" else "",
        "all_together": kind == "ab",
    }
    return Task(kind=kind, **(usual | more))


@pytest.fixture
def drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what sets what is done instead of measuring, given the plan; in an empty folder."""

    def set_to(drive: Callable[..., Any]) -> None:
        def run(driver: Driver) -> None:
            drive(driver.plan)
            driver.journal.write_news(driver.plan.state)

        monkeypatch.setattr(Driver, "run", run)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measurement, "machine_lock", MagicMock())  # nothing is measured
    set_to(lambda plan: Machine().drive(plan))
    return set_to


def test_a_journal_of_another_task_is_left_alone(
    drives: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = task_of("run")
    begun = measure(base)
    path, before = begun.journal.path, begun.journal.path.read_bytes()
    mine = tmp_path / "mine.py"
    mine.write_text("STYLES = {}")
    others = {
        "other entrants or files of your own": replace(base, outside={"mine": str(mine)}),
        "other releases, devices or settings": replace(
            base, sides={"": side_of(offer=replace(OFFER, versions={"jax": "0.2"}))}
        ),
        "other cells or metrics": replace(base, needed={"": {**NEEDED, PLAIN: NEEDED[HAIKU]}}),
    }
    for words, other in others.items():
        for resume in (str(path), ""):
            message = (
                rf"{path} is of another measurement \({words}\): go on with it by its own command, "
                rf"`pytest run --new 'a b' --resume={path}`, or"
            )
            with pytest.raises(BakeoffError, match=message):
                measure(other, resume=resume)
    imports = replace(base, sides={"": side_of("", replace(OFFER, modules={"helper": "1a2b"}))})
    with pytest.raises(BakeoffError, match=r"\(other entrants or files of your own\)"):
        measure(imports, resume=str(path))
    for name, changed, words in (
        ("digest_code", "of other code", "other code of entrants or of the engine"),
        ("list_lanes", [(7,)], "other cores"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(measurement, name, Mock(return_value=changed))
            with pytest.raises(BakeoffError, match=words):
                measure(base, resume=str(path))
    assert path.read_bytes() == before
    again = measure(replace(base, arguments=(*base.arguments, "--resume")), resume="")
    assert again.results.spent.wall_seconds == begun.results.spent.wall_seconds > 0
    assert again.results.arguments == begun.results.arguments, "those that it began with"
    assert values(again) == values(begun)
    wider = replace(base, options=structs.replace(OPTIONS, margin=0.1))
    assert measure(wider, resume="").results.options.margin == 0.1, "it may be judged otherwise"


def test_what_there_is_to_resume(drives: Any) -> None:
    """The newest journal that fits."""
    with pytest.raises(BakeoffError, match="cannot read the journal none: No such file"):
        measure(task_of("run"), resume="none")
    first = measure(task_of("run"))
    measure(task_of("run", options=structs.replace(OPTIONS, rounds=3)))
    assert measure(task_of("run"), resume="").journal.path == first.journal.path


def test_two_environments_are_compared_in_what_was_named(drives: Any) -> None:
    """Counts are told all the same."""
    results = measure(task_of()).results
    assert (results.base, [*results.environments]) == ("base", ["base", "new"])
    steps = [row for row in results.estimates if row.metric == "step"]
    assert {(row.form, row.environment, row.against) for row in steps} == {
        *(("amount", "base", ""), ("amount", "new", ""), ("ratio", "new", "base"))
    }
    named = measure(task_of(metrics=("step",))).results
    assert named.metrics == ["step"]
    compared, all_of_them = (
        {row.metric for row in made.estimates if row.against} for made in (named, results)
    )
    assert compared == {"step"} < all_of_them
    assert "python_calls" in {row.metric for row in named.estimates}


def test_what_was_measured_before_counts_too(drives: Any, tmp_path: Path) -> None:
    first = measure(task_of())
    path = tmp_path / "ab.json"
    write(path, run_file(first.results))
    both = measure(task_of(), resume=str(path))
    assert both.journal.path != first.journal.path, "the file stays as it is"
    assert values(measure(task_of(), resume=str(both.journal.path))) == values(both)
    assert both.results.spent.wall_seconds > first.results.spent.wall_seconds
    sizes = [
        {
            (row.environment, row.cell, row.metric, row.form, part): getattr(row, part)
            for row in measured.results.estimates
            for part in ("workers", "blocks")
            if row.metric in ("step", "first_step")
        }
        for measured in (first, both)
    ]
    assert sizes[1] == {row: 2 * size for row, size in sizes[0].items()} != {}
    once = Counter((*s[:2], s.environment) for s in both.samples if s.metric in ONCE)
    assert {*once.values()} == {1}, "proofs and counts are known"
    other = replace(task_of(), sides={**task_of().sides, "new": side_of("another")})
    with pytest.raises(BakeoffError, match=r"of another measurement \(other releases, devices"):
        measure(other, resume=str(path))
    mine = tmp_path / "mine.py"
    mine.write_text("")
    with pytest.raises(BakeoffError, match=r"\(other entrants or files"):
        measure(replace(task_of(), outside={"mine": str(mine)}), resume=str(path))
    with pytest.raises(BakeoffError, match="of another command, or of an older version"):
        measure(task_of("run"), resume=str(path))


def test_after_ctrl_c_a_run_has_its_part_of_the_results_and_its_journal(drives: Any) -> None:
    drives(Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        measure(task_of("run"))
    measured = measure(task_of("run"), resume="", partial=True)
    assert measured.interrupted
    [row] = [row for row in measured.results.cells if row.cell == HAIKU]
    assert {*row.missing} == {"step", "first_step"}
    assert find_journals("run") == [measured.journal.path]
    assert (measured.journal.path.parent / ".gitignore").read_text() == "*\n"


def test_a_full_disk_says_how_to_go_on_where_a_journal_stays(drives: Any) -> None:
    drives(Mock(side_effect=DiskError("the disk is full")))
    with pytest.raises(DiskError, match=r"^the disk is full; .* the same command and --resume$"):
        Measuring().measure(task_of("ab"))


def test_a_failed_cell_has_no_samples_and_no_estimates(drives: Any) -> None:
    def fails_late(plan: Any) -> None:
        Machine().drive(plan)
        plan.state.sides[0].fail(HAIKU, "not equal: git+https://a:b@h/x", "last ://a:b@h")

    drives(fails_late)
    measured = measure(task_of("run"))
    [row] = [row for row in measured.results.cells if row.cell == HAIKU]
    assert (row.failure, row.stderr) == ("not equal: git+https://***@h/x", "last ://***@h")
    assert {s.cell.entrant for s in measured.samples} == {"pure_jax", "control"}
    assert HAIKU not in {row.cell for row in measured.results.estimates}


def test_what_takes_turns() -> None:
    names = ["a", "b", "reference"]
    wanted = needed(("seed",), ("step",), FEW | {"equinox": ["pure"]})
    task = task_of(
        "run",
        needed=dict.fromkeys(names, wanted),
        sides={name: side_of() for name in names},
        groups=[("a", "reference"), ("b", "reference")],
    )
    first, second = make_groups(task)
    assert [side.environment for side in (*first, *second)] == ["a", "reference", "b", "reference"]
    assert {len(side.cells) for side in (*first, *second)} == {4}, "those asked for, no control"
    assert first[1] is second[1], "an environment in two groups has one state"
    alone = make_groups(replace(task, groups=()))
    assert [len(side.cells) for [side] in alone] == [5] * 3, "with a control each"


def test_environments_take_turns_on_the_backends_that_all_have() -> None:
    cpu, gpu = (needed(("seed",), ("step",), FEW, backend=backend) for backend in ("cpu", "gpu"))
    task = task_of(needed={"base": cpu | gpu, "new": cpu})
    [group] = make_groups(task)
    assert {cell.backend for side in group for cell in side.cells} == {"cpu"}
    both = task_of("run", needed={"": cpu | gpu})
    assert [side.backend for group in make_groups(both) for side in group] == ["cpu", "gpu"]


# The journal.


def test_a_later_line_of_a_cell_counts_and_half_a_line_does_not(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "deep" / "run.journal", Part(setup={"code": "c0de"}))
    for number, text in enumerate(("one", "two", "ä"), 1):
        row, spent = CellResult(cell=PLAIN, program=text), TimeSpent(wall_seconds=number)
        journal.write(Part(cells=[row], warnings=[text], spent=spent))
    journal.path.write_bytes(journal.path.read_bytes() + b"half a line")
    known = Journal.open(journal.path).known
    assert (known.setup, known.spent.wall_seconds) == ({"code": "c0de"}, 3.0)
    assert (known.warnings, [row.program for row in known.cells]) == (["one", "two", "ä"], ["ä"])
    assert journal.path.read_bytes().endswith(b"half a line"), "another run may be writing it"
    again, plan = Journal.open(journal.path), plan_of(needed())
    again.continue_run(plan.state)
    assert journal.path.read_bytes().endswith(b"}\n"), "half a line was never finished"


def test_the_newest_of_a_kind_comes_first(tmp_path: Path) -> None:
    for age, name in ((300, "b-run"), (100, "a-run"), (200, "c-run"), (50, "d-ab")):
        journal = tmp_path / f"{name}.journal"
        journal.write_text("{}")
        os.utime(journal, (1e9 - age, 1e9 - age))
    (tmp_path / "never-begun-run.journal").touch()
    assert [path.stem for path in find_journals("run", tmp_path)] == ["a-run", "c-run", "b-run"]
    assert find_journals("run", tmp_path / "nowhere") == []
