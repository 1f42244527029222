"""`bakeoff cost`: the law in a run, and what it says of a model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from bench.cells import REFERENCE, Arm
from bench.cost.document import Step, cheaper, document, law_table
from bench.cost.fit import arrays_of, cost_table
from bench.cost.table import CostTable, json_of, read_table
from bench.metrics import HOST, TOGETHER
from bench.report.markdown import table_lines
from bench.runfile import Results
from bench.runfile.reader import Run
from bench.samples import Sample
from common.errors import BakeoffError
from tests.commands import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.table import Content, Table
    from tests.commands import Bakeoff

PLAIN = (6e-5, 1e-6)
PLANTED = {"flax_nnx/jit": (5e-5, 9e-5), "equinox/filter_jit": (1e-5, 1.7e-5)}
"""Fixed cost, and cost of each array, in seconds."""


def run(workers: int = 5, depths: int = 6) -> Run:
    """Return a run whose workers and blocks are as fast as they please."""
    rng, samples, block = np.random.default_rng(0), list[Sample](), 0
    speed = rng.normal(1, 0.1, workers)
    for workload in TOGETHER["depth"][:depths]:
        for worker in range(workers):
            block += 1
            slow = speed[worker] * rng.normal(1, 0.2)  # the same for all arms of a block
            for name in (*map(str, REFERENCE), *PLANTED, "pure_jax/tuned"):
                fixed, each = PLANTED.get(name, (0.0, 0.0))
                seconds = PLAIN[0] + fixed + (PLAIN[1] + each) * arrays_of(workload)
                value = slow * seconds * rng.normal(1, 0.002)
                cell = Arm.of(name).at(workload, "cpu")
                samples.append(Sample("", cell, HOST, worker, block, 0.0, 1, value))
    return Run("deep", Results(), samples, when="2026-11-26T00:00:00")


@pytest.fixture(scope="module")
def table() -> CostTable:
    return cost_table(run())


@pytest.fixture
def file(table: CostTable, tmp_path: Path) -> Path:
    path = tmp_path / "costs.json"
    path.write_text(json_of(table), "utf-8")
    return path


def cells(table: Table) -> list[tuple[Content, ...]]:
    return [row.cells for row in table.rows]


def test_the_law_of_a_run_is_what_was_planted_whatever_the_speed_of_its_blocks(
    table: CostTable,
) -> None:
    assert set(table.by_style) == set(PLANTED), "plain JAX's other styles do other work"
    for name, style in table.by_style.items():
        assert style.law.each == pytest.approx(PLANTED[name][1], rel=0.2)  # a few workers' level
        assert style.per_array.half_width < 0.03 * style.law.each, "blocks' speed is no doubt"
    jit, filtered = (table.by_style[name].law.each for name in PLANTED)
    assert jit / filtered == pytest.approx(9 / 1.7, rel=0.02)
    assert table.arrays == (8, 194)


def test_blocks_without_both_references_do_not_count(table: CostTable) -> None:
    whole = run()
    lone = [
        s._replace(block=s.block + 1000, value=9 * s.value)
        for s in whole.samples
        if s.cell.arm != REFERENCE[1]
    ]
    assert cost_table(Run("deep", Results(), [*whole.samples, *lone])).styles == table.styles


@pytest.mark.parametrize(("workers", "depths"), [(1, 6), (5, 1), (5, 0)])
def test_too_little_to_fit(workers: int, depths: int) -> None:
    with pytest.raises(BakeoffError, match="no host costs at two depths from enough workers"):
        cost_table(run(workers, depths))


def test_what_a_step_costs(table: CostTable) -> None:
    def rows(seconds: float) -> dict[Content, tuple[Content, ...]]:
        made = document(table, Step(147, seconds), table.styles)
        return {row[0]: row[1:] for row in cells(made.sections[0].tables[0])}

    law = table.by_style["flax_nnx/jit"].law
    added = law.fixed + 147 * law.each
    cost, share, least, _ = rows(0.040)["flax_nnx jit"]
    assert not isinstance(cost, str)
    assert cost.form == "added"
    assert cost.value == pytest.approx(added)
    assert (share, least) == (f"{100 * added / 0.040:.0f} %", "0 %"), "the device can hide it"
    assert rows(0.001)["flax_nnx jit"][2] == f"{100 * (added - 0.001) / 0.001:.0f} %"
    waiting = rows(0.040)["equinox filter_jit"]
    assert waiting[1] == waiting[2], "filter_jit waits, so that nothing is hidden"


@pytest.mark.parametrize(
    ("style", "better"),
    {
        "flax_nnx/jit": "jit_partial",
        "flax_nnx/pure": "jit_partial",
        "equinox/filter_jit": "pure",
        "flax_linen/blog": "pure",
        "equinox/pure": "flat",  # an unusual style, where no usual one is cheaper
        "haiku/pure": "",
        "equinox/flat": "",
    }.items(),
)
def test_what_to_write_instead(style: str, better: str) -> None:
    costs = read_table()
    found = cheaper(costs, costs.by_style[style])
    assert (found[0].style if found else "") == better
    if found:
        after, saved = found
        assert saved.value == pytest.approx(after.law.each - costs.by_style[style].law.each)
        assert saved.against == style
        assert saved.high is not None
        assert saved.high < 0


def test_a_table_comes_back_from_its_file(table: CostTable, file: Path, bakeoff: Bakeoff) -> None:
    assert read_table(file) == table
    done = bakeoff("cost", "--from", str(file), "--format", "json")
    assert msgspec.json.decode(done.out, type=CostTable) == table


@pytest.mark.parametrize("form", ["text", "md", "html"])
def test_every_format_names_the_better_style(form: str, bakeoff: Bakeoff, tmp_path: Path) -> None:
    given = ("cost", "--arrays", "147", "--step-ms", "40", "--style", "flax_nnx/jit")
    done = bakeoff(*given, "--format", form, "-o", f"costs.{form}")
    assert (done.status, done.out, done.err) == (0, f"costs.{form}\n", "")
    text = (tmp_path / f"costs.{form}").read_text("utf-8")
    assert "jit_partial" in text
    assert "147 parameter arrays" in text


@pytest.mark.parametrize(
    ("given", "words"),
    {
        "": "--arrays is missing",
        "--arrays 0": "--arrays is 0",
        "--arrays -3": "--arrays is -3",
        "--arrays 8 --step-ms 0": "--step-ms is 0",
        "--arrays 8 --step-ms nan": "--step-ms is nan",
        "--arrays 8 --format json": "JSON has the whole table",
        "--arrays 8 --style flax_nnx/jet": "unknown style 'flax_nnx/jet'; known: ",
        "--arrays 8 --from missing.json": "missing.json",
        "--arrays 8 --from other.json": "other.json",
        "--arrays 8 --from old.json": "old.json is jax-bakeoff cost 4; needed is jax-bakeoff cost",
        "--arrays 8 --model mine.py:make": "No such option: --model",
        "--arrays 8 --here": "No such option: --here",
        "--arrays 8 --check": "No such option: --check",
    }.items(),
)
def test_bad_input_is_one_line(given: str, words: str, bakeoff: Bakeoff, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "old.json").write_text(json.dumps({"kind": "jax-bakeoff cost", "version": 4}))
    done = bakeoff("cost", *given.split())
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert done.err.count("\n") == 1


def test_the_published_table_answers_at_once_and_without_jax() -> None:
    code = (
        "import sys; from bench.cli import main\n"
        "assert main(['cost', '--arrays', '8']) == 0\n"
        "assert not {'jax', 'scipy'} & set(sys.modules), 'slow imports'"
    )
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert time.monotonic() - start < 5, "half a second on an idle machine"


def test_the_published_page_has_the_published_law() -> None:
    page = (ROOT / "results/cost/README.md").read_text("utf-8")
    assert "\n".join(table_lines(law_table(read_table().styles))) in page
