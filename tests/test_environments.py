"""Environments: what is asked for, how uv resolves and builds it, and what is said when it fails.

What needs a package index skips where uv reaches none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

import impls
from bench.cells import BASELINE, CONTROL, Cell, Offer
from bench.compare.releases import between
from bench.engine.actions import Death, Options
from bench.engine.driver import Driver
from bench.engine.environment_plan import NO_PROGRAM
from bench.engine.run_plan import RunPlan
from bench.environments import builder as builders
from bench.environments import request
from bench.environments.builder import MARK, Builder, Resolution, python_of
from bench.environments.offers import joined_apart, offers
from bench.environments.request import (
    BASE,
    LIBRARIES,
    LOCKS,
    BuildRequest,
    of_entrant,
    of_spec,
    pins_of,
)
from bench.environments.spec import parse
from bench.environments.uv import NetworkError, UnsolvableError, minor, one_line
from bench.runfile.warnings import unlike
from bench.worker.settings import ROOT
from common.declaration import Declaration, declaration
from common.errors import BakeoffError
from tests.simulated import LANES, Machine, needed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.engine.actions import Action

TWIN = """
# /// script
# requires-python = "{python}"
# dependencies = ["{requirement}"]
# ///
from common.steps import pure_style
from impls.pure_jax import build as build
import jmp

DISTRIBUTION = "jmp"
STYLES = {{"pure": pure_style(build)}}
"""
APART = [name for name in impls.names() if name not in impls.here()]


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "environments")


@pytest.fixture
def entrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that adds an entrant in a file of its own."""
    monkeypatch.setattr(impls, "OUTSIDE", {})

    def make(requirement: str = "jmp==0.0.4", python: str = ">=3.12") -> str:
        path = tmp_path / "mine.py"
        path.write_text(TWIN.format(requirement=requirement, python=python))
        return impls.add(path)

    return make


# What a side asks for


def test_the_request_of_a_side(builder: Builder) -> None:
    current = builder.environment(parse("current"))
    assert (current.place.command[0], current.pins) == (sys.executable, ())
    assert not builder.folder.exists()
    day = of_spec(parse("@2025-12-01"), ROOT, ())
    assert (str(day.date), day.requirements, day.optional) == ("2025-12-01", BASE, LIBRARIES)
    both = of_spec(parse("@2025-12-01,flax==0.12.0,python==3.13"), ROOT, ["3.12"])
    assert both.requirements == ("jax", "jaxlib", "optax", "numpy", "flax==0.12.0")
    assert "flax" not in both.optional
    assert both.date is None, "a pinned release may be newer"
    assert both.base is not None
    assert both.base.date == day.date
    assert both.pythons == both.base.pythons == ("3.13",)
    now = of_spec(parse("flax==0.12.0"), ROOT, ["3.13", "3.12"])
    assert now.base is None
    assert any(pin.startswith("jax==") for pin in now.preferences)
    assert now.pythons == ("3.13", "3.12")


@pytest.mark.usefixtures("needs_network")
@pytest.mark.parametrize(
    ("spec", "pythons", "words"),
    [
        ("jax==0.6.1,flax==0.12.8", [minor()], "flax==0.12.8 depends on jax>=0.10.0"),
        ("jaxlib==0.4.28,jax==0.4.28", ["3.13", "3.13.0"], "with Python 3.13, 3.13.0: "),
    ],
)
def test_releases_that_cannot_be_had(
    builder: Builder, spec: str, pythons: list[str], words: str
) -> None:
    with pytest.raises(UnsolvableError, match=f"{spec} cannot be built with Python") as error:
        builder.environment(parse(spec), pythons)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("needs_network")
def test_releases_that_are_resolved(builder: Builder) -> None:
    """Preferred ones are kept where they fit; an optional package that does not is left out."""
    wanted = BuildRequest("x", ("jmp", "numpy==2.2.6"), preferences=("jmp==0.0.3", "numpy==2.3.0"))
    pins = builder.resolution(wanted, minor()).pins
    assert {"jmp==0.0.3", "numpy==2.2.6"} <= set(pins)
    after = BuildRequest("x", ("jmp",), base=BuildRequest("y", ("jmp==0.0.2",)))
    assert "jmp==0.0.2" in builder.resolution(after, minor()).pins
    wanted = BuildRequest("x", ("numpy==2.2.6",), optional=("numpy<2", "jmp"))
    found = builder.resolution(wanted, minor())
    assert list(found.gaps) == ["numpy<2"]
    assert "numpy==2.2.6" in found.pins
    assert any(pin.startswith("jmp==") for pin in found.pins)
    releases = ["0.6.2", "0.7.0", "0.7.1", "0.7.2", "0.8.0"]
    assert between("jax", "0.6.1", "0.8.1", minor()) == releases
    assert between("jax", "0.8.0", "0.8.1", minor()) == []


@pytest.mark.usefixtures("needs_network")
def test_only_what_was_resolved_before_needs_no_network(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted = BuildRequest("x", ("jmp==0.0.4",))
    before = builder.resolution(wanted, minor())
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    assert builder.resolution(wanted, minor()) == before
    with pytest.raises(NetworkError, match=r"numpy==2\.2\.5 has not been built before"):
        builder.environment(parse("numpy==2.2.5"), [minor()])


def test_today_is_resolved_anew_tomorrow(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = Mock(return_value=Resolution(()))
    monkeypatch.setattr(builders, "resolved", resolved)
    day = parse("@2025-12-01").date
    assert day is not None
    for now in (day, day, day.replace(day=2), day.replace(day=3)):
        monkeypatch.setattr(builders, "today", lambda now=now: now)
        builder.resolution(BuildRequest("x", date=day), "3.12")
    assert resolved.call_count == 2


# What is built


def put_environment(builder: Builder, wanted: BuildRequest, python: str) -> Path:
    """Make the folder of an environment that seems to be complete, and return it."""
    path = builder._folder(builder.resolution(wanted, python), python)
    python_of(path).parent.mkdir(parents=True)
    python_of(path).touch()
    (path / MARK).touch()
    return path


def test_a_complete_environment_is_used_as_it_is(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = BuildRequest("x", lock=("jax==1", "numpy==2"), pythons=("3.13",))
    path = put_environment(builder, wanted, "3.13")
    monkeypatch.setattr(builders, "uv", None)  # it would fail
    assert builder.built(wanted)[0] == path
    assert builder.built(replace(wanted, title="y"))[0] == path, "pins name a folder"
    for other in (replace(wanted, lock=("jax==1",)), replace(wanted, pythons=("3.12",))):
        with pytest.raises(TypeError):
            builder.built(other)


@pytest.mark.usefixtures("needs_network")
def test_an_incomplete_environment_is_built_anew(builder: Builder) -> None:
    """It is compiled to bytecode; and without jax, the baseline cannot be loaded in it."""
    wanted = BuildRequest("x", lock=("jmp==0.0.4",), pythons=(minor(),))
    path = put_environment(builder, wanted, minor())
    python_of(path).unlink()
    (path / "left behind").touch()
    with pytest.raises(UnsolvableError, match=r"not run together: .*No module named"):
        builder.built(wanted)
    assert not (path / "left behind").exists()
    assert not (path / MARK).exists()
    [package] = path.glob("[lL]ib/**/site-packages/jmp")
    assert list(package.glob("__pycache__/__init__.*.pyc"))


def git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def history() -> None:
    if not (ROOT / ".git").exists() or git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("the history of this project is not at hand")


@pytest.mark.usefixtures("history")
def test_a_revision_runs_its_own_code_and_the_checkout_stays_as_it_is(builder: Builder) -> None:
    before = git("status", "--porcelain"), git("worktree", "list")
    found = builder.environment(parse("HEAD"), [minor()])
    assert found.commit == git("rev-parse", "HEAD")
    assert found.place.root == builder.folder.parent / "revisions" / str(found.commit)
    assert (found.place.root / "impls/pure_jax.py").exists()
    assert found.place.variables["PYTHONPATH"].split(os.pathsep)[0] == str(found.place.root)
    assert (git("status", "--porcelain"), git("worktree", "list")) == before


@pytest.mark.usefixtures("history")
def test_a_revision_that_cannot_be_measured(builder: Builder) -> None:
    first = git("rev-list", "--max-parents=0", "HEAD").split()[0]
    for revision, words in (("no-such-branch", "there is no revision"), (first, "it has no")):
        with pytest.raises(BakeoffError, match=words) as error:
            builder.environment(parse(revision), [minor()])
        assert f"revision {revision!r}" in str(error.value)
        assert "\n" not in str(error.value)


def test_messages_of_uv_are_put_on_one_line() -> None:
    text = (
        "warning: something\n"
        "  × No solution found when resolving dependencies:\n"
        "  ╰─▶ Because there is no version of flax==99 and you require flax==99, we\n"
        "      can conclude that your requirements are unsatisfiable.\n"
        "\n  hint: Pre-releases are available\n"
    )
    assert one_line(text) == (
        "Because there is no version of flax==99 and you require flax==99, we can conclude that "
        "your requirements are unsatisfiable"
    )


# What an entrant declares


def test_metadata_of_an_entrant(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        '"""Docstring."""\n\n# /// script\n# requires-python = "==3.12.*"\n#\n'
        '# tool.bakeoff.installed = "5 MB"\n'
        '# dependencies = [\n#   "a==1",\n#   "b",\n# ]\n# ///\n'
        'raise SystemExit\nDISTRIBUTION = "a"\nJAX = False\nNOTE: str = "Old."\nother = JAX[0]\n'
    )
    expected: dict[str, Any] = {"distribution": "a", "jax": False, "note": "Old."}
    expected |= {"requirements": ("a==1", "b"), "requires_python": "==3.12.*", "installed": "5 MB"}
    assert declaration(path) == Declaration(**expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DISTRIBUTION = name()", "DISTRIBUTION in line 1 has to be a string"),
        ("ALONE = ('a', 1)", "ALONE in line 1 has to be a tuple of strings, written"),
        ("JAX = {[]: 1}", "JAX in line 1 has to be True or False"),
        ("def :", "entrant 'mine' has a syntax error in line 1: invalid syntax"),
        ("\0", "entrant 'mine' "),
        ("x = " + "-" * 100_000 + "1", "entrant 'mine' "),
        ("# /// script\n# dependencies = [\n# ///", "entrant 'mine': its block"),
        ("# /// script\n# dependencies = [1]\n# ///", "has to be a list of strings"),
    ],
)
def test_metadata_that_cannot_be_read(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BakeoffError) as error:
        declaration(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_usual_entrants_are_those_of_the_common_environment(entrant: Callable[..., str]) -> None:
    for name in impls.names():
        about = impls.declared(name)
        assert (name in impls.here()) == (not about.requirements)
        assert (name in impls.usual()) == (about.jax and not about.requirements)
    assert impls.add(impls.source("haiku")) == "haiku"
    assert "haiku" not in impls.OUTSIDE
    impls.source(entrant()).write_text("def (")
    assert "mine" in impls.usual(), "loading it says what is wrong"


@pytest.mark.parametrize("name", APART)
def test_own_requirements_are_pinned_and_locked(name: str) -> None:
    about, text = impls.declared(name), (LOCKS / f"{name}.txt").read_text()
    pins = {pin.split("==")[0]: pin for pin in pins_of(LOCKS / f"{name}.txt")}
    common = {pin.split("==")[0]: pin for pin in pins_of(ROOT / request.LOCK)}
    for requirement in about.requirements:
        package = requirement.split("==")[0]
        expected = requirement if package == about.distribution else common[package]
        assert pins[package] == expected, "`make lock` makes it anew"
    assert any(pin.startswith(f"{about.distribution}==") for pin in about.requirements)
    assert "://" not in text
    assert text.count("==") <= text.count("--hash=")
    assert about.installed.endswith("B")


def test_the_environment_of_an_entrant_follows_its_file(
    entrant: Callable[..., str], builder: Builder
) -> None:
    wanted = of_entrant(entrant(python="==3.12.*"))
    assert wanted.requirements == ("jmp==0.0.4", *BASE)
    assert wanted.pythons == ("3.12",)
    assert wanted.lock == ()
    assert set(wanted.preferences) == set(pins_of(ROOT / request.LOCK))
    assert of_entrant(entrant()).pythons[0] == minor()
    assert of_entrant(entrant("jmp==0.0.3")).requirements != wanted.requirements
    assert builder.folder_of("mine") is None
    kept = builder._resolution_file(of_entrant("mine"), minor())
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"pins": ["jmp==0.0.3"], "gaps": {}}))
    assert builder.folder_of("mine") is None
    path = put_environment(builder, of_entrant("mine"), minor())
    assert builder.folder_of("mine") == path
    assert builder.place_of("mine").command[0] == str(python_of(path))


@pytest.mark.parametrize("python", ["==2.7.*", "3.12 or so"])
def test_an_entrant_for_another_python_is_refused(
    entrant: Callable[..., str], builder: Builder, python: str
) -> None:
    with pytest.raises(BakeoffError, match=f"'mine' requires Python '{python}'.*3.12, 3.13, 3.14"):
        builder.place_of(entrant(python=python))


@pytest.mark.usefixtures("needs_network")
@pytest.mark.parametrize("requirement", ["jmp==99", "a b"])
def test_an_entrant_whose_packages_cannot_be_had_costs_itself_only(
    entrant: Callable[..., str], builder: Builder, requirement: str
) -> None:
    name = entrant(requirement, python=f"=={minor()}.*")
    found, places = offers((name,), {}, 120.0, builder)
    assert list(found.problems) == ["mine"]
    assert requirement in found.problems["mine"]
    assert "\n" not in found.problems["mine"]
    assert list(places) == [""]


@pytest.mark.slow
@pytest.mark.usefixtures("needs_network")
def test_built_asked_and_proven_in_its_own_environment(
    entrant: Callable[..., str], builder: Builder, tmp_path: Path
) -> None:
    """The whole way: uv builds it, a worker says what it has, and the engine measures it."""
    name = entrant()
    outside = {name: str(tmp_path / "mine.py")}
    found, places = offers((name,), outside, 120.0, builder)
    assert found.styles == {"pure_jax": ["pure", "tuned"], "mine": ["pure"]}
    assert found.problems == {}
    assert found.apart["mine"]["jmp"] == found.versions["jmp"] == "0.0.4"
    assert found.uncached == 0
    assert list(unlike(found)) == []
    assert places["mine"].command[0] != places[""].command[0] == sys.executable
    assert builder.folder_of(name) is not None

    cell = Cell("mine", "pure", "toy", "cpu")
    fixed = Options(60.0, **(FIXED | {"processes": 1, "blocks": 1}))
    plan = RunPlan({cell: {"step", "import"}}, fixed, environments=found.sides, lanes=[()])
    Driver(plan, outside=outside, places=places).run()
    state = plan.state
    assert state.notes == []
    assert state.cells[cell].failure is None
    proof = state.cells[cell].proof
    assert proof is not None
    assert proof["same_program_as_baseline"]
    assert set(state.cells[cell].blocks) >= {"step", "import"}
    assert state.cells[Cell(*BASELINE, "toy", "cpu")].blocks["step"]


OFFER = Offer({"pure_jax": ["pure"]}, {}, ["cpu", "gpu"], {"python": "3.13.5", "jax": "0.12"}, {})


def test_the_offer_of_two_environments() -> None:
    there = {"python": "3.12.1", "jax": "0.12", "mine": "1"}
    one = Offer({"pure_jax": ["b"], "mine": ["a"]}, {"another": "no"}, ["cpu"], there, {})
    found = joined_apart(OFFER, "mine", one)
    assert found.problems == {}
    assert found.styles == {"pure_jax": ["pure"], "mine": ["a"]}
    assert found.versions == {"python": "3.13.5", "jax": "0.12", "mine": "1"}
    assert found.sides == {"mine": "mine"}
    assert found.lacking == {"mine": ["gpu"]}
    [line] = unlike(found)
    assert "python 3.12.1 for 3.13.5" in line
    failed = Offer({"pure_jax": ["pure"]}, {"mine": "no"}, ["cpu"], there, {})
    assert joined_apart(OFFER, "mine", failed).problems == {"mine": "no"}
    assert joined_apart(OFFER, "mine", failed).sides == {}


# What is measured

SIDES = {"haiku": "haiku"}
ASKED = needed(("toy",), ("step", "import", "final_loss"), ("pure_jax", "equinox", "haiku"))
FIXED: dict[str, Any] = {"processes": 2, "blocks": 3, "rounds": 2, "cold_samples": 2}


def run(
    sides: dict[str, str], asked: dict[Cell, set[str]] = ASKED, fault: Any = lambda _: None
) -> tuple[RunPlan, list[Action]]:
    plan = RunPlan(asked, Options(300.0, **FIXED), environments=sides, lanes=LANES)
    return plan, Machine(fault).drive(plan)


def test_the_baseline_is_measured_cold_in_one_environment() -> None:
    plan, log = run(SIDES)
    base = plan.state.cells[Cell(*BASELINE, "toy", "cpu")]
    numbers = [block.number for block in base.blocks["step"]]
    assert len(set(numbers)) == len(numbers) == 12, "blocks of all environments have their own"
    for do in ("cold", "train"):
        assert {a.side for a in log if a.do == do and "pure_jax/pure" in a.arms} == {""}
    assert {a.side for a in log if a.do == "cold"} == {"", "haiku"}

    plan, log = run(SIDES, needed(("toy",), ("step", "import"), ("haiku",)))
    assert {action.side for action in log} == {"haiku"}, "alone, it brings its own baseline"
    base = plan.state.cells[Cell(*BASELINE, "toy", "cpu")]
    assert set(base.blocks) >= {"step", "import"}
    assert base.proof is not None


@pytest.mark.parametrize("do", ["load", "prove"])
def test_an_environment_that_fails_costs_its_own_cells(do: str) -> None:
    def wrong(action: Action) -> Death | str | None:
        if (action.side, action.do) != ("haiku", do):
            return None
        return (
            Death("no memory") if do == "load" else "not equal" * ("pure_jax/pure" in action.arms)
        )

    plan, _ = run(SIDES, fault=wrong)
    failed = {cell: f.failure for cell, f in plan.state.cells.items() if f.failure is not None}
    assert {str(cell.arm) for cell in failed} == {"haiku/pure", "haiku/transform"}
    words = {"load": "no memory", "prove": "no baseline: not equal"}[do]
    assert all(words in failure for failure in failed.values())


def test_a_style_may_have_workers_of_its_own() -> None:
    """One that sets what a process has once, such as its number of threads."""
    offer = replace(OFFER, apart={"haiku": {}}, alone={"haiku": ["transform"]})
    plan, log = run(offer.sides)
    assert all(found.failure is None for found in plan.state.cells.values())
    loads = {a.side: set(a.arms) for a in log if a.do == "load" and len(a.arms) > 1}
    assert sorted(loads) == ["", "haiku", "haiku/transform"]
    beside = {"pure_jax/pure", "control/pure"}
    assert loads["haiku"] - beside == {"haiku/pure"}
    assert loads["haiku/transform"] - beside == {"haiku/transform"}
    over = Cell("haiku", "transform", "toy", "cpu", devices=2)
    assert plan.side_of(over) == "haiku/transform", "and so have its devices"
    assert offer.environment("haiku/transform") == offer.environment("haiku") == "haiku"
    assert replace(offer, apart={}).environment("haiku/transform") == ""


def test_an_entrant_without_jax_has_nothing_to_compile() -> None:
    class WithoutJax(Machine):
        def answer(self, action: Action, wrong: str = "") -> Any:
            found = super().answer(action, wrong)
            if action.do == "cold" and "haiku/pure" in action.arms:
                found.values |= dict.fromkeys(("trace", "lower", "compile"))
                found.trace_and_lower_split_by = ""
            return found

    cell = Cell("haiku", "pure", "toy", "cpu")
    plan = RunPlan({cell: {"compile", "import"}}, Options(300.0, **FIXED), lanes=LANES)
    WithoutJax().drive(plan)
    assert plan.state.missing == {(cell, "compile"): NO_PROGRAM}
    assert "compile" not in plan.state.cells[cell].blocks
    assert plan.state.cells[Cell(*CONTROL, "toy", "cpu")].failure is None
