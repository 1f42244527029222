"""Steps called as a user calls them, in a program that knows nothing of the measurement.

Its text is given to a fresh interpreter with `-c`, so that neither its file nor its module has a
name by which a step could tell that it is observed. It answers one question in the workers'
protocol: how long do calls of these steps take, in turns?
"""

import json
import os
import statistics
import sys
import time

READY = {"ready": True, "protocol": 4}


def answer(arms: list[list[str]], path: str, workload: str, rounds: int) -> dict[str, object]:
    """Return each arm's median seconds of a call, and its loss after all calls."""
    import jax

    import impls
    from common.config import WORKLOADS
    from common.contract import fresh_checkpoint, zero_hidden
    from common.equality import Case, make, random_chunk, random_weights

    if path:
        impls.add(path)
    case = Case.of(WORKLOADS[workload], vocab_size=5)
    chunk, hidden = random_chunk(case, 1), zero_hidden(case.model, case.batch)
    steps = [make(impls.load(entrant).style(style), case) for entrant, style in arms]
    for step in steps:
        step.load(fresh_checkpoint(random_weights(case.model)))
        for _ in range(3):
            jax.block_until_ready(step(hidden, chunk))
    seconds: list[list[float]] = [[] for _ in steps]
    losses = [0.0 for _ in steps]
    for _ in range(rounds):
        for index, step in enumerate(steps):
            jax.block_until_ready(step(hidden, chunk))
            start = time.perf_counter()
            _, loss = jax.block_until_ready(step(hidden, chunk))
            seconds[index].append(time.perf_counter() - start)
            losses[index] = float(loss)
    return {"seconds": [statistics.median(row) for row in seconds], "losses": losses}


with os.fdopen(os.dup(1), "w") as out:
    os.dup2(2, 1)
    print(json.dumps(READY), file=out, flush=True)
    for line in sys.stdin:
        for record in (answer(**json.loads(line)), READY):
            print(json.dumps(record), file=out, flush=True)
