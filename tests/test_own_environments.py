"""Entrants with environments of their own: what they declare, how they are built and measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

import impls
from bench.cells import BASELINE, CONTROL, Cell, Offer
from bench.engine.actions import Death, Options
from bench.engine.driver import Driver
from bench.engine.environment_plan import NO_PROGRAM
from bench.engine.run_plan import Run
from bench.environments import own, store
from bench.environments.offers import lives_apart, merged, offers
from bench.environments.own import LOCKS, Homes, note_size, pins_of, relock, whole_of
from bench.environments.store import MARK, binary
from bench.environments.uv import NetworkError, UnsolvableError, minor
from bench.watch import unlike
from common.declaration import Declaration, declaration
from common.errors import BakeoffError
from tests.simulated import LANES, Machine, needed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.engine.actions import Action

TWIN = """
from common.steps import pure_style
from impls.pure_jax import build as build
import jmp

DISTRIBUTION = "jmp"
REQUIREMENTS = {requirements}
NOTE = "A note."
STYLES = {{"pure": pure_style(build)}}
"""


@pytest.fixture
def entrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return what makes an entrant that is a file of its own, and lets it take part."""
    monkeypatch.setattr(impls, "OUTSIDE", {})

    def make(text: str = "", **constants: object) -> str:
        path = tmp_path / "mine.py"
        text = text or TWIN.format(requirements=("jmp==0.0.4",))
        lines = [f"{name} = {value!r}\n" for name, value in constants.items()]
        path.write_text(text + "".join(lines))
        return impls.add(path)

    return make


@pytest.fixture
def homes(tmp_path: Path) -> Homes:
    return Homes(tmp_path / "environments")


# What is declared


def test_what_an_entrant_says_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        'raise SystemExit\nDISTRIBUTION = "a"\nREQUIREMENTS: tuple[str, ...] = ("a==1", "b")\n'
        'PYTHON = "3.12"\nJAX = False\nNOTE = "Old."\nother = REQUIREMENTS[0]\n'
    )
    assert declaration(path) == Declaration("a", ("a==1", "b"), "3.12", jax=False, note="Old.")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("REQUIREMENTS = 'a==1'", "REQUIREMENTS in line 1 has to be a tuple of strings, written"),
        ("REQUIREMENTS = ('a', 1)", "REQUIREMENTS in line 1 has to be a tuple of strings"),
        ("DISTRIBUTION = name()", "DISTRIBUTION in line 1 has to be a string"),
        ("JAX = 0", "JAX in line 1 has to be True or False"),
        ("def :", "entrant 'mine' has a syntax error in line 1: invalid syntax"),
        ("\0", "entrant 'mine' "),
        ("JAX = {[]: 1}", "JAX in line 1 has to be True or False"),
        ("x = " + "-" * 100_000 + "1", "entrant 'mine' "),
    ],
)
def test_what_cannot_be_read_is_said(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(line)
    with pytest.raises(BakeoffError) as error:
        declaration(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_those_of_everybodys_environment_are_the_usual_ones() -> None:
    assert impls.usual()[0] == impls.BASELINE
    for name in impls.names():
        about = impls.declared(name)
        assert (name in impls.here()) == (not about.requirements)
        assert (name in impls.usual()) == (about.jax and not about.requirements)


@pytest.mark.parametrize("name", [n for n in impls.names() if n not in impls.here()])
def test_own_requirements_are_pinned_and_locked(name: str) -> None:
    about = impls.declared(name)
    pins = {line.split(" ")[0] for line in pins_of(LOCKS / f"{name}.txt")}
    assert all("==" in text for text in about.requirements)
    assert set(whole_of(about)) <= pins, "bakeoff entrants --lock makes it anew"
    assert "installed: " in (LOCKS / f"{name}.txt").read_text()
    assert "://" not in (LOCKS / f"{name}.txt").read_text()


def test_a_file_that_cannot_be_read_is_a_problem_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broken.py"
    path.write_text("def (")
    monkeypatch.setattr(impls, "OUTSIDE", {"broken": path})
    assert "broken" in impls.usual()
    assert not lives_apart("broken")
    with pytest.raises(BakeoffError, match="entrant 'broken' has a syntax error in line 1"):
        impls.declared("broken")


def test_a_path_of_an_entrant_of_the_project_is_that_entrant() -> None:
    assert impls.add(impls.source("haiku")) == "haiku"
    assert "haiku" not in impls.OUTSIDE


# What is built


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({"REQUIREMENTS": ("a b",)}, "'a b' of its REQUIREMENTS is not one"),
        ({"REQUIREMENTS": ("a @ file:///a",)}, "is an address; only releases from the package"),
        ({"PYTHON": "2.7"}, "asks for Python 2.7; this project runs on 3.12, 3.13, 3.14"),
    ],
)
def test_what_cannot_be_asked_for(
    constants: dict[str, Any], said: str, entrant: Callable[..., str], homes: Homes
) -> None:
    with pytest.raises(BakeoffError, match="entrant 'mine'") as error:
        homes.built(entrant(**constants))
    assert said in str(error.value)


def test_everything_but_the_library_is_what_everybody_has(entrant: Callable[..., str]) -> None:
    pins = dict(pin.split("==") for pin in whole_of(impls.declared(entrant())))
    assert pins["jmp"] == "0.0.4"
    locked = own.MAIN_LOCK.read_text()
    for name in ("jax", "jaxlib", "optax", "numpy"):
        assert f"\n{name}=={pins[name]} " in locked
    older = Declaration(requirements=("numpy<2", "jax==0.4.1"))
    assert [p.split("==")[0] for p in whole_of(older)] == ["numpy<2", "jax", "jaxlib", "optax"]


def test_an_environment_changes_with_what_is_asked_for(
    entrant: Callable[..., str], homes: Homes
) -> None:
    before = homes.home(entrant())
    assert not before.ready
    assert homes.home(entrant(NOTE="Another.")) == before
    assert homes.home(entrant(REQUIREMENTS=("jmp==0.0.3",))).path != before.path


@pytest.mark.usefixtures("needs_network")
def test_a_release_that_does_not_exist_costs_its_own_entrant(
    entrant: Callable[..., str], homes: Homes
) -> None:
    name = entrant(REQUIREMENTS=("jmp==99",), PYTHON=minor())
    with pytest.raises(
        UnsolvableError, match=f"'mine' cannot be built with Python {minor()}: "
    ) as e:
        homes.built(name)
    assert "there is no version of jmp==99" in str(e.value)
    assert str(e.value).endswith("Change its REQUIREMENTS, or leave it out")


def test_without_a_network_it_is_said_what_is_missing(
    entrant: Callable[..., str], homes: Homes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(NetworkError, match="of 'mine' has not been built before, and the package"):
        homes.built(entrant())


def test_one_that_was_built_is_taken_as_it_is(
    entrant: Callable[..., str], homes: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = entrant()
    path = homes.home(name).path
    (path / binary("python")).parent.mkdir(parents=True)
    (path / binary("python")).touch()
    (path / MARK).write_text(json.dumps({}))
    (path / "library").write_bytes(b"x" * 2_000_000)

    def refuse(*_: str, **__: str) -> str:
        raise AssertionError("nothing has to be built")

    monkeypatch.setattr(store, "uv", refuse)
    monkeypatch.setattr(own, "uv", refuse)
    home = homes.built(name)
    assert (home.ready, home.size) == (True, "2 MB")
    assert home.place.command[0] == str(path / binary("python"))


def test_who_waits_for_another_process_is_told(tmp_path: Path) -> None:
    path, told = tmp_path / "a.lock", list[str]()
    other = FileLock(path)

    def waiting() -> None:
        told.append("waiting")
        other.release()

    def is_taken() -> bool:
        mine = FileLock(path)
        with store.taken(mine, waiting):
            assert mine.is_locked
        return not mine.is_locked

    assert is_taken()
    assert told == []
    other.acquire()
    assert is_taken()
    assert told == ["waiting"]


def test_a_lock_that_is_no_file_of_ours_is_not_made(entrant: Callable[..., str]) -> None:
    with pytest.raises(BakeoffError, match="its pins are in the cache"):
        relock(entrant())


@pytest.mark.slow
@pytest.mark.usefixtures("needs_network")
def test_built_asked_and_proven_in_its_own_environment(
    entrant: Callable[..., str], homes: Homes, tmp_path: Path
) -> None:
    """The whole way: uv builds it, a worker of it says what it has, and an engine measures it."""
    name = entrant()
    outside = {name: str(tmp_path / "mine.py")}
    found, places = offers((name,), outside, 120.0, homes)
    assert found.styles == {"pure_jax": ["pure", "tuned"], "mine": ["pure"]}
    assert found.problems == {}
    assert found.apart["mine"]["jmp"] == found.versions["jmp"] == "0.0.4"
    assert list(unlike(found)) == []
    assert places["mine"].command[0] != places[""].command[0] == sys.executable
    assert Homes(homes.folder).home(name).ready

    cell = Cell("mine", "pure", "toy", "cpu")
    fixed = Options(60.0, **(FIXED | {"processes": 1, "blocks": 1}))
    plan = Run({cell: {"step", "import"}}, fixed, environments=found.sides, lanes=[()])
    Driver(plan, outside=outside, places=places).run()
    state = plan.state
    assert state.notes == []
    assert state.cells[cell].failure is None
    proof = state.cells[cell].proof
    assert proof is not None
    assert proof["same_program_as_baseline"]
    assert set(state.cells[cell].blocks) >= {"step", "import"}
    assert state.cells[Cell(*BASELINE, "toy", "cpu")].blocks["step"]


# What is measured

SIDES = {"haiku": "haiku"}
ASKED = needed(("toy",), ("step", "import", "final_loss"), ("pure_jax", "equinox", "haiku"))
FIXED: dict[str, Any] = {"processes": 2, "blocks": 3, "rounds": 2, "cold_samples": 2}


def run(
    sides: dict[str, str], asked: dict[Cell, set[str]] = ASKED, fault: Any = lambda _: None
) -> tuple[Run, list[Action]]:
    plan = Run(asked, Options(300.0, **FIXED), environments=sides, lanes=LANES)
    return plan, Machine(fault).drive(plan)


def loads_of(log: list[Action]) -> dict[str, set[str]]:
    return {a.side: set(a.arms) for a in log if a.do == "load" and len(a.arms) > 1}


def test_an_environment_has_workers_of_its_own_with_the_baseline_in_them() -> None:
    plan, log = run(SIDES)
    loads = loads_of(log)
    assert {arm.split("/")[0] for arm in loads[""]} == {"pure_jax", "control", "equinox"}
    assert {arm.split("/")[0] for arm in loads["haiku"]} == {"pure_jax", "control", "haiku"}
    haiku = plan.state.cells[Cell("haiku", "pure", "toy", "cpu")].blocks["step"]
    base = plan.state.cells[Cell(*BASELINE, "toy", "cpu")].blocks["step"]
    assert {block.process for block in haiku} < {block.process for block in base}
    numbers = [block.number for block in base]
    assert len(set(numbers)) == len(numbers) == 12, "blocks of all environments have their own"


def test_what_is_the_baselines_alone_is_measured_in_one_environment() -> None:
    _, log = run(SIDES)
    for do in ("cold", "train"):
        where = {a.side for a in log if a.do == do and "pure_jax/pure" in a.arms}
        assert where == {""}
    assert {a.side for a in log if a.do == "cold"} == {"", "haiku"}


def test_alone_it_brings_its_own_baseline() -> None:
    plan, log = run(SIDES, needed(("toy",), ("step", "import"), ("haiku",)))
    assert {action.side for action in log} == {"haiku"}
    base = plan.state.cells[Cell(*BASELINE, "toy", "cpu")]
    assert set(base.blocks) >= {"step", "import"}
    assert base.proof is not None


def test_an_environment_in_which_the_baseline_fails_costs_its_own_cells() -> None:
    def fault(action: Action) -> str | None:
        bad = action.side == "haiku" and action.do == "prove" and "pure_jax/pure" in action.arms
        return "it is not equal there" if bad else None

    plan, _ = run(SIDES, fault=fault)
    failed = {c[:2]: f.failure for c, f in plan.state.cells.items() if f.failure is not None}
    why = "there is no baseline: it is not equal there"
    assert failed == {("haiku", "pure"): why, ("haiku", "transform"): why}


def test_an_environment_whose_workers_die_costs_its_own_cells() -> None:
    plan, _ = run(SIDES, fault=lambda a: Death("no memory") if a.side and a.do == "load" else None)
    failed = {c[:2] for c, f in plan.state.cells.items() if "no memory" in (f.failure or "")}
    assert failed == {("haiku", "pure"), ("haiku", "transform")}


def test_a_style_may_have_workers_of_its_own() -> None:
    """One that sets what a process has once, such as its number of threads."""
    offer = replace(OFFER, apart={"haiku": {}}, alone={"haiku": ["transform"]})
    plan, log = run(offer.sides)
    assert all(found.failure is None for found in plan.state.cells.values())
    loads = loads_of(log)
    assert sorted(loads) == ["", "haiku", "haiku/transform"]
    beside = {"pure_jax/pure", "control/pure"}
    assert loads["haiku"] - beside == {"haiku/pure"}
    assert loads["haiku/transform"] - beside == {"haiku/transform"}
    over = Cell("haiku", "transform@2", "toy", "cpu")
    assert plan.side_of(over) == "haiku/transform", "and so have its devices"
    assert offer.environment("haiku/transform") == offer.environment("haiku") == "haiku"
    assert replace(offer, apart={}).environment("haiku/transform") == ""


class WithoutJax(Machine):
    """Its second entrant is none of JAX's."""

    def answer(self, action: Action, wrong: str = "") -> Any:
        found = super().answer(action, wrong)
        if action.do == "cold" and "haiku/pure" in action.arms:
            found.values |= dict.fromkeys(("trace", "lower", "compile"))
            found.trace_and_lower_split_by = ""
        return found


def test_what_is_not_jax_has_nothing_to_compile() -> None:
    cell = Cell("haiku", "pure", "toy", "cpu")
    plan = Run({cell: {"compile", "import"}}, Options(300.0, **FIXED), lanes=LANES)
    WithoutJax().drive(plan)
    assert plan.state.missing == {(cell, "compile"): NO_PROGRAM}
    assert "compile" not in plan.state.cells[cell].blocks
    assert plan.state.cells[Cell(*CONTROL, "toy", "cpu")].failure is None


OFFER = Offer({"pure_jax": ["pure"]}, {}, ["cpu", "gpu"], {"python": "3.13.5", "jax": "0.12"}, {})


def test_an_offer_beside_everybodys() -> None:
    there = {"python": "3.12.1", "jax": "0.12", "mine": "1"}
    one = Offer({"pure_jax": ["pure"], "mine": ["a"]}, {}, ["cpu"], there, {})
    found = merged(OFFER, "mine", one)
    assert found.styles == {"pure_jax": ["pure"], "mine": ["a"]}
    assert found.versions == {"python": "3.13.5", "jax": "0.12", "mine": "1"}
    assert found.sides == {"mine": "mine"}
    assert found.lacking == {"mine": ["gpu"]}
    assert list(unlike(found)) == [
        "mine runs in an environment of its own with python 3.12.1 for 3.13.5: ratios are to the "
        "baseline in there, cold ones to the baseline here."
    ]
    failed = Offer({"pure_jax": ["pure"]}, {"mine": "no"}, ["cpu"], there, {})
    assert merged(OFFER, "mine", failed).problems == {"mine": "no"}
    assert merged(OFFER, "mine", failed).sides == {}


def test_the_size_of_an_environment_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(own, "LOCKS", tmp_path)
    (tmp_path / "mine.txt").write_text("# Made by.\na==1\n")
    home = own.Home("mine", tmp_path, "3.13", ready=True, size="1.5 GB")
    before = pins_of(tmp_path / "mine.txt")
    note_size(home)
    note_size(home)
    text = (tmp_path / "mine.txt").read_text()
    assert text.count("# installed: 1.5 GB on ") == 1
    assert pins_of(tmp_path / "mine.txt") == before
