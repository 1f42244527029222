"""JAX's persistent compilation cache, in a folder of one run's own."""

from __future__ import annotations

from contextlib import suppress

import jax

OPTIONS: dict[str, bool | int] = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def enable(folder: str) -> str:
    """Read programs from `folder`, and write there what had to be compiled.

    Returns:
        Why that cannot be, in words; nothing where it can.
    """
    for name, value in {**OPTIONS, "jax_compilation_cache_dir": folder}.items():
        try:
            jax.config.update(name, value)
        except Exception:
            with suppress(Exception):  # a release that has no such option has it always on
                jax.config.update("jax_enable_compilation_cache", False)
            return f"jax {jax.__version__} has no option {name}: nothing is read from a cache"
    decide_again()
    return ""


def decide_again() -> None:
    """Have JAX look at its options again: whether a cache is used, it decides once a process."""
    with suppress(Exception):  # it has decided nothing yet, as nothing has been compiled
        from jax.experimental.compilation_cache import compilation_cache

        compilation_cache.reset_cache()
