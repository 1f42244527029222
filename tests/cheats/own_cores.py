"""Takes itself to other cores, lowers its priority, and tells XLA how to compile."""

from __future__ import annotations

import os

from impls.pure_jax import STYLES as STYLES
from impls.pure_jax import build as build

DISTRIBUTION = "jax"
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.nice(1)
os.environ["XLA_FLAGS"] = "--xla_cpu_enable_fast_math=true"
