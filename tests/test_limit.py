"""The limit is arithmetic over measured rates, and is compared with the medians of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from bench import limit
from bench.limit import Counts, Limit, Limits, Measured, Parts, Rates, Step
from bench.report.runs import Run, read
from common.config import ModelConfig
from common.contract import fresh_checkpoint
from common.equality import Case, random_chunk, random_weights
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from common.contract import TrainStep


def test_counts_by_hand() -> None:
    """Two layers of 3 over 5 characters, 4 times, 2 streams."""
    multiplications = 8 * (2 * 9 + 3 * 9 + 3 * 3 * 5)  # recurrent kernels, between layers, readout
    assert limit.counts(Step(ModelConfig(5, 3, layers=2), chunk=4, batch=2)) == Counts(
        chain=16,
        longest=10,
        flops=2 * multiplications,
        tanh=48,
        exp=40,
        stream_bytes=28 * ((8 + 1) * 3 + (6 + 1) * 3 + (3 + 1) * 5),
    )


def test_flops_are_those_of_the_program(step_of: Callable[[str, str, Case], TrainStep]) -> None:
    """A step of one character, whose one-hot vector the shared step multiplies like any other."""
    model = ModelConfig(7, 32, layers=3)
    found = limit.counts(Step(model, chunk=1))
    ours = found.flops + found.chain * 2 * 32 * 32
    one_hot = 3 * 2 * 7 * 32  # forwards, and the gradients of both factors
    case = Case(model, chunk=1, batch=1)
    step = step_of("pure_jax", "pure", case)
    step.load(fresh_checkpoint(random_weights(model)))
    program = step.program(tuple(np.zeros((3, 1, 32), np.float32)), random_chunk(case, 1))
    assert program is not None
    assert dot_flops(program.jaxpr().jaxpr) == ours + one_hot


def dot_flops(jaxpr: Any) -> int:
    """Return the flops of the matrix products of a program, each counted once."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            inner = int(np.prod([left[axis] for axis in contracted]))
            total += 2 * inner * int(np.prod(equation.outvars[0].aval.shape))
        for value in equation.params.values():
            inner_jaxpr = getattr(value, "jaxpr", value)
            if hasattr(inner_jaxpr, "eqns"):
                total += dot_flops(inner_jaxpr)
    return total


WORK = Counts(chain=10, longest=4, flops=1000.0, tanh=30, exp=20, stream_bytes=700)
ONE = Rates(2.0, flops=100.0, tanh=10.0, exp=5.0, stream_bytes=70.0, share_seconds=1.5)
TWO = Rates(1.0, flops=200.0, tanh=20.0, exp=10.0, stream_bytes=100.0)


def test_the_limit_by_hand() -> None:
    """Both cores share 25.5 s of work; 4 products of one core's share depend on each other."""
    found = limit.limit_of(WORK, ONE, TWO)
    assert found == Limit(
        one_core=Parts(chain=20, products=10, elementwise=7, optimiser=10),
        all_cores=Parts(chain=10, products=5, elementwise=3.5, optimiser=7),
        waiting=6,
        seconds=25.5,
        chain_on_one=20 + 25.5 - 10,
        one_core_total=47,
    )
    slow = limit.limit_of(WORK, msgspec.structs.replace(ONE, share_seconds=10.0), TWO)
    assert slow.seconds == slow.waiting == 40


def test_cores_add_up() -> None:
    other = msgspec.structs.replace(ONE, product_seconds=6.0, flops=50.0, memory_bytes=3.0)
    assert limit.summed([ONE, other]) == Rates(1.5, 150, 20, 10, 140, 3.0, share_seconds=1.5)


def test_old_variables_do_not_reach_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = limit.variables()
    assert "OPENBLAS_CORETYPE" not in found
    assert found["OPENBLAS_NUM_THREADS"] == found["OMP_NUM_THREADS"] == "1"


def test_a_failed_process_is_an_error() -> None:
    with pytest.raises(BakeoffError, match=r"^measuring the machine failed \(\w+: .+\); "):
        limit.ask(limit.Request([], 0.01, cores=1, core=1_000_000))


THREE = "1.00 ms on 2 cores, 1.50 ms with the chain on one of them, 2.00 ms on one core"
TIMES = "(tuned is 2.5, 1.7 and 1.2 times that)"


@pytest.mark.parametrize(
    ("cores", "found", "text"),
    [
        (1, Measured(), "the machine's limit 1.00 ms"),
        (2, Measured(4e-3), f"all libraries 4.00 ms, the machine's limit {THREE}"),
        (2, Measured(tuned=2.5e-3), f"tuned 2.50 ms, the machine's limit {THREE} {TIMES}"),
    ],
)
def test_the_sentence(cores: int, found: Measured, text: str) -> None:
    one, two = Parts(1e-3, 5e-4, 4e-4, 1e-4), Parts(5e-4, 25e-5, 2e-4, 5e-5)
    given = Limit(one, two, 2e-4, seconds=1e-3, chain_on_one=1.5e-3, one_core_total=2e-3)
    assert limit.sentence("seed", given, cores, found) == f"seed: {text}"


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
    run = Run("made", {"cells": cells})
    assert limit.medians(run, "toy") == Measured(all_libraries=4.0, tuned=2.0)
    assert limit.medians(run, "seed") == Measured()


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "made.json"
    cells = [cell("pure_jax", "pure", 0.25), cell("haiku", "pure", 0.75)]
    cells.append(cell("pure_jax", "tuned", 0.125))
    section = {"schema": 3, "cells": cells, "plan": {"margin": 0.02}}
    path.write_text(json.dumps({"benchmarks": [], "bakeoff": section}))
    return path


def test_a_measured_limit(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON, read again, beside a run."""
    given = ["--workload", "toy", "--seconds", "0.01", "--run", str(run_file)]
    assert limit.main([*given, "--json"]) == 0
    text, warning = capsys.readouterr()
    assert f"{run_file} was measured on an unknown processor" in warning
    found = msgspec.json.decode(text, type=Limits)
    [(name, row)] = found.workloads.items()
    one, together = row.rates["one_core"], row.rates["all_cores"]
    assert (name, found.cores) == ("toy", len(limit.usable_cores()))
    assert row.counts.chain == 2 * 3 * 8
    assert row.limit == limit.limit_of(row.counts, one, together)
    assert row.run == Measured(all_libraries=0.5, tuned=0.125)
    for rates in (one, together):
        assert 1e-9 < rates.product_seconds < 1e-3
        assert rates.flops >= 0.999 * 2 * 8 * 8 / rates.product_seconds
        assert 1e5 < rates.tanh < 1e12
        assert 1e6 < rates.memory_bytes < 1e13
    path = tmp_path / "limit.json"
    path.write_text(text)
    run = read(run_file, samples=False)
    assert limit.sentences(run, path) == [limit.sentence("toy", row.limit, found.cores, row.run)]
    limit.show(name, row, found.cores)
    shown = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in shown if line}) == 1
    assert [line for line in shown if line.startswith("chain of 48 ")]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"workloads": {"toy": {}}, "cores": 2}'])
def test_another_file_is_no_limit(text: str, run_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "limit.json"
    path.write_text(text)
    with pytest.raises(BakeoffError, match=r"limit\.json is no limit file"):
        limit.sentences(read(run_file, samples=False), path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workload", "toy,sead"], "unknown workload 'sead'; known: toy, seed, wide, batched, "),
        (["--seconds", "0"], "--seconds is 0; more than 0 and at most 60 are allowed"),
        (["--seconds", "nan"], "--seconds is nan; more than 0"),
        (["--run", "none.json"], "none.json cannot be read (No such file or directory)"),
    ],
)
def test_wrong_use(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert limit.main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"bakeoff: {message}")
    assert said.err.count("\n") == 1
