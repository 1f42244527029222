"""What a run shows at its end: tables, who is tied with whom, the verdict, and what went wrong."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group as Together
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from bench.cells import BASELINE
from bench.engine.planner import MIN_VISITS
from bench.metrics import METRICS, STARTUP, Kind, label
from bench.report import scaling, tied, wording
from bench.report.sentences import sentences
from bench.report.wording import Facts, is_baseline, measured
from bench.stats.verdicts import PROGRAM
from common.config import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

PURE_ONLY = [m.name for m in METRICS.values() if m.pure_only]
PER_CALL = [m.name for m in METRICS.values() if m.kind is Kind.WARM and not m.pure_only]
MEMORY = [m.name for m in METRICS.values() if m.kind is Kind.COLD and m.unit == "B"]
COMPARED = [*PER_CALL, *PURE_ONLY, *STARTUP, *MEMORY]
"""All metrics that have ratios, in the order of the tables."""
COUNTED = ("jaxpr_equations", "hlo_instructions", "temp_bytes")
"""What is counted that the table of sizes has."""
COLOURS = {"slower": "red", "faster": "green"}
GAP = 2
"""Characters between columns."""
UNBROKEN = "\xa0"
LAST_LINES = 5
"""Lines of a worker's stderr that are shown."""


@dataclass(frozen=True)
class Fitted:
    """A part that is laid out when the width is known; in ASCII where there is nothing else."""

    draw: Callable[[int], Iterator[RenderableType]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the segments of what fits into the console's width."""
        segments = console.render(Together(*self.draw(options.max_width)), options)
        if not options.ascii_only:
            yield from segments
            return
        for text, style, control in segments:
            yield Segment(wording.ascii_only(text), style, control)


@dataclass(frozen=True)
class Column:
    """A column of a table, with a cell for each row."""

    header: str
    cells: list[Text]

    @property
    def width(self) -> int:
        """Return the characters of its longest line."""
        return max(*map(len, self.header.split("\n")), *(cell.cell_len for cell in self.cells))


@dataclass(frozen=True)
class Group:
    """Columns that belong together."""

    name: str
    columns: list[Column]

    @property
    def width(self) -> int:
        """Return the characters that it adds to a table."""
        return sum(column.width + GAP for column in self.columns)

    def filled(self) -> Group:
        """Return the group without columns that have no cell."""
        return Group(self.name, [c for c in self.columns if any(cell.plain for cell in c.cells)])


def parts(section: Facts) -> Iterator[RenderableType]:
    """Yield what is printed about a run, in order; each part fits itself to the console.

    Args:
        section: The `bakeoff` section of a run file.
    """
    cells = section["cells"]
    names = sorted({wording.name(cell) for cell in cells}, key=len, reverse=True)
    places = list(dict.fromkeys((cell["workload"], cell["backend"]) for cell in cells))
    for workload, backend in places:
        rows = ordered([c for c in cells if (c["workload"], c["backend"]) == (workload, backend)])
        if any(row["failure"] is None for row in rows):
            yield Fitted(partial(tables, rows))
    if explained := list(legend(section)):
        yield lines([*((text, 2) for text in explained), ("", 0)])
    if groups := [line for place in places for line in ties(section, *place)]:
        head = "Steps, fastest first; tied: no difference was found between any two of them."
        yield lines([(head, 0), *groups], names)
        yield lines([("", 0)])
    if section.get("scaling"):
        yield scaling.table(section["scaling"])
        yield lines([(text, 2) for text in scaling.LEGEND] + [("", 0)])
    yield lines([(text, 2) for text in sentences(section)], names)
    if notes := [(f"{name}: {text}", 2) for name, text in section.get("notes", {}).items()]:
        yield lines([("", 0), *notes], names)
    if section["warnings"]:
        yield lines([("", 0), *((f"warning: {text}", 2) for text in section["warnings"])])
    if any(cell["failure"] is not None for cell in cells):
        yield lines([("", 0), *failures(cells)], style="red")
    yield lines([("", 0), (closing(section), 0)])


def lines(
    texts: Sequence[tuple[str, int]], whole: Sequence[str] = (), style: str = ""
) -> RenderableType:
    """Return paragraphs that fit the width.

    Args:
        texts: Paragraphs, each with the indent of its second and later lines.
        whole: Names that are not to be broken at their spaces.
        style: Rich's name of a style.
    """

    def draw(width: int) -> Iterator[RenderableType]:
        for text, indent in texts:
            clean = wording.printable(text)
            for name in whole:
                clean = clean.replace(name, name.replace(" ", UNBROKEN))
            start = " " * (len(clean) - len(clean.lstrip(" ")) + indent)
            filled = textwrap.fill(clean, width, subsequent_indent=start, break_on_hyphens=False)
            # A Text is no markup: what comes from outside stays what it is.
            yield Text(filled.replace(UNBROKEN, " "), style=style)

    return Fitted(draw)


def ordered(rows: Sequence[Facts]) -> list[Facts]:
    """Return rows with an entrant's styles together, the baseline's first."""
    first = dict.fromkeys(row["entrant"] for row in rows)
    order = {entrant: place for place, entrant in enumerate(first)}
    return sorted(
        rows,
        key=lambda row: (
            row["entrant"] != BASELINE[0],
            order[row["entrant"]],
            row["style"] != BASELINE[1],
        ),
    )


def labels(rows: Sequence[Facts]) -> list[Text]:
    """Return the names of rows; styles are below their entrant, whose own row is its `pure`."""
    having = {row["entrant"] for row in rows if row["style"] == BASELINE[1]}
    return [
        Text(
            wording.printable(
                f"  {row['style']}"
                if row["entrant"] in having and row["style"] != BASELINE[1]
                else wording.name(row)
            )
        )
        for row in rows
    ]


def tables(rows: Sequence[Facts], width: int) -> Iterator[RenderableType]:
    """Yield the tables of a workload and backend, as many as the width asks for.

    Columns stay with their group as long as that fits; nothing is shortened or wrapped.
    """
    yield Text(title(rows), style="bold")
    groups = [
        Group("per call", [ratios(rows, metric) for metric in PER_CALL]),
        Group("", reasons(rows)),
        Group("sizes", sizes(rows)),
        Group("training", losses(rows)),
        Group("pure styles", [ratios(rows, metric) for metric in PURE_ONLY]),
        Group("once a process", [ratios(rows, metric) for metric in STARTUP]),
    ]
    name_width = max(text.cell_len for text in labels(rows))
    good = [row["failure"] is None for row in rows]
    for number, packed in enumerate(pack([g.filled() for g in groups], width - name_width)):
        names = dict.fromkeys(group.name for group in packed if group.name)
        columns = [column for group in packed for column in group.columns]
        kept = good
        if number == 0:  # who failed has a row once
            first, *others = columns
            cells = [c if ok else Text("  failed") for c, ok in zip(first.cells, good, strict=True)]
            columns, kept = [Column(first.header, cells), *others], [True] * len(rows)
        elif set(names) == {"pure styles"}:  # the other rows have nothing to say here
            kept = [ok and r["style"] == BASELINE[1] for r, ok in zip(rows, good, strict=True)]
        yield table("\n".join(names), labels(rows), columns, kept)
        yield Text()
    for text in notes(rows):
        yield Text(textwrap.fill(text, width, subsequent_indent="  ", break_on_hyphens=False))
    yield Text()


def pack(groups: Sequence[Group], room: int) -> list[list[Group]]:
    """Return groups by table: each goes where it fits, and is split if it fits nowhere."""
    packed: list[list[Group]] = []

    def fits(*inside: Group) -> bool:
        return sum(group.width for group in inside) <= room

    for group in groups:
        if not group.columns:
            continue
        place = next((inside for inside in packed if fits(*inside, group)), None)
        if place is not None:
            place.append(group)
            continue
        for column in group.columns:
            one = Group(group.name, [column])
            if column is group.columns[0] or not fits(*packed[-1], one):
                packed.append([])
            packed[-1].append(one)
    return packed


def table(
    head: str, names: Sequence[Text], columns: Sequence[Column], kept: Sequence[bool]
) -> Table:
    """Return a table of those rows that are kept."""
    out = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    out.add_column(Text(head), no_wrap=True, vertical="bottom")
    for column in columns:
        out.add_column(Text(column.header), no_wrap=True, vertical="bottom")
    for keep, name, *cells in zip(kept, names, *(c.cells for c in columns), strict=True):
        if keep:
            out.add_row(name, *cells)
    return out


def title(rows: Sequence[Facts]) -> str:
    """Return what a table is about: the workload, its sizes, and how much was sampled."""
    workload, backend = rows[0]["workload"], rows[0]["backend"]
    known, out = WORKLOADS.get(workload), f"{workload} on {backend}"
    if known is not None:
        batch = "" if known.batch == 1 else f", batch {known.batch}"
        out += f": width {known.width}, {known.chunk} characters{batch}"
    step = next((found for row in rows if (found := measured(row, "step"))), None)
    if step is not None:
        where = cores_words(step)
        out += f"; steps{where} in {step['blocks']} blocks of {step['processes']} processes"
    return out


def cores_words(found: Facts) -> str:
    """Return on which cores a metric was measured, where the file says so."""
    return {"all": " on all cores", "one": " on one core each"}.get(found.get("cores") or "", "")


def ratios(rows: Sequence[Facts], metric: str) -> Column:
    """Return a metric's column: the baseline's value, and the others' ratios to it."""
    if not any(measured(row, metric) for row in rows):
        return Column(label(metric, "\n"), [Text() for _ in rows])
    header = "\n".join(f"  {line}" for line in label(metric, "\n").split("\n"))
    return Column(header, [ratio(row, metric) for row in rows])


def ratio(row: Facts, metric: str) -> Text:
    """Return a ratio, in colour only if it is a finding."""
    found = measured(row, metric)
    if found is None:
        lacking = row["failure"] is None and metric in row["metrics"]
        return Text("  –" if lacking else "")
    if is_baseline(row) or found.get("ratio") is None:
        return Text(f"  {wording.amount(found['median'], found['unit'])}")
    said = wording.added(found) if found.get("added") else wording.ratio(found)
    text = f"{wording.mark(found) or ' '} {said}"
    return Text(text, style=COLOURS.get(found["verdict"] or "", ""))


def reasons(rows: Sequence[Facts]) -> list[Column]:
    """Return what explains most: how programs differ, and what Python does in a step."""
    programs = [
        "" if is_baseline(row) or row["failure"] is not None else wording.program(row["proof"])
        for row in rows
    ]
    return [
        Column("program", [Text(text) for text in programs]),
        differences(rows, "python_calls"),
    ]


def sizes(rows: Sequence[Facts]) -> list[Column]:
    """Return the sizes of programs and of what they need."""
    columns = [ratios(rows, metric) for metric in MEMORY]
    columns += [differences(rows, kind) for kind in COUNTED]
    counts = [compilations(row) for row in rows]
    if any(count not in ("", "1/0") for count in counts):
        columns.append(right("compiled\nfirst/warm", counts))
    return columns


def differences(rows: Sequence[Facts], kind: str) -> Column:
    """Return what does not wobble: the baseline's number, and by how much the others differ."""
    base = next((row for row in rows if is_baseline(row) and row["failure"] is None), None)
    reference = base["exact"].get(kind) if base else None
    return right(label(kind, "\n"), [difference(row, kind, reference) for row in rows])


def right(header: str, texts: Sequence[str]) -> Column:
    """Return a column whose cells end at the same place."""
    width = max(map(len, [*header.split("\n"), *texts]))
    header = "\n".join(line.rjust(width) for line in header.split("\n"))
    return Column(header, [Text(text.rjust(width) if text else "") for text in texts])


def difference(row: Facts, kind: str, reference: float | None) -> str:
    """Return by how much an exact number differs from the baseline's; `=` if it does not."""
    value = row["exact"].get(kind)
    if value is None or row["failure"] is not None:
        return ""
    if kind != "python_calls" and row["proof"] and not row["proof"]["whole_step"]:
        return "part"
    said = wording.size_bytes if kind.endswith("_bytes") else "{:.0f}".format
    if is_baseline(row) or reference is None:
        return said(value)
    if value == reference:
        return "="
    return f"{'+' if value > reference else '−'}{said(abs(value - reference))}"


def compilations(row: Facts) -> str:
    """Return how often a style compiles, at its first call and once it is warm."""
    first, warm = (row["exact"].get(f"compilations_{when}") for when in ("first", "warm"))
    return "" if first is None or warm is None else f"{first}/{warm}"


def losses(rows: Sequence[Facts]) -> list[Column]:
    """Return where training gets to, from the same weights and from own initialisers."""
    finals = [row["final_loss"] if row["failure"] is None else None for row in rows]
    own = [None if final is None else wording.own_loss(final) for final in finals]
    return [
        right("loss from\nsame", [wording.loss(f["same_weights"]) if f else "" for f in finals]),
        right("weights\nown", ["" if value is None else wording.loss(value) for value in own]),
    ]


def notes(rows: Sequence[Facts]) -> Iterator[str]:
    """Yield what a table needs below it: the entropy of the text, and why numbers are missing."""
    finals = [row["final_loss"] for row in rows if row["final_loss"]]
    for entropy in sorted({f["entropy"] for f in finals if f.get("entropy") is not None}):
        yield f"The text's entropy is {wording.loss(entropy)} nats per character."
    missing: dict[tuple[str, str], list[Facts]] = {}
    for metric in COMPARED:
        for row in rows:
            found = row["metrics"].get(metric)
            if row["failure"] is None and found and "missing" in found:
                missing.setdefault((found["missing"], metric), []).append(row)
    # Metrics that the same styles lack for the same reason are said at once.
    metrics: dict[tuple[str, str], list[str]] = {}
    for (reason, metric), lacking in missing.items():
        having = [row for row in rows if metric in row["metrics"] and row["failure"] is None]
        whose = (
            "any style"
            if len(lacking) == len(having)
            else ", ".join(wording.name(row) for row in lacking)
        )
        metrics.setdefault((reason, whose), []).append(metric)
    for (reason, whose), names in metrics.items():
        yield wording.printable(f"{reason}: {', '.join(names)} of {whose}")
    thin = [m for m in COMPARED if any((measured(row, m) or {}).get("preliminary") for row in rows)]
    if thin:
        yield f"preliminary, from fewer than {MIN_VISITS} workers: {', '.join(thin)}"


def legend(section: Facts) -> Iterator[str]:
    """Yield how to read a cell."""
    cells = [cell for cell in section["cells"] if cell["failure"] is None]
    if any(found.get("ratio") for cell in cells for found in cell["metrics"].values()):
        margin = wording.percent(section["plan"]["margin"])
        yield (
            f"=: within ±{margin} of {BASELINE[0]}; ?: inconclusive; red: slower; green: faster."
        )
        yield "In brackets: 95 % intervals, corrected for all rows of a column."
        host = [m for c in cells for m in c["metrics"].values() if "added" in m]
        if host:
            where = cores_words(host[0])
            yield f"Host cost: time that a style adds to a call at a tiny size{where}."
        if any(m.get("settled_by") == PROGRAM for c in cells for m in c["metrics"].values()):
            yield (
                "Proven: the same program as the baseline's, so that it can differ by what the "
                "style costs the host alone, which is at most that much."
            )
    if any(cell["exact"] for cell in cells if not is_baseline(cell)):
        several = any(cell["proof"] and not cell["proof"]["whole_step"] for cell in cells)
        yield "Signed numbers: difference from the baseline; =: identical" + (
            "; part: one of several programs of a step." if several else "."
        )


def ties(section: Facts, workload: str, backend: str) -> Iterator[tuple[str, int]]:
    """Yield the groups of styles whose steps are tied, the fastest first."""
    here = [c for c in section["cells"] if (c["workload"], c["backend"]) == (workload, backend)]
    intervals = tied.intervals(here, "step")
    if len(intervals) < 2:
        return
    margin = section["plan"]["margin"]
    head = f"{workload} on {backend}: "
    groups = tied.groups(section, "step", workload, backend, intervals)
    for place, group in enumerate(groups):
        ends = [intervals[name] for name in group]
        if all(1 - margin <= low and high <= 1 + margin for _, low, high in ends):
            where = f"within ±{wording.percent(margin)}"
        else:
            middles = (wording.ratio({"ratio": end[0]}) for end in (ends[0], ends[-1]))
            where = "–".join(dict.fromkeys(middles))
        together = "tied: " if len(group) > 1 else ""
        start = f"{' ' * len(head)}then " if place else head
        yield f"{start}{together}{', '.join(group)} ({where})", 2 if place else len(head) + 2


def failures(cells: Sequence[Facts]) -> Iterator[tuple[str, int]]:
    """Yield who has no number and why, with the last lines of its worker."""
    failed: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell["failure"] is not None:
            key = (f"{cell['entrant']} {cell['style']}", cell["failure"], cell["stderr"])
            failed.setdefault(key, []).append(f"{cell['workload']} on {cell['backend']}")
    for (who, why, stderr), where in failed.items():
        yield f"FAILED {who} ({', '.join(where)}): {why}", 2
        for line in [line for line in stderr.splitlines() if line.strip()][-LAST_LINES:]:
            yield f"    {line}", 2


def closing(section: Facts) -> str:
    """Return what the run can detect, and what it took."""
    control = [c for c in section["control"] if c["detectable"] is not None]
    steps = [c for c in control if c["metric"] == "step"] or control[:LAST_LINES]
    several = len({c["backend"] for c in steps}) > 1
    seen = ", ".join(
        f"{wording.percent(c['detectable'])} ({c['metric']}, {c['workload']}"
        f"{', ' + c['backend'] if several else ''})"
        for c in steps
    )
    spent = section["spent"]
    return (
        f"detectable difference: {seen or 'not known'}; "
        f"{spent['wall_seconds']:.0f} s, {100 * spent['sampling_share']:.0f} % of it taking "
        f"samples, {spent['processes']} processes"
    )
