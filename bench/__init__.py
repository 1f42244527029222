"""Benchmarks: what pytest sees, the engine beneath it, and the commands that read its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def pytest_load_initial_conftests(early_config: Any, args: list[str]) -> None:
    """Say where `pytest bench` runs, where it is called elsewhere: pytest asks all plugins."""
    del early_config
    if "bench" in args and not Path("bench").exists():
        import pytest

        folder = Path(__file__).parent
        raise pytest.UsageError(f"there is no folder bench here: name it, as in pytest {folder}")
