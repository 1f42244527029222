"""`pytest bench` as a whole: real runs, short ones, in a folder of their own."""

from __future__ import annotations

import copy
import errno
import importlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pytest
from jsonschema import Draft202012Validator

import impls
from bench import conftest, runfile
from bench.cells import Cell, Offer, Selection
from bench.cli import main
from bench.engine.actions import Options
from bench.engine.journal import FOLDER, SUFFIX, DiskError, Journal
from bench.engine.processes import WorkerFailedError
from bench.environments.offers import offer
from bench.metrics import METRICS
from bench.report.markdown import markdown
from bench.report.run import document
from bench.run import Measurement, Request, read_header, without_resume
from bench.runfile.atomic_write import Whole
from bench.runfile.reader import Run as RunFile
from bench.samples import Samples
from bench.worker.source import code_lines
from common.errors import BakeoffError
from tests.commands import bench, how
from tests.simulated import with_blocks

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


def test_entries_say_what_they_are(run: Run) -> None:
    entries = by_name(run[1])
    for (entrant, metric), benchmark in entries.items():
        info = benchmark["extra_info"]
        where = {"entrant": entrant, "style": "pure", "workload": "toy", "backend": "cpu"}
        assert where.items() <= info.items()
        assert benchmark["group"].startswith(f"toy cpu {metric}")
        assert (info["ratio"] is None) == (entrant == "pure_jax")
        assert info["unit"] == METRICS[metric].unit
        [cell] = [c for c in run[1]["bakeoff"]["cells"] if c["entrant"] == entrant]
        said = cell["metrics"][metric]
        assert said["blocks"] == COUNTS["processes"] * COUNTS["blocks"]
        assert said["processes"] == COUNTS["processes"]
        assert said["samples"] == benchmark["stats"]["rounds"]
        assert said["cores"] == ("one" if METRICS[metric].added else "all")
        assert said["detectable"] is None or said["detectable"] > 0  # None: two say nothing
    step = entries["twin", "step"]["extra_info"]
    assert step["low"] < step["ratio"] < (step["high"] or float("inf"))
    assert step["verdict"] in ("faster", "slower", "equivalent", "inconclusive")
    assert not any(metric == "final_loss" for _, metric in entries)  # a loss is no time
    cells = run[1]["bakeoff"]["cells"]
    losses = {c["entrant"]: c["final_loss"] for c in cells if c["final_loss"]}
    assert losses["twin"]["entropy"] == 0.0
    assert len(losses["twin"]["own_initialiser"]) == 3
    assert losses["twin"]["same_weights"] == losses["pure_jax"]["same_weights"]


def test_a_run_says_how_it_was_made(run: Run) -> None:
    _, found, records = run
    machine = found["machine_info"]
    assert {"jax", "flax", "dm-haiku", "equinox", "optax", "numpy"} <= set(machine["versions"])
    assert machine["devices"]["cpu"]
    assert len(machine["load_average"]) == 3
    assert machine["environment"]["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    said = found["bakeoff"]
    assert said["schema"] == runfile.SCHEMA
    assert said["environment"]["versions"] == machine["versions"]
    assert "--style=pure" in said["arguments"]
    assert said["plan"]["budget_seconds"] == 300
    assert said["plan"]["margin"] == 0.02
    assert said["plan"]["backends"]["cpu"]["workers"]["toy step"] == COUNTS["processes"]
    assert {c["metric"] for c in said["control"]} >= {"step", "host_cost"}
    started = sum(record["action"]["do"] in ("start", "cold") for record in records)
    assert said["spent"]["processes"] == started
    assert 0 < said["spent"]["sampling_share"] < 1
    twin = next(cell for cell in said["cells"] if cell["entrant"] == "twin")
    assert twin["proof"]["same_program_as_baseline"]
    assert 0 <= twin["proof"]["loss"] <= 1e-6
    assert twin["exact"]["code_lines"] == code_lines_of(TWIN)


def code_lines_of(text: str) -> int:
    """Return the lines of a text that are not blank."""
    return sum(1 for line in text.splitlines() if line.strip())


def test_a_run_is_shown(run: Run) -> None:
    done, found, _ = run
    assert "toy on cpu: width 8, 8 characters; 4 blocks, 2 processes, all cores" in done.stdout
    text = " ".join(done.stdout.split())
    assert " ".join(found["bakeoff"]["verdict"][0].split()) in text
    assert "detectable difference" in text


def test_a_markdown_table_of_it(run: Run) -> None:
    text = markdown(
        document(RunFile("run", msgspec.convert(run[1]["bakeoff"], runfile.BakeoffSection)))
    )
    assert "| pure_jax | " in text
    assert "crashing" in text
    assert "import failed" in text


@pytest.mark.slow
def test_compare_select_and_group(lab: Lab, run: Run) -> None:
    """`-k` leaves the twin's step; the baseline is measured beside it all the same."""
    options = ["--entrant=pure_jax,twin.py", "-k", "test_step and twin", "--benchmark-compare=0001"]
    options += ["--processes=1", "--blocks=1", "--rounds=2", "--benchmark-group-by=param:metric"]
    done = lab.run(*lab.command(*options, "--benchmark-json=second.json", "--margin=0.5"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "machine_info is different" not in done.stdout + done.stderr
    assert "(0001_first)" in done.stdout
    assert "benchmark 'metric=step'" in done.stdout
    found = json.loads((lab.folder / "second.json").read_text())
    msgspec.convert(found, runfile.RunFile)
    assert set(by_name(found)) == {("twin", "step")}
    [step] = [b["extra_info"] for b in found["benchmarks"]]
    assert step["ratio"] > 0
    rows = {cell["entrant"]: cell["metrics"] for cell in found["bakeoff"]["cells"]}
    assert set(rows) == {"pure_jax", "twin"}
    assert rows["twin"]["step"]["blocks"] == 1
    assert rows["pure_jax"]["step"]["median"] > 0
    assert found["bakeoff"]["plan"]["margin"] == 0.5
    assert lab.journals == [], "all it held is in the file"


@pytest.mark.slow
def test_a_comparison_that_fails_leaves_file_and_report(lab: Lab, run: Run) -> None:
    [first] = lab.folder.glob(".benchmarks/*/0001_first.json")
    known = json.loads(first.read_text())
    for benchmark in known["benchmarks"]:
        benchmark["stats"]["mean"] /= 100
    first.with_name("0002_quick.json").write_text(json.dumps(known))
    options = ["--entrant=pure_jax,twin.py", "--metric=step", "--benchmark-compare=0002"]
    options += ["--processes=2", "--blocks=1", "--rounds=1", "--benchmark-compare-fail=mean:5%"]
    done = lab.run(*lab.command(*options, "--benchmark-json=failed.json"))
    assert done.returncode != 0
    assert "Performance has regressed" in done.stdout + done.stderr
    assert "detectable difference" in done.stdout
    msgspec.json.decode((lab.folder / "failed.json").read_bytes(), type=runfile.RunFile)
    assert not list(lab.folder.glob(".*.partial"))
    assert lab.journals == []


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
    ("option", "value", "says"),
    [
        ("budget", math.inf, "--budget is inf; it"),
        ("budget", 1e9, "it may be 604800 at most: give seconds"),
        ("margin", 2.0, "it may be 0.5 at most: 0.02 is 2 %"),
        ("metric", ["tiem"], "unknown metric 'tiem'; known: step, host_cost, "),
        (
            "entrant",
            ["nowhere.py"],
            "no such entrant 'nowhere.py'; give a name, or a Python file's",
        ),
        ("entrant", ["torhc"], "unknown entrant 'torhc'; known: pure_jax, equinox, flax_linen, "),
        ("blocks", 0, "--blocks is 0; it must be a whole number from 1 to 100000"),
        ("cold-samples", -1, "--cold-samples is -1; it must be a whole number from 1"),
        ("rounds", 1_000_000, "--rounds is 1000000; it must be a whole number from 1 to 100000"),
        ("devices", "two", "--devices is 'two'; give whole numbers, as in 1,2,4"),
    ],
)
def test_wrong_options_are_named(option: str, value: Any, says: str) -> None:
    given = {f"--{name}": about.get("default") for name, about in conftest.OPTIONS.items()}
    given[f"--{option}"] = value
    config: Any = SimpleNamespace(getoption=lambda name, default=None: given.get(name, default))
    with pytest.raises(BakeoffError) as caught:
        conftest.request_of(config)
    assert says in str(caught.value)


BAD = {
    "--budget=0": "--budget is 0.0; it must be a positive number",
    "--entrant=equinox.py": "entrant 'equinox.py': there is another 'equinox'; rename the file",
    "--entrant=\x1b[31mred\n": "unknown entrant ",
    "--numprocesses=2": "-n is for tests; benchmarks are measured one at a time: leave it out",
    "--benchmark-json=there.json": "--benchmark-json there.json exists already; files are never",
    "--benchmark-json=nowhere/run.json": "there is no folder nowhere; make it first",
    "--benchmark-json=there.json/run.json": "there.json is not a folder; name another one",
    "--benchmark-json=/proc/run.json": "/proc/run.json: the folder /proc takes no new files (",
    "--resume": "there is nothing to resume: no journal in .bakeoff/; run without --resume",
    "--resume=gone": "cannot read the journal gone: No such file",
    "--resume=there.json": "there.json is no journal of a run",
    "--resume=old.journal": "the journal old.journal is of version 0, this program reads 2",
    "--resume=bad.journal": "line 2 of the journal bad.journal is damaged",
}
MANY = """
import contextlib, gc, io, json, sys
import pytest

found = {}
for option in json.loads(sys.argv[2]):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = pytest.main([sys.argv[1], option])
    found[option] = int(status), out.getvalue(), error.getvalue()
    gc.collect()  # a process that ends gives its lock back
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Run with each of the bad options, in one process that is quick for it."""
    lab = Lab(tmp_path_factory.mktemp("refused"))
    (lab.folder / "there.json").write_text("{}")
    (lab.folder / "equinox.py").write_text(TWIN)
    (lab.folder / "old.journal").write_text('{"version": 0}\n')
    (lab.folder / "bad.journal").write_text('{"version": 1}\n{"action\n{}\n')
    done = lab.run(sys.executable, "-c", MANY, str(ROOT / "bench"), json.dumps(list(BAD)))
    assert done.returncode == 0, done.stderr
    return lab.folder, json.loads(done.stdout)


@pytest.mark.parametrize("option", BAD)
def test_bad_options_end_with_one_line_and_status_2(
    option: str, refused: tuple[Path, dict[str, Any]]
) -> None:
    status, out, error = refused[1][option]
    assert status == 2
    assert error.count("\n") == 1, error
    assert BAD[option] in error
    assert "Traceback" not in out + error


def test_bad_options_leave_everything_as_it_is(refused: tuple[Path, dict[str, Any]]) -> None:
    folder = refused[0]
    assert (folder / "there.json").read_text() == "{}"
    assert (folder / "old.journal").read_text() == '{"version": 0}\n'
    assert (folder / "bad.journal").read_text().endswith("{}\n")
    assert not (folder / FOLDER).exists()
    assert not list(folder.glob(".*partial"))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(entrants=("flex",)), "unknown entrant 'flex'; known: pure_jax, equinox, gone;"),
        (Selection(styles=("jti",)), "unknown style 'jti'; known: filter_jit, pure;"),
        (
            Selection(workloads=("tiny",)),
            "unknown workload 'tiny'; known: toy, seed, wide, batched",
        ),
        (Selection(backends=("gpu",)), "unknown backend 'gpu'; known: cpu;"),
        (
            Selection(entrants=("pure_jax",), styles=("filter_jit",)),
            "unknown style of pure_jax 'filter_jit'; known: pure;",
        ),
    ],
)
def test_unknown_names(selection: Selection, message: str) -> None:
    with pytest.raises(BakeoffError) as caught:
        selection.cells(OFFER)
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
    assert [(c.entrant, c.style) for c in cells] == [
        ("pure_jax", "pure"),
        ("equinox", "pure"),
        ("equinox", "filter_jit"),
        ("gone", "pure"),
    ]
    assert Selection(("equinox",), ("pure",), ("toy",)).cells(OFFER) == [
        Cell("equinox", "pure", "toy", "cpu")
    ]


def test_the_parent_imports_no_library_under_test() -> None:
    code = (
        "import sys, bench.conftest; print({'jax', 'flax', 'haiku', 'equinox'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_each_metric_is_asked_for_by_one_file() -> None:
    over_devices = "test_scaling"  # which asks for the same, of other cells
    found = {path.stem for path in (ROOT / "bench").glob("test_*.py")}
    assert over_devices in found
    modules = [importlib.import_module(f"bench.{name}") for name in found - {over_devices}]
    assert sorted(metric for module in modules for metric in module.METRICS) == sorted(METRICS)


def test_replay_gives_back_the_samples_to_the_last_bit() -> None:
    samples = [0.1, 1 / 3, 1e5 + 0.7, 1e-9]
    clock = conftest.Replay(samples)
    taken = []
    for _ in samples * 2:
        start = clock()
        clock.step()
        taken.append(clock() - start)
    assert taken == samples * 2


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
def drives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[..., None]], None]:
    """Return what sets what is done instead of measuring, given the plan; in an empty folder."""

    def set_to(drive: Callable[..., None]) -> None:
        class FakeDriver:
            def __init__(self, plan: Any, *_: object, **__: object) -> None:
                self.plan = plan

            def run(self) -> None:
                drive(self.plan)

        monkeypatch.setattr("bench.run.Driver", FakeDriver)

    monkeypatch.chdir(tmp_path)
    return set_to


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "no benchmark has a number"),
        (KeyboardInterrupt(), "interrupted: no run file is written"),
        (DiskError("the disk is full"), ""),
        (ZeroDivisionError(), ""),
    ],
    ids=["complete", "interrupted", "disk", "unforeseen"],
)
def test_how_a_run_ends(
    error: BaseException | None, said: str, tmp_path: Path, drives: Any
) -> None:
    def drive(_: Any) -> None:
        if error is not None:
            raise error

    drives(drive)
    run = Measurement(REQUEST, OFFER, needed={CELL: {"step"}})
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            run.run(0.0, never)
    else:
        run.run(0.0, never)
    assert run.advice().startswith(said)
    assert bool(run.advice()) == bool(said)
    [journal] = tmp_path.glob(f"{FOLDER}/*{SUFFIX}")
    assert (run.complete, run.interrupted, run.broken) == (
        error is None,
        isinstance(error, KeyboardInterrupt),
        isinstance(error, Exception),
    )
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
        ([], "options"),
        (None, "lanes"),
        ("later", "before"),
        ([], "offer", "versions"),
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


def test_how_to_go_on_names_its_journal_once() -> None:
    for given in (["--resume"], ["--resume", "a.journal"], ["--resume=a.journal"], []):
        typed = ["bench", "--budget=60", *given, "--rounds=1"]
        assert without_resume(typed) == ["bench", "--budget=60", "--rounds=1"]


def test_one_worker_alone_is_preliminary(drives: Any) -> None:
    baseline, other, control = (
        Cell(name, "pure", "toy", "cpu") for name in ("pure_jax", "haiku", "control")
    )

    def drive(plan: Any) -> None:
        state = plan.sides["", "cpu"].state
        for cell in (baseline, other, control):
            blocks = [Samples(1, n, 1.0, [1e-3] * 8, 2) for n in range(3)]
            state.cells[cell].blocks["step"] = blocks
        with_blocks(state)

    drives(drive)
    run = Measurement(REQUEST, OFFER, needed={other: {"step", "sample"}})
    run.run(0.0, never)
    said = run.section()
    there = kept(msgspec.to_builtins(said))
    assert there == {(e, "step"): [1e-3] * 24 for e in ("pure_jax", "haiku", "control")}
    found = said.cells[1].metrics
    assert found["step"].preliminary
    assert found["sample"] == runfile.Metric(missing="not measured within the budget")
    assert run.result(other, "step").ratio == 1
    assert run.result(other, "sample") == found["sample"]


class Ended(SimpleNamespace):
    """A measurement that has come to its end, and whether its journal was dropped."""

    def __init__(self, **about: Any) -> None:
        flags = {"interrupted": False, "broken": False, "complete": True, "numbers": 1, "handed": 1}
        self.dropped = False
        super().__init__(**flags | about)

    def done(self) -> None:
        self.dropped = True


@pytest.mark.parametrize(
    ("ended", "error", "status", "said", "file", "dropped"),
    [
        (Ended(), None, 0, "run file: {0}", True, True),
        # As with `-x`: the file lacks what was not handed over any more
        (Ended(handed=0), None, 0, "run file: {0}", True, False),
        # As when every cell failed: pytest-benchmark has nothing to write then
        (Ended(numbers=0), None, 1, "", False, False),
        (Ended(interrupted=True, complete=False, handed=0), None, 2, "", False, False),
        (Ended(broken=True, complete=False), None, 0, "", None, False),
        (Ended(), OSError(errno.ENOSPC, "No space"), 2, "the disk is full: {0} c", None, False),
        (Ended(), OSError(errno.EIO, "Broken"), 2, "cannot write {0}: Broken;", None, False),
    ],
    ids=["whole", "stopped", "no number", "interrupted", "broken", "full", "disk"],
)
def test_a_session_ends(
    ended: Ended,
    error: OSError | None,
    status: int,
    said: str,
    file: bool | None,
    dropped: bool,
    tmp_path: Path,
) -> None:
    """`file`: whether pytest-benchmark wrote one that stays; None for one that does not stay."""
    path = Whole(tmp_path / "run.json")
    if file is not False:
        path.write_text("{}")
    lines: list[str] = []
    reporter = SimpleNamespace(
        ensure_newline=lambda: None,
        write_line=lambda line, **_: lines.append(line),
        _tw=SimpleNamespace(_file=sys.stdout),
    )
    config = SimpleNamespace(
        stash={conftest.MEASUREMENT: ended},
        getoption=lambda _: path,
        pluginmanager=SimpleNamespace(get_plugin=lambda _: reporter),
    )
    session: Any = SimpleNamespace(config=config, exitstatus=0, items=[None])
    hook: Generator[None, None, None] = conftest.pytest_sessionfinish(session)
    next(hook)
    with pytest.raises(StopIteration):
        next(hook) if error is None else hook.throw(error)
    assert int(session.exitstatus) == status
    assert "\n".join(lines).startswith(said.format(path))
    assert len(lines) == bool(said)
    assert [each.name for each in tmp_path.iterdir()] == (["run.json"] if file else [])
    assert ended.dropped == dropped


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "bakeoff: interrupted\n"),
        (
            WorkerFailedError("worker failed (exit status -9)", "last words", None),
            2,
            "bakeoff: worker failed (exit status -9): last words\n",
        ),
    ],
)
def test_programs_whose_worker_does_not_come_to_its_end(
    raised: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Worker:
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def start(self) -> None:
            raise raised

    monkeypatch.setattr("bench.engine.processes.Worker", Worker)
    monkeypatch.setattr(impls, "names", lambda: [impls.BASELINE])
    assert main(["entrants", "--programs", "--workload", "toy"]) == status
    assert capsys.readouterr().err == message


def test_code_lines_are_counted_without_comments_and_docstrings(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        '"""Doc\nstring."""\n\n# comment\nx = """a\nb"""\n\n\ndef f():\n    "d"\n    return x\n'
    )
    assert code_lines(path) == 4
