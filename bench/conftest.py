"""Options of `pytest bench`, its cells, and the replay of samples into pytest-benchmark."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import pytest
from rich.console import Console

import impls
from bench import streams
from bench.cells import Cell, Selection, parse_entrants, require_known
from bench.engine import journal as journals
from bench.engine.machine import machine_lock
from bench.engine.process import WorkerFailedError, choose_silence
from bench.engine.session import Measurement, measure
from bench.environments.builder import Builder
from bench.environments.spec import CURRENT, parse
from bench.metrics import METRICS
from bench.options import ABOUT, BY_BUDGET, NAMES, Options, parse_names
from bench.prepare.run import prepare_run
from bench.report import terminal
from bench.report.run import document
from bench.runfile.reader import Run
from bench.runfile.writer import write
from bench.signals import interrupt_on_signals
from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from bench.engine.task import Task
    from bench.samples import Sample

EVERYBODY = "all"
TABLE_OPTIONS = tuple(
    f"--benchmark-{name}"
    for name in ("verbose", "columns", "sort", "group-by", "name", "histogram", "compare")
)
"""Beginnings of pytest-benchmark's options that ask for its own table."""
MOST_BEFORE = 600.0
"""Most seconds that pytest can have run before measuring: more, such as days, comes from another
machine's /proc."""


@dataclass
class Bench:
    """One `pytest bench`: its task, its cells, and its measurement."""

    task: Task
    """Task; until collection ends, of all environments, then of what `-k` leaves."""
    metrics: dict[Cell, list[str]]
    """Selected cell → its metrics."""
    measurement: Measurement | None = None
    numbers: int = 0
    """Number of benchmarks that have samples."""

    def environment(self, cell: Cell) -> str:
        """Return the environment that a cell is measured in; empty for the shared one."""
        return cell.entrant if cell.entrant in self.task.sides else ""

    def samples(self, cell: Cell, metric: str) -> list[Sample]:
        """Return a cell's samples of a metric; its library's, if all of its styles share them."""
        assert self.measurement is not None
        rows = [
            sample
            for sample in self.measurement.samples
            if (sample.metric, sample.environment) == (metric, self.environment(cell))
            and sample.cell._replace(style=cell.style) == cell
        ]
        shared = METRICS[metric].of_library
        return [sample for sample in rows if sample.cell == cell] or (rows if shared else [])

    def advice(self) -> str:
        """Return how to go on where there is no run file; empty where there is one."""
        assert self.measurement is not None
        if self.measurement.interrupted:
            return (
                "interrupted: no run file is written; what was measured is safe. Go on with:\n"
                f"  {self.measurement.resume_command}"
            )
        if not self.numbers and all(row.failure for row in self.measurement.results.cells):
            return "no benchmark has a number, so no run file is written: every style failed."
        if not self.numbers:
            return (
                "no benchmark has a number, so no run file is written: give a larger --budget than "
                f"{self.task.options.budget:g}, or fewer entrants, styles or workloads. What was "
                f"measured is in {self.measurement.journal.path}"
            )
        return ""


BENCH = pytest.StashKey[Bench]()
LOCK = pytest.StashKey[Any]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that select cells, and that say how much is measured."""
    group = parser.getgroup("bakeoff", "jax-bakeoff: what to measure, and for how long")
    for name, default in NAMES.items():
        text = f"measure this {name} only; may be given again, or as a,b (default: {default})"
        group.addoption(f"--{name}", action="append", default=[], metavar="NAME", help=text)
    for name, about in ABOUT.items():
        default, text = getattr(Options, name), about["help"]
        if default is not False:
            text += f" (default: {BY_BUDGET if default is None else default})"
        flag = f"--{name.replace('_', '-')}"
        group.addoption(flag, default=default, **about | {"help": text})
    group.addoption(
        "--resume",
        nargs="?",
        const="",
        metavar="JOURNAL",
        help="go on with a run that was cut off, given the same options: the newest one in "
        f"{journals.FOLDER}/, or this one",
    )
    group.addoption(
        "--more",
        metavar="RUN.json",
        help="go on with what the same command has written to RUN.json: its samples count, too",
    )
    group.addoption(
        "--wait",
        action="store_true",
        help="wait for another run on this machine; without it, that is an error",
    )
    group.addoption(
        "--environment",
        metavar="SPEC",
        default=CURRENT,
        help="measure in an environment of other releases, which uv builds: a day, @2025-12-01, or "
        "releases, flax==0.12.8 (default: the one at hand)",
    )


@contextmanager
def exit_on_wrong_use() -> Iterator[None]:
    """Turn an error of use into one line and exit status 2."""
    try:
        yield
    except (BakeoffError, WorkerFailedError) as error:
        hint = f"; {journals.SAFE}" if isinstance(error, journals.DiskError) else ""
        pytest.exit(streams.one_line(f"{error}{hint}"), returncode=2)


def pytest_configure(config: pytest.Config) -> None:
    """Set the options of pytest-benchmark that this suite decides."""
    # pytest-benchmark looks for its fixture in a test's arguments, where ours are not.
    config.option.benchmark_only = False
    # Its own table takes whatever is fastest as 1.0: it is shown to who asks it for something.
    given = config.invocation_params.args
    asked = any(str(argument).startswith(TABLE_OPTIONS) for argument in given)
    config.option.benchmark_quiet = not asked


def pytest_sessionstart(session: pytest.Session) -> None:
    """Prepare the task; exit with one line where a name or number is wrong."""
    config = session.config
    if config.getoption("numprocesses", None):
        pytest.exit("-n is for tests; benchmarks are measured one at a time: leave it out", 2)
    with exit_on_wrong_use():
        selection = parse_selection(config)
        options = Options(**{name: config.getoption(name) for name in ABOUT})
        options.check()
        if path := config.getoption("benchmark_json"):
            require_new(path, "--benchmark-json")
            plugin: Any = config.pluginmanager.get_plugin("pytest-benchmark")
            plugin.save_json = partial(write, path)
        if (resume := config.getoption("--resume")) is not None:
            next(journals.open_journals("run", resume))
        if not config.getoption("collectonly"):
            config.stash[LOCK] = machine_lock(wait=config.getoption("--wait"))
        silence, builder = choose_silence(options.budget), Builder(notify=streams.say)
        spec = parse(config.getoption("--environment"), "--environment", revisions=False)
        arguments = tuple(map(str, config.invocation_params.args))
        task, metrics = prepare_run(selection, options, spec, builder, silence, arguments)
        config.stash[BENCH] = Bench(task, metrics)


def parse_selection(config: pytest.Config) -> Selection:
    """Return the selection that options name; raise BakeoffError where a name is unknown."""
    names = {name: parse_names(config.getoption(f"--{name}")) for name in NAMES}
    entrants, files = parse_entrants(names["entrant"])
    if EVERYBODY in entrants:
        entrants = (*impls.names(), *files)
    require_known("entrant", entrants, [*impls.names(), *files, EVERYBODY])
    selection = Selection(
        entrants, names["style"], names["workload"], names["backend"], names["metric"], files
    )
    selection.check_names()
    selection.check_styles()
    return selection


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one benchmark for each selected cell and each of the file's `METRICS` that it has."""
    if "cell" in metafunc.fixturenames:
        metrics = metafunc.config.stash[BENCH].metrics
        names = metafunc.module.METRICS
        pairs = [(name, cell) for name in names for cell in metrics if name in metrics[cell]]
        metafunc.parametrize(("metric", "cell"), pairs, ids=[f"{m}-{c}" for m, c in pairs])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the placeholders of files that have nothing to measure in this run."""
    ours = [item for item in items if "cell" in getattr(item, "fixturenames", ())]
    empty = [item for item in ours if not find_params(item)]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


def find_params(item: pytest.Item) -> dict[str, Any]:
    """Return the cell and metric of a benchmark; empty for other tests."""
    callspec: Any = getattr(item, "callspec", None)
    params = dict(callspec.params) if callspec is not None else {}
    return params if isinstance(params.get("cell"), Cell) else {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Reduce the task to the cells and metrics that `-k` has left."""
    if (bench := session.config.stash.get(BENCH, None)) is None:
        return
    needed: dict[str, dict[Cell, frozenset[str]]] = {}
    for item in session.items:
        if params := find_params(item):
            cell: Cell = params["cell"]
            cells = needed.setdefault(bench.environment(cell), {})
            cells[cell] = cells.get(cell, frozenset()) | {params["metric"]}
    entrants = dict.fromkeys(cell.entrant for _, cells in sorted(needed.items()) for cell in cells)
    bench.task = replace(
        bench.task,
        needed=dict(sorted(needed.items())),
        sides={name: bench.task.sides[name] for name in sorted(needed)},
        notes={name: note for name in entrants if (note := find_note(name, bench.task.outside))},
    )


def find_note(entrant: str, files: Mapping[str, str]) -> str:
    """Return the sentence about an entrant that results repeat; often empty."""
    return impls.find_declaration(impls.locate(entrant, files)).note


def find_reporter(config: pytest.Config) -> Any:
    """Return pytest's terminal reporter, at the beginning of a line."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reporter.ensure_newline()
    return reporter


def make_console(config: pytest.Config) -> Console:
    """Return a console at the beginning of a line, with the width and colours of pytest's."""
    find_reporter(config)
    writer = config.get_terminal_writer()
    return Console(
        width=writer.fullwidth,
        force_terminal=writer.hasmarkup,
        no_color=not writer.hasmarkup,
        highlight=False,
    )


def measure_once(request: pytest.FixtureRequest) -> Measurement:
    """Measure on the first call; return that measurement on every call.

    If measuring breaks off, no other test is run.
    """
    config, bench = request.config, request.config.stash[BENCH]
    if bench.measurement is None:
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        before = time.time() - psutil.Process().create_time()
        try:
            with (
                interrupt_on_signals(),
                capture.global_and_fixture_disabled(),
                exit_on_wrong_use(),
                terminal.Progress(make_console(config), bench.task.options.budget) as progress,
            ):
                more = config.getoption("--more")
                bench.measurement = measure(
                    bench.task,
                    before=before if 0 <= before <= MOST_BEFORE else 0.0,
                    resume=config.getoption("--resume"),
                    on_progress=progress,
                    more=Path(more) if more else None,
                    partial=True,
                )
        finally:
            if bench.measurement is None:
                request.session.shouldstop = "the run broke off"
        if bench.measurement.interrupted:
            request.session.shouldstop = "interrupted"
    return bench.measurement


@pytest.fixture
def replay(request: pytest.FixtureRequest, cell: Cell, metric: str) -> Callable[[], None]:
    """Return a function that passes a cell's samples to pytest-benchmark, or fails or skips."""

    def hand_over() -> None:
        bench = request.config.stash[BENCH]
        outcome = measure_once(request)
        if outcome.interrupted:
            pytest.skip("interrupted")
        [row] = [row for row in outcome.results.cells if row.cell == cell]
        if row.failure is not None:
            pytest.fail(f"{cell}: {row.failure}", pytrace=False)
        samples = bench.samples(cell, metric)
        if metric in row.missing or not samples:
            pytest.skip(row.missing.get(metric, "not measured within the budget"))
        bench.numbers += 1
        if not METRICS[metric].varies:  # a loss is no time
            return
        benchmark = request.getfixturevalue("benchmark")
        group, unit = f"{cell.workload} {cell.backend} {metric}", METRICS[metric].unit
        benchmark.group = group if unit in ("s", "") else f"{group} ({unit})"
        benchmark.extra_info |= cell._asdict() | {"metric": metric, "unit": unit}
        benchmark._mode = "replay"  # else it warns that it was not used
        if benchmark.enabled:
            stats = benchmark._make_stats(iterations=1)
            for sample in samples:
                stats.update(sample.typical)

    return hand_over


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add the run's results and samples to the run file, failed cells and reasons included."""
    outcome = config.stash[BENCH].measurement
    assert outcome is not None
    output_json["bakeoff"] = msgspec.to_builtins(outcome.results, enc_hook=float)
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)  # samples stand in `bakeoff.samples`, once
        benchmark["options"] = {}  # of no use to samples that workers took
        benchmark["params"] = {name: str(value) for name, value in benchmark["params"].items()}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Say where the run file is, then drop the journal: all that it holds is in the file."""
    config = session.config
    path = config.getoption("benchmark_json")
    try:
        yield
    except (OSError, BakeoffError) as error:  # the run file, or one that pytest-benchmark saves
        session.exitstatus = pytest.ExitCode.INTERRUPTED
        problem = error.__cause__ or error
        words = str(problem)
        if isinstance(problem, OSError):
            name = str(path or problem.filename or "the saved run")
            words = f"{journals.describe_disk_error(problem, name)}; {journals.SAFE}"
        find_reporter(config).write_line(words, red=True)
    except Exception:  # `--benchmark-compare-fail` has something to say, after it has written
        conclude(session, path)
        raise
    else:
        conclude(session, path)


def conclude(session: pytest.Session, path: Path | None) -> None:
    """Set the exit status of a run, and drop its journal if it is no longer needed."""
    bench = session.config.stash.get(BENCH, None)
    if bench is None or bench.measurement is None:
        return
    if path is not None and path.exists():
        find_reporter(session.config).write_line(f"run file: {path}")
    if bench.measurement.interrupted:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    elif not bench.numbers:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif path is None or path.exists():
        bench.measurement.journal.remove()


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Show the report, after pytest-benchmark's output."""
    try:
        yield
    finally:
        bench = config.stash.get(BENCH, None)
        if bench is not None and bench.measurement is not None:
            terminalreporter.section("bakeoff")
            console = make_console(config)
            report = document(Run("", bench.measurement.results))
            terminal.show(report, console, details=config.get_verbosity() > 0)
            if advice := bench.advice():
                console.print(advice, markup=False, soft_wrap=True)
