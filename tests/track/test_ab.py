"""`bakeoff ab`: what is said of two sides, by simulation."""

import math
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from scipy import special

from bench.cells import Cell
from bench.estimates import MARGIN, Estimate, Verdict
from bench.metrics import COLD
from bench.report.documents.ab import describe_comparison
from bench.report.markdown import markdown
from bench.report.page import page
from bench.runfile import ResultsWithSamples
from bench.stats.estimate import widen_intervals
from bench.track.comparison import BASE, NEW, Comparison, Status
from tests.estimates import ratio
from tests.report.runs import section
from tests.report.test_renderers import terminal
from tests.track.simulated import BLOG, FILTER_JIT, HAIKU, two_sides

SLOWER = two_sides(1, {HAIKU: 1.012, FILTER_JIT: 1.06, BLOG: 0.9}, flax="0.12.9")
SLIGHTLY = two_sides(1, {HAIKU: 1.012})
SAME = two_sides(2)
WITHIN = "Differs by less than the margin of 2 %: haiku/pure "


@pytest.mark.parametrize(
    ("results", "margin", "status", "words"),
    [
        # What is certain is told, and the status follows the margin
        (SLIGHTLY, 0.02, Status.NOT_WORSE, f"{WITHIN}|haiku/pure step at width 128 +1.2 % (0."),
        (SLIGHTLY, 0.005, Status.WORSE, "Worse: haiku/pure "),
        (
            *(SLOWER, 0.02, Status.WORSE),
            f"flax 0.12.8 → 0.12.9: Worse: equinox/filter_jit |{WITHIN}|Faster: flax_linen/blog "
            "|16 rows: 14 settled; 2 open (the widest: ±4|Identical: 20 exact counts.",
        ),
        (
            *(SAME, 0.02, Status.NOT_WORSE),
            "No change found. 16 rows: 12 settled; 4 open (the widest: ±7.9 %). Identical: 20 ",
        ),
    ],
)
def test_headlines(results: ResultsWithSamples, margin: float, status: Status, words: str) -> None:
    results = replace(results, options=replace(results.options, margin=margin))
    assert Comparison(results).status is status
    text = describe_comparison(results).headline
    places = [text.find(part) for part in words.split("|")]
    assert places == sorted(places), text
    assert places[0] == 0, text


def test_a_page_of_two_sides_has_no_other_baseline() -> None:
    """Its rows are changes of different cells: dividing one by another means nothing."""
    assert ' data-low="' not in page(describe_comparison(SLOWER))


def test_a_release_that_does_not_import_comes_first() -> None:
    """Not "flax none → 0.12.12: Inconclusive"."""
    why = "flax 0.12.8 does not import with jax 0.12.0.1: ImportError: no such name; this fits: …"
    base, new = (SAME.environments[side] for side in (BASE, NEW))
    versions = {name: version for name, version in base.versions.items() if name != "flax"}
    broken = replace(base, versions=versions, gaps={"flax_nnx": why})
    results = replace(SAME, environments={BASE: broken, NEW: new})
    text = describe_comparison(results).headline
    assert text.startswith("flax 0.12.8 does not import with jax 0.12.0.1. No change found.")


def of_rows(rows: list[Estimate]) -> ResultsWithSamples:
    return replace(SAME, estimates=widen_intervals(rows, MARGIN))


CELLS = [
    (HAIKU.make_cell(w, "cpu"), m) for m in COLD[:5] for w in ("toy", "seed", "wide", "depth12")
]


def make_row(cell: Cell, metric: str, log: float, error: float, df: float) -> Estimate:
    """Return a ratio by its logarithm, whose interval and p are not corrected for any others."""
    half = float(special.stdtrit(df, 0.975)) * error
    value, low, high = (math.exp(log + x) for x in (0.0, -half, half))
    p = 2 * float(special.stdtr(df, -abs(log) / error))
    about: dict[str, Any] = {"cell": cell, "metric": metric, "against": BASE, "p": p}
    made: Estimate = ratio(value, low, high, standard_error=error, df=df, **about)
    return made


def test_twenty_comparisons_of_the_same_raise_no_alarm() -> None:
    """Each leaves out 1 by chance in one of twenty cases, all together in one of twenty A/Bs."""
    rng, df, error = np.random.default_rng(3), 4, 0.03
    alarms, alone, times = 0, 0, 500
    for _ in range(times):
        rows = [make_row(*cell, float(rng.standard_t(df)) * error, error, df) for cell in CELLS]
        alone += any(row.differs and row.value > 1.02 for row in rows)
        alarms += Comparison(of_rows(rows)).status is Status.WORSE
    assert alone / times > 0.3
    assert alarms / times < 0.04


def test_a_row_that_differs_only_by_itself_is_open_wherever_it_is_told() -> None:
    logs = 0.05, *[0.0] * 19
    rows = [make_row(*cell, log, 0.02, 30) for cell, log in zip(CELLS, logs, strict=True)]
    assert Comparison(replace(SAME, estimates=rows)).status is Status.WORSE
    row = widen_intervals(rows, MARGIN)[0]
    assert (row.differs, row.verdict, row.settled_by) == (False, Verdict.INCONCLUSIVE, "")
    assert row.p == pytest.approx(20 * (rows[0].p or 0))
    factor = float(special.stdtrit(30, 0.025 / 20) / special.stdtrit(30, 0.025))
    assert row.half_width == pytest.approx(factor * rows[0].half_width)
    step = widen_intervals([replace(rows[0], metric="step"), *rows], MARGIN)[0]
    assert step.p == pytest.approx(3 * (rows[0].p or 0)), "3 of 9 parts of the odds are a step's"
    assert widen_intervals(rows[:1], MARGIN)[0].low == pytest.approx(rows[0].low)
    assert describe_comparison(of_rows(rows)).headline.startswith("Nothing is settled")


def test_a_headline_counts_and_says_nothing_beside_that_nothing_is_settled() -> None:
    """Six open rows, one of which is not slower, are no "no change found"."""
    errors = [0.02] * 5 + [0.11]
    rows = [make_row(*cell, 0.0, e, 30) for cell, e in zip(CELLS, errors, strict=False)]
    rows[0] = make_row(*CELLS[0], -0.04, 0.025, 30)
    assert (rows[0].high or 9) < 1 + MARGIN
    it = Comparison(replace(SAME, estimates=rows))
    assert it.status is Status.CANNOT_SAY
    assert describe_comparison(it.results).headline == "Nothing is settled yet."
    rows[1] = replace(rows[1], low=0.99, high=1.01, verdict=Verdict.EQUIVALENT)
    rows[2] = replace(rows[2], value=2.0, low=1e-3, high=323.0)
    cell = replace(SAME.cells[-1], missing={"import": "no time"})
    it = Comparison(replace(SAME, estimates=rows, cells=[*SAME.cells[:-1], cell]))
    assert it.status is Status.NOT_WORSE
    made = describe_comparison(it.results)
    assert made.headline == (
        "No change found. 6 rows: 1 settled; 4 open (the widest: ±25 %); 1 not yet. "
        "Not measured: import."
    )
    for text in (terminal(made, details=True), markdown(made), page(made)):
        assert "–323" not in text
        assert "not yet" in text


@pytest.mark.parametrize("results", [SLOWER, SAME])
def test_the_p_of_several_arms_says_what_their_interval_does(results: ResultsWithSamples) -> None:
    rows = Comparison(results).times
    assert len({row.cell.arm for row in rows}) > 2
    assert all((row.p is not None and row.p < 0.05) == row.differs for row in rows)


def test_every_time_is_in_a_table_and_the_markdown_escapes_names() -> None:
    pins = {BASE: {"scipy": "1.0"}, NEW: {"zipp": "4.1"}}
    environments = {n: replace(info, pins=pins[n]) for n, info in SLOWER.environments.items()}
    environments[NEW] = replace(environments[NEW], spec="<b>@x", gaps={"haiku": "no wheel"})
    cells = [row for row in SLOWER.cells if (row.environment, row.cell.arm) != (NEW, HAIKU)]
    cells[-1] = replace(cells[-1], missing={"import": "no time"})
    made = describe_comparison(replace(SLOWER, environments=environments, cells=cells))
    tables = [table for section in made.sections for table in section.tables]
    rows = [row.cells[:2] for table in tables for row in table.rows]
    assert len(rows) == len(Comparison(SLOWER).times) == len({*rows})
    assert "<b>" not in markdown(made)
    assert section(made, "Not compared").lines == (
        "import of flax_linen/blog at width 8: no time, on the new side",
        "Only on the base side: haiku/pure at width 8 and width 128 (no wheel)",
    )
    assert "Differs: scipy 1.0, then none; zipp none, then 4.1." in " ".join(made.fine_print)
