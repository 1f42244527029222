"""A Ray cluster: a comparison owns all of a node while it is measured.

Ray is told which node, for the planner knows what has to go elsewhere; so a task asks for all
processors of that node, and waits where anything else runs on it.
"""

from __future__ import annotations

import importlib
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.fleet.drive import Event, Kind
from bench.fleet.planner import Machine
from bench.fleet.work import Done, measure
from bench.run import code_digest
from common.errors import BakeoffError
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.fleet.plan import Comparison

LOOK_SECONDS = 2.0
"""Between two looks at which nodes there are."""
HOST = "host"


class OnRay:
    """Measures on the nodes of a cluster."""

    def __init__(
        self, address: str, command: Sequence[str] | None = None, *, alone: bool = True
    ) -> None:
        """Connect to a cluster.

        Args:
            address: Of it.
            command: What measures on a node, if not its own `pytest bench`.
            alone: Of several nodes on one machine, one measures at any time.

        Raises:
            BakeoffError: Ray is not installed, or no cluster answers.
        """
        try:
            self.ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError as error:
            raise BakeoffError(
                "--ray needs Ray, which is not installed: pip install 'jax-bakeoff[ray]'"
            ) from error
        self.strategy: Any = importlib.import_module("ray.util.scheduling_strategies")
        try:
            self.ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            words = " ".join(str(error).split())[:200]
            raise BakeoffError(
                f"--ray {address}: no cluster answers there ({words}); start one with `ray start "
                "--head`, and give the address that it says"
            ) from error
        self.command, self.alone = command, alone
        self.nodes: dict[str, Machine] = {}
        self.refused: set[str] = set()
        self.about: dict[str, dict[str, str]] = {}
        """What each node has, by its name."""
        self.asked: dict[str, Any] = {}
        """Nodes that have been asked for that, and have not answered."""
        self.tasks: dict[Any, Machine] = {}
        self.looked = 0.0

    def begin(self, machine: Machine, comparison: Comparison) -> None:  # noqa: D102
        task = self.task(machine.name, measure).remote(comparison.arguments, self.command)
        self.tasks[task] = machine

    def task(self, node: str, function: Any) -> Any:
        """Return a task that has all of a node."""
        found = (each["Resources"] for each in self.alive() if each["NodeID"] == node)
        resources: dict[str, float] = next(found, {})
        affinity = self.strategy.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        return self.ray.remote(function).options(
            num_cpus=resources.get("CPU", 1),
            num_gpus=resources.get("GPU", 0),
            max_retries=0,
            scheduling_strategy=affinity,
        )

    def alive(self) -> list[dict[str, Any]]:
        """Return what Ray says of the nodes that live and have a processor."""
        return [node for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]

    def events(self, seconds: float) -> list[Event]:  # noqa: D102
        found: list[Event] = []
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self.looked = time.monotonic()
            found += self.changes()
        if not self.tasks:
            if not found:
                time.sleep(seconds)
            return found
        ready, _ = self.ray.wait(list(self.tasks), num_returns=1, timeout=seconds)
        for task in ready:
            machine = self.tasks.pop(task)
            try:
                found.append(Event(Kind.ENDED, machine, self.ray.get(task)))
            except self.ray.exceptions.RayTaskError as error:
                words = str(error).strip().splitlines()[-1]
                found.append(Event(Kind.ENDED, machine, Done(1, None, words)))
            except self.ray.exceptions.RayError:  # its node has died, or its worker
                self.nodes.pop(machine.name, None)
                self.about.pop(machine.name, None)  # for a while Ray believes that it lives
                found.append(Event(Kind.GONE, machine))
                self.looked = 0.0
        return found

    def changes(self) -> list[Event]:
        """Return which nodes have come, which are gone, and which are refused."""
        there = {node["NodeID"]: node for node in self.alive()}
        measuring = {machine.name for machine in self.tasks.values()}
        found = []
        for name in self.asked.keys() - there.keys():
            self.ray.cancel(self.asked.pop(name), force=True)
        for name in self.nodes.keys() - there.keys() - measuring:
            found.append(Event(Kind.GONE, self.nodes.pop(name)))
        for name in there.keys() - self.nodes.keys() - self.refused:
            backends = {"cpu"} | ({"gpu"} if there[name]["Resources"].get("GPU") else set())
            machine = Machine(name, frozenset(backends))
            why = self.answer(name)
            if why is None:
                continue
            if why:
                self.refused.add(name)
                found.append(Event(Kind.REFUSED, machine, why=why))
            elif not (self.alone and self.host(name) in map(self.host, self.nodes)):
                self.nodes[name] = machine
                found.append(Event(Kind.COME, machine))
        return found

    def answer(self, name: str) -> str | None:
        """Return why a node cannot measure for us; empty if it can, None until it has answered.

        It answers when all of it is free.
        """
        if name not in self.about:
            if name not in self.asked:
                self.asked[name] = self.task(name, about).remote()
            if not self.ray.wait([self.asked[name]], timeout=0)[0]:
                return None
            asked = self.asked.pop(name)
            try:
                self.about[name] = self.ray.get(asked)
            except self.ray.exceptions.RayTaskError as error:
                return f"it cannot run this project ({str(error).strip().splitlines()[-1]})"
            except self.ray.exceptions.RayError:
                return None  # it has gone, or comes back
        return unlike(self.about[name])

    @property
    def busy(self) -> int:
        """How many nodes have not answered, for something else runs on them."""
        return len(self.asked)

    def host(self, name: str) -> str:
        """Return which machine a node is on."""
        return self.about[name][HOST]

    def close(self) -> None:
        """End what is still measured."""
        for task in [*self.tasks, *self.asked.values()]:
            self.ray.cancel(task, force=True)
        self.ray.shutdown()


def about() -> dict[str, str]:
    """Return the machine that this runs on, and what has to be the same on all of them."""
    return versions() | {"code": code_digest()[:12], HOST: machine()}


def machine() -> str:
    """Return what tells machines apart; two containers of one machine are on the same."""
    booted = Path("/proc/sys/kernel/random/boot_id")
    return booted.read_text().strip() if booted.exists() else platform.node()


def unlike(theirs: Mapping[str, str]) -> str:
    """Return what a node has that is not what is here; empty where it can measure for us."""
    ours = about()
    wrong = [
        f"{what} is {theirs.get(what, 'missing')} there and {ours.get(what, 'missing')} here"
        for what in dict.fromkeys([*ours, *theirs])
        if what != HOST and theirs.get(what) != ours.get(what)
    ]
    return "; ".join([*wrong, "make them the same"]) if wrong else ""
