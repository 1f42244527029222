"""`bakeoff doctor`: what follows from what was seen, and how it is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bench.cli import doctor
from bench.cli.doctor import Finding, activity, backends, document
from bench.cli.documents import show
from bench.engine.machine import Usage
from bench.engine.process import WorkerFailedError
from bench.worker import gpus
from bench.worker.gpus import Gpu

if TYPE_CHECKING:
    from tests.commands import Bakeoff

GIB = 1 << 30
GPU = Gpu("H100", "580.1", 80 * GIB, 0, 0.0, 40.0, persistent=True, divided=False, slowed=False)
OFFER: dict[str, Any] = {
    "devices": {"cpu": "cpu", "gpu": "H100"},
    "versions": {"jax": "0.12.0", "jaxlib": "0.12.0"},
    "details": {kind: {"count": 1, "memory": None, "driver": ""} for kind in ("cpu", "gpu")},
    "uncached": 0,
}


@pytest.mark.parametrize(
    ("usage", "free", "warned", "seen"),
    [
        (Usage(0.001, 0.02, ""), 8 * GIB, "", "2 % of the machine"),
        (Usage(0.001, 0.3, "python (0.6 cores)"), 8 * GIB, "other processes", "; python (0.6 c"),
        (Usage(0.05, 0.02, ""), 8 * GIB, "other guests", "5 % of the machine"),
        (Usage(0.0, 0.0, ""), GIB, "free memory", "1.07 GB"),
    ],
)
def test_what_was_watched(usage: Usage, free: int, warned: str, seen: str) -> None:
    findings = list(activity(usage, free))
    assert [f.name for f in findings if f.advice] == ([warned] if warned else [])
    assert any(seen in finding.seen for finding in findings)


@pytest.mark.parametrize(
    ("change", "card", "warned", "seen"),
    [
        ({}, {}, "", "1 × H100"),
        ({}, {"divided": True}, "", "(MIG)"),
        ({"devices": {"cpu": "cpu"}}, {}, "jax on the GPU", "H100, for which jax has no backend"),
        ({"uncached": 7}, {}, "bytecode", "7 modules without"),
        ({}, {"busy": 0.5}, "GPU 0", "50% busy"),
        ({}, {"used": 40 * GIB}, "GPU 0", "50% of its memory"),
        ({}, {"slowed": True}, "GPU 0", "H100"),
    ],
)
def test_what_jax_and_the_driver_say(
    change: dict[str, Any], card: dict[str, Any], warned: str, seen: str
) -> None:
    findings = list(backends(OFFER | change, [replace(GPU, **card)]))
    assert [f.name for f in findings if f.advice] == ([warned] if warned else [])
    assert any(seen in finding.seen for finding in findings)


ANSWER = (
    "NVIDIA H100 80GB HBM3, 580.65.06, 81559, 1024, 7, 35, Enabled, Disabled, Not Active, "
    "Not Active, 345, 1980\n"
    "Tesla T4, 535.1, 15360, 0, 0, [N/A], Disabled, [N/A], Active, Not Active, [N/A], 1590\n"
)


def test_what_nvidia_smi_says() -> None:
    first, second = gpus.parsed(ANSWER)
    assert (first.name, first.driver, first.busy) == ("NVIDIA H100 80GB HBM3", "580.65.06", 0.07)
    assert (first.memory, first.used) == (81559 << 20, 1 << 30)
    assert (first.divided, first.slowed, second.slowed) == (False, False, True)
    assert (second.temperature, second.clock, second.fastest) == (None, None, 1590)
    assert gpus.parsed("") == []
    with pytest.raises(ValueError, match="shorter"):
        gpus.parsed("a, b")


def test_the_report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show(document([Finding("load", "high", "Wait."), Finding("jax", "[bold]")]))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("Look at the warnings before a run.")
    assert "[bold]" in text
    assert "warning: load: Wait." in text
    show(document([Finding("jax", "0.12")]))
    assert capsys.readouterr().out.startswith("Ready to measure.")


def test_the_command(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> None:
    done = bakeoff("doctor", "--seconds", "0.1", "--json", "--strict")
    rows = {row["name"]: row for row in json.loads(done.out)}
    assert {"other processes", "free memory", "jax", "backend cpu"} <= rows.keys()
    assert done.status == int(any(row["advice"] for row in rows.values()))
    for seconds in ("0", "nan", "1e300"):
        assert bakeoff("doctor", "--seconds", seconds).status == 2

    def fails(*_: object) -> None:
        raise WorkerFailedError("worker failed (exit status 1)", "no jax", None)

    monkeypatch.setattr("bench.engine.process.ask_once", fails)
    done = bakeoff("doctor", "--seconds", "0.1")
    assert (done.status, doctor.__name__) == (0, "bench.cli.doctor")
    assert "worker failed (exit status 1): no jax" in done.out
    assert "warning: jax: Nothing can be measured" in done.out
