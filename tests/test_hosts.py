"""Several processes that train as one, on this machine, over its loopback."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from common import hosts
from common.errors import BakeoffError
from common.hosts import Peers, unlike
from tests.commands import command, how

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TRAIN = (
    *("train", "--corpus", "toy", "--width", "16", "--layers", "2", "--chunk", "8"),
    *("--batch", "2", "--epoch-chars", "80", "--sample-every", "0"),
)


def bakeoff(*arguments: str, cwd: Path, paths: Sequence[Path] = ()) -> subprocess.Popen[str]:
    """Start the command line."""
    return subprocess.Popen(
        command(*arguments),
        **how(cwd, *paths, JAX_PLATFORMS="cpu"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "status", "words"),
    [
        (signal.SIGKILL, 1, (r"another process was lost", "process 1 of 2 ended with signal 9")),
        (signal.SIGSTOP, -signal.SIGABRT, ("JAX distributed service detected fatal errors",)),
        (signal.SIGTERM, 130, (r"interrupted; \d+ epochs saved to kept",)),
    ],
    ids=["killed", "hangs", "ended"],
)
def test_a_process_that_is_lost_ends_the_others(
    sign: signal.Signals, status: int, words: Sequence[str], tmp_path: Path
) -> None:
    """Within a minute, with a message, and the last checkpoint is there; SIGTERM is for all."""
    many = bakeoff(
        *(*TRAIN, "--epochs", "100000", "--processes", "2", "--save", "kept.safetensors"),
        cwd=tmp_path,
    )
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "kept.safetensors").exists() and time.monotonic() < end:
            time.sleep(0.2)
        children = psutil.Process(many.pid).children(recursive=True)
        [second] = [child for child in children if "--process-id 1" in " ".join(child.cmdline())]
        (many if sign is signal.SIGTERM else second).send_signal(sign)
        _, said = many.communicate(timeout=60)
    finally:
        many.kill()
        many.wait()
    assert many.returncode == status, said
    for text in words:
        assert re.search(text, said), said
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    if "go on with: " in said:
        [command] = re.findall("go on with: bakeoff (.*)", said)
        given = [*TRAIN[1:], "--epochs", "100000", "--processes", "2"]
        assert command == shlex.join(["train", "--resume", "kept.safetensors", *given])
    again = bakeoff("train", "--resume", "kept.safetensors", "--epochs", "1", cwd=tmp_path)
    assert "but the resumed run has done" in again.communicate(timeout=100)[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("second", "other", "words"),
    [
        (("--devices", "4"), False, ["devices is 2 in process 0 but 4 in process 1"] * 2),
        (
            ("--corpus", "/nope.txt"),
            False,
            ["another process was lost before training began", "no such file '/nope.txt'"],
        ),
        ((), True, [r"optax is \S+ in process 0 but 0\.0\.1 in process 1"] * 2),
    ],
    ids=["devices", "corpus", "versions"],
)
def test_what_differs_between_processes_is_named_and_ends_both(
    second: Sequence[str], other: bool, words: Sequence[str], tmp_path: Path
) -> None:
    """Where versions differ, the second process finds the metadata of another optax first."""
    optax = tmp_path / "other" / "optax-0.0.1.dist-info"
    optax.mkdir(parents=True)
    (optax / "METADATA").write_text("Metadata-Version: 2.1\nName: optax\nVersion: 0.0.1\n")
    address = f"127.0.0.1:{free_port()}"
    peers = [
        bakeoff(
            *(*TRAIN, "--batch", "4", "--processes", "2", "--devices", "2", "--epochs", "2"),
            *("--process-id", str(number), "--coordinator", address, *more),
            cwd=tmp_path,
            paths=[optax.parent] * (number if other else 0),
        )
        for number, more in enumerate(((), second))
    ]
    for process, message in zip(peers, words, strict=True):
        _, said = process.communicate(timeout=100)
        assert process.returncode in (1, 2), said
        assert re.search(message, said), said
        assert "Check failure" not in said


def test_what_differs_between_hosts_is_named() -> None:
    same = {"jax": "0.12.0", "python": "3.13.1", "epochs": 5}
    assert list(unlike([same, dict(same)])) == []
    assert list(unlike([same, same | {"jax": "0.11.0"}, dict(same)])) == [
        "jax is 0.12.0 in process 0, 2 but 0.11.0 in process 1"
    ]


@pytest.mark.slow
def test_a_coordinator_that_does_not_answer() -> None:
    with pytest.raises(BakeoffError, match=r"does not answer for 0\.3 s: start process 0 there"):
        hosts.answers(Peers(f"127.0.0.1:{free_port()}", 1, 2), 0.3)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(BakeoffError, match="its port cannot be had here"):
            hosts.answers(Peers(f"127.0.0.1:{taken.getsockname()[1]}", 0, 2), 0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    {
        "--backend cuda": "backend 'cuda' cannot be used here",
        "--backend nonsense": "`bakeoff doctor` says which there are",
        "--backend cpu:7": "backend is 'cpu:7', and cpu has 1 device here: give cpu:0",
        "--batch 3 --devices 2": "batch 3 does not divide among 2 devices; give a multiple of 2",
        "--entrant numpy --style loop --devices 2 --batch 2": "entrant 'numpy' is not JAX",
    }.items(),
)
def test_what_does_not_fit_is_refused(arguments: str, words: str, tmp_path: Path) -> None:
    """In a process of its own: jax remembers what it was told to use."""
    process = bakeoff("train", "--corpus", "toy", *arguments.split(), cwd=tmp_path)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 2, said
    assert words in said
