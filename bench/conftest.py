"""Options of `pytest bench`, its cells, and the replay of samples into pytest-benchmark."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import pytest
from rich.console import Console

import impls
from bench import streams
from bench.cells import Cell, Selection
from bench.engine import journal as journals
from bench.engine.actions import ALL, AUTO, ONE, Options
from bench.engine.machine import only_one
from bench.engine.processes import SILENCE_SECONDS, WorkerFailedError
from bench.environments.builder import Builder
from bench.environments.offers import offers, places_of
from bench.environments.spec import parse
from bench.metrics import METRICS, Kind
from bench.report import text
from bench.report.progress import Shown
from bench.report.run import document
from bench.run import Header, Measurement, Request, read_header
from bench.runfile.atomic_write import Whole, written
from bench.runfile.reader import Run
from bench.runfile.writer import entry, group_of
from bench.worker.settings import conditions
from common.config import check_rate, check_size
from common.devices import MOST_DEVICES
from common.errors import BakeoffError, require_new, unknown
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from bench.cells import Offer
    from bench.engine.processes import Place

MEASUREMENT = pytest.StashKey[Measurement]()
CELLS = pytest.StashKey[list[Cell]]()
LOCK = pytest.StashKey[Any]()
EVERYBODY = "all"
CPU_DEVICES = "JAX_NUM_CPU_DEVICES"
"""Variable that says how many devices XLA makes of a CPU."""
TABLE_OPTIONS = tuple(
    f"--benchmark-{name}"
    for name in ("verbose", "columns", "sort", "group-by", "name", "histogram", "compare")
)
"""Options of pytest-benchmark that are about its own table, and beginnings of others."""
MOST_BEFORE = 600.0
"""Seconds that pytest may have run before anything is measured."""


def names(what: str, default: str) -> dict[str, Any]:
    """Return the settings of an option that takes names."""
    text = f"measure this {what} only; may be given again, or as a,b (default: {default})"
    return {"action": "append", "default": [], "metavar": "NAME", "help": text}


def count(what: str, default: str = "the planner chooses, within the budget") -> dict[str, Any]:
    """Return the settings of an option that takes a number."""
    return {"type": int, "metavar": "N", "help": f"{what} (default: {default})"}


def number(text: str, default: float, metavar: str) -> dict[str, Any]:
    """Return the settings of an option that takes a number with a default."""
    return {"type": float, "default": default, "metavar": metavar, "help": text}


def words(text: str, metavar: str, **settings: Any) -> dict[str, Any]:
    """Return the settings of any other option."""
    return {"help": text, "metavar": metavar, **settings}


OPTIONS: dict[str, dict[str, Any]] = {
    "entrant": names(
        "entrant",
        "the JAX libraries of this environment; all for everybody's, which builds what is missing; "
        "an entrant of your own by the path of its .py file",
    ),
    "style": names("style", "all"),
    "workload": names("workload", "toy and seed; sweep stands for widths 8 to 1024"),
    "backend": names("backend", "all that jax offers"),
    "metric": names("metric", "all; of a sweep, step"),
    "budget": number(
        "wall time for the whole run, shared out by a planner (default: 300)", 300.0, "SECONDS"
    ),
    "margin": number(
        "within this fraction, two times are called equivalent (default: 0.02)", 0.02, "FRACTION"
    ),
    "resume": words(
        "go on with a run that was cut off, given the same options: the newest one in "
        f"{journals.FOLDER}/, or this one",
        "JOURNAL",
        nargs="?",
        const="",
    ),
    "devices": words(
        "share streams between so many devices, as in 1,2,4, for bench/test_scaling.py; on a CPU, "
        "XLA is told to make as many of it (default: none)",
        "N,N",
        default="",
    ),
    "environment": words(
        "measure in an environment of other releases, which uv builds: a day, @2025-12-01, or "
        "releases, flax==0.12.8 (default: the one at hand)",
        "SPEC",
    ),
    "cores": words(
        "which cores workers use: all, as users run it; one each, pinned and several workers at a "
        "time, which is far more precise; auto takes all for the time of a step, and one for what "
        "the host costs and what happens once (default: auto)",
        "all|one|auto",
        choices=(AUTO, ALL, ONE),
        default=AUTO,
    ),
    "processes": count(
        "workers that share the blocks",
        "1 where --blocks is given, else the planner chooses, within the budget",
    ),
    "blocks": count("blocks of interleaved rounds over fresh buffers, in each worker"),
    "rounds": count("rounds in a block: one turn of everybody"),
    "cold-samples": count(
        "fresh processes for each cell's cold metrics, twice as many of the baseline"
    ),
}
MOST = {"budget": (7 * 24 * 3600, "give seconds"), "margin": (0.5, "0.02 is 2 %")}
COUNTS = ("processes", "blocks", "rounds", "cold-samples")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that select cells, and how much is measured."""
    group = parser.getgroup("bakeoff", "jax-bakeoff: what to measure, and for how long")
    for option, settings in OPTIONS.items():
        group.addoption(f"--{option}", **settings)


@contextmanager
def wrong_use_ends() -> Iterator[None]:
    """End with one line and status 2 where what was given is wrong."""
    try:
        yield
    except (BakeoffError, WorkerFailedError) as error:
        pytest.exit(streams.one_line(error), returncode=2)


def pytest_configure(config: pytest.Config) -> None:
    """Have the run file appear whole or not at all."""
    path = config.getoption("benchmark_json")
    if path is not None:
        config.option.benchmark_json = Whole(path)
    # pytest-benchmark looks for its fixture in a test's arguments, where ours are not.
    config.option.benchmark_only = False
    # Its own table takes whatever is fastest as 1.0: it is shown to who asks it for something.
    given = config.invocation_params.args
    asked = any(str(argument).startswith(TABLE_OPTIONS) for argument in given)
    config.option.benchmark_quiet = not asked


@pytest.hookimpl(tryfirst=True)
def pytest_plugin_registered(plugin: Any) -> None:
    """Have a full standard output cost what is shown, not what was measured."""
    if isinstance(plugin, pytest.TerminalReporter) and plugin._tw._file is sys.stdout:
        with suppress(OSError, ValueError):  # no file, as in a test: it stays as it is
            plugin._tw._file = streams.opened(sys.stdout.fileno(), sys.stdout, lenient=True)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Find out what there is to measure; end with one line where a name or number is wrong."""
    config = session.config
    with wrong_use_ends():
        request = request_of(config)
        path = config.getoption("benchmark_json")
        if path is not None:
            require_new(Path(str(path)), "--benchmark-json")
            path.check()
        if not config.getoption("collectonly"):
            config.stash[LOCK] = only_one()
        journal = header = None
        if request.resume is not None:
            journal = journals.Journal.open(Path(request.resume or journals.newest()))
            header = read_header(journal)
        if request.selection.devices:  # before any worker is started; a GPU does not look at it
            os.environ[CPU_DEVICES] = str(max(request.selection.devices))
        found, places = offered(request, header)
        config.stash[CELLS] = request.selection.cells(found)
        config.stash[MEASUREMENT] = Measurement(request, found, journal, places=places)


def request_of(config: pytest.Config) -> Request:
    """Return what was asked for; raise BakeoffError where a name is unknown or a number wrong."""
    given = {option: config.getoption(f"--{option}") for option in OPTIONS}
    listed = {
        option: tuple(name for text in given[option] for name in text.split(",") if name)
        for option in ("entrant", "style", "workload", "backend", "metric")
    }
    if config.getoption("numprocesses", None):
        raise BakeoffError("-n is for tests; benchmarks are measured one at a time: leave it out")
    for option, (most, advice) in MOST.items():
        check_rate(f"--{option}", given[option])
        if given[option] > most:
            raise BakeoffError(
                f"--{option} is {given[option]:g}; it may be {most} at most: {advice}"
            )
    for option in COUNTS:
        if given[option] is not None:
            check_size(f"--{option}", given[option], most=100_000)
    numbers = [text.strip() for text in given["devices"].split(",") if text]
    if not all(text.isdecimal() for text in numbers):
        raise BakeoffError(f"--devices is {given['devices']!r}; give whole numbers, as in 1,2,4")
    for number in numbers:
        check_size("--devices", int(number), most=MOST_DEVICES)
    for name in listed["metric"]:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    files = [name for name in listed["entrant"] if name.endswith(".py")]
    outside = {impls.add(path): str(Path(path).resolve()) for path in files}
    entrants = [Path(name).stem if name in files else name for name in listed["entrant"]]
    if EVERYBODY in entrants:
        entrants = impls.names()
    for name in entrants:
        if name not in impls.names():
            raise unknown("entrant", name, [*impls.names(), EVERYBODY])
    sampling = {name: given[name] for name in ("budget", "margin", "cores")}
    sampling |= {option.replace("-", "_"): given[option] for option in COUNTS}
    return Request(
        arguments=tuple(config.invocation_params.args),
        selection=Selection(
            entrants=tuple(entrants),
            styles=listed["style"],
            workloads=listed["workload"],
            backends=listed["backend"],
            devices=tuple(sorted({1, *map(int, numbers)})) if numbers else (),
        ),
        metrics=listed["metric"],
        outside=outside,
        options=Options(**sampling),
        resume=given["resume"],
        environment=given["environment"],
    )


def offered(request: Request, header: Header | None) -> tuple[Offer, dict[str, Place]]:
    """Return what there is to measure, and where workers run.

    Raises:
        BakeoffError: a run is taken up under other conditions than its journal was begun.
    """
    builder, place = Builder(notify=notify), place_of(request.environment)
    if header is None:
        load = conditions()  # before the workers that are asked add to it
        silence = min(SILENCE_SECONDS, max(30.0, request.options.budget / 5))
        chosen = request.selection.entrants
        found, places = offers(chosen, request.outside, silence, builder, place)
        return replace(found, conditions=load), places
    found = header.offer
    then: dict[str, Any] = found.versions | found.conditions
    now: dict[str, Any] = found.versions | (versions() if place is None else {}) | conditions()
    changed = [
        f"{name.replace('_', ' ')} {old} then, {now.get(name)} now"
        for name, old in then.items()
        if now.get(name) != old and name != "load_average"
    ]
    if changed:
        raise BakeoffError(
            f"the journal was made under other conditions: {'; '.join(changed)}; have those again, "
            "or start anew without --resume"
        )
    return found, places_of(found.apart, builder, place)


def notify(line: str) -> None:
    """Say what takes a while."""
    print(line, file=sys.stderr, flush=True)


def place_of(environment: str | None) -> Place | None:
    """Return where workers run, built if it was not; None for the environment at hand."""
    if environment is None:
        return None
    spec = parse(environment, "--environment")
    if spec.revision is not None:
        raise BakeoffError(
            f"--environment is {environment!r}, a git revision; give a day or releases, or compare "
            "revisions by `bakeoff ab`"
        )
    return None if spec.current else Builder(notify=notify).environment(spec).place


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one benchmark for each selected cell and each of the file's `METRICS` that it has."""
    if "cell" in metafunc.fixturenames:
        asked = metafunc.config.stash[MEASUREMENT].request.metrics
        pairs = [
            (name, cell)
            for name in metafunc.module.METRICS
            if not asked or name in asked
            for cell in metafunc.config.stash[CELLS]
            if bool(cell.devices) == over_devices(metafunc.module)
            if METRICS[name].applies(cell) and (asked or METRICS[name].usual(cell))
        ]
        metafunc.parametrize(("metric", "cell"), pairs, ids=[f"{m}-{c}" for m, c in pairs])


def over_devices(module: Any) -> bool:
    """Tell whether a file measures styles over several devices."""
    return getattr(module, "OVER_DEVICES", False)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the placeholders of files that have nothing to measure in this run."""
    measurement = config.stash.get(MEASUREMENT, None)
    empty = [item for item in items if not isinstance(benchmark_of(item).get("cell"), Cell)]
    if measurement is not None and empty and empty == items:
        request = measurement.request
        if request.metrics:
            pytest.exit(
                "nothing to measure: no selected style and workload has the metric "
                f"{', '.join(request.metrics)}; choose others, or leave --metric out",
                returncode=2,
            )
        modules = [getattr(item.getparent(pytest.Module), "obj", None) for item in items]
        if not request.selection.devices and all(map(over_devices, modules)):
            pytest.exit("no devices to share streams between; give --devices 1,2", returncode=2)
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


def benchmark_of(item: pytest.Item) -> dict[str, Any]:
    """Return the cell and metric of a benchmark; nothing of another test."""
    callspec: Any = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec is not None else {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Plan the run: what is left after `-k` is what workers measure."""
    needed: dict[Cell, set[str]] = {}
    for item in session.items:
        found = benchmark_of(item)
        if isinstance(cell := found.get("cell"), Cell):
            needed.setdefault(cell, set()).add(found["metric"])
            alone = replace(cell, devices=0, weak=False)
            if alone != cell:  # beside it: what sharing costs where nothing is shared
                needed.setdefault(alone, set()).add("step")
    session.config.stash[MEASUREMENT].needed = needed


def say(config: pytest.Config, line: str, **how: bool) -> None:
    """Write a line of its own where pytest reports."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reporter.ensure_newline()
    reporter.write_line(line, **how)


def console_of(config: pytest.Config) -> Console:
    """Return a console that writes where pytest reports, as wide and as colourful."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    writer = reporter._tw
    return Console(
        file=writer._file,
        width=writer.fullwidth,
        force_terminal=writer.hasmarkup,
        no_color=not writer.hasmarkup,
        highlight=False,
    )


def measure(request: pytest.FixtureRequest) -> Measurement:
    """Return what was measured, after measuring it when this is asked for first."""
    config = request.config
    measurement = config.stash[MEASUREMENT]
    if measurement.state is None:
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        before = time.time() - psutil.Process().create_time()
        if not 0 <= before <= MOST_BEFORE:  # where /proc is not this machine's
            before = 0.0
        before_run = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        try:
            with capture.global_and_fixture_disabled(), wrong_use_ends():
                reporter.ensure_newline()
                with Shown(console_of(config), measurement.request.options.budget) as shown:
                    measurement.run(before, shown, shown.plan)
        finally:
            signal.signal(signal.SIGTERM, before_run)
        if measurement.interrupted:
            request.session.shouldstop = "interrupted"
    return measurement


class Replay:
    """A clock that moves by the seconds that a worker measured, one sample a round."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds, self.now, self.taken = seconds, 0.0, 0

    def __call__(self) -> float:
        """Return the time, and begin at zero again: so differences are samples to the last bit."""
        now, self.now = self.now, 0.0
        return now

    def step(self) -> None:
        """Let the next sample pass."""
        self.now = self.seconds[self.taken % len(self.seconds)]
        self.taken += 1


@pytest.fixture
def replay(request: pytest.FixtureRequest, cell: Cell, metric: str) -> Callable[[], None]:
    """Return what hands a cell's samples to pytest-benchmark; fails where there are none."""

    def hand_over() -> None:
        if request.config.getoption("benchmark_skip"):
            pytest.skip("benchmarks are skipped")
        found = measure(request)
        if found.interrupted or found.broken:
            pytest.skip("interrupted" if found.interrupted else "the run broke off")
        assert found.state is not None
        found.handed += 1
        row = found.state.cells[cell]
        if row.failure is not None:
            pytest.fail(f"{cell}: {row.failure}", pytrace=False)
        said = found.result(cell, metric)
        if said.missing:
            pytest.skip(said.missing)
        found.numbers += 1
        if METRICS[metric].kind is Kind.ONCE:  # a loss is no time
            return
        samples = row.values(metric)
        clock = Replay(samples)
        request.applymarker(pytest.mark.benchmark(timer=clock, group=group_of(cell, metric)))
        benchmark = request.getfixturevalue("benchmark")
        benchmark.extra_info.update(msgspec.to_builtins(entry(cell, metric, said, row.facts)))
        benchmark.pedantic(clock.step, rounds=len(samples), iterations=1)

    return hand_over


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Add versions of everything measured, devices, flags, affinity and load."""
    measurement = config.stash.get(MEASUREMENT, None)
    if measurement is None:  # `--benchmark-compare` wants it before there is a worker
        machine_info |= {"versions": versions(), **conditions()}
        return
    found = measurement.offer
    machine_info |= {"versions": found.versions, "devices": found.devices, **found.conditions}


def pytest_benchmark_compare_machine_info(
    machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Leave out of what pytest-benchmark compares next what is not known yet, or never the same."""
    theirs = compared_benchmark["machine_info"]
    machine_info["load_average"] = theirs.get("load_average")
    machine_info.setdefault("devices", theirs.get("devices"))


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    """Add what belongs to the run as a whole, failed cells with their reasons included."""
    del benchmarks
    output_json["bakeoff"] = msgspec.to_builtins(
        config.stash[MEASUREMENT].section(), enc_hook=float
    )
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)  # samples stand in `bakeoff.samples`, once
        benchmark["options"] = {}  # those of a clock that replays samples
        benchmark["params"] = {name: str(value) for name, value in benchmark["params"].items()}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Write the run file, then drop the journal: all that it holds is in the file."""
    config = session.config
    path = config.getoption("benchmark_json")
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    try:
        try:
            yield
        except OSError:
            raise
        except Exception:  # `--benchmark-compare-fail` has something to say, after it has written
            finish(session, path)
            raise
        finish(session, path)
    except OSError as error:
        if path is not None:
            path.discard()
        session.exitstatus = pytest.ExitCode.INTERRUPTED
        place = str(path or error.filename or "the saved run")
        say(config, journals.disk_words(error, place), red=True)
    if reporter is not None and streams.is_lost(reporter._tw._file):
        session.exitstatus = pytest.ExitCode.INTERRUPTED


def finish(session: pytest.Session, path: Any) -> None:
    """Give the run file its name, and drop the journal if nobody needs it any more."""
    measurement = session.config.stash.get(MEASUREMENT, None)
    if path is not None and measurement is not None and measurement.broken:
        path.discard()
    elif path is not None:
        path.finish()
        if written(path):
            say(session.config, f"run file: {path}")
    if measurement is None or measurement.broken:
        return
    if measurement.interrupted:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    elif measurement.complete and not measurement.numbers:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif measurement.handed == len(session.items) and (path is None or written(path)):
        measurement.done()


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Show the report, after whatever pytest-benchmark has to say."""
    try:
        yield
    finally:
        show(terminalreporter, config)


def show(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show one table for each workload and backend, at whatever width the terminal has."""
    measurement = config.stash.get(MEASUREMENT, None)
    if measurement is None or measurement.state is None or measurement.broken:
        return
    terminalreporter.section("bakeoff")
    console = console_of(config)
    found = document(Run("", measurement.section()))
    text.show(found, console, details=config.get_verbosity() > 0)
    if advice := measurement.advice():
        console.print(advice, markup=False, soft_wrap=True)
