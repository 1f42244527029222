"""Comparisons of runs that are simulated here, sample by sample, and of published ones."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
import re
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from bench.cells import Cell
from bench.cli import main
from bench.compare import between, calibrate, markdown, terminal, words
from bench.compare.as_json import as_data, as_json
from bench.compare.between import Kind, Wobble
from bench.compare.compare import compare
from bench.compare.comparison import (
    Comparison,
    Outcome,
    Side,
    Status,
    Values,
    exact_rows,
    time_rows,
)
from bench.compare.gate import Accept, Gate, Rule
from bench.engine.state import Found, Samples, State
from bench.report.runs import Run, read, run_of
from bench.stats.ratios import Estimate, corrected
from bench.stats.verdicts import Verdict
from bench.summary import section
from common.errors import BakeoffError
from tests.simulated import with_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[1]
XEON = ROOT / "results" / "xeon-2-cores" / "2026-11-26-default.json"
TODAY = date(2026, 11, 25)
SECONDS = {"toy": 1.2e-4, "seed": 4e-3}
SAME, OTHER, SEVERAL = ("haiku", "pure"), ("equinox", "filter_jit"), ("flax_linen", "blog")
PROGRAMS: dict[tuple[str, str], tuple[float, dict[str, Any], int]] = {
    ("pure_jax", "pure"): (1.0, {}, 4),
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
    processes: int = 6,
    noise: float = 0.01,
    cold: int = 6,
) -> dict[str, Any]:
    """Return a run file's data, made of samples by the code that makes run files.

    Args:
        seed: Of the noise.
        ratios: Of a style's step to what it is otherwise.
        speed: Of the machine: larger is slower.
        workloads: What is measured.
        processes: Workers, with four blocks each.
        noise: Of a call's log-seconds.
        cold: Processes whose compilation is timed.
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
                Samples(process, 4 * process + number, 0.0, drawn(own, step, noise, 8), 4)
                for process in range(1, processes + 1)
                for number in range(4)
            ]
            found.blocks["compile"] = [
                Samples(100 + number, 100 + number, 0.0, drawn(rng, 0.4 * speed, 0.03, 1))
                for number in range(cold)
            ]
            state.cells[Cell(*name, workload, "cpu")] = found
    needed = {c: {"step", "compile", "final_loss"} for c in state.cells if c[0] != "control"}
    about: dict[str, Any] = {"versions": VERSIONS, "devices": {"cpu": "cpu"}, "affinity": [0, 1]}
    about |= {"environment": {"JAX_ENABLE_X64": "false"}, "threads": "two"}
    said = section(with_blocks(state), needed, margin=0.02, arguments=["bench"], environment=about)
    said |= {"warnings": [], "verdict": []}
    machine = {"cpu": {"brand_raw": "Xeon", "model": 167, "count": 2}, "system": "Linux"}
    machine |= {"python_implementation": "CPython", "release": "6.18", "machine": "x86_64"}
    return {
        "machine_info": machine,
        "commit_info": {"id": f"{seed:040x}", "dirty": False},
        "datetime": f"2026-11-25T0{seed % 10}:00:00",
        "benchmarks": [
            {
                "group": cell["workload"],
                "name": metric,
                "stats": {"median": row["median"]},
                "extra_info": {**key._asdict(), "metric": metric, "unit": "s"},
            }
            for cell in said["cells"]
            for metric, row in cell["metrics"].items()
            for key in [Cell(*(cell[n] for n in Cell._fields))]
        ],
        "bakeoff": json.loads(json.dumps(said)),
    }


def drawn(rng: np.random.Generator, middle: float, noise: float, count: int) -> list[float]:
    return list(middle * np.exp(rng.normal(0, noise, count)))


def run(data: dict[str, Any], name: str = "run") -> Run:
    return run_of(json.dumps(data).encode(), Path(f"{name}.json"))


def both(base: dict[str, Any], new: dict[str, Any], gate: Gate | None = None, *allow: str) -> Any:
    return compare([run(base, "base")], run(new, "new"), gate, allow, TODAY)


def cell_of(data: dict[str, Any], name: tuple[str, str], workload: str = "seed") -> Any:
    return next(
        cell
        for cell in data["bakeoff"]["cells"]
        if (cell["entrant"], cell["style"], cell["workload"]) == (*name, workload)
    )


def row_of(found: Comparison, name: tuple[str, str], metric: str = "step") -> Any:
    return next(r for r in found.rows if r.cell[:2] == name and r.metric == metric)


BASE = simulated(1)
LATER = simulated(2, speed=1.08)
"""The same code an hour later, when the machine is 8 % slower."""


# --- what is found


def test_a_slower_hour_is_not_a_slower_program() -> None:
    found = both(BASE, LATER)
    assert found.status is Status.NOT_WORSE
    assert not [row for row in found.rows if row.changed]
    assert row_of(found, SAME).verdict is Verdict.EQUIVALENT
    # What a fixed threshold on seconds sees in the same two files:
    seconds = [cell_of(data, SAME)["metrics"]["step"]["median"] for data in (BASE, LATER)]
    assert seconds[1] / seconds[0] > 1.05


@pytest.mark.parametrize("name", [SAME, OTHER])
def test_a_slowdown_is_found_and_fails(name: tuple[str, str]) -> None:
    planted = 1.05 if name == SAME else 1.12
    found = both(BASE, simulated(2, {name: planted}, speed=1.08))
    row = row_of(found, name)
    assert (row.verdict, row.worse) == (Verdict.SLOWER, True)
    assert row.ratio == pytest.approx(planted, rel=0.01)
    assert row.low < planted < row.high
    assert row.note == "more than the 2 % allowed"
    assert found.worse == (row,)
    assert found.status is Status.WORSE
    assert f"Worse: {words.name(row.cell)} step at seed" in words.headline(found)


def test_a_speedup_is_found_and_does_not_fail() -> None:
    found = both(BASE, simulated(2, {SAME: 0.9}))
    assert row_of(found, SAME).verdict is Verdict.FASTER
    assert found.status is Status.NOT_WORSE


def test_shown_ratios_are_those_to_the_baseline_of_their_own_run() -> None:
    row = row_of(both(BASE, LATER), SEVERAL)
    assert row.values.base_ratio == pytest.approx(1.9, rel=0.01)
    assert row.values.new_ratio / row.values.base_ratio == pytest.approx(row.ratio)
    assert row.values.new > 1.05 * row.values.base


def test_the_baseline_has_seconds_and_a_wide_doubt() -> None:
    row = row_of(both(BASE, LATER), ("pure_jax", "pure"))
    assert row.values.absolute
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.ratio == pytest.approx(1.08, rel=0.01)
    sd = between.BETWEEN[Kind.ABSOLUTE].sd
    assert math.log(row.high / row.ratio) > 1.96 * math.sqrt(2) * sd


def test_statistics_in_the_file_do_where_there_are_no_samples() -> None:
    new = simulated(2, {SAME: 1.05})
    expected = row_of(both(BASE, new), SAME)
    base, new = copy.deepcopy(BASE), copy.deepcopy(new)
    for data in (base, new):
        del data["bakeoff"]["samples"]
    found = both(base, new)
    row = row_of(found, SAME)
    assert row.verdict is Verdict.SLOWER
    assert row.ratio == pytest.approx(expected.ratio, rel=1e-6)
    assert expected.low < row.low < row.ratio  # without the baseline's row, the family is smaller
    lacking = row_of(found, ("pure_jax", "pure"))
    assert lacking.missing == "the file has neither samples nor a standard error"


def test_without_samples_or_standard_errors_nothing_can_be_said() -> None:
    bare = copy.deepcopy(BASE)
    del bare["bakeoff"]["samples"]
    for cell in bare["bakeoff"]["cells"]:
        for found in cell["metrics"].values():
            found.pop("standard_error", None)
    found = both(bare, LATER)
    assert found.status is Status.CANNOT_SAY
    assert words.headline(found).startswith("Cannot say whether anything is worse")
    assert [text for text in words.lacking(found) if "neither samples nor" in text]


def test_exact_metrics_are_compared_exactly() -> None:
    new = copy.deepcopy(BASE)
    cell_of(new, OTHER)["exact"] |= {"python_calls": 1554, "flops": 9000.0, "code_lines": 60}
    cell_of(new, SAME)["exact"] |= {"compilations_warm": 1}
    cell_of(new, SEVERAL)["final_loss"]["same_weights"] += 0.001
    found = both(BASE, new)
    changed = {(row.cell.entrant, row.metric): row for row in found.exact if row.changed}
    assert {key: row.outcome for key, row in changed.items()} == {
        ("equinox", "python_calls"): Outcome.WORSE,
        ("equinox", "flops"): Outcome.BETTER,
        ("equinox", "code_lines"): Outcome.CHANGED,
        ("haiku", "compilations_warm"): Outcome.WORSE,
    }
    assert {key[1] for key, row in changed.items() if row.worse} == {
        "python_calls",
        "compilations_warm",
    }
    assert found.status is Status.WORSE
    cell_of(new, SEVERAL)["final_loss"]["same_weights"] += 0.1
    assert any(row.metric == "final_loss" and row.worse for row in both(BASE, new).exact)


def test_what_one_side_did_not_count_is_not_compared() -> None:
    new = copy.deepcopy(BASE)
    cell_of(new, OTHER)["exact"]["python_calls"] = None
    found = both(BASE, new)
    metrics = {row.metric for row in found.exact if row.cell[:2] == OTHER}
    assert metrics >= {"flops"}
    assert "python_calls" not in metrics


def test_a_cell_that_fails_now_is_worse() -> None:
    new = copy.deepcopy(LATER)
    cell_of(new, SAME)["failure"] = "not equal"
    cell_of(new, SAME)["metrics"] = {}
    found = both(BASE, new)
    assert [(f.cell.entrant, f.worse) for f in found.failures] == [("haiku", True)]
    assert found.status is Status.WORSE
    assert "haiku at seed fails" in words.headline(found)
    back = both(new, LATER)
    assert [f.worse for f in back.failures] == [False]
    assert words.failed(back.failures[0]).startswith("haiku at seed on cpu no longer fails")
    assert not both(new, new).worse


def test_what_is_on_one_side_alone_is_said() -> None:
    new = copy.deepcopy(LATER)
    new["bakeoff"]["cells"].remove(cell_of(new, SEVERAL))
    cell_of(new, OTHER)["metrics"]["compile"] = {"missing": "not measured within the budget"}
    found = both(BASE, new)
    assert found.only_base == (Cell(*SEVERAL, "seed", "cpu"),)
    said = list(words.lacking(found))
    assert any("not measured in the new run: not measured within the budget" in s for s in said)
    assert "Only in the base run: flax_linen blog at seed on cpu" in said
    assert both(new, BASE).only_new == (Cell(*SEVERAL, "seed", "cpu"),)


def test_a_program_that_is_no_longer_the_baselines_is_said() -> None:
    new = copy.deepcopy(BASE)
    cell_of(new, SAME)["proof"]["same_program_as_baseline"] = False
    said = "haiku at seed on cpu no longer compiles to the same program as pure_jax"
    assert said in both(BASE, new).warnings
    assert said not in both(BASE, BASE).warnings


def test_the_same_run_twice_is_allowed_and_said() -> None:
    found = both(BASE, BASE)
    assert found.status is Status.NOT_WORSE
    assert {row.ratio for row in found.judged} == {1.0}
    assert "a base and the new run are the same run: nothing can have changed" in found.warnings


# --- between runs


def rows(count: int, entrant: str = "e") -> list[tuple[Cell, str]]:
    return [(Cell(f"{entrant}{i}", "s", "seed", "cpu"), "step") for i in range(count)]


def wandering(
    rng: np.random.Generator, sd: float, error: float, keys: list[tuple[Cell, str]]
) -> dict[tuple[Cell, str], Estimate]:
    """Return what a run says of styles that do not differ: they wander, and are measured."""
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


@pytest.mark.parametrize("sd", [0.0, 0.01, 0.05])
def test_what_runs_wander_by_is_estimated(sd: float) -> None:
    rng, keys = np.random.default_rng(0), rows(12)
    runs = [wandering(rng, sd, 0.004, keys) for _ in range(12)]
    found = between.between_runs(runs, dict.fromkeys(keys, Kind.OTHER))
    assert set(found) == {Kind.OTHER}
    assert found[Kind.OTHER].sd == pytest.approx(sd, rel=0.12, abs=0.0025)
    assert found[Kind.OTHER].df <= 12 * 11
    if sd > 0.004:
        assert found[Kind.OTHER].df > 60


def test_kinds_are_estimated_apart() -> None:
    rng, calm, wild = np.random.default_rng(1), rows(8, "calm"), rows(8, "wild")
    runs = [
        wandering(rng, 0.001, 0.002, calm) | wandering(rng, 0.08, 0.002, wild) for _ in range(6)
    ]
    kinds = dict.fromkeys(calm, Kind.OTHER) | dict.fromkeys(wild, Kind.HOST)
    found = between.between_runs(runs, kinds)
    assert found[Kind.OTHER].sd < 0.005
    assert found[Kind.HOST].sd > 0.05


@pytest.mark.parametrize(("sd", "bases"), [(0.005, 1), (0.03, 3), (0.002, 4)])
def test_runs_of_the_same_code_differ_seldom(sd: float, bases: int) -> None:
    """Any false verdict in a family of ten is rarer than one in twenty, but the power is there."""
    rng, keys = np.random.default_rng(2), rows(10)
    kinds = dict.fromkeys(keys, Kind.OTHER)
    false, hits, times = 0, 0, 300
    for _ in range(times):
        runs = [wandering(rng, sd, 0.004, keys) for _ in range(bases)]
        new = wandering(rng, sd, 0.004, keys)
        estimated = between.between_runs(runs, kinds) if bases > 1 else {}
        wobble = between.chosen(estimated)[Kind.OTHER]
        shift = math.log1p(0.05 + 6 * sd)
        first = new[keys[0]]
        new[keys[0]] = dataclasses.replace(first, log_ratio=first.log_ratio + shift)
        found = {k: between.difference([r[k] for r in runs], new[k], wobble, 10) for k in keys}
        values = dict.fromkeys(keys, Values(1.0, 1.0))
        called = [r.changed for r in time_rows(found, values, Gate(), 0.02, TODAY)]
        hits += called[0]
        false += any(called[1:])
    assert false / times < 0.08
    assert hits / times > 0.8


def test_too_few_base_runs_do_not_replace_the_table() -> None:
    few = {Kind.OTHER: Wobble(0.001, 3), Kind.COLD: Wobble(0.2, 3), Kind.HOST: Wobble(0.001, 9)}
    chosen = between.chosen(few)
    assert chosen[Kind.OTHER] == between.BETWEEN[Kind.OTHER]
    assert chosen[Kind.COLD] == Wobble(0.2, between.BETWEEN[Kind.COLD].df)
    assert chosen[Kind.HOST] == Wobble(0.001, 9)


def test_several_base_runs_know_more_than_one() -> None:
    new, wobble = corrected(0.0, 0.004, 9, 40, 5), Wobble(0.01, 20)
    known = [corrected(x, 0.004, 9, 40, 5) for x in (0.01, -0.01, 0.03, -0.03)]
    one, four = between.difference(known[:1], new, wobble), between.difference(known, new, wobble)
    assert one.standard_error == pytest.approx(math.sqrt(2 * (0.004**2 + 0.01**2)))
    assert four.standard_error == pytest.approx(math.sqrt(1.25 * (0.004**2 + 0.01**2)))
    assert four.log_ratio == pytest.approx(0.0)
    unknown = corrected(5.0, math.inf, 0, 1, 1)
    assert between.difference([*known, unknown], new, wobble) == four
    assert math.isinf(between.difference([unknown], new, wobble).standard_error)


def test_who_wanders_like_whom() -> None:
    cells = {name: cell_of(BASE, name) for name in PROGRAMS if name[0] != "control"}
    plain = cells["pure_jax", "pure"]
    kind = between.kind
    assert kind("step", cells[SAME], baseline=plain) is Kind.SAME
    assert kind("step", cells[OTHER], baseline=plain) is Kind.OTHER
    assert kind("step", cells[SEVERAL], baseline=plain) is Kind.SEVERAL
    assert kind("step", cells[SAME], cells[OTHER], baseline=plain) is Kind.OTHER
    assert kind("step", cells[OTHER] | {"workload": "toy"}, baseline=plain) is Kind.HOST
    calls = cells[SAME] | {"exact": {"python_calls": 343}}
    assert kind("step", calls, baseline=plain) is Kind.OTHER
    assert kind("compile", cells[SAME], baseline=plain) is Kind.COLD
    assert kind("peak_rss", cells[SAME], baseline=plain) is Kind.MEMORY


def test_several_bases_are_one_base_whose_runs_say_how_much_they_differ() -> None:
    bases = [run(simulated(seed), f"base{seed}") for seed in (1, 3, 5)]
    found = compare([*bases, bases[0]], run(LATER, "new"), today=TODAY)
    assert [side.name for side in found.bases] == ["base1", "base3", "base5"]
    assert "base1 is given twice as a base; it counts once" in found.warnings
    one = compare(bases[-1:], run(LATER, "new"), today=TODAY)
    wide, narrow = row_of(one, SEVERAL), row_of(found, SEVERAL)
    assert narrow.high / narrow.low < wide.high / wide.low
    assert found.status is Status.NOT_WORSE


def test_the_table_can_be_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for seed in (1, 3, 5):
        paths.append(str(tmp_path / f"{seed}.json"))
        Path(paths[-1]).write_text(json.dumps(simulated(seed)))
    assert calibrate.main(paths) == 0
    said = capsys.readouterr().out
    assert re.search(r"Kind\.OTHER: Wobble\(0\.00\d\d, \d+\),", said)
    assert "Kind.ABSOLUTE: " in said
    assert calibrate.main(paths[:1]) == 2
    assert "give two or more of the same code" in capsys.readouterr().err


# --- what it comes to


def made(*estimates: Estimate, gate: Gate | None = None, **more: Any) -> Comparison:
    """Return a comparison of some rows."""
    keys = rows(len(estimates))
    found = dict(zip(keys, estimates, strict=True))
    values = dict.fromkeys(keys, Values(1.0, 1.0))
    judged = time_rows(found, values, gate or Gate(), 0.02, TODAY, more.pop("missing", None))
    return Comparison((Side("a"),), Side("b"), 0.02, judged, **more)


EQUAL = corrected(0.0, 0.002, 20, 40, 5)
UNSURE = corrected(0.03, 0.05, 20, 40, 5)
SLOW = corrected(0.1, 0.002, 20, 40, 5)
COUNTS = exact_rows({rows(1)[0]: 4.0}, {rows(1)[0]: 4.0}, Gate(), 0.02, TODAY)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (made(EQUAL, UNSURE, UNSURE), Status.NOT_WORSE),
        (made(EQUAL, UNSURE, SLOW), Status.WORSE),
        (made(UNSURE, UNSURE), Status.CANNOT_SAY),
        (made(UNSURE, exact=COUNTS), Status.CANNOT_SAY),
        (made(missing={rows(1)[0]: "not measured"}, exact=COUNTS), Status.CANNOT_SAY),
        (made(exact=COUNTS), Status.NOT_WORSE),
        (made(), Status.CANNOT_SAY),
        (made(SLOW, gate=Gate(rule=(Rule(metric="step", ignore=True),))), Status.CANNOT_SAY),
        (made(UNSURE, gate=Gate(rule=(Rule(metric="step", threshold=0.2),))), Status.NOT_WORSE),
    ],
)
def test_status(found: Comparison, status: Status) -> None:
    assert found.status is status


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
CONDITIONS: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "machine": (("machine_info", "cpu", "model"), 207, "processor Xeon (model 167), then Xeon (mo"),
    "cores": (("machine_info", "cpu", "count"), 4, "cores 2, then 4"),
    "affinity": ((*ABOUT, "affinity"), [0], "affinity [0, 1], then [0]"),
    "system": (("machine_info", "system"), "Darwin", "system Linux x86_64, then Darwin x86_64"),
    "devices": ((*ABOUT, "devices"), {"cpu": "arm"}, "cpu device cpu, then arm"),
    "python": ((*ABOUT, "versions", "python"), "3.12.1", "Python 3.13.5, then 3.12.1"),
    "pypy": (
        ("machine_info", "python_implementation"),
        "PyPy",
        "implementation CPython, then PyPy",
    ),
    "jax": ((*ABOUT, "versions", "jax"), "0.12.1", "jax 0.12.0, then 0.12.1"),
    "flax": ((*ABOUT, "versions", "flax"), "0.12.9", "flax 0.12.8, then 0.12.9"),
    "chex": ((*ABOUT, "versions", "chex"), "1.0", "chex not installed, then 1.0"),
    "flags": (
        (*ABOUT, "environment"),
        {"JAX_ENABLE_X64": "false", "XLA_FLAGS": "-x"},
        "XLA_FLAGS unset, then -x",
    ),
    "measuring": ((*ABOUT, "threads"), "one", "threads two, then one"),
}
NAMES = {"cores": "machine", "affinity": "machine", "system": "machine", "pypy": "python"}


@pytest.mark.parametrize("what", CONDITIONS)
def test_other_conditions_are_refused_by_name_unless_allowed(what: str) -> None:
    path, value, said = CONDITIONS[what]
    new, name = changed(path, value), NAMES.get(what, what)
    with pytest.raises(BakeoffError) as error:
        both(BASE, new)
    message = str(error.value)
    assert message.startswith("base and new were made under different conditions: ")
    assert said in message
    assert f"give --allow {name} (known: machine, devices, " in message
    assert "\n" not in message
    with pytest.raises(BakeoffError):
        both(BASE, new, None, "workload")
    for allow in (name, "all"):
        found = both(BASE, new, None, allow)
        assert [d.name for d in found.differences] == [name]
    assert both(BASE, changed(path, copy.deepcopy(value)), None, name).status is Status.NOT_WORSE


def test_the_workload_is_a_condition_and_the_code_is_not() -> None:
    new = copy.deepcopy(LATER)
    cell_of(new, ("pure_jax", "pure"))["exact"]["parameters"] = 999
    with pytest.raises(BakeoffError, match=r"parameters at seed on cpu 429, then 999; .*workload"):
        both(BASE, new)
    for path in (("commit_info", "id"), (*ABOUT, "versions", "jax-bakeoff")):
        assert both(BASE, changed(path, "another")).differences == ()


def test_what_a_file_does_not_say_is_not_known_to_differ() -> None:
    assert both(BASE, changed((*ABOUT, "affinity"), None)).differences == ()
    assert both(BASE, changed(("machine_info",), {})).differences == ()


def test_another_jax_moves_the_baseline_and_stands_in_the_headline() -> None:
    new = changed((*ABOUT, "versions", "jax"), "0.12.1")
    found = both(BASE, new, None, "jax")
    assert words.headline(found).startswith("jax 0.12.0 → 0.12.1: Nothing is known to be worse.")
    assert any("pure_jax stands on that too" in text for text in found.warnings)
    flax = both(BASE, changed((*ABOUT, "versions", "flax"), "0.12.9"), None, "flax")
    assert words.headline(flax).startswith("flax 0.12.8 → 0.12.9: ")
    assert not any("stands on that too" in text for text in flax.warnings)


def test_published_runs_of_two_machines() -> None:
    xeon, data = read(XEON), json.loads(XEON.read_bytes())
    data["machine_info"]["cpu"]["brand_raw"] = "AMD EPYC 9B45"
    del data["bakeoff"]["environment"]["environment"]["NPROC"]
    epyc = run(data)
    with pytest.raises(BakeoffError, match=r"processor Intel.*then AMD EPYC .*NPROC 2, then unset"):
        compare([xeon], epyc)
    found = compare([xeon], epyc, allowed=["all"])
    assert found.status is Status.NOT_WORSE
    assert len(found.judged) > 100
    assert compare([xeon], xeon).status is Status.NOT_WORSE


# --- how it is shown


def shown(found: Comparison, width: int = 80, **options: Any) -> str:
    file = io.StringIO()
    console = Console(width=width, file=file, highlight=False, **options)
    for part in terminal.parts(found):
        console.print(part)
    return file.getvalue()


def everything() -> Comparison:
    """Return a comparison with something of each kind, and names that are made to harm."""
    new = simulated(2, {SAME: 1.1, SEVERAL: 1.3}, workloads=("seed", "toy"))
    cell_of(new, OTHER)["failure"] = "boom | `x` @all [31m <script>alert(1)</script>"
    cell_of(new, SAME)["exact"]["python_calls"] = 12
    cell_of(new, SAME, "toy")["exact"]["python_calls"] = 12
    new["bakeoff"]["environment"]["versions"] = VERSIONS | {"flax": "1.0 <b>|@x"}
    for data in (base := simulated(1, workloads=("seed", "toy")), new):
        for cell in data["bakeoff"]["cells"]:
            if (cell["entrant"], cell["style"]) == SEVERAL:
                cell["entrant"] = "evil`|@octocat<img src=x>\x1b[31m"
        for benchmark in data["benchmarks"]:
            info = benchmark["extra_info"]
            if (info["entrant"], info["style"]) == SEVERAL:
                info["entrant"] = "evil`|@octocat<img src=x>\x1b[31m"
    new["bakeoff"]["warnings"] = ["see @octocat at https://x.test/#1"]
    return both(base, new, None, "flax")


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits_and_is_plain_where_it_has_to_be(width: int) -> None:
    text = shown(everything(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    assert "flax 0.12.8 → 1.0 <b>|@x: Worse: equinox filter_jit at seed fails" in " ".join(
        text.split()
    )
    assert "! slower: haiku at seed, step 1.00" in text
    assert "! worse: haiku at seed and toy, Python calls 4 → 12" in text
    assert "seed on cpu: width 128, 256 characters: new / base" in text
    assert re.search(r"^haiku +! 1\.1", text, re.M)
    assert "warning: " in text


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[31m" in shown(everything(), force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    text = shown(everything(), force_terminal=True, color_system="standard")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", text)


def test_ascii_terminals() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    console = Console(width=80, file=file, highlight=False)
    for part in terminal.parts(both(BASE, simulated(2, {SAME: 1.1}))):
        console.print(part)
    file.flush()
    assert b"haiku" in raw.getvalue()


def without_code(text: str) -> str:
    """Return Markdown without its code spans, in which nothing is alive."""
    return re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", text)


def test_markdown_for_a_pull_request() -> None:
    found = everything()
    text = markdown.markdown(found)
    lines = text.splitlines()
    assert lines[0] == markdown.MARKER
    assert lines[1].startswith("❌ **`flax` `0.12.8` → `1.0 <b>|@x`: Worse: ")
    head, _, _ = text.partition("<details>")
    assert "| `haiku` at `seed` | step | " in head
    assert "| `haiku` at `seed` and `toy` | `Python calls` | 4 | 12 | exact | **worse** |" in head
    assert "| = " not in head  # what has not changed is folded
    assert text.count("<details>") == text.count("</details>") == 2
    assert lines[-1].startswith("<sub>Base: `base` (`2026-11-25 01:00:00`, `commit 0000")
    # No text from outside is alive: neither HTML, nor a mention, a link or another column.
    bare = without_code(text)
    for dead in ("<img", "<script", "<b>", "@octocat", "@all", "@x", "https://", "\x1b"):
        assert dead not in bare
    tables = [line for line in lines if line.startswith("|")]
    for one, other in pairwise(tables):
        if lines.index(other) == lines.index(one) + 1:
            bars = [len(re.findall(r"(?<!\\)\|", line)) for line in (one, other)]
            assert bars[0] == bars[1], (one, other)


def test_sentences_with_names_from_outside_mention_nobody() -> None:
    new = copy.deepcopy(LATER)
    new["bakeoff"]["warnings"] = ["busy"]
    name = "@octocat <b> #12"
    text = markdown.markdown(compare([run(BASE, "base")], run(new, name), today=TODAY))
    [line] = [line for line in text.splitlines() if "has a warning of its own" in line]
    lines = line, markdown.sentence("see @octocat at https://x.test or www.x.test, #1 <img>")
    assert all("octocat" in line for line in lines)
    for dead in ("@octocat", "https://", "www.", "#1", "<b>", "<img>"):
        assert all(dead not in line.replace(r"\<", "") for line in lines)


def test_a_comment_that_is_far_too_long_ends_with_a_whole_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = both(BASE, LATER)
    whole = markdown.markdown(found)
    monkeypatch.setattr(markdown, "MOST", 150)
    short = markdown.markdown(found)
    assert len(short) <= 151
    assert "<details>" not in short
    assert set(short.splitlines()) <= set(whole.splitlines())


def test_the_headline_says_what_is_open_and_what_is_surely_allowed() -> None:
    found = both(BASE, simulated(2, {OTHER: 0.985}, speed=1.08))
    open_ = [row for row in found.judged if not row.settled]
    allowed = [r for r in found.judged if r.settled and r.verdict is Verdict.INCONCLUSIVE]
    assert open_
    assert allowed
    undecided = len(open_) + len(allowed)
    sure = f"{len(allowed)} of them surely not slower by more than is allowed"
    assert f"{undecided} not told apart ({sure})" in words.headline(found)
    settled = replace(found, rows=tuple(row for row in found.rows if row.settled))
    assert words.headline(settled).startswith("Nothing is worse.")


def test_markdown_of_nothing_worse_is_short() -> None:
    text = markdown.markdown(both(BASE, LATER))
    head, _, _ = text.partition("<details>")
    assert head.splitlines()[1] == "✅ **Nothing is known to be worse.**"
    assert "|---|" not in head
    assert "exact counts are the same" in head


def test_markdown_where_exact_counts_alone_have_changed() -> None:
    """Each row has its own reason, or none."""
    new = copy.deepcopy(BASE)
    cell_of(new, SAME)["exact"]["python_calls"] = 8
    cell_of(new, OTHER)["exact"]["python_calls"] = 2000
    about: dict[str, Any] = {"up_to": 2.0, "reason": "a known reason", "until": TODAY}
    known = Accept(entrant="haiku", metric="python_calls", **about)
    text = markdown.markdown(both(BASE, new, Gate(accept=(known,))))
    rows = [line for line in text.splitlines() if "python" in line.lower() and "exact" in line]
    assert len(rows) == 2
    [accepted] = [row for row in rows if "a known reason" in row]
    assert "haiku" in accepted
    assert "haiku" not in next(row for row in rows if row is not accepted)


def test_markdown_keeps_within_what_a_comment_may_hold() -> None:
    one = everything()
    rows = [
        replace(row, cell=row.cell._replace(entrant=f"{row.cell.entrant}{i}"))
        for i in range(200)
        for row in one.rows
    ]
    many = replace(one, rows=tuple(rows), exact=one.exact * 400)
    text = markdown.markdown(many)
    assert len(text) < 65_536
    assert "more | | | | | |" in text
    assert "`--format json` has them" in text


@pytest.mark.parametrize("text", ["a|b", "`", "``a`", "a`b", "<b>", "\x1b[31mred\n\nline", ""])
def test_code_spans_hold_anything(text: str) -> None:
    made = markdown.code(text)
    assert "\n" not in made
    assert "\x1b" not in made
    assert without_code(made) == ""


def test_json_is_as_its_schema_says() -> None:
    schema = json.loads((ROOT / "bench" / "compare" / "comparison.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for found in (everything(), both(BASE, LATER), made(UNSURE, SLOW)):
        data = json.loads(as_json(found))
        validator.validate(data)
        assert data == json.loads(json.dumps(as_data(found)))
    data = as_data(both(BASE, simulated(2, {SAME: 1.1})))
    assert data["status"] == 1
    [row] = [r for r in data["rows"] if r["worse"]]
    assert (row["entrant"], row["metric"], row["verdict"]) == ("haiku", "step", "slower")


# --- the command


type Bakeoff = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bakeoff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bakeoff:
    """Run the command line in a folder with some files."""
    monkeypatch.chdir(tmp_path)
    Path("base.json").write_text(json.dumps(BASE))
    Path("later.json").write_text(json.dumps(LATER))
    Path("slow.json").write_text(json.dumps(simulated(2, {SAME: 1.1})))
    unlike = simulated(2, workloads=("toy",))
    Path("toy.json").write_text(json.dumps(unlike))
    Path("not.json").write_text("{nor json")
    Path("binary.json").write_bytes(b"\xff\xfe\x00")
    Path("other.json").write_text('{"a": 1}')
    Path("old.json").write_text(json.dumps(BASE | {"bakeoff": {"schema": 1}}))
    Path("newer.json").write_text(json.dumps(BASE | {"bakeoff": {"schema": 99}}))
    damaged = copy.deepcopy(BASE)
    damaged["bakeoff"]["environment"] = "gone"
    Path("damaged.json").write_text(json.dumps(damaged))
    empty = copy.deepcopy(BASE)
    empty["bakeoff"]["cells"], empty["benchmarks"] = [], []
    Path("empty.json").write_text(json.dumps(empty))
    plain = {k: v for k, v in BASE.items() if k != "bakeoff"}
    Path("plain.json").write_text(json.dumps(plain))
    Path("bad.toml").write_text("[tool.bakeoff.gate\n")
    Path("none.toml").write_text("[tool.other]\n")
    Path("exists").write_text("mine")

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (main(["compare", *arguments]), *capsys.readouterr())

    return command


def test_exit_status_and_forms(bakeoff: Bakeoff) -> None:
    status, out, _ = bakeoff("base.json", "later.json")
    assert status == 0
    assert "Nothing is known to be worse." in out
    status, out, _ = bakeoff("base.json", "slow.json", "--format", "md")
    assert status == 1
    assert out.startswith(markdown.MARKER)
    status, out, _ = bakeoff("base.json", "slow.json", "-o", "out.json")
    assert (status, out) == (1, "out.json\n")
    assert json.loads(Path("out.json").read_text())["status"] == 1
    assert bakeoff("base.json", "later.json", "-o", "out.txt")[0] == 0
    assert "Nothing is known to be worse." in Path("out.txt").read_text()
    assert bakeoff("base.json", "base.json", "later.json", "--format", "json")[0] == 0


def test_the_gate_of_the_folder_is_used(bakeoff: Bakeoff) -> None:
    Path("pyproject.toml").write_text("[tool.bakeoff.gate]\nthreshold = 0.2\n")
    assert bakeoff("base.json", "slow.json")[0] == 0
    Path("strict.toml").write_text("[tool.bakeoff.gate]\nthreshold = 0.01\n")
    assert bakeoff("base.json", "slow.json", "--config", "strict.toml")[0] == 1


BAD = {
    "base.json": "one run is given, base.json; give two: BASE.json NEW.json",
    "base.json none.json": "none.json cannot be read (No such file or directory); give a run file",
    "base.json not.json": "not.json is not JSON (",
    "base.json binary.json": "binary.json is not text; give a run file, which is JSON",
    "base.json other.json": "other.json is JSON, but no run: it has no list of benchmarks; give",
    "base.json old.json": "old.json is a run of schema 1; schema 3 is read: measure it",
    "base.json newer.json": "newer.json is a run of schema 99; schema 3 is read: install",
    "base.json damaged.json": "damaged.json is damaged: Expected ",
    "base.json empty.json": "empty has no cells; give a run that measured something",
    "base.json plain.json": "plain was written by pytest-benchmark alone, without intervals",
    "base.json toy.json": "base and toy have no cell in common (workloads seed, and toy); give",
    "base.json later.json --allow nope": "--allow: unknown name 'nope'; known: machine, devices, "
    "python, flags, measuring, workload, jax, jaxlib, flax, numpy, all; choose one of them",
    "base.json later.json --config bad.toml": "--config bad.toml is not TOML (",
    "base.json later.json --config none.toml": "--config none.toml has no table "
    "[tool.bakeoff.gate]; add it, or leave it out",
    "base.json later.json --config missing.toml": "--config missing.toml: there is no such file; "
    "give a TOML file",
    "base.json later.json -o exists": "output exists ends in nothing; .txt, .md, .markdown, .json, "
    ".html, .htm are known: name it so, or give --format",
    "base.json later.json -o exists --format md": "output exists exists already; files are never "
    "overwritten: name a new one",
}


@pytest.mark.parametrize("given", BAD)
def test_bad_input_is_one_line_and_status_2(bakeoff: Bakeoff, given: str) -> None:
    status, out, err = bakeoff(*given.split())
    assert (status, out) == (2, "")
    assert err.startswith(f"bakeoff: {BAD[given]}")
    assert len(err.splitlines()) == 1


def test_a_comparison_is_no_run(bakeoff: Bakeoff) -> None:
    assert bakeoff("base.json", "later.json", "-o", "made.json")[0] == 0
    status, _, err = bakeoff("base.json", "made.json")
    assert status == 2
    assert err == (
        "bakeoff: made.json is a comparison that was made already, and no run; give the runs that "
        "`pytest bench --benchmark-json` wrote\n"
    )


def test_help_says_what_the_exit_status_means(bakeoff: Bakeoff) -> None:
    status, out, _ = bakeoff("--help")
    said = " ".join(out.split())
    assert status == 0
    for part in ("Exit status: 0 nothing is worse; 1 something is", "2 cannot say", "--allow"):
        assert part in said
