"""`bakeoff cost --arrays`: the published law, how it was fitted, and what it says of a model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.cells import REFERENCE, Arm
from bench.cli import main
from bench.cost.published import (
    CostTable,
    StyleCost,
    document,
    read_published,
)
from bench.metrics import HOST, WORKLOAD_GROUPS
from bench.report.remedies import find_cheaper
from bench.report.table import Content
from bench.runfile import Results
from bench.runfile.reader import Run
from bench.samples import Sample
from bench.stats.amounts import Law
from tests.commands import Bakeoff, script

LAW = script("results/cost/law.py")

PLAIN = (6e-5, 1e-6)
PLANTED = {"flax_nnx/jit": (5e-5, 9e-5), "equinox/filter_jit": (1e-5, 1.7e-5)}
"""Fixed cost, and cost of each array, in seconds."""
SIZES = np.array([8.0, 14, 26, 50, 98, 194])


def run(workers: int = 5, depths: int = 8) -> Run:
    """Return a run whose workers and blocks are as fast as they please."""
    rng, samples, block = np.random.default_rng(0), list[Sample](), 0
    speed = rng.normal(1, 0.1, workers)
    for workload in WORKLOAD_GROUPS["depth"][:depths]:
        for worker in range(workers):
            block += 1
            slow = speed[worker] * rng.normal(1, 0.2)  # the same for all arms of a block
            for name in (*map(str, REFERENCE), *PLANTED, "pure_jax/tuned"):
                fixed, each = PLANTED.get(name, (0.0, 0.0))
                seconds = PLAIN[0] + fixed + (PLAIN[1] + each) * LAW.arrays_of(workload)
                value = slow * seconds * rng.normal(1, 0.002)
                cell = Arm.parse(name).make_cell(workload, "cpu")
                samples.append(Sample(cell, HOST, value, worker=worker, block=block, cores=1))
    return Run("deep", Results(), samples, when="2026-11-26T00:00:00")


@pytest.fixture(scope="module")
def costs() -> CostTable:
    made: CostTable = LAW.cost_table(run())
    return made


def name_costs(costs: CostTable) -> dict[str, StyleCost]:
    return {str(style.arm): style for style in costs.styles}


def cost_of(law: Law) -> StyleCost:
    return StyleCost(entrant="flax_nnx", style="jit", law=law)


@pytest.mark.parametrize("one", [False, True])
def test_intervals_cover_what_was_planted(one: bool) -> None:
    """Each of four workers measures all sizes, or each of eighteen one of them."""
    rng, runs, (fixed, each) = np.random.default_rng(4), 200, (2e-5, 3e-6)
    sizes = np.tile(SIZES, 3 if one else 4)
    workers = np.arange(18) if one else np.repeat(np.arange(4), 6)
    line = LAW.fit(sizes, fixed + each * sizes, sizes, workers)
    assert line is not None
    assert (line.fixed, line.of_array, line.misfit) == pytest.approx((fixed, each, 0), abs=1e-9)
    expected = fixed + each * sizes
    covered = np.zeros(2)
    for _ in range(runs):
        speed = rng.normal(1, 0.03, workers.max() + 1)  # of a worker, the same at all sizes
        law = LAW.fit(
            sizes, expected * speed[workers] * rng.normal(1, 0.01, sizes.size), expected, workers
        )
        assert law is not None
        rows = cost_of(law).array_cost, cost_of(law).predict(147)
        truth = each, fixed + each * 147
        covered += [abs(r.value - v) <= r.half_width for r, v in zip(rows, truth, strict=True)]
    assert (covered / runs > 0.92).all(), covered / runs


def test_the_law_of_a_run_is_what_was_planted_whatever_the_speed_of_its_blocks(
    costs: CostTable,
) -> None:
    assert set(name_costs(costs)) == set(PLANTED), "plain JAX's other styles do other work"
    for name, style in name_costs(costs).items():
        planted = pytest.approx(PLANTED[name][1], rel=0.2)  # a few workers' level
        assert style.law.of_array == planted
        assert style.array_cost.half_width < 0.03 * style.law.of_array, "blocks' speed is no doubt"
    jit, filtered = (name_costs(costs)[name].law.of_array for name in PLANTED)
    assert jit / filtered == pytest.approx(9 / 1.7, rel=0.02)
    assert costs.arrays == (8, 310)
    whole = run()
    lone = [
        s._replace(block=s.block + 1000, value=9 * s.value)
        for s in whole.samples
        if s.cell.arm != REFERENCE[1]
    ]
    more = Run("deep", Results(), [*whole.samples, *lone])
    assert LAW.cost_table(more).styles == costs.styles, (
        "blocks without both references do not count"
    )


@pytest.mark.parametrize(("workers", "depths"), [(1, 6), (5, 1), (5, 0)])
def test_too_little_to_fit(workers: int, depths: int) -> None:
    with pytest.raises(SystemExit, match="no host costs at two depths from enough workers"):
        LAW.cost_table(run(workers, depths))


def test_what_a_step_costs(costs: CostTable) -> None:
    def rows(seconds: float) -> dict[Content, tuple[Content, ...]]:
        made = document(costs, 147, seconds, costs.styles)
        return {row.cells[0]: row.cells[1:] for row in made.sections[0].tables[0].rows}

    law = name_costs(costs)["flax_nnx/jit"].law
    added = law.fixed + 147 * law.of_array
    cost, share, least, *_ = rows(0.040)["flax_nnx/jit"]
    assert not isinstance(cost, str)
    assert cost.form == "added"
    assert cost.value == pytest.approx(added)
    assert (share, least) == (f"{100 * added / 0.040:.0f} %", "0 %"), "the device can hide it"
    assert rows(0.001)["flax_nnx/jit"][2] == f"{100 * (added - 0.001) / 0.001:.0f} %"
    waiting = rows(0.040)["equinox/filter_jit"]
    assert waiting[1] == waiting[2], "filter_jit waits, so that nothing is hidden"


@pytest.mark.parametrize(
    ("style", "better"),
    {
        "flax_nnx/jit": "jit_partial",
        "equinox/filter_jit": "pure",
        "equinox/pure": "flat",  # an unusual style, where no usual one is cheaper
        "haiku/pure": "",
    }.items(),
)
def test_what_to_write_instead(style: str, better: str) -> None:
    entrant, _, name = style.partition("/")
    styles = [row for row in read_published().styles if row.entrant == entrant]
    assert find_cheaper(entrant, name, {row.style: row.array_cost for row in styles}) == better


def test_every_format_names_the_better_style(bakeoff: Bakeoff, tmp_path: Path) -> None:
    given = ("cost", "--arrays", "147", "--step-ms", "40", "--style", "flax_nnx/jit")
    texts = [bakeoff(*given).out]
    for name in ("costs.txt", "costs.md", "costs.html"):
        assert bakeoff(*given, "-o", name) == (0, f"{name}\n", "")
        texts.append((tmp_path / name).read_text("utf-8"))
    for text in texts:
        assert "flax_nnx/jit_partial" in text
        assert "+8.8 ms" in text.replace("\u00a0", " ")
    assert ' data-low="' not in texts[-1], "its first row is no baseline"


def test_a_style_is_named_with_its_library_or_without(
    bakeoff: Bakeoff, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [bakeoff("cost", "--arrays", "8", "--style", name).out for name in ("jit", "pure")]
    assert "flax_nnx/jit " in told[0]
    assert all(f"{library}/pure" in told[1] for library in ("equinox", "haiku", "flax_linen"))
    capsys.readouterr()
    assert main(["check", "haiku", "--style", "haiku/pure", "--only", "contract"]) == 0
    assert "pure" in capsys.readouterr().out


def test_the_published_table_answers_without_slow_imports() -> None:
    code = (
        "import sys; from bench.cli import main\n"
        "assert main(['cost', '--arrays', '8']) == 0\n"
        "assert not {'jax', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
