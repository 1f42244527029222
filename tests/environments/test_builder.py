"""Environments: what is asked for, how uv resolves and builds it, what workers say they have.

What needs a package index skips where uv reaches none. That real libraries of environments of their
own are built and measured is tests/test_stacks.py's.
"""

import os
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from filelock import FileLock

import impls
from bench.engine.process import WorkerFailedError
from bench.environments import builder as builders
from bench.environments import offers as asked
from bench.environments.builder import MARK, PYTHON, Builder, Resolution
from bench.environments.offers import offer, offers
from bench.environments.spec import (
    LOCK,
    LOCKS,
    BuildRequest,
    make_entrant_request,
    make_spec_request,
    parse,
    read_pins,
    today,
)
from bench.environments.uv import (
    UnsolvableError,
    list_installed,
    list_releases,
    minor,
    require_own,
    suggest_stack,
)
from bench.offer import Offer
from bench.worker.settings import ROOT
from common.versions import COMMON
from tests.commands import refusal
from tests.environments.repository import git

APART = [name for name in impls.names() if name not in impls.list_shared()]
needs_network = pytest.mark.usefixtures("needs_network")
TWIN = """
# /// script
# requires-python = "==3.12.*"
# dependencies = ["jmp==0.0.4"]
# ///
from common.steps import pure_style
from impls.pure_jax import build as build
import jmp

DISTRIBUTION = "jmp"
STYLES = {"pure": pure_style(build)}
"""


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "environments")


# What is asked for


def test_the_contents_of_a_spec(builder: Builder) -> None:
    current = builder.environment(parse("current"))
    assert (current.place.command[0], current.info.pins) == (sys.executable, {})
    assert not builder.folder.exists()
    day = make_spec_request(parse("@2025-12-01"), ROOT, (), {})
    assert (str(day.date), day.requirements) == ("2025-12-01", COMMON)
    assert day.optional == ("equinox", "flax", "dm-haiku")
    assert make_spec_request(parse(f"@{today()}"), ROOT, (), {}).asked_on == today(), (
        "tomorrow, it is another"
    )
    both = make_spec_request(parse("@2025-12-01,flax==0.12.0"), ROOT, ["3.13"], {})
    assert both.requirements == (*COMMON, "flax==0.12.0")
    assert both.optional == ("equinox", "dm-haiku")
    assert both.date is None, "a pinned release may be newer"
    assert repr(both.preferences) == repr(day)
    assert both.pythons == ("3.13",)
    now = make_spec_request(parse("flax==0.12.0"), ROOT, ["3.13", "3.12"], {})
    assert now.preferences == list_installed()
    assert now.pythons == ("3.13", "3.12")


@pytest.mark.parametrize("name", APART)
def test_requirements_of_an_entrant_are_pinned_and_locked(name: str) -> None:
    about, text = impls.read_declaration(name), (LOCKS / f"{name}.txt").read_text()
    pins = {pin.split("==")[0]: pin for pin in read_pins(LOCKS / f"{name}.txt")}
    common = {pin.split("==")[0]: pin for pin in read_pins(ROOT / LOCK)}
    for requirement in about.requirements:
        package = requirement.split("==")[0]
        expected = requirement if package == about.distribution else common[package]
        assert pins[package] == expected, "`make lock` makes it anew"
    assert any(pin.startswith(f"{about.distribution}==") for pin in about.requirements)
    assert "://" not in text
    assert text.count("==") <= text.count("--hash=")
    assert about.installed.endswith("B")


# What is resolved


@needs_network
def test_releases_that_cannot_be_had(builder: Builder) -> None:
    spec, words = "jax==0.6.1,flax==0.12.8", "flax==0.12.8 depends on jax>=0.10.0"
    with pytest.raises(UnsolvableError) as error:
        builder.environment(parse(spec), [minor()])
    assert str(error.value).startswith(f"{spec} cannot be built with Python {minor()}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@needs_network
def test_releases_that_are_resolved_once(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Preferred ones are kept where they fit; an optional package that does not is left out."""
    some = BuildRequest("x", ("jmp", "numpy==2.2.6"), preferences=("jmp==0.0.3", "numpy==2.3.0"))
    assert {"jmp==0.0.3", "numpy==2.2.6"} <= {*builder.resolution(some, minor()).pins}
    after = BuildRequest("x", ("jmp",), preferences=BuildRequest("y", ("jmp==0.0.2",)))
    assert "jmp==0.0.2" in builder.resolution(after, minor()).pins
    wanted = BuildRequest("x", ("numpy==2.2.6",), optional=("numpy<2", "jmp"))
    resolution = builder.resolution(wanted, minor())
    assert list(resolution.gaps) == ["numpy<2"]
    assert "numpy==2.2.6" in resolution.pins
    assert any(pin.startswith("jmp==") for pin in resolution.pins)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    assert builder.resolution(replace(wanted, title="y"), minor()) == resolution
    offline = refusal(builder.environment, parse("numpy==2.2.5"), [minor()])
    assert "package index cannot be reached" in offline


@needs_network
def test_releases_of_a_package_for_the_python_of_an_environment(builder: Builder) -> None:
    """As `bisect` looks them up: once, it gave the path of a Python where uv takes a version."""
    python = builder.environment(parse("current")).python
    assert list_releases("jax", "0.7.0", "0.8.0", python) == ["0.7.1", "0.7.2"]


@needs_network
def test_the_jax_of_the_day_of_a_release() -> None:
    """Flax 0.12.0 does not import with today's."""
    words = suggest_stack("flax", "0.12.0", minor())
    assert words == (
        "flax 0.12.0 is of 2025-09-25, as jax==0.7.2 is: give `flax==0.12.0,jax==0.7.2`, or "
        "`@2025-09-25`"
    )
    with pytest.raises(UnsolvableError):
        suggest_stack("flax", "0.0.0.1", minor())


# What is built


def put_environment(builder: Builder, wanted: BuildRequest, python: str) -> Path:
    """Make the folder of an environment that seems to be complete, and return it."""
    path = builder.name_folder(builder.resolution(wanted, python).pins, python)
    (path / PYTHON).parent.mkdir(parents=True)
    (path / PYTHON).touch()
    (path / MARK).touch()
    return path


def test_a_complete_environment_is_used_as_it_is(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_environment(builder, make_entrant_request("penzai"), minor())
    monkeypatch.setattr(builders, "uv", None)  # it would fail
    assert builder.find_folder("penzai") == path
    assert builder.build_place("penzai").command[0] == str(path / PYTHON)


def test_an_environment_that_another_process_builds_is_waited_for(builder: Builder) -> None:
    wanted = BuildRequest("x", lock=("jax==1",), pythons=("3.13",))
    path, waiting = builder.name_folder(wanted.lock, "3.13"), threading.Event()
    builder.folder.mkdir(parents=True)
    with FileLock(f"{path}.lock"):
        notified = replace(builder, notify=lambda _: waiting.set())
        other = threading.Thread(target=notified.build, args=(wanted,))
        other.start()
        assert waiting.wait(10)
        put_environment(builder, wanted, "3.13")
        (path / "as it was").touch()
    other.join(10)
    assert not other.is_alive()
    assert (path / "as it was").exists()


@needs_network
def test_an_incomplete_environment_is_built_anew(builder: Builder) -> None:
    """It is compiled to bytecode; and without jax, the baseline cannot be loaded in it."""
    wanted = BuildRequest("x", lock=("jmp==0.0.4",), pythons=(minor(),))
    path = put_environment(builder, wanted, minor())
    (path / PYTHON).unlink()
    (path / "left behind").touch()
    with pytest.raises(UnsolvableError, match=r"not run together: .*No module named"):
        builder.build(wanted)
    assert not (path / "left behind").exists()
    assert not (path / MARK).exists()
    [package] = path.glob("[lL]ib/**/site-packages/jmp")
    assert list(package.glob("__pycache__/__init__.*.pyc"))


def test_a_revision_runs_its_own_code_and_the_checkout_stays_as_it_is(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (ROOT / ".git").exists() or git(ROOT, "rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("the history of this project is not at hand")
    built = Mock(return_value=(sys.executable, minor(), Resolution(())))
    monkeypatch.setattr(Builder, "build", built)  # asked where the revision has another lock
    before = git(ROOT, "stash", "list"), git(ROOT, "worktree", "list")
    head = builder.environment(parse("HEAD"), [minor()])
    assert head.info.commit == git(ROOT, "rev-parse", "HEAD")
    assert head.place.root == builder.folder.parent / "revisions" / str(head.info.commit)
    assert (head.place.root / "impls/pure_jax.py").exists()
    assert head.place.variables["PYTHONPATH"].split(os.pathsep)[0] == str(head.place.root)
    assert (git(ROOT, "stash", "list"), git(ROOT, "worktree", "list")) == before
    first = git(ROOT, "rev-list", "--max-parents=0", "HEAD").split()[0]
    wrong = dict.fromkeys(("no-such-branch", "HEAD..HEAD", "main; ls"), "there is no")
    for revision, words in (wrong | {first: "it has no"}).items():
        message = refusal(builder.environment, parse(revision), [minor()])
        assert f"revision {revision!r}" in message
        assert words in message


# What workers say

OFFER = Offer({"pure_jax": ["pure"]}, {}, ["cpu", "gpu"], {"python": "3.13.5", "jax": "0.12"}, {})


def test_an_entrant_that_kills_its_worker_costs_itself_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask_once(command: dict[str, Any], *_: Any) -> dict[str, Any]:
        if "mine" in command["entrants"]:
            raise WorkerFailedError("worker failed (exit status 3)", "", 1)  # at its turn
        styles = {name: ["pure"] for name in command["entrants"]}
        return {**asdict(OFFER), "styles": styles, "a later field": 1}

    monkeypatch.setattr(asked, "ask_once", ask_once)
    found = offer(("mine", "stax"), {})
    assert found.styles.keys() == {"pure_jax", "stax"}
    assert found.problems == {"mine": "import failed: worker failed (exit status 3)"}


def test_an_entrant_that_cannot_be_built_costs_itself_only(
    tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(TWIN)
    wanted = make_entrant_request(path)
    assert wanted.requirements == ("jmp==0.0.4", *COMMON)
    assert (wanted.pythons, wanted.lock) == (("3.12",), ())
    assert wanted.preferences == read_pins(ROOT / LOCK)
    path.write_text(TWIN.replace("==3.12.*", "==2.7.*"))
    monkeypatch.setattr(asked, "offer", lambda *_: OFFER)
    result, places = offers(("mine",), {"mine": str(path)}, 120.0, builder)
    assert list(places) == [""]
    [(name, problem)] = result.problems.items()
    assert name == "mine"
    assert problem.startswith(f"entrant {name!r} requires Python '==2.7.*'; this project runs on")


@pytest.mark.parametrize(
    ("mode", "name", "problem"),
    [
        (0o777, "", "can be written by anybody, and its code is run"),
        (0o770, "", ""),
        (0o700, "/new", ""),
        (0o700, "/file", "file exists"),
        (0o700, "/file/new", "not a directory"),
    ],
)
def test_code_is_run_from_a_folder_of_ones_own(
    tmp_path: Path, mode: int, name: str, problem: str
) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(mode)
    folder = Path(f"{tmp_path}{name}")
    if problem:
        said = refusal(lambda: require_own(folder))
        assert problem in said
        assert said.endswith("name one by BAKEOFF_CACHE that is yours alone")
    else:
        require_own(folder)
        assert folder.stat().st_mode & 0o777 in (0o700, 0o750)
