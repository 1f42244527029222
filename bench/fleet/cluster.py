"""Measure runs on a Ray cluster, one on a node at a time.

Ray chooses the nodes, and starts a run again elsewhere when its node is lost.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import BakeoffError, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from bench.fleet.plan import PlannedRun
    from bench.fleet.process import RunOutput

RETRIES = 4
"""How often Ray starts a run again whose node or process was killed."""


def measure_on_cluster(
    runs: Iterable[PlannedRun],
    address: str,
    tell: Callable[[str], None],
    command: Sequence[str] | None = None,
) -> Generator[tuple[PlannedRun, RunOutput], None, None]:
    """Measure runs on a cluster; yield each with its output, in the order in which they end.

    Nodes with other versions or other code are left out, each with a line to `tell`.

    Raises:
        BakeoffError: Ray is not installed, no cluster answers, or it has no node for a run.
    """
    from bench.fleet.process import RunOutput

    expected, ray, unfit = identity(), connect(address), set[str]()

    def submit(run: PlannedRun) -> Any:
        needed = run.backend.upper()
        nodes = [
            node["Resources"]
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] not in unfit and node["Resources"].get(needed)
        ]
        if not nodes:
            raise BakeoffError(
                f"no node of the cluster can measure {run}: start one with its backend and the "
                "same packages, or take it out of the plan"
            )
        options: dict[str, Any] = {  # a whole node: all that the smallest one has
            "num_cpus": min(resources.get("CPU", 0) for resources in nodes),
            "num_gpus": min(resources.get("GPU", 0) for resources in nodes),
            "max_retries": RETRIES,
            "scheduling_strategy": "SPREAD",
        }
        if unfit:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(unfit))})"}
        return ray.remote(**options)(measure_on_node).remote(run.arguments, expected, command)

    try:
        tasks = {submit(run): run for run in runs}
        while tasks:
            [task], _ = ray.wait(list(tasks))
            run = tasks.pop(task)
            try:
                node, problem, output = ray.get(task)
            except ray.exceptions.RayError as error:
                yield run, RunOutput(None, str(error).strip() or type(error).__name__)
                continue
            if output is not None:
                yield run, output
                continue
            if node not in unfit:
                unfit.add(node)
                tell(f"node {node} is left out: {problem}; make it like this one")
            tasks[submit(run)] = run
    finally:
        ray.shutdown()  # ends what is still measured


def connect(address: str) -> Any:
    """Connect to a cluster and return the module `ray`; raise BakeoffError if that fails."""
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise BakeoffError(
            "--ray needs Ray, which is not installed: pip install --editable '.[ray]'"
        ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BakeoffError(
            f"--ray {address}: no cluster answers there ({words_of(error)}); start one with "
            "`ray start --head`, and give the address that it prints"
        ) from error
    # A node may lack this project, so it is sent the function itself and not its name.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return ray


def measure_on_node(
    arguments: Sequence[str], expected: dict[str, str], command: Sequence[str] | None
) -> tuple[str, str, RunOutput | None]:
    """Measure one run on the node where this runs, if it is like the host that asks.

    Returns:
        The node's id; why it cannot measure, empty if it can; what came of the run, if it can.
    """
    import ray  # type: ignore[import-not-found,unused-ignore]

    node = ray.get_runtime_context().get_node_id()
    try:
        from bench.fleet.process import COMMAND, measure

        here = identity()
    except ImportError as error:
        return node, f"it cannot run this project ({error})", None
    if differing := {name for name, _ in here.items() ^ expected.items()}:
        return node, f"it has another {', another '.join(sorted(differing))}", None
    from filelock import FileLock

    lock = Path(tempfile.gettempdir()) / "jax-bakeoff-matrix.lock"  # of several nodes on a machine
    with FileLock(lock, mode=0o666), tempfile.TemporaryDirectory(prefix="bakeoff-matrix-") as place:
        return node, "", measure(arguments, Path(place), command or COMMAND)


def identity() -> dict[str, str]:
    """Return what has to be the same on all nodes: the versions of the packages, and the code."""
    import impls
    from bench.engine.session import code_digest
    from common.versions import versions

    return versions(impls.libraries()) | {"code": code_digest()[:12]}
