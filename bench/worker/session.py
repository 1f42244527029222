"""What a warm worker holds: the compiled steps of each setting, and what is done with them."""

from __future__ import annotations

import gc
import os
import random
import re
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import impls
from bench.cells import BASELINE, CONTROL
from bench.metrics import TINY
from bench.worker import turns
from bench.worker.counts import exact
from bench.worker.gpus import gpus
from bench.worker.program import ProgramFacts, difference, facts
from bench.worker.setting import Setting, setting, use
from bench.worker.source import code_lines
from common.contract import fresh_checkpoint, zero_hidden
from common.equality import (
    NotEqualError,
    deviation,
    make,
    random_chunk,
    random_hidden,
    random_weights,
    trajectory,
)
from common.errors import BakeoffError
from common.tolerances import TRAJECTORY_TOLERANCE
from common.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.worker.recorder import Turn
    from common.contract import Chunk, TrainStep

type Name = tuple[str, str]
"""Entrant and style; the control is one."""

CHUNKS = 8
"""Chunks of the text that blocks are timed on, one after the other."""
WARM_CALLS = 3
"""Calls before a block's rounds: the second and third can still take another path."""


def describe(entrants: list[str], outside: dict[str, str]) -> dict[str, Any]:
    """Say what this environment offers; of all entrants, or of those named."""
    for path in outside.values():
        impls.add(path)
    styles, problems, missing, alone = {}, {}, {}, {}
    libraries, foreign = [], []
    for name in entrants or impls.usual():
        try:
            entrant = impls.load(name)
            libraries.append(entrant.distribution)
            styles[name] = list(entrant.styles)
            if entrant.missing:
                missing[name] = dict(entrant.missing)
            if not impls.declared(name).jax:
                foreign.append(name)
            if own := [style for style in impls.declared(name).alone if style in entrant.styles]:
                alone[name] = own
        except BakeoffError as error:
            problems[name] = str(error)
        except Exception:
            problems[name] = f"import failed: {last_line()}"
    devices = offered_devices()
    return {
        "styles": styles,
        "problems": problems,
        "missing": missing,
        "alone": alone,
        "foreign": foreign,
        "backends": list(devices),
        "devices": devices,
        "details": {backend: details(backend) for backend in devices},
        "versions": versions(libraries),
        "uncached": uncached(),
    }


def uncached() -> int:
    """Return of how many imported modules Python keeps no bytecode, for it cannot write any."""
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    cached = [spec.cached for spec in specs if spec is not None and spec.cached]
    return sum(not Path(path).exists() for path in cached)


def offered_devices() -> dict[str, str]:
    """Return the kind of the first device of each backend that there is."""
    devices = {}
    for backend in dict.fromkeys(("cpu", "gpu", "tpu", *platforms())):
        try:
            devices[backend] = str(jax.devices(backend)[0].device_kind)
        except RuntimeError:
            continue
    return devices


def platforms() -> list[str]:
    """Return what jax calls the backends that it has; none where an old release does not say."""
    with suppress(Exception):
        from jax.extend.backend import backends

        return [client.devices()[0].platform for client in backends().values()]
    return []


def details(backend: str) -> dict[str, Any]:
    """Return what a backend is and what is set for it.

    Returns:
        How many devices it has, the memory of one in bytes, its driver's words, and settings that
        say how its programs are made and run.
    """
    found, driver = jax.devices(backend), ""
    memory: dict[str, Any] = {}
    with suppress(Exception):  # an old release, or a driver that does not tell
        memory = found[0].memory_stats() or {}
        driver = " ".join(str(found[0].client.platform_version).split())
    return {
        "count": len(found),
        "memory": memory.get("bytes_limit"),
        "driver": "" if driver in ("<unknown>", backend) else driver,
        "matmul_precision": str(jax.config.jax_default_matmul_precision),
        "memory_statistics": bool(memory),
        **({} if backend == "cpu" else of_accelerator()),
        **({"cards": [asdict(card) for card in gpus() or ()]} if backend == "gpu" else {}),
    }


def of_accelerator(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return how memory is taken, and kernels are chosen, on what is no CPU."""
    taken = environment.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    level = re.search(r"--xla_gpu_autotune_level=(\d+)", environment.get("XLA_FLAGS", ""))
    return {
        "preallocation": taken,
        "autotuning": f"level {level[1]}" if level else "XLA's own level, anew in each process",
    }


TRACEBACK_LINES = 12
"""Lines of a failure's traceback that are kept."""


class Opened:
    """One setting: what is timed there, and the steps of the arms that were opened."""

    def __init__(self, found: Setting) -> None:
        self.case, self.corpus, self.tokens = found
        self.weights = random_weights(self.case.model)
        self.chunks = list(islice(turns.stream(self.case, self.tokens), CHUNKS))
        self.steps: dict[Name, TrainStep] = {}
        self.losses: np.ndarray | None = None
        """The baseline's in ten steps."""
        self.program: ProgramFacts | None = None
        """The baseline's."""
        self.calls: dict[str, dict[Name, turns.Fresh]] = {}
        """What gives other turns than a step's, by name: made once, since they compile."""

    def baseline(self, name: Name, step: TrainStep) -> np.ndarray:
        """Return the losses of the baseline's ten steps; `step`, if that is the baseline's own."""
        if self.losses is None:
            if name != BASELINE:
                raise RuntimeError("the baseline has to be first")
            self.losses = trajectory(step, self.case)
        return self.losses

    def load(self, name: Name) -> None:
        """Give an arm fresh buffers: copies, so that no two arms share one."""
        self.steps[name].load(jax.tree.map(np.copy, fresh_checkpoint(self.weights)))


class Session:
    """The state of a warm worker; each method is one command, and returns one record."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.arms: list[Name] = []
        self.settings: dict[tuple[str, str], Opened] = {}
        self.counted: list[TrainStep] = []
        """Kept: `jax.clear_caches` of jax 0.4.28 and 0.7.0 crashes where it frees a step."""
        self.cache_hits = 0
        """Programs that came from the persistent compilation cache, which has to be off."""

        def happened(event: str, **_: str | int) -> None:
            self.cache_hits += event.endswith("cache_hits")

        jax.monitoring.register_event_listener(happened)

    def load(self, arms: list[list[str]], outside: dict[str, str]) -> dict[str, Any]:
        """Import the entrants of all arms, whose order gives them their indices."""
        for path in outside.values():
            impls.add(path)
        self.arms = [(entrant, style) for entrant, style in arms]
        failures = {}
        for index, (entrant, style) in enumerate(self.arms):
            self.turn.at(index)
            failure = guarded(partial(loaded, entrant, style))
            if isinstance(failure, Failed):
                failures[f"{entrant}/{style}"] = failure
        self.turn.nobody()
        gc.collect()
        gc.freeze()  # what is imported stays; collections before blocks need not look at it
        return {"failures": failures}

    def backends(self) -> dict[str, Any]:
        """Say which backends there are."""
        return {"backends": list(offered_devices())}

    def at(self, workload: str, backend: str) -> Opened:
        """Return a setting, opened when first asked for."""
        key = (workload, backend)
        use(backend)
        if key not in self.settings:
            self.settings[key] = Opened(setting(workload, backend))
        return self.settings[key]

    def one(self, arm: int, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do something that is one arm's own; a failure is that arm's."""
        self.turn.at(arm)
        found = guarded(action)
        self.turn.nobody()
        if self.cache_hits:
            raise RuntimeError("the persistent compilation cache was used")
        if isinstance(found, Failed):
            return {"failure": str(found), "stderr": found.traceback}
        return dict(found)

    def count(self, workload: str, backend: str, arm: int) -> dict[str, Any]:
        """Count what an arm's step has Python and JAX do; it says the same at all sizes.

        JAX's caches are cleared for that, so that whatever was compiled is compiled anew when it is
        called next: count before anything is proven.
        """
        opened, name = self.at(workload, backend), self.arms[arm]

        def counts() -> dict[str, Any]:
            self.counted.append(make(loaded(*name), opened.case))
            return {"exact": asdict(exact(self.counted[-1], opened.case))}

        return self.one(arm, counts)

    def prove(self, workload: str, backend: str, arm: int) -> dict[str, Any]:
        """Make an arm's step, and show that it is equal."""
        opened, name = self.at(workload, backend), self.arms[arm]

        def proof() -> dict[str, Any]:
            step, case = make(loaded(*name), opened.case), opened.case
            away = deviation(step, case, opened.baseline(name, step))
            away.require()
            step.load(fresh_checkpoint(opened.weights))
            program = step.program(random_hidden(case), random_chunk(case, 1))
            ours = facts(program) if program is not None else None
            opened.program = opened.program or ours
            assert opened.program is not None, "the baseline is first, and is JAX"
            opened.steps[name] = step
            file = impls.source(aliased(name)[0])
            exact = {"parameters": case.model.parameters, "code_lines": code_lines(file)}
            about = beside(ours, opened.program)
            about["settings"] = dict(getattr(step, "settings", {}))
            return {"proof": asdict(away) | about, "exact": exact | numbers(ours)}

        return self.one(arm, proof)

    def open(self, workload: str, backend: str, arm: int) -> dict[str, Any]:
        """Make the step of an arm that another process has proven: the losses must be the same."""
        opened, name = self.at(workload, backend), self.arms[arm]

        def opening() -> dict[str, Any]:
            step = make(loaded(*name), opened.case)
            expected = opened.baseline(name, step)
            away = float(np.max(np.abs(trajectory(step, opened.case) - expected)))
            if not away <= TRAJECTORY_TOLERANCE:
                raise NotEqualError(
                    f"not equal in this process, though it was in another: ten steps' losses off "
                    f"by {away:.2g} nats from the baseline (allowed: {TRAJECTORY_TOLERANCE:g})"
                )
            opened.steps[name] = step
            return {}

        return self.one(arm, opening)

    def prepare(self, workload: str, backend: str, kind: str, arms: list[int]) -> dict[str, Any]:
        """Compile what turns of this kind need beyond the steps."""
        opened = self.at(workload, backend)
        calls = opened.calls[kind] = {}
        failures: dict[str, str] = {}
        for arm in arms:
            name = self.arms[arm]
            entrant, style = aliased(name)
            self.turn.at(arm)
            found = guarded(partial(turns.PREPARED[kind], entrant, style, opened))
            if isinstance(found, Failed):
                failures["/".join(name)] = found
            else:
                calls[name] = found
        self.turn.nobody()
        return {"failures": failures}

    def block(
        self, workload: str, backend: str, kind: str, rounds: int, seed: int
    ) -> dict[str, Any]:
        """Measure one block of turns of this kind: fresh buffers, then rounds in random order.

        Returns:
            Seconds by metric, arm (`entrant/style`) and sample, in the order they were taken.
        """
        opened = self.at(workload, backend)
        rng = random.Random(seed)  # noqa: S311 -- an order of rounds is no secret
        if kind in turns.PREPARED:
            units = self.fresh_calls(opened.calls[kind], rng)
        else:
            units = self.fresh(opened, turns.OF_STEPS[kind], rng)
        index = {name: i for i, name in enumerate(self.arms)}
        found = turns.interleave(
            units,
            rounds,
            rng,
            at=lambda name: self.turn.at(index[name]),
            untimed=int(workload in TINY),  # where a first round is slower, and costs nothing
        )
        self.turn.nobody()
        return {
            "seconds": {
                metric: {"/".join(name): seconds[metric] for name, seconds in found.items()}
                for metric in next(iter(found.values()), {})
            }
        }

    def fresh(self, opened: Opened, kind: Any, rng: random.Random) -> dict[Name, turns.Unit]:
        """Return turns over fresh buffers, at new offsets, allocated and warmed in random order."""
        chunk: Chunk = jax.tree.map(jax.numpy.array, rng.choice(opened.chunks))
        hidden = zero_hidden(opened.case.model, opened.case.batch)
        names, units, padding = list(opened.steps), {}, []
        for name in rng.sample(names, len(names)):
            self.turn.at(self.arms.index(name))
            padding.append(jax.device_put(np.zeros(rng.randrange(1, 1 << 14), np.float32)))
            opened.load(name)
            for _ in range(WARM_CALLS):
                jax.block_until_ready(opened.steps[name](hidden, chunk))
            units[name] = kind(opened.steps[name], hidden, chunk)
        return units

    def fresh_calls(
        self, calls: dict[Name, turns.Fresh], rng: random.Random
    ) -> dict[Name, turns.Unit]:
        """Return turns over fresh buffers, as `fresh` does, of what compiles apart."""
        units, padding = {}, []
        for name in rng.sample(list(calls), len(calls)):
            self.turn.at(self.arms.index(name))
            padding.append(jax.device_put(np.zeros(rng.randrange(1, 1 << 14), np.float32)))
            units[name] = calls[name]()
        return units

    def train(self, workload: str, backend: str, arm: int) -> dict[str, Any]:
        """Train an arm, from the same weights and from its library's own initialisers."""
        opened, name = self.at(workload, backend), self.arms[arm]

        def training() -> dict[str, Any]:
            entrant, style = aliased(name)
            found = turns.final_loss(entrant, style, opened.steps[name], opened)
            corpus = opened.corpus
            text = {"corpus": corpus.name, "corpus_sha256": corpus.sha256}
            return {"training": found | text | {"entropy": corpus.entropy}}

        return self.one(arm, training)


def beside(ours: ProgramFacts | None, baseline: ProgramFacts) -> dict[str, Any]:
    """Return what a proof says of an arm's program; None stands for one that is not JAX's."""
    if ours is None:
        return {
            "whole_step": True,
            "same_program_as_baseline": False,
            "operations_beside_baseline": {},
            "jax": False,
            "program": None,
        }
    return {
        "whole_step": ours.whole,
        "same_program_as_baseline": ours.fingerprint == baseline.fingerprint,
        "operations_beside_baseline": difference(ours.operations, baseline.operations),
        "program": asdict(ours),
    }


def numbers(ours: ProgramFacts | None) -> dict[str, float]:
    """Return the exact metrics of a program; none of one that is not JAX's."""
    if ours is None:
        return {}
    return {
        "jaxpr_equations": ours.jaxpr_equations,
        "hlo_instructions": sum(ours.hlo_instructions.values()),
        "flops": ours.flops,
        "bytes_accessed": ours.bytes_accessed,
        "temp_bytes": ours.temp_bytes,
        "argument_bytes": ours.argument_bytes,
    }


def aliased(name: Name) -> Name:
    """Return whose code an arm runs: the control runs the baseline's."""
    return BASELINE if name == CONTROL else name


def loaded(entrant: str, style: str) -> Any:
    """Return the style of an arm."""
    entrant, style = aliased((entrant, style))
    return impls.load(entrant).style(style)


class Failed(str):
    """Why something failed, in words."""

    __slots__ = ("traceback",)
    traceback: str
    """Its last lines; empty where the words say all."""


def guarded(action: Callable[[], Any]) -> Any:
    """Return what `action` returns, or why it failed."""
    try:
        return action()
    except BakeoffError as error:
        failed = Failed(error)
        failed.traceback = ""
    except Exception:
        failed = Failed(f"raised {last_line()}")
        failed.traceback = "\n".join(traceback.format_exc().splitlines()[-TRACEBACK_LINES:])
    return failed


def last_line() -> str:
    """Return the exception being handled, on one line."""
    return " ".join("".join(traceback.format_exception_only(*sys.exc_info()[:2])).split())
