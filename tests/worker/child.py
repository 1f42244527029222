"""A real worker with the usual arguments of these tests."""

from __future__ import annotations

import os
from typing import Any, Self

from bench.engine.process import Worker
from tests.commands import ROOT

MISTAKES = ROOT / "tests" / "mistakes"
TOY = {"workload": "toy", "backend": "cpu"}
HONEST = ["pure_jax/pure", "control/pure", "haiku/pure"]


class Child(Worker):
    """A worker, whose programs come from the cache of this test session."""

    proofs: dict[str, Any]
    """Of its arms, where there are any."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def do(self, do: str, **arguments: Any) -> Any:
        return self.ask({"do": do, **arguments})

    def load(self, arms: list[str], **more: Any) -> Any:
        """Load arms; entrants that are a file of `tests/mistakes` come from there."""
        files = {arm.split("/")[0]: MISTAKES / f"{arm.split('/')[0]}.py" for arm in arms}
        outside = {name: str(path) for name, path in files.items() if path.exists()}
        cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
        usual = {"outside": outside, "cache": cache, "seed": 0}
        return self.do("load", arms=arms, **(usual | more))

    def opened(self, arms: list[str], losses: list[float] | None = None) -> None:
        for arm in arms:
            assert self.do("open", arm=arm, losses=losses, **TOY) == {}, arm

    def block(self, arms: list[str], kind: str = "step", **more: Any) -> Any:
        return self.do("block", **TOY, **({"kind": kind, "rounds": 2, "seed": 3} | more), arms=arms)


def samples(answer: Any) -> dict[str, dict[str, Any]]:
    """Return the samples of an answer, by metric and arm: value, calls, median and 95 %."""
    table: dict[str, dict[str, Any]] = {}
    for arm, metric, *values in answer["samples"]:
        table.setdefault(metric, {})[arm] = values
    return table
