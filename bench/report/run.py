"""A run as a document: what terminal, Markdown and page show of it."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from bench.cells import BASELINE
from bench.metrics import EXACT, HOST, METRICS, STARTUP, Kind, label
from bench.report import scaling, wording
from bench.report.choices import choices, considered
from bench.report.findings import sentences
from bench.report.table import ADDED, Column, Document, Row, Section, Table, Value, amount, percent
from bench.runfile.reader import TIME, processor
from bench.samples import MIN_VISITS
from bench.stats.verdicts import PROGRAM as BY_PROGRAM
from common.config import WORKLOADS
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bench.report.table import Content
    from bench.runfile import BakeoffSection, FinalLoss, Result
    from bench.runfile.reader import Run

PER_CALL = [
    *(m.name for m in METRICS.values() if m.kind is Kind.WARM and not m.styles),
    *(m.name for m in METRICS.values() if m.styles),
]
MEMORY = [m.name for m in METRICS.values() if m.kind is Kind.COLD and m.unit == "B"]
COMPARED = [*PER_CALL, *STARTUP, *MEMORY]
"""All metrics that have ratios."""
MAIN = [TIME, "step", HOST, "compile", *MEMORY]
"""Metrics of the table that is read first."""
NEEDED = (TIME, "step", HOST)
"""Of those, what the narrowest terminal shows."""
MEMORY_COUNTED = ("temp_bytes", "argument_bytes", "alias_bytes", "live_bytes")
"""What is counted of memory."""
COUNTED = ("python_calls", "jaxpr_equations", "hlo_instructions", "temp_bytes")
"""What is counted that tables have."""
LINES, WIDTH = 8, 80
"""Of findings, that a terminal shows without `-v`; and the width in which they are counted."""
LAST_LINES = 5
"""Lines of a worker's stderr that are shown."""
PROOF = "Proven equal before they were timed"


def document(run: Run, limits: Sequence[str] = ()) -> Document:
    """Return all that there is to say of a run, from its file alone.

    Args:
        run: The run; without samples nothing is left out but charts.
        limits: Sentences about what its machine can do at best.
    """
    section, cells = run.section, run.section.cells
    short, more = divided([] if has(run, TIME) else sentences(section))
    how, closer = legend(section)
    limited = [f"How far from what the machine can do, at {text}." for text in limits]
    missing = [f"{name.replace('/', ' ')}: {why}." for name, why in section.left_out.items()]
    missing += [f"{at}: {why}" for at, rows in places(cells) for why in lacking(rows, COMPARED)]
    subtitle = ", ".join(filter(None, [run.when.replace("T", " "), machine(run)]))
    parts = [
        *tables(run),
        Section("How to read it", tuple(how)),
        Section("What it found", (*short, *limited)),
        failures(cells),
        Section("What more devices are worth", (), tuple(scaling.tables(section))),
        which(run),
        Section("More that it found", tuple(more), folded=True),
        Section("Styles that were not told apart", tuple(ties(section)), folded=True),
        Section("Host costs and steps", (), tuple(additivity(section)), folded=True),
        Section("How to read every cell", tuple(closer), folded=True),
        Section("What was not measured", tuple(missing), folded=True),
        proofs(section),
        Section("How it was measured, and how to repeat it", tuple(method(run)), folded=True),
    ]
    return Document(
        title=f"jax-bakeoff: {run.name}",
        subtitle=subtitle if run.when else "",
        warnings=(*section.warnings, *run.lacking),
        sections=tuple(part for part in parts if part.lines or part.tables),
        fine_print=tuple(closing(section)),
    )


def has(run: Run, metric: str) -> bool:
    """Tell whether a run has a number for a metric."""
    return any(cell.measured(metric) for cell in run.section.cells)


def divided(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the sentences for which a small terminal has room, and the others."""
    short: list[str] = []
    more: list[str] = []
    room = LINES
    for text in texts:
        lines = len(textwrap.wrap(text, WIDTH, subsequent_indent="  "))
        if lines <= room:
            short.append(text)
            room -= lines
        else:
            more.append(text)
    return short, more


def places(cells: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    """Yield each workload and backend in words, with the cells there, the baseline's first."""
    found: dict[str, list[Result]] = {}
    for cell in cells:
        found.setdefault(cell.place, []).append(cell)
    for where, rows in found.items():
        order = [BASELINE[0], *(row.entrant for row in rows)]
        yield where, sorted(rows, key=lambda r: (order.index(r.entrant), r.style != BASELINE[1]))


def tables(run: Run) -> Iterator[Section]:
    """Yield a section for each workload and backend: what is read first, then all the rest."""
    for where, rows in places(run.section.cells):
        good = [row for row in rows if row.failure is None]
        if not good:
            continue
        base = next((row for row in good if row.is_baseline), None)
        calls, *counts = (counted(kind, base) for kind in COUNTED)
        compiled = {compilations(row) for row in rows} - {"", "1/0"}
        training = [*counts, *([COMPILED] if compiled else []), *LOSSES]
        per_call = [m for m in PER_CALL if m not in MAIN]
        stages = [m for m in STARTUP if m not in MAIN]
        first = table(rows, about(where, rows), MAIN, [calls, PROGRAM], notes(rows))
        others = [
            table(good, f"{where}, calls", per_call, [CORES]),
            table(good, f"{where}, programs and training", [], training, entropy(good)),
            table(good, f"{where}, once a process", stages, []),
            *memory(good, where, base),
        ]
        made = [first, *(replace(each, folded=True) for each in others)]
        yield Section(where, (), tuple(each for each in made if len(each.columns) > 1))


def memory(rows: Sequence[Result], where: str, base: Result | None) -> Iterator[Table]:
    """Yield the table of memory: the process's peak, the program's, and who holds a second copy."""
    if any("live_bytes" in row.exact for row in rows):
        counts = [counted(kind, base) for kind in MEMORY_COUNTED]
        yield table(rows, f"{where}, memory", MEMORY, counts)


type Made = tuple[Column, Callable[[Result], Content]]
"""A column, and what it has for a row."""


def table(
    rows: Sequence[Result],
    title: str,
    metrics: Sequence[str],
    more: Sequence[Made],
    notes: Iterable[str] = (),
) -> Table:
    """Return a table of those metrics that were measured, and of further columns."""
    found = [m for m in metrics if any(row.measured(m) for row in rows)]
    columns = [
        Column("style"),
        *(
            Column(label(m, "\n"), False, METRICS[m].help if m in METRICS else "", m in NEEDED)
            for m in found
        ),
        *(column for column, _ in more),
    ]
    lines = []
    for row in rows:
        cells: list[Content] = [value(row, metric) for metric in found]
        cells += [content(row) for _, content in more]
        if row.failure is not None:
            cells = ["failed", *[""] * (len(columns) - 2)]
        lines.append(Row((wording.name(row), *cells)))
    return Table(tuple(columns), tuple(lines), title, tuple(notes)).without_empty()


def entropy(rows: Sequence[Result]) -> Iterator[str]:
    """Yield the entropy of the text that was trained on, which no loss can be below for long."""
    losses = [row.final_loss for row in rows if row.final_loss]
    for found in sorted({loss.entropy for loss in losses if loss.entropy is not None}):
        yield f"The text's entropy is {amount(found, 'nats')} nats per character."


def about(where: str, rows: Sequence[Result]) -> str:
    """Return a workload with its sizes, and how much was sampled."""
    known = WORKLOADS.get(rows[0].workload)
    if known is not None:
        batch = "" if known.batch == 1 else f", batch {known.batch}"
        where += f": width {known.width}, {known.chunk} characters{batch}"
    step = next((found for row in rows if (found := row.measured("step"))), None)
    if step is not None and step.blocks:
        sampled = f"{step.blocks} blocks", f"{step.processes} processes", CORES_WORDS[step.cores]
        where += f"; {', '.join(filter(None, sampled))}"
    return where


CORES_WORDS = {"all": "all cores", "one": "one core each", None: ""}
"""On which cores a metric was measured, where the file says so."""


def value(row: Result, metric: str) -> Content:
    """Return what a cell says of a metric: the baseline's own is a time or a size."""
    found = row.measured(metric)
    if found is None:
        return Value(None, help=row.metrics[metric].missing) if metric in row.metrics else ""
    plain = Value(found.median, found.unit)
    return plain if row.is_baseline else Value.of(found, f"{plain}; {found.verdict}")


def counted(kind: str, base: Result | None) -> Made:
    """Return a column of counts: the baseline's, and by how much the others differ from it."""
    column = Column(label(kind, "\n"), number=True, help=EXACT[kind].help, needed=False)
    reference = base.exact.get(kind) if base else None

    def content(row: Result) -> str:
        found = row.exact.get(kind)
        if found is None:
            return ""
        if kind != "python_calls" and row.proof and not row.proof.whole_step:
            return "part"
        unit = EXACT[kind].unit
        if row.is_baseline or reference is None:
            return amount(found, unit)
        sign = "+" if found > reference else "−"
        return "=" if found == reference else sign + amount(abs(found - reference), unit)

    return column, content


def compilations(row: Result) -> str:
    """Return how often a style compiles, at its first call and once it is warm."""
    first, warm = (row.exact.get(f"compilations_{when}") for when in ("first", "warm"))
    return "" if first is None or warm is None else f"{first}/{warm}"


def cores_used(row: Result) -> str:
    """Return how many cores a step uses, where it might use all."""
    step = row.measured("step")
    return "" if step is None or step.cores_used is None else f"{step.cores_used:.2f}"


def losses(title: str, of: Callable[[FinalLoss], float | None]) -> Made:
    """Return a column of losses that training ends at."""

    def content(row: Result) -> str:
        loss = of(row.final_loss) if row.final_loss else None
        return "" if loss is None else amount(loss, "nats")

    return Column(title, number=True), content


PROGRAM: Made = (
    Column("program", help="how it differs from the baseline's", needed=False),
    lambda row: "" if row.is_baseline else wording.program(row.proof),
)
CORES: Made = (
    Column("cores\nused", number=True, help="by a step: the processor's seconds for each of it"),
    cores_used,
)
COMPILED: Made = (Column("compiled\nfirst/warm", number=True), compilations)
LOSSES = [
    losses("loss,\nsame weights", lambda final: final.same_weights),
    losses("loss,\nown weights", lambda final: final.own),
]


def notes(rows: Sequence[Result]) -> Iterator[str]:
    """Yield why steps or host costs are missing, and which of them are preliminary."""
    yield from lacking(rows, NEEDED)
    thin = [m for m in COMPARED if any(f.preliminary for r in rows if (f := r.measured(m)))]
    if thin:
        yield f"Preliminary, from fewer than {MIN_VISITS} workers: {', '.join(thin)}."


def lacking(rows: Sequence[Result], metrics: Sequence[str]) -> Iterator[str]:
    """Yield why metrics are missing, once for all that the same styles lack."""
    whose: dict[tuple[str, str], list[str]] = {}
    for metric in metrics:
        having = [row for row in rows if row.failure is None and metric in row.metrics]
        reasons: dict[str, list[str]] = {}
        for row in having:
            if reason := row.metrics[metric].missing:
                reasons.setdefault(reason, []).append(wording.name(row))
        for reason, names in reasons.items():
            who = "any style" if len(names) == len(having) else ", ".join(names)
            whose.setdefault((reason, who), []).append(metric)
    for (reason, who), names in whose.items():
        yield f"{reason}: {', '.join(names)} of {who}."


def legend(section: BakeoffSection) -> tuple[list[str], list[str]]:
    """Return how to read a cell: what everybody needs, and the rest."""
    found = [metric for cell in section.good for metric in cell.metrics.values()]
    host = [metric for metric in found if metric.added]
    short, more = [], []
    if any(metric.verdict for metric in found):
        margin = percent(section.plan.margin)
        short.append(
            f"Ratios to {BASELINE[0]} (95 % interval). = is within ±{margin}, ? is inconclusive."
        )
        more.append(
            "Red: slower; green: faster, after correction for all rows of a column (Dunnett)."
        )
    elif any(metric.ratio for metric in found):
        short.append("Medians, and their ratios to the first of each group; no intervals.")
    if host:
        cores = f" ({words})" if (words := CORES_WORDS[host[0].cores]) else ""
        short.append(f"Host cost: time that a style adds to each call{cores}.")
    if any(metric.settled_by == BY_PROGRAM and metric.bound for metric in found):
        more.append(
            "Proven: the same program as the baseline's, so that it can differ by what the style "
            "costs the host alone, which is at most that much."
        )
    if any(cell.exact for cell in section.good if not cell.is_baseline):
        more.append(
            "Signed counts are differences from the baseline's; =: identical; part: of one of a "
            "step's programs."
        )
    return short, more


def failures(cells: Sequence[Result]) -> Section:
    """Return who has no number and why, with the last lines of its worker."""
    failed: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell.failure is not None:
            key = (f"{cell.entrant} {cell.cell.arm.full_style}", cell.failure, cell.stderr)
            failed.setdefault(key, []).append(cell.place)
    lines = []
    for (who, why, stderr), where in failed.items():
        last = [line for line in stderr.splitlines() if line.strip()][-LAST_LINES:]
        said = f"FAILED {who} ({', '.join(where)}): {why}"
        lines.append("\n".join([said, *(f"    {line}" for line in last)]))
    return Section("Failed, and so without a number", tuple(lines), status="bad")


def which(run: Run) -> Section:
    """Return what to take in each situation."""
    section = run.section
    backends = [] if has(run, TIME) else section.backends
    several = len(backends) > 1
    found = [str(f) for b in backends for f in choices(section, b, several=several)]
    rule = considered(list(dict.fromkeys(c.entrant for c in section.cells))) if found else []
    said = " ".join(rule)
    noted = [text for name, text in section.notes.items() if f"{name} (" not in said]
    return Section("Which library for me?", (*found, *rule, *noted), needed=False)


def ties(section: BakeoffSection) -> Iterator[str]:
    """Yield styles from fast to slow, in groups of which no two were told apart."""
    for found in section.ties:
        groups = [
            ", ".join(arm.replace("/", " ").removesuffix(f" {BASELINE[1]}") for arm in group)
            for group in found.groups
        ]
        where = f"{label(found.metric)}, {found.workload} on {found.backend}"
        yield f"{where}, the fastest first: {'; then '.join(groups)}."


def additivity(section: BakeoffSection) -> Iterator[Table]:
    """Yield what host costs predict for steps of the baseline's program, and what timing found."""
    rows = [
        (
            wording.name(row),
            row.place,
            Value(row.predicted_seconds, ADDED, row.predicted_low, row.predicted_high),
            Value(row.measured_seconds, ADDED, row.measured_low, row.measured_high),
        )
        for row in section.additivity
    ]
    if rows:
        columns = (Column("style"), Column("at"), Column("by host cost"), Column("by timing steps"))
        note = "What styles with the baseline's program add to a step, said in two ways."
        yield Table(columns, tuple(map(Row, rows)), notes=(note,))


def proofs(section: BakeoffSection) -> Section:
    """Return what was proven with the largest deviations, and how far each style is off."""
    found = [(cell, cell.proof) for cell in section.good if cell.proof]
    if not found:
        return Section(PROOF)
    rows = [
        (
            wording.name(cell),
            cell.place,
            "the baseline" if cell.is_baseline else wording.program(proof),
            *(f"{each:.1e}" for each in (proof.loss, proof.gradient, proof.trajectory)),
        )
        for cell, proof in found
    ]
    heads = [Column(head, number=True) for head in ("loss", "gradient", "ten steps,\nnats")]
    columns = (Column("style"), Column("at"), Column("program"), *heads)
    all_proofs = [proof for _, proof in found]
    text = (
        "From the same weights, every style computes a float64 reference's loss to "
        f"{max(p.loss for p in all_proofs):.1e} (allowed: {LOSS_TOLERANCE:g}) and its gradients to "
        f"{max(p.gradient for p in all_proofs):.1e} (allowed: {GRADIENT_TOLERANCE:g}), and ten "
        f"training steps of plain JAX to {max(p.trajectory for p in all_proofs):.1e} nats "
        f"(allowed: {TRAJECTORY_TOLERANCE:g}). {sum(p.same_program for p in all_proofs)} of "
        f"{len(found)} compile to the very same program as the baseline, itself included."
    )
    return Section(PROOF, (text,), (Table(columns, tuple(map(Row, rows))),), folded=True)


def machine(run: Run) -> str:
    """Return the machine in words."""
    devices = run.section.environment.devices.values()
    return ", ".join(filter(None, [processor(run), *dict.fromkeys(devices)]))


def method(run: Run) -> Iterator[str]:
    """Yield how the run was made, how to repeat it, and its conditions."""
    section = run.section
    if not section.spent:
        yield "What is known of this file is what pytest-benchmark writes."
        return
    yield (
        "Styles of a workload take turns in one process, in a new random order every round, over "
        "buffers that are new in each block; what happens once is measured in fresh processes. "
        "Plain JAX runs under a second name as well: what differs between the two is noise. "
        f"{section.comparisons} comparisons are corrected together."
    )
    commit = run.commit.get("id")
    if commit:
        dirty = ", with changes that are not in it" if run.commit.get("dirty") else ""
        yield f"Measured at commit {str(commit)[:12]}{dirty}."
    if section.arguments:
        program = "bakeoff" if section.spec or section.history else "pytest"
        yield f"To repeat it: `{program} {shlex.join(section.arguments)}`"
    known = structs.asdict(section.environment)
    known = known.pop("versions") | (known.pop("environment") or {}) | known
    known |= {n: run.machine.get(n) for n in ("node", "system", "release", "python_version")}
    for name, value in known.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {each}" for key, each in value.items())
        if value not in (None, "", []):
            said = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{name if name.isupper() else name.replace('_', ' ')}: {said}"


def closing(section: BakeoffSection) -> Iterator[str]:
    """Yield what the run can detect, and what it took."""
    if not section.spent:
        return
    control = [c for c in section.control if c.detectable is not None]
    steps = [c for c in control if c.metric == "step"] or control[:LAST_LINES]
    several = len({c.backend for c in steps}) > 1
    seen = ", ".join(
        f"{percent(c.detectable or 0.0)} ({c.metric}, {c.workload}"
        f"{', ' + c.backend if several else ''})"
        for c in steps
    )
    spent = section.spent
    yield (
        f"detectable difference: {seen or 'not known'}; {spent.wall_seconds:.0f} s, "
        f"{percent(round(spent.sampling_share, 2))} of it taking samples, "
        f"{spent.processes} processes"
    )
