"""What this machine does at best, on one core and on all.

For all cores there is a process on each at the same time, with work of its own: none waits for
another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from bench.tuned.limit import Rates
from bench.tuned.rates import Core, Sizes
from bench.worker.settings import ROOT, affinity, environment
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

OLD_BLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that make an older OpenBLAS right on a new processor, and a newer one slow."""
ONE_THREAD = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
)
TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Roofline:
    """The rates at one size."""

    one: Rates
    """Of one core, the others being left alone."""
    together: Rates
    """Of all cores, each with work of its own."""
    share_seconds: float
    """Of one product of the chain on one core, of its share of the streams."""


def measured(sizes: Sequence[Sizes], seconds: float) -> tuple[list[Roofline], str]:
    """Return the rates at some sizes, and what multiplied the matrices.

    Args:
        sizes: Of some workloads.
        seconds: That each of the rates is looked at, on one core and again on all.

    Raises:
        BakeoffError: a process failed, or took too long.
    """
    anywhere: list[int | None] = [None]
    cores = usable_cores()
    (alone,), (blas, *_) = processes(sizes, seconds, anywhere, len(cores))
    together = [alone]
    if len(cores) > 1:
        together, _ = processes(sizes, seconds, cores, len(cores))
    found = [
        Roofline(one.rates, summed([core.rates for core in all_]), one.share_seconds)
        for one, *all_ in zip(alone, *together, strict=True)
    ]
    return found, blas


def usable_cores() -> list[int | None]:
    """Return the cores that workers may use; None for each where a process cannot choose."""
    known = affinity()
    return [*known] if known else [None] * (os.cpu_count() or 1)


def processes(
    sizes: Sequence[Sizes], seconds: float, cores: Sequence[int | None], share: int
) -> tuple[list[list[Core]], list[str]]:
    """Return what a process on each of some cores finds at each size, and its BLAS."""
    given = {"sizes": [asdict(each) for each in sizes], "seconds": seconds, "share": share}
    started = [
        subprocess.Popen(  # noqa: S603 -- our own module, no shell
            [sys.executable, "-m", "bench.tuned.rates", json.dumps(given | {"core": core})],
            env=variables(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for core in cores
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT_SECONDS) for process in started]
    except subprocess.TimeoutExpired as error:
        raise BakeoffError(
            f"measuring the machine took over {TIMEOUT_SECONDS} s; give fewer seconds or workloads"
        ) from error
    finally:
        for process in started:
            process.kill()
            process.wait()
    for process, (_, stderr) in zip(started, said, strict=True):
        if process.returncode:
            last = (stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            raise BakeoffError(f"measuring the machine failed ({last}); try a smaller workload")
    answers = [json.loads(stdout) for stdout, _ in said]
    found = [
        [Core(Rates(**each["rates"]), each["share_seconds"]) for each in answer["found"]]
        for answer in answers
    ]
    return found, [answer["blas"] for answer in answers]


def variables() -> dict[str, str]:
    """Return a worker's environment variables, without what slows BLAS, and with one thread."""
    kept = {name: value for name, value in environment().items() if name not in OLD_BLAS}
    return kept | dict.fromkeys(ONE_THREAD, "1")


def summed(cores: Sequence[Rates]) -> Rates:
    """Return what cores do together that each do so much."""
    rates = {
        field.name: sum(getattr(core, field.name) for core in cores) for field in fields(Rates)
    }
    return Rates(**rates | {"product_seconds": 1 / sum(1 / core.product_seconds for core in cores)})
