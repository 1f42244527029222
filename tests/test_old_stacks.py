"""Entrants under stacks of other days: each runs, or it is said why it cannot."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import impls
from bench.cells import BASELINE, CONTROL, Offer
from bench.engine.actions import Action
from bench.engine.answers import typed
from bench.engine.processes import Worker, ask_once
from bench.environments.builder import Builder
from bench.environments.spec import parse
from bench.environments.uv import NetworkError, UnsolvableError
from bench.metrics import COLD
from common.compatibility import release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.engine.processes import Place

DAYS = {
    "2024-06-01": {"cached_partial": "0.8.4", "jit_partial": "0.8.4"},
    "2025-06-01": {"jit_partial": "0.10.6"},
}
"""Styles of NNX that there were not yet on a day, and flax's release then."""
COUNTED = ("equinox/filter_jit", "flax_nnx/jit", "pure_jax/pure")
OWN_STAGES = ("equinox", "flax_nnx")
"""Entrants whose own styles have other stages than what `jax.jit` returns."""
SILENCE = 60.0
AT = {"workload": "toy", "backend": "cpu"}


class Stack(NamedTuple):
    """The stack of a day."""

    day: str
    place: Place
    offer: Offer
    missing: dict[str, str]
    """Styles of NNX that it cannot have, and flax's release."""

    @property
    def arms(self) -> list[tuple[str, str]]:
        own = [(name, style) for name, styles in self.offer.styles.items() for style in styles]
        return [BASELINE, CONTROL, *(arm for arm in own if arm != BASELINE)]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Return what builds stacks, where they are kept if there is such a folder."""
    cache = os.environ.get("BAKEOFF_CACHE") or tmp_path_factory.mktemp("cache")
    return Builder(Path(cache) / "environments")


CHOSEN = list(DAYS) if os.environ.get("BAKEOFF_CACHE") else list(DAYS)[:1]
"""Where nothing is kept, a stack is built anew in each run of the tests: one has to do."""


@pytest.fixture(scope="module", params=CHOSEN)
def stack(request: pytest.FixtureRequest, builder: Builder) -> Stack:
    """Return the stack of a day, as uv builds it."""
    try:
        place = builder.environment(parse(f"@{request.param}"), ["3.12"]).place
    except (NetworkError, UnsolvableError) as error:
        pytest.skip(str(error))
    found = ask_once({"do": "describe", "entrants": [], "outside": {}}, place, SILENCE)
    return Stack(request.param, place, Offer(**found), DAYS[request.param])


class Asked(NamedTuple):
    """A warm worker."""

    worker: Worker

    def __call__(self, do: str, **more: Any) -> dict[str, Any]:
        return dict(self.worker.ask({"do": do, **more}))


@pytest.fixture
def ask(stack: Stack) -> Iterator[Asked]:
    """Return what asks a worker under that stack, which has loaded all arms."""
    with Worker(stack.place, SILENCE) as worker:
        worker.start()
        asked = Asked(worker)
        loaded = asked("load", arms=stack.arms, outside={}, cache=None, seed=0)
        assert loaded == {"failures": {}, "notes": []}
        yield asked


@pytest.mark.slow
def test_every_entrant_is_there_and_what_it_lacks_is_said(stack: Stack) -> None:
    today = {name: list(impls.load(name).styles) for name in impls.usual()}
    assert stack.offer.problems == {}
    assert stack.offer.versions["python"].startswith("3.12.")
    assert stack.offer.versions["flax"] in stack.missing.values()
    reasons = {
        style: f"needs nnx.{style}, which flax {version} does not have"
        for style, version in stack.missing.items()
    }
    assert stack.offer.missing == {"flax_nnx": reasons}
    left = {name: [s for s in styles if s not in reasons] for name, styles in today.items()}
    assert stack.offer.styles == left


@pytest.mark.slow
def test_every_style_is_proven_and_timed(stack: Stack, ask: Asked) -> None:
    """Counting costs the most, for it clears what was compiled: so some are asked."""
    arms = ["/".join(arm) for arm in stack.arms]
    counted = {arm: ask("count", arm=arm, **AT) for arm in COUNTED}
    assert {arm for arm, found in counted.items() if "failure" in found} == set()
    counts = {arm: found["exact"] for arm, found in counted.items()}
    assert all(found["python_calls"] for found in counts.values())
    assert all(found["compilations_warm"] == 0 for found in counts.values())

    proven = {arm: ask("prove", arm=arm, **AT) for arm in arms}
    assert {arm for arm, found in proven.items() if "failure" in found} == set()
    programs = {arm: found["proof"]["program"] for arm, found in proven.items()}
    for entrant in ("control", "flax_linen", "flax_nnx", "haiku"):
        assert programs[f"{entrant}/pure"] == programs["pure_jax/pure"]
    more = Counter(programs["flax_nnx/jit"]["operations"])
    more.subtract(programs["pure_jax/pure"]["operations"])
    assert +more == {"stablehlo.add": 1, "stablehlo.constant": 1}  # NNX's optimiser counts
    assert all(program["flops"] > 0 for program in programs.values())

    for kind in ("step", "host_cost"):
        block = ask("block", kind=kind, arms=arms, rounds=1, seed=0, **AT)
        typed(Action("block", 1, arms=tuple(arms), kind=kind, rounds=1), block)
        assert block["failures"] == {}
        assert all(set(seconds) == set(arms) for seconds in block["seconds"].values())


@pytest.mark.slow
def test_every_entrant_is_measured_cold(stack: Stack) -> None:
    """Each by the last of its styles, the library's own; at least those whose stages may differ."""
    for entrant in stack.offer.styles if "BAKEOFF_CACHE" in os.environ else OWN_STAGES:
        style = stack.offer.styles[entrant][-1]
        command = {"do": "cold", "entrant": entrant, "style": style, **AT, "outside": {}}
        found = ask_once(command, stack.place, SILENCE)
        assert set(found["values"]) == set(COLD), entrant
        assert all(found["values"].values())


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("0.12.1", (0, 12, 1)), ("0.12.0.1", (0, 12, 0, 1)), ("0.10.0rc1", (0, 10, 0)), ("x", ())],
)
def test_a_release_is_the_numbers_that_its_version_begins_with(
    version: str, numbers: tuple[int, ...]
) -> None:
    assert release(version) == numbers
