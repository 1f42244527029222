import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import jax
import pytest

import impls
from bench.environments.uv import compile_pins
from common.contract import TrainStep
from common.equality import Case, make
from common.errors import BakeoffError
from common.versions import PYTHON
from tests.commands import Bakeoff, Done, StepOf

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Have programs compiled once for all processes of a test session, and quickly.

    XLA optimises them as always, which exact counts show; LLVM does not, which takes much of the
    time where programs are small. The benchmark's own workers share no programs:
    `bench.worker.settings` switches that off.
    """
    if hasattr(config, "workerinput"):  # a worker of xdist has its parent's variables
        temporary = tempfile.TemporaryDirectory(prefix="bakeoff-tests-")
        config.add_cleanup(temporary.cleanup)
        os.environ["TMPDIR"] = tempfile.tempdir = temporary.name
        os.environ["BAKEOFF_LOCK_FOLDER"] = temporary.name
        return
    folder = tempfile.TemporaryDirectory(prefix="bakeoff-programs-")
    config.add_cleanup(folder.cleanup)
    settings = {
        "jax_compilation_cache_dir": folder.name,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    for name, value in settings.items():  # variables are for other processes
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


LONGEST = ("test_kills.py", "test_stacks.py", "test_new.py", "test_damaged.py")
"""Files that take minutes, the longest first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no core waits at the end for another one's."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(autouse=True)
def imports_of_users(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget after a test the modules of a user's own that it has imported."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name.startswith(("entrant_", "step_"))]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def needs_network() -> None:
    """Skip where uv reaches no package index."""
    try:
        compile_pins(["jmp==0.0.4"], PYTHON)
    except BakeoffError:
        pytest.skip("uv reaches no package index")


@pytest.fixture(scope="session")
def heard() -> Callable[[list[str]], list[str]]:
    """Return what makes a command hear Ctrl-C even where a shell has it ignored."""
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return lambda command: [sys.executable, "-c", code, *command]


@pytest.fixture(scope="session")
def step_of() -> StepOf:
    """Return what makes an entrant's style's step; compiled once a session, so load it first."""

    @cache
    def made(entrant: str, style: str, case: Case) -> TrainStep:
        return make(impls.load(entrant).style(style), case)

    return made


@pytest.fixture
def bakeoff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bakeoff:
    """Run the command line in this process, in an empty folder, with an empty cache."""
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAKEOFF_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        return Done(main(list(arguments)), *capsys.readouterr())

    return run
