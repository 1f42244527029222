"""Environments: what is asked for, how uv resolves and builds it, what workers say they have.

What needs a package index skips where uv reaches none. That real libraries of environments of their
own are built and measured is tests/test_stacks.py's.
"""

import datetime
import os
import sys
import threading
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from filelock import FileLock

import impls
from bench import environments
from bench.engine.process import Interpreter, WorkerFailedError
from bench.engine.task import Environment
from bench.environments import ask_environment, uv
from bench.environments import builder as builders
from bench.environments.builder import INTERPRETER, LOCK, LOCKS, MARK, Builder
from bench.environments.spec import Spec, make_entrant_spec, parse
from bench.offer import Offer
from bench.runfile import EnvironmentInfo
from bench.worker.protocol import Describe
from bench.worker.settings import ROOT
from common.versions import COMMON, PYTHON
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


def test_the_contents_of_a_spec(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions to uv, and their answers that are kept."""
    current = builder.build(parse("current"))
    assert (current.interpreter.command[0], current.info.pins) == (sys.executable, {})
    assert not builder.folder.exists()
    compile_pins = Mock(return_value=("jax==0.8.1",))
    monkeypatch.setattr(uv, "compile_pins", compile_pins)

    def ask(text: str) -> tuple[list[str], Any, Any]:
        """Return the requirements, the day and the preferences of the last question to uv."""
        assert builder.resolve(parse(text), ROOT, "3.13").pins == ("jax==0.8.1",)
        about = compile_pins.call_args.kwargs
        assert about["python"] == "3.13"
        return compile_pins.call_args.args[0], about["date"], about["preferences"]

    day = datetime.date(2025, 12, 1)
    assert ask("@2025-12-01") == ([*COMMON, "equinox", "flax", "dm-haiku"], day, ())
    pinned = [*COMMON, "flax==0.12.0", "equinox", "dm-haiku"]
    assert ask("@2025-12-01,flax==0.12.0") == (pinned, None, ("jax==0.8.1",))
    assert ask("flax==0.12.0") == (pinned, None, uv.list_pins())
    assert compile_pins.call_count == 3, "the stack of the day is known"
    ask("flax==0.12.0")
    assert compile_pins.call_count == 3
    monkeypatch.setattr(builders, "today", lambda: day)
    for number in (4, 4):  # that day may bring other releases, and no others once it is over
        ask("@2025-12-01")
        assert compile_pins.call_count == number


@pytest.mark.parametrize("name", APART)
def test_requirements_of_an_entrant_are_pinned_and_locked(name: str) -> None:
    about, text = impls.read_declaration(name), (LOCKS / f"{name}.txt").read_text()
    pins = {pin.split("==")[0]: pin for pin in builders.read_pins(LOCKS / f"{name}.txt")}
    common = {pin.split("==")[0]: pin for pin in builders.read_pins(ROOT / LOCK)}
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
    with pytest.raises(uv.UnsolvableError) as error:
        builder.build(parse(spec), [PYTHON])
    assert str(error.value).startswith(f"{spec} cannot be built with Python {PYTHON}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@needs_network
def test_preferred_releases_are_kept_and_optional_ones_left_out_where_they_do_not_fit() -> None:
    some = uv.compile_pins(["jmp", "numpy==2.2.6"], PYTHON, None, ["jmp==0.0.3", "numpy==2.3.0"])
    assert {"jmp==0.0.3", "numpy==2.2.6"} <= {*some}
    solve = partial(uv.compile_pins, python=PYTHON)
    resolution = uv.resolve(["numpy==2.2.6"], ["numpy<2", "jmp"], solve)
    assert list(resolution.gaps) == ["numpy<2"]
    assert "numpy==2.2.6" in resolution.pins
    assert any(pin.startswith("jmp==") for pin in resolution.pins)


@needs_network
def test_releases_that_are_resolved_once(
    builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resolution = builder.resolve(parse("numpy==2.2.6"), ROOT, PYTHON)
    assert "numpy==2.2.6" in resolution.pins
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    assert builder.resolve(parse(" numpy==2.2.6 "), ROOT, PYTHON) == resolution
    offline = refusal(builder.build, parse("numpy==2.2.5"), [PYTHON])
    assert "package index cannot be reached" in offline


@needs_network
def test_releases_of_a_package_for_the_python_of_an_environment(builder: Builder) -> None:
    """`bisect` looks them up: once, it gave the path of a Python where uv takes a version."""
    python = builder.build(parse("current")).python
    assert uv.list_releases("jax", "0.7.0", "0.8.0", python) == ["0.7.1", "0.7.2"]


@needs_network
def test_the_jax_of_the_day_of_a_release() -> None:
    """Flax 0.12.0 does not import with today's."""
    words = uv.suggest_stack("flax", "0.12.0", PYTHON)
    assert words == (
        "flax 0.12.0 is of 2025-09-25, as jax==0.7.2 is: give `flax==0.12.0,jax==0.7.2`, or "
        "`@2025-09-25`"
    )
    with pytest.raises(uv.UnsolvableError):
        uv.suggest_stack("flax", "0.0.0.1", PYTHON)


# What is built


def put_environment(builder: Builder, pins: tuple[str, ...], python: str) -> Path:
    """Make the folder of an environment that seems to be complete, and return it."""
    path = builder.name_folder(pins, python)
    (path / INTERPRETER).parent.mkdir(parents=True)
    (path / INTERPRETER).touch()
    (path / MARK).touch()
    return path


def test_a_complete_environment_is_used_as_it_is(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_environment(builder, builders.read_entrant_lock("penzai"), PYTHON)
    monkeypatch.setattr(uv, "run_uv", None)  # it would fail
    assert builder.find_folder("penzai") == path
    built = builder.build_entrant("penzai")
    assert (built.interpreter.command[0], built.python) == (str(path / INTERPRETER), PYTHON)


def test_an_environment_that_another_process_builds_is_waited_for(builder: Builder) -> None:
    wanted, waiting = (Spec("x"), ("jax==1",), "3.13"), threading.Event()
    path = builder.name_folder(*wanted[1:])
    builder.folder.mkdir(parents=True)
    with FileLock(f"{path}.lock"):
        notified = replace(builder, notify=lambda _: waiting.set())
        other = threading.Thread(target=notified.install, args=wanted)
        other.start()
        assert waiting.wait(10)
        put_environment(builder, *wanted[1:])
        (path / "as it was").touch()
    other.join(10)
    assert not other.is_alive()
    assert (path / "as it was").exists()


@needs_network
def test_an_incomplete_environment_is_built_anew(builder: Builder) -> None:
    """It is compiled to bytecode; and without jax, the baseline cannot be loaded in it."""
    pins = ("jmp==0.0.4",)
    path = put_environment(builder, pins, PYTHON)
    (path / INTERPRETER).unlink()
    (path / "left behind").touch()
    with pytest.raises(uv.UnsolvableError, match=r"not run together: .*No module named"):
        builder.install(Spec("x"), pins, PYTHON)
    assert not (path / "left behind").exists()
    assert not (path / MARK).exists()
    [package] = path.glob("[lL]ib/**/site-packages/jmp")
    assert list(package.glob("__pycache__/__init__.*.pyc"))


def test_a_revision_runs_its_own_code_and_the_checkout_stays_as_it_is(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (ROOT / ".git").exists() or git(ROOT, "rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("the history of this project is not at hand")
    built = Mock(return_value=(builder.folder, PYTHON, {}))
    monkeypatch.setattr(Builder, "install_first", built)  # where the revision has another lock
    before = git(ROOT, "stash", "list"), git(ROOT, "worktree", "list")
    head = builder.build(parse("HEAD"), [PYTHON])
    assert head.info.commit == git(ROOT, "rev-parse", "HEAD")
    assert head.interpreter.root == builder.folder.parent / "revisions" / str(head.info.commit)
    assert (head.interpreter.root / "impls/pure_jax.py").exists()
    assert head.interpreter.variables["PYTHONPATH"].split(os.pathsep)[0] == str(
        head.interpreter.root
    )
    assert (git(ROOT, "stash", "list"), git(ROOT, "worktree", "list")) == before
    first = git(ROOT, "rev-list", "--max-parents=0", "HEAD").split()[0]
    wrong = dict.fromkeys(("no-such-branch", "HEAD..HEAD", "main; ls"), "there is no")
    for revision, words in (wrong | {first: "it has no"}).items():
        message = refusal(builder.build, parse(revision), [PYTHON])
        assert f"revision {revision!r}" in message
        assert words in message


# What workers say

OFFER = Offer({"pure_jax": ["pure"]}, {}, ["cpu", "gpu"], {"python": "3.13.5", "jax": "0.12"}, {})


def test_an_entrant_that_kills_its_worker_costs_itself_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ask_once(command: Describe, *_: Any) -> dict[str, Any]:
        if "mine" in command.entrants:
            raise WorkerFailedError(
                "worker failed (exit status 3)", "no https://a:b@h/x", 1
            )  # at its turn
        styles = {name: ["pure"] for name in command.entrants}
        missing = {"stax": {"jit": "needs more"}}
        return {**asdict(OFFER), "styles": styles, "missing": missing, "a later field": 1}

    monkeypatch.setattr(environments, "ask_once", ask_once)
    info = EnvironmentInfo(versions={"jax": "0.12+c0ffee"})
    side = ask_environment(Environment(Interpreter(), info), ("mine", "stax"), {})
    assert side.offer.styles.keys() == {"pure_jax", "stax"}
    why = "import failed: worker failed (exit status 3): no https://***@h/x"
    assert side.offer.problems == {"mine": why}
    assert side.info.gaps == {**side.offer.problems, "stax/jit": "needs more"}
    assert side.info.versions == {"python": "3.13.5", "jax": "0.12+c0ffee"}


def test_an_entrant_of_a_users_own_declares_its_environment(
    tmp_path: Path, builder: Builder
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(TWIN)
    spec = make_entrant_spec(path)
    assert builder.list_requirements(spec) == (["jmp==0.0.4", *COMMON], [])
    assert builder.choose_releases(spec, ROOT, "3.12") == (None, builders.read_pins(ROOT / LOCK))
    assert (builders.choose_pythons(path), builders.read_entrant_lock(path)) == (["3.12"], ())
    path.write_text(TWIN.replace("==3.12.*", "==2.7.*"))
    problem = refusal(builder.build_entrant, path)
    assert problem.startswith("entrant 'mine' requires Python '==2.7.*'; this project runs on")


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
        message = refusal(lambda: builders.require_own(folder))
        assert problem in message
        assert message.endswith("name one by BAKEOFF_CACHE that is yours alone")
    else:
        builders.require_own(folder)
        assert folder.stat().st_mode & 0o777 in (0o700, 0o750)
