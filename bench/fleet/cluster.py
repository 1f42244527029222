"""Measure comparisons on a Ray cluster, one on a node at a time.

Ray chooses the nodes, and starts a comparison again elsewhere when its node is lost.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from bench.fleet.process import ProcessResult
from bench.run import code_digest
from common.errors import BakeoffError, words_of
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from bench.fleet.plan import PlannedComparison

RETRIES = 4
"""How often Ray starts a comparison again whose node or process was killed."""


def measure_on_cluster(
    comparisons: Iterable[PlannedComparison],
    address: str,
    tell: Callable[[str], None],
    command: Sequence[str] | None = None,
) -> Generator[tuple[PlannedComparison, ProcessResult], None, None]:
    """Measure comparisons on a cluster; yield each with its result, in the order in which they end.

    Nodes with other versions or other code are left out, each with a line to `tell`. One that joins
    later is checked before it measures: comparisons that it gets until then fail.

    Raises:
        BakeoffError: Ray is not installed, no cluster answers, or it has no node for a comparison.
    """
    ray, expected = connect(address), about()
    try:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        problems = node_problems(ray, nodes, expected)
        for name, problem in problems.items():
            tell(f"node {name} is left out: {problem}; make it like this one")
        nodes = [node for node in nodes if node["NodeID"] not in problems]
        tasks = {}
        for comparison in comparisons:
            suitable = [node for node in nodes if node["Resources"].get(comparison.backend.upper())]
            if not suitable:
                raise BakeoffError(
                    f"no node of the cluster can measure {comparison}: start one with its backend "
                    "and the same packages, or take it out of the plan"
                )
            measure = ray.remote(**requirements(suitable, problems))(measure_on_node)
            tasks[measure.remote(comparison.arguments, expected, command)] = comparison
        while tasks:
            [task], _ = ray.wait(list(tasks))
            comparison = tasks.pop(task)
            try:
                yield comparison, ray.get(task)
            except ray.exceptions.RayError as error:
                yield comparison, ProcessResult(None, str(error).strip() or type(error).__name__)
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


def node_problems(
    ray: Any, nodes: Iterable[Mapping[str, Any]], expected: Mapping[str, str]
) -> dict[str, str]:
    """Return why nodes cannot measure, by their ids."""
    affinity = importlib.import_module("ray.util.scheduling_strategies")
    asked = {}
    for node in nodes:
        here = affinity.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(num_cpus=0, scheduling_strategy=here)(problem_of_node)
        asked[node["NodeID"]] = task.remote(expected)
    return {name: problem for name, task in asked.items() if (problem := ray.get(task))}


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


def problem_of_node(expected: Mapping[str, str]) -> str:
    """Return why the node where this runs cannot measure; empty if it can."""
    try:
        from bench.fleet.cluster import about, difference
    except ImportError as error:
        return f"it cannot run this project ({error})"
    return difference(about(), expected)


def measure_on_node(
    arguments: Sequence[str], expected: Mapping[str, str], command: Sequence[str] | None
) -> ProcessResult:
    """Measure one comparison on the node where this runs, if it is like the host that asks."""
    import tempfile
    from pathlib import Path

    if problem := problem_of_node(expected):
        return ProcessResult(None, problem)
    from filelock import FileLock

    from bench.fleet.process import COMMAND, measure

    lock = Path(tempfile.gettempdir()) / "jax-bakeoff-matrix.lock"  # of several nodes on a machine
    with FileLock(lock, mode=0o666), tempfile.TemporaryDirectory(prefix="bakeoff-matrix-") as place:
        return measure(arguments, Path(place), command or COMMAND)


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
