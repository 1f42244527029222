"""`python -m bench.compare.calibrate RUN.json …`: what runs of the same code wander by.

What it prints is what `between.BETWEEN` is made of.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.compare import between
from bench.compare.compare import cells, kind_of, measurements
from bench.report.runs import read
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.compare.between import Kind, Wobble
    from bench.report.runs import Run


def between_runs(runs: Sequence[Run]) -> dict[Kind, Wobble]:
    """Return the standard deviation between runs of the same code, by kind of row."""
    found, facts = [measurements(run) for run in runs], [cells(run) for run in runs]
    keys = dict.fromkeys(key for run in found for key in run)
    return between.between_runs(found, {key: kind_of(key, *facts) for key in keys})


def main(paths: Sequence[str]) -> int:
    """Print the table."""
    try:
        if len(paths) < 2:
            raise BakeoffError(f"{len(paths)} runs are given; give two or more of the same code")
        for kind, wobble in between_runs([read(Path(path)) for path in paths]).items():
            print(f"Kind.{kind.name}: Wobble({wobble.sd:.4f}, {wobble.df:.0f}),")
    except BakeoffError as error:
        print(f"bakeoff: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
