"""Several processes that train as one, on this machine, over its loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from bench.cli import main
from bench.cli.launch import without
from common.errors import BakeoffError
from common.hosts import Peers, unlike

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
TRAIN = (
    *("train", "--corpus", "toy", "--width", "16", "--layers", "2", "--chunk", "8"),
    *("--batch", "2", "--epoch-chars", "80", "--sample-every", "0"),
)


def bakeoff(*arguments: str, cwd: Path, paths: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start the command line."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *arguments],
        cwd=cwd,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([*paths, str(ROOT)]), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(path: Path) -> list[float]:
    """Return the losses of a log."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["chunk", "scan"])
def test_two_processes_give_the_losses_of_one(mode: str, tmp_path: Path) -> None:
    few = (*TRAIN, "--epochs", "5", "--epoch-mode", mode)
    one = bakeoff(*few, "--log", "one.jsonl", "--save", "one.safetensors", cwd=tmp_path)
    two = bakeoff(
        *(*few, "--processes", "2", "--log", "two.jsonl", "--save", "two.safetensors"),
        cwd=tmp_path,
    )
    for process in (one, two):
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    ours, theirs = losses(tmp_path / "two.jsonl"), losses(tmp_path / "one.jsonl")
    assert len(ours) == len(theirs) == 5
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= 1e-5
    assert (tmp_path / "two.safetensors").exists()


def strike(sign: signal.Signals, cwd: Path) -> tuple[str, float, int | None]:
    """Train in two processes, and send the second a signal once there is a checkpoint.

    Returns:
        What they said, the seconds until they ended, and the exit status.
    """
    many = bakeoff(
        *(*TRAIN, "--epochs", "100000", "--processes", "2", "--save", "kept.safetensors"),
        cwd=cwd,
    )
    try:
        end = time.monotonic() + 120
        while not (cwd / "kept.safetensors").exists() and time.monotonic() < end:
            time.sleep(0.2)
        assert (cwd / "kept.safetensors").exists()
        [second] = [
            process
            for process in psutil.Process(many.pid).children(recursive=True)
            if "--process-id 1" in " ".join(process.cmdline())
        ]
        second.send_signal(sign)
        struck = time.monotonic()
        _, said = many.communicate(timeout=120)
        return said, time.monotonic() - struck, many.returncode
    finally:
        many.kill()
        many.wait()


@pytest.mark.slow
def test_a_lost_process_ends_the_others(tmp_path: Path) -> None:
    """Within a minute, with a clear message, and the run goes on from its last checkpoint."""
    said, took, status = strike(signal.SIGKILL, tmp_path)
    assert took < 60
    assert status == 1, said
    assert "bakeoff: another process was lost after" in said
    assert "bakeoff: process 1 of 2 ended with signal 9" in said
    assert re.search(r"go on with: bakeoff train --resume kept\.safetensors", said)
    again = bakeoff("train", "--resume", "kept.safetensors", "--epochs", "1", cwd=tmp_path)
    _, said = again.communicate(timeout=100)
    assert "but the resumed run has done" in said


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_others(tmp_path: Path) -> None:
    said, took, status = strike(signal.SIGSTOP, tmp_path)
    assert took < 60
    assert status == 1, said
    assert "process 0 of 2 was ended from outside, or by JAX, for another one did not" in said
    assert "with --resume if there is a checkpoint, kept.safetensors" in said


@pytest.mark.slow
def test_the_launcher_takes_its_processes_with_it(tmp_path: Path) -> None:
    """SIGTERM saves, as it does in one process; nobody trains on afterwards."""
    many = bakeoff(
        *(*TRAIN, "--epochs", "100000", "--processes", "2", "--save", "kept.safetensors"),
        *("--backend", "cpu"),
        cwd=tmp_path,
    )
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "kept.safetensors").exists() and time.monotonic() < end:
            time.sleep(0.2)
        children = psutil.Process(many.pid).children(recursive=True)
        assert len(children) >= 2
        many.terminate()
        _, said = many.communicate(timeout=60)
    finally:
        many.kill()
        many.wait()
    assert many.returncode == 130, said
    assert re.search(r"interrupted after \d+ epochs; saved to kept\.safetensors", said)
    assert "--backend cpu --processes 2" in said, "what goes on says where"
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


@pytest.mark.slow
def test_what_differs_between_processes_is_named_and_ends_both(tmp_path: Path) -> None:
    for more, words in (
        (
            (("--devices", "2"), ("--devices", "4")),
            ("devices is 2 in process 0 but 4 in process 1",) * 2,
        ),
        (
            ((), ("--corpus", "/nope.txt")),
            ("another process was lost before training began", "no such file '/nope.txt'"),
        ),
    ):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        peers = [
            bakeoff(
                *(*TRAIN, "--batch", "4", "--processes", "2", "--process-id", str(number)),
                *("--coordinator", f"127.0.0.1:{port}", "--epochs", "2", *options),
                cwd=tmp_path,
            )
            for number, options in enumerate(more)
        ]
        for process, message in zip(peers, words, strict=True):
            _, said = process.communicate(timeout=100)
            assert process.returncode in (1, 2), said
            assert message in said
            assert "Check failure" not in said


@pytest.mark.slow
def test_a_coordinator_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common import hosts

    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(BakeoffError, match=r"does not answer for 0\.3 s: start process 0 there"):
        hosts.answers(Peers(f"127.0.0.1:{port}", 1, 2), 0.3)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(BakeoffError, match="its port cannot be had here"):
            hosts.answers(Peers(f"127.0.0.1:{taken.getsockname()[1]}", 0, 2), 0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    {
        "--coordinator nowhere --process-id 0 --processes 2": "--coordinator is 'nowhere'; give",
        "--coordinator a:1 --process-id 2 --processes 2": "--process-id is 2; with --processes 2",
        "--coordinator a:1 --processes 2": "--coordinator, --processes without --process-id; give",
        "--process-id 1": "--process-id without --coordinator and --processes; give all three",
        "--coordinator a:1 --process-id 0 --processes 2 --devices 3": "give a multiple of 2",
        "--devices 0": "devices is 0; it must be a whole number from 1",
        "--processes 0": "--processes is 0; it must be a whole number from 1",
        "--processes 1000": "--processes is 1000; it must be a whole number from 1 to 64",
    }.items(),
)
def test_wrong_use(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_backend_that_is_not_there(tmp_path: Path) -> None:
    """In a process of its own: jax remembers what it was told to use."""
    for backend in ("cuda", "nonsense"):
        process = bakeoff("train", "--backend", backend, "--corpus", "toy", cwd=tmp_path)
        _, said = process.communicate(timeout=100)
        assert process.returncode == 2, said
        assert f"bakeoff: backend '{backend}' cannot be used here" in said
        assert said.strip().endswith("`bakeoff doctor` says which there are")


@pytest.mark.slow
def test_hosts_with_other_versions_are_refused_and_named(tmp_path: Path) -> None:
    """One of the two finds the metadata of another optax first."""
    other = tmp_path / "other" / "optax-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 0.0.1\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    peers = [
        bakeoff(
            *(*TRAIN, "--epochs", "5", "--processes", "2", "--process-id", str(number)),
            *("--coordinator", f"127.0.0.1:{port}"),
            cwd=tmp_path,
            paths=[str(other.parent)] * number,
        )
        for number in (0, 1)
    ]
    for process in peers:
        _, said = process.communicate(timeout=100)
        assert process.returncode == 2, said
        assert re.search(
            r"processes differ: optax is \S+ in process 0 but 0\.0\.1 in process 1", said
        )


@pytest.mark.slow
def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    for command in ("train --corpus toy", "sample none.safetensors"):
        process = bakeoff(*command.split(), "--backend", "cpu:7", cwd=tmp_path)
        _, said = process.communicate(timeout=100)
        assert process.returncode == 2, said
        assert "bakeoff: backend is 'cpu:7', and cpu has 1 device here: give cpu:0" in said


@pytest.mark.slow
def test_devices_that_do_not_fit(tmp_path: Path) -> None:
    for arguments, words in (
        ("--batch 3 --devices 2", "batch 3 does not divide among 2 devices; give a multiple of 2"),
        ("--entrant numpy --style loop --devices 2 --batch 2", "entrant 'numpy' is not JAX"),
    ):
        process = bakeoff("train", "--corpus", "toy", *arguments.split(), cwd=tmp_path)
        _, said = process.communicate(timeout=100)
        assert process.returncode == 2, said
        assert words in said


def test_what_differs_between_hosts_is_named() -> None:
    same = {"jax": "0.12.0", "python": "3.13.1", "epochs": 5}
    assert list(unlike([same, dict(same)])) == []
    assert list(unlike([same, same | {"jax": "0.11.0"}, dict(same)])) == [
        "jax is 0.12.0 in process 0, 2 but 0.11.0 in process 1"
    ]


def test_an_option_is_taken_out_of_the_arguments() -> None:
    given = ["train", "--processes", "2", "--batch", "4", "--processes=2"]
    assert without(given, "--processes") == ["train", "--batch", "4"]
