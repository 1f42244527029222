"""`bakeoff doctor`: what is read, what follows from it, and how it is said."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import jax
import numpy as np
import pytest
from rich.console import Console

from bench.cli import main
from bench.doctor import machine
from bench.doctor.advice import findings
from bench.doctor.finding import Area, Level
from bench.doctor.look import Seen, watched
from bench.doctor.report import report
from bench.worker import gpus, settings
from bench.worker.gpus import Gpu
from bench.worker.offers import details, of_accelerator, platforms

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
QUIET = Seen(
    system="Linux x86_64",
    python="3.13.5",
    processor="A processor",
    cores=4,
    usable=(0, 1, 2, 3),
    memory=16 * GIB,
    free=12 * GIB,
    load=0.1,
    stolen=0.0,
    others=0.01,
    loop=np.full(100, 1e-3),
    governors={"performance": 4},
    boosts=False,
    shared=(),
    throttled=0,
    virtual=False,
    quota=None,
    held_back=None,
    battery=False,
    tools=dict.fromkeys(("uv", "git", "c++", "nvidia-smi"), "/usr/bin/x"),
    extras={"ray": True},
    gpus=None,
    jax={
        "devices": {"cpu": "cpu"},
        "versions": {"jax": "0.12.0", "jaxlib": "0.12.0"},
        "details": {"cpu": {"count": 1, "memory": None, "driver": ""}},
    },
)
GPU = Gpu("H100", "580.1", 80 * GIB, 0, 0.0, 40.0, persistent=True, divided=False, slowed=False)


def names(seen: Seen, level: Level) -> list[str]:
    """Return what has findings of a level."""
    return [finding.name for finding in findings(seen) if finding.level is level]


def test_a_quiet_machine_needs_nothing() -> None:
    assert names(QUIET, Level.WARNING) == names(QUIET, Level.NOTE) == []
    assert {finding.area for finding in findings(QUIET)} == {Area.OFFERS, Area.TIMING}


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"load": 2.0}, "load", "2.0 on 4 cores"),
        ({"stolen": 0.05}, "other guests", "5.0% of the processor time"),
        ({"others": 0.3}, "other processes", "30% of the processor time"),
        ({"governors": {"powersave": 4}}, "frequency governor", "powersave on 4 cores"),
        ({"throttled": 3}, "heat", "slowed down 3 times"),
        ({"battery": True}, "power", "from a battery"),
        ({"quota": 1.5}, "quota of this container", "1.5 cores' time"),
        ({"quota": 4.0, "held_back": 2}, "quota of this container", "used up 2 times"),
        ({"free": GIB}, "memory", "1.0 GiB free"),
        ({"loop": np.r_[np.full(90, 1e-3), np.full(10, 2e-3)]}, "a loop that does the same", "100"),
        ({"failure": "worker failed (exit status 1)"}, "jax", "exit status 1"),
        ({"gpus": [GPU]}, "jax on the GPU", "H100, and jax has no backend for it"),
        ({"gpus": [replace(GPU, busy=0.5)]}, "GPU 0 in use", "busy 50% of the time"),
        ({"gpus": [replace(GPU, used=40 * GIB)]}, "GPU 0 in use", "40.0 GiB of its memory"),
        ({"gpus": [replace(GPU, slowed=True)]}, "GPU 0 slowed", "slowed down, 40 °C"),
    ],
)
def test_what_makes_timings_unreliable(change: dict[str, object], name: str, words: str) -> None:
    [found] = [f for f in findings(replace(QUIET, **change)) if f.name == name]  # type: ignore[arg-type]
    assert found.level is Level.WARNING
    assert words in found.seen
    assert found.advice


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"shared": [(0, 2), (1, 3)]}, "two threads on a core"),
        ({"boosts": True}, "boost"),
        ({"virtual": True}, "virtual machine"),
        ({"extras": {"ray": False}}, "extra ray"),
        ({"tools": dict(QUIET.tools) | {"uv": None}}, "uv"),
        ({"gpus": [replace(GPU, divided=True)]}, "GPU 0 divided"),
        ({"gpus": [replace(GPU, persistent=False)]}, "GPU 0 driver"),
    ],
)
def test_what_is_good_to_know(change: dict[str, object], name: str) -> None:
    assert name in names(replace(QUIET, **change), Level.NOTE)  # type: ignore[arg-type]


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


def test_what_the_system_says_of_its_processors(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    for core in (0, 1):
        write(tmp_path, f"{cpu}/cpu{core}/cpufreq/scaling_governor", "powersave")
        write(tmp_path, f"{cpu}/cpu{core}/topology/thread_siblings_list", "0-1")
        write(tmp_path, f"{cpu}/cpu{core}/thermal_throttle/core_throttle_count", "3")
    write(tmp_path, f"{cpu}/intel_pstate/no_turbo", "0")
    write(tmp_path, "proc/cpuinfo", "model name : X\nflags\t\t: fpu hypervisor avx")
    write(tmp_path, "proc/self/cgroup", "0::/mine")
    write(tmp_path, "sys/fs/cgroup/mine/cpu.max", "150000 100000")
    write(tmp_path, "sys/fs/cgroup/mine/cpu.stat", "usage_usec 5\nnr_throttled 7")
    assert machine.governors(tmp_path, [0, 1]) == {"powersave": 2}
    assert machine.boosts(tmp_path) is True
    assert machine.shared(tmp_path, [0, 1]) == [(0, 1)]
    assert machine.shared(tmp_path, [0]) == [], "its other thread is not ours"
    assert machine.throttles(tmp_path, [0, 1]) == 6
    assert machine.virtual(tmp_path) is True
    assert machine.quota(tmp_path) == 1.5
    assert machine.held_back(tmp_path) == 7


def test_what_the_system_does_not_say(tmp_path: Path) -> None:
    assert machine.governors(tmp_path, [0]) == {}
    assert machine.boosts(tmp_path) is machine.throttles(tmp_path, [0]) is None
    assert machine.virtual(tmp_path) is machine.quota(tmp_path) is machine.held_back(tmp_path)
    assert machine.shared(tmp_path, [0]) == []
    write(tmp_path, "sys/fs/cgroup/cpu.max", "max 100000")
    assert machine.quota(tmp_path) is None
    write(tmp_path, "sys/devices/system/cpu/cpufreq/boost", "0")
    assert machine.boosts(tmp_path) is False


ANSWER = (
    "NVIDIA H100 80GB HBM3, 580.65.06, 81559, 1024, 7, 35, Enabled, Disabled, Default, "
    "Not Active, Not Active, 345, 1980\n"
    "Tesla T4, 535.1, 15360, 0, 0, [N/A], Disabled, [N/A], Default, Active, Not Active, "
    "[N/A], 1590\n"
)


def test_what_nvidia_smi_says() -> None:
    first, second = gpus.parsed(ANSWER)
    assert (first.name, first.driver, first.busy) == ("NVIDIA H100 80GB HBM3", "580.65.06", 0.07)
    assert (first.memory, first.used) == (81559 << 20, 1 << 30)
    assert (first.persistent, first.divided, first.slowed) == (True, False, False)
    assert (second.temperature, second.persistent, second.slowed) == (None, False, True)
    assert [(gpu.clock, gpu.fastest) for gpu in (first, second)] == [(345, 1980), (None, 1590)]
    assert gpus.parsed("") == []
    with pytest.raises(ValueError, match="2 fields where 13 were asked for"):
        gpus.parsed("a, b")


def test_a_look_takes_as_long_as_it_is_told() -> None:
    assert len(watched(1e-9)[2]) == 1
    stolen, others, loop = watched(0.05)
    assert 0 <= stolen <= 1
    assert 0 <= others <= 1
    assert 0.04 < loop.sum() < 5


@pytest.mark.parametrize("width", [80, 160])
def test_as_a_terminal_shows_it(width: int) -> None:
    found = list(findings(replace(QUIET, load=4.0, virtual=True, system="[bold]")))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "[bold]" in text
    assert text.rstrip().endswith("Before a run, look at: load.")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--seconds", "0.1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"jax", "backend cpu", "processor"} <= {row["name"] for row in rows}
    assert {row["level"] for row in rows} <= {"ok", "note", "warning"}
    assert main(["doctor", "--seconds", "0"]) == 2
    assert "--seconds is 0; more than 0 and at most 3600" in capsys.readouterr().err


# What is set for each backend


def test_what_is_set_for_a_cpu() -> None:
    found = details("cpu")
    assert found["count"] >= 1
    with jax.default_matmul_precision("float32"):
        assert details("cpu")["matmul_precision"] == "float32"
    assert "preallocation" not in found, "it has none"
    assert platforms() == ["cpu"]


def test_what_is_set_for_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_accelerator({}) == {
        "preallocation": "true",
        "autotuning": "XLA's own level, anew in each process",
    }
    flags = {"XLA_FLAGS": "--xla_gpu_autotune_level=0 --x", **settings.ACCELERATED}
    assert of_accelerator(flags) == {"preallocation": "false", "autotuning": "level 0"}
    plugin = [object()]
    monkeypatch.setattr(settings, "entry_points", lambda group: plugin * (group == "jax_plugins"))
    settings.accelerated.cache_clear()
    try:
        assert settings.environment()["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        plugin.clear()
        settings.accelerated.cache_clear()
        assert settings.accelerated() == {}
    finally:
        settings.accelerated.cache_clear()
