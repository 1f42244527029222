"""Options of `pytest bench`, its cells, and the replay of samples into pytest-benchmark."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import psutil
import pytest
from rich.console import Console

import impls
from bench import stdout
from bench.cells import Cell, Selection
from bench.compare.environments import Builder
from bench.compare.spec import parse
from bench.engine import journal as journals
from bench.engine.actions import ALL, AUTO, ONE
from bench.engine.lock import only_one
from bench.engine.processes import SILENCE_SECONDS, WorkerFailedError
from bench.environments.offers import offers, places_of
from bench.environments.own import Homes
from bench.metrics import METRICS, Kind
from bench.report.progress import Shown
from bench.report.run import document
from bench.report.runs import Run
from bench.report.text import printed
from bench.report.whole import Whole, written
from bench.run import Measured, Offer, Wanted, offer_of
from bench.runfile import ENTRY
from bench.worker.settings import conditions
from common import devices
from common.config import check_rate, check_size
from common.devices import MOST_DEVICES
from common.errors import BakeoffError, require_new, unknown
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from bench.engine.processes import Place

MEASURED = pytest.StashKey[Measured]()
WANTED = pytest.StashKey[Wanted]()
CELLS = pytest.StashKey[list[Cell]]()
LOCK = pytest.StashKey[Any]()
OUTPUT = pytest.StashKey[TextIO]()
NO_CELL = Cell("", "", "", "")
EVERYBODY = "all"
MAX_BUDGET = 7 * 24 * 3600
MAX_MARGIN = 0.5
CPU_DEVICES = "JAX_NUM_CPU_DEVICES"
"""Variable that says how many devices XLA makes of a CPU."""
TABLE_OPTIONS = tuple(
    f"--benchmark-{name}"
    for name in ("verbose", "columns", "sort", "group-by", "name", "histogram", "compare")
)
"""Options of pytest-benchmark that are about its own table, and beginnings of others."""
MOST_BEFORE = 600.0
"""Seconds that pytest may have run before anything is measured."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that select cells, and how much is measured."""
    group = parser.getgroup("bakeoff", "jax-bakeoff: what to measure, and for how long")
    for name, default in (
        (
            "entrant",
            "the JAX libraries of this environment; all for everybody's, which builds what is "
            "missing; an entrant of your own by the path of its .py file",
        ),
        ("style", "all"),
        ("workload", "toy and seed; sweep stands for widths 8 to 1024"),
        ("backend", "all that jax offers"),
        ("metric", "all; of a sweep, step"),
    ):
        group.addoption(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME",
            help=f"measure this {name} only; may be given again, or as a,b (default: {default})",
        )
    group.addoption(
        "--budget",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="wall time for the whole run, shared out by a planner (default: 300)",
    )
    group.addoption(
        "--margin",
        type=float,
        default=0.02,
        metavar="FRACTION",
        help="within this fraction, two times are called equivalent (default: 0.02)",
    )
    group.addoption(
        "--resume",
        nargs="?",
        const="",
        metavar="JOURNAL",
        help="go on with a run that was cut off, given the same options: the newest one in "
        f"{journals.FOLDER}/, or this one",
    )
    group.addoption(
        "--devices",
        default="",
        metavar="N,N",
        help="share streams between so many devices, as in 1,2,4, for bench/test_scaling.py; on a "
        "CPU, XLA is told to make as many of it (default: none)",
    )
    group.addoption(
        "--environment",
        metavar="SPEC",
        help="measure in an environment of other releases, which uv builds: a day, @2025-12-01, or "
        "releases, flax==0.12.8 (default: the one at hand)",
    )
    group.addoption(
        "--cores",
        choices=(AUTO, ALL, ONE),
        default=AUTO,
        help="which cores workers use: all, as users run it; one each, pinned and several workers "
        "at a time, which is far more precise; auto takes all for the time of a step, and one for "
        "what the host costs and what happens once (default: auto)",
    )
    for name, what in (
        ("processes", "workers that share the blocks"),
        ("blocks", "blocks of interleaved rounds over fresh buffers, in each worker"),
        ("rounds", "rounds in a block: one turn of everybody"),
        (
            "cold-samples",
            "fresh processes for each cell's cold metrics, twice as many of the baseline",
        ),
    ):
        default = "1 where --blocks is given, else the planner chooses, within the budget"
        if name != "processes":
            default = "the planner chooses, within the budget"
        help_ = f"{what} (default: {default})"
        group.addoption(f"--{name}", type=int, default=None, metavar="N", help=help_)


@contextmanager
def one_line() -> Iterator[None]:
    """End with one line and status 2 where what was given cannot be."""
    try:
        yield
    except (BakeoffError, WorkerFailedError) as error:
        pytest.exit(str(error), returncode=2)


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
        output = stdout.lenient(sys.stdout)
        plugin._tw._file = plugin.config.stash[OUTPUT] = output


def pytest_sessionstart(session: pytest.Session) -> None:
    """Find out what there is to measure; end with one line where a name or number is wrong."""
    config = session.config
    with one_line():
        options = checked(config)
        path = config.getoption("benchmark_json")
        if path is not None:
            require_new(Path(str(path)), "--benchmark-json")
            path.check()
        if not config.getoption("collectonly"):
            config.stash[LOCK] = only_one()
        journal = None
        if options.resume is not None:
            journal = journals.Journal.open(Path(options.resume or journals.newest()))
        if options.selection.devices:  # before any worker is started; a GPU does not look at it
            os.environ[CPU_DEVICES] = str(max(options.selection.devices))
        found, places = offered(options, journal)
        config.stash[WANTED] = options
        config.stash[CELLS] = options.selection.cells(found)
        config.stash[MEASURED] = Measured(options, found, journal, places=places)


def checked(config: pytest.Config) -> Wanted:
    """Return what was asked for; raise BakeoffError where a number is out of range."""

    def names(option: str) -> tuple[str, ...]:
        given = config.getoption(option)
        return tuple(name for value in given for name in value.split(",") if name)

    if config.getoption("numprocesses", None):
        raise BakeoffError("-n is for tests; benchmarks are measured one at a time: leave it out")
    budget, margin = config.getoption("budget"), config.getoption("margin")
    check_rate("--budget", budget)
    if budget > MAX_BUDGET:
        raise BakeoffError(f"--budget is {budget:g}; it may be {MAX_BUDGET} at most: give seconds")
    check_rate("--margin", margin)
    if margin > MAX_MARGIN:
        raise BakeoffError(
            f"--margin is {margin:g}; it may be {MAX_MARGIN} at most: give a fraction, 0.02 is 2 %"
        )
    counts = {}
    for option in ("processes", "blocks", "rounds", "cold_samples"):
        counts[option] = config.getoption(option)
        if counts[option] is not None:
            check_size(f"--{option.replace('_', '-')}", counts[option], most=100_000)
    metrics = names("metric")
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    paths = [name for name in names("entrant") if name.endswith(".py")]
    for path in paths:
        impls.add(path)
    entrants = [Path(name).stem if name in paths else name for name in names("entrant")]
    if EVERYBODY in entrants:
        entrants = impls.names()
    for name in entrants:
        if name not in impls.names():
            raise unknown("entrant", name, [*impls.names(), EVERYBODY])
    return Wanted(
        arguments=tuple(config.invocation_params.args),
        selection=Selection(
            entrants=tuple(entrants),
            styles=names("style"),
            workloads=names("workload"),
            backends=names("backend"),
            devices=numbers(config.getoption("devices")),
        ),
        metrics=metrics,
        outside={Path(path).stem: str(Path(path).resolve()) for path in paths},
        budget=budget,
        margin=margin,
        resume=config.getoption("resume"),
        environment=config.getoption("environment"),
        cores=config.getoption("cores"),
        **counts,
    )


def numbers(given: str) -> tuple[int, ...]:
    """Return the numbers of devices that were asked for; one is always among them."""
    found = []
    for text in filter(None, given.split(",")):
        if not text.strip().isdecimal():
            raise BakeoffError(f"--devices is {given!r}; give whole numbers, as in 1,2,4")
        check_size("--devices", int(text), most=MOST_DEVICES)
        found.append(int(text))
    return tuple(sorted({1, *found})) if found else ()


def offered(options: Wanted, journal: journals.Journal | None) -> tuple[Offer, dict[str, Place]]:
    """Return what there is, asked for once, and where; the load is what it was at that moment."""
    homes, place = Homes(notify=notify), place_of(options.environment)
    if journal is None:
        load = conditions()
        silence = min(SILENCE_SECONDS, max(30.0, options.budget / 5))
        chosen = options.selection.entrants
        found, places = offers(chosen, options.outside, silence, homes, place)
        return replace(found, conditions=load), places
    found = offer_of(journal)
    then: dict[str, Any] = found.versions | found.conditions
    here = versions() if place is None else {}
    now: dict[str, Any] = found.versions | here | conditions()
    changed = [
        f"{name.replace('_', ' ')} {old} then, {now.get(name)} now"
        for name, old in then.items()
        if now.get(name) != old and name != "load_average"
    ]
    if changed:
        raise BakeoffError(
            f"the journal {journal.path} was made under other conditions: {'; '.join(changed)}; "
            "have those again, or start anew without --resume"
        )
    return found, places_of(found.apart, homes, place)


def notify(line: str) -> None:
    """Say what takes a while."""
    print(line, file=sys.stderr, flush=True)


def place_of(environment: str | None) -> Place | None:
    """Return where workers run, built if it was not; None for the environment at hand."""
    if environment is None:
        return None
    wanted = parse(environment, "--environment")
    if wanted.revision is not None:
        raise BakeoffError(
            f"--environment is {environment!r}, a git revision; give a day or releases, or compare "
            "revisions by `bakeoff ab`"
        )
    return None if wanted.current else Builder(notify=notify).environment(wanted).place


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one benchmark for each selected cell and each of the file's `METRICS` that it has."""
    if "cell" in metafunc.fixturenames:
        asked = metafunc.config.stash[WANTED].metrics
        pairs = [
            (name, cell)
            for name in metafunc.module.METRICS
            if not asked or name in asked
            for cell in metafunc.config.stash[CELLS]
            if (devices.AT in cell.style) == getattr(metafunc.module, "OVER_DEVICES", False)
            if METRICS[name].applies(cell) and (asked or METRICS[name].usual(cell))
        ]
        metafunc.parametrize(("metric", "cell"), pairs, ids=[f"{m}-{c}" for m, c in pairs])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the placeholders of files that have nothing to measure in this run."""
    wanted = config.stash.get(WANTED, None)
    empty = [item for item in items if not isinstance(measures(item).get("cell", NO_CELL), Cell)]
    if wanted is not None and wanted.metrics and items and len(empty) == len(items):
        asked = ", ".join(wanted.metrics)
        pytest.exit(
            f"nothing to measure: no selected style and workload has the metric {asked}; choose "
            "others, or leave --metric out",
            returncode=2,
        )
    if wanted is not None and not wanted.selection.devices and empty and empty == items:
        modules = [item.getparent(pytest.Module) for item in items]
        if all(module and getattr(module.obj, "OVER_DEVICES", False) for module in modules):
            pytest.exit("no devices to share streams between; give --devices 1,2", returncode=2)
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


def measures(item: pytest.Item) -> dict[str, Any]:
    """Return the cell and metric of a benchmark; nothing of another test."""
    callspec: Any = getattr(item, "callspec", None)
    return dict(callspec.params) if callspec is not None else {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Plan the run: what is left after `-k` is what workers measure."""
    needed: dict[Cell, set[str]] = {}
    for item in session.items:
        found = measures(item)
        if isinstance(cell := found.get("cell"), Cell):
            needed.setdefault(cell, set()).add(found["metric"])
            alone = cell._replace(style=devices.Over.of(cell.style).style)
            if alone != cell:  # beside it: what sharing costs where nothing is shared
                needed.setdefault(alone, set()).add("step")
    session.config.stash[MEASURED].needed = needed


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


def measure(request: pytest.FixtureRequest) -> Measured:
    """Return what was measured, after measuring it when this is asked for first."""
    config = request.config
    measured = config.stash[MEASURED]
    if measured.state is None:
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        before = time.time() - psutil.Process().create_time()
        if not 0 <= before <= MOST_BEFORE:  # where /proc is not this machine's
            before = 0.0
        with capture.global_and_fixture_disabled(), one_line(), stopped_by_term():
            reporter.ensure_newline()
            with Shown(console_of(config), measured.wanted.budget) as shown:
                measured.run(before, shown, shown.plan)
        if measured.interrupted:
            request.session.shouldstop = "interrupted"
    return measured


@contextmanager
def stopped_by_term() -> Iterator[None]:
    """Let SIGTERM be what Ctrl-C is: what was measured is safe, and it is said how to go on."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
        measured = measure(request)
        if measured.interrupted or measured.broken:
            pytest.skip("interrupted" if measured.interrupted else "the run broke off")
        measured.handed += 1
        failure = measured.failure(cell)
        if failure is not None:
            pytest.fail(f"{cell}: {failure}", pytrace=False)
        samples, info = measured.samples(cell, metric), measured.info(cell, metric)
        if "missing" in info:
            pytest.skip(info["missing"])
        measured.numbers += 1
        if METRICS[metric].kind is Kind.ONCE:  # a loss is no time
            return
        clock = Replay(samples)
        unit = METRICS[metric].unit
        group = f"{cell.workload} {cell.backend} {metric}" + (f" ({unit})" if unit != "s" else "")
        request.applymarker(pytest.mark.benchmark(timer=clock, group=group))
        benchmark = request.getfixturevalue("benchmark")
        benchmark.extra_info.update({key: info[key] for key in ENTRY if key in info})
        benchmark.pedantic(clock.step, rounds=len(samples), iterations=1)

    return hand_over


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Add versions of everything measured, devices, flags, affinity and load."""
    measured = config.stash.get(MEASURED, None)
    if measured is None:  # `--benchmark-compare` wants it before there is a worker
        machine_info |= {"versions": versions(), **conditions()}
        return
    found = measured.offer
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
    output_json["bakeoff"] = config.stash[MEASURED].section()
    for benchmark in output_json["benchmarks"]:
        benchmark["stats"].pop("data", None)  # samples stand in `bakeoff.samples`, once
        benchmark["options"] = {}  # those of a clock that replays samples


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Write the run file, then drop the journal: all that it holds is in the file."""
    config = session.config
    path = config.getoption("benchmark_json")
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
        place = str(path) if path is not None else str(error.filename or "the saved run")
        session.exitstatus = pytest.ExitCode.INTERRUPTED
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        reporter.ensure_newline()
        reporter.write_line(journals.disk_words(error, place), red=True)
    if (output := config.stash.get(OUTPUT, None)) is not None and stdout.is_lost(output):
        session.exitstatus = pytest.ExitCode.INTERRUPTED


def finish(session: pytest.Session, path: Any) -> None:
    """Give the run file its name, and drop the journal if nobody needs it any more."""
    measured = session.config.stash.get(MEASURED, None)
    if path is not None:
        if measured is not None and measured.broken:
            path.discard()
        else:
            path.finish()
            if written(path):
                reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
                reporter.ensure_newline()
                reporter.write_line(f"run file: {path}")
    if measured is None or measured.broken:
        return
    if measured.interrupted:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    elif measured.complete and not measured.numbers:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    else:
        whole = measured.handed == len(session.items)
        measured.done(kept=whole and (path is None or written(path)))


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
    measured = config.stash.get(MEASURED, None)
    if measured is None or measured.state is None or measured.broken:
        return
    terminalreporter.section("bakeoff")
    console = console_of(config)
    found = document(Run("", measured.section()))
    for part in printed(found, details=config.get_verbosity() > 0):
        console.print(part)
    if measured.interrupted:
        console.print(measured.how_to_go_on(), markup=False, soft_wrap=True)
    if measured.complete and not measured.numbers:
        console.print(measured.nothing(), markup=False, soft_wrap=True)
