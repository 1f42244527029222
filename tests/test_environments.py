"""Environments: resolved by uv for real where there is a network; what goes wrong is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench.compare import environments
from bench.compare.environments import Builder, main_pins
from bench.compare.releases import between
from bench.compare.spec import parse
from bench.environments import store
from bench.environments.store import MARK, binary
from bench.environments.uv import (
    NetworkError,
    UnsolvableError,
    compiled,
    installed,
    minor,
    said,
    uv,
)
from bench.worker.settings import ROOT
from common.errors import BakeoffError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "environments")


def fails(builder: Builder, text: str) -> str:
    with pytest.raises(BakeoffError) as error:
        builder.environment(parse(text), [minor()])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.usefixtures("needs_network")
def test_a_release_that_does_not_exist_is_named(builder: Builder) -> None:
    said = fails(builder, "flax==99")
    assert said.startswith(f"flax==99 cannot be built with Python {minor()}: ")
    assert "no version of flax==99" in said
    assert said.endswith("Give other releases")


@pytest.mark.usefixtures("needs_network")
def test_releases_that_do_not_go_together_are_named(builder: Builder) -> None:
    said = fails(builder, "jax==0.6.1,flax==0.12.8")
    assert "flax==0.12.8 depends on jax>=0.10.0 and you require jax==0.6.1" in said


@pytest.mark.usefixtures("needs_network")
def test_a_python_that_a_release_does_not_support_is_named(builder: Builder) -> None:
    with pytest.raises(UnsolvableError) as error:
        builder.environment(parse("jaxlib==0.4.28,jax==0.4.28"), ["3.13", "3.13.0"])
    assert "cannot be built with Python 3.13, 3.13.0: " in str(error.value)


@pytest.mark.usefixtures("needs_network")
def test_what_is_left_open_stays_as_it_is_where_that_fits() -> None:
    here = dict(pin.split("==") for pin in installed())
    pins = compiled(["jax", "optax", "numpy==2.2.6"], sys.executable, None, installed())
    found = dict(pin.split("==") for pin in pins)
    assert found["numpy"] == "2.2.6" != here["numpy"]
    assert found["optax"] == here["optax"]


@pytest.mark.usefixtures("needs_network")
def test_a_resolution_is_kept_and_needs_no_network_again(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environments, "BASE", ("numpy",))
    monkeypatch.setattr(environments, "LIBRARIES", ("jmp",))
    spec = parse("numpy==2.2.6")
    before = builder.resolution(spec, sys.executable, minor(), ROOT)
    assert "numpy==2.2.6" in before.pins
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    assert builder.resolution(spec, sys.executable, minor(), ROOT).pins == before.pins
    with pytest.raises(NetworkError, match=r"numpy==2\.2\.5 has not been built before, and the "):
        builder.environment(parse("numpy==2.2.5"), [minor()])


@pytest.mark.usefixtures("needs_network")
def test_a_library_that_does_not_go_with_the_rest_is_a_gap(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "BASE", ("jaxlib", "numpy"))
    monkeypatch.setattr(environments, "LIBRARIES", ("jmp", "flax==99"))
    found = builder.resolution(parse("numpy==2.2.6"), sys.executable, minor(), ROOT)
    assert list(found.gaps) == ["flax==99"]
    assert any(pin.startswith("jmp==") for pin in found.pins)


@pytest.mark.usefixtures("needs_network")
def test_releases_between_two_are_listed_in_order() -> None:
    assert between("jax", "0.6.1", "0.8.1", sys.executable) == [
        *("0.6.2", "0.7.0", "0.7.1", "0.7.2", "0.8.0")
    ]
    assert between("jax", "0.8.0", "0.8.1", sys.executable) == []


def test_an_environment_that_was_built_is_taken_as_it_is(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = ("jax==1", "numpy==2")
    path = builder.path(pins, "3.13")
    (path / binary("python")).parent.mkdir(parents=True)
    (path / binary("python")).touch()
    (path / MARK).write_text(json.dumps({"pins": pins}))

    def refuse(*_: str, **__: str) -> str:
        raise AssertionError("nothing has to be built")

    monkeypatch.setattr(store, "uv", refuse)
    monkeypatch.setattr(environments, "uv", refuse)
    assert builder.built(pins, "python3.13", "3.13") == path


def test_one_that_was_never_finished_is_built_anew(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def note(*arguments: str, input_: str = "") -> str:
        asked.append(arguments[0])
        (path / "new").parent.mkdir(parents=True, exist_ok=True)
        (path / "new").touch()
        return input_

    path = builder.path(["jax==1"], "3.13")
    path.mkdir(parents=True)
    (path / MARK).touch()  # but its Python is gone
    (path / "half").touch()
    monkeypatch.setattr(store, "uv", note)
    monkeypatch.setattr(environments, "uv", note)
    monkeypatch.setattr(environments, "warm_up", lambda _: None)
    assert builder.built(["jax==1"], "python3.13", "3.13") == path
    assert asked == ["venv", "pip"]
    assert not (path / "half").exists()
    assert (path / MARK).exists()


def test_current_is_where_this_runs(builder: Builder) -> None:
    found = builder.environment(parse("current"))
    assert found.place.command[0] == sys.executable
    assert found.pins == ()
    assert not builder.folder.exists()


def test_a_revision_that_is_none_is_said_to_be(builder: Builder) -> None:
    said = fails(builder, "no-such-branch")
    assert said.startswith("there is no revision 'no-such-branch' of this project")


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
    before = git("status", "--porcelain")
    found = builder.environment(parse("HEAD"), [minor()])
    assert found.commit == git("rev-parse", "HEAD")
    assert found.place.root == builder.folder.parent / "revisions" / str(found.commit)
    assert (found.place.root / "impls/pure_jax.py").exists()
    assert found.place.variables["PYTHONPATH"].split(os.pathsep)[0] == str(found.place.root)
    assert git("status", "--porcelain") == before
    assert git("worktree", "list").count("\n") == 0


@pytest.mark.usefixtures("history")
def test_a_revision_that_cannot_measure_is_said_not_to_build(builder: Builder) -> None:
    first = git("rev-list", "--max-parents=0", "HEAD").split()[0]
    assert f"the revision '{first}' does not build: it has no" in fails(builder, first)


def test_what_uv_says_is_put_on_one_line() -> None:
    text = (
        "warning: something\n"
        "  × No solution found when resolving dependencies:\n"
        "  ╰─▶ Because there is no version of flax==99 and you require flax==99, we\n"
        "      can conclude that your requirements are unsatisfiable.\n"
        "\n  hint: Pre-releases are available\n"
    )
    assert said(text) == (
        "Because there is no version of flax==99 and you require flax==99, we can conclude that "
        "your requirements are unsatisfiable"
    )


def test_arguments_of_uv_reach_no_shell() -> None:
    with pytest.raises(UnsolvableError):
        uv("python", "find", "$(touch /tmp/never); 3.99")


def test_main_pins() -> None:
    assert main_pins(["jax==1", "scipy==2", "flax==3"]) == ["jax==1", "flax==3"]
