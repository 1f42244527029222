"""`python -m tests.over_devices ENTRANT STYLE…`: ten steps over several devices, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import numpy as np

import impls
from bench.measure.counts import compilations
from common.config import ModelConfig
from common.contract import fresh_checkpoint, zero_hidden
from common.devices import names
from common.equality import Case, make, random_chunk, random_weights, trajectory

CASE = Case(ModelConfig(11, width=16, layers=2), chunk=12, batch=4)
DEVICES = (1, 2, 4)


def over(entrant: str, style: str) -> dict[str, dict[str, Any]]:
    """Return how far each number of devices is from none, and what further calls compile."""
    one = trajectory(make(impls.load(entrant).style(style), CASE), CASE)
    found = {}
    for name in names(style, DEVICES):
        step = make(impls.load(entrant).style(name), CASE)
        away = float(np.max(np.abs(trajectory(step, CASE) - one)))
        step.load(fresh_checkpoint(random_weights(CASE.model)))
        hidden = zero_hidden(CASE.model, CASE.batch)
        with compilations() as count:
            for i in range(3):
                hidden, loss = step(hidden, random_chunk(CASE, i))
        found[name] = {
            "away": away,
            "compiled": count(),
            "rows": hidden[0].shape[0],
            "devices": len(hidden[0].sharding.device_set),
            "divided": hidden[0].addressable_shards[0].data.shape[0],
            "loss_everywhere": loss.sharding.is_fully_replicated,
            "updates": step.save().updates,
        }
    return found


def main() -> None:
    entrant, *styles = sys.argv[1:]
    print(json.dumps({style: over(entrant, style) for style in styles}))
    assert len(jax.devices()) == max(DEVICES)


if __name__ == "__main__":
    main()
