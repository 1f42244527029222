"""Bisect finds day, package and release in simulated worlds, and says when it cannot."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.compare import bisect as bisects
from bench.compare.bisect import Looks, Search, interval
from bench.compare.releases import moved
from bench.engine.processes import Place
from bench.environments.builder import Environment
from bench.environments.spec import parse
from bench.environments.uv import UnsolvableError
from bench.stats.ratios import Estimate, corrected
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.environments.spec import Spec

RELEASES = {
    "jaxlib": {"0.5.0": "2025-01-10", "0.6.0": "2025-04-02", "0.7.0": "2025-07-20"},
    "jax": {
        "0.5.0": "2025-01-10",
        "0.6.0": "2025-04-02",
        "0.7.0": "2025-07-20",
        "0.7.1": "2025-08-20",
    },
    "flax": {"0.10.0": "2025-01-05", "0.11.0": "2025-07-20", "0.12.0": "2025-09-01"},
}


@dataclass
class World:
    """What stacks there are, and how long something takes with each."""

    seconds: Callable[[dict[str, str]], float]
    sd: float = 0.02
    trials: list[tuple[str, str]] = field(default_factory=list)
    impossible: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def environment(self, spec: Spec) -> Environment:
        if spec.text in self.impossible:
            raise UnsolvableError("they do not go together")
        date = spec.date or datetime.date(2025, 12, 31)
        pins = {
            name: max((r for r, day in releases.items() if day <= str(date)), default="0")
            for name, releases in RELEASES.items()
        }
        pins |= {name: version.lstrip("=") for name, version in spec.pins}
        return Environment(spec, Place(("python",)), tuple(f"{n}=={v}" for n, v in pins.items()))

    def time(self, environment: Environment) -> float:
        return self.seconds(dict(pin.split("==") for pin in environment.pins))

    def trial(
        self, base: Environment, new: Environment, decided: Callable[[Estimate], bool]
    ) -> tuple[Estimate | None, float, str]:
        self.trials.append((str(base.spec), str(new.spec)))
        truth = math.log(self.time(new) / self.time(base))
        data: list[float] = []
        while len(data) < bisects.LOOKS[-1]:
            data.append(truth + self.rng.normal(0, self.sd))
            n = len(data)
            error = np.std(data, ddof=1) / math.sqrt(n) if n > 1 else math.inf
            estimate = corrected(float(np.mean(data)), float(error), float(n - 1), n, n)
            if decided(estimate):
                break
        return estimate, 1.0, ""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def between(name: str, low: str, high: str, interpreter: str) -> list[str]:
        return [release for release in RELEASES[name] if low < release < high]

    monkeypatch.setattr(bisects, "between", between)


def search(world: World, good: str, bad: str) -> bisects.Found:
    return Search(world.environment, world.trial, lambda _: None).run(parse(good), parse(bad))


def test_the_day_and_its_one_package_are_found() -> None:
    world = World(lambda pins: 2.0 if pins["jax"] >= "0.6.0" else 1.0)
    found = search(world, "@2025-01-15", "@2025-07-01")
    assert found.stopped is None
    assert (found.good.date, found.bad.date) == (
        datetime.date(2025, 4, 1),
        datetime.date(2025, 4, 2),
    )
    assert (found.package, found.releases) == ("jax", ("0.5.0", "0.6.0"))
    assert [step.phase for step in found.steps] == ["whole"]  # days of one stack are not measured
    assert found.steps[-1].ratio == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("culprit", ["jax", "flax"])
def test_of_two_packages_of_one_day_the_one_that_does_it_is_named(culprit: str) -> None:
    limit = {"jax": "0.7.0", "flax": "0.11.0"}[culprit]
    world = World(lambda pins: 1.5 if pins[culprit] >= limit else 1.0)
    found = search(world, "@2025-05-01", "@2025-12-01")
    assert (found.package, found.releases[1]) == (culprit, limit)
    assert found.steps[-1].phase == "confirm"
    assert found.steps[-1].ratio == pytest.approx(1.5, rel=0.1)
    assert found.along == {}


def test_pins_go_to_the_package_and_to_the_release_between() -> None:
    world = World(lambda pins: 0.5 if pins["jax"] >= "0.7.0" else 1.0)  # it became faster
    found = search(world, "jax==0.5.0,flax==0.10.0", "jax==0.7.1,flax==0.12.0")
    assert (found.package, found.releases) == ("jax", ("0.6.0", "0.7.0"))


def test_what_is_released_together_is_pinned_together() -> None:
    """Else uv would keep the old jaxlib under each jax, and the last jax would be blamed."""
    world = World(lambda pins: 2.0 if pins["jaxlib"] >= "0.6.0" else 1.0)
    found = search(world, "jax==0.5.0,jaxlib==0.5.0", "jax==0.7.0,jaxlib==0.7.0")
    assert (found.package, found.releases) == ("jax", ("0.5.0", "0.6.0"))


def test_a_package_that_moved_without_its_leader_is_searched_itself() -> None:
    world = World(lambda pins: 2.0 if pins["jaxlib"] >= "0.6.0" else 1.0)
    found = search(world, "jax==0.7.0,jaxlib==0.5.0", "jax==0.7.0,jaxlib==0.7.0")
    assert (found.package, found.releases) == ("jaxlib", ("0.5.0", "0.6.0"))


def test_a_day_that_cannot_be_built_is_passed_over() -> None:
    world = World(lambda pins: 2.0 if pins["jax"] >= "0.6.0" else 1.0)
    world.impossible = tuple(f"@2025-04-{day:02d}" for day in range(7, 12))
    found = search(world, "@2025-01-15", "@2025-07-01")
    assert (found.package, found.releases[1]) == ("jax", "0.6.0")


def test_days_that_cannot_be_built_at_all_stop_it() -> None:
    world = World(lambda pins: 2.0 if pins["jax"] >= "0.6.0" else 1.0)
    world.impossible = tuple(f"@2025-04-{day:02d}" for day in range(2, 4))
    found = search(world, "@2025-04-01", "@2025-04-04")
    assert found.stopped == "no stack between @2025-04-01 and @2025-04-04 can be built"


def test_what_fails_on_the_way_keeps_what_is_known() -> None:
    world = World(lambda pins: 2.0 if pins["jax"] >= "0.6.0" else 1.0)
    whole = world.trial

    def trial(base: Any, new: Any, decided: Any) -> Any:
        if world.trials:
            raise BakeoffError("another run is measuring")
        return whole(base, new, decided)

    found = Search(world.environment, trial, lambda _: None).run(
        parse("jax==0.5.0"), parse("jax==0.7.1")
    )
    assert found.stopped == "another run is measuring"
    assert [step.phase for step in found.steps] == ["whole"]


def test_a_release_that_cannot_be_had_is_passed_over() -> None:
    world = World(lambda pins: 3.0 if pins["jax"] >= "0.7.1" else 1.0)
    world.impossible = ("jax==0.6.0", "jax==0.6.0,jaxlib==0.6.0")
    found = search(world, "jax==0.5.0", "jax==0.7.1")
    assert (found.package, found.releases) == ("jax", ("0.7.0", "0.7.1"))


def test_two_that_are_the_same_are_nothing_to_search_between() -> None:
    found = search(World(lambda _: 1.0), "@2025-01-15", "@2025-07-01")
    assert found.stopped is not None
    assert "are not told apart" in found.stopped
    assert [step.conclusion for step in found.steps] == ["undecided"]


def test_it_stops_where_a_step_cannot_be_decided() -> None:
    def halfway(pins: dict[str, str]) -> float:
        return {"0.5.0": 1.0, "0.6.0": math.sqrt(1.2)}.get(pins["jax"], 1.2)

    found = search(World(halfway, sd=0.05), "jax==0.5.0", "jax==0.7.0")
    assert found.stopped is not None
    assert "jax==0.6.0,jaxlib==0.6.0 cannot be decided" in found.stopped


def test_a_change_that_takes_two_packages_is_said_to() -> None:
    def both(pins: dict[str, str]) -> float:
        return 2.0 if pins["jax"] >= "0.7.0" and pins["flax"] >= "0.11.0" else 1.0

    found = search(World(both), "@2025-07-19", "@2025-07-20")
    assert found.stopped is not None
    assert "none of jax, flax does it alone" in found.stopped


def test_what_cannot_be_measured_stops_it_with_the_reason() -> None:
    world = World(lambda _: 1.0)
    searching = Search(world.environment, lambda *_: (None, 0.0, "needs nnx.jit"), lambda _: None)
    found = searching.run(parse("@2025-01-15"), parse("@2025-07-01"))
    assert found.stopped == "@2025-07-01 cannot be measured beside @2025-01-15: needs nnx.jit"


@pytest.mark.parametrize("at_once", [1, 2, 5, 8])
def test_a_step_is_decided_wrongly_as_seldom_as_is_said(at_once: int) -> None:
    """The truth lies on the boundary: whatever is decided is wrong."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(2000):
        data = rng.normal(0.3, 0.02, bisects.LOOKS[-1])
        looks = Looks(0.3)
        for n in range(2, data.size + 1, at_once):
            error = float(np.std(data[:n], ddof=1)) / math.sqrt(n)
            if looks(corrected(float(data[:n].mean()), error, n - 1.0, n, n)):
                wrong += 1
                break
    assert wrong / 2000 < 0.017  # 1 %, and three standard errors


@pytest.mark.parametrize("at_once", [1, 2, 5, 8])
def test_a_look_is_taken_however_many_pairs_come_at_a_time(at_once: int) -> None:
    looks = Looks(0.0)
    clear = [looks(corrected(0.5, 0.01, 9.0, n, n)) for n in range(at_once, 31, at_once)]
    assert any(clear[: math.ceil(3 / at_once)])  # the first look, at three pairs
    assert 1 < sum(clear) <= len(bisects.LOOKS)


def test_nothing_known_is_an_endless_interval() -> None:
    assert interval(corrected(0.1, math.inf, 0, 1, 1)) == (-math.inf, math.inf)


def test_packages_that_moved() -> None:
    assert moved(["a==1", "b==1", "c==1"], ["a==1", "b==2", "d==1"]) == {
        "b": ("1", "2"),
        "c": ("1", None),
        "d": (None, "1"),
    }
