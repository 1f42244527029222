"""The task as pyperf has it."""

import os

import pyperf  # type: ignore[import-not-found]

from results.beside.task import make_step

if __name__ == "__main__":
    runner = pyperf.Runner()
    runner.bench_func("step", make_step(float(os.environ["BESIDE_WAIT"])))
