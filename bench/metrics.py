"""The table of metrics: the name of each, its unit, how it is sampled and compared.

A new metric is a row here, and the code in `bench.worker` that samples it; pytest, tables, pages
and comparisons take it from here. The first table has the columns of
`bench.report.summary.make_summary_table`; `--details` show all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bench.workloads import is_skeleton, is_user_step
from common.config import DEEP, SWEEP


class Kind(StrEnum):
    """Ways to sample a metric."""

    WARM = "warm"
    """Sampled in blocks of interleaved rounds, in workers that measure many blocks."""
    COLD = "cold"
    """Sampled once in each fresh process."""
    ONCE = "once"
    """Sampled once in each run, by training; runs differ only by rounding."""
    EXACT = "exact"
    """Counted: the same every time."""


@dataclass(frozen=True)
class Metric:
    """One thing measured. All are costs: less is better, unless `neutral`."""

    name: str
    help: str
    """Description in a few words."""
    kind: Kind = Kind.EXACT
    unit: str = ""
    """`s`, `B`, `nats`, or nothing for a number."""
    head: str = ""
    """Head of its column, if that is not its name's words."""
    turn: str = ""
    """Kind of turns that sample it; one kind of turns can sample several metrics."""
    added: bool = False
    """Whether it is compared as seconds added to the baseline's call, not as a ratio: it is the
    host's time, measured at `TINY` workloads and of a user's own step."""
    of_library: bool = False
    """Whether all styles of an entrant share its samples."""
    of_program: bool = False
    """Whether all arms that lower to the same program share its samples."""
    weight: float = 0.3
    """Weight of its uncertainty relative to other metrics'; people ask for steps first."""
    compared: bool = True
    """Whether it is compared with a reference; if not, it may be zero and has no verdict."""
    neutral: bool = False
    """Whether less is not better."""
    named: bool = False
    """Whether pytest has a benchmark of it only if it is named; workers sample it with every other
    metric of its kind of turns."""

    @property
    def label(self) -> str:
        """Head of its column; a line break where a narrow column has one."""
        return self.head or self.name.replace("_", "\n")

    @property
    def varies(self) -> bool:
        """Whether it varies from sample to sample, so that it is compared by statistics."""
        return self.kind in (Kind.WARM, Kind.COLD)

    def is_measured_at(self, workload: str) -> bool:
        """Tell whether a workload's cells have this metric."""
        if is_skeleton(workload):
            return self.name in OF_SKELETON
        if is_user_step(workload):
            return self.name not in OF_OUTLINE and (not self.added or self.name == HOST)
        return not self.added or workload in TINY


WORKLOAD_GROUPS = {"sweep": tuple(workload.name for workload in SWEEP)}
"""Name → the workloads that it stands for."""
TINY = ("toy", DEEP.name)
"""Workloads where the device has next to nothing to do, so that a call's time is the host's."""
STEP, HOST, STAGES = "step", "host_cost", "stages"
"""The two metrics that people ask for first, and the turns that trace, lower and compile."""
OF_OUTLINE = ("trace", "lower")
"""Metrics that need no numbers in a user's arrays: they are measured beside the skeleton."""
OF_SKELETON = (HOST, *OF_OUTLINE)
STARTUP, STARTS = "startup", "python_starts"
HOST_IN_A_ROW, HOST_PER_ARRAY = "host_cost_pipelined", "host_cost_per_array"
USUAL: dict[str, tuple[str, ...]] = {
    "toy": (HOST,),
    "wide": (STEP,),
    **dict.fromkeys(WORKLOAD_GROUPS["sweep"], (STEP,)),
    DEEP.name: (HOST, "trace", "lower", "compile", "first_step"),
}
"""Workload → metrics sampled where neither it nor a metric is named, or where it is one of a group;
elsewhere, all are. The time of a step at `toy` is scheduling noise on all cores (4 to 21 %
detectable in a default run), while its host cost is known to a microsecond."""

TABLE = (
    Metric(STEP, "one training step, waited for", Kind.WARM, "s", turn="step", weight=3),
    Metric(
        "cores_used",
        "processor seconds per second of a step, where it may use all cores",
        Kind.WARM,
        turn="step",
        compared=False,
        named=True,  # its samples come with every step
        weight=1,
    ),
    Metric(
        "step_pipelined",
        "one step of 50 in a row, of which only the last is waited for; measured if named",
        Kind.WARM,
        "s",
        head="step,\nin a row",
        turn="pipelined",
        named=True,
        weight=1,
    ),
    Metric(
        HOST,
        "time that a style adds to a call at a tiny size, each call waited for",
        Kind.WARM,
        "s",
        head="call",
        turn=HOST,
        added=True,
        weight=3,
    ),
    Metric(
        HOST_PER_ARRAY,
        "what each further array of parameters costs the host in a call",
        Kind.WARM,
        "s",
        head="call,\nper array",
        weight=3,
    ),
    Metric(
        HOST_IN_A_ROW,
        "the same, when only the last of ten calls is waited for",
        Kind.WARM,
        "s",
        head="calls\nin a row",
        turn=HOST,
        added=True,
        weight=0,
    ),
    Metric("import", "importing the library in a fresh process", Kind.COLD, "s", of_library=True),
    Metric("init", "the library's own initialiser", Kind.COLD, "s", of_library=True),
    Metric("trace", "Python to jaxpr", Kind.WARM, "s", turn=STAGES),
    Metric("lower", "jaxpr to StableHLO", Kind.WARM, "s", turn=STAGES),
    Metric(
        "compile", "StableHLO to a program, by XLA", Kind.WARM, "s", turn=STAGES, of_program=True
    ),
    Metric("first_step", "the first call after compiling", Kind.COLD, "s"),
    Metric(
        STARTUP,
        "from a fresh process to the end of its first step: the sum of all stages",
        Kind.COLD,
        "s",
    ),
    Metric(
        "peak_rss",
        "largest resident memory of a fresh process",
        Kind.COLD,
        "B",
        head="peak\nmemory",
    ),
    Metric(
        "final_loss",
        "after a short training, from the same weights",
        Kind.ONCE,
        "nats",
        head="loss,\nsame weights",
    ),
    Metric(
        "final_loss_own",
        "the same from the library's own initialiser",
        head="loss,\nown weights",
        unit="nats",
        neutral=True,
    ),
    Metric("python_calls", "calls of one warm step", head="Python\ncalls"),
    # Calls cost what they cost, whoever is called: more starts explain them, and are not worse
    Metric(STARTS, "functions that a warm step starts", head="Python\nstarts", neutral=True),
    Metric(
        "flattening_starts",
        "functions that a warm step starts to take trees apart and put them together",
        neutral=True,
    ),
    # Of a user's own step alone: timed once, beside the counts
    Metric("gc_pauses", "for collecting garbage", head="pauses in\n1,000 calls", compared=False),
    Metric("gc_longest", "the longest of them", head="longest\npause", unit="s", compared=False),
    Metric("gc_share", "that all pauses take, as a fraction", head="of the\ntime", compared=False),
    Metric(
        "dispatch",
        "a call of as many empty arrays, which computes nothing",
        unit="s",
        compared=False,
    ),
    Metric("compilations_first", "programs in the first call", head="compiled\nat first"),
    Metric("compilations_warm", "programs in later calls", head="compiled\nwarm"),
    # Properties of a program's text: a longer one may be faster, and each release of XLA differs
    # Equations: no longer counted, but kept runs have them
    Metric("jaxpr_equations", "of the step, nested ones included", neutral=True),
    Metric("hlo_instructions", "of the optimised program", head="HLO\ninstr.", neutral=True),
    Metric("flops", "of the compiled program, by XLA's count", neutral=True),
    Metric("bytes_accessed", "by the compiled program, by XLA's count", unit="B", neutral=True),
    Metric("temp_bytes", "that the program needs beside its arguments", unit="B"),
    Metric("argument_bytes", "of the program", unit="B"),
    Metric(
        "alias_bytes",
        "of outputs that take the place of donated arguments",
        head="aliased\nbytes",
        unit="B",
        neutral=True,
    ),
    Metric(
        "live_bytes",
        "of arrays that a step keeps between calls: parameters, Adam's moments, any second copy",
        unit="B",
    ),
    Metric("parameters", "numbers that are trained", neutral=True),
    Metric("parameter_arrays", "that are trained", neutral=True),
    Metric("state_arrays", "that a step changes without training", neutral=True),
    Metric("code_lines", "of code in the entrant's file", head="lines", neutral=True),
)
"""All metrics, in the order of tables."""
METRICS = {metric.name: metric for metric in TABLE}
SAMPLED = {m.name: m for m in TABLE if m.kind is not Kind.EXACT and m.name != HOST_PER_ARRAY}
"""Name → metric that a run can be asked for; exact numbers are counted beside them, and host cost
per array follows from host costs."""
COLD = tuple(m.name for m in TABLE if m.kind is Kind.COLD)
TRAINED = tuple(m.name for m in TABLE if m.kind is Kind.ONCE)


def label(name: str) -> str:
    """Return a metric's label on one line; a name without a metric gets spaces."""
    metric = METRICS.get(name)
    return metric.label.replace("\n", " ") if metric else name.replace("_", " ")
