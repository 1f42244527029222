"""A run as a document: what terminal, Markdown and page show of it."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.cells import BASELINE, Arm, Cell
from bench.engine.planner import MIN_VISITS
from bench.metrics import EXACT, HOST, METRICS, STARTUP, Kind, label
from bench.report import scaling, wording
from bench.report.choices import choices, considered
from bench.report.findings import findings
from bench.report.sentences import sentence
from bench.report.table import ADDED, Column, Document, Row, Section, Table, Value, amount, percent
from bench.report.wording import Facts, is_baseline, measured
from bench.runfile.reader import TIME, processor
from bench.stats.verdicts import PROGRAM as BY_PROGRAM
from common.config import WORKLOADS
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.report.table import Content
    from bench.runfile.reader import Run

PURE_ONLY = [m.name for m in METRICS.values() if m.pure_only]
PER_CALL = [m.name for m in METRICS.values() if m.kind is Kind.WARM and not m.pure_only]
MEMORY = [m.name for m in METRICS.values() if m.kind is Kind.COLD and m.unit == "B"]
COMPARED = [*PER_CALL, *PURE_ONLY, *STARTUP, *MEMORY]
"""All metrics that have ratios."""
MAIN = [TIME, "step", HOST, "compile", *MEMORY]
"""Metrics of the table that is read first."""
NEEDED = (TIME, "step", HOST)
"""Of those, what the narrowest terminal shows."""
COUNTED = ("python_calls", "jaxpr_equations", "hlo_instructions", "temp_bytes")
"""What is counted that tables have."""
LINES, WIDTH = 8, 80
"""Of findings, that a terminal shows without `-v`; and the width in which they are counted."""
LAST_LINES = 5
"""Lines of a worker's stderr that are shown."""
PROVEN = ("loss", "gradient", "trajectory")
PROOF = "Proven equal before they were timed"


def document(run: Run, limits: Sequence[str] = ()) -> Document:
    """Return all that there is to say of a run, from its file alone.

    Args:
        run: The run; without samples nothing is left out but charts.
        limits: Sentences about what its machine can do at best.
    """
    section, cells = run.section, run.section["cells"]
    known = [] if has(run, TIME) else [sentence(finding) for finding in findings(section)]
    short, more = divided(known)
    how, closer = legend(section)
    limited = [f"How far from what the machine can do, at {text}." for text in limits]
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
        Section("What was not measured", tuple(missing(cells)), folded=True),
        Section(PROOF, tuple(proof_text(cells)), tuple(proofs(cells)), folded=True),
        Section("How it was measured, and how to repeat it", tuple(method(run)), folded=True),
    ]
    return Document(
        title=f"jax-bakeoff: {run.name}",
        subtitle=subtitle if run.when else "",
        warnings=(*section["warnings"], *run.lacking),
        sections=tuple(part for part in parts if part.lines or part.tables),
        fine_print=(closing(section),) if section["spent"] else (),
    )


def has(run: Run, metric: str) -> bool:
    """Tell whether a run has a number for a metric."""
    return any(measured(cell, metric) for cell in run.section["cells"])


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


def places(cells: Sequence[Facts]) -> Iterator[tuple[str, list[Facts]]]:
    """Yield each workload and backend in words, with the cells there, the baseline's first."""
    found: dict[tuple[str, str], list[Facts]] = {}
    for cell in cells:
        found.setdefault((cell["workload"], cell["backend"]), []).append(cell)
    for (workload, backend), rows in found.items():
        order = {entrant: i for i, entrant in enumerate(dict.fromkeys(r["entrant"] for r in rows))}

        def place(row: Facts, order: dict[str, int] = order) -> tuple[bool, int, bool]:
            return row["entrant"] != BASELINE[0], order[row["entrant"]], not Cell.of(row).is_pure

        yield f"{workload} on {backend}" if backend else workload, sorted(rows, key=place)


def tables(run: Run) -> Iterator[Section]:
    """Yield a section for each workload and backend: what is read first, then all the rest."""
    for where, rows in places(run.section["cells"]):
        if all(row["failure"] is not None for row in rows):
            continue
        base = next((r for r in rows if is_baseline(r) and r["failure"] is None), None)
        calls, *counts = (counted(kind, base) for kind in COUNTED)
        compiled = {compilations(row) for row in rows} - {"", "1/0"}
        counts += [COMPILED] if compiled else []
        training = [*counts, *LOSSES]
        others: list[tuple[str, list[str], list[Made], tuple[str, ...]]] = [
            ("calls", [*(m for m in PER_CALL if m not in MAIN), *PURE_ONLY], [CORES], ()),
            ("programs and training", [], training, tuple(entropy(rows))),
            ("once a process", [m for m in STARTUP if m not in MAIN], [], ()),
        ]
        first = table(rows, about(where, rows), MAIN, [calls, PROGRAM])
        folded = [
            replace(table(good(rows), f"{where}, {what}", names, more), notes=notes, folded=True)
            for what, names, more, notes in others
        ]
        made = [each.without_empty() for each in (first, *folded)]
        yield Section(where, (), tuple(each for each in made if len(each.columns) > 1))


def good(rows: Sequence[Facts]) -> list[Facts]:
    """Return those that have not failed."""
    return [row for row in rows if row["failure"] is None]


type Made = tuple[Column, Callable[[Facts], Content]]
"""A column, and what it has for a row."""


def table(rows: Sequence[Facts], title: str, metrics: Sequence[str], more: Sequence[Made]) -> Table:
    """Return a table of those metrics that were measured, and of further columns."""
    found = [m for m in metrics if any(measured(row, m) for row in rows)]
    columns = [
        Column("style"),
        *(
            Column(label(m, "\n"), False, m, METRICS[m].help if m in METRICS else "", m in NEEDED)
            for m in found
        ),
        *(column for column, _ in more),
    ]
    lines = []
    for row in rows:
        cells: list[Content] = [value(row, metric) for metric in found]
        cells += [content(row) for _, content in more]
        if row["failure"] is not None:
            cells = ["failed", *[""] * (len(columns) - 2)]
        lines.append(Row((wording.name(row), *cells)))
    return Table(tuple(columns), tuple(lines), title, tuple(notes(rows)))


def entropy(rows: Sequence[Facts]) -> Iterator[str]:
    """Yield the entropy of the text that was trained on, which no loss can be below for long."""
    known = {row["final_loss"].get("entropy") for row in rows if row["final_loss"]}
    for found in sorted(known - {None}):
        yield f"The text's entropy is {amount(found, 'nats')} nats per character."


def about(where: str, rows: Sequence[Facts]) -> str:
    """Return a workload with its sizes, and how much was sampled."""
    known = WORKLOADS.get(rows[0]["workload"])
    if known is not None:
        batch = "" if known.batch == 1 else f", batch {known.batch}"
        where += f": width {known.width}, {known.chunk} characters{batch}"
    step = next((found for row in rows if (found := measured(row, "step"))), None)
    if step is not None and step.get("blocks"):
        sampled = f"{step['blocks']} blocks", f"{step['processes']} processes", cores_words(step)
        where += f"; {', '.join(filter(None, sampled))}"
    return where


def cores_words(found: Facts) -> str:
    """Return on which cores a metric was measured, where the file says so."""
    return {"all": "all cores", "one": "one core each"}.get(found.get("cores") or "", "")


def value(row: Facts, metric: str) -> Content:
    """Return what a cell says of a metric: the baseline's own is a time or a size."""
    found = measured(row, metric)
    if found is None:
        lacking = row["metrics"].get(metric)
        return Value(None, help=lacking.get("missing", "")) if lacking is not None else ""
    plain = Value(found["median"], found["unit"])
    return plain if is_baseline(row) else Value.of(found, help=f"{plain}; {found['verdict']}")


def counted(kind: str, base: Facts | None) -> Made:
    """Return a column of counts: the baseline's, and by how much the others differ from it."""
    column = Column(label(kind, "\n"), number=True, name=kind, help=EXACT[kind].help, needed=False)
    reference = base["exact"].get(kind) if base else None

    def content(row: Facts) -> str:
        found = row["exact"].get(kind)
        if found is None:
            return ""
        if kind != "python_calls" and row["proof"] and not row["proof"]["whole_step"]:
            return "part"
        unit = EXACT[kind].unit
        if is_baseline(row) or reference is None:
            return amount(found, unit)
        sign = "+" if found > reference else "−"
        return "=" if found == reference else sign + amount(abs(found - reference), unit)

    return column, content


def program_of(row: Facts) -> str:
    """Return in words how a program differs from the baseline's."""
    return "" if is_baseline(row) else wording.program(row["proof"])


def cores_used(row: Facts) -> str:
    """Return how many cores a step uses, where it might use all."""
    used = (measured(row, "step") or {}).get("cores_used")
    return "" if used is None else f"{used:.2f}"


def compilations(row: Facts) -> str:
    """Return how often a style compiles, at its first call and once it is warm."""
    first, warm = (row["exact"].get(f"compilations_{when}") for when in ("first", "warm"))
    return "" if first is None or warm is None else f"{first}/{warm}"


PROGRAM: Made = (
    Column("program", help="how it differs from the baseline's", needed=False),
    program_of,
)
CORES: Made = (
    Column("cores\nused", number=True, help="by a step: the processor's seconds for each of it"),
    cores_used,
)
COMPILED: Made = (Column("compiled\nfirst/warm", number=True), compilations)
LOSSES: list[Made] = [
    (
        Column("loss,\nsame weights", number=True, name="final_loss"),
        lambda row: wording.loss(row["final_loss"]["same_weights"]) if row["final_loss"] else "",
    ),
    (
        Column("loss,\nown weights", number=True, name="final_loss_own"),
        lambda row: (
            wording.loss(own)
            if row["final_loss"] and (own := wording.own_loss(row["final_loss"])) is not None
            else ""
        ),
    ),
]


def notes(rows: Sequence[Facts]) -> Iterator[str]:
    """Yield why steps or host costs are missing, and which of them are preliminary."""
    yield from lacking(rows, NEEDED)
    thin = [m for m in COMPARED if any((measured(row, m) or {}).get("preliminary") for row in rows)]
    if thin:
        yield f"Preliminary, from fewer than {MIN_VISITS} workers: {', '.join(thin)}."


def missing(cells: Sequence[Facts]) -> Iterator[str]:
    """Yield for each workload why numbers are missing."""
    for where, rows in places(cells):
        yield from (f"{where}: {text}" for text in lacking(rows, COMPARED))


def lacking(rows: Sequence[Facts], metrics: Sequence[str]) -> Iterator[str]:
    """Yield why metrics are missing, once for all that the same styles lack."""
    whose: dict[tuple[str, str], list[str]] = {}
    for metric in metrics:
        having = [row for row in good(rows) if metric in row["metrics"]]
        reasons: dict[str, list[str]] = {}
        for row in having:
            if "missing" in row["metrics"][metric]:
                reasons.setdefault(row["metrics"][metric]["missing"], []).append(wording.name(row))
        for reason, names in reasons.items():
            who = "any style" if len(names) == len(having) else ", ".join(names)
            whose.setdefault((reason, who), []).append(metric)
    for (reason, who), names in whose.items():
        yield f"{reason}: {', '.join(names)} of {who}."


def legend(section: Facts) -> tuple[list[str], list[str]]:
    """Return how to read a cell: what everybody needs, and the rest."""
    cells = [cell for cell in section["cells"] if cell["failure"] is None]
    found = [metric for cell in cells for metric in cell["metrics"].values()]
    host = [metric for metric in found if "added" in metric]
    short, more = [], []
    if any(metric.get("verdict") for metric in found):
        margin = percent(section["plan"]["margin"])
        short.append(
            f"Ratios to {BASELINE[0]} (95 % interval). = is within ±{margin}, ? is inconclusive."
        )
        more.append(
            "Red: slower; green: faster, after correction for all rows of a column (Dunnett)."
        )
    elif any(metric.get("ratio") for metric in found):
        short.append("Medians, and their ratios to the first of each group; no intervals.")
    if host:
        cores = f" ({words})" if (words := cores_words(host[0])) else ""
        short.append(f"Host cost: time that a style adds to each call{cores}.")
    if any(metric.get("settled_by") == BY_PROGRAM and metric.get("bound") for metric in found):
        more.append(
            "Proven: the same program as the baseline's, so that it can differ by what the style "
            "costs the host alone, which is at most that much."
        )
    if any(cell["exact"] for cell in cells if not is_baseline(cell)):
        more.append(
            "Signed counts are differences from the baseline's; =: identical; part: of one of a "
            "step's programs."
        )
    return short, more


def failures(cells: Sequence[Facts]) -> Section:
    """Return who has no number and why, with the last lines of its worker."""
    failed: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell["failure"] is not None:
            arm = f"{cell['entrant']} {cell['style']}{wording.over_devices(cell)}"
            key = (arm, cell["failure"], cell["stderr"])
            failed.setdefault(key, []).append(f"{cell['workload']} on {cell['backend']}")
    lines = []
    for (who, why, stderr), where in failed.items():
        last = [line for line in stderr.splitlines() if line.strip()][-LAST_LINES:]
        said = f"FAILED {who} ({', '.join(where)}): {why}"
        lines.append("\n".join([said, *(f"    {line}" for line in last)]))
    return Section("Failed, and so without a number", tuple(lines), status="bad")


def which(run: Run) -> Section:
    """Return what to take in each situation."""
    section = run.section
    backends = list(dict.fromkeys(cell["backend"] for cell in section["cells"]))
    several = len(backends) > 1
    found = [
        sentence(finding)
        for backend in backends
        if not has(run, TIME)
        for finding in choices(section, backend, several=several)
    ]
    entrants = list(dict.fromkeys(cell["entrant"] for cell in section["cells"]))
    rule = considered(entrants) if found else []
    notes = (section.get("notes") or {}).items()
    noted = [text for name, text in notes if f"{name} (" not in " ".join(rule)]
    return Section("Which library for me?", (*found, *rule, *noted), needed=False)


def ties(section: Facts) -> Iterator[str]:
    """Yield styles from fast to slow, in groups of which no two were told apart."""
    for found in section.get("ties") or []:
        groups = [", ".join(map(named, group)) for group in found["groups"]]
        where = f"{label(found['metric'])}, {found['workload']} on {found['backend']}"
        yield f"{where}, the fastest first: {'; then '.join(groups)}."


def named(arm: str) -> str:
    """Return the name of `entrant/style`."""
    return wording.name(Arm.of(arm)._asdict())


def additivity(section: Facts) -> Iterator[Table]:
    """Yield what host costs predict for steps of the baseline's program, and what timing found."""
    rows = [
        Row(
            (
                wording.name(row),
                f"{row['workload']} on {row['backend']}",
                *(
                    Value(row[f"{what}_seconds"], ADDED, row[f"{what}_low"], row[f"{what}_high"])
                    for what in ("predicted", "measured")
                ),
            )
        )
        for row in section.get("additivity") or []
    ]
    if rows:
        columns = (Column("style"), Column("at"), Column("by host cost"), Column("by timing steps"))
        note = "What styles with the baseline's program add to a step, said in two ways."
        yield Table(columns, tuple(rows), notes=(note,))


def proofs(cells: Sequence[Facts]) -> Iterator[Table]:
    """Yield how far each style is from the reference."""
    rows = [
        Row(
            (
                wording.name(cell),
                f"{cell['workload']} on {cell['backend']}",
                "the baseline" if is_baseline(cell) else wording.program(proof),
                *(f"{proof[kind]:.1e}" for kind in PROVEN),
            )
        )
        for cell in cells
        if (proof := cell["proof"]) and cell["failure"] is None
    ]
    heads = [Column(head, number=True) for head in ("loss", "gradient", "ten steps,\nnats")]
    if rows:
        yield Table((Column("style"), Column("at"), Column("program"), *heads), tuple(rows))


def proof_text(cells: Sequence[Facts]) -> Iterator[str]:
    """Yield what was proven, with the largest deviations."""
    found = [cell["proof"] for cell in cells if cell["failure"] is None and cell["proof"]]
    if found:
        worst = {kind: max(proof[kind] for proof in found) for kind in PROVEN}
        same = sum(proof["whole_step"] and proof["same_program_as_baseline"] for proof in found)
        yield (
            f"From the same weights, every style computes a float64 reference's loss to "
            f"{worst['loss']:.1e} (allowed: {LOSS_TOLERANCE:g}) and its gradients to "
            f"{worst['gradient']:.1e} (allowed: {GRADIENT_TOLERANCE:g}), and ten training steps of "
            f"plain JAX to {worst['trajectory']:.1e} nats (allowed: {TRAJECTORY_TOLERANCE:g}). "
            f"{same} of {len(found)} compile to the very same program as the baseline, itself "
            "included."
        )


def machine(run: Run) -> str:
    """Return the machine in words."""
    devices = (run.section["environment"].get("devices") or {}).values()
    return ", ".join(filter(None, [processor(run), *dict.fromkeys(map(str, devices))]))


def method(run: Run) -> Iterator[str]:
    """Yield how the run was made, how to repeat it, and its conditions."""
    section, spent = run.section, run.section["spent"]
    if not spent:
        yield "What is known of this file is what pytest-benchmark writes."
        return
    yield (
        "Styles of a workload take turns in one process, in a new random order every round, over "
        "buffers that are new in each block; what happens once is measured in fresh processes. "
        "Plain JAX runs under a second name as well: what differs between the two is noise. "
        f"{section['comparisons']} comparisons are corrected together."
    )
    commit = run.commit.get("id")
    if commit:
        dirty = ", with changes that are not in it" if run.commit.get("dirty") else ""
        yield f"Measured at commit {str(commit)[:12]}{dirty}."
    if section["arguments"]:
        program = "bakeoff" if "spec" in section or "history" in section else "pytest"
        yield f"To repeat it: `{program} {shlex.join(map(str, section['arguments']))}`"
    environment = section["environment"]
    known = (environment.get("versions") or {}) | (environment.get("environment") or {})
    known |= {n: v for n, v in environment.items() if n not in ("versions", "environment")}
    known |= {n: run.machine.get(n) for n in ("node", "system", "release", "python_version")}
    for name, value in known.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {each}" for key, each in value.items())
        if value not in (None, "", []):
            said = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{name if name.isupper() else name.replace('_', ' ')}: {said}"


def closing(section: Facts) -> str:
    """Return what the run can detect, and what it took."""
    control = [c for c in section["control"] if c["detectable"] is not None]
    steps = [c for c in control if c["metric"] == "step"] or control[:LAST_LINES]
    several = len({c["backend"] for c in steps}) > 1
    seen = ", ".join(
        f"{percent(c['detectable'])} ({c['metric']}, {c['workload']}"
        f"{', ' + c['backend'] if several else ''})"
        for c in steps
    )
    spent = section["spent"]
    return (
        f"detectable difference: {seen or 'not known'}; {spent['wall_seconds']:.0f} s, "
        f"{percent(round(spent['sampling_share'], 2))} of it taking samples, "
        f"{spent['processes']} processes"
    )
