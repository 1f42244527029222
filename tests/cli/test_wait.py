"""What is told before another run is waited for: all that can be wrong."""

import subprocess
from pathlib import Path

import pytest

from bench.engine.machine import machine_lock
from tests.commands import SCAN, Bakeoff, bench, command, how

BROKEN = {
    "without_loss": (SCAN.replace("def loss", "def lost"), "without_loss.py has no function loss"),
    "unimportable": (
        f"import nothing_of_this_name\n{SCAN}",
        "No module named 'nothing_of_this_name'",
    ),
    "two_numbers": (f"{SCAN}\nloss = lambda model, batch: model['w'][0]", "loss returns an array"),
}
"""Step file → its text, and what is told about it."""


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have another run measure for ever."""

    def sleep(_: float) -> None:
        raise AssertionError("it waits")

    monkeypatch.setenv("BAKEOFF_LOCK_FOLDER", str(tmp_path))
    monkeypatch.setattr("bench.engine.machine.time.sleep", sleep)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cost nothing.py", "nothing.py"),
        ("cost without_loss.py", BROKEN["without_loss"][1]),
        ("cost unimportable.py", BROKEN["unimportable"][1]),
        ("cost two_numbers.py", BROKEN["two_numbers"][1]),
        ("cost scan.py --style jitted", "unknown style 'jitted'"),
        ("cost scan.py --resume nothing.json", "nothing.json"),
        ("ab --base current --new nothing", "nothing"),
        ("ab --base current --entrant nobody", "unknown entrant 'nobody'"),
        ("ab --base current --resume nothing.json", "nothing.json"),
        ("ab --base current --step unimportable.py", BROKEN["unimportable"][1]),
        ("bisect --metric step --good jax==0.6.1 --bad jax==0.6.1", "are both"),
        ("history --resume nothing.json", "nothing.json"),
    ],
)
def test_what_is_wrong_is_told_before_another_run_is_waited_for(
    line: str, message: str, bakeoff: Bakeoff, busy: None, tmp_path: Path
) -> None:
    for name, (text, _) in {**BROKEN, "scan": (SCAN, "")}.items():
        (tmp_path / f"{name}.py").write_text(text)
    with machine_lock():
        done = bakeoff(*line.split(), "--wait")
        assert done.status in (1, 2)
        assert message in done.err
        assert "waiting" not in done.err


def test_without_wait_a_busy_machine_is_told_before_anything_is_built(
    bakeoff: Bakeoff, busy: None, tmp_path: Path
) -> None:
    (tmp_path / "scan.py").write_text(SCAN)
    with machine_lock():
        for line in ("cost scan.py", "ab --base @2025-06-01 --step scan.py"):
            done = bakeoff(*line.split())
            assert done.status == 2
            assert "another run (process " in done.err
            assert "give --wait" in done.err
            assert "resolving" not in done.err


@pytest.mark.parametrize("wait", [["--wait"], []])
def test_so_it_is_in_pytest(wait: list[str], tmp_path: Path) -> None:
    given = how(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAKEOFF_LOCK_FOLDER", given["env"]["BAKEOFF_LOCK_FOLDER"])
        with machine_lock():
            command = bench("--resume=nothing.json" if wait else "--metric=step", *wait)
            done = subprocess.run(command, **given, capture_output=True, check=False)
    assert done.returncode == 2
    assert ("nothing.json" if wait else "another run (process ") in done.stdout + done.stderr
    assert "waiting" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["cost", "ab", "pytest"])
def test_a_folder_without_room_for_a_journal_is_told_before_all_that(
    name: str, tmp_path: Path
) -> None:
    lines = {"cost": "cost scan.py --wait", "ab": "ab --base current --step scan.py --wait"}
    (tmp_path / "scan.py").write_text(SCAN)
    (tmp_path / ".bakeoff").write_text("mine")
    line = bench("--metric=step", "--wait") if name == "pytest" else command(*lines[name].split())
    given = how(tmp_path) | {"capture_output": True, "check": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAKEOFF_LOCK_FOLDER", given["env"]["BAKEOFF_LOCK_FOLDER"])
        with machine_lock():
            done = subprocess.run(line, **given, timeout=60)
    assert done.returncode == 2
    words = "the journals' folder .bakeoff: .bakeoff is not a folder; remove it, or start in a"
    assert words in done.stdout + done.stderr
    assert (tmp_path / ".bakeoff").read_text() == "mine"
