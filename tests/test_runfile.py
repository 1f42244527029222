"""Reading run files: what is refused, and what is in the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bench.cells import Cell
from bench.estimates import Group
from bench.runfile import Result, RunFile
from bench.runfile.reader import processor, read, run_of
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
PATH = ROOT / "results" / "xeon-2-cores" / "2026-11-26-default.json"
TEXT = PATH.read_text("utf-8")
STEP = Group("step", "seed", "cpu")
BASELINE = Cell("pure_jax", "pure", "seed", "cpu")


def test_a_published_run_is_read() -> None:
    run, data = read(PATH), json.loads(TEXT)["bakeoff"]
    assert msgspec.json.decode(TEXT, type=RunFile).bakeoff.cells == run.section.cells
    for cell, said in zip(run.section.cells, data["cells"], strict=True):
        assert cell.cell.facts.items() <= said.items()
        for name, metric in said["metrics"].items():
            kept = cell.metrics[name]
            assert kept.median == metric.get("median", 0)
            assert kept.missing == metric.get("missing", "")
            assert (kept.ratio, kept.verdict) == (metric.get("ratio"), metric.get("verdict"))
    arm, blocks = "pure_jax/pure", data["samples"]["blocks"]
    steps = [b for b in blocks if (b["workload"], b["kind"]) == ("seed", "step")]
    ours = [b for b in steps if arm in b["nanoseconds"]["step"]]
    found = run.samples[STEP][BASELINE]
    assert [one.number for one in found] == [b["number"] for b in ours]
    assert [round(v * 1e9) for v in found[0].values] == ours[0]["nanoseconds"]["step"][arm]
    cold = [c["values"]["import"] for c in data["samples"]["cold"] if c["entrant"] == "haiku"]
    haiku = run.samples[Group("import", "seed", "cpu")][Cell("haiku", "pure", "seed", "cpu")]
    assert sorted(s.values[0] for s in haiku) == sorted(cold), "an import is its library's"
    assert (run.name, run.lacking) == ("2026-11-26-default", [])
    assert processor(run).endswith("2 cores")
    assert read(PATH, samples=False) == replace(run, samples={})


def test_arms_of_one_program_share_its_compilations() -> None:
    run, data = read(PATH), json.loads(TEXT)["bakeoff"]["samples"]["cold"]
    by_program: dict[str, int] = {}
    for cold in data:
        if cold["workload"] == "seed" and cold["entrant"] != "control":
            by_program[cold["program"]] = by_program.get(cold["program"], 0) + 1
    found = run.samples[Group("compile", "seed", "cpu")]
    shared = {len(samples) for cell, samples in found.items() if cell.entrant != "control"}
    assert shared <= set(by_program.values())
    assert len(found[BASELINE]) == max(by_program.values()), "most arms have its program"


def test_what_a_section_leaves_out_has_a_default() -> None:
    cell = {**BASELINE.facts, "metrics": {"step": {"median": 1e-3}, "init": {}}}
    data = {"benchmarks": [], "bakeoff": {"schema": 3, "cells": [cell], "spec": "new"}}
    run = run_of(json.dumps(data).encode(), Path("small.json"))
    assert run.section.plan.margin == 0.02
    assert run.section.spec == "new"
    [found] = run.section.cells
    assert found.metrics["step"].median == 1e-3
    assert found.metrics["init"].missing
    assert (found.failure, found.proof, found.exact) == (None, None, {})
    assert len(run.lacking) == 1, "it has no samples"


def test_numbers_of_a_block_are_in_its_unit() -> None:
    data = json.loads(TEXT)
    [block] = data["bakeoff"]["samples"]["blocks"] = [
        next(b for b in data["bakeoff"]["samples"]["blocks"] if b["workload"] == "seed")
    ]
    block["unit"] = 1000
    [(metric, arms)] = block["nanoseconds"].items()
    run = run_of(json.dumps(data).encode(), Path("one.json"))
    [found] = run.samples[Group(metric, "seed", "cpu")][BASELINE]
    assert found.values == [1e3 * n / 1e9 for n in arms["pure_jax/pure"]]


def test_a_cell_that_failed_has_no_number() -> None:
    cell = {**BASELINE.facts, "metrics": {"step": {"unit": "s", "median": 1e-3}}}
    assert msgspec.convert(cell, Result).measured("step")
    assert not msgspec.convert(cell | {"failure": "not equal"}, Result).measured("step")


def damaged(*path: str | int, value: Any = None) -> Callable[[], str]:
    """Return what gives the file with another value at one place."""

    def made() -> str:
        data: Any = json.loads(TEXT)
        place = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return json.dumps(data)

    return made


STEP_AT = ("bakeoff", "cells", 1, "metrics", "step")
SAMPLES = ("bakeoff", "samples", "blocks", 0, "nanoseconds", "step", "pure_jax/pure")
NO_RUN = "is no run, or is damaged: "
REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "cut": (lambda: TEXT[:5000], "is not JSON"),
    "empty": (lambda: "", "is not JSON ("),
    "deep": (lambda: '{"benchmarks":' + "[" * 100_000, "is not JSON"),
    "not a number": (damaged(*STEP_AT, "median", value=float("nan")), "is not JSON"),
    "a list": (lambda: "[1, 2]", NO_RUN),
    "no benchmarks": (lambda: '{"a": 1}', f"{NO_RUN}Object missing required field `benchmarks`;"),
    "no cells": (
        lambda: '{"benchmarks": [], "bakeoff": {"schema": 3}}',
        f"{NO_RUN}Object missing required field `cells`; give what `pytest bench",
    ),
    "older": (damaged("bakeoff", "schema", value=2), "is a run of schema 2; schema 3 is read"),
    "newer": (damaged("bakeoff", "schema", value=4), "install a newer jax-bakeoff"),
    "no median": (damaged(*STEP_AT, "median"), "$.cells[1].metrics[...].median"),
    "a text": (damaged(*STEP_AT, "ratio", value="1.0"), "$.cells[1].metrics[...].ratio"),
    "a number too large": (lambda: TEXT.replace('"margin":0.02', '"margin":1e999'), NO_RUN),
    "a negative time": (damaged(*STEP_AT, "median", value=-1.0), f"{NO_RUN}Expected `float`"),
    "no ratio": (damaged(*STEP_AT, "ratio", value=0), f"{NO_RUN}Expected `float`"),
    "half a proof": (damaged("bakeoff", "cells", 0, "proof", value={}), f"{NO_RUN}Object missing"),
    "no machine": (damaged("machine_info", value=[1]), f"{NO_RUN}Expected `object"),
    "a sample that is none": (damaged(*SAMPLES, 0, value=0), f"{NO_RUN}Expected `int`"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_run_is_refused_in_one_line(what: str) -> None:
    """In the same words where its samples are not needed."""
    content, message = REFUSED[what]
    for samples in (True,) if "sample" in what else (True, False):
        with pytest.raises(BakeoffError) as caught:
            run_of(content().encode(), Path("spoilt.json"), samples=samples)
        assert str(caught.value).startswith("spoilt.json is ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
