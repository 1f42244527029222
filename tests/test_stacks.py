"""Workers in other environments: entrants that have their own, and the stacks of other days.

Each style is proven equal there and timed, or it is said why it cannot be.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import impls
from bench.cells import BASELINE, CONTROL
from bench.engine.actions import Action, parse_answer
from bench.engine.process import Interpreter, Worker, ask_once
from bench.environments import ask_environment
from bench.environments.builder import Builder
from bench.environments.spec import parse
from bench.metrics import COLD, STAGES
from bench.offer import Offer
from bench.worker.protocol import Count, Load, MeasureCold, Prove, TimeBlock, Train
from common.config import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE
from common.errors import BakeoffError

APART = [name for name in impls.names() if name not in impls.list_shared()]
LIGHT = ("keras", "penzai")
"""Built for these tests where they are not there; the others are gigabytes."""
DAY, FLAX = "@2024-06-01", "0.8.4"
"""A day, and Flax's release on it."""
MISSING = {"cached_partial", "jit_partial", "jit_tree", "jax_jit", "scan"}
"""Styles of NNX that this release does not have."""
COUNTED = ("equinox/filter_jit", "flax_nnx/jit", "pure_jax/pure")
"""On a day; counting costs the most, for it clears what was compiled."""
OWN_STAGES = ("equinox", "flax_nnx")
"""Entrants whose own styles have other stages than what `jax.jit` returns."""
AT = "toy", "cpu"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("there", [*APART, DAY], indirect=True),
]


class There(NamedTuple):
    """An environment, by its entrant or its day, and what is measured in it."""

    name: str
    interpreter: Interpreter
    offer: Offer

    @property
    def arms(self) -> list[str]:
        styles = self.offer.styles
        entrants = [self.name] if self.name in APART else styles
        own = [f"{name}/{style}" for name in entrants for style in styles[name]]
        return list(dict.fromkeys(["/".join(BASELINE), "/".join(CONTROL), *own]))


@pytest.fixture(scope="module")
def there(request: pytest.FixtureRequest) -> There:
    name, builder = request.param, Builder()
    if name == DAY:
        try:
            environment = builder.build(parse(name), ["3.12"])
        except BakeoffError as error:
            pytest.skip(str(error))
        side = ask_environment(environment, (), {})
        return There(name, side.interpreter, side.offer)
    if builder.find_folder(name) is None:
        if name not in LIGHT:
            pytest.skip(f"the environment of {name} is not built: bakeoff entrants --build {name}")
        request.getfixturevalue("needs_network")
    side = ask_environment(builder.build_entrant(name), (name,), {})
    return There(name, side.interpreter, side.offer)


def by_metric(answer: dict[str, Any]) -> dict[str, float]:
    """Return the values of an answer's samples, by metric; it may not be a failure."""
    assert "failure" not in answer
    return {metric: value for _, metric, value, *_ in answer["samples"]}


def test_every_entrant_is_there_and_measured_cold(there: There) -> None:
    """Its last style is measured, the library's own; on a day, entrants with stages of theirs."""
    assert there.offer.problems == {}
    assert there.offer.uncached == 0, "it has bytecode of all modules"
    if there.name == DAY:
        assert there.offer.versions["flax"] == FLAX
        reasons = there.offer.missing["flax_nnx"]
        assert set(reasons) == MISSING
        for why in reasons.values():
            assert re.fullmatch(f"needs .*, which flax {FLAX} does not have", why)
        today = {name: list(impls.load(name).styles) for name in impls.list_usual()}
        today["flax_nnx"] = [style for style in today["flax_nnx"] if style not in MISSING]
        assert there.offer.styles == today
    for entrant in OWN_STAGES if there.name == DAY else (there.name,):
        jax, styles = impls.read_declaration(entrant).jax, there.offer.styles[entrant]
        command = MeasureCold(*AT, f"{entrant}/{styles[-1 if jax else 0]}")
        answer = ask_once(command, there.interpreter)
        assert set(by_metric(answer)) == set(COLD), entrant


def test_every_style_is_proven_and_timed(there: There, tmp_path: Path) -> None:
    arms, jax = there.arms, there.name == DAY or impls.read_declaration(there.name).jax
    with Worker(there.interpreter) as worker:
        worker.start()

        def time_block(kind: str, arms: list[str]) -> None:
            command = TimeBlock(*AT, kind, arms, rounds=1, seed=0)
            timed = parse_answer(Action(1, command=command), worker.ask(command))
            assert timed.failures == {}
            assert {str(sample.cell.arm) for sample in timed.samples} == {*arms}

        # Programs that are the same, as the `pure` ones are, are compiled once.
        loaded = worker.ask(Load(arms, seed=0, cache=str(tmp_path)))
        assert loaded == {"failures": {}, "spoiled": False}
        time_block(STAGES, arms if jax else arms[:2])
        for arm in COUNTED if there.name == DAY else arms[2:]:
            counts = by_metric(worker.ask(Count(*AT, arm)))
            assert counts["python_calls"]
            assert counts["compilations_warm"] == 0
        proofs = {arm: worker.ask(Prove(*AT, arm)) for arm in arms}
        for kind in ("step", "host_cost"):
            time_block(kind, arms)
        assert 0 < by_metric(worker.ask(Train(*AT, arms[2])))["final_loss"] < 1.5
    for arm, answer in proofs.items():
        facts, proof = by_metric(answer), answer["proof"]
        assert proof["loss"] <= LOSS_TOLERANCE
        assert proof["gradient"] <= GRADIENT_TOLERANCE
        assert proof["trajectory"] <= TRAJECTORY_TOLERANCE
        assert facts.get("flops", 0) > 0 if jax or arm in arms[:2] else "flops" not in facts
        assert proof["settings"] == ({"threads": 1} if arm.startswith("torch/") else {})
    if there.name == DAY:
        for entrant in ("control", "flax_linen", "flax_nnx", "haiku"):
            assert proofs[f"{entrant}/pure"]["proof"]["same_program_as_baseline"]
