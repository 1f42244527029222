"""`bakeoff doctor`: what is read, what follows from it, and how it is said."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

from bench.cli import main
from bench.doctor import probes
from bench.doctor.finding import Area, Level, MachineFinding, report
from bench.doctor.probes import Machine, findings, throttles, watched
from bench.worker import gpus, settings
from bench.worker.gpus import Gpu
from bench.worker.offers import details, of_accelerator, platforms

GIB = 1 << 30
QUIET = Machine(
    root=Path("/nowhere"),
    count=4,
    usable=(0, 1, 2, 3),
    memory=16 * GIB,
    free=12 * GIB,
    load=0.1,
    stolen=0.0,
    others=0.01,
    loop=np.full(100, 1e-3),
    jax={
        "devices": {"cpu": "cpu"},
        "versions": {"jax": "0.12.0", "jaxlib": "0.12.0"},
        "details": {"cpu": {"count": 1, "memory": None, "driver": ""}},
    },
)
GPU = Gpu("H100", "580.1", 80 * GIB, 0, 0.0, 40.0, persistent=True, divided=False, slowed=False)
OK, NOTE, WARNING = Level
CORES = "sys/devices/system/cpu"


def by_name(machine: Machine) -> dict[str, MachineFinding]:
    return {finding.name: finding for finding in findings(machine)}


def test_a_quiet_machine_needs_nothing() -> None:
    found = by_name(QUIET)
    assert {found.area for found in found.values()} == {Area.OFFERS, Area.TIMING}
    assert [f for f in found.values() if f.level is not OK] == [found["frequency"]]
    assert not any(finding.advice for finding in found.values())


@pytest.mark.parametrize(
    ("change", "name", "level", "words"),
    [
        ({"load": 2.0}, "load", WARNING, "2.0 on 4 cores"),
        ({"stolen": 0.05}, "other guests", WARNING, "5.0% of the processor time"),
        ({"others": 0.3}, "other processes", WARNING, "30% of the processor time"),
        ({"throttled": 3}, "heat", WARNING, "slowed down 3 times"),
        ({"on_battery": True}, "power", WARNING, "from a battery"),
        ({"free": GIB}, "memory", WARNING, "1.0 GiB free"),
        (
            {"loop": np.r_[np.full(90, 1e-3), np.full(10, 2e-3)]},
            "a constant loop",
            WARNING,
            "100.0% longer",
        ),
        ({"failure": "worker failed (exit status 1)"}, "jax", WARNING, "exit status 1"),
        ({"gpus": [GPU]}, "jax on the GPU", WARNING, "H100"),
        ({"gpus": [GPU]}, "GPU 0", OK, "H100, 80.0 GiB, driver 580.1"),
        ({"gpus": [replace(GPU, busy=0.5)]}, "GPU 0 in use", WARNING, "busy 50% of the time"),
        ({"gpus": [replace(GPU, used=40 * GIB)]}, "GPU 0 in use", WARNING, "40.0 GiB of its"),
        ({"gpus": [replace(GPU, slowed=True)]}, "GPU 0 slowed", WARNING, "slowed down, 40 °C"),
        ({"gpus": [replace(GPU, temperature=90.0)]}, "GPU 0 slowed", WARNING, "90 °C"),
        ({"gpus": [replace(GPU, divided=True)]}, "GPU 0 divided", NOTE, "MIG"),
        ({"gpus": [replace(GPU, persistent=False)]}, "GPU 0 driver", NOTE, "unloaded"),
        ({"missing": {"git": "Install it."}}, "git", NOTE, "not installed"),
        ({"usable": (0, 2)}, "processor", OK, "2 of 4 cores"),
    ],
)
def test_what_was_watched(change: dict[str, Any], name: str, level: Level, words: str) -> None:
    found = by_name(replace(QUIET, **change))[name]
    assert found.level is level
    assert words in found.seen
    assert bool(found.advice) == (level is not OK)


@pytest.mark.parametrize(
    ("files", "name", "level", "words"),
    [
        (
            {f"{CORES}/cpu{n}/cpufreq/scaling_governor": "powersave" for n in (0, 1)},
            *("frequency governor", WARNING, "powersave on 2 cores"),
        ),
        (
            {f"{CORES}/cpu1/cpufreq/scaling_governor": "performance"},
            *("frequency governor", OK, "performance on 1 cores"),
        ),
        ({f"{CORES}/cpufreq/boost": "1"}, "boost", NOTE, "on"),
        ({f"{CORES}/cpufreq/boost": "0"}, "boost", OK, "off"),
        ({f"{CORES}/intel_pstate/no_turbo": "0"}, "boost", NOTE, "on"),
        ({f"{CORES}/intel_pstate/no_turbo": "1"}, "boost", OK, "off"),
        (
            {
                f"{CORES}/cpu{n}/topology/thread_siblings_list": f"{n % 2},{n % 2 + 2}"
                for n in (0, 1, 2, 3)
            },
            *("two threads on a core", NOTE, "0+2, 1+3"),
        ),
        (
            {f"{CORES}/cpu0/topology/thread_siblings_list": "0,4"},  # 4 is not ours
            *("two threads on a core", None, ""),
        ),
        ({"proc/cpuinfo": "model name : X\nflags\t\t: fpu avx"}, "processor", OK, "X, 4 cores"),
        ({"proc/cpuinfo": "flags\t\t: fpu hypervisor avx"}, "virtual machine", NOTE, "a guest"),
        (
            {"sys/fs/cgroup/cpu.max": "150000 100000"},
            *("quota of this container", WARNING, "1.5 cores' time"),
        ),
        ({"sys/fs/cgroup/cpu.max": "400000 100000"}, "quota of this container", OK, "4 cores'"),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, "quota of this container", None, ""),
        ({}, "virtual machine", None, ""),
        ({}, "frequency", NOTE, "not known"),
    ],
)
def test_what_files_of_the_system_say(
    files: dict[str, str], name: str, level: Level | None, words: str, tmp_path: Path
) -> None:
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")
    found = by_name(replace(QUIET, root=tmp_path)).get(name)
    assert (found and found.level) is level
    assert found is None or words in found.seen


def test_what_is_missing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "ask_once", lambda _: {})
    monkeypatch.setattr("shutil.which", {"git": "/bin/git"}.get)
    monkeypatch.setattr("importlib.util.find_spec", {"ray": "spec", "pygal": "spec"}.get)
    assert set(probes.look(1e-9).missing) == {"c++", "extra parquet"}


def test_counters_of_heat(tmp_path: Path) -> None:
    assert throttles(tmp_path, [0, 1]) == 0
    for core in (0, 1):
        path = tmp_path / f"{CORES}/cpu{core}/thermal_throttle/core_throttle_count"
        path.parent.mkdir(parents=True)
        path.write_text("3\n")
    assert throttles(tmp_path, [0, 1]) == 6


ANSWER = (
    "NVIDIA H100 80GB HBM3, 580.65.06, 81559, 1024, 7, 35, Enabled, Disabled, Not Active, "
    "Not Active, 345, 1980\n"
    "Tesla T4, 535.1, 15360, 0, 0, [N/A], Disabled, [N/A], Active, Not Active, [N/A], 1590\n"
)


def test_what_nvidia_smi_says() -> None:
    first, second = gpus.parsed(ANSWER)
    assert (first.name, first.driver, first.busy) == ("NVIDIA H100 80GB HBM3", "580.65.06", 0.07)
    assert (first.memory, first.used) == (81559 << 20, 1 << 30)
    assert (first.persistent, first.divided, first.slowed) == (True, False, False)
    assert (second.temperature, second.persistent, second.slowed) == (None, False, True)
    assert [(gpu.clock, gpu.fastest) for gpu in (first, second)] == [(345, 1980), (None, 1590)]
    assert gpus.parsed("") == []
    with pytest.raises(ValueError, match="shorter"):
        gpus.parsed("a, b")


def test_watching_takes_as_long_as_it_is_told() -> None:
    assert len(watched(1e-9)[2]) == 1
    stolen, others, loop = watched(0.05)
    assert 0 <= stolen <= 1
    assert 0 <= others <= 1
    assert 0.04 < loop.sum() < 5


@pytest.mark.parametrize("width", [80, 160])
def test_the_report_of_a_terminal(width: int) -> None:
    found = list(findings(replace(QUIET, load=4.0, failure="[bold]")))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(report(found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "[bold]" in text
    assert text.rstrip().endswith("look at: jax, load.")
    assert text.count("warning") == 2


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--seconds", "0.1", "--json", "--strict"])
    rows = json.loads(capsys.readouterr().out)
    assert {"jax", "backend cpu", "processor"} <= {row["name"] for row in rows}
    levels = {row["level"] for row in rows}
    assert levels <= {"ok", "note", "warning"}
    assert status == int("warning" in levels)
    assert main(["doctor", "--seconds", "0"]) == 2
    assert "--seconds is 0.0; it must be a positive number" in capsys.readouterr().err


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
    monkeypatch.setattr(settings, "accelerated", settings.accelerated.__wrapped__)
    assert settings.environment()["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    plugin.clear()
    assert settings.accelerated() == {}
