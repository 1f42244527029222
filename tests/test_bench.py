"""`pytest bench` as a whole: real runs, short ones, in a folder of their own."""

import errno
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest

from bench.cells import Cell, Selection
from bench.engine.journal import FOLDER, SUFFIX, Journal
from bench.metrics import SAMPLED
from bench.offer import Offer
from bench.plugin import RunPlugin
from bench.runfile import DISTURBED, unpack_samples
from bench.runfile.reader import Run as ReadRun
from bench.runfile.reader import read
from tests.commands import TWIN, bench, how

ENTRANTS = {
    "twin": TWIN,
    "planted": """
from common.steps import pure_style
from impls import pure_jax

DISTRIBUTION = "jax"

def build(config):
    model = pure_jax.build(config)
    def step(params, state, token):
        state, logits = model.step(params, state, token)
        return state, logits * 1.001
    return model._replace(step=step)

STYLES = {"pure": pure_style(build)}
""",
    "crashing": "raise OSError('no such planet')\n",
    "deadly": """
import os
import sys
from impls.pure_jax import build as build

DISTRIBUTION = "jax"

def deadly(*_, **__):
    print("the last words of an entrant", file=sys.stderr, flush=True)
    os.abort()

STYLES = {"pure": deadly}
""",
}
KEEP = "from bench.engine.journal import Journal\nJournal.remove = lambda self: None\n"
"""A plugin that keeps the journal of a run that has come to its end."""
COUNTS = {"processes": 1, "blocks": 2, "rounds": 2, "cold_samples": 1}
TIMED = ("step", "host_cost")


class Lab:
    """A folder in which runs are made: their journals, temporary files and lock are there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "keep.py").write_text(KEEP)
        for name, text in ENTRANTS.items():
            (folder / f"{name}.py").write_text(text)

    def command(self, *options: str) -> list[str]:
        """Return the command of a run at the smallest size."""
        counts = [f"--{name.replace('_', '-')}={count}" for name, count in COUNTS.items()]
        return bench("--style=pure", "--workload=toy", "--backend=cpu", *counts, *options)

    @property
    def how(self) -> dict[str, Any]:
        return how(self.folder, self.folder)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command], **self.how, capture_output=True, check=False)

    @property
    def journals(self) -> list[Path]:
        return sorted((self.folder / FOLDER).glob(f"*{SUFFIX}"))


class Done(NamedTuple):
    """A finished run: its process, its file as JSON and as read, and its journal."""

    process: subprocess.CompletedProcess[str]
    data: Any
    run: ReadRun
    journal: Journal


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def done(lab: Lab) -> Done:
    """Run the benchmarks of the baseline, its twin, and three entrants that fail."""
    options = ["--entrant=pure_jax", "--entrant=" + ",".join(f"{name}.py" for name in ENTRANTS)]
    options += [f"--metric={','.join(TIMED)}", "-pkeep", "--benchmark-save=first"]
    path = lab.folder / os.fsdecode(b"run\xe9.json")  # no UTF-8, which it is beside
    process = lab.run(*lab.command(*options, f"--benchmark-json={path.name}"))
    assert path.exists(), process.stdout + process.stderr
    [journal] = map(Journal.open, lab.journals)
    journal.path.unlink()
    return Done(process, json.loads(path.read_text()), read(path), journal)


def entries(data: Any) -> dict[tuple[str, str], Any]:
    """Return the benchmarks of a run file by entrant and metric."""
    infos = [(entry["extra_info"], entry) for entry in data["benchmarks"]]
    return {(info["entrant"], info["metric"]): entry for info, entry in infos}


def test_what_fails_is_a_failed_cell_and_the_others_go_on(done: Done) -> None:
    assert done.process.returncode == 1
    rows = {row.cell.entrant: row for row in done.run.results.cells}
    assert rows.keys() == {"pure_jax", "control", *ENTRANTS}
    failures = {name: row.failure for name, row in rows.items() if row.failure}
    assert re.match(
        r"not equal: loss off by \S+ relative to the float64 reference \(allowed: 1e-06\); ",
        failures["planted"],
    )
    assert failures.keys() == {"planted", "crashing", "deadly"}
    assert failures["crashing"] == "import failed: OSError: no such planet"
    assert failures["deadly"] == "worker failed (exit status -6), twice in a row"
    assert "the last words of an entrant" in rows["deadly"].stderr
    text = " ".join(done.process.stdout.split())
    for name, failure in failures.items():
        assert f"{name}-pure-toy-cpu: {failure}" in text
        assert not [s for s in done.run.samples if s.cell.entrant == name]
        assert not [row for row in done.run.results.estimates if row.cell.entrant == name]
    assert entries(done.data).keys() == {(e, m) for e in ("pure_jax", "twin") for m in TIMED}
    assert "Traceback" not in done.process.stderr


def journalled(journal: Journal) -> list[tuple[str, str, float]]:
    """Return the samples in a journal: entrant, metric and value."""
    return sorted(
        (s.cell.entrant, s.metric, s.value) for s in unpack_samples(journal.known.samples)
    )


def test_every_sample_that_was_taken_is_in_the_file_once(done: Done) -> None:
    good = {"pure_jax", "control", "twin"}
    taken = [row for row in journalled(done.journal) if row[0] in good]
    assert sorted((s.cell.entrant, s.metric, s.value) for s in done.run.samples) == taken
    for (entrant, metric), entry in entries(done.data).items():
        rows = [s for s in done.run.samples if (s.cell.entrant, s.metric) == (entrant, metric)]
        assert entry["stats"]["rounds"] == len(rows) == 2
        assert entry["stats"]["max"] == pytest.approx(max(row.typical for row in rows))
        assert "data" not in entry["stats"]
        assert entry["group"] == f"toy cpu {metric}"


def test_estimates_and_proofs(done: Done) -> None:
    results = done.run.results
    twin = Cell("twin", "pure", "toy", "cpu")
    for metric, form in (("step", "ratio"), ("host_cost", "added")):
        row = results.table.comparison(twin, metric)
        assert row is not None
        assert (row.form, row.against) == (form, "pure_jax/pure")
        assert (row.blocks, row.is_preliminary) == (2, True)
    cores = {s.metric: s.cores for s in done.run.samples}
    assert (cores["step"], cores["host_cost"]) == (0, 1), "all cores, and one"
    [result] = [row for row in results.cells if row.cell == twin]
    assert result.proof is not None
    assert result.proof.same_program


def test_a_run_says_how_it_was_made(done: Done) -> None:
    """In its file, and the report is shown without pytest-benchmark's."""
    results = done.run.results
    assert {"python", "jax", "jaxlib", "optax", "numpy"} <= {*results.versions}
    assert results.conditions.variables["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert "cpu" in results.conditions.devices
    assert {"--style=pure", "--benchmark-json=run?.json"} <= {*results.arguments}
    assert (results.options.budget, results.options.margin) == (300, 0.02)
    assert results.spent.processes >= len({sample.worker for sample in done.run.samples})
    assert 0 < results.spent.sampling_seconds < results.spent.wall_seconds
    _, report = done.process.stdout.split(" bakeoff ", 1)
    for word in ("crashing", "twin", "step", "call", "run file: run?.json"):
        assert word in " ".join(report.split())
    assert "not used at all" not in done.process.stdout


@pytest.mark.slow
def test_selected_and_compared(lab: Lab, done: Done) -> None:
    """`-k` leaves the twin's step; a comparison that fails leaves file and report."""
    [first] = lab.folder.glob(".benchmarks/*/0001_first.json")
    known = json.loads(first.read_text())
    for entry in known["benchmarks"]:
        entry["stats"]["mean"] /= 100
    first.with_name("0002_quick.json").write_text(json.dumps(known))
    options = ["--entrant=pure_jax,twin.py", "-k", "step and twin", "--benchmark-compare=0002"]
    options += ["--blocks=1", "--metric=step", "--benchmark-json=second.json"]
    options += ["--benchmark-compare-fail=mean:5%"]
    process = lab.run(*lab.command(*options))
    text = process.stdout + process.stderr
    assert process.returncode != 0
    assert "Performance has regressed" in text
    assert "machine_info is different" not in text
    assert "(0002_quick)" in process.stdout
    path = lab.folder / "second.json"
    assert entries(json.loads(path.read_text())).keys() == {("twin", "step")}
    measured = {s.cell.entrant for s in read(path).samples if s.metric == "step"}
    assert measured == {"pure_jax", "control", "twin"}, "the baseline is measured beside it"
    assert lab.journals == [], "all it held is in the file"


@pytest.mark.parametrize(
    ("failures", "missing", "words"),
    [
        (["not equal", "not equal"], {}, "every style failed"),
        (["not equal", None], {}, "a larger --budget"),
        (["not equal", None], {"step": DISTURBED}, "a quieter hour"),
    ],
)
def test_what_is_to_be_done_where_no_benchmark_has_a_number(
    failures: list[str | None], missing: dict[str, str], words: str
) -> None:
    results = Mock(cells=[Mock(failure=failure, missing=missing) for failure in failures])
    task = Mock()
    task.options.budget = 40
    plugin = RunPlugin(Mock(), task, {})
    assert words in plugin.advise(Mock(interrupted=False, results=results))


# What is selected.

OFFER = Offer(
    styles={"pure_jax": ["pure"], "equinox": ["pure", "filter_jit"]},
    problems={"gone": "entrant 'gone' needs the package 'gone'"},
    backends=["cpu"],
)
RARE = replace(OFFER, if_named={"equinox": ["filter_jit"]})
BROKEN = replace(OFFER, problems={"flax_nnx": "import failed: no such name"})
TWO = ["pure_jax-pure", "equinox-pure"]
THREE = [*TWO, "equinox-filter_jit"]


def test_a_deeper_workload_can_be_selected() -> None:
    Selection(workloads=("seedx12", "sweep")).check_names()


@pytest.mark.parametrize(
    ("names", "offer", "expected"),
    [
        ({}, OFFER, [*THREE, "gone-pure"]),
        ({"entrants": ("equinox",), "styles": ("pure",)}, OFFER, ["equinox-pure"]),
        ({}, RARE, [*TWO, "gone-pure"]),
        ({"entrants": ("equinox",)}, RARE, THREE[1:]),
        ({"styles": ("filter_jit",)}, RARE, THREE[2:]),
        ({"entrants": ("flax_nnx",), "styles": ("jit",)}, BROKEN, ["flax_nnx-jit"]),
        ({"styles": ("pure",)}, BROKEN, [*TWO, "flax_nnx-pure"]),
    ],
)
def test_selection(names: dict[str, Any], offer: Offer, expected: list[str]) -> None:
    selection = Selection(**{"workloads": ("toy",), **names})
    assert [f"{cell.entrant}-{cell.style}" for cell in selection.cells(offer)] == expected


ALL = {name for name, metric in SAMPLED.items() if not (metric.added or metric.named)}


@pytest.mark.parametrize(
    ("selection", "workload", "metrics"),
    [
        (Selection(), "toy", {"host_cost"}),
        (Selection(), "seed", ALL),
        (Selection(workloads=("wide",)), "wide", ALL),
        (Selection(workloads=("sweep",)), "width64", {"step"}),
        (Selection(metrics=("cores_used", "step")), "toy", {"cores_used", "step"}),
        (Selection(metrics=("host_cost",)), "seed", set()),
    ],
)
def test_which_metrics_are_measured(selection: Selection, workload: str, metrics: set[str]) -> None:
    cell = Cell("pure_jax", "pure", workload, "cpu")
    assert {name for name in SAMPLED if selection.is_measured(name, cell)} == metrics


@pytest.mark.parametrize(
    ("numbers", "error", "status", "words"),
    [
        (1, None, 0, "run file: {0}"),
        (0, None, 1, ""),  # every cell failed: there is nothing to write
        (1, OSError(errno.ENOSPC, "No space"), 2, "the disk is full: {0} c"),
    ],
)
def test_a_journal_stays_unless_the_run_file_is_written(
    numbers: int, error: Exception | None, status: int, words: str, tmp_path: Path
) -> None:
    path, reporter, journal = tmp_path / "run.json", Mock(), Mock()
    config, session = Mock(), Mock(exitstatus=0)
    config.getoption.return_value = path
    config.pluginmanager.get_plugin.return_value = reporter
    plugin = RunPlugin(config, Mock(), {})
    plugin.measurement, plugin.numbers = Mock(interrupted=False, journal=journal), numbers
    hook = plugin.pytest_sessionfinish(session)
    next(hook)
    if numbers and error is None:
        path.touch()
    with pytest.raises(StopIteration):
        next(hook) if error is None else hook.throw(error)
    assert int(session.exitstatus) == status
    lines = [call.args[0] for call in reporter.write_line.call_args_list]
    assert "".join(lines).startswith(words.format(path))
    assert journal.remove.called == (status == 0)
