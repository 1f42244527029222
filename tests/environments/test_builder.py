"""Environments: what is asked for, how uv resolves and builds it, and what is said when it fails.

What needs a package index skips where uv reaches none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from filelock import FileLock

import impls
from bench.environments import builder as builders
from bench.environments import request
from bench.environments.builder import MARK, Builder, Resolution, python_of
from bench.environments.releases import between
from bench.environments.request import LOCK, LOCKS, BuildRequest, of_entrant, of_spec, pins_of
from bench.environments.spec import parse
from bench.environments.uv import NetworkError, UnsolvableError, installed, minor, one_line
from bench.worker.settings import ROOT
from common.errors import BakeoffError
from common.versions import COMMON

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APART = [name for name in impls.names() if name not in impls.here()]
needs_network = pytest.mark.usefixtures("needs_network")


# What is asked for


def test_the_contents_of_a_spec(builder: Builder) -> None:
    current = builder.environment(parse("current"))
    assert (current.place.command[0], current.pins) == (sys.executable, ())
    assert not builder.folder.exists()
    libraries = ("equinox", "flax", "dm-haiku")
    day = of_spec(parse("@2025-12-01"), ROOT, ())
    assert (str(day.date), day.requirements, day.optional) == ("2025-12-01", COMMON, libraries)
    both = of_spec(parse("@2025-12-01,flax==0.12.0,python==3.13"), ROOT, ["3.12"])
    assert both.requirements == (*COMMON, "flax==0.12.0")
    assert both.optional == ("equinox", "dm-haiku")
    assert both.date is None, "a pinned release may be newer"
    assert both.preferences == replace(day, title=both.title, pythons=("3.13",))
    assert both.pythons == ("3.13",)
    now = of_spec(parse("flax==0.12.0"), ROOT, ["3.13", "3.12"])
    assert now.preferences == installed()
    assert now.pythons == ("3.13", "3.12")


def test_the_contents_of_an_entrants_environment(
    twin: Callable[..., str], builder: Builder
) -> None:
    wanted = of_entrant(twin(python="==3.12.*"))
    assert wanted.requirements == ("jmp==0.0.4", *COMMON)
    assert wanted.pythons == ("3.12",)
    assert wanted.lock == ()
    assert wanted.preferences == pins_of(ROOT / LOCK)
    assert of_entrant(twin()).pythons[0] == minor()
    assert of_entrant(twin("jmp==0.0.3")).key != wanted.key
    assert builder.folder_of("mine") is None


def test_a_file_with_the_packages_of_an_entrant_has_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(impls, "OUTSIDE", {})
    (tmp_path / "mine.py").write_text(impls.source("penzai").read_text("utf-8"))
    assert of_entrant(impls.add(tmp_path / "mine.py")).lock == of_entrant("penzai").lock != ()


@pytest.mark.parametrize("python", ["==2.7.*", "3.12 or so"])
def test_an_entrant_for_another_python_is_refused(
    twin: Callable[..., str], builder: Builder, python: str
) -> None:
    with pytest.raises(BakeoffError, match=f"'mine' requires Python '{python}'.*3.12, 3.13, 3.14"):
        builder.place_of(twin(python=python))


@pytest.mark.parametrize("name", APART)
def test_requirements_of_an_entrant_are_pinned_and_locked(name: str) -> None:
    about, text = impls.declared(name), (LOCKS / f"{name}.txt").read_text()
    pins = {pin.split("==")[0]: pin for pin in pins_of(LOCKS / f"{name}.txt")}
    common = {pin.split("==")[0]: pin for pin in pins_of(ROOT / LOCK)}
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


@needs_network
def test_releases_that_are_resolved(builder: Builder) -> None:
    """Preferred ones are kept where they fit; an optional package that does not is left out."""
    wanted = BuildRequest("x", ("jmp", "numpy==2.2.6"), preferences=("jmp==0.0.3", "numpy==2.3.0"))
    assert {"jmp==0.0.3", "numpy==2.2.6"} <= {*builder.resolution(wanted, minor()).pins}
    after = BuildRequest("x", ("jmp",), preferences=BuildRequest("y", ("jmp==0.0.2",)))
    assert "jmp==0.0.2" in builder.resolution(after, minor()).pins
    wanted = BuildRequest("x", ("numpy==2.2.6",), optional=("numpy<2", "jmp"))
    resolution = builder.resolution(wanted, minor())
    assert list(resolution.gaps) == ["numpy<2"]
    assert "numpy==2.2.6" in resolution.pins
    assert any(pin.startswith("jmp==") for pin in resolution.pins)


@needs_network
def test_releases_of_a_package_for_the_python_of_an_environment(builder: Builder) -> None:
    """As `bisect` looks them up: once, it gave the path of a Python where uv takes a version."""
    python = builder.environment(parse("current")).python
    releases = ["0.6.2", "0.7.0", "0.7.1", "0.7.2", "0.8.0"]
    assert between("jax", "0.6.1", "0.8.1", python) == releases
    assert between("jax", "0.8.0", "0.8.1", python) == []


@needs_network
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
    """Also where it is what another request prefers."""
    compiled = Mock(return_value=())
    monkeypatch.setattr(builders, "compiled", compiled)
    day = parse("@2025-12-01").date
    assert day is not None
    stack = BuildRequest("x", date=day)
    for now in (day, day, day.replace(day=2), day.replace(day=3)):
        monkeypatch.setattr(request, "today", lambda now=now: now)
        builder.resolution(stack, "3.12")
        builder.resolution(BuildRequest("y", preferences=stack), "3.12")
    assert compiled.call_count == 2 * 2


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
    path = put_environment(builder, of_entrant("penzai"), minor())
    monkeypatch.setattr(builders, "uv", None)  # it would fail
    assert builder.folder_of("penzai") == path
    assert builder.place_of("penzai").command[0] == str(python_of(path))
    wanted = BuildRequest("x", lock=("jax==1", "numpy==2"), pythons=("3.13",))
    path = put_environment(builder, wanted, "3.13")
    assert builder.built(replace(wanted, title="y"))[0] == path, "pins name a folder"
    for other in (replace(wanted, lock=("jax==1",)), replace(wanted, pythons=("3.12",))):
        with pytest.raises(TypeError):
            builder.built(other)


def test_an_environment_that_another_process_builds_is_waited_for(builder: Builder) -> None:
    wanted = BuildRequest("x", lock=("jax==1",), pythons=("3.13",))
    path, lines = builder._folder(Resolution(wanted.lock), "3.13"), list[str]()
    builder.folder.mkdir(parents=True)
    with FileLock(f"{path}.lock"):
        waiting = threading.Event()

        def notify(line: str) -> None:
            lines.append(line)
            waiting.set()

        other = threading.Thread(target=replace(builder, notify=notify).built, args=(wanted,))
        other.start()
        assert waiting.wait(10)
        put_environment(builder, wanted, "3.13")
    other.join(10)
    assert not other.is_alive()
    assert lines == ["another process builds x: waiting for it; Ctrl-C stops"]


@needs_network
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


# Revisions of this project


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
