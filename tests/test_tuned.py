"""The tricks are equal, the limit is arithmetic, and its command says what was measured."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
import pytest

import impls
from bench.cli import main
from bench.report.runs import Run, read
from bench.tuned import beside, roofline
from bench.tuned.limit import Counts, Limit, Parts, Rates, counts, least, parts
from bench.tuned.rates import Sizes
from bench.tuned.table import TRICKS, table
from common.config import ModelConfig
from common.contract import flat, fresh_checkpoint
from common.equality import Case, deviation, make, random_chunk, random_weights, trajectory
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from common.contract import TrainStep

TOY = Case(ModelConfig(5, 8), chunk=8, batch=1)
GROUPS = Case(ModelConfig(5, 4, layers=2), chunk=4, batch=16)
NAMES = (
    *("pure", "layered", "hoisted", "handwritten", "gathered", "unrolled", "grouped"),
    *("flat_optimiser", "donated", "unjitted_optimiser"),
)


@pytest.fixture(scope="module")
def tricks() -> Iterator[impls.Entrant]:
    name = impls.add(TRICKS)
    yield impls.load(name)
    impls.OUTSIDE.pop(name)


@pytest.fixture(scope="module")
def baselines(step_of: Callable[[str, str, Case], TrainStep]) -> dict[Case, np.ndarray]:
    return {case: trajectory(step_of("pure_jax", "pure", case), case) for case in (TOY, GROUPS)}


def test_tricks_are_an_entrant_from_outside(tricks: impls.Entrant) -> None:
    assert tuple(tricks.styles) == NAMES
    assert impls.declared("tricks").jax
    assert "donate" in impls.declared("tricks").note
    assert all(style.__doc__ for name, style in tricks.styles.items() if name != "pure")


@pytest.mark.parametrize("case", [pytest.param(TOY, id="toy"), pytest.param(GROUPS, id="groups")])
@pytest.mark.parametrize("style", [name for name in NAMES if name != "pure"])
def test_each_trick_is_equal(
    style: str, case: Case, tricks: impls.Entrant, baselines: dict[Case, np.ndarray]
) -> None:
    deviation(make(tricks.style(style), case), case, baselines[case]).require()


def test_donation_takes_nothing_that_is_not_its_own(tricks: impls.Entrant) -> None:
    """The same state, chunk, hidden state and checkpoint serve again, and a saved one stays."""
    step = make(tricks.style("donated"), TOY)
    start = fresh_checkpoint(jax.device_put(random_weights(TOY.model)))
    chunk, hidden = random_chunk(TOY, 1), (jax.numpy.ones((1, 8)),) * 3
    losses = []
    for _ in range(2):
        step.load(start)
        for _ in range(3):
            after, loss = step(hidden, chunk)
            losses.append(float(loss))
        saved = step.save()
        copies = [np.copy(layer.kernel) for layer in flat(saved.weights)]
        step(after, chunk)
        for copy, layer in zip(copies, flat(saved.weights), strict=True):
            np.testing.assert_array_equal(copy, layer.kernel)
    assert losses[:3] == losses[3:]
    assert losses[0] > losses[2]
    program = step.program(hidden, chunk)
    assert program is not None
    memory = program.lower().compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes > 0


def test_counts_by_hand() -> None:
    """Two layers of 3 over 5 characters, 4 times, 2 streams."""
    found = counts(ModelConfig(5, 3, layers=2), chunk=4, batch=2)
    multiplications = 8 * (2 * 9 + 3 * 9 + 3 * 3 * 5)  # own kernels, between layers, readout
    assert found == Counts(
        chain=16,
        longest=10,
        flops=2 * multiplications,
        tanh=48,
        exp=40,
        stream_bytes=28 * ((8 + 1) * 3 + (6 + 1) * 3 + (3 + 1) * 5),
    )


def test_flops_are_those_of_the_program(step_of: Callable[[str, str, Case], TrainStep]) -> None:
    """A step of one character, whose one-hot vector the shared step multiplies as any other's."""
    model = ModelConfig(7, 32, layers=3)
    found = counts(model, chunk=1, batch=1)
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
ONE = Rates(product_seconds=2.0, flops=100.0, tanh=10.0, exp=5.0, stream_bytes=70.0)
TWO = Rates(product_seconds=1.0, flops=200.0, tanh=20.0, exp=10.0, stream_bytes=100.0)


def test_parts_by_hand() -> None:
    assert parts(WORK, ONE) == Parts(chain=20, products=10, elementwise=7, optimiser=10)
    assert parts(WORK, ONE).total == 47


def test_the_lower_bound_is_the_work_or_the_wait() -> None:
    """Both cores share 25.5 s of work; what waits is 4 products of one stream's share."""
    shared = least(WORK, ONE, TWO, share_seconds=1.5)
    assert (shared.one_core.total, shared.all_cores.total, shared.waiting) == (47, 25.5, 6)
    assert shared.seconds == 25.5
    assert shared.chain_on_one == 20 + 25.5 - 10
    waits = least(WORK, ONE, TWO, share_seconds=10.0)
    assert waits.seconds == waits.waiting == 40


def test_cores_add_up() -> None:
    other = replace(ONE, product_seconds=6.0, flops=50.0)
    assert roofline.summed([ONE, other]) == Rates(
        product_seconds=1.5, flops=150, tanh=20, exp=10, stream_bytes=140
    )


@pytest.mark.slow
def test_rates_of_a_tiny_size_make_sense() -> None:
    sizes = Sizes(width=16, rows=2, characters=32, parameters=4000)
    (found,), blas = roofline.measured([sizes], seconds=0.01)
    assert blas
    for rates in (found.one, found.together):
        assert 1e-9 < rates.product_seconds < 1e-3
        assert rates.flops >= 2 * 16 * 16 * 2 / rates.product_seconds * 0.999
        assert 1e5 < rates.tanh < 1e12
        assert 1e6 < rates.stream_bytes < 1e13
        assert 1e6 < rates.memory_bytes < 1e13


def test_old_variables_do_not_reach_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = roofline.variables()
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(found)
    assert found["OPENBLAS_NUM_THREADS"] == found["OMP_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_a_process_that_fails_is_said() -> None:
    wrong = Sizes(width=-1, rows=1, characters=8, parameters=100)
    with pytest.raises(BakeoffError, match=r"^measuring the machine failed \(ValueError: .+\); "):
        roofline.measured([wrong], seconds=0.01)


LIMIT = Limit(Parts(1e-3, 5e-4, 4e-4, 1e-4), Parts(5e-4, 25e-5, 2e-4, 5e-5), waiting=2e-4)


THREE = "1.00 ms on 2 cores, 1.50 ms with the chain on one of them, 2.00 ms on one core"


@pytest.mark.parametrize(
    ("cores", "found", "text"),
    [
        (1, None, "the machine's limit 1.00 ms"),
        (2, None, f"the machine's limit {THREE}"),
        (2, beside.Measured(4e-3, None), f"all libraries 4.00 ms, the machine's limit {THREE}"),
        (
            2,
            beside.Measured(4e-3, 2.5e-3),
            f"all libraries 4.00 ms, tuned 2.50 ms, the machine's limit {THREE} "
            "(tuned is 2.5, 1.7 and 1.2 times that)",
        ),
        (
            1,
            beside.Measured(None, 2.5e-3),
            "tuned 2.50 ms, the machine's limit 1.00 ms (tuned is 2.5 times that)",
        ),
    ],
)
def test_the_sentence(cores: int, found: beside.Measured | None, text: str) -> None:
    assert beside.sentence("seed", LIMIT, cores, found) == f"seed: {text}"


def cell(entrant: str, style: str, median: float | None = None, **about: Any) -> dict[str, Any]:
    metric = {"median": median, "unit": "s", **about} if median else {"missing": "no time"}
    names = {"entrant": entrant, "style": style, "workload": "seed", "backend": "cpu"}
    return names | {"failure": None, "metrics": {"step": metric}}


def run_of(*cells: dict[str, Any]) -> Run:
    return Run("made", {"cells": list(cells), "plan": {"margin": 0.02}})


def test_all_libraries_are_jax_libraries_in_the_shared_step() -> None:
    """Not what stands outside, nor what is no library's, nor another backend or workload."""
    run = run_of(
        cell("pure_jax", "pure", 3.0),
        cell("haiku", "pure", 5.0),
        cell("equinox", "pure", 4.0),
        cell("haiku", "transform", 50.0),
        cell("tricks", "pure", 60.0),
        cell("torch", "pure", 70.0),
        cell("flax_nnx", "pure"),
        cell("flax_linen", "pure", 80.0) | {"failure": "not equal"},
        cell("stax", "pure", 90.0) | {"backend": "gpu"},
        cell("pure_jax", "tuned", 2.0),
    )
    assert beside.steps(run, "seed") == beside.Measured(all_libraries=4.0, tuned=2.0)
    assert beside.steps(run, "toy") == beside.Measured(None, None)


def test_the_table_of_gains(tricks: impls.Entrant) -> None:
    faster = {"ratio": 0.8, "low": 0.78, "high": 0.82, "verdict": "faster"}
    same = {"ratio": 1.0, "low": 0.995, "high": 1.005, "verdict": "equivalent"}
    run = run_of(
        cell("pure_jax", "pure", 3e-3),
        cell("tricks", "pure", 3e-3, **same),
        cell("tricks", "hoisted", 2.4e-3, **faster),
        cell("tricks", "donated", 3e-3, **same),
        cell("tricks", "grouped") | {"failure": "not equal: loss off"},
        cell("pure_jax", "tuned", 2e-3, ratio=0.67, low=0.65, high=0.69, verdict="faster"),
    )
    assert table(run).splitlines() == [
        "| trick | what it does | step at `seed` |",
        "|---|---|--:|",
        "| `pure` | None: what it differs by is noise. | = 1.000 (0.995–1.005), 3.00 ms |",
        f"| `hoisted` | {tricks.style('hoisted').__doc__} | **0.80 (0.78–0.82)**, 2.40 ms |",
        "| `donated` | New parameters and moments take the old ones' memory. | "
        "= 1.000 (0.995–1.005), 3.00 ms |",
        "| `grouped` | More than eight streams are taken eight at a time, and gradients added up. "
        "| failed: not equal: loss off |",
        "| pure_jax `tuned`: most of them | The same function written for speed, layer by layer: "
        "how much is not the library's doing. | **0.67 (0.65–0.69)**, 2.00 ms |",
        "",
        "Ratios to the shared step of pure_jax, with 95 % intervals; below 1 is a gain; `=`: "
        "within ±2 %, `?`: not told apart, **bold**: slower or faster.",
    ]


class Done(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def bakeoff(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*arguments: str) -> Done:
        capsys.readouterr()
        return Done(main(list(arguments)), *capsys.readouterr())

    return run


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "made.json"
    cells = [cell("pure_jax", "pure", 0.25), cell("haiku", "pure", 0.75)]
    cells = [each | {"workload": "toy"} for each in [*cells, cell("pure_jax", "tuned", 0.125)]]
    section = {"schema": 2, "cells": cells, "plan": {"margin": 0.02}}
    path.write_text(json.dumps({"benchmarks": [], "bakeoff": section}))
    return path


def test_limit_in_a_table_and_in_words(bakeoff: Callable[..., Done], run_file: Path) -> None:
    done = bakeoff("limit", "--workload", "toy", "--seconds", "0.01", "--run", str(run_file))
    assert done.status == 0
    for label in ("product of the chain", "chain of 48", "GFLOP/s", "GB/s", "least time of a step"):
        assert label in done.out
    last = done.out.splitlines()[-1]
    assert last.startswith("toy: all libraries 500 ms, tuned 125 ms, ")
    assert "the machine's limit " in last
    assert done.err.startswith(f"bakeoff: {run_file} was measured on an unknown processor, and ")
    assert done.err.count("\n") == 1


def test_limit_as_json(bakeoff: Callable[..., Done], run_file: Path) -> None:
    given = ("limit", "--workload", "toy", "--seconds", "0.01", "--json")
    done = bakeoff(*given, "--run", str(run_file))
    assert done.status == 0
    data = json.loads(done.out)
    toy = data["workloads"]["toy"]
    assert list(data["workloads"]) == ["toy"]
    assert data["cores"] == len(roofline.usable_cores())
    assert toy["counts"]["chain"] == 2 * 3 * 8
    assert toy["run"] == {"all_libraries": 0.5, "tuned": 0.125}
    found = toy["limit"]
    rates = {name: Rates(**each) for name, each in toy["rates"].items()}
    work = Counts(**toy["counts"])
    assert found["one_core_total"] == pytest.approx(parts(work, rates["one_core"]).total)
    shared = parts(work, rates["all_cores"]).total
    assert found["seconds"] == pytest.approx(max(shared, found["waiting"]))


@pytest.mark.slow
def test_a_limit_that_was_written_is_put_beside_a_run(
    bakeoff: Callable[..., Done], run_file: Path, tmp_path: Path
) -> None:
    written = bakeoff("limit", "--workload", "toy,seed", "--seconds", "0.01", "--json").out
    path = tmp_path / "limit.json"
    path.write_text(written)
    [said] = beside.sentences(read(run_file, samples=False), path)
    assert said.startswith("toy: all libraries 500 ms, tuned 125 ms, the machine's limit ")
    seconds = json.loads(written)["workloads"]["toy"]["limit"]["seconds"]
    assert f"(tuned is {0.125 / seconds:.2g}" in said


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"workloads": {"toy": {}}, "cores": 2}'])
def test_another_file_is_no_limit(text: str, run_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "limit.json"
    path.write_text(text)
    with pytest.raises(BakeoffError, match=r"limit\.json is not what `bakeoff limit"):
        beside.sentences(read(run_file, samples=False), path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("limit", "--workload", "toy,sead"),
            "unknown workload 'sead'; known: toy, seed, wide, batched, ",
        ),
        (
            ("limit", "--seconds", "0"),
            "--seconds is 0; more than 0 and at most 60 are allowed: give another one",
        ),
        (("limit", "--seconds", "nan"), "--seconds is nan; more than 0"),
        (("limit", "--run", "none.json"), "none.json cannot be read (No such file or directory)"),
        (("tricks", "none.json"), "none.json cannot be read (No such file or directory)"),
    ],
)
def test_what_is_wrong_is_said(
    bakeoff: Callable[..., Done], arguments: tuple[str, ...], message: str
) -> None:
    done = bakeoff(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"bakeoff: {message}")


def test_a_run_without_tricks_says_how_to_measure_them(
    bakeoff: Callable[..., Done], run_file: Path
) -> None:
    done = bakeoff("tricks", str(run_file))
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "bakeoff: made has no tricks; measure them: "
        "pytest bench --entrant pure_jax --entrant bench/tuned/tricks.py\n"
    )
