"""`pytest bench` as a whole: real runs, short ones, in a folder of their own."""

from __future__ import annotations

import copy
import errno
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import msgspec
import pytest
from jsonschema import Draft202012Validator

import impls
from bench import conftest, runfile
from bench.cells import Cell, Offer, Selection
from bench.engine.actions import Options
from bench.engine.journal import FOLDER, SUFFIX, DiskError, Journal
from bench.engine.process import WorkerFailedError
from bench.environments.offers import offer
from bench.metrics import METRICS
from bench.report.markdown import markdown
from bench.report.run import document
from bench.run import Measurement, Request, read_header
from bench.runfile.reader import Run as RunFile
from bench.samples import STARVED
from bench.worker.source import code_lines
from common.errors import BakeoffError
from tests.commands import bench, how

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

ROOT = Path(__file__).parents[1]
OFFER = Offer(
    styles={"pure_jax": ["pure"], "equinox": ["pure", "filter_jit"]},
    problems={"gone": "entrant 'gone' needs the package 'gone'"},
    backends=["cpu"],
    versions={},
    devices={},
)
TWIN = """
from common.steps import pure_style
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
STYLES = {"pure": pure_style(build)}
"""
PLANTED = """
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
"""
DEADLY = """
import os
import sys
from impls.pure_jax import build as build

DISTRIBUTION = "jax"

def deadly(*_, **__):
    print("the last words of an entrant", file=sys.stderr, flush=True)
    os.abort()

STYLES = {"pure": deadly}
"""
ENTRANTS = {
    "twin": TWIN,
    "planted": PLANTED,
    "crashing": "raise OSError('no such planet')\n",
    "deadly": DEADLY,
}
KEEP = "from bench.engine.journal import Journal\nJournal.remove = lambda self: None\n"
"""A plugin that keeps the journal of a run that has come to its end."""
COUNTS = {"processes": 2, "blocks": 2, "rounds": 2}
METRIC = ["step", "host_cost", "final_loss"]


class Lab:
    """A folder in which runs are made: their journals, temporary files and lock are there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "keep.py").write_text(KEEP)
        for name, text in ENTRANTS.items():
            (folder / f"{name}.py").write_text(text)

    def command(self, *options: str) -> list[str]:
        """Return the command of a run at the smallest size."""
        chosen = ["--style=pure", "--workload=toy", "--backend=cpu"]
        return bench(*chosen, *options)

    @property
    def how(self) -> dict[str, Any]:
        """How its processes are started."""
        return how(self.folder, self.folder)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run([*command], **self.how, capture_output=True, check=False)

    @property
    def journals(self) -> list[Path]:
        """The journals there are."""
        return sorted((self.folder / FOLDER).glob(f"*{SUFFIX}"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Return where this module's runs are made."""
    return Lab(tmp_path_factory.mktemp("lab"))


type Run = tuple[subprocess.CompletedProcess[str], Any, list[dict[str, Any]]]
"""A finished process, its run file, and the records of its journal."""


@pytest.fixture(scope="module")
def run(lab: Lab) -> Run:
    """Run the benchmarks of the baseline, its twin, and three entrants that fail."""
    options = [f"--{name.replace('_', '-')}={count}" for name, count in COUNTS.items()]
    options += ["--entrant=pure_jax", "--entrant=" + ",".join(f"{name}.py" for name in ENTRANTS)]
    options += [f"--metric={','.join(METRIC)}", "-pkeep", "--benchmark-save=first"]
    done = lab.run(*lab.command(*options, "--benchmark-json=run.json"))
    path = lab.folder / "run.json"
    assert path.exists(), done.stdout + done.stderr
    [journal] = lab.journals
    records = Journal.open(journal).records
    journal.unlink()
    return done, json.loads(path.read_text()), records


def by_name(found: Any) -> dict[tuple[str, str], Any]:
    """Return the benchmarks of a run file by entrant and metric."""
    return {(b["extra_info"]["entrant"], b["extra_info"]["metric"]): b for b in found["benchmarks"]}


def test_what_fails_is_a_failed_cell_and_the_others_go_on(run: Run) -> None:
    done, found, _ = run
    assert done.returncode == 1
    cells = {cell["entrant"]: cell for cell in found["bakeoff"]["cells"]}
    assert set(cells) == {"pure_jax", *ENTRANTS}
    failures = {name: cell["failure"] for name, cell in cells.items()}
    assert failures["pure_jax"] is None
    assert failures["twin"] is None
    assert re.match(
        r"not equal: loss off by \S+ relative to the float64 reference \(allowed: 1e-06\); ",
        failures["planted"],
    )
    assert failures["crashing"] == "import failed: OSError: no such planet"
    assert failures["deadly"] == "worker failed (exit status -6), twice in a row"
    assert "the last words of an entrant" in cells["deadly"]["stderr"]
    text = " ".join(done.stdout.split())
    for name in ("planted", "crashing", "deadly"):
        assert f"{name}-pure-toy-cpu: {failures[name]}" in text
        assert cells[name]["metrics"] == {}
        assert cells[name]["final_loss"] is None
    timed = [m for m in METRIC if m != "final_loss"]
    assert set(by_name(found)) == {(e, m) for e in ("pure_jax", "twin") for m in timed}
    assert "Traceback" not in done.stderr


def test_the_run_file_is_what_its_schema_says(run: Run) -> None:
    msgspec.convert(run[1], runfile.RunFile)
    schema = runfile.schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(run[1])


def set_in(found: Any, value: Any, *keys: Any) -> None:
    """Set what stands below some keys of a run file, or delete it if the value is None."""
    *above, last = keys
    for key in above:
        found = found[key]
    if value is None:
        del found[last]
    else:
        found[last] = value


@pytest.mark.parametrize(
    "damage",
    [
        ("better", "cells", 0, "metrics", "step", "verdict"),
        (0, "plan", "margin"),
        (1, "schema"),
        (None, "control", 0, "metric"),
        (-1.0, "cells", 0, "metrics", "step", "median"),
        ({"step": {"twin/pure": [-1]}}, "samples", "blocks", 0, "nanoseconds"),
    ],
    ids=lambda damage: damage[-1],
)
def test_the_schema_refuses(damage: tuple[Any, ...], run: Run) -> None:
    found = copy.deepcopy(run[1])
    set_in(found["bakeoff"], *damage)
    assert not Draft202012Validator(runfile.schema()).is_valid(found)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(found, runfile.RunFile)


type Taken = dict[tuple[str, str], list[float]]
"""All samples by entrant and metric, in the order they were taken."""


def measured(records: list[dict[str, Any]]) -> Taken:
    """Return all samples in a journal."""
    out: Taken = defaultdict(list)
    for record in records:
        action, answer = record["action"], record["outcome"].get("answer")
        if answer is None or "failure" in answer:
            continue
        entrant = "".join(action.get("arms", [])[:1]).split("/")[0]
        if action["do"] == "block":
            for metric, arms in answer["seconds"].items():
                for name, values in arms.items():
                    out[name.split("/")[0], metric] += values
        if action["do"] == "cold":
            for metric, value in answer["values"].items():
                out[entrant, metric].append(value)
        if action["do"] == "train":
            out[entrant, "final_loss"] += answer["training"]["seconds"]
    return out


def kept(section: dict[str, Any]) -> Taken:
    """Return all samples in a run file."""
    out: Taken = defaultdict(list)
    for block in sorted(section["samples"]["blocks"], key=lambda block: block["at"]):
        for metric, arms in block["nanoseconds"].items():
            for name, values in arms.items():
                out[name.split("/")[0], metric] += [block["unit"] * n / 1e9 for n in values]
    for cold in section["samples"]["cold"]:
        for metric, value in cold["values"].items():
            out[cold["entrant"], metric].append(value)
    for cell in section["cells"]:
        if cell["final_loss"]:
            out[cell["entrant"], "final_loss"] += cell["final_loss"]["seconds"]
    return out


def test_every_sample_that_was_taken_is_in_the_file_once(run: Run) -> None:
    _, found, records = run
    known, there = measured(records), kept(found["bakeoff"])
    assert known.keys() == there.keys()
    for key, values in known.items():
        assert sorted(there[key]) == pytest.approx(sorted(values), rel=1e-4), key
    for key, benchmark in by_name(found).items():
        assert "data" not in benchmark["stats"]
        assert benchmark["stats"]["rounds"] == len(known[key])
        assert benchmark["stats"]["median"] == pytest.approx(median(known[key]), rel=1e-6)


def test_entries_and_cells_say_what_was_found(run: Run) -> None:
    cells = {cell["entrant"]: cell for cell in run[1]["bakeoff"]["cells"]}
    for (entrant, metric), benchmark in by_name(run[1]).items():
        info, said = benchmark["extra_info"], cells[entrant]["metrics"][metric]
        where = {"entrant": entrant, "style": "pure", "workload": "toy", "backend": "cpu"}
        assert where.items() <= info.items()
        assert benchmark["group"].startswith(f"toy cpu {metric}")
        assert (info["ratio"] is None) == (entrant == "pure_jax")
        assert said["blocks"] == COUNTS["processes"] * COUNTS["blocks"]
        assert (said["processes"], said["preliminary"]) == (COUNTS["processes"], True)
        assert said["samples"] == benchmark["stats"]["rounds"]
        assert said["cores"] == ("one" if METRICS[metric].added else "all")
    step = by_name(run[1])["twin", "step"]["extra_info"]
    assert step["low"] < step["ratio"] < (step["high"] or float("inf"))
    twin, baseline = cells["twin"], cells["pure_jax"]
    assert twin["final_loss"]["same_weights"] == baseline["final_loss"]["same_weights"]
    assert len(twin["final_loss"]["own_initialiser"]) == 3
    assert twin["proof"]["same_program_as_baseline"]
    assert twin["exact"]["code_lines"] == sum(bool(line.strip()) for line in TWIN.splitlines())


def test_a_run_says_how_it_was_made(run: Run) -> None:
    _, found, records = run
    machine, said = found["machine_info"], found["bakeoff"]
    assert {"jax", "flax", "dm-haiku", "equinox", "optax", "numpy"} <= set(machine["versions"])
    assert machine["devices"]["cpu"]
    assert machine["environment"]["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert said["environment"]["versions"] == machine["versions"]
    assert "--style=pure" in said["arguments"]
    assert (said["plan"]["budget_seconds"], said["plan"]["margin"]) == (300, 0.02)
    assert said["plan"]["backends"]["cpu"]["workers"]["toy step"] == COUNTS["processes"]
    assert {c["metric"] for c in said["control"]} >= {"step", "host_cost"}
    started = sum(record["action"]["do"] in ("start", "cold") for record in records)
    assert said["spent"]["processes"] == started
    assert 0 < said["spent"]["sampling_share"] < 1


def test_a_run_is_shown(run: Run) -> None:
    done, found, _ = run
    assert "toy on cpu: width 8, 8 characters; 4 blocks, 2 processes, all cores" in done.stdout
    text = " ".join(done.stdout.split())
    assert " ".join(found["bakeoff"]["verdict"][0].split()) in text
    assert "detectable difference" in text
    assert "not used at all" not in text
    section = msgspec.convert(found["bakeoff"], runfile.BakeoffSection)
    table = markdown(document(RunFile("run", section)))
    assert "| pure_jax | " in table
    assert "import failed" in table


@pytest.mark.slow
def test_select_compare_and_group(lab: Lab, run: Run) -> None:
    """`-k` leaves the twin's step; the baseline is measured beside it all the same.

    A comparison that fails leaves file and report.
    """
    [first] = lab.folder.glob(".benchmarks/*/0001_first.json")
    known = json.loads(first.read_text())
    for benchmark in known["benchmarks"]:
        benchmark["stats"]["mean"] /= 100
    first.with_name("0002_quick.json").write_text(json.dumps(known))
    options = ["--entrant=pure_jax,twin.py", "-k", "test_step and twin", "--benchmark-compare=0002"]
    options += ["--processes=1", "--blocks=1", "--rounds=2", "--benchmark-group-by=param:metric"]
    options += ["--benchmark-compare-fail=mean:5%", "--benchmark-json=second.json", "--margin=0.5"]
    done = lab.run(*lab.command(*options))
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Performance has regressed" in said
    assert "machine_info is different" not in said
    assert "(0002_quick)" in done.stdout
    assert "benchmark 'metric=step'" in done.stdout
    assert "detectable difference" in done.stdout
    found = json.loads((lab.folder / "second.json").read_text())
    msgspec.convert(found, runfile.RunFile)
    assert set(by_name(found)) == {("twin", "step")}
    rows = {cell["entrant"]: cell["metrics"] for cell in found["bakeoff"]["cells"]}
    assert set(rows) == {"pure_jax", "twin"}
    assert rows["twin"]["step"]["blocks"] == 1
    assert rows["pure_jax"]["step"]["median"] > 0
    assert found["bakeoff"]["plan"]["margin"] == 0.5
    assert not list(lab.folder.glob(".*.partial"))
    assert lab.journals == [], "all it held is in the file"


@pytest.mark.slow
def test_interrupted_and_resumed(tmp_path: Path, heard: Callable[[list[str]], list[str]]) -> None:
    lab = Lab(tmp_path)
    options = ["--entrant=pure_jax", "--metric=step,trace,peak_rss", "--benchmark-json=run.json"]
    options += ["--processes=1", "--blocks=3", "--rounds=2", "--cold-samples=1"]
    output = tmp_path / "run.json"

    # Ctrl-C, which reaches the whole group, while a worker is at work.
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = heard(lab.command(*options))
    with subprocess.Popen(command, **lab.how, **streams, start_new_session=True) as process:
        while not lab.journals or b'"do":"block"' not in lab.journals[0].read_bytes():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        said, errors = process.communicate()
    assert process.returncode == 2, said + errors
    assert "Traceback" not in said + errors
    assert "INTERNALERROR" not in said + errors
    assert "interrupted: no run file is written; what was measured is safe" in said
    assert not output.exists()
    [journal] = lab.journals
    before = journal.read_bytes()
    known = measured(Journal.open(journal).records)
    assert known["pure_jax", "step"]

    # It is taken up as it said, and all of it is in the end.
    [line] = [line for line in said.splitlines() if line.strip().startswith("pytest ")]
    given = shlex.split(line)[1:]
    assert given[-1] == f"--resume={FOLDER / journal.name}"
    done = lab.run(sys.executable, "-m", "pytest", *given, "-pkeep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert journal.read_bytes().startswith(before)
    found = json.loads(output.read_text())
    msgspec.convert(found, runfile.RunFile)
    entries, there = by_name(found), kept(found["bakeoff"])
    for key, values in measured(Journal.open(journal).records).items():
        assert values[: len(known.get(key, ()))] == known.get(key, [])
        assert sorted(there[key]) == pytest.approx(sorted(values), rel=1e-4)
    # What a worker that was cut off has measured counts beside what its successor measures.
    [cell] = found["bakeoff"]["cells"]
    assert cell["metrics"]["step"]["blocks"] >= 3
    assert entries["pure_jax", "trace"]["extra_info"]["trace_and_lower_split_by"] == "clock"
    assert entries["pure_jax", "peak_rss"]["group"] == "toy cpu peak_rss (B)"
    assert [path.name for path in tmp_path.glob(".*partial")] == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"entrants": ("flex",)}, "unknown entrant 'flex'; known: pure_jax, equinox, gone;"),
        ({"styles": ("jti",)}, "unknown style 'jti'; known: filter_jit, pure;"),
        ({"workloads": ("tiny",)}, "unknown workload 'tiny'; known: toy, seed, wide, batched"),
        ({"backends": ("gpu",)}, "unknown backend 'gpu'; known: cpu;"),
        (
            {"entrants": ("pure_jax",), "styles": ("filter_jit",)},
            "unknown style of pure_jax 'filter_jit'; known: pure;",
        ),
    ],
)
def test_unknown_names(names: dict[str, Any], message: str) -> None:
    with pytest.raises(BakeoffError) as caught:
        Selection(**names).cells(OFFER)
    assert str(caught.value).startswith(message)


def test_an_entrant_whose_import_kills_its_worker_is_a_problem_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def ask_once(command: dict[str, Any], place: Any, silence: float) -> dict[str, Any]:
        assert place is None
        names = command["entrants"]
        asked.append(names)
        if "bad" in names or not names:
            raise WorkerFailedError("worker failed (exit status -11)", "a\nlast words", None)
        styles = {name: ["pure"] for name in names if name != "gone"}
        problems = {"gone": "is not there"} if "gone" in names else {}
        rest: dict[str, Any] = {"backends": ["cpu"], "versions": {}, "devices": {}}
        return {"styles": styles, "problems": problems, **rest}

    monkeypatch.setattr("bench.environments.offers.ask_once", ask_once)
    found = offer(("twin", "bad", "gone"), {})
    assert found.styles == {"pure_jax": ["pure"], "twin": ["pure"]}
    killed = "import failed: worker failed (exit status -11): last words"
    assert found.problems == {"bad": killed, "gone": "is not there"}
    assert len(asked) == 5
    asked.clear()
    assert offer(("twin",), {}).styles == {"pure_jax": ["pure"], "twin": ["pure"]}
    assert asked == [["pure_jax", "twin"]]
    assert set(offer((), {}).styles) == set(impls.usual())


def test_selection() -> None:
    cells = Selection(workloads=("toy",)).cells(OFFER)
    pairs = [(c.entrant, c.style) for c in cells]
    both = [("equinox", "pure"), ("equinox", "filter_jit")]
    assert pairs == [("pure_jax", "pure"), *both, ("gone", "pure")]
    one = Selection(("equinox",), ("pure",), ("toy",)).cells(OFFER)
    assert one == [Cell("equinox", "pure", "toy", "cpu")]


def test_some_styles_are_measured_where_they_are_named() -> None:
    rare = replace(OFFER, if_named={"equinox": ["filter_jit"]})

    def styles(selection: Selection) -> set[tuple[str, str]]:
        return {(c.style, c.workload) for c in selection.cells(rare)}

    assert styles(Selection()) == {("pure", "toy"), ("pure", "seed")}
    assert styles(Selection(workloads=("toy", "depth3"))) == {
        *(("pure", "toy"), ("pure", "depth3"), ("filter_jit", "depth3")),
    }
    assert ("filter_jit", "toy") in styles(Selection(entrants=("equinox",)))
    assert ("filter_jit", "toy") in styles(Selection(styles=("filter_jit",)))


def test_each_metric_is_asked_for_by_one_file() -> None:
    over_devices = "test_scaling"  # which asks for the same, of other cells
    found = {path.stem for path in (ROOT / "bench").glob("test_*.py")}
    assert over_devices in found
    modules = [importlib.import_module(f"bench.{name}") for name in found - {over_devices}]
    assert sorted(metric for module in modules for metric in module.METRICS) == sorted(METRICS)


REQUEST = Request(
    ("bench", "--rounds=1"),
    Selection(),
    (),
    {},
    Options(60.0, processes=1, blocks=1, rounds=1, cold_samples=1),
)
CELL = Cell("pure_jax", "pure", "toy", "cpu")


def never(*_: object) -> None: ...


@pytest.fixture
def drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what sets what is done instead of measuring, given the plan; in an empty folder."""

    def set_to(drive: Callable[..., None]) -> None:
        def driver(plan: Any, *_: object, **__: object) -> Any:
            return SimpleNamespace(run=lambda: drive(plan))

        monkeypatch.setattr("bench.run.Driver", driver)

    monkeypatch.chdir(tmp_path)
    return set_to


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "no benchmark has a number"),
        (KeyboardInterrupt(), "interrupted: no run file is written"),
        (DiskError("the disk is full"), None),
        (ZeroDivisionError(), None),
    ],
    ids=["complete", "interrupted", "disk", "unforeseen"],
)
def test_how_a_run_ends(
    error: BaseException | None, said: str | None, tmp_path: Path, drives: Any
) -> None:
    drives(Mock(side_effect=error))
    run = Measurement(REQUEST, OFFER, needed={CELL: {"step"}})
    with pytest.raises(type(error)) if isinstance(error, Exception) else nullcontext():
        run.run(0.0, never)
    assert (run.interrupted, run.broken) == (isinstance(error, KeyboardInterrupt), not said)
    [journal] = tmp_path.glob(f"{FOLDER}/*{SUFFIX}")
    if said:
        assert run.advice().startswith(said)
        assert run.result(CELL, "step").missing == STARVED
    if run.interrupted:
        go_on = f"pytest bench --rounds=1 --resume={FOLDER / journal.name}"
        assert run.advice().splitlines()[1].strip() == go_on


def test_a_journal_of_other_options_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drives: Any
) -> None:
    drives(never)
    cells = {CELL: {"step"}}
    begun = Measurement(REQUEST, OFFER, needed=cells)
    begun.run(5.0, never)
    [path] = tmp_path.glob(f"{FOLDER}/*{SUFFIX}")
    before = path.read_bytes()
    for options, needed, differing in (
        ({"rounds": 3}, cells, "other options"),
        ({"margin": 0.1}, cells, "other options"),  # by which it is chosen who gets more time
        ({}, {**cells, Cell("haiku", "pure", "toy", "cpu"): {"step"}}, "other cells or metrics"),
        ({}, {CELL: {"step", "trace"}}, "other cells or metrics"),
    ):
        request = REQUEST._replace(options=replace(REQUEST.options, **options))
        other = Measurement(request, OFFER, Journal.open(path), needed)
        with pytest.raises(BakeoffError, match=rf"\({differing}\): .*`pytest bench --rounds=1 --r"):
            other.run(0.0, never)
        assert path.read_bytes() == before
    again = Measurement(REQUEST, OFFER, Journal.open(path), cells)
    again.run(0.0, never)
    assert again.header == begun.header, "its seed and the time that had gone are kept"
    second = Measurement(REQUEST, OFFER, needed=cells)
    second.run(0.0, never)
    assert second.header.options.seed != begun.header.options.seed
    monkeypatch.setattr("bench.run.code_digest", lambda: "of other code")
    with pytest.raises(BakeoffError, match="other code"):
        Measurement(REQUEST, OFFER, Journal.open(path), cells).run(0.0, never)


@pytest.mark.parametrize(
    "damage",
    [
        (None, "options"),
        ("later", "before"),
        (None, "offer", "styles"),
    ],
)
def test_a_journal_without_its_run_is_refused(damage: tuple[Any, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    whole = Measurement(REQUEST, OFFER, needed={CELL: {"step"}}).new_header(REQUEST.options, 0.0)
    header = json.loads(msgspec.json.encode(whole))
    Journal.create(path, header)
    assert read_header(Journal.open(path)) == whole
    path.unlink()
    set_in(header, *damage)
    Journal.create(path, header)
    with pytest.raises(BakeoffError, match=r"first line of the journal .* is damaged: "):
        read_header(Journal.open(path))


@pytest.mark.parametrize(
    ("ended", "error", "status", "said", "dropped"),
    [
        ({}, None, 0, "run file: {0}", True),
        ({"numbers": 0}, None, 1, "", False),  # every cell failed: there is nothing to write
        ({"interrupted": True}, None, 2, "", False),
        ({"broken": True}, None, 0, "", False),
        ({}, OSError(errno.ENOSPC, "No space"), 2, "the disk is full: {0} c", False),
        ({}, OSError(errno.EIO, "Broken"), 2, "cannot write {0}: Broken;", False),
    ],
    ids=["whole", "no number", "interrupted", "broken", "full", "disk"],
)
def test_a_session_ends(
    ended: dict[str, Any],
    error: OSError | None,
    status: int,
    said: str,
    dropped: bool,
    tmp_path: Path,
) -> None:
    path, done = tmp_path / "run.json", Mock()
    flags = {"interrupted": False, "broken": False, "numbers": 1, "state": object()}
    reporter = Mock(_tw=SimpleNamespace(_file=sys.stdout))
    config = SimpleNamespace(
        stash={conftest.MEASUREMENT: SimpleNamespace(done=done, **flags | ended)},
        getoption=lambda _: path,
        pluginmanager=SimpleNamespace(get_plugin=lambda _: reporter),
    )
    session: Any = SimpleNamespace(config=config, exitstatus=0)
    hook: Generator[None, None, None] = conftest.pytest_sessionfinish(session)
    next(hook)
    if said and error is None:
        path.touch()
    with pytest.raises(StopIteration):
        next(hook) if error is None else hook.throw(error)
    assert int(session.exitstatus) == status
    lines = [call.args[0] for call in reporter.write_line.call_args_list]
    assert len(lines) == bool(said)
    assert "".join(lines).startswith(said.format(path))
    assert done.called == dropped


def test_code_lines_are_counted_without_comments_and_docstrings(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        '"""Doc\nstring."""\n\n# comment\nx = """a\nb"""\n\n\ndef f():\n    "d"\n    return x\n'
    )
    assert code_lines(path) == 4
