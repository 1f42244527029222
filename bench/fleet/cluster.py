"""Measure comparisons on a Ray cluster, one on a node at a time.

Ray chooses the nodes, and starts a comparison again elsewhere when its node is lost.
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import TYPE_CHECKING, Any

from bench.fleet.process import ProcessResult
from bench.run import code_digest
from common.errors import BakeoffError
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from bench.fleet.plan import PlannedComparison

RETRIES = 4
"""How often Ray starts a comparison again whose node or process was killed."""
LOOK_SECONDS = 2.0
"""Between two looks at which nodes there are."""
PATIENCE_SECONDS = 120.0


def measure_on_cluster(
    comparisons: Iterable[PlannedComparison],
    address: str,
    tell: Callable[[str], None],
    command: Sequence[str] | None = None,
    patience: float = PATIENCE_SECONDS,
) -> Generator[tuple[PlannedComparison, ProcessResult], None, None]:
    """Measure comparisons on the nodes of a cluster, as many at a time as there are nodes.

    Args:
        comparisons: What to measure, in this order.
        address: Of the cluster.
        tell: Called with a line about each node that cannot measure.
        command: What measures, if not the node's own `pytest bench`.
        patience: Seconds to wait for a node while there is none for any comparison.

    Yields:
        Each comparison with its result, in the order in which they end.

    Raises:
        BakeoffError: Ray is not installed, no cluster answers, or no node has come.
    """
    ray, expected = connect(address), about()
    waiting = list(comparisons)
    running: dict[Any, PlannedComparison] = {}
    refused: dict[str, str] = {}
    last_node_seen = time.monotonic()
    try:
        while waiting or running:
            nodes = [node for node in ray.nodes() if node["NodeID"] not in refused]
            for backend in {comparison.backend for comparison in waiting}:
                suitable = [node for node in nodes if suits(node, backend)]
                busy = sum(comparison.backend == backend for comparison in running.values())
                queue = [comparison for comparison in waiting if comparison.backend == backend]
                for comparison in queue[: max(0, len(suitable) - busy)]:
                    remote = ray.remote(**requirements(suitable, refused))(measure_on_node)
                    running[remote.remote(comparison.arguments, expected, command)] = comparison
                    waiting.remove(comparison)
            unfinished = [*waiting, *running.values()]
            if any(suits(node, each.backend) for node in nodes for each in unfinished):
                last_node_seen = time.monotonic()
            elif time.monotonic() - last_node_seen > patience:
                lines = [
                    f"no node for {unfinished[0]} has come for {patience:g} s: start one with its "
                    "backend, or take that out of the plan",
                    *refused.values(),
                    "finished comparisons are kept: give the same command again to go on",
                ]
                raise BakeoffError("; ".join(lines))
            if not running:
                time.sleep(LOOK_SECONDS)
            for task in ray.wait(list(running), timeout=LOOK_SECONDS)[0]:
                comparison = running.pop(task)
                try:
                    node, reason, result = ray.get(task)
                except ray.exceptions.RayError as error:
                    yield comparison, ProcessResult(None, str(error).strip())
                    continue
                if result is not None:
                    yield comparison, result
                    continue
                waiting.insert(0, comparison)
                if node not in refused:
                    refused[node] = f"node {node} is left out: {reason}; make it like this one"
                    tell(refused[node])
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
        reason = " ".join(str(error).split())[:200]
        raise BakeoffError(
            f"--ray {address}: no cluster answers there ({reason}); start one with `ray start "
            "--head`, and give the address that it prints"
        ) from error
    # A node may lack this project, so it is sent the function itself and not its name.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return ray


def suits(node: Mapping[str, Any], backend: str) -> bool:
    """Return whether a node lives, and has processors and what a backend needs."""
    resources = node["Resources"]
    return bool(node["Alive"] and resources.get("CPU") and resources.get(backend.upper()))


def requirements(nodes: Sequence[Mapping[str, Any]], refused: Iterable[str]) -> dict[str, Any]:
    """Return Ray's options of a task that needs a whole node: all that the smallest node has."""
    options: dict[str, Any] = {
        "num_cpus": min(node["Resources"]["CPU"] for node in nodes),
        "num_gpus": min(node["Resources"].get("GPU", 0) for node in nodes),
        "max_retries": RETRIES,
        "scheduling_strategy": "SPREAD",
    }
    if refused:
        options["label_selector"] = {"ray.io/node-id": f"!in({','.join(refused)})"}
    return options


def measure_on_node(
    arguments: Sequence[str], expected: Mapping[str, str], command: Sequence[str] | None
) -> tuple[str, str, ProcessResult | None]:
    """Measure one comparison on the node where this runs, if it is like the host that asks.

    Returns:
        The node's id; the reason why it cannot measure, or an empty text; the result, if it can.
    """
    import tempfile
    from pathlib import Path

    import ray  # type: ignore[import-not-found,unused-ignore]

    node = ray.get_runtime_context().get_node_id()
    try:
        from filelock import FileLock

        from bench.fleet.cluster import about, difference
        from bench.fleet.process import COMMAND, measure
    except ImportError as error:
        return node, f"it cannot run this project ({error})", None
    reason = difference(about(), expected)
    if reason:
        return node, reason, None
    lock = Path(tempfile.gettempdir()) / "jax-bakeoff-matrix.lock"  # of several nodes on a machine
    with FileLock(lock, mode=0o666), tempfile.TemporaryDirectory(prefix="bakeoff-matrix-") as place:
        return node, "", measure(arguments, Path(place), command or COMMAND)


def about() -> dict[str, str]:
    """Return what has to be the same on all nodes: the versions of the packages and the code."""
    return versions() | {"code": code_digest()[:12]}


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """Return how a node differs from this host; empty if it does not."""
    names = sorted({name for name, _ in there.items() ^ here.items()})
    return "; ".join(
        f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
        for name in names
    )
