"""Bisect finds day, package and release in simulated worlds, and says when it cannot."""

import datetime
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest

from bench.cells import Cell
from bench.engine.process import Place
from bench.environments.builder import Builder, Environment
from bench.environments.spec import Spec, parse
from bench.environments.uv import UnsolvableError
from bench.estimates import Estimate
from bench.report.page import page
from bench.runfile import EnvironmentInfo, ResultsWithSamples
from bench.runfile.reader import read
from bench.track import search as searches
from bench.track.bisect import SearchRecord, document
from bench.track.search import LOOKS, Bisection, Looks
from common.errors import BakeoffError
from tests.commands import SCAN, done_for_real
from tests.environments.repository import repository

CELL = Cell("pure_jax", "pure", "toy", "cpu")
JAXLIB = {"0.5.0": "2025-01-10", "0.6.0": "2025-04-02", "0.7.0": "2025-07-20"}
RELEASES = {
    "jaxlib": JAXLIB,
    "jax": JAXLIB | {"0.7.1": "2025-08-20"},
    "flax": {"0.10.0": "2025-01-05", "0.11.0": "2025-07-20", "0.12.0": "2025-09-01"},
}


def ratio(log: float, error: float, pairs: int) -> Estimate:
    known = math.isfinite(error)
    return Estimate(
        cell=CELL,
        metric="compile",
        form="ratio",
        against="base",
        value=math.exp(log),
        standard_error=error if known else None,
        df=pairs - 1.0 if known else 0.0,
        workers=pairs,
    )


class World(Bisection):
    """What stacks there are, and how long something takes with each."""

    def __init__(
        self,
        seconds: Callable[[dict[str, str]], float],
        sd: float = 0.02,
        impossible: Sequence[str] = (),
    ) -> None:
        about: Any = Mock()  # nothing is built or measured
        record = SearchRecord(cell=CELL, metric="compile", good="", bad="")
        super().__init__(about, record, about, about, about, 0.0)
        self.seconds, self.sd, self.impossible = seconds, sd, impossible
        self.rng = np.random.default_rng(0)
        self.versions: dict[str, str] = {}
        """Of commits of a library under development."""

    def environment(self, spec: Spec) -> Environment:
        if spec.text in self.impossible:
            raise UnsolvableError("they do not go together")
        date = spec.date or datetime.date(2025, 12, 31)
        pins = {
            name: max((r for r, day in releases.items() if day <= str(date)), default="0")
            for name, releases in RELEASES.items()
        }
        pins |= {name: str(wanted).lstrip("=") for name, wanted in spec.pins}
        for package, source in spec.sources.items():
            commit = self.builder.state(source).commit
            if commit in self.impossible:
                raise UnsolvableError("no compiler")
            pins[package] = self.versions[commit]
        return Environment(Place(("python",)), EnvironmentInfo(spec=str(spec), pins=pins))

    def measured(self, base: Spec, new: Spec, decided: Callable[[Estimate], bool]) -> Estimate:
        base_seconds, new_seconds = (self.seconds(self.releases(spec)) for spec in (base, new))
        truth, data = math.log(new_seconds / base_seconds), list[float]()
        while len(data) < LOOKS[-1]:
            data.append(truth + self.rng.normal(0, self.sd))
            n = len(data)
            error = float(np.std(data, ddof=1)) / math.sqrt(n) if n > 1 else math.inf
            estimate = ratio(float(np.mean(data)), error, n)
            if decided(estimate):
                break
        return estimate


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def releases_between(package: str, low: str, high: str, python: str) -> list[str]:
        assert python.startswith("3.")  # a version, and no path
        return [release for release in RELEASES[package] if low < release < high]

    monkeypatch.setattr(searches, "releases_between", releases_between)


def search(world: World, good: str, bad: str) -> ResultsWithSamples:
    world.search(parse(good), parse(bad))
    return ResultsWithSamples(
        kind="bisect",
        arguments=["bisect", "--good", "a b"],
        estimates=world.estimates,
        search=msgspec.to_builtins(world.record),
    )


def jumps(name: str, release: str, factor: float = 2.0) -> Callable[[dict[str, str]], float]:
    """Return what takes another time from a release of a package on."""
    return lambda pins: factor if pins[name] >= release else 1.0


JAX_6, JAX_7, LIB_6 = jumps("jax", "0.6.0"), jumps("jax", "0.7.0", 0.5), jumps("jaxlib", "0.6.0")
FLAX = jumps("flax", "0.11.0", 1.5)


@pytest.mark.parametrize(
    ("seconds", "good", "bad", "result", "impossible"),
    [
        (JAX_6, "@2025-01-15", "@2025-07-01", "jax 0.5.0 0.6.0", ()),
        # two packages of one day: the one that does it
        (FLAX, "@2025-05-01", "@2025-12-01", "flax 0.10.0 0.11.0", ()),
        # it became faster
        (JAX_7, "jax==0.5.0,flax==0.10.0", "jax==0.7.1,flax==0.12.0", "jax 0.6.0 0.7.0", ()),
        # what is released together is pinned together, or the last jax would be blamed
        (LIB_6, "jax==0.5.0,jaxlib==0.5.0", "jax==0.7.0,jaxlib==0.7.0", "jax 0.5.0 0.6.0", ()),
        # unless its leader has not moved
        (LIB_6, "jax==0.7.0,jaxlib==0.5.0", "jax==0.7.0,jaxlib==0.7.0", "jaxlib 0.5.0 0.6.0", ()),
        # backwards
        (JAX_6, "@2025-07-01", "@2025-01-15", "jax 0.6.0 0.5.0", ()),
        # what cannot be built is passed over
        (
            *(JAX_6, "@2025-01-15", "@2025-07-01", "jax 0.5.0 0.6.0"),
            tuple(f"@2025-04-{day:02d}" for day in range(7, 12)),
        ),
        (
            *(jumps("jax", "0.7.1", 3.0), "jax==0.5.0", "jax==0.7.1", "jax 0.7.0 0.7.1"),
            ("jax==0.6.0", "jax==0.6.0,jaxlib==0.6.0"),
        ),
    ],
)
def test_package_and_release_are_found(
    seconds: Any, good: str, bad: str, result: str, impossible: tuple[str, ...]
) -> None:
    world = World(seconds, impossible=impossible)
    search(world, good, bad)
    record = world.record
    assert (record.stopped, record.moved_along) == (None, {})
    assert " ".join(map(str, (record.package, *record.releases))) == result


def halfway(pins: dict[str, str]) -> float:
    return {"0.5.0": 1.0, "0.6.0": math.sqrt(1.2)}.get(pins["jax"], 1.2)


def both(pins: dict[str, str]) -> float:
    return 2.0 if pins["jax"] >= "0.7.0" and pins["flax"] >= "0.11.0" else 1.0


ENDS = "@2025-01-15", "@2025-07-01"


@pytest.mark.parametrize(
    ("world", "good", "bad", "why"),
    [
        (World(lambda _: 1.0, sd=0.5), *ENDS, "cannot tell whether @2025-01-15 and @2025-07-01"),
        (World(lambda _: 1.0, sd=0.01), *ENDS, "differ by less than 2 % (-0."),
        (
            World(halfway, sd=0.05),
            *("jax==0.5.0", "jax==0.7.0", "jax==0.6.0,jaxlib==0.6.0 cannot be decided: +"),
        ),
        (World(both), "@2025-07-19", "@2025-07-20", "none of jax, flax does it alone"),
    ],
)
def test_what_cannot_be_decided_stops_it(world: World, good: str, bad: str, why: str) -> None:
    results = search(world, good, bad)
    stopped = world.record.stopped
    assert stopped is not None
    assert why in stopped
    assert ("it needs about" in stopped) is ("cannot" in stopped)
    assert document(results).headline == f"Stopped: {stopped}."
    assert "e+" not in stopped


def test_the_time_for_environments_is_not_of_the_budget() -> None:
    builder = Mock(environment=lambda *_: time.sleep(0.2))
    search = Bisection(Mock(), Mock(), builder, Mock(), Mock(), 1.0)
    search.environment(parse("jax==0.5.0"))
    assert search.spent < 0.1


def test_what_fails_on_the_way_keeps_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(JAX_6)
    first = world.measured(parse(ENDS[0]), parse(ENDS[1]), Looks(0.0))
    measured = Mock(side_effect=[first, BakeoffError("another run is measuring")])
    monkeypatch.setattr(World, "measured", measured)
    search(world, "jax==0.5.0", "jax==0.7.1")
    assert world.record.stopped == "another run is measuring"
    assert [step.phase for step in world.record.steps] == ["whole"]
    measured.side_effect = BakeoffError("another run")
    with pytest.raises(BakeoffError, match="another run"):  # nothing is known yet
        search(World(JAX_6), "jax==0.5.0", "jax==0.7.1")


def test_the_commits_of_a_library_are_searched(tmp_path: Path) -> None:
    """The change may go either way, and a commit that does not build is passed over."""
    commits = repository(tmp_path / "optax", "optax", ["1", "2", "broken", "4", "5"])
    versions = {commit: f"{n}+{commit[:10]}" for n, commit in enumerate(commits, 1)}
    old, new = (f"jax==0.7.0,optax @ {tmp_path}/optax@{commit}" for commit in commits[::4])
    for good, bad, factor in ((old, new, 2.0), (new, old, 0.5)):
        world = World(jumps("optax", "4", factor), impossible=commits[2:3])
        world.versions, world.builder = versions, Builder(tmp_path / "environments")
        search(world, good, bad)
        assert world.record.stopped is None
        releases = [f"2+{commits[1][:10]}", f"4+{commits[3][:10]}"]
        assert sorted(map(str, world.record.releases)) == releases
        assert world.record.releases[good == new] == releases[0]


def test_the_document_says_what_was_found_and_shows_every_step() -> None:
    world = World(FLAX)
    results = search(world, "@2025-05-01", "@2025-12-01")
    assert results.estimates[-1].value == pytest.approx(1.5, rel=0.1)
    results.search["moved_along"] = {"chex": ("0.1", None)}
    kept = msgspec.json.decode(msgspec.json.encode(results), type=ResultsWithSamples)
    made = document(kept)
    assert made.headline == (
        "Compile of pure_jax/pure at toy changed with flax: from 0.10.0 to 0.11.0."
    )
    result, steps = made.sections
    assert result.lines[0].startswith("@2025-07-19,flax==0.11.0 relative to @2025-07-19: +")
    assert result.lines[1] == "These had to change with it: chex 0.1 → none."
    [table] = steps.tables
    assert [row.cells[0] for row in table.rows] == [step.phase for step in world.record.steps]
    assert table.rows[-1].cells[0] == "confirm"
    assert [row.cells[3] for row in table.rows] == kept.estimates
    assert "bakeoff bisect --good &#39;a b&#39;" in page(made)


@pytest.mark.parametrize("at_once", [1, 5])
def test_a_step_is_decided_wrongly_as_seldom_as_is_said(at_once: int) -> None:
    """The truth lies on the boundary: whatever is decided is wrong."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(2000):
        data = rng.normal(0.3, 0.02, LOOKS[-1])
        looks = Looks(0.3)
        for n in range(2, data.size + 1, at_once):
            error = float(np.std(data[:n], ddof=1)) / math.sqrt(n)
            if looks(ratio(float(data[:n].mean()), error, n)):
                wrong += 1
                break
    assert wrong / 2000 < 0.017  # 1 %, and three standard errors


@pytest.mark.slow
@pytest.mark.usefixtures("needs_network")
def test_real_releases_are_searched_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "scan.py").write_text(SCAN)
    given = "bisect --metric step --step scan.py --good jax==0.7.0 --bad jax==0.7.1"
    done_for_real(tmp_path, f"{given} --budget 400 -o why.json")
    run = read(tmp_path / "why.json")
    record = msgspec.convert(run.results.search, SearchRecord)
    assert (record.package, record.releases) == ("jax", ("0.7.0", "0.7.1"))
    assert run.results.estimates[0].value < 0.7
    assert str(record.cell) == "pure_jax-pure-scan-cpu"
    assert run.samples
