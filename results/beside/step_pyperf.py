"""The task as pyperf has it."""

import os

import pyperf  # type: ignore[import-not-found]

if __name__ == "__main__":
    runner = pyperf.Runner()
    step = None
    if runner.parse_args().worker:  # the process that starts the others has no use for a step
        from results.beside.task import make_step

        step = make_step(float(os.environ["BESIDE_WAIT"]))
    runner.bench_func("step", step)
