"""`bakeoff doctor`: what follows from what a machine shows, and the report."""

from typing import Any

import numpy as np
import pytest

from bench.cells import BASELINE
from bench.cli.doctor import describe_backends, describe_usage, estimate_variation
from bench.engine.process import WorkerFailedError
from bench.runfile import TimeSpent
from bench.worker.turns import Call, make_sample
from tests.commands import Bakeoff

OFFER: dict[str, Any] = {
    "devices": {"cpu": "cpu", "gpu": "H100"},
    "versions": {"jax": "0.12.0", "jaxlib": "0.12.0"},
    "details": {kind: {"count": 1, "memory": None, "driver": ""} for kind in ("cpu", "gpu")},
    "uncached": 0,
}


@pytest.mark.parametrize(
    ("usage", "offer", "warned", "state"),
    [
        (TimeSpent(stolen=0.001, others=0.02), {}, "", "1 × H100"),
        (
            TimeSpent(others=0.3, busiest="python (0.6 cores)"),
            {},
            "other processes",
            "; python (0.6",
        ),
        (TimeSpent(stolen=0.05), {}, "other guests", "5 % of the machine"),
        (TimeSpent(), {"devices": {"cpu": "cpu"}}, "jax on the GPU", "jax has no backend"),
        (TimeSpent(), {"uncached": 7}, "bytecode", "7 modules without"),
    ],
)
def test_what_is_warned_of(
    usage: TimeSpent,
    offer: dict[str, Any],
    warned: str,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    probes = [*describe_usage(usage), *describe_backends(OFFER | offer)]
    assert [probe.name for probe in probes if probe.advice] == ([warned] if warned else [])
    assert any(state in probe.state for probe in probes)


@pytest.mark.parametrize("varies", [0.01, 0.07])
def test_how_much_calls_vary_is_seen_in_blocks(varies: float) -> None:
    rng, cell = np.random.default_rng(0), BASELINE.make_cell("seed", "cpu")
    blocks = [np.exp(rng.normal(0, varies, (8, 3))) for _ in range(160)]
    turns = [[[Call(x, 0.0) for x in turn] for turn in block] for block in blocks]
    samples = [sample for block in turns if (sample := make_sample(cell, "step", block))]
    assert estimate_variation(samples) == pytest.approx(varies, rel=0.15)


@pytest.mark.slow
def test_the_report(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    done = bakeoff("doctor", "--seconds", "0.1", "--strict")
    assert done.status == int("warning: " in done.out)
    assert done.out.startswith("Look at the warnings" if done.status else "Ready to measure.")
    for name in ("other processes", "other guests", "jax", "backend cpu"):
        assert f"\n{name} " in done.out.replace("\n  ", "\n")

    def fails(*_: object) -> None:
        raise WorkerFailedError("worker failed (exit status 1)", "no [jax]", None)

    monkeypatch.setattr("bench.engine.process.ask_once", fails)
    done = bakeoff("doctor", "--seconds", "0.1")
    assert done.status == 0
    assert "worker failed (exit status 1): no [jax]" in done.out
    assert "warning: jax: Nothing can be measured" in done.out
