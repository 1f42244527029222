"""Entrants with environments of their own, each proven equal in its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import impls
from bench.cells import BASELINE, CONTROL
from bench.engine.actions import Action
from bench.engine.answers import typed
from bench.engine.processes import Worker, ask_once
from bench.environments.builder import Builder
from bench.environments.offers import offers
from bench.metrics import COLD
from bench.worker.settings import affinity
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE
from tests.over_devices import DEVICES, in_process

if TYPE_CHECKING:
    from bench.cells import Offer
    from bench.engine.processes import Place

pytestmark = pytest.mark.slow

APART = [name for name in impls.names() if name not in impls.here()]
LIGHT = ("keras", "penzai")
"""Built for these tests where they are not there; the others are gigabytes."""
SILENCE = 180.0
AT = {"workload": "toy", "backend": "cpu"}


@pytest.fixture(scope="module", params=APART)
def there(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Offer, Place]:
    """Return an entrant, what it offers and where it runs."""
    name, builder = request.param, Builder()
    if builder.folder_of(name) is None:
        if name not in LIGHT:
            pytest.skip(f"the environment of {name} is not built: bakeoff entrants --build {name}")
        request.getfixturevalue("needs_network")
        kept = os.environ.get("BAKEOFF_CACHE") or tmp_path_factory.mktemp("cache")
        builder = Builder(Path(kept) / "environments")
    found, places = offers((name,), {}, SILENCE, builder)
    assert found.problems == {}
    return name, found, places[name]


def test_proven_and_timed_beside_the_baseline(there: tuple[str, Offer, Place]) -> None:
    name, found, place = there
    arms = [BASELINE, CONTROL, *((name, style) for style in found.styles[name])]
    names = ["/".join(arm) for arm in arms]
    with Worker(place, SILENCE) as worker:
        worker.start()

        def ask(do: str, **more: Any) -> dict[str, Any]:
            return worker.ask({"do": do, **more})

        loaded = ask("load", arms=arms, outside={}, cache=None, seed=0)
        assert loaded == {"failures": {}, "notes": []}
        counts = {arm: ask("count", arm=arm, **AT) for arm in names[2:]}
        assert {arm: c for arm, c in counts.items() if "failure" in c} == {}
        warm = {arm: found["exact"]["compilations_warm"] for arm, found in counts.items()}
        assert warm == dict.fromkeys(names[2:], 0)
        proofs = {arm: ask("prove", arm=arm, **AT) for arm in names}
        assert {arm: p for arm, p in proofs.items() if "failure" in p} == {}
        for arm in names[2:]:
            proof = proofs[arm]["proof"]
            assert proof["loss"] <= LOSS_TOLERANCE
            assert proof["gradient"] <= GRADIENT_TOLERANCE
            assert proof["trajectory"] <= TRAJECTORY_TOLERANCE
            assert (proof["program"] is not None) == impls.declared(name).jax
            threads = {"torch/eager_all_cores": len(affinity() or ())}.get(arm, 1)
            assert proof["settings"] == ({"threads": threads} if name == "torch" else {})
        if impls.declared(name).jax:
            assert proofs[f"{name}/pure"]["exact"]["flops"] > 0
        block = ask("block", kind="step", arms=names, rounds=1, seed=0, **AT)
        typed(Action("block", 1, arms=tuple(names), kind="step", rounds=1), block)
        assert set(block["seconds"]["step"]) == set(names)
        trained = ask("train", arm=names[2], **AT)
        assert 0 < trained["training"]["same_weights"] < 1.5


def test_measured_cold(there: tuple[str, Offer, Place]) -> None:
    name, found, place = there
    style = found.styles[name][-1 if impls.declared(name).jax else 0]
    command = {"do": "cold", "entrant": name, "style": style, **AT, "outside": {}}
    values = ask_once(command, place, SILENCE)["values"]
    assert set(values) == set(COLD)
    unknown = {metric for metric, value in values.items() if not value}
    assert unknown == (set() if impls.declared(name).jax else {"trace", "lower", "compile"})


def test_losses_over_devices_are_those_of_one(there: tuple[str, Offer, Place]) -> None:
    name, found, place = there
    if not impls.declared(name).jax:
        pytest.skip("not JAX's: it knows of no mesh")
    asked = [f"{style}@{DEVICES}" for style in found.styles[name]]
    for over, row in in_process(name, asked, place.command[0], **place.variables).items():
        assert row["away"] <= 1e-5, over
        own_loss = over.startswith("train_step")  # Keras's trainer has one
        assert bool(row["at_each_character"]) == own_loss, over
