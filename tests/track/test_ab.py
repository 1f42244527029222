"""`bakeoff ab`: what is said of two sides, by simulation; and a real tiny A/B as a command."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from bench.cells import Cell, Selection
from bench.engine.process import Place
from bench.engine.session import Side
from bench.environments.offers import Offer
from bench.options import Options
from bench.report.markdown import markdown
from bench.runfile import EnvironmentInfo
from bench.runfile.reader import read
from bench.runfile.writer import run_file, write
from bench.track.ab import document
from bench.track.comparison import BASE, NEW, Comparison, Status
from bench.track.sides import cells_of, require_common, task
from common.errors import BakeoffError
from tests.commands import command, how
from tests.track.simulated import ARMS, BLOG, FILTER_JIT, HAIKU, two_sides

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.commands import Bakeoff

SLOWER = two_sides(1, {HAIKU: 1.012, FILTER_JIT: 1.06, BLOG: 0.9}, flax="0.12.9")
SAME = two_sides(2)


def test_differences_are_told_first_and_the_status_follows_the_margin() -> None:
    """A slowdown of 1.2 % is certain, and within the margin of 2 %."""
    it = Comparison(two_sides(1, {HAIKU: 1.012}))
    assert it.status is Status.NOT_WORSE
    assert {(row.cell.arm, row.metric) for row in it.differing} >= {(HAIKU, "step")}
    text = document(it.results).headline
    assert text.startswith("Differs, within the margin of 2 %: haiku ")
    assert "haiku step at seed +1.2 % (0." in text
    strict = Comparison(replace(it.results, options=replace(it.results.options, margin=0.005)))
    assert strict.status is Status.WORSE


def test_what_is_worse_comes_before_what_is_faster() -> None:
    it = Comparison(SLOWER)
    assert it.status is Status.WORSE
    assert {row.cell.arm for row in it.times if it.worse(row)} == {FILTER_JIT}
    assert {row.cell.arm for row in it.times if it.faster(row)} == {BLOG}
    values = [row.value for row in it.differing]
    assert values == sorted(values, reverse=True)
    text = document(SLOWER).headline
    assert text.startswith("flax 0.12.8 → 0.12.9: Worse: equinox filter_jit ")
    order = [text.index(part) for part in ("Worse:", "Differs, within", "Faster:", "Changes above")]
    assert order == sorted(order)
    assert "20 exact counts are identical." in text


def test_an_environment_against_itself_shows_what_would_have_shown() -> None:
    it = Comparison(SAME)
    assert (it.differing, it.status) == ([], Status.NOT_WORSE)
    text = document(SAME).headline
    assert text.startswith("No change found. Changes above ")
    for part in ("% (step at seed)", "% (host cost at toy)", "20 exact counts are identical"):
        assert part in text
    few = Comparison(two_sides(3, workers=1))
    assert few.limits.keys() == {"compile", "peak_rss"}


def test_every_row_is_in_a_table_and_the_markdown_escapes_names() -> None:
    made = document(SLOWER)
    tables = {table.title: table for section in made.sections for table in section.tables}
    seed = tables["seed on cpu: new / base"]
    assert [column.title for column in seed.columns] == [
        *("style", "step", "compile", "peak\nmemory")
    ]
    assert [row.cells[0] for row in seed.rows] == [arm.words for arm in ARMS]
    assert len([figure for section in made.sections for figure in section.figures]) == 4
    odd = replace(SLOWER, environments=SLOWER.environments | {"new": EnvironmentInfo(spec="<b>@x")})
    assert "<b>" not in markdown(document(odd))


def test_sides_without_the_same_cells_say_so() -> None:
    lost = [row for row in SAME.cells if (row.environment, row.cell.arm) != ("new", HAIKU)]
    rows = [row for row in SAME.estimates if (row.environment, row.cell.arm) != ("new", HAIKU)]
    rows = [row for row in rows if row.metric != "peak_rss" or row.environment == BASE]
    gone = replace(SAME.environments["new"], gaps={"haiku": "no wheel"})
    made = replace(SAME, cells=lost, estimates=rows, environments=SAME.environments | {"new": gone})
    [lines] = [s.lines for s in document(made).sections if s.title == "Not compared"]
    assert lines == (
        "peak memory of pure_jax at seed, equinox filter_jit at seed and flax_linen blog at seed: "
        "measured on the base side alone",
        "Only on the base side: haiku at toy and seed (no wheel)",
    )


@pytest.mark.parametrize("pinned", [True, False])
def test_releases_of_dependencies_differ_too(pinned: bool) -> None:
    pins = {"base": {"jax": "0.12.0", "scipy": "1.0"}, "new": {"jax": "0.12.0", "zipp": "4.1"}}
    environments = {
        name: replace(info, pins=pins[name] if pinned else {})
        for name, info in SAME.environments.items()
    }
    text = " ".join(document(replace(SAME, environments=environments)).fine_print)
    assert ("Differs: scipy 1.0, then none; zipp none, then 4.1." in text) is pinned


# what is measured


def side(spec: str, *, haiku: bool = True) -> Side:
    styles = {"pure_jax": ["pure"]} | ({"haiku": ["pure"]} if haiku else {})
    offer = Offer(styles, {}, ["cpu"], {}, {"cpu": "cpu"})
    return Side(Place(), offer, EnvironmentInfo(spec=spec))


def test_cells_are_those_that_both_sides_have() -> None:
    both = {BASE: side("a"), NEW: side("b", haiku=False)}
    cells = cells_of(Selection(), both)
    assert {cell.workload for cell in cells[BASE]} == {"toy", "seed"}
    assert {cell.entrant for cell in require_common(cells)} == {"pure_jax"}
    with pytest.raises(BakeoffError, match="base and new have nothing in common"):
        require_common(cells_of(Selection(("haiku",)), both))
    with pytest.raises(BakeoffError, match="unknown entrant 'nobody'"):
        cells_of(Selection(("nobody",)), both)
    about: dict[str, Any] = {"groups": [(BASE, NEW)], "options": Options(), "base": BASE}
    made = task("ab", Selection(), both, cells, arguments=(), **about)
    needed = made.needed[BASE]
    assert needed[Cell("haiku", "pure", "toy", "cpu")] == {"host_cost"}
    assert {"step", "compile", "import", "peak_rss"} <= needed[Cell("haiku", "pure", "seed", "cpu")]
    cold = Selection(workloads=("toy",), metrics=("compile",))
    only = task("ab", cold, both, cells_of(cold, both), arguments=(), **about)
    assert set(only.needed[NEW].values()) == {frozenset({"compile"})}
    wide = Selection(workloads=("seed",), metrics=("host_cost",))
    with pytest.raises(BakeoffError, match="nothing to measure"):
        task("ab", wide, both, cells_of(wide, both), arguments=(), **about)


# as commands


def test_report_shows_what_ab_has_written(bakeoff: Bakeoff, tmp_path: Path) -> None:
    write(tmp_path / "ab.json", run_file(SLOWER))
    done = bakeoff("report", "ab.json", "--format", "text")
    assert done.status == 0
    assert " ".join(document(SLOWER).headline.split()) in " ".join(done.out.split())
    assert bakeoff("report", "ab.json", "-o", "ab.html").status == 0
    page = (tmp_path / "ab.html").read_text("utf-8")
    assert page.count("<figure>") == 4


SELF = (
    *("ab", "--base", "current", "--new", "current", "--entrant", "equinox", "--style", "pure"),
    *("--workload", "toy", "--metric", "step,host_cost,compile", "--budget", "90"),
    *("--pairs", "2", "--blocks", "2", "--cold-samples", "1"),
)


@pytest.mark.slow
def test_an_ab_is_measured_interrupted_taken_up_and_written(
    tmp_path: Path, heard: Callable[[list[str]], list[str]]
) -> None:
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(heard(command(*SELF)), **how(tmp_path), **streams) as process:
        limit = time.monotonic() + 90
        while time.monotonic() < limit:
            begun = list(tmp_path.glob(".bakeoff/*-ab.journal"))
            if begun and '"block"' in begun[0].read_text():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "go on with the same command and --resume" in errors
    [journal] = tmp_path.glob(".bakeoff/*-ab.journal")
    kept = len(journal.read_text().splitlines())

    again = command(*SELF, "--resume", "-o", "ab.json")
    done = subprocess.run(again, **how(tmp_path), **streams, timeout=200, check=False)
    assert done.returncode in (0, 2), done.stderr  # noise may leave every row open
    assert not journal.exists(), done.stderr
    assert kept > 10
    made = read(tmp_path / "ab.json").results
    it = Comparison(made)
    assert {"step", "host_cost", "compile"} <= {row.metric for row in it.times}
    assert it.moves == []
    assert it.failures == []
    assert {row.cell.entrant for row in it.times} == {"pure_jax", "equinox"}
    assert made.spent.processes > 4

    other = command(*SELF, "--margin", "0.03", "--resume")
    nothing = subprocess.run(other, **how(tmp_path), **streams, timeout=100, check=False)
    assert nothing.returncode == 2
    assert "there is nothing to resume" in nothing.stderr
