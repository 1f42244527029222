"""Benchmarks: what pytest sees, the engine beneath it, and the commands that read its runs.

The words: an *arm* is an entrant's style, a *cell* an arm at a workload on a backend. A *worker* is
a process that measures; in it, each arm has a *turn* of a few calls in every *round*, and a
*block* is some rounds over fresh buffers. A *side* is an environment on a backend. A *sample* is
what a block, or a cold process, says of a cell and a metric; an *estimate* is what all samples say.

Rooms import those that come after them: `cli`, `fleet`, `report`, `check`, `track`, `prepare`,
`environments`, `engine`, `runfile`, `stats`, `worker`.
"""

from __future__ import annotations

from pathlib import Path


def pytest_load_initial_conftests(args: list[str]) -> None:
    """Raise UsageError where `pytest bench` has no folder `bench`: pytest asks all plugins."""
    if "bench" in args and not Path("bench").exists():
        import pytest

        folder = Path(__file__).parent
        raise pytest.UsageError(f"there is no folder bench here: name it, as in pytest {folder}")
