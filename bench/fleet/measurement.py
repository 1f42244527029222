"""Measurement of planned runs, each by `pytest bench`: here, or on the nodes of a Ray cluster.

As a program, this module is `pytest bench`, which ends with its parent.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.engine.journal import FOLDER, SUFFIX
from bench.streams import say, shorten_message
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from bench.fleet import PlannedRun

COMMAND = (sys.executable, "-m", "bench.fleet.measurement")
"""Command of a run, without its arguments."""
LOG_LINES = 15
"""Lines kept from the end of a run's output: a traceback's end, or pytest's summary."""
RETRIES = 4
"""Number of times that Ray starts a run again after its node or process was killed."""
LOCK = "jax-bakeoff-matrix.lock"
"""Lock file beside the machine's lock: several nodes may be on one machine."""


class RunOutput(NamedTuple):
    """Output of a run's process."""

    file: bytes | None
    """The run file; None if the run failed."""
    log: str
    """The last lines of its output."""


def measure(arguments: Sequence[str], folder: Path, command: Sequence[str] = COMMAND) -> RunOutput:
    """Measure one run by `pytest bench`, in a folder that keeps its journal.

    Raises:
        KeyboardInterrupt: Ctrl-C; the process has been interrupted too, and has ended.
    """
    file, log = folder / "run.json", folder / "log.txt"
    file.unlink(missing_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 -- our own benchmarks
            [*command, *arguments, f"--benchmark-json={file.resolve()}"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C reaches this process only, which passes it on once
        )
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    text = "\n".join(lines[-LOG_LINES:]) or f"exit status {status}"
    return RunOutput(file.read_bytes() if file.exists() else None, text)


def measure_here(
    runs: Iterable[PlannedRun], folder: Path, command: Sequence[str] = COMMAND
) -> Generator[tuple[PlannedRun, RunOutput], None, None]:
    """Measure runs on this machine, one after another; yield each with its output.

    Each has its journal in the folder of the results, and goes on from there if it was cut off.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run's journal is kept.
    """
    for run in runs:
        say(f"measuring {run.title}")
        unfinished = folder / f"{run.key}.unfinished"
        unfinished.mkdir(exist_ok=True)
        journals = (unfinished / FOLDER).glob(f"*{SUFFIX}")
        resume = ["--resume"] if any(path.stat().st_size for path in journals) else []
        output = measure([*run.arguments, *resume], unfinished, command)
        yield run, output
        if output.file is not None:
            shutil.rmtree(unfinished)


def measure_on_cluster(
    runs: Iterable[PlannedRun], address: str, command: Sequence[str] | None = None
) -> Generator[tuple[PlannedRun, RunOutput], None, None]:
    """Measure runs on a cluster, one on a node at a time; yield each as it ends, with its output.

    Ray chooses the nodes, and starts a run again elsewhere when its node is lost.

    Raises:
        BakeoffError: Ray is not installed, no cluster answers, it has no node for a run, or a node
            has other packages or other code than this host.
    """
    expected, ray = describe_code(), connect_cluster(address)

    def submit(run: PlannedRun) -> Any:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [resources for resources in alive if resources.get(run.backend.upper())]
        if not nodes:
            raise BakeoffError(
                f"no node of the cluster can measure {run.title}: start one with its "
                "backend, or take the run out of the plan"
            )
        options: dict[str, Any] = {  # the smallest node's: a run takes a whole node
            "num_cpus": min(resources.get("CPU", 0) for resources in nodes),
            "num_gpus": min(resources.get("GPU", 0) for resources in nodes),
            "max_retries": RETRIES,
            "scheduling_strategy": "SPREAD",
        }
        return ray.remote(**options)(measure_on_node).remote(run.arguments, expected, command)

    try:
        tasks = {submit(run): run for run in runs}
        while tasks:
            [task], _ = ray.wait(list(tasks))
            run = tasks.pop(task)
            try:
                node, problem, output = ray.get(task)
            except ray.exceptions.RayError as error:
                output = RunOutput(None, str(error).strip() or type(error).__name__)
            if output is None:
                raise BakeoffError(
                    f"node {node} of the cluster: {problem}; make it like this one, or stop it"
                )
            yield run, output
    finally:
        ray.shutdown()  # ends what is still measured


def connect_cluster(address: str) -> Any:
    """Connect to a cluster and return the module `ray`; raise BakeoffError if that fails."""
    try:
        import ray  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError as error:
        raise BakeoffError(
            "--ray needs Ray, which is not installed: .venv/bin/uv pip install --editable '.[ray]'"
        ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BakeoffError(
            f"--ray {address}: no cluster answers there ({shorten_message(error)}); start one with "
            "`ray start --head`, and give the address that it prints"
        ) from error
    # A node may lack this project, so it is sent the function itself and not its name.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return ray


def measure_on_node(
    arguments: Sequence[str], expected: dict[str, str], command: Sequence[str] | None
) -> tuple[str, str, RunOutput | None]:
    """Measure one run on the node where this runs, if its packages and code are the expected ones.

    Returns:
        The node's id; why it cannot measure, empty if it can; the run's output, None if it cannot.
    """
    import ray  # type: ignore[import-not-found,unused-ignore]

    node = ray.get_runtime_context().get_node_id()
    try:  # this function was sent; the module is the node's own
        from bench.fleet import measurement as installed

        here = installed.describe_code()
    except ImportError as error:
        return node, f"it cannot run this project ({error})", None
    if differing := {name for name, _ in here.items() ^ expected.items()}:
        return node, f"it has another {', another '.join(sorted(differing))}", None
    from filelock import FileLock

    from bench.engine.machine import find_lock_folder

    lock = FileLock(find_lock_folder() / installed.LOCK, mode=0o666)
    with lock, tempfile.TemporaryDirectory(prefix="bakeoff-matrix-") as folder:
        return node, "", installed.measure(arguments, Path(folder), command or installed.COMMAND)


def describe_code() -> dict[str, str]:
    """Return package → version, and a digest of the code, which must be equal on all nodes."""
    import impls
    from bench.engine.measurement import digest_code
    from common.versions import versions

    return versions(impls.list_shared_libraries()) | {"code": digest_code()[:12]}


if __name__ == "__main__":
    from bench.worker.__main__ import end_with_parent
    from bench.worker.settings import ROOT

    end_with_parent()  # a Ray node may die while its machine lives on
    # In this process, pytest would find that `bench`, a plugin of its own, was imported before
    pytest = [sys.executable, "-m", "pytest", str(ROOT / "bench")]
    os.execv(sys.executable, [*pytest, *sys.argv[1:]])  # noqa: S606 -- no shell
