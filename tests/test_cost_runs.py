"""Tables of runs beside the law of costs: what is hidden, what is counted, and peak memory."""

from __future__ import annotations

from typing import Any

import pytest

from bench.cost import runs
from bench.runfile import BakeoffSection, Metric, Result


def test_what_of_a_host_cost_is_hidden_in_a_row() -> None:
    host = 1e-3

    def cell(entrant: str, style: str, **metrics: Metric) -> Result:
        return Result(entrant=entrant, style=style, workload="wide", backend="cpu", metrics=metrics)

    def ratio(added: float, doubt: float) -> Metric:
        ends = (1 + (added + s * doubt) / 0.05 for s in (-1, 1))
        low, high = ends
        return Metric(median=0.05, unit="s", ratio=1 + added / 0.05, low=low, high=high)

    plain = Metric(median=0.05, unit="s")
    cells = [
        cell("pure_jax", "pure", step=plain, step_pipelined=plain),
        cell("flax_nnx", "jit", step=ratio(host, 1e-5), step_pipelined=ratio(host / 4, host / 10)),
        cell("flax_nnx", "jit_tree", step=ratio(host, 1e-5), step_pipelined=ratio(2 * host, 1e-5)),
        cell("equinox", "filter_jit", step=ratio(1e-4, 1e-5), step_pipelined=ratio(0.0, 1e-3)),
    ]
    section = BakeoffSection(cells=cells)
    [dear, *_] = runs.widths(section).rows
    assert dear.cells[0] == "flax_nnx jit"
    assert dear.cells[1].number == pytest.approx(host)  # type: ignore[union-attr]
    rows = {r.cells[0]: r.cells for r in runs.in_a_row(section).rows}
    assert rows["flax_nnx jit"][4] == "75 % (65 % to 85 %)"
    assert rows["flax_nnx jit_tree"][4] == "none"
    assert rows["equinox filter_jit"][4] == "?"


def test_counts_of_each_depth() -> None:
    def cell(style: str, workload: str, **exact: float) -> Result:
        about: dict[str, Any] = {"entrant": "flax_nnx", "backend": "cpu", "metrics": {}}
        return Result(style=style, workload=workload, exact={**exact}, **about)

    section = BakeoffSection(
        cells=[
            cell("jit", "depth3", python_calls=7000, temp_bytes=960),
            cell("jit", "depth12", python_calls=25000, temp_bytes=1520),
            cell("pure", "depth3", python_calls=300),
        ]
    )
    first, second = runs.depths(section).rows
    assert [str(each) for each in first.cells] == [
        *("flax_nnx jit", "7 000", "25 000", "960 B", "1.52 kB"),
    ]
    assert [str(each) for each in second.cells] == ["flax_nnx", "300", "", "", ""]


def test_peak_memory_of_each_depth() -> None:
    about: dict[str, Any] = {"entrant": "flax_nnx", "style": "jit", "backend": "cpu"}
    cells = [
        Result(
            workload=f"depth{n}", metrics={"peak_rss": Metric(median=n * 1e8, unit="B")}, **about
        )
        for n in (3, 12)
    ]
    [row] = runs.peaks(BakeoffSection(cells=cells)).rows
    assert [str(each) for each in row.cells] == ["flax_nnx jit", "300 MB", "1.20 GB"]
