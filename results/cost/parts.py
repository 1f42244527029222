"""Measure what a call of a step spends its time on, for docs/why.md.

    python results/cost/parts.py

A timer interrupts calls of the step at width 8, on one core, some thousand times; each time, the
functions that run say which part of the call it is. Python takes an interrupt only at the beginning
of a function, at a loop's end and after a call into C++; what was interrupted at a function's
beginning therefore belongs to its caller. The shares are those of interrupts; times are these
shares of a call without a timer. Three processes of each style, two minutes, into parts.json.
"""

from __future__ import annotations

import dis
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import jax

from bench.cells import Arm
from bench.numbers import amount
from bench.report.charts import SECONDS_LABEL, TEXT
from bench.report.table import Column, Row, Table
from bench.worker.arms import load_workload
from common.equality import make

if TYPE_CHECKING:
    from types import CodeType, FrameType

FILE = Path(__file__).with_name("parts.json")
STYLES = (
    *("pure_jax/pure", "flax_nnx/jit_partial", "equinox/pure", "equinox/filter_jit"),
    *("flax_nnx/jit", "flax_linen/blog"),
)
PROCESSES = 3
SECONDS = 3.0
"""Seconds that calls are interrupted: 12,000 times, so a share of 1 % is known to a tenth of it."""
PERIOD = 2.31e-4
"""Seconds between interrupts: no multiple of a call."""
WARM_CALLS, TIMED_CALLS = 300, 2000
RULES = {
    "wait": r"block_until_ready",
    "hash, compare": r"__eq__|__hash__",
    "rebuild": r"unflatten|combine|from_tree|merge|update_params|__create_fn__.<locals>.__init",
    "take apart": r"flatten|partition|to_tree|split|tree_map",
    "look up, run": r"call_step|Threaded|^_call$|JitWrapped|Partial|InPlace|apply_prim",
}
"""Part of a call → pattern of its functions; of those that run, the innermost that fits decides."""
OTHER = "other Python"
COLOURS = "#E69F00", "#D55E00", "#0072B2", "#CC79A7", "#009E73", "#999999"
"""Colour of each part of `ORDER` (Okabe and Ito's, which differ for everybody)."""
BAR = 30
"""Height of a style's bar with its gap, in pixels."""
ORDER = "take apart", "hash, compare", "look up, run", "rebuild", "wait", OTHER
"""Parts in the order in which a call has them."""


def main() -> None:
    """Measure all styles, or one in this process if it is named."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(Arm.parse(sys.argv[1]))))
        return
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in STYLES}
    for _ in range(PROCESSES):
        for name, made in rows.items():
            command = [sys.executable, "-m", "results.cost.parts", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            made.append(json.loads(done.stdout.splitlines()[-1]))
            print(name, made[-1], file=sys.stderr)
    parts = [*RULES, OTHER]
    middle = {
        name: {part: median(row.get(part, 0.0) for row in made) for part in parts}
        for name, made in rows.items()
    }
    about = {"when": time.strftime("%Y-%m-%d"), "jax": jax.__version__, "seconds": middle}
    FILE.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def measure(arm: Arm) -> dict[str, float]:
    """Return part → seconds of a call."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    case, _ = load_workload("toy")
    step = make(arm.load(), case)
    step.load(case.fresh())
    hidden, chunk = case.hidden(), case.data()

    def call_step() -> None:
        jax.block_until_ready(step(hidden, chunk))

    for _ in range(WARM_CALLS):
        call_step()
    times = []
    for _ in range(TIMED_CALLS):
        start = time.perf_counter()
        call_step()
        times.append(time.perf_counter() - start)
    parts: Counter[str] = Counter()

    def interrupt(_: int, frame: FrameType | None) -> None:
        parts[find_part(frame)] += 1
        signal.setitimer(signal.ITIMER_REAL, PERIOD)  # once: this may take longer than that

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, PERIOD)
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        call_step()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # the last one may still come
    quiet = sorted(times)[TIMED_CALLS // 10]  # a 10 % quantile, as for `host_cost`
    return {part: quiet * count / parts.total() for part, count in parts.items()}


def find_part(frame: FrameType | None) -> str:
    """Return the part of a call that is interrupted."""
    if frame is not None and frame.f_lasti <= find_resume(frame.f_code):
        frame = frame.f_back
    while frame is not None:
        name = frame.f_code.co_qualname.rpartition("<locals>.")[2]
        whole = f"{frame.f_code.co_qualname} {name}"
        for part, pattern in RULES.items():
            if re.search(pattern, whole if "<" in pattern else name):
                return part
        frame = frame.f_back
    return OTHER


@cache
def find_resume(code: CodeType) -> int:
    """Return where a function's first instruction stands, at which it can be interrupted."""
    return next((i.offset for i in dis.get_instructions(code) if i.opname == "RESUME"), 0)


def make_parts_table() -> Table:
    """Return a row for each style, with the times of its parts."""
    about: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    columns = Column("style"), *(Column(part, number=True) for part in ("a call", *ORDER))
    rows = []
    for name, row in about["seconds"].items():
        parts = (amount(row[part], "s") if row[part] else "" for part in ORDER)
        rows.append(Row((name, amount(sum(row.values()), "s"), *parts)))
    return Table(columns, tuple(rows))


def draw_parts() -> dict[str, Any]:
    """Return the chart of the same: a bar for each style, its parts in the order of a call."""
    about: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    data = [
        {"style": name, "part": part, "seconds": row[part], "order": ORDER.index(part)}
        for name, row in about["seconds"].items()
        for part in ORDER
    ]
    totals = [
        {"style": name, "seconds": sum(row.values()), "text": amount(sum(row.values()), "s")}
        for name, row in about["seconds"].items()
    ]
    y = {"field": "style", "type": "nominal", "sort": None, "title": None}
    x = {"type": "quantitative", "title": None, "axis": {"labelExpr": SECONDS_LABEL}}
    colours = {"domain": list(ORDER), "range": list(COLOURS)}
    legend = {"orient": "bottom", "title": None, "labelColor": TEXT, "columns": 3}
    bars = {
        "y": y,
        "x": x | {"field": "seconds"},
        "color": {"field": "part", "type": "nominal", "scale": colours, "legend": legend},
        "order": {"field": "order"},
    }
    label = {"type": "text", "align": "left", "dx": 4, "color": TEXT}
    ends = {"y": y, "x": x | {"field": "seconds"}, "text": {"field": "text"}}
    return {
        "layer": [
            {"data": {"values": data}, "mark": "bar", "encoding": bars},
            {"data": {"values": totals}, "mark": label, "encoding": ends},
        ],
        "height": BAR * len(totals),
    }


if __name__ == "__main__":
    main()
