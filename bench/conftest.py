"""Options of `pytest bench`, the start of a run, and the fixture of its benchmarks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import impls
from bench import streams
from bench.cells import Selection, require_known
from bench.engine import journal as journals
from bench.engine.machine import require_free_machine
from bench.environments.builder import Builder
from bench.environments.spec import CURRENT, parse
from bench.files import require_new
from bench.options import ABOUT, BY_BUDGET, NAMES, Options
from bench.plugin import MARK, RunPlugin, exit_on_wrong_use
from bench.prepare.run import prepare_run
from bench.runfile.writer import write

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.cells import Cell

EVERYBODY = "all"
"""Value of `--entrant` for all entrants, with those that have environments of their own."""
TABLE_OPTIONS = tuple(
    f"--benchmark-{name}"
    for name in ("verbose", "columns", "sort", "group-by", "name", "histogram", "compare")
)
"""Beginnings of pytest-benchmark's options that ask for its own table."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that select cells, and that say how much is measured."""
    group = parser.getgroup("bakeoff", "jax-bakeoff: what to measure, and for how long")
    for name, default in NAMES.items():
        text = f"only this {name}; for several, repeat the option or give a,b (default: {default})"
        group.addoption(f"--{name}", action="append", default=[], metavar="NAME", help=text)
    for name, about in ABOUT.items():
        default, text = getattr(Options(), name), about["help"]
        if default is not False:
            text += f" (default: {BY_BUDGET if default is None else default})"
        flag = f"--{name.replace('_', '-')}"
        group.addoption(flag, default=default, **about | {"help": text})
    group.addoption(
        "--resume",
        nargs="?",
        const="",
        metavar="FILE",
        help="continue an earlier run of the same command; with FILE, add a further budget to that "
        "run file; without, continue the run that was cut off last, which is in "
        f"{journals.FOLDER}/",
    )
    group.addoption(
        "--wait",
        action="store_true",
        help="wait until other runs on this machine have ended; without it, they are an error",
    )
    group.addoption(
        "--environment",
        metavar="SPEC",
        default=CURRENT,
        help="measure in an environment that uv builds, with the releases of a day, as in "
        "@2025-12-01, or with given ones, as in flax==0.12.8 (default: the current environment)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark of benchmarks, and set two options of pytest-benchmark."""
    streams.prepare_streams()
    config.addinivalue_line("markers", f"{MARK}(metric, cell): what a benchmark measures")
    # pytest-benchmark skips tests without its fixture as an argument; ours ask for it later.
    config.option.benchmark_only = False
    # Its own table takes whatever is fastest as 1.0: it is shown if one of its options is given.
    given = config.invocation_params.args
    asked = any(str(argument).startswith(TABLE_OPTIONS) for argument in given)
    config.option.benchmark_quiet = not asked


def pytest_sessionstart(session: pytest.Session) -> None:
    """Prepare the run; exit with one line where an option is wrong or another run is going on."""
    config = session.config
    if config.getoption("numprocesses", None):
        pytest.exit("-n is for tests; benchmarks are measured one at a time: leave it out", 2)
    with exit_on_wrong_use():
        selection = parse_selection(config)
        options = Options(**{name: config.getoption(name) for name in ABOUT})
        options.check()
        if path := config.getoption("benchmark_json"):
            require_new(path, "--benchmark-json")
            benchmarks: Any = config.pluginmanager.get_plugin("pytest-benchmark")
            benchmarks.save_json = partial(write, path)
        if (resume := config.getoption("--resume")) is not None:
            next(journals.open_journals("run", resume))  # raises if there is nothing to resume
        if not config.getoption("collectonly"):
            journals.require_journals_folder()
        if not (config.getoption("collectonly") or config.getoption("--wait")):
            require_free_machine()
        spec = parse(config.getoption("--environment"), "--environment", revisions=False)
        arguments = tuple(map(streams.clean_argument, config.invocation_params.args))
        builder = Builder(notify=streams.say)
        task, metrics = prepare_run(selection, options, spec, builder, arguments)
    config.pluginmanager.register(RunPlugin(config, task, metrics), RunPlugin.NAME)


def parse_selection(config: pytest.Config) -> Selection:
    """Return the selection that options name; raise BakeoffError where a name is unknown."""
    selection = Selection.parse({name: config.getoption(f"--{name}") for name in NAMES})
    known = [*impls.names(), *selection.files]
    require_known("entrant", selection.entrants, [*known, EVERYBODY])
    if EVERYBODY in selection.entrants:
        selection = replace(selection, entrants=tuple(known))
    selection.check_names()
    selection.check_styles()
    return selection


@pytest.fixture
def replay(request: pytest.FixtureRequest, cell: Cell, metric: str) -> Callable[[], None]:
    """Return a function that passes a cell's samples to pytest-benchmark, or fails or skips."""
    plugin: Any = request.config.pluginmanager.get_plugin(RunPlugin.NAME)
    return partial(plugin.replay, request, cell, metric)
