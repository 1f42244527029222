"""One run of `pytest bench`: a benchmark for each cell and metric, the run file and the report.

The first benchmark measures all of them; each passes its samples to pytest-benchmark.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from rich.console import Console

import impls
from bench import streams
from bench.engine import journal as journals
from bench.engine.measurement import Measurement, measure
from bench.engine.process import WorkerFailedError
from bench.engine.progress import Progress
from bench.environments.git import describe_commit
from bench.metrics import METRICS, SAMPLED
from bench.report import terminal
from bench.report.documents.run import describe_run
from bench.runfile import DISTURBED
from bench.runfile.reader import Run
from bench.streams import interrupt_on_signals
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from bench.cells import Cell
    from bench.engine.task import Task
    from bench.samples import Sample

MARK = "bakeoff"
"""Mark with a benchmark's metric and cell; a benchmark whose mark has neither is dropped."""


@contextmanager
def exit_on_wrong_use() -> Iterator[None]:
    """Turn an error of use into one line and exit status 2."""
    try:
        yield
    except (BakeoffError, WorkerFailedError) as error:
        hint = f"; {journals.SAFE}" if isinstance(error, journals.DiskError) else ""
        pytest.exit(streams.one_line(f"{error}{hint}"), returncode=2)


class RunPlugin:
    """Hooks of one run, from the collection of its benchmarks to its report.

    Args:
        config: Pytest's.
        task: Of all environments; without cells before the collection ends.
        metrics: Selected cell → its metrics.
    """

    NAME = "bakeoff-run"

    def __init__(self, config: pytest.Config, task: Task, metrics: dict[Cell, list[str]]) -> None:
        self.config, self.task, self.metrics = config, task, metrics
        self.measurement: Measurement | None = None
        self.numbers = 0
        """Number of benchmarks that have samples."""

    # collection

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a benchmark for each selected cell and each metric that it has."""
        if "replay" not in metafunc.fixturenames:
            return
        mark = getattr(pytest.mark, MARK)
        rows = [
            pytest.param(name, cell, id=f"{name}-{cell}", marks=mark(name, cell))
            for name in SAMPLED
            for cell, names in self.metrics.items()
            if name in names
        ]
        metafunc.parametrize(("metric", "cell"), rows or [pytest.param("", "", marks=mark())])

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Drop the benchmark that stands for none, where there is nothing to measure."""
        marks = [(item, item.get_closest_marker(MARK)) for item in items]
        if empty := [item for item, mark in marks if mark is not None and not mark.args]:
            self.config.hook.pytest_deselected(items=empty)
            items[:] = [item for item in items if item not in empty]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Reduce the task to the cells and metrics that `-k` has left."""
        needed: dict[str, dict[Cell, frozenset[str]]] = {}
        for mark in filter(None, (item.get_closest_marker(MARK) for item in session.items)):
            metric, cell = mark.args
            cells = needed.setdefault(self.find_environment(cell), {})
            cells[cell] = cells.get(cell, frozenset()) | {metric}
        needed = dict(sorted(needed.items()))
        entrants = dict.fromkeys(cell.entrant for cells in needed.values() for cell in cells)
        files = self.task.outside
        about = {name: impls.find_declaration(impls.locate(name, files)) for name in entrants}
        self.task = replace(
            self.task,
            needed=needed,
            sides={name: self.task.sides[name] for name in needed},
            notes={name: entrant.note for name, entrant in about.items() if entrant.note},
        )

    def find_environment(self, cell: Cell) -> str:
        """Return the environment that a cell is measured in; empty for the shared one."""
        return cell.entrant if cell.entrant in self.task.sides else ""

    # measuring

    def measure_once(self, request: pytest.FixtureRequest) -> Measurement:
        """Measure on the first call; return that measurement on every call.

        If measuring breaks off, no other test is run.
        """
        if self.measurement is not None:
            return self.measurement
        try:
            with (
                interrupt_on_signals(),
                request.getfixturevalue("capsys").disabled(),
                exit_on_wrong_use(),
                Progress(self.make_console(), self.task.options.budget) as progress,
            ):
                self.measurement = measure(
                    self.task,
                    wait=self.config.getoption("--wait"),
                    resume=self.config.getoption("--resume"),
                    on_progress=progress,
                    partial=True,
                )
        finally:
            if self.measurement is None:
                request.session.shouldstop = "the run broke off"
        if self.measurement.interrupted:
            request.session.shouldstop = "interrupted"
        return self.measurement

    def find_samples(self, cell: Cell, metric: str) -> list[Sample]:
        """Return a cell's samples of a metric; its library's, if all of its styles share them."""
        assert self.measurement is not None
        rows = [
            sample
            for sample in self.measurement.samples
            if (sample.metric, sample.environment) == (metric, self.find_environment(cell))
            and sample.cell._replace(style=cell.style) == cell  # equal but for the style
        ]
        shared = METRICS[metric].of_library
        return [sample for sample in rows if sample.cell == cell] or (rows if shared else [])

    def replay(self, request: pytest.FixtureRequest, cell: Cell, metric: str) -> None:
        """Pass a cell's samples to pytest-benchmark; fail or skip where it has none."""
        measurement = self.measure_once(request)
        if measurement.interrupted:
            pytest.skip("interrupted")
        [row] = [row for row in measurement.results.cells if row.cell == cell]
        if row.failure is not None:
            pytest.fail(f"{cell}: {row.failure}", pytrace=False)
        samples = self.find_samples(cell, metric)
        if metric in row.missing or not samples:
            pytest.skip(row.missing.get(metric, "not measured within the budget"))
        self.numbers += 1
        if not METRICS[metric].varies:  # a loss is no time
            return
        # The clock that pytest-benchmark reads at the beginning and the end of each round
        clock = chain.from_iterable((0.0, sample.typical) for sample in samples)
        request.node.add_marker(pytest.mark.benchmark(timer=clock.__next__))
        benchmark = request.getfixturevalue("benchmark")
        group, unit = f"{cell.workload} {cell.backend} {metric}", METRICS[metric].unit
        benchmark.group = group if unit in ("s", "") else f"{group} ({unit})"
        benchmark.extra_info |= cell._asdict() | {"metric": metric, "unit": unit}
        benchmark.pedantic(lambda: None, rounds=len(samples))

    # the end

    @pytest.hookimpl(tryfirst=True)
    def pytest_benchmark_generate_commit_info(self) -> dict[str, Any]:
        """Return what the run file says of the commit in this folder."""
        return describe_commit()

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Add the run's results and samples to the run file, failed cells and reasons included."""
        assert self.measurement is not None
        output_json["bakeoff"] = msgspec.to_builtins(self.measurement.results, enc_hook=float)
        for benchmark in output_json["benchmarks"]:
            benchmark["stats"].pop("data", None)  # samples stand in `bakeoff.samples`, once
            benchmark["options"] = {}  # of no use to samples that workers took
            benchmark["params"] = {name: str(value) for name, value in benchmark["params"].items()}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        """Say where the run file is, or why there is none."""
        path = self.config.getoption("benchmark_json")
        try:
            yield
        except (OSError, BakeoffError) as error:  # the run file, or one that pytest-benchmark saves
            session.exitstatus = pytest.ExitCode.INTERRUPTED
            problem = error.__cause__ or error
            words = str(problem)
            if isinstance(problem, OSError):
                name = str(path or problem.filename or "the saved run")
                words = f"{journals.describe_disk_error(problem, name)}; {journals.SAFE}"
            self.find_reporter().write_line(words, red=True)
        except Exception:  # `--benchmark-compare-fail` has something to say, after it has written
            self.conclude(session, path)
            raise
        else:
            self.conclude(session, path)

    def conclude(self, session: pytest.Session, path: Path | None) -> None:
        """Set the exit status of a run; drop its journal if it is no longer needed."""
        if self.measurement is None:
            return
        if path is not None and path.exists():
            hint = f"bakeoff report {path} -o {path.stem}.html makes a page of it"
            self.find_reporter().write_line(f"run file: {path}; {hint}")
        if self.measurement.interrupted:
            session.exitstatus = pytest.ExitCode.INTERRUPTED
        elif not self.numbers:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        elif path is None or path.exists():
            self.measurement.journal.remove()

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> Generator[None, None, None]:
        """Show the report, after pytest-benchmark's output."""
        try:
            yield
        finally:
            if self.measurement is not None:
                terminalreporter.section("bakeoff")
                console, details = self.make_console(), self.config.get_verbosity() > 0
                report = describe_run(Run("", self.measurement.results))
                terminal.show(report, console, details=details)
                if advice := self.advise(self.measurement):
                    console.print(advice, markup=False, soft_wrap=True)

    def advise(self, measurement: Measurement) -> str:
        """Return how to go on where there is no run file; empty where there is one."""
        if measurement.interrupted:
            resume = f"--resume={measurement.journal.path}"
            return (
                "interrupted: no run file is written; what was measured is safe. Go on with:\n"
                f"  {measurement.results.make_command(resume)}"
            )
        if self.numbers:
            return ""
        nothing = "no benchmark has a number, so no run file is written: "
        if all(row.failure for row in measurement.results.cells):
            return f"{nothing}every style failed."
        advice = (
            f"give a larger --budget than {self.task.options.budget:g}, or fewer entrants, styles "
            "or workloads"
        )
        if any(DISTURBED in row.missing.values() for row in measurement.results.cells):
            advice = "other processes had the workers' cores; measure it again in a quieter hour"
        return f"{nothing}{advice}. What was measured is in {measurement.journal.path}"

    def find_reporter(self) -> Any:
        """Return pytest's terminal reporter, at the beginning of a line."""
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        reporter.ensure_newline()
        return reporter

    def make_console(self) -> Console:
        """Return a console at the beginning of a line, with the width and colours of pytest's."""
        self.find_reporter()
        writer = self.config.get_terminal_writer()
        return Console(
            width=writer.fullwidth,
            force_terminal=writer.hasmarkup,
            no_color=not writer.hasmarkup,
            highlight=False,
        )
