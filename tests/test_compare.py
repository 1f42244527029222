"""Comparisons of runs that are simulated here, sample by sample, and of published ones."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from bench.cells import Cell
from bench.cli.compare import written
from bench.compare import between_run_variance, comparison
from bench.compare.between_run_variance import BETWEEN, Variation, Wobble
from bench.compare.compare import compare
from bench.compare.comparison import (
    Comparison,
    CountOutcome,
    Evidence,
    Origin,
    Status,
    comparison_of,
)
from bench.compare.comparison_document import MARKER, document, headline, shifts
from bench.compare.conditions import BENEATH
from bench.compare.gate import Accept, Gate, GateRule
from bench.report.table import Value
from bench.runfile import PlanOfRun, Result, RunConditions
from bench.runfile.reader import Run, run_of
from bench.runfile.section import section
from bench.samples import Found, Samples, State
from bench.stats.ratios import Estimate, corrected
from bench.stats.verdicts import Verdict
from common.errors import BakeoffError
from tests.simulated import with_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.commands import Bakeoff

TODAY = date(2026, 11, 25)
SECONDS = {"toy": 1.2e-4, "seed": 4e-3}
PLAIN = ("pure_jax", "pure")
SAME, OTHER, SEVERAL = ("haiku", "pure"), ("equinox", "filter_jit"), ("flax_linen", "blog")
PROGRAMS: dict[tuple[str, str], tuple[float, dict[str, Any], int]] = {
    PLAIN: (1.0, {}, 4),
    ("control", "pure"): (1.0, {}, 4),
    SAME: (1.0, {}, 4),
    OTHER: (1.05, {"same_program_as_baseline": False}, 1553),
    SEVERAL: (1.9, {"same_program_as_baseline": False, "whole_step": False}, 6100),
}
PROOF: dict[str, Any] = {"loss": 1e-8, "gradient": 1e-7, "trajectory": 0.0, "whole_step": True}
PROOF |= {"same_program_as_baseline": True, "operations_beside_baseline": {}}
EXACT = {"python_calls": 4, "flops": 9556.0, "temp_bytes": 1216, "compilations_warm": 0}
EXACT |= {"parameters": 429, "code_lines": 43}
VERSIONS = {"python": "3.13.5", "jax-bakeoff": "0.1.0", "jax": "0.12.0", "jaxlib": "0.12.0"}
VERSIONS |= {"flax": "0.12.8", "numpy": "2.5.5"}


def simulated(
    seed: int,
    ratios: Mapping[tuple[str, str], float] | None = None,
    *,
    speed: float = 1.0,
    workloads: tuple[str, ...] = ("seed",),
) -> dict[str, Any]:
    """Return a run file's data, made of samples by the code that makes run files.

    Args:
        seed: Of the noise.
        ratios: Of a style's step to what it is otherwise.
        speed: Of the machine: larger is slower.
        workloads: What is measured.
    """
    rng = np.random.default_rng(seed)
    state = State({})
    for workload in workloads:
        for name, (ratio, proof, calls) in PROGRAMS.items():
            found = Found(proof=PROOF | proof, exact=EXACT | {"python_calls": calls})
            found.training = {"steps": 200, "same_weights": 2.269, "own_initialiser": [2.4, 2.5]}
            found.training |= {"corpus_sha256": "f00"}
            step = SECONDS[workload] * speed * ratio * (ratios or {}).get(name, 1.0)
            own = np.random.default_rng([seed, len(state.cells)])
            found.blocks["step"] = [
                Samples(process, 4 * process + number, 0.0, drawn(own, step, 0.01, 8), 4)
                for process in range(1, 7)
                for number in range(4)
            ]
            found.blocks["compile"] = [
                Samples(100 + number, 100 + number, 0.0, drawn(rng, 0.4 * speed, 0.03, 1))
                for number in range(6)
            ]
            state.cells[Cell(*name, workload, "cpu")] = found
    needed = {c: {"step", "compile", "final_loss"} for c in state.cells if not c.is_control}
    about: dict[str, Any] = {"versions": VERSIONS, "devices": {"cpu": "cpu"}, "affinity": [0, 1]}
    about |= {"environment": {}, "threads": "two"}
    conditions = msgspec.convert(about, RunConditions)
    plan = PlanOfRun(margin=0.02)
    made = section(
        with_blocks(state), needed, plan=plan, arguments=["bench"], environment=conditions
    )
    said = msgspec.to_builtins(made, enc_hook=float)
    machine = {"cpu": {"brand_raw": "Xeon", "model": 167, "count": 2}, "system": "Linux"}
    machine |= {"python_implementation": "CPython", "release": "6.18", "machine": "x86_64"}
    return {
        "machine_info": machine,
        "commit_info": {"id": f"{seed:040x}", "dirty": False},
        "datetime": f"2026-11-25T0{seed % 10}:00:00",
        "benchmarks": [],
        "bakeoff": said,
    }


def drawn(rng: np.random.Generator, middle: float, noise: float, count: int) -> list[float]:
    return list(middle * np.exp(rng.normal(0, noise, count)))


def run(data: dict[str, Any], name: str = "run") -> Run:
    return run_of(json.dumps(data).encode(), Path(f"{name}.json"))


def both(
    base: dict[str, Any], new: dict[str, Any], gate: Gate | None = None, *allow: str
) -> Comparison:
    return compare([run(base, "base")], run(new, "new"), gate, allow, TODAY)


def cell_of(data: dict[str, Any], name: tuple[str, str], workload: str = "seed") -> Any:
    return next(
        cell
        for cell in data["bakeoff"]["cells"]
        if (cell["entrant"], cell["style"], cell["workload"]) == (*name, workload)
    )


def row_of(found: Comparison, name: tuple[str, str], metric: str = "step") -> Any:
    return next(r for r in found.rows if (r.entrant, r.style) == name and r.metric == metric)


BASE = simulated(1)
LATER = simulated(2, speed=1.08)
"""The same code an hour later, when the machine is 8 % slower."""


# --- what is found


def test_a_slower_hour_is_not_a_slower_program() -> None:
    found = both(BASE, LATER)
    assert found.status is Status.NOT_WORSE
    assert shifts(found) == []
    assert row_of(found, SAME).verdict is Verdict.EQUIVALENT
    # Other programs have ratios to the baseline of their own run; the baseline has seconds.
    row = row_of(found, SEVERAL)
    assert row.base_ratio == pytest.approx(1.9, rel=0.01)
    assert row.new_ratio / row.base_ratio == pytest.approx(row.ratio)
    assert row.new > 1.05 * row.base
    plain = row_of(found, PLAIN)
    assert (plain.absolute, plain.verdict) == (True, Verdict.INCONCLUSIVE)
    assert plain.ratio == pytest.approx(1.08, rel=0.01)
    assert math.log(plain.high / plain.ratio) > 1.96 * math.sqrt(2) * BETWEEN[Variation.ABSOLUTE].sd


@pytest.mark.parametrize(
    ("name", "planted", "verdict"),
    [
        (SAME, 1.05, Verdict.SLOWER),
        (OTHER, 1.12, Verdict.SLOWER),
        (SAME, 0.9, Verdict.FASTER),
    ],
)
def test_a_change_is_found_and_fails_if_it_is_slower(
    name: tuple[str, str], planted: float, verdict: Verdict
) -> None:
    found = both(BASE, simulated(2, {name: planted}, speed=1.08))
    row = row_of(found, name)
    slower = verdict is Verdict.SLOWER
    assert (row.verdict, row.worse) == (verdict, slower)
    assert row.ratio == pytest.approx(planted, rel=0.01)
    assert row.low < planted < row.high
    assert shifts(found) == [(row, "at seed")]
    assert found.status is (Status.WORSE if slower else Status.NOT_WORSE)


def test_statistics_in_the_file_do_where_there_are_no_samples() -> None:
    base, new = copy.deepcopy(BASE), simulated(2, {SAME: 1.05})
    expected = row_of(both(base, new), SAME)
    for data in (base, new):
        del data["bakeoff"]["samples"]
    row = row_of(both(base, new), SAME)
    assert row.verdict is Verdict.SLOWER
    assert row.ratio == pytest.approx(expected.ratio, rel=1e-5)  # samples are rounded
    for cell in base["bakeoff"]["cells"]:
        for metric in cell["metrics"].values():
            metric.pop("standard_error", None)
    found = both(base, new)
    assert found.status is Status.CANNOT_SAY
    assert {row.missing for row in found.rows} == {
        "the file has neither samples nor a standard error"
    }


def test_exact_metrics_are_compared_exactly() -> None:
    new = copy.deepcopy(BASE)
    cell_of(new, OTHER)["exact"] |= {"python_calls": 1554, "flops": 9000.0, "code_lines": 60}
    cell_of(new, OTHER)["exact"]["temp_bytes"] = None  # not counted: not compared
    cell_of(new, SAME)["exact"] |= {"compilations_warm": 1}
    cell_of(new, SEVERAL)["final_loss"]["same_weights"] += 0.001
    found = both(BASE, new)
    changed = {(r.entrant, r.metric): (r.outcome, r.worse) for r in found.exact if r.changed}
    assert changed == {
        ("equinox", "python_calls"): (CountOutcome.WORSE, True),
        ("equinox", "flops"): (CountOutcome.BETTER, False),
        ("equinox", "code_lines"): (CountOutcome.CHANGED, False),
        ("haiku", "compilations_warm"): (CountOutcome.WORSE, True),
    }
    assert (OTHER[0], "temp_bytes") not in {(row.entrant, row.metric) for row in found.exact}
    assert found.status is Status.WORSE
    cell_of(new, SEVERAL)["final_loss"]["same_weights"] += 0.1
    assert any(row.metric == "final_loss" and row.worse for row in both(BASE, new).exact)


def test_a_cell_that_fails_now_is_worse() -> None:
    new = copy.deepcopy(LATER)
    cell_of(new, SAME).update(failure="not equal", metrics={})
    found = both(BASE, new)
    assert [(f.entrant, f.base, f.new, f.worse) for f in found.failures] == [
        ("haiku", None, "not equal", True)
    ]
    assert found.status is Status.WORSE
    assert [f.worse for f in both(new, LATER).failures] == [False]
    assert [f.worse for f in both(new, new).failures] == [False]


def test_what_is_on_one_side_alone_is_said() -> None:
    new = copy.deepcopy(LATER)
    new["bakeoff"]["cells"].remove(cell_of(new, SEVERAL))
    cell_of(new, OTHER)["metrics"]["compile"] = {"missing": "not measured within the budget"}
    found = both(BASE, new)
    assert [row.cell for row in found.only_base] == [Cell(*SEVERAL, "seed", "cpu")]
    assert [row.cell for row in both(new, BASE).only_new] == [Cell(*SEVERAL, "seed", "cpu")]
    why = "not measured in the new run: not measured within the budget"
    assert row_of(found, OTHER, "compile").missing == why
    [lines] = [s.lines for s in document(found).sections if s.title == "Not compared"]
    assert lines == (
        f"1 row (compile): {why}",
        "Only in the base run: flax_linen blog at seed on cpu",
    )


def test_reasons_to_doubt_are_warnings() -> None:
    new = copy.deepcopy(BASE)
    cell_of(new, SAME)["proof"]["same_program_as_baseline"] = False
    said = "haiku at seed on cpu no longer compiles to the same program as pure_jax"
    assert said in both(BASE, new).warnings
    same = both(BASE, BASE)
    assert same.warnings == ("a base and the new run are the same run: nothing can have changed",)
    assert {row.ratio for row in same.judged} == {1.0}


# --- between runs


def rows(count: int, entrant: str = "e") -> list[tuple[Cell, str]]:
    return [(Cell(f"{entrant}{i}", "s", "seed", "cpu"), "step") for i in range(count)]


def varying(
    rng: np.random.Generator, sd: float, error: float, keys: list[tuple[Cell, str]]
) -> dict[tuple[Cell, str], Estimate]:
    """Return the estimates of a run of styles that do not differ, but vary from run to run."""
    df = 10.0
    return {
        key: corrected(
            rng.normal(0, sd) + rng.normal(0, error),
            error * math.sqrt(rng.chisquare(df) / df),
            df,
            40,
            5,
        )
        for key in keys
    }


@pytest.mark.parametrize(("calm", "wild"), [(0.0, 0.05), (0.01, 0.08)])
def test_what_runs_vary_by_is_estimated(calm: float, wild: float) -> None:
    """Rows that vary alike are pooled, and others are not."""
    rng, quiet, loud = np.random.default_rng(0), rows(12, "calm"), rows(12, "wild")
    runs = [varying(rng, calm, 0.004, quiet) | varying(rng, wild, 0.004, loud) for _ in range(12)]
    variations = dict.fromkeys(quiet, Variation.OTHER) | dict.fromkeys(loud, Variation.HOST)
    found = between_run_variance.between_runs(runs, variations)
    assert found[Variation.OTHER].sd == pytest.approx(calm, rel=0.12, abs=0.0025)
    assert found[Variation.HOST].sd == pytest.approx(wild, rel=0.12)
    assert 60 < found[Variation.HOST].df <= 12 * 11


@pytest.mark.parametrize(("sd", "bases"), [(0.005, 1), (0.03, 3), (0.002, 4)])
def test_runs_of_the_same_code_differ_seldom(sd: float, bases: int) -> None:
    """Any false verdict in a family of ten is rarer than one in twenty, but the power is there."""
    rng, keys = np.random.default_rng(2), rows(10)
    variations = dict.fromkeys(keys, Variation.OTHER)
    false, hits, times = 0, 0, 300
    for _ in range(times):
        runs = [varying(rng, sd, 0.004, keys) for _ in range(bases)]
        new = varying(rng, sd, 0.004, keys)
        estimated = between_run_variance.between_runs(runs, variations) if bases > 1 else {}
        wobble = between_run_variance.chosen(estimated)[Variation.OTHER]
        shift = math.log1p(0.05 + 6 * sd)
        first = new[keys[0]]
        new[keys[0]] = dataclasses.replace(first, log_ratio=first.log_ratio + shift)
        found = [
            between_run_variance.difference([r[k] for r in runs], new[k], wobble, 10) for k in keys
        ]
        called = [row.changed for row in made(*found).rows]
        hits += called[0]
        false += any(called[1:])
    assert false / times < 0.08
    assert hits / times > 0.8


def test_an_uncertain_estimate_does_not_replace_the_table() -> None:
    certain, small, large = Wobble(0.001, 9), Wobble(0.001, 3), Wobble(0.2, 3)
    estimated = {Variation.HOST: certain, Variation.OTHER: small, Variation.COLD: large}
    chosen = between_run_variance.chosen(estimated)
    assert chosen[Variation.HOST] == certain
    assert chosen[Variation.OTHER] == BETWEEN[Variation.OTHER]
    assert chosen[Variation.COLD] == Wobble(0.2, BETWEEN[Variation.COLD].df)


def test_several_base_runs_know_more_than_one() -> None:
    difference = between_run_variance.difference
    new, wobble = corrected(0.0, 0.004, 9, 40, 5), Wobble(0.01, 20)
    known = [corrected(x, 0.004, 9, 40, 5) for x in (0.01, -0.01, 0.03, -0.03)]
    four = difference(known, new, wobble)
    assert four.standard_error == pytest.approx(math.sqrt(1.25 * (0.004**2 + 0.01**2)))
    unknown = corrected(5.0, math.inf, 0, 1, 1)
    assert difference([*known, unknown], new, wobble) == four
    assert math.isinf(difference([unknown], new, wobble).standard_error)
    bases = [run(simulated(seed), f"base{seed}") for seed in (1, 3, 5)]
    found = compare(bases, run(LATER, "new"), today=TODAY)
    assert [origin.name for origin in found.base] == ["base1", "base3", "base5"]
    wide = row_of(compare(bases[-1:], run(LATER, "new"), today=TODAY), SEVERAL)
    narrow = row_of(found, SEVERAL)
    assert narrow.high / narrow.low < wide.high / wide.low


def test_who_varies_like_whom() -> None:
    names = (PLAIN, SAME, OTHER, SEVERAL)
    plain, same, other, several = msgspec.convert([cell_of(BASE, n) for n in names], list[Result])
    calls = replace(same, exact={"python_calls": 343})
    for metric, rows, expected in (
        ("step", [same], Variation.SAME),
        ("step", [other], Variation.OTHER),
        ("step", [several], Variation.SEVERAL),
        ("step", [same, other], Variation.OTHER),
        ("step", [replace(other, workload="toy")], Variation.HOST),
        ("step", [calls], Variation.OTHER),
        ("step", [plain], Variation.ABSOLUTE),
        ("compile", [same], Variation.COLD),
        ("peak_rss", [plain], Variation.MEMORY),
    ):
        cell = rows[0].cell
        sides = [{plain.cell: plain, cell: row} for row in rows]
        assert between_run_variance.variation((cell, metric), *sides) is expected, metric


def test_the_table_can_be_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"{seed}.json" for seed in (1, 3, 5)]
    for seed, path in zip((1, 3, 5), paths, strict=True):
        path.write_text(json.dumps(simulated(seed)))
    between_run_variance.print_table(paths)
    said = capsys.readouterr().out
    assert re.search(r"Variation\.OTHER: Wobble\(0\.00\d\d, \d+\),", said)
    assert "Variation.ABSOLUTE: " in said


# --- what it comes to


def made(
    *estimates: Estimate, gate: Gate | None = None, missing: bool = False, counted: bool = False
) -> Comparison:
    """Return a comparison of some rows."""
    keys = rows(len(estimates))
    shown = [comparison.varying(*each, 0.02) for each in zip(keys, estimates, strict=True)]
    shown += [comparison.missing(rows(1)[0], "not measured")] if missing else []
    exact = {(rows(1)[0][0], "python_calls"): 4.0} if counted else {}
    base, new = (Evidence(Origin(name), [], {}, exact) for name in "ab")
    return comparison_of(base, new, shown, gate=gate or Gate(), margin=0.02, today=TODAY)


EQUAL = corrected(0.0, 0.002, 20, 40, 5)
UNSURE = corrected(0.03, 0.05, 20, 40, 5)
SLOW = corrected(0.1, 0.002, 20, 40, 5)


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        (made(EQUAL), Status.NOT_WORSE, "Nothing is worse."),
        (made(EQUAL, UNSURE, UNSURE), Status.NOT_WORSE, "No regression found."),
        (made(EQUAL, UNSURE, SLOW), Status.WORSE, "Worse: e2 s step at seed 1.105 (1.101–1.110)."),
        (made(UNSURE), Status.CANNOT_SAY, "Inconclusive: changes under about 10 % would not show."),
        (made(UNSURE, counted=True), Status.CANNOT_SAY, "Inconclusive: changes under about 10 % "),
        (made(missing=True, counted=True), Status.CANNOT_SAY, "Inconclusive: there are no times"),
        (made(counted=True), Status.NOT_WORSE, "Nothing is worse."),
        (made(), Status.CANNOT_SAY, "Inconclusive: there are no times to compare."),
        (
            made(SLOW, gate=Gate(rule=(GateRule(metric="step", ignore=True),))),
            Status.CANNOT_SAY,
            "Inconclusive: there are no times to compare.",
        ),
        (
            made(UNSURE, gate=Gate(rule=(GateRule(metric="step", threshold=0.2),))),
            Status.NOT_WORSE,
            "Nothing is worse.",
        ),
    ],
)
def test_status(found: Comparison, status: Status, said: str) -> None:
    assert found.status is status
    assert headline(found).startswith(said)


# --- conditions


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return the later run with something else in one place."""
    data = copy.deepcopy(LATER)
    at = data
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return data


ABOUT = ("bakeoff", "environment")
MACHINE = "machine_info"
PLAIN_LOSS = ("bakeoff", "cells", 0, "final_loss")
CONDITIONS: list[tuple[str, tuple[Any, ...], Any, str]] = [
    ("machine", (MACHINE, "cpu", "model"), 207, "processor Xeon (model 167), then Xeon (mo"),
    ("machine", (MACHINE, "cpu", "count"), 4, "cores 2, then 4"),
    ("machine", (*ABOUT, "affinity"), [0], "affinity [0, 1], then [0]"),
    ("machine", (MACHINE, "system"), "Darwin", "system Linux x86_64, then Darwin x86_64"),
    ("devices", (*ABOUT, "devices"), {"cpu": "arm"}, "cpu device cpu, then arm"),
    ("python", (*ABOUT, "versions", "python"), "3.12.1", "Python 3.13.5, then 3.12.1"),
    ("jax", (*ABOUT, "versions", "jax"), "0.12.1", "jax 0.12.0, then 0.12.1"),
    ("chex", (*ABOUT, "versions", "chex"), "1.0", "chex not installed, then 1.0"),
    ("flags", (*ABOUT, "environment"), {"XLA_FLAGS": "-x"}, "XLA_FLAGS unset, then -x"),
    ("measuring", (*ABOUT, "threads"), "one", "threads two, then one"),
    ("workload", (*PLAIN_LOSS, "corpus_sha256"), "f01", "text at seed on cpu f00, then f01"),
]


@pytest.mark.parametrize(("name", "path", "value", "said"), CONDITIONS)
def test_other_conditions_are_refused_by_name_unless_allowed(
    name: str, path: tuple[Any, ...], value: Any, said: str
) -> None:
    new = changed(path, value)
    with pytest.raises(BakeoffError) as error:
        both(BASE, new, None, "numpy")
    message = str(error.value)
    assert message.startswith(f"base and new were made under different conditions: {said}")
    assert f"give --allow {name} (known: machine, devices, " in message
    for allow in (name, "all"):
        found = both(BASE, new, None, allow)
        assert [d.name for d in found.differences] == [name]
        assert found.status is Status.NOT_WORSE
        assert any("affects pure_jax too" in text for text in found.warnings) == (name in BENEATH)
        assert headline(found).startswith("jax 0.12.0 → 0.12.1: No reg") == (name == "jax")


def test_a_number_that_is_written_as_a_float_is_no_other_condition() -> None:
    new = copy.deepcopy(BASE)
    for cell in new["bakeoff"]["cells"]:
        cell["exact"]["parameters"] = float(cell["exact"]["parameters"])
    assert not both(BASE, new).differences


def test_the_code_is_no_condition() -> None:
    for path, value in (
        (("commit_info", "id"), "another"),
        ((*ABOUT, "versions", "jax-bakeoff"), "another"),
        ((*ABOUT, "affinity"), None),  # what a file does not say is not known to differ
        (("machine_info",), {}),
    ):
        assert both(BASE, changed(path, value)).differences == ()


# --- how it is shown


def everything() -> Comparison:
    """Return a comparison with something of each kind."""
    base = simulated(1, workloads=("seed", "toy"))
    new = simulated(2, {SAME: 1.1, SEVERAL: 1.3}, workloads=("seed", "toy"))
    cell_of(new, OTHER)["failure"] = "boom"
    cell_of(new, SAME)["exact"]["python_calls"] = 12
    cell_of(new, SAME, "toy")["exact"]["python_calls"] = 12
    cell_of(new, SEVERAL)["exact"]["python_calls"] += 1
    new["bakeoff"]["environment"]["versions"] = VERSIONS | {"flax": "1.0"}
    about: dict[str, Any] = {"up_to": 2.0, "reason": "a known reason", "until": TODAY}
    known = (
        Accept(entrant="haiku", metric="step", workload="toy", **about),
        Accept(entrant="flax_linen", metric="python_calls", **about),
    )
    return both(base, new, Gate(accept=known), "flax")


def test_what_changed_is_a_table_with_what_is_worse_first() -> None:
    found = everything()
    [table] = document(found).sections[0].tables
    shown = [(str(row.cells[0]), row.cells[1], row.cells[-1], row.worse) for row in table.rows]
    assert shown == [
        ("equinox filter_jit at seed", "", "worse", True),
        ("flax_linen blog at toy", "step", "worse", True),
        ("flax_linen blog at seed", "step", "worse", True),
        ("haiku at seed", "step", "worse", True),
        ("haiku at seed and toy", "Python calls", "worse", True),
        ("haiku at toy", "step", "slower, accepted", False),
        ("flax_linen blog at seed", "Python calls", "more, accepted", False),
    ]
    slower = table.rows[3].cells
    assert [str(text) for text in slower[2:4]] == ["1.00", "1.10"]
    assert isinstance(slower[4], Value)
    assert (slower[4].verdict, slower[4].strong, slower[4].marker) == ("slower", True, "!")
    assert table.rows[4].cells[2:5] == ("", "", "! 4 → 12")
    assert table.notes == (
        "equinox filter_jit at seed fails now: boom",
        "haiku at toy, step: accepted until 2026-11-25: a known reason.",
        "flax_linen blog at seed, Python calls: accepted until 2026-11-25: a known reason.",
    )
    said = headline(found)
    assert said.startswith("flax 0.12.8 → 1.0: Worse: equinox filter_jit at seed fails, ")
    assert said.endswith(" and 2 more.")


ORIGIN = "base: base (2026-11-25 01:00:00, commit 0000"
SHOWN = {
    "text": ("seed on cpu: new / base", ORIGIN),
    "md": (
        *(f"{MARKER}\n❌ **flax 0.12.8 → 1.0", "<details><summary>seed on cpu: new / base"),
        "| haiku at seed and toy | Python calls |  |  | ! 4 → 12 | worse |",
    ),
    "json": ('"kind": "jax-bakeoff comparison"', '"status": 1', '"slower"'),
    # a failed cell is not drawn
    "html": ("step: 4 slower of 7", 'id="chart-ratios-compile"'),
}


@pytest.mark.parametrize("format_", SHOWN)
def test_every_form_says_the_same(format_: str) -> None:
    text = written(everything(), format_)
    for said in ("Worse: ", "haiku", "a known reason", *SHOWN[format_]):
        assert said in text
    if format_ == "md":
        assert "| = " not in text.partition("<details>")[0]  # what has not changed is folded


def test_each_row_has_its_own_reason_or_none() -> None:
    """Also where only exact counts have changed."""
    new = copy.deepcopy(BASE)
    cell_of(new, SAME)["exact"]["python_calls"] = 8
    cell_of(new, OTHER)["exact"]["python_calls"] = 2000
    about: dict[str, Any] = {"up_to": 2.0, "reason": "a known reason", "until": TODAY}
    gate = Gate(accept=(Accept(entrant="haiku", metric="python_calls", **about),))
    found = both(BASE, new, gate)
    [table] = document(found).sections[0].tables
    verdicts = {str(row.cells[0]): row.cells[-1] for row in table.rows}
    assert verdicts == {
        "equinox filter_jit at seed": "worse",
        "haiku at seed": "more, accepted",
    }
    assert [note.partition(",")[0] for note in table.notes] == ["haiku at seed"]
    assert "| haiku at seed | Python calls | 4 → 8 | more, accepted |" in written(found, "md")


# --- the command


@pytest.fixture
def compared(bakeoff: Bakeoff, tmp_path: Path) -> Bakeoff:
    """Run the command in a folder with some files."""
    plain = [{"name": "test_a", "stats": {"median": 0.002}}]
    for name, data in {
        "base": BASE,
        "later": LATER,
        "slow": simulated(2, {SAME: 1.1}),
        "toy": simulated(2, workloads=("toy",)),
        "empty": BASE | {"bakeoff": BASE["bakeoff"] | {"cells": []}},
        "plain": {"benchmarks": plain},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    (tmp_path / "loose.toml").write_text("[tool.bakeoff.gate]\nthreshold = 0.2\n")
    (tmp_path / "bad.toml").write_text("[tool.bakeoff.gate\n")
    (tmp_path / "exists").write_text("mine")
    return lambda given: bakeoff("compare", *given.split())


@pytest.mark.parametrize(
    ("given", "status", "start"),
    [
        ("base.json later.json", 0, "base: base (2026-11-25 01:00:00"),
        ("base.json slow.json", 1, "base: base ("),
        ("base.json slow.json --config loose.toml", 0, "base: base ("),
        ("base.json slow.json --format md", 1, MARKER),
        ("base.json slow.json -o out.json", 1, "out.json\n"),
        ("base.json later.json -o out.txt", 0, "out.txt\n"),
    ],
)
def test_exit_status_and_forms(
    compared: Bakeoff, tmp_path: Path, given: str, status: int, start: str
) -> None:
    done = compared(given)
    assert done.status == status
    assert done.out.startswith(start)
    if given.endswith("out.json"):
        assert json.loads((tmp_path / "out.json").read_text())["status"] == 1
        assert (compared("base.json out.json").status) == 2  # a comparison is not a run
    if given.endswith("out.txt"):
        assert "No regression found." in (tmp_path / "out.txt").read_text()


def test_the_gate_of_this_folder_holds(compared: Bakeoff, tmp_path: Path) -> None:
    (tmp_path / "loose.toml").rename(tmp_path / "pyproject.toml")
    assert compared("base.json slow.json").status == 0


BAD = {
    "base.json": "one run is given, base.json; give two: BASE.json NEW.json",
    "base.json empty.json": "empty has no cells; give what `pytest bench",
    "empty.json later.json": "empty has no cells; give what `pytest bench",
    "base.json plain.json": "plain has no cells; give what `pytest bench",
    "base.json toy.json": "base and toy have no cell in common (workloads seed, and toy); give",
    "base.json later.json --allow nope": "--allow: unknown name 'nope'; known: machine, devices, "
    "python, flags, measuring, workload, jax, jaxlib, flax, numpy, all; choose one of them",
    "base.json later.json --config bad.toml": "--config bad.toml is wrong: ",
    "base.json base.json later.json": "base (2) is given twice as a base",
    "base.json later.json -o exists": "output exists ends in nothing; .txt, .text, .md, "
    ".markdown, .json, .html, .htm are known: name it so, or give --format",
}


@pytest.mark.parametrize("given", BAD)
def test_bad_input_is_one_line_and_status_2(compared: Bakeoff, given: str) -> None:
    done = compared(given)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"bakeoff: {BAD[given]}")
