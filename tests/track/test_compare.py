"""`bakeoff compare`: run files of simulated samples, compared by the command."""

import dataclasses
import re
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from bench.cells import BASELINE, Arm
from bench.estimates import Estimate
from bench.report.documents.ab import MARKER, describe_comparison
from bench.report.markdown import markdown
from bench.report.page import page
from bench.runfile import RunOptions
from bench.runfile.reader import Processor, Run, read
from bench.runfile.writer import write
from bench.track.comparison import BASE, NEW, Comparison, Status, is_costlier
from bench.track.run_files import compare
from tests.commands import Bakeoff, refusal
from tests.report.runs import section
from tests.report.test_renderers import terminal
from tests.track.simulated import ARMS, BLOG, FILTER_JIT, HAIKU, VERSIONS, a_run, file_of, two_sides

BEFORE = a_run(1, name="before")
LATER = a_run(2, name="later", speed=1.08, when="2026-01-01T13:00:00")
"""The same code an hour later, when the machine is 8 % slower."""


def both(base: Run, new: Run) -> Comparison:
    return Comparison(compare([base], new))


def row_of(it: Comparison, arm: Arm, metric: str = "step") -> Estimate:
    [row] = [row for row in it.times if row.cell.arm == arm and row.metric == metric]
    return row


def replaced(run: Run, **results: Any) -> Run:
    return dataclasses.replace(run, results=replace(run.results, **results))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs: two of one code, one in which haiku is slower, and odd ones."""
    folder = tmp_path_factory.mktemp("runs")
    other = a_run(3, arms=ARMS[:2])
    cells = [replace(c, cell=c.cell._replace(workload="wide")) for c in other.results.cells]
    for name, run in {
        "before": BEFORE,
        "later": LATER,
        "slower": a_run(2, {HAIKU: 1.3}),
        "other": replaced(other, cells=cells, estimates=[]),
        "ab": dataclasses.replace(other, results=two_sides(3)),
    }.items():
        write(folder / f"{name}.json", file_of(run))
    (folder / "broken.json").write_text("{")
    (folder / "plain.json").write_text('{"benchmarks": []}')
    return folder


@pytest.mark.parametrize(
    ("versions", "command"),
    [({"jax": "0.12.1"}, "`bakeoff ab --base jax==0.12.0 --new jax==0.12.1 "), ({}, "")],
)
def test_the_last_line_is_the_command_that_settles(versions: Any, command: str) -> None:
    info = replace(LATER.results.environments[""], versions=VERSIONS | versions)
    compared = compare([BEFORE], replaced(LATER, environments={"": info}), margin=1e-6)
    settling = [line for line in describe_comparison(compared).fine_print if "To settle" in line]
    assert [command in line for line in settling] == [True] * bool(command)


def test_a_slower_hour_is_not_a_slower_program() -> None:
    it = both(BEFORE, LATER)
    assert (it.differing_times, it.status) == ([], Status.NOT_WORSE)
    assert row_of(it, HAIKU).value == pytest.approx(1, abs=0.01)
    # What is absolute, as the baseline's seconds and memory, is 8 % more, and no comparison at all.
    assert not any(row.cell.is_baseline for row in it.times)
    seconds = [
        it.amounts[side, BASELINE.make_cell("seed", "cpu"), "step"].value for side in (BASE, NEW)
    ]
    assert seconds[1] > 1.05 * seconds[0]
    assert row_of(it, FILTER_JIT, "host_cost").value == pytest.approx(1, abs=0.02)
    # Nor does it matter how much slower the middle call is than the datum of a block.
    it = both(BEFORE, a_run(2, median=1.5))
    assert row_of(it, FILTER_JIT, "host_cost").value == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("arm", "planted"), [(HAIKU, 1.05), (FILTER_JIT, 1.12), (BLOG, 1.3), (HAIKU, 0.9)]
)
def test_a_change_is_detected_and_fails_if_it_is_slower(arm: Arm, planted: float) -> None:
    it = both(BEFORE, a_run(2, {arm: planted}, speed=1.08))
    for metric in ("step", "host_cost"):  # both of a call and what the arm adds to it
        row = row_of(it, arm, metric)
        assert row.low is not None
        assert row.high is not None
        assert row.low < planted < row.high
        assert row.differs
    assert it.status is (Status.WORSE if planted > 1 else Status.NOT_WORSE)
    assert {other.cell.arm for other in it.differing_times} == {arm}


def test_the_noise_of_runs_is_no_finding() -> None:
    """Any false row in a family has odds of one in twenty, without the spread between runs."""
    pairs = [both(a_run(100 + seed), a_run(200 + seed, speed=0.95)) for seed in range(20)]
    assert sum(bool(it.differing_times) for it in pairs) <= 1


def test_several_base_runs_tell_what_runs_vary_by() -> None:
    """A machine on which runs differ by far more than each knows, by what it does to Python."""
    wild = [0.9, 1.12, 1.0, 0.95, 1.08]
    bases = [
        a_run(seed, {FILTER_JIT: by, BLOG: by * 1.02}, when=f"2026-01-0{seed}T00:00:00")
        for seed, by in enumerate(wild, 1)
    ]
    new = a_run(9, {FILTER_JIT: 1.1, BLOG: 1.1})
    alone, together = (Comparison(compare(few, new)) for few in (bases[2:3], bases))
    assert row_of(alone, FILTER_JIT).differs
    assert not row_of(together, FILTER_JIT).differs


def test_a_number_of_rounds_is_another_way_of_measuring_than_the_default() -> None:
    eight = replaced(LATER, options=replace(LATER.results.options, rounds=8))
    assert "--rounds default, then 8" in refusal(compare, [BEFORE], eight)
    assert "--rounds 8, then default" in refusal(compare, [eight], BEFORE)


def on_all_cores(run: Run) -> Run:
    """Return a run whose calls at `toy`, of 0.1 ms, were timed on all cores."""
    return replaced(run, options=RunOptions(cores="all"))


def test_two_runs_of_a_short_call_on_all_cores_have_no_verdict(
    bakeoff: Bakeoff, tmp_path: Path
) -> None:
    """Unless runs of the same code say how much they differ there: `Spread` is of one core."""
    slower = a_run(2, {FILTER_JIT: 1.09})
    assert row_of(both(BEFORE, slower), FILTER_JIT, "host_cost").differs
    it = both(on_all_cores(BEFORE), on_all_cores(slower))
    row = row_of(it, FILTER_JIT, "host_cost")
    assert (row.low, row.high, row.differs, row.is_unknown) == (None, None, False, True)
    assert row_of(it, FILTER_JIT).differs, "a step of 4 ms"
    assert (
        "3 not comparable on all cores (use `--cores=one`)"
        in describe_comparison(it.results).headline
    )
    calls = [
        [r for r in run.results.estimates if r.metric == "host_cost"] for run in (BEFORE, slower)
    ]
    for name, run, rows in zip(("base", "new"), (BEFORE, slower), calls, strict=True):
        write(tmp_path / f"{name}.json", file_of(on_all_cores(replaced(run, estimates=rows))))
    done = bakeoff("compare", "base.json", "new.json", "-o", "both.json")
    assert (done.status, "Nothing is settled yet." in done.err) == (2, True)
    made = describe_comparison(read(tmp_path / "both.json").results)
    for text in (terminal(made, 80), markdown(made), page(made)):
        plain = " ".join(re.sub("[`*]|<[^>]*>", "", text).split())
        assert "not comparable on all cores (use --cores=one)" in plain
    bases = [a_run(n, when=f"2026-01-0{n}T00:00:00") for n in range(3, 9)]
    runs = [on_all_cores(run) for run in (*bases, a_run(2, {FILTER_JIT: 2.0}))]
    it = Comparison(compare(runs[:-1], runs[-1]))
    assert row_of(it, FILTER_JIT, "host_cost").differs
    assert row_of(it, FILTER_JIT, "host_cost").df == 5
    one_core = replaced(BEFORE, conditions=replace(BEFORE.results.conditions, affinity=[0]))
    pinned = [dataclasses.replace(one_core, when=f"2026-01-0{n}T00:00:00") for n in (1, 2)]
    assert not row_of(both(*map(on_all_cores, pinned)), FILTER_JIT, "host_cost").is_unknown


def test_base_runs_of_several_commits_are_told() -> None:
    bases = [a_run(n, commit=f"{n}" * 40, when=f"2026-01-0{n}T00:00:00") for n in (1, 2)]
    [text] = compare(bases, a_run(3)).warnings
    assert text == "base runs come from 2 commits and are pooled: 1111111111 and 2222222222"


def test_exact_counts_are_compared_exactly() -> None:
    changed = {
        (FILTER_JIT, "python_calls"): 1538.0,
        (FILTER_JIT, "temp_bytes"): 900.0,
        (HAIKU, "temp_bytes"): 1217.0,
        (FILTER_JIT, "code_lines"): 60.0,
        (HAIKU, "python_calls"): 5.0,
        (BLOG, "final_loss"): 2.270,  # the last bits of a compiler
    }
    it = both(BEFORE, a_run(1, changed=changed))
    counts = {(row.cell.entrant, row.metric): is_costlier(row) for row in it.counts}
    assert counts == {
        ("equinox", "python_calls"): True,
        ("haiku", "python_calls"): True,
        ("haiku", "temp_bytes"): True,
        ("equinox", "temp_bytes"): False,
        ("equinox", "code_lines"): False,
    }
    assert list(counts)[-1] == ("equinox", "code_lines")  # lines of code matter least
    assert it.status is Status.WORSE
    named = Comparison(replace(it.results, metrics=["step"]))
    assert (named.counts, named.status) == (it.counts, Status.NOT_WORSE), "told, and not decisive"
    assert "Worse" not in describe_comparison(named.results).headline
    [table] = describe_comparison(it.results).sections[0].tables
    lines = {row.cells for row in table.rows}
    assert ("Python calls of equinox/filter_jit at width 128", "1 537 → 1 538") in lines
    assert ("temp bytes of haiku/pure at width 128", "1 216 → 1 217") in lines, (
        "1.2 kB on both sides"
    )
    worse = both(BEFORE, a_run(1, changed={(BLOG, "final_loss"): 2.3}))
    text = "Worse: flax_linen/blog loss, same weights at width 128 2.269 → 2.300."
    assert text in describe_comparison(worse.results).headline


def test_a_new_failure_is_worse() -> None:
    broken = a_run(3, failures={HAIKU: "not equal"})
    it = both(BEFORE, broken)
    assert it.status is Status.WORSE
    failures = section(describe_comparison(it.results), "Failures")
    assert "haiku/pure at width 8 and width 128 fails: not equal" in " ".join(failures.lines)
    assert both(broken, BEFORE).status is Status.NOT_WORSE
    assert both(broken, a_run(4, failures={HAIKU: "so"})).status is Status.NOT_WORSE


def test_nothing_settled_is_no_pass() -> None:
    few = [row for row in BEFORE.results.estimates if row.metric == "step"]
    unknown = [replace(r, standard_error=None, low=None, high=None, df=0.0) for r in few]
    it = both(replaced(BEFORE, estimates=unknown), replaced(LATER, estimates=few))
    assert it.status is Status.CANNOT_SAY
    assert describe_comparison(it.results).headline.startswith("Nothing is settled")
    exact = [row for row in BEFORE.results.estimates if row.metric == "python_calls"]
    it = both(replaced(BEFORE, estimates=exact), replaced(LATER, estimates=exact))
    assert it.status is Status.NOT_WORSE
    assert Comparison(replace(it.results, metrics=["step"])).status is Status.CANNOT_SAY


@pytest.mark.parametrize(
    ("words", "part", "value"),
    [
        # a machine or a way to measure that is another one is refused
        ("processor CPU X (family 6), then CPU Z", "machine.cpu", Processor("CPU Z")),
        (
            *("cpu device cpu, then cpu, overclocked", "results.conditions.devices"),
            {"cpu": "cpu, overclocked"},
        ),
        ("--donate False, then True", "results.options", RunOptions(donate=True)),
        ("cores 2, then 1", "results.conditions.affinity", [1]),
        # the rest is told
        ("X 1 → 2", "results.conditions.variables", {"X": "2"}),
        ("jax 0.12.0 → 0.13.0", "versions", {"jax": "0.13.0", "jaxlib": "0.13.0"}),
        ("flax 0.12.8 → 0.13.0", "versions", {"flax": "0.13.0"}),
    ],
)
def test_what_differs_beside_the_code_is_told_or_refused(words: str, part: str, value: Any) -> None:
    versions = value if part == "versions" else None
    other = a_run(2, versions=versions)
    if versions is None:
        owner, _, field = part.rpartition(".")
        setattr(attrgetter(owner)(other), field, value)
    if "then" in words:
        assert words in refusal(both, BEFORE, other)
        return
    it = both(BEFORE, other)
    warnings, headline = " ".join(it.results.warnings), describe_comparison(it.results).headline
    assert it.status is Status.NOT_WORSE
    assert (f"What differs ({words}) affects pure_jax too" in warnings) is ("flax" not in words)
    assert headline.startswith(f"{words}: No change found." if versions else "No change")


@pytest.mark.parametrize("form", ["txt", "md", "json"])
def test_every_form_says_the_same(
    bakeoff: Bakeoff, folder: Path, tmp_path: Path, form: str
) -> None:
    given = "compare", str(folder / "before.json"), str(folder / "slower.json")
    path = tmp_path / f"out.{form}"
    done = bakeoff(*given, "-o", path.name)
    assert (done.status, done.out) == (1, f"{path.name}\n")
    assert re.search(r"Worse: .*haiku/pure step at width 128 \+30 % \(", " ".join(done.err.split()))
    text = path.read_text(encoding="utf-8")
    if form == "json":
        made = read(path).results
        assert describe_comparison(made).headline in done.err
        assert Comparison(made).status is Status.WORSE
    else:
        assert text.startswith(MARKER) is (form == "md")
        assert re.search(r"▲ \+30 % \(2\d to 3\d\)", text)
    assert bakeoff(*given, "-o", path.name).status == 2
    assert path.read_text(encoding="utf-8") == text


WRONG = {
    "before.json": "one run is given, before.json; give two: BASE.json NEW.json",
    "before.json broken.json": "broken.json is not JSON",
    "before.json plain.json": "there is `pytest-benchmark compare`",
    "before.json other.json": "have no cell in common",
    "before.json later.json before.json": "before (1) and before (3) are the same run",
    "before.json ab.json": "ab is a file of `bakeoff ab`, which has compared already",
    "before.json later.json -o before.json": "output before.json exists already",
}


@pytest.mark.parametrize("given", WRONG)
def test_wrong_use_is_one_line(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, folder: Path, given: str
) -> None:
    monkeypatch.chdir(folder)
    done = bakeoff("compare", *given.split())
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert WRONG[given] in done.err
