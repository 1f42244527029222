"""The page of a run: one HTML file that works offline, from run files alone."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bench.report import scaling, wording
from bench.report.charts import Figure, figures
from bench.report.choose import answers
from bench.report.excerpts import excerpts
from bench.report.page.data import data, has
from bench.report.page.parts import embedded, filled, script
from bench.report.runs import TIME, processor
from bench.report.sentences import brief, sentences
from common.tolerances import GRADIENT_TOLERANCE, LOSS_TOLERANCE, TRAJECTORY_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.report.runs import Run
    from bench.report.wording import Facts

__all__ = ["embedded", "page"]

FIRST = 3
"""Sentences of a verdict without a short form that are read without a click."""


def page(runs: Sequence[Run], limits: Sequence[str] = ()) -> str:
    """Return the HTML of one or more runs; the first one is what its text and charts are about.

    `limits` are sentences about what the first run's machine can do at best.
    """
    run = runs[0]
    cells = run.section["cells"]
    backends = list(dict.fromkeys(cell["backend"] for cell in cells))
    drawn = [figure for backend in backends for figure in named(runs, backend, backends)]
    # in today's words, which a file of an earlier version does not have
    said = sentences(run.section) if run.section["control"] else run.section["verdict"]
    short = brief(run.section) if said else []
    first = short or said[:FIRST]
    plain = has(run, TIME)
    choices = [
        answer if len(backends) == 1 else answer._replace(situation=f"{answer.situation}, {b}")
        for b in backends
        for answer in ([] if plain else answers(run, b))
    ]
    proofs = list(proven(cells))
    failures = list(failed(cells))
    over = scaling.texts(run.section.get("scaling", []))
    code = excerpts(cell["entrant"] for cell in cells)
    parts = [
        ("choose", "Which library?", choices),
        ("table", "Table", True),
        ("scaling", "Devices", over),
        ("failures", "Failures", failures),
        ("proof", "Proof", proofs),
        ("charts", "Charts", drawn),
        ("code", "Code", code),
        ("how", "How", True),
    ]
    return filled(
        "page.html.jinja",
        js=script("page.js", "charts.js"),
        skip=("table", "To the table"),
        title=f"jax-bakeoff: {run.name}",
        subtitle=subtitle(run),
        sections=[(id_, name) for id_, name, there in parts if there],
        verdict=first or ["There is no verdict in this file."],
        more_verdict=said if short else said[FIRST:],
        limits=limits,
        more_title="All that this run says" if short else "The rest of what this run says",
        lacking=run.lacking,
        choices=choices,
        legend=legend(run),
        scaling={"heads": scaling.HEADS, "rows": over, "legend": scaling.LEGEND},
        failures=failures,
        proofs=proofs,
        proof_text=proof_text(cells),
        figures=drawn,
        excerpts=code,
        warnings=run.section["warnings"],
        notes=run.section["notes"],
        how=list(how(run)),
        command=command(run),
        environment=list(conditions(run)),
        runs=[about(each) for each in runs],
        data=embedded(data(runs)),
    )


def named(runs: Sequence[Run], backend: str, backends: Sequence[str]) -> Iterator[Figure]:
    """Yield the charts on one backend; it is named where there are several."""
    for figure in figures(runs[0], backend, runs[1:]):
        if len(backends) == 1:
            yield figure
        else:
            yield Figure(
                f"{figure.name}-{backend}",
                f"On {backend}: {figure.title}",
                figure.text,
                figure.chart,
            )


def legend(run: Run) -> str:
    """Return how to read the table."""
    if has(run, TIME):
        return (
            "Medians, and their ratios to the first of each group. Nothing says how sure they are."
        )
    margin = wording.percent(run.section["plan"]["margin"])
    return (
        f"Ratios to the baseline with their 95 % intervals. = is within ±{margin}, ? was not told "
        "apart; only what is slower or faster for sure, after correction for all comparisons, has "
        "a colour. The baseline's own row has times. Less is better throughout."
    )


def subtitle(run: Run) -> str:
    """Return when and on what a run was made."""
    return ", ".join(filter(None, [run.when.replace("T", " "), machine(run)]))


def machine(run: Run) -> str:
    """Return the machine in words."""
    devices = (run.section["environment"].get("devices") or {}).values()
    return ", ".join(filter(None, [processor(run), *dict.fromkeys(map(str, devices))]))


def about(run: Run) -> Facts:
    """Return a run as a line of a list."""
    said = run.section["verdict"] or run.lacking or [""]
    return {"name": run.name, "when": run.when, "machine": machine(run), "says": said[0]}


def command(run: Run) -> str:
    """Return what was typed."""
    arguments = run.section["arguments"]
    return f"pytest {shlex.join(map(str, arguments))}" if arguments else ""


def how(run: Run) -> Iterator[str]:
    """Yield how the run was made, in paragraphs."""
    section = run.section
    spent = section["spent"]
    if not spent:
        yield "What is known of this file is what pytest-benchmark writes."
        return
    yield (
        f"{spent['wall_seconds']:.0f} s of wall time, "
        f"{wording.percent(spent['sampling_share'])} of it taking samples, in "
        f"{spent['processes']} processes; {section['comparisons']} comparisons, corrected together "
        "(Holm). Styles of a workload take turns in one process, in a new random order every "
        "round, over buffers that are new in each block; what happens once is measured in fresh "
        "processes. Plain JAX runs under a second name as well: what differs between the two is "
        "noise."
    )
    commit = run.commit.get("id")
    if commit:
        dirty = ", with changes that are not in it" if run.commit.get("dirty") else ""
        yield f"Measured at commit {str(commit)[:12]}{dirty}. To repeat it, check that out, and:"


def conditions(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the conditions of a run, as names and values."""
    environment = run.section["environment"]
    yield from ((name, str(v)) for name, v in (environment.get("versions") or {}).items())
    for name, value in environment.items():
        if name in ("versions", "environment"):
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        if isinstance(value, dict):
            text = ", ".join(f"{k}: {v}" for k, v in value.items())
        yield name.replace("_", " "), str(text)
    variables = environment.get("environment") or {}
    yield from ((name, str(value)) for name, value in variables.items())
    for name in ("node", "system", "release", "python_version"):
        if run.machine.get(name):
            yield name.replace("_", " "), str(run.machine[name])


def failed(cells: Sequence[Facts]) -> Iterator[Facts]:
    """Yield who has no number, and why."""
    for cell in cells:
        if cell["failure"] is not None:
            yield {
                "who": wording.name(cell),
                "where": f"{cell['workload']} on {cell['backend']}",
                "why": cell["failure"],
                "stderr": cell["stderr"],
            }


def proven(cells: Sequence[Facts]) -> Iterator[Facts]:
    """Yield how far each style is from the reference."""
    for cell in cells:
        proof = cell["proof"]
        if cell["failure"] is None and proof:
            yield {
                "name": wording.name(cell),
                "where": f"{cell['workload']} on {cell['backend']}",
                "program": "the baseline" if wording.is_baseline(cell) else wording.program(proof),
                **{k: f"{proof[k]:.1e}" for k in ("loss", "gradient", "trajectory")},
            }


def proof_text(cells: Sequence[Facts]) -> str:
    """Return what was proven, with the largest deviations."""
    proofs = [cell["proof"] for cell in cells if cell["failure"] is None and cell["proof"]]
    if not proofs:
        return ""
    worst = {k: max(proof[k] for proof in proofs) for k in ("loss", "gradient", "trajectory")}
    same = sum(proof["whole_step"] and proof["same_program_as_baseline"] for proof in proofs)
    return (
        f"From the same weights, every style computes a float64 reference's loss to "
        f"{worst['loss']:.1e} (allowed: {LOSS_TOLERANCE:g}) and its gradients to "
        f"{worst['gradient']:.1e} (allowed: {GRADIENT_TOLERANCE:g}), and ten training steps of "
        f"plain JAX to {worst['trajectory']:.1e} nats (allowed: {TRAJECTORY_TOLERANCE:g}). "
        f"{same} of {len(proofs)} compile to the very same program as the baseline, itself "
        "included."
    )
