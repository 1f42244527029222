"""Workers in other environments: entrants that have their own, and the stacks of other days.

Each style is proven equal there and timed, or it is said why it cannot be.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import impls
from bench.cells import BASELINE, CONTROL
from bench.engine.actions import Action
from bench.engine.answers import typed
from bench.engine.process import Place, Worker, ask_once
from bench.environments.builder import Builder
from bench.environments.offers import Offer, offer, offers
from bench.environments.spec import parse
from bench.environments.uv import NetworkError, UnsolvableError
from bench.metrics import COLD
from bench.worker.settings import affinity
from common.compatibility import release
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE = os.environ.get("BAKEOFF_CACHE")
"""Where nothing is kept, environments are built anew in each run of the tests, so only some are."""
APART = [name for name in impls.names() if name not in impls.here()]
LIGHT = ("keras", "penzai")
"""Built for these tests where they are not there; the others are gigabytes."""
DAYS = {
    "@2024-06-01": ("0.8.4", {"cached_partial", "jit_partial", "jit_tree", "jax_jit", "flat"}),
    "@2025-06-01": ("0.10.6", {"jit_partial", "jit_tree", "jax_jit", "flat"}),
}
"""Flax's release on a day, and styles of NNX that it does not have."""
CHOSEN = list(DAYS) if CACHE else list(DAYS)[:1]
COUNTED = ("equinox/filter_jit", "flax_nnx/jit", "pure_jax/pure")
"""On a day; counting costs the most, for it clears what was compiled."""
OWN_STAGES = ("equinox", "flax_nnx")
"""Entrants whose own styles have other stages than what `jax.jit` returns."""
SILENCE = 180.0
AT = {"workload": "toy", "backend": "cpu"}

each_day = pytest.mark.parametrize("there", CHOSEN, indirect=True)
each_apart = pytest.mark.parametrize("there", APART, indirect=True)
each_stack = pytest.mark.parametrize("there", [*APART, *CHOSEN], indirect=True)


class There(NamedTuple):
    """An environment, by its entrant or its day, and what is measured in it."""

    name: str
    place: Place
    offer: Offer

    @property
    def arms(self) -> list[str]:
        own = [f"{name}/{style}" for name, styles in self.offer.styles.items() for style in styles]
        if self.name in APART:
            own = [f"{self.name}/{style}" for style in self.offer.styles[self.name]]
        beside = ["/".join(BASELINE), "/".join(CONTROL)]
        return [*beside, *(arm for arm in own if arm not in beside)]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(Path(CACHE or tmp_path_factory.mktemp("cache")) / "environments")


@pytest.fixture(scope="module")
def there(request: pytest.FixtureRequest, builder: Builder) -> There:
    name = request.param
    if name in DAYS:
        try:
            place = builder.environment(parse(name), ["3.12"]).place
        except (NetworkError, UnsolvableError) as error:
            pytest.skip(str(error))
        return There(name, place, offer((), {}, SILENCE, place))
    if Builder().folder_of(name) is not None:
        builder = Builder()
    elif name in LIGHT:
        request.getfixturevalue("needs_network")
    else:
        pytest.skip(f"the environment of {name} is not built: bakeoff entrants --build {name}")
    offered, places = offers((name,), {}, SILENCE, builder)
    assert offered.problems == {}
    return There(name, places[name], offered)


def answers(ask: Callable[..., dict[str, Any]], do: str, arms: list[str]) -> dict[str, Any]:
    """Return what a worker says of arms; none may fail."""
    answered = {arm: ask(do, arm=arm, **AT) for arm in arms}
    assert {arm: answer for arm, answer in answered.items() if "failure" in answer} == {}
    return answered


def by_metric(answer: dict[str, Any]) -> dict[str, float]:
    """Return the values of an answer's samples, by metric."""
    return {metric: value for _, metric, value, *_ in answer["samples"]}


@pytest.mark.slow
@each_stack
def test_every_style_is_proven_and_timed(there: There) -> None:
    arms, jax = there.arms, there.name in DAYS or impls.declared(there.name).jax
    with Worker(there.place, SILENCE) as worker:
        worker.start()

        def ask(do: str, **more: Any) -> dict[str, Any]:
            return dict(worker.ask({"do": do, **more}))

        loaded = ask("load", arms=arms, outside={}, cache=None, seed=0)
        assert loaded == {"failures": {}, "notes": []}
        counted = list(COUNTED) if there.name in DAYS else arms[2:]
        for answer in answers(ask, "count", counted).values():
            counts = by_metric(answer)
            assert counts["python_calls"]
            assert counts["compilations_warm"] == 0
        proofs = answers(ask, "prove", arms)
        for kind in ("step", "host_cost"):
            block = ask("block", kind=kind, arms=arms, rounds=1, seed=0, **AT)
            timed = typed(Action("block", 1, arms=tuple(arms), kind=kind, rounds=1), block)
            assert timed.failures == {}
            assert {sample.arm for sample in timed.samples} == set(arms)
        assert 0 < by_metric(ask("train", arm=arms[2], **AT))["final_loss"] < 1.5
    for arm, answer in proofs.items():
        proof, facts = answer["proof"], by_metric(answer)
        assert proof["loss"] <= LOSS_TOLERANCE
        assert proof["gradient"] <= GRADIENT_TOLERANCE
        assert proof["trajectory"] <= TRAJECTORY_TOLERANCE
        assert facts.get("flops", 0) > 0 if jax or arm in arms[:2] else "flops" not in facts
        cores = len(affinity() or ()) if arm == "torch/eager_all_cores" else 1
        assert proof["settings"] == ({"threads": cores} if arm.startswith("torch/") else {})
    if there.name in DAYS:
        for entrant in ("control", "flax_linen", "flax_nnx", "haiku"):
            assert proofs[f"{entrant}/pure"]["proof"]["same_program_as_baseline"]
        more = proofs["flax_nnx/jit"]["proof"]["operations_beside_baseline"]
        added = {kind: count for kind, count in more.items() if count > 0}
        assert added == {"stablehlo.add": 1, "stablehlo.constant": 1}  # NNX's optimiser counts


@pytest.mark.slow
@each_stack
def test_every_entrant_is_measured_cold(there: There) -> None:
    """Each by the last of its styles, the library's own; on a day, those with stages of theirs."""
    for entrant in OWN_STAGES if there.name in DAYS else (there.name,):
        jax, styles = impls.declared(entrant).jax, there.offer.styles[entrant]
        command = {"do": "cold", "entrant": entrant, "style": styles[-1 if jax else 0], **AT}
        answer = ask_once(command | {"outside": {}}, there.place, SILENCE)
        assert set(by_metric(answer)) | {*answer["missing"]} == set(COLD), entrant
        assert {*answer["missing"]} == (set() if jax else {"trace", "lower", "compile"})


@pytest.mark.slow
@each_day
def test_every_entrant_is_there_and_what_it_lacks_is_said(there: There) -> None:
    flax, missing = DAYS[there.name]
    assert there.offer.problems == {}
    assert there.offer.versions["python"].startswith("3.12.")
    assert there.offer.versions["flax"] == flax
    reasons = there.offer.missing["flax_nnx"]
    assert set(reasons) == missing
    for why in reasons.values():
        assert why.startswith("needs ")
        assert why.endswith(f", which flax {flax} does not have")
    today = {name: list(impls.load(name).styles) for name in impls.usual()}
    left = today | {"flax_nnx": [s for s in today["flax_nnx"] if s not in reasons]}
    assert there.offer.styles == left


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("0.12.1", (0, 12, 1)), ("0.12.0.1", (0, 12, 0, 1)), ("0.10.0rc1", (0, 10, 0)), ("x", ())],
)
def test_a_release_is_the_numbers_that_its_version_begins_with(
    version: str, numbers: tuple[int, ...]
) -> None:
    assert release(version) == numbers
