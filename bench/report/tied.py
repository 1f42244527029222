"""What a run file says of a comparison, as the estimate that it was made from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.stats.ratios import corrected

if TYPE_CHECKING:
    from bench.report.wording import Facts
    from bench.stats.ratios import Estimate


def estimate_of(found: Facts) -> Estimate | None:
    """Return the estimate that a metric's ratio in a file is, if its doubt is known.

    Its interval is a single comparison's.
    """
    if found.get("ratio") is None or found.get("standard_error") is None:
        return None
    error, df = found["standard_error"], found.get("df") or 1.0
    blocks, workers = found.get("blocks") or 1, found.get("processes") or 1
    return corrected(math.log(found["ratio"]), error, df, blocks, workers)
