"""`python -m bench.fleet.benchmark ARGUMENT…`: `pytest bench`, which ends with who has started it.

A node of a cluster may be lost while its machine lives; what it measured would go on there, and the
machine would be nobody else's until it had ended.
"""

from __future__ import annotations

import sys

import pytest

from bench.worker.__main__ import end_with_parent
from bench.worker.settings import ROOT


def main() -> int:
    """Measure; return pytest's exit status."""
    end_with_parent()
    return int(pytest.main([str(ROOT / "bench"), *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
