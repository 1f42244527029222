"""Which files of the repository have changed while an entrant was judged."""

from __future__ import annotations

import os
from pathlib import Path

from bench.check.traces import CACHES

LEFT_OUT = {*CACHES, ".bakeoff", ".benchmarks", "build", "dist", "node_modules"}

type Snapshot = dict[str, tuple[int, int]]
"""Time of change in nanoseconds and size, by path."""


def snapshot(root: Path) -> Snapshot:
    """Return what the files below `root` are like, without caches and what git keeps."""
    found: Snapshot = {}
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if name not in LEFT_OUT]
        for name in files:
            path = Path(folder, name)
            try:
                about = path.lstat()
            except OSError:  # gone meanwhile
                continue
            found[str(path.relative_to(root))] = about.st_mtime_ns, about.st_size
    return found


def changed(before: Snapshot, after: Snapshot) -> list[str]:
    """Return the files that were written, made or removed in between."""
    paths = before.keys() | after.keys()
    return sorted(path for path in paths if before.get(path) != after.get(path))
