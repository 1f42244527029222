"""Options of `pytest bench`, its cells, and the replay of samples into pytest-benchmark."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
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
from bench.engine.machine import only_one, require_memory
from bench.engine.processes import SILENCE_SECONDS, Place, WorkerFailedError
from bench.environments.builder import Builder
from bench.environments.offers import offers
from bench.environments.spec import parse
from bench.metrics import METRICS, Kind
from bench.report import text
from bench.report.progress import Shown
from bench.report.run import document
from bench.run import Header, Measurement, Request, read_header
from bench.runfile.reader import Run
from bench.runfile.writer import entry, group_of, write
from bench.worker.settings import conditions
from common.config import check_rate, check_size
from common.devices import MOST_DEVICES
from common.errors import BakeoffError, require_new, unknown
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from bench.cells import Offer

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


NAMES = {
    "entrant": "the JAX libraries of this environment; all for everybody's, which builds what is "
    "missing; an entrant of your own by the path of its .py file",
    "style": "all; jax_jit and flat only where they or their entrant are named, and at depths",
    "workload": "toy and seed; sweep stands for widths 8 to 1024, depth for 3 to 96 layers, "
    "seedx12 for seed with 12 layers",
    "backend": "all that jax offers",
    "metric": "all; of a sweep, step; of depth, host_cost and the cold ones",
}
"""Options that take names, and their defaults."""
COUNTS = {
    "processes": "workers that share the blocks; 1 where --blocks is given",
    "blocks": "blocks of interleaved rounds over fresh buffers, in each worker",
    "rounds": "rounds in a block: one turn of everybody",
    "cold-samples": "fresh processes for each cell's cold metrics, twice as many of the baseline",
}
"""Options that take numbers; the planner chooses those that are not given."""
OPTIONS: dict[str, dict[str, Any]] = {
    "budget": {
        "help": "wall time for the whole run, shared out by a planner (default: 300)",
        "metavar": "SECONDS",
        "type": float,
        "default": 300.0,
    },
    "margin": {
        "help": "within this fraction, two times are called equivalent (default: 0.02)",
        "metavar": "FRACTION",
        "type": float,
        "default": 0.02,
    },
    "resume": {
        "help": "go on with a run that was cut off, given the same options: the newest one in "
        f"{journals.FOLDER}/, or this one",
        "metavar": "JOURNAL",
        "nargs": "?",
        "const": "",
    },
    "devices": {
        "help": "share streams between so many devices, as in 1,2,4, for bench/test_scaling.py; "
        "on a CPU, XLA is told to make as many of it (default: none)",
        "metavar": "N,N",
        "default": "",
    },
    "environment": {
        "help": "measure in an environment of other releases, which uv builds: a day, "
        "@2025-12-01, or releases, flax==0.12.8 (default: the one at hand)",
        "metavar": "SPEC",
    },
    "donate": {
        "help": "let every style donate its state, parameters and Adam's moments, as large "
        "models do; those that cannot are left out (default: nothing is donated)",
        "action": "store_true",
    },
    "cores": {
        "help": "which cores workers use: all, as users run it; one each, pinned and several "
        "workers at a time, which is far more precise; auto takes all for the time of a step, and "
        "one for what the host costs and what happens once (default: auto)",
        "metavar": "all|one|auto",
        "choices": (AUTO, ALL, ONE),
        "default": AUTO,
    },
}
MOST = {"budget": (7 * 24 * 3600, "give seconds"), "margin": (0.5, "0.02 is 2 %")}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that select cells, and how much is measured."""
    group = parser.getgroup("bakeoff", "jax-bakeoff: what to measure, and for how long")
    for option, default in NAMES.items():
        text = f"measure this {option} only; may be given again, or as a,b (default: {default})"
        group.addoption(f"--{option}", action="append", default=[], metavar="NAME", help=text)
    for option, settings in OPTIONS.items():
        group.addoption(f"--{option}", **settings)
    for option, what in COUNTS.items():
        text = f"{what} (default: the planner chooses, within the budget)"
        group.addoption(f"--{option}", type=int, metavar="N", help=text)


@contextmanager
def wrong_use_ends() -> Iterator[None]:
    """End with one line and status 2 where what was given is wrong."""
    try:
        yield
    except (BakeoffError, WorkerFailedError) as error:
        pytest.exit(streams.one_line(error), returncode=2)


def pytest_configure(config: pytest.Config) -> None:
    """Set what is ours of pytest-benchmark's options."""
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
            plugin._tw._file = streams.opened(sys.stdout.fileno(), sys.stdout)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Find out what there is to measure; end with one line where a name or number is wrong."""
    config = session.config
    with wrong_use_ends():
        request = request_of(config)
        if path := config.getoption("benchmark_json"):
            require_new(path, "--benchmark-json")
            writer: Any = config.pluginmanager.get_plugin("pytest-benchmark")
            writer.save_json = partial(write, path)
        if not config.getoption("collectonly"):
            config.stash[LOCK] = only_one()
        journal = header = None
        if request.resume is not None:
            journal = journals.Journal.open(Path(request.resume or journals.newest()))
            header = read_header(journal)
        if request.selection.devices:  # before any worker is started; a GPU does not look at it
            os.environ[CPU_DEVICES] = str(max(request.selection.devices))
        found, places = offered(request, header)
        if request.options.donate:
            notify_kept(found, request.selection)
            found = found.donating
        config.stash[CELLS] = cells = request.selection.cells(found)
        require_memory(cells)
        config.stash[MEASUREMENT] = Measurement(request, found, journal, places=places)


def request_of(config: pytest.Config) -> Request:
    """Return what was asked for; raise BakeoffError where a name is unknown or a number wrong."""
    given = {option: config.getoption(f"--{option}") for option in OPTIONS}
    counts = {option: config.getoption(f"--{option}") for option in COUNTS}
    listed = {
        option: tuple(name for name in ",".join(config.getoption(option)).split(",") if name)
        for option in NAMES
    }
    if config.getoption("numprocesses", None):
        raise BakeoffError("-n is for tests; benchmarks are measured one at a time: leave it out")
    for option, (most, advice) in MOST.items():
        check_rate(f"--{option}", given[option])
        if given[option] > most:
            raise BakeoffError(
                f"--{option} is {given[option]:g}; it may be {most} at most: {advice}"
            )
    for option, number in counts.items():
        if number is not None:
            check_size(f"--{option}", number, most=100_000)
    try:
        devices = {int(text) for text in given["devices"].split(",") if text}
    except ValueError as error:
        text = f"--devices is {given['devices']!r}; give whole numbers, as in 1,2,4"
        raise BakeoffError(text) from error
    for number in devices:
        check_size("--devices", number, most=MOST_DEVICES)
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
    return Request(
        arguments=tuple(config.invocation_params.args),
        selection=Selection(
            entrants=tuple(entrants),
            styles=listed["style"],
            workloads=listed["workload"],
            backends=listed["backend"],
            devices=tuple(sorted({1, *devices})) if devices else (),
        ),
        metrics=listed["metric"],
        outside=outside,
        options=Options(
            **{name: given[name] for name in ("budget", "margin", "cores", "donate")},
            **{option.replace("-", "_"): number for option, number in counts.items()},
        ),
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
    return found, {"": place or Place()} | {name: builder.place_of(name) for name in found.apart}


def notify_kept(offer: Offer, selection: Selection) -> None:
    """Say which styles are left out, since they cannot donate their state.

    Raises:
        BakeoffError: one was asked for, and no entrant has one of this name that can.
    """
    chosen = {arm: why for arm, why in offer.kept_styles.items() if selection.has(arm)}
    able = {style for styles in offer.donating.styles.values() for style in styles}
    for arm, why in chosen.items():
        style = arm.partition("/")[2]
        if style in selection.styles and style not in able:
            raise BakeoffError(
                f"--donate: {arm} cannot donate its state, for {why}; choose another style, or "
                "leave out --donate"
            )
        notify(f"--donate leaves out {arm}: {why}")


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
        over_devices = getattr(metafunc.module, "OVER_DEVICES", False)
        pairs = [
            (name, cell)
            for name in metafunc.module.METRICS
            if not asked or name in asked
            for cell in metafunc.config.stash[CELLS]
            if bool(cell.devices) == over_devices
            if METRICS[name].applies(cell) and (asked or METRICS[name].usual(cell))
        ]
        metafunc.parametrize(("metric", "cell"), pairs, ids=[f"{m}-{c}" for m, c in pairs])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the placeholders of files that have nothing to measure in this run."""
    empty = [item for item in items if not isinstance(benchmark_of(item).get("cell"), Cell)]
    if empty and empty == items and MEASUREMENT in config.stash:
        asked = ", ".join(config.stash[MEASUREMENT].request.metrics)
        pytest.exit(
            f"nothing to measure: no selected style and workload has the metric {asked}; choose "
            "others, or leave --metric out"
            if asked
            else "nothing to measure; test_scaling.py needs --devices, as in 1,2",
            returncode=2,
        )
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


def reporter_of(config: pytest.Config) -> Any:
    """Return what writes where pytest reports, on a line of its own."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reporter.ensure_newline()
    return reporter


def console_of(config: pytest.Config) -> Console:
    """Return a console that writes where pytest reports, as wide and as colourful."""
    writer = reporter_of(config)._tw
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
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        before = time.time() - psutil.Process().create_time()
        if not 0 <= before <= MOST_BEFORE:  # where /proc is not this machine's
            before = 0.0
        before_run = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        try:
            with (
                capture.global_and_fixture_disabled(),
                wrong_use_ends(),
                Shown(console_of(config), measurement.request.options.budget) as shown,
            ):
                measurement.run(before, shown, shown.plan)
        finally:
            signal.signal(signal.SIGTERM, before_run)
        if measurement.interrupted:
            request.session.shouldstop = "interrupted"
    return measurement


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
        row = found.state.cells[cell]
        if row.failure is not None:
            pytest.fail(f"{cell}: {row.failure}", pytrace=False)
        said = found.result(cell, metric)
        if said.missing:
            pytest.skip(said.missing)
        found.numbers += 1
        if METRICS[metric].kind is Kind.ONCE:  # a loss is no time
            return
        benchmark = request.getfixturevalue("benchmark")
        benchmark.group = group_of(cell, metric)
        benchmark.extra_info |= msgspec.to_builtins(entry(cell, metric, said, row.facts))
        benchmark._mode = "replay"  # else it warns that it was not used
        if benchmark.enabled:
            stats = benchmark._make_stats(iterations=1)
            for value in row.values(metric):
                stats.update(value)

    return hand_over


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Add versions of everything measured, devices, flags, affinity and load."""
    measurement = config.stash.get(MEASUREMENT, None)
    # `--benchmark-compare` wants it before there is a worker
    early = {"versions": versions(), **conditions()}
    machine_info |= measurement.offer.facts if measurement else early


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
    said = config.stash[MEASUREMENT].section
    output_json["bakeoff"] = msgspec.to_builtins(said, enc_hook=float)
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
        said = str(problem)
        if isinstance(problem, OSError):
            said = journals.disk_words(problem, str(path or problem.filename or "the saved run"))
        reporter_of(config).write_line(said, red=True)
    except Exception:  # `--benchmark-compare-fail` has something to say, after it has written
        conclude(session, path)
        raise
    else:
        conclude(session, path)
    if streams.is_lost(reporter_of(config)._tw._file):
        session.exitstatus = pytest.ExitCode.INTERRUPTED


def conclude(session: pytest.Session, path: Path | None) -> None:
    """Set the status of a run, and drop its journal if nobody needs it any more."""
    measurement = session.config.stash.get(MEASUREMENT, None)
    if measurement is None or measurement.state is None or measurement.broken:
        return
    if path is not None and path.exists():
        reporter_of(session.config).write_line(f"run file: {path}")
    if measurement.interrupted:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    elif not measurement.numbers:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif path is None or path.exists():
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
    found = document(Run("", measurement.section))
    text.show(found, console, details=config.get_verbosity() > 0)
    if advice := measurement.advice():
        console.print(advice, markup=False, soft_wrap=True)
