"""The limit is arithmetic over measured rates, and is compared with the medians of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from bench import limit
from bench.cli import main, program
from bench.limit import Limit, LimitFile, Rates
from bench.runfile import BakeoffSection
from bench.runfile.reader import Run, read
from common.config import ModelConfig
from common.contract import fresh_checkpoint
from common.equality import Case, random_chunk, random_hidden, random_weights
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.contract import TrainStep

ROOT = Path(__file__).parents[1]
ONES = Rates(1.0, 1.0, 1.0, 1.0, 1.0)


def test_parts_and_limits_by_hand() -> None:
    """Two layers of 3 over 5 characters, 4 times, 2 streams; at rates of 1, seconds are counts."""
    multiplications = 8 * (2 * 9 + 3 * 9 + 3 * 3 * 5)  # recurrent kernels, between layers, readout
    model = ModelConfig(5, 3, layers=2)
    found = limit.parts(model, 4, 2, ONES)
    assert found == {
        "chain": 16,
        "products": 2 * multiplications,
        "elementwise": 48 + 40,
        "optimiser": 28 * ((8 + 1) * 3 + (6 + 1) * 3 + (3 + 1) * 5),
    }
    other = limit.parts(model, 4, 2, Rates(2.0, 4.0, 6.0, 8.0, 10.0))
    assert other == {
        "chain": 32,
        "products": found["products"] / 4,
        "elementwise": 48 / 6 + 40 / 8,
        "optimiser": found["optimiser"] / 10,
    }
    by_hand = {"chain": 20.0, "products": 10.0, "elementwise": 7.0, "optimiser": 10.0}
    assert limit.limit_of(by_hand, 2) == Limit(23.5, 20 + 27 / 2, 47)


def test_flops_are_those_of_the_program(step_of: Callable[[str, str, Case], TrainStep]) -> None:
    """A step of one character, whose one-hot vector the shared step multiplies like any other."""
    case = Case(ModelConfig(7, 32), chunk=1, batch=1)
    found = limit.parts(case.model, 1, 1, ONES)
    one_hot = 3 * 2 * 7 * 32  # forwards, and the gradients of both factors
    step = step_of("pure_jax", "pure", case)
    step.load(fresh_checkpoint(random_weights(case.model)))
    program = step.program(random_hidden(case), random_chunk(case, 1))
    assert program is not None
    flops = found["products"] + found["chain"] * 2 * 32 * 32
    assert dot_flops(program.jaxpr().jaxpr) == flops + one_hot


def dot_flops(jaxpr: Any) -> int:
    """Return the flops of the matrix products of a program, each counted once."""
    flops = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (summed, _), _ = equation.params["dimension_numbers"]
            (left, _), [out] = equation.invars, equation.outvars
            sizes = (*(left.aval.shape[axis] for axis in summed), *out.aval.shape)
            flops += 2 * int(np.prod(sizes))
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                flops += dot_flops(inner)
    return flops


def cell(entrant: str, style: str, median: float | None = None, **about: str) -> dict[str, Any]:
    metric = {"median": median, "unit": "s"} if median else {"missing": "no time"}
    names = {"entrant": entrant, "style": style, "workload": "toy", "backend": "cpu"}
    return names | {"failure": None, "metrics": {"step": metric}} | about


def test_medians_are_those_of_jax_libraries_in_the_shared_step() -> None:
    """Not of outside references, other styles, backends or workloads, nor of failed cells."""
    cells = [
        cell("pure_jax", "pure", 3.0),
        cell("haiku", "pure", 5.0),
        cell("equinox", "pure", 4.0),
        cell("haiku", "transform", 50.0),
        cell("tricks", "pure", 60.0),
        cell("torch", "pure", 70.0),
        cell("flax_nnx", "pure"),
        cell("flax_linen", "pure", 80.0, failure="not equal"),
        cell("stax", "pure", 90.0, backend="gpu"),
        cell("pure_jax", "tuned", 2.0),
    ]
    run = Run("made", msgspec.convert({"cells": cells}, BakeoffSection))
    assert limit.medians(run, "toy") == (4.0, 2.0)
    assert limit.medians(run, "seed") == (None, None)
    said = limit.sentence("toy", Limit(1.0, 1.5, 1.6), 2, *limit.medians(run, "toy"))
    assert said == (
        "toy: all libraries 4.00 s, tuned 2.00 s, the machine's limit 1.00 s on 2 cores, 1.50 s "
        "with the chain on one of them, 1.60 s on one core (tuned is 2, 1.3 and 1.2 times that)"
    )


def test_a_measured_limit(tmp_path: Path) -> None:
    """As a user measures it, in a process in which BLAS has one thread; read again for a run."""
    command = [sys.executable, "-m", "bench.limit", "--workload", "toy", "--seconds", "0.01"]
    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = msgspec.json.decode(done.stdout, type=LimitFile)
    [(name, row)] = found.workloads.items()
    rates = msgspec.convert(row.rates, Rates)
    known = limit.parts(ModelConfig(5, 8), 8, 1, rates)
    assert row.limit == limit.limit_of(known, found.cores)
    assert 1e-9 < rates.product_seconds < 1e-3
    assert rates.flops >= 0.999 * 2 * 8 * 8 / rates.product_seconds
    assert 1e5 < rates.tanh < 1e12

    run_file, limits = tmp_path / "made.json", tmp_path / "limit.json"
    cells = [cell("pure_jax", "pure", 0.25), cell("haiku", "pure", 0.75)]
    section = {"schema": 3, "cells": cells, "plan": {"margin": 0.02}}
    run_file.write_text(json.dumps({"benchmarks": [], "bakeoff": section}))
    limits.write_text(done.stdout)
    run = read(run_file, samples=False)
    assert limit.sentences(run, limits) == [limit.sentence(name, row.limit, found.cores, 0.5, None)]
    for text in ("", '{"workloads": {"toy": {}}, "cores": 2}'):
        limits.write_text(text)
        with pytest.raises(BakeoffError, match=r"limit\.json is no limit file"):
            limit.sentences(run, limits)


@pytest.mark.parametrize(
    "arguments", ["--workload toy,sead", "--seconds -1", "--seconds x", "--run none.json"]
)
def test_wrong_use_is_one_line(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split(), program(limit.limit, "limit")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("bakeoff: ")
    assert said.err.count("\n") == 1
