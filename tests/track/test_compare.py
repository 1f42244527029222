"""`bakeoff compare`: run files of simulated samples, compared by the command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace

from bench.cells import BASELINE
from bench.runfile.reader import read
from bench.runfile.writer import write
from bench.track.ab import MARKER, document
from bench.track.compare import compare
from bench.track.comparison import BASE, NEW, Comparison, Status
from common.errors import BakeoffError
from tests.track.simulated import ARMS, BLOG, FILTER_JIT, HAIKU, a_run, file_of

if TYPE_CHECKING:
    from pathlib import Path

    from bench.cells import Arm
    from bench.estimates import Estimate
    from bench.runfile.reader import Run
    from tests.commands import Bakeoff

BEFORE = a_run(1, name="before")
LATER = a_run(2, name="later", speed=1.08)
"""The same code an hour later, when the machine is 8 % slower."""


def both(base: Run, new: Run, *allowed: str) -> Comparison:
    return Comparison(compare([base], new, allowed=allowed))


def row_of(it: Comparison, arm: Arm, metric: str = "step") -> Estimate:
    [row] = [row for row in it.times if row.cell.arm == arm and row.metric == metric]
    return row


def section(it: Comparison, title: str) -> tuple[str, ...]:
    return next((s.lines for s in document(it.results).sections if s.title == title), ())


def test_a_slower_hour_is_not_a_slower_program() -> None:
    it = both(BEFORE, LATER)
    assert it.differing == []
    assert it.status is Status.NOT_WORSE
    assert row_of(it, HAIKU).value == pytest.approx(1, abs=0.01)
    # What is absolute, as the baseline's seconds and memory, is 8 % more, and no comparison at all.
    assert not any(row.cell.is_baseline for row in it.times)
    seconds = [it.amounts[side, BASELINE.at("seed", "cpu"), "step"].value for side in (BASE, NEW)]
    assert seconds[1] > 1.05 * seconds[0]
    # What is added is compared at one speed.
    assert row_of(it, FILTER_JIT, "host_cost").value == pytest.approx(0, abs=3e-6)


@pytest.mark.parametrize(
    ("arm", "planted", "status"),
    [(HAIKU, 1.05, 1), (FILTER_JIT, 1.12, 1), (BLOG, 1.3, 1), (HAIKU, 0.9, 0)],
)
def test_a_change_is_found_and_fails_if_it_is_slower(arm: Arm, planted: float, status: int) -> None:
    it = both(BEFORE, a_run(2, {arm: planted}, speed=1.08))
    row = row_of(it, arm)
    assert row.low is not None
    assert row.high is not None
    assert row.low < planted < row.high
    assert row.differs
    assert it.status == status
    assert {other.cell.arm for other in it.differing} == {arm}
    host = row_of(it, arm, "host_cost")  # of a call of 100 µs and what the arm adds
    assert (host.form, host.unit) == ("added", "s")
    assert host.value * (planted - 1) > 0


def test_the_noise_of_runs_is_no_finding() -> None:
    """Any false row in a family has odds of one in twenty, without the spread between runs."""
    wrong = 0
    for seed in range(20):
        it = both(a_run(100 + seed), a_run(200 + seed, speed=0.95))
        wrong += bool(it.differing)
    assert wrong <= 1


def test_a_small_certain_difference_is_told_and_passes(bakeoff: Bakeoff, tmp_path: Path) -> None:
    slower = a_run(2, {HAIKU: 1.012}, name="slower")
    for run in (BEFORE, slower):
        write(tmp_path / f"{run.name}.json", file_of(run))
    # Three base runs say that runs of this machine do not differ by more than they know.
    for seed in (3, 4, 5):
        write(tmp_path / f"base{seed}.json", file_of(a_run(seed, when=f"2026-01-0{seed}T00:00:00")))
    bases = [f"base{seed}.json" for seed in (3, 4, 5)]
    done = bakeoff("compare", *bases, "slower.json", "--margin", "0.03")
    text = " ".join(done.out.split())
    assert done.status == 0, text
    assert "Differs, within the margin of 3 %: haiku step at seed +1" in text
    assert "base: base3, base4, base5" in text


def test_exact_counts_are_compared_exactly() -> None:
    changed = {
        (FILTER_JIT, "python_calls"): 1538.0,
        (FILTER_JIT, "temp_bytes"): 900.0,
        (FILTER_JIT, "code_lines"): 60.0,
        (HAIKU, "python_calls"): 5.0,
        (BLOG, "final_loss"): 2.270,
    }
    it = both(BEFORE, a_run(1, changed=changed))
    moves = {(m.after.cell.entrant, m.after.metric): m.worse for m in it.moves}
    assert moves == {
        ("equinox", "python_calls"): True,
        ("haiku", "python_calls"): True,
        ("equinox", "temp_bytes"): False,
        ("equinox", "code_lines"): False,
    }
    assert list(moves)[-1] == ("equinox", "code_lines")  # lines of code matter least
    assert it.status is Status.WORSE
    worse = a_run(1, changed={(BLOG, "final_loss"): 2.3})
    assert [m.after.metric for m in both(BEFORE, worse).moves] == ["final_loss"]
    assert (
        "loss, same weights of flax_linen blog at seed 2.269 → 2.300"
        in document(both(BEFORE, worse).results).headline
    )


def test_failures_and_what_is_on_one_side_alone_are_told() -> None:
    broken = a_run(2, failures={HAIKU: "not equal"})
    it = both(BEFORE, broken)
    assert it.status is Status.WORSE
    assert "haiku at toy and seed fails: not equal" in " ".join(section(it, "Failures"))
    assert both(broken, BEFORE).status is Status.NOT_WORSE
    assert both(broken, broken).status is Status.NOT_WORSE
    fewer = a_run(2, arms=ARMS[:-1])
    lost = [
        row for row in fewer.results.estimates if row.metric != "compile" or row.cell.arm != HAIKU
    ]
    for result in fewer.results.cells:
        if result.cell.arm == HAIKU:
            result.missing = {"compile": "there was no time"}
    it = both(BEFORE, replaced(fewer, estimates=lost))
    assert section(it, "Not compared") == (
        "compile of haiku at toy and seed: not measured on the new side: there was no time",
        "Only on the base side: flax_linen blog at toy and seed",
    )


def replaced(run: Run, **results: Any) -> Run:
    return type(run)(**{**vars(run), "results": replace(run.results, **results)})


def test_nothing_settled_is_no_pass() -> None:
    few = [row for row in BEFORE.results.estimates if row.metric == "step"]
    unknown = [replace(r, standard_error=None, low=None, high=None, df=0.0) for r in few]
    it = both(replaced(BEFORE, estimates=unknown), replaced(LATER, estimates=few))
    assert it.status is Status.CANNOT_SAY
    assert document(it.results).headline.startswith("Inconclusive")
    exact = [row for row in BEFORE.results.estimates if row.metric == "python_calls"]
    it = both(replaced(BEFORE, estimates=exact), replaced(BEFORE, estimates=exact))
    assert it.status is Status.NOT_WORSE


CONDITIONS: dict[str, Any] = {
    "machine": {"machine": {"cpu": {"brand_raw": "CPU Z"}}},
    "python": {"machine": {"python_implementation": "PyPy"}},
    "devices": {"conditions": {"devices": {"cpu": "cpu, overclocked"}}},
    "measuring": {"options": {"donate": True}},
    "flags": {"conditions": {"variables": {"X": "2"}}},
    "flax": {"versions": {"flax": "0.13.0"}},
    "equinox": {"versions": {"equinox": "0.13.0"}},
}


def other_conditions(name: str) -> Run:
    run = a_run(2, **CONDITIONS[name].get("versions", {}))
    run.machine.update(CONDITIONS[name].get("machine", {}))
    for part in ("conditions", "options"):
        for field, value in CONDITIONS[name].get(part, {}).items():
            setattr(getattr(run.results, part), field, value)
    return run


@pytest.mark.parametrize("name", CONDITIONS)
def test_other_conditions_are_refused_unless_they_are_allowed(name: str) -> None:
    other = other_conditions(name)
    with pytest.raises(BakeoffError, match=f"give --allow {name} ") as caught:
        both(BEFORE, other)
    assert "\n" not in str(caught.value)
    for allowed in (name, "all"):
        assert both(BEFORE, other, allowed).status is Status.NOT_WORSE
    moved = " ".join(both(BEFORE, other, name).results.warnings)
    assert ("affects pure_jax too" in moved) is (name not in ("flax", "equinox"))


def test_releases_that_differ_begin_the_headline() -> None:
    made = compare([BEFORE], other_conditions("flax"), allowed=["flax"])
    assert document(made).headline.startswith("flax 0.12.8 → 0.13.0: No change found.")


def test_reasons_to_doubt_are_warnings() -> None:
    other = a_run(2)
    for result in other.results.cells:
        if result.cell.arm == HAIKU and result.proof:
            result.proof.same_program_as_baseline = False
    said = " ".join(compare([BEFORE], other).warnings)
    assert "haiku at seed on cpu no longer compiles to the same program as pure_jax" in said
    same = compare([BEFORE], BEFORE)
    assert same.warnings == ["a base and the new run are the same run: nothing can have changed"]
    assert {row.value for row in Comparison(same).times} <= {0.0, 1.0}
    assert all(row.exact for row in Comparison(same).times)
    assert Comparison(same).status is Status.NOT_WORSE


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


@pytest.mark.parametrize("form", ["text", "md", "html", "json"])
def test_every_form_says_the_same(bakeoff: Bakeoff, tmp_path: Path, form: str) -> None:
    slower = a_run(2, {HAIKU: 1.3}, name="slower")
    for run in (BEFORE, slower):
        write(tmp_path / f"{run.name}.json", file_of(run))
    ending = {"text": "txt"}.get(form, form)
    done = bakeoff("compare", "before.json", "slower.json", "-o", f"out.{ending}")
    assert (done.status, done.out) == (1, f"out.{ending}\n")
    assert "Worse: haiku step at seed +30 % (" in " ".join(done.err.split())
    text = (tmp_path / f"out.{ending}").read_text(encoding="utf-8")
    if form == "md":
        assert text.startswith(MARKER)
    if form == "json":
        made = read(tmp_path / "out.json").results
        assert document(made).headline in done.err
        assert Comparison(made).status is Status.WORSE
    else:
        assert re.search(r"1\.3\d* \(1\.2\d*–1\.3\d*\)", text)
    again = bakeoff("compare", "before.json", "slower.json", "-o", f"out.{ending}")
    assert again.status == 2
    assert (tmp_path / f"out.{ending}").read_text(encoding="utf-8") == text
    shown = bakeoff("compare", "before.json", "slower.json", "--format", form)
    assert shown.status == 1
    if form == "json":
        msgspec.json.decode(shown.out)


def test_a_row_is_never_split_over_two_tables(bakeoff: Bakeoff, tmp_path: Path) -> None:
    for run in (BEFORE, LATER):
        write(tmp_path / f"{run.name}.json", file_of(run))
    out = bakeoff("compare", "before.json", "later.json").out
    assert len(re.findall("^style", out, re.MULTILINE)) == 2  # a table for each workload
    assert max(map(len, out.splitlines())) <= 80


WRONG = {
    "before.json": "one run is given, before.json; give two: BASE.json NEW.json",
    "before.json none.json": "none.json cannot be read",
    "before.json broken.json": "broken.json is not JSON",
    "before.json plain.json": "there is `pytest-benchmark compare`",
    "before.json other.json": "have no cell in common",
    "before.json before.json later.json": "before (2) is given twice as a base",
    "before.json ab.json": "ab is a file of `bakeoff ab`, which has compared already",
    "before.json later.json --allow nothing": "--allow: unknown name 'nothing'; known: machine",
    "before.json later.json --margin 5": "--margin is 5",
    "before.json later.json -o out.pdf": "output out.pdf ends in .pdf; .txt",
    "before.json later.json -o before.json": "output before.json exists already",
}


@pytest.mark.parametrize("given", WRONG)
def test_wrong_use_is_one_line(bakeoff: Bakeoff, tmp_path: Path, given: str) -> None:
    for run in (BEFORE, LATER, a_run(3, arms=ARMS[:2], name="other")):
        write(tmp_path / f"{run.name}.json", file_of(run))
    other = read(tmp_path / "other.json")
    cells = [replace(c, cell=c.cell._replace(workload="wide")) for c in other.results.cells]
    (tmp_path / "other.json").unlink()
    file = file_of(replaced(a_run(3), cells=cells, estimates=[]))
    write(tmp_path / "other.json", file)
    write(tmp_path / "ab.json", file_of(replaced(a_run(3), kind="ab")))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "plain.json").write_text('{"benchmarks": []}')
    done = bakeoff("compare", *given.split())
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert WRONG[given] in done.err
