"""Options of `pytest bench`, its cells, and the replay of samples into pytest-benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from bench.measure.cells import COLD, Cell, Found, Offer, Selection
from bench.measure.run import Run, WorkerFailedError, offer
from bench.measure.settings import conditions
from bench.report.terminal import tables
from bench.stats.ratios import ratio_to_baseline
from common.config import check_size
from common.errors import BakeoffError, require_new

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = 1
OFFER = pytest.StashKey[Offer]()
CONDITIONS = pytest.StashKey[Any]()
CELLS = pytest.StashKey[list[Cell]]()
RUN = pytest.StashKey[Run]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that select cells, and how many samples are taken."""
    group = parser.getgroup("bakeoff", "jax-bakeoff: what to measure")
    for name, default in (
        ("entrant", "all"),
        ("style", "all"),
        ("workload", "toy and seed"),
        ("backend", "all that jax offers"),
    ):
        group.addoption(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME",
            help=f"measure this {name} only; may be given again, or as a,b (default: {default})",
        )
    for name, count, what in (
        ("blocks", 10, "blocks of interleaved rounds over fresh buffers"),
        ("rounds", 20, "rounds in a block: one timed step of everybody"),
        ("cold-samples", 2, "fresh processes for each cell's trace, lower and compile time"),
    ):
        group.addoption(
            f"--{name}", type=int, default=count, metavar="N", help=f"{what} (default: {count})"
        )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Find out what there is to measure; end with one line where a name or number is wrong."""
    config = session.config

    def names(option: str) -> tuple[str, ...]:
        given = config.getoption(option)
        return tuple(name for value in given for name in value.split(",") if name)

    try:
        for option in ("blocks", "rounds", "cold-samples"):
            check_size(f"--{option}", config.getoption(option.replace("-", "_")), most=100_000)
        path = config.getoption("benchmark_json")
        if path is not None:
            require_new(path, "--benchmark-json")
        selection = Selection(*map(names, ("entrant", "style", "workload", "backend")))
        config.stash[CELLS] = selection.cells(offered(config))
    except (BakeoffError, WorkerFailedError) as error:
        pytest.exit(str(error.args[0]), returncode=2)


def offered(config: pytest.Config) -> Offer:
    """Return what this environment has, asked for once; the load is what it was at that moment."""
    if OFFER not in config.stash:
        config.stash[CONDITIONS] = conditions()
        config.stash[OFFER] = offer()
    return config.stash[OFFER]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one benchmark for each selected cell; a file's `STYLES` says which styles have it."""
    if "cell" in metafunc.fixturenames:
        styles = getattr(metafunc.module, "STYLES", None)
        cells = [c for c in metafunc.config.stash[CELLS] if styles is None or c.style in styles]
        metafunc.parametrize("cell", cells, ids=str)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Plan the run: what is left after `-k` is what workers measure."""
    config = session.config
    needed: dict[Cell, set[str]] = {}
    for item in session.items:
        if isinstance(item, pytest.Function) and "cell" in item.callspec.params:
            params: dict[str, Any] = dict(item.callspec.params)
            needed.setdefault(params["cell"], set()).add(params["metric"])

    def say(line: str) -> None:
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(line)

    config.stash[RUN] = Run(
        needed,
        offered(config),
        blocks=config.getoption("blocks"),
        rounds=config.getoption("rounds"),
        cold_samples=config.getoption("cold_samples"),
        say=say,
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let an interrupted run end as one, though its samples were still handed over."""
    run = session.config.stash.get(RUN, None)
    if run is not None and run.interrupted:
        session.exitstatus = pytest.ExitCode.INTERRUPTED


class Replay:
    """A clock that moves by the seconds that a worker measured, one sample a call."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds, self.now, self.taken = seconds, 0.0, 0

    def __call__(self) -> float:  # noqa: D102 -- the class says it
        return self.now

    def step(self) -> None:
        """Let the next sample pass."""
        self.now += self.seconds[self.taken % len(self.seconds)]
        self.taken += 1


@pytest.fixture
def replay(request: pytest.FixtureRequest, cell: Cell, metric: str) -> Callable[[], None]:
    """Return what hands a cell's samples to pytest-benchmark; fails where there are none."""

    def hand_over() -> None:
        run = request.config.stash[RUN]
        found = run.result(cell)
        if found.failure is not None and not (run.interrupted and found.seconds.get(metric)):
            pytest.fail(f"{cell}: {found.failure}", pytrace=False)
        seconds = [second for block in found.seconds[metric] for second in block]
        clock = Replay(seconds)
        group = f"{cell.workload} {cell.backend} {metric}"
        request.applymarker(pytest.mark.benchmark(timer=clock, group=group))
        benchmark = request.getfixturevalue("benchmark")
        benchmark.extra_info.update(extra_info(run, cell, metric, found))
        benchmark.pedantic(clock.step, rounds=len(seconds), iterations=1)

    return hand_over


def extra_info(run: Run, cell: Cell, metric: str, found: Found) -> dict[str, Any]:
    """Return what a benchmark's entry says beside its times."""
    info: dict[str, Any] = {**cell._asdict(), "metric": metric, "unit": "s"}
    info["proof"] = dict(found.facts["proof"])
    program = info["proof"].pop("program")
    info["proof"]["whole_step"] = program["whole"]
    info |= found.facts.get(metric, {})
    if metric in COLD:
        info["program"] = program
    if metric == "step":
        info["rounds_by_block"] = [len(block) for block in found.seconds[metric]]
        baseline = run.baseline(cell).seconds.get(metric)
        if baseline is not None:
            ratio = ratio_to_baseline(found.seconds[metric], baseline)
            info["ratio_to_baseline"] = ratio._asdict()
    if metric == "final_loss":  # the times are of the trainings; what they led to stands beside
        info["value_unit"] = "nats per character"
    return info


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Add versions of everything measured, devices, flags, affinity and load."""
    found = offered(config)
    machine_info |= {"versions": found.versions, "devices": found.devices}
    machine_info |= config.stash[CONDITIONS]


def pytest_benchmark_compare_machine_info(
    machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Leave the load out of what pytest-benchmark compares next: it is never the same twice."""
    machine_info["load_average"] = compared_benchmark["machine_info"].get("load_average")


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    """Add what belongs to the run as a whole, failed cells with their reasons included."""
    del benchmarks
    run = config.stash[RUN]
    output_json["bakeoff"] = {
        "schema": SCHEMA,
        "arguments": list(config.invocation_params.args),
        "failed": {str(c): f.failure for c, f in run.found.items() if f.failure is not None},
    }


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show one table for each workload and backend, at whatever width the terminal has."""
    if RUN not in config.stash or not config.stash[RUN].found:
        return
    writer = terminalreporter._tw
    console = Console(
        file=terminalreporter._tw._file,
        width=writer.fullwidth,
        force_terminal=writer.hasmarkup,
        no_color=not writer.hasmarkup,
        highlight=False,
    )
    terminalreporter.section("bakeoff")
    for part in tables(config.stash[RUN].found):
        console.print(part)
