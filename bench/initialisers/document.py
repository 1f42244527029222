"""What is said of initialisers: steps to a target, final losses, why, and the curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cells import BASELINE
from bench.initialisers import summary
from bench.initialisers.losses import name
from bench.report.table import (
    DIFFERENCE,
    Column,
    Document,
    Row,
    Section,
    Table,
    Value,
    amount,
)
from bench.stats.verdicts import Verdict
from common.config import WORKLOADS
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.initialisers.losses import Measurement, Settings, Start
    from bench.report.charts import Figure
    from bench.report.table import Content
    from bench.runfile.reader import Run
    from bench.stats.law import Range

RUN = Path(__file__).parents[2] / "results" / "xeon-2-cores" / "2026-11-26-half-hour.json"
"""Where the time of a step is from."""
SEED = "seed"
"""The workload that has the tutorial's sizes."""
MOST_TARGETS = 4
FORMULAS = {
    ("pure_jax", ""): "truncated normal, sd 1/√in; bias 0",
    ("equinox", ""): "uniform within ±1/√in, bias too: sd 0.58/√in",
    ("flax_linen", ""): "truncated normal, sd 1/√in; bias 0",
    ("flax_nnx", ""): "truncated normal, sd 1/√in; bias 0",
    ("haiku", ""): "normal of sd 1/√in, then truncated: sd 0.88/√in; bias 0",
    ("stax", ""): "truncated normal, sd √(2/(in+out)); bias normal, sd 0.01",
    ("equinox", "lecun_normal"): "truncated normal, sd 1/√in; bias 0",
    ("haiku", "lecun_normal"): "truncated normal, sd 1/√in; bias 0",
}
"""As the libraries' sources have them, by entrant and initialiser. `in` is what a layer reads: its
own state and what is below it. Truncated: at two standard deviations, and scaled after it."""


def check_targets(given: Sequence[float]) -> None:
    """Raise BakeoffError unless losses can be reached."""
    for target in given:
        if not (math.isfinite(target) and target > 0):
            raise BakeoffError(
                f"--target is {target:g}; a loss in nats per character is a positive number: give "
                "another one"
            )
    if len(given) > MOST_TARGETS:
        raise BakeoffError(f"--target is given {len(given)} times; at most {MOST_TARGETS} fit")


def document(
    measurement: Measurement, targets: Sequence[float] = (), *, figures: bool = False
) -> Document:
    """Return what a measurement says; with a chart for a page."""
    measurement.starts = [start for start in measurement.starts if start.losses]
    if not measurement.starts:
        raise BakeoffError("nothing was trained yet; go on with --resume")
    targets = targets or summary.targets(measurement)
    run = published(measurement.settings)
    charts: tuple[Figure, ...] = ()
    if figures:
        from bench.initialisers.chart import figure  # altair is needed for a page alone

        charts = (figure(measurement),)
    settings = measurement.settings
    return Document(
        title="Steps to a target loss, by initialiser",
        subtitle=f"{settings.text.name}: {described(settings)}",
        headline=headline(measurement, targets[0]),
        sections=(
            Section(
                "", tuple(sentences(measurement, targets)), (main_table(measurement, targets, run),)
            ),
            Section("Loss curves", figures=charts),
            Section(
                "Why",
                (
                    "Gain: standard deviation of the kernel times √in. Below 1, each layer passes "
                    "on less of what distinguishes one character from another. Recurrent and input "
                    "part: their largest singular values.",
                ),
                (start_table(measurement),),
            ),
        ),
        fine_print=tuple(fine_print(measurement, run)),
    )


def described(settings: Settings) -> str:
    """Return the sizes of a training."""
    return (
        f"{settings.layers} layers of {settings.width}, chunks of {settings.chunk}, "
        f"{settings.epochs} epochs of {amount(settings.epoch_chars, 'count')} characters "
        f"({settings.steps} steps), {settings.seeds} seeds"
    )


def headline(measurement: Measurement, target: float) -> str:
    """Return which library's own initialiser takes fewest steps to a target, and which most."""
    own = {
        s.entrant: steps(measurement, s, target) for s in measurement.starts if not s.initialiser
    }
    if len(own) < 2:
        return ""
    least, most = (pick(own, key=lambda name: own[name].value) for pick in (min, max))
    limit = measurement.settings.steps * measurement.settings.epochs
    return (
        f"A loss of {target:g} takes {said(own[most], limit)} steps from {most}'s own initialiser, "
        f"{said(own[least], limit)} from {least}'s."
    )


def said(found: Range, limit: int) -> Content:
    """Return a number of steps with its interval, as far as training went."""
    low, high = (None if math.isinf(end) else end for end in (found.low, found.high))
    if math.isinf(found.value):
        above = "" if low is None else f" (interval from {amount(low, 'count')})"
        return f"more than {amount(limit, 'count')}{above}"
    return Value(found.value, "count", low, high)


def steps(measurement: Measurement, start: Start, target: float) -> Range:
    """Return the median of steps to a target."""
    settings = measurement.settings
    losses = summary.table(start, settings.epochs)
    return summary.median(summary.steps_to(losses, target, settings.steps))


def main_table(measurement: Measurement, targets: Sequence[float], run: Run | None) -> Table:
    """Return steps and seconds to the targets, and final losses, by start."""
    settings, base = measurement.settings, measurement.starts[0]
    columns = [Column("initialiser of"), Column("distribution", needed=False)]
    columns += [
        Column(f"steps to\n{target:g}", number=True, help="median, with its 95 % interval")
        for target in targets
    ]
    columns += [
        Column(f"seconds to\n{targets[0]:g}", number=True, help="at the `pure` step's time"),
        Column("with the\nslowest style", number=True, help="that the library has here"),
        Column("final loss", number=True, help=f"mean of the last {summary.LAST} epochs"),
        Column(f"beside\n{base.name}", number=True, help="mean difference of the same seeds"),
    ]
    limit = settings.steps * settings.epochs
    rows = []
    for start in measurement.starts:
        found = [steps(measurement, start, target) for target in targets]
        like = f"as {start.like}: " if start.like else ""
        rows.append(
            Row(
                (
                    name(start),
                    f"{like}{FORMULAS.get((start.entrant, start.initialiser), '')}".strip(": "),
                    *(said(each, limit) for each in found),
                    *seconds(start, found[0].value, limit, run),
                    final(start, settings.epochs),
                    beside(start, base, measurement),
                )
            )
        )
    return Table(tuple(columns), tuple(rows)).without_empty()


def final(start: Start, epochs: int) -> Content:
    """Return the median final loss."""
    found = summary.median(summary.final(summary.table(start, epochs)))
    if math.isinf(found.value):
        return "diverged"
    low, high = (None if math.isinf(end) else end for end in (found.low, found.high))
    return Value(found.value, "nats", low, high)


def beside(start: Start, base: Start, measurement: Measurement) -> Content:
    """Return the difference of final losses of the same seeds; in colour where there is one."""
    if start is base:
        return ""
    comparisons = len(measurement.starts) - 1
    found = summary.paired(start, base, measurement.settings.epochs, comparisons)
    if found is None:
        return ""
    verdict = Verdict.INCONCLUSIVE
    if found.low > 0 or found.high < 0:
        verdict = Verdict.SLOWER if found.low > 0 else Verdict.FASTER
    return Value(found.value, DIFFERENCE, found.low, found.high, verdict)


def published(settings: Settings) -> Run | None:
    """Return the run that has times of such a step; None for other sizes, or outside of a clone."""
    from bench.runfile.reader import read

    known = WORKLOADS[SEED]
    sizes = (known.width, known.layers, known.chunk)
    if (settings.width, settings.layers, settings.chunk) != sizes or not RUN.is_file():
        return None
    return read(RUN)


def step_seconds(run: Run, entrant: str) -> dict[str, float]:
    """Return the median time of a step of each style of an entrant."""
    return {
        cell.style: found.median
        for cell in run.section.cells
        if (cell.entrant, cell.workload, cell.devices) == (entrant, SEED, 0)
        and (found := cell.measured("step")) is not None
        and found.median is not None
    }


def seconds(start: Start, count: float, limit: int, run: Run | None) -> tuple[str, str]:
    """Return the time that steps take, at the `pure` style's and at the slowest style's."""
    times = step_seconds(run, start.entrant) if run else {}
    if BASELINE[1] not in times:
        return "", ""
    slowest = max(times, key=times.__getitem__)
    more = "more than " if math.isinf(count) else ""
    of_pure, of_slowest = (
        f"{more}{amount(min(count, limit) * times[style], 's')}" for style in (BASELINE[1], slowest)
    )
    return of_pure, f"{of_slowest} (`{slowest}`)" if len(times) > 1 else ""


def sentences(measurement: Measurement, targets: Sequence[float]) -> Iterator[str]:
    """Yield which seeds did not get to a target, and how to read the table."""
    settings = measurement.settings
    limit = amount(settings.steps * settings.epochs, "count")
    for start in measurement.starts:
        losses = summary.table(start, settings.epochs)
        for target in targets:
            found = summary.steps_to(losses, target, settings.steps)
            lacking = int((~(found < math.inf)).sum())
            if lacking:
                do = "does" if lacking == 1 else "do"
                yield (
                    f"{name(start)}: {lacking} of {found.size} seeds {do} not reach {target:g} "
                    f"within {limit} steps."
                )
    own = {start.entrant: start for start in measurement.starts if not start.initialiser}
    for start in measurement.starts:
        if start.initialiser and start.entrant in own:
            difference = beside(start, own[start.entrant], measurement)
            if not isinstance(difference, Value):
                continue
            yield f"{name(start)}, final loss beside {start.entrant}'s own: {difference}."
    yield from chance(measurement)
    yield (
        f"A target is reached when the mean loss of {summary.SMOOTHED} epochs is no higher. Steps "
        "and final losses are medians over seeds, with 95 % intervals by order statistics. "
        "Differences are means over the same seeds, which read the same text in the same order, "
        "with 95 % t intervals corrected for the number of rows. ?: inconclusive."
    )


def chance(measurement: Measurement) -> Iterator[str]:
    """Yield how far starts with the same distribution are apart, and their seeds."""
    settings, base = measurement.settings, measurement.starts[0]
    same = [start for start in measurement.starts if start is base or start.like == base.name]
    ends = [summary.final(summary.table(start, settings.epochs)) for start in same]
    medians = [summary.median(each).value for each in ends]
    if len(same) > 1:
        yield (
            f"The same distribution: {', '.join(map(name, same))}. What their medians, "
            f"{amount(min(medians), 'nats')} to {amount(max(medians), 'nats')}, differ by is "
            f"chance; single seeds end between {amount(min(map(min, ends)), 'nats')} and "
            f"{amount(max(map(max, ends)), 'nats')}."
        )


def start_table(measurement: Measurement) -> Table:
    """Return what each layer is at the start, for each distribution that differs."""
    columns = (
        Column("initialiser of"),
        Column("layer"),
        Column("sd of\nkernel", number=True),
        Column("gain", number=True, help="sd of the kernel times √in"),
        Column("sd of\nbias", number=True),
        Column("recurrent\npart", number=True, help="its largest singular value"),
        Column("input\npart", number=True, help="its largest singular value"),
        Column("sd of\nactivations", number=True, help="over the text's first chunk"),
    )
    settings = measurement.settings
    rows = []
    for start in measurement.starts:
        if start.like:
            continue
        for number, layer in enumerate(start.layers):
            readout = layer.recurrent is None
            below = settings.width if number else settings.vocab_size
            fan_in = below + (0 if readout else settings.width)
            texts = (
                layer.kernel,
                layer.kernel * math.sqrt(fan_in),
                layer.bias,
                layer.recurrent,
                layer.below,
                layer.activation,
            )
            rows.append(
                Row(
                    (
                        name(start) if not number else "",
                        "readout" if readout else str(number + 1),
                        *("" if x is None else f"{x:.3g}" for x in texts),
                    )
                )
            )
    return Table(columns, tuple(rows))


def fine_print(measurement: Measurement, run: Run | None) -> Iterator[str]:
    """Yield under which conditions this holds."""
    versions = ", ".join(f"{n} {v}" for n, v in measurement.versions.items() if n != "jax-bakeoff")
    yield f"Trained on {measurement.when[:10]} with {versions}."
    if run is not None:
        yield f"The time of a step is that of {RUN.parent.name}/{run.name} at `{SEED}`."
