"""The report of a run, made from sections that are built here: no worker runs."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from bench.report import markdown, terminal, wording
from bench.report.sentences import brief, sentences

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
MARGIN = 0.02
TIMES = {
    "toy": {"step": 106e-6, "host_cost": 104e-6, "host_cost_pipelined": 81e-6},
    "seed": {"step": 3.54e-3, "epoch_by_chunk": 0.14, "epoch_by_scan": 0.138, "sample": 0.021},
}
TIMES["toy"] |= {"epoch_by_chunk": 0.13, "epoch_by_scan": 0.011, "sample": 0.0192}
COLD = {"import": 0.61, "init": 0.14, "trace": 0.071, "lower": 0.045, "compile": 0.42}
COLD |= {"first_step": 0.005}
RSS = 312e6
PURE_ONLY = ("epoch_by_chunk", "epoch_by_scan", "sample")


def metric(
    median: float,
    ratio: float | None = None,
    half: float = 0.01,
    unit: str = "s",
    **more: Any,
) -> dict[str, Any]:
    """Return a metric with an interval of `half` to each side, and the verdict that follows."""
    out: dict[str, Any] = {"unit": unit, "median": median, "samples": 800, "blocks": 40}
    out |= {"processes": 5, "p": None, "detectable": 0.008}
    if ratio is None:
        return out | {"ratio": None, "low": None, "high": None, "verdict": None}
    low, high = ratio - half, ratio + half
    verdict = "slower" if low > 1 else "faster" if high < 1 else "inconclusive"
    if low >= 1 - MARGIN and high <= 1 + MARGIN:
        verdict = "equivalent"
    out |= {"median": median * ratio, "ratio": ratio, "low": low, "high": high}
    return out | {"verdict": verdict} | more


def cell(
    entrant: str,
    style: str = "pure",
    workload: str = "seed",
    *,
    differs: dict[str, int] | None = None,
    calls: int = 4,
    **more: Any,
) -> dict[str, Any]:
    """Return a cell without metrics, whose program is the baseline's unless `differs` is given."""
    out: dict[str, Any] = {"entrant": entrant, "style": style, "workload": workload}
    out |= {"backend": "cpu", "failure": None, "stderr": "", "final_loss": None, "metrics": {}}
    counts = {f"stablehlo.{kind}": n for kind, n in (differs or {}).items()}
    out["proof"] = {"loss": 1e-8, "gradient": 2e-7, "trajectory": 0.0, "whole_step": True}
    out["proof"] |= {"same_program_as_baseline": differs is None}
    out["proof"] |= {"operations_beside_baseline": counts}
    out["exact"] = {"python_starts": 2, "python_calls": calls, "jaxpr_equations": 273}
    out["exact"] |= {"hlo_instructions": 1008, "flops": 1950181.0, "temp_bytes": 725568}
    out["exact"] |= {"compilations_first": 1, "compilations_warm": 0, "code_lines": 43}
    return out | more


def section(cells: Iterable[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a section that holds `cells`, with a control for each of their workloads' steps."""
    cells = list(cells)
    control = [
        metric(1.0, 1.002)
        | {"workload": w, "backend": "cpu", "metric": "step", "detectable": 0.008}
        for w in dict.fromkeys(cell["workload"] for cell in cells)
    ]
    spent = {"wall_seconds": 291.2, "sampling_seconds": 190.0, "sampling_share": 0.653}
    out: dict[str, Any] = {"schema": 3, "arguments": ["bench"], "warnings": [], "cells": cells}
    out |= {"plan": {"budget_seconds": 300.0, "margin": MARGIN, "seed": 0}}
    return out | {"spent": spent | {"processes": 31}, "control": control} | more


# entrant, style, ratios at toy and seed with half an interval, program, calls, own loss at seed
STYLES: list[tuple[str, str, tuple[float, float], tuple[float, float], Any, int, list[float]]] = [
    ("equinox", "pure", (1.24, 0.03), (1.007, 0.009), {"transpose": 4}, 442, [2.9, 3.0, 3.09]),
    ("equinox", "filter_jit", (2.54, 0.08), (1.055, 0.012), {"transpose": 4}, 1537, []),
    ("flax_linen", "pure", (1.004, 0.012), (0.998, 0.008), None, 4, [2.45, 2.47, 2.48]),
    ("flax_linen", "train_state", (1.07, 0.04), (1.001, 0.009), {"add": 1}, 9, []),
    (
        "flax_linen",
        "blog",
        (21.81, 0.9),
        (1.91, 0.07),
        {"add": -49, "b": -45, "c": 1, "d": 2},
        9000,
        [],
    ),
    ("flax_nnx", "pure", (1.62, 0.07), (1.012, 0.014), None, 343, [2.5, 2.51, 2.52]),
    ("flax_nnx", "jit", (9.02, 0.35), (1.23, 0.03), {"add": 1, "constant": 1}, 7060, []),
    ("flax_nnx", "cached_partial", (3.25, 0.15), (1.06, 0.02), {"add": 1, "constant": 1}, 1406, []),
    ("flax_nnx", "jit_partial", (1.23, 0.05), (0.998, 0.01), {"add": 1, "constant": 1}, 139, []),
    ("haiku", "pure", (1.006, 0.011), (0.995, 0.012), None, 4, [2.52, 2.54, 2.56]),
    ("haiku", "transform", (1.01, 0.035), (0.9978, 0.01), {"broadcast_in_dim": -1}, 4, []),
]


def full() -> dict[str, Any]:
    """Return the section of a whole run: twelve styles at two sizes."""
    cells = []
    for place, workload in enumerate(("toy", "seed")):
        base = cell("pure_jax", workload=workload)
        base["metrics"] = {m: metric(t) for m, t in {**TIMES[workload], **COLD}.items()}
        base["metrics"]["peak_rss"] = metric(RSS, unit="B")
        base["final_loss"] = final([2.33, 2.35, 2.38])
        cells.append(base)
        for number, (entrant, style, *ratios, differs, calls, own) in enumerate(STYLES):
            new = cell(entrant, style, workload, differs=differs, calls=calls)
            ratio, half = ratios[place]
            new["metrics"] = {
                m: metric(t, ratio, half)
                for m, t in TIMES[workload].items()
                if style == "pure" or m not in PURE_ONLY
            }
            for m, t in COLD.items():
                new["metrics"][m] = metric(t, 1 + 0.06 * (number % 5), 0.05)
            new["metrics"]["peak_rss"] = metric(RSS, 1 + 0.02 * (number % 4), 0.004, unit="B")
            new["proof"]["whole_step"] = style != "blog"
            new["final_loss"] = final(own)
            new["exact"]["jaxpr_equations"] += 4 if differs else 0
            new["exact"]["temp_bytes"] += 1234 if style == "jit" else 0
            cells.append(new)
    return section(cells)


def final(own: list[float] | None = None, same: float = 2.269) -> dict[str, Any]:
    """Return where training gets to."""
    return {"steps": 200, "same_weights": same, "own_initialiser": own or [], "entropy": 0.9}


def steps(*styles: tuple[dict[str, Any], float | None, float]) -> dict[str, Any]:
    """Return the section of a run of `step` alone, from cells, their ratios and half intervals."""
    cells = []
    for row, ratio, half in styles:
        row["metrics"] = {"step": metric(TIMES.get(row["workload"], {"step": 0.02})["step"])}
        if ratio is not None:
            row["metrics"]["step"] = metric(row["metrics"]["step"]["median"], ratio, half)
        cells.append(row)
    return section(cells)


def base(workload: str = "seed") -> tuple[dict[str, Any], None, float]:
    return cell("pure_jax", workload=workload), None, 0.0


def console(width: int = 80, **options: Any) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(width=width, file=file, highlight=False, **options), file


def printed(found: dict[str, Any], width: int = 80, **options: Any) -> str:
    to, file = console(width, **options)
    for part in terminal.parts(found):
        to.print(part)
    return file.getvalue()


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_built_run_is_json() -> None:
    assert json.loads(json.dumps(full())) == full()


# --- wording


@pytest.mark.parametrize(
    ("ratio", "low", "high", "text"),
    [
        (1.003, 0.999, 1.007, "1.003 (0.999–1.007)"),
        (1.2131, 1.188, 1.242, "1.21 (1.19–1.24)"),
        (9.02, 8.66, 9.41, "9.0 (8.7–9.4)"),
        (21.81, 21.75, 21.87, "21.8 (21.8–21.9)"),
        (1.08, 0.96, 1.19, "1.08 (0.96–1.19)"),
        (1.2, 1.0401, 1.36, "1.20 (1.04–1.36)"),
        (1.0, 1.0, 1.0, "1.00 (1.00–1.00)"),
        (1.25, 1.1, None, "1.2 (>1.1)"),
        (1.25, None, None, "1.25"),
        (140.2, None, None, "140"),
        (1.0, 0.004, 260.0, "1 (0–260)"),
    ],
)
def test_a_ratio_has_the_digits_of_its_interval(
    ratio: float, low: float | None, high: float | None, text: str
) -> None:
    assert wording.ratio({"ratio": ratio, "low": low, "high": high}) == text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (wording.seconds(106e-6), "106 µs"),
        (wording.seconds(3.54e-3), "3.54 ms"),
        (wording.seconds(12.0), "12.0 s"),
        (wording.seconds(0.0), "0 ns"),
        (wording.size_bytes(725568), "726 kB"),
        (wording.size_bytes(312e6), "312 MB"),
        (wording.size_bytes(0), "0 B"),
        (wording.percent(0.008), "0.8 %"),
        (wording.percent(0.02), "2 %"),
        (wording.percent(0.0004), "0.04 %"),
        (wording.percent(1.5), "150 %"),
        (wording.percent(0.0), "0 %"),
        (wording.operations({}), "another order"),
        (wording.operations({"stablehlo.add": 1, "stablehlo.tanh": -2}), "+1 add, -2 tanh"),
        (wording.operations({"a": 1, "b": -2, "c": 3, "d": 1}), "7 operations differ"),
        (wording.sized("batched"), "batched (width 128, batch 8)"),
        (wording.sized("of_old"), "of_old"),
        (wording.joined(["a", "b", "c"]), "a, b and c"),
        (wording.printable("\x1b[31mred\x1b[0m\a\tx\ry"), "red     x\ny"),
        (wording.ascii_only("±2 % µs 1–2 é"), "~2 % us 1-2 ?"),
    ],
)
def test_wording(said: str, text: str) -> None:
    assert said == text


# --- terminal


@pytest.mark.parametrize("width", [80, 160])
def test_it_fits(width: int) -> None:
    text = printed(full(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for entrant, style, *_ in STYLES:
        label = entrant if style == "pure" else f"  {style}"
        rows = [line for line in text.splitlines() if line.startswith(label)]
        assert len(rows) >= 4, label
    assert "= 0.998 (0.990–1.006)" in text
    assert "+1 add, +1 constant" in text
    assert "The text's entropy is 0.900 nats per character." in text


def test_a_wide_terminal_has_fewer_tables() -> None:
    rules = [sum(set(line) == {"─"} for line in printed(full(), w).splitlines()) for w in (80, 160)]
    assert rules[1] < rules[0]


def test_the_baseline_is_absolute_and_the_others_are_relative() -> None:
    text = printed(full())
    rows = [line.split() for line in text.splitlines() if line.startswith("pure_jax ")]
    assert ["pure_jax", "3.54", "ms", "4"] in rows
    assert "pure_jax            106 µs" in text


def test_a_run_of_steps_alone() -> None:
    found = steps(base(), (cell("haiku"), 1.001, 0.003), (cell("flax_nnx", "jit"), 1.2, 0.03))
    for row in found["cells"]:
        row["exact"] = {}
    lines = printed(found).splitlines()
    assert lines[0] == "seed on cpu: width 128, 256 characters; steps in 40 blocks of 5 processes"
    assert sum(set(line) == {"─"} for line in lines) == 1
    assert any(line.startswith("haiku         = 1.001 (0.998–1.004)  the same") for line in lines)
    assert any(line.startswith("flax_nnx jit    1.20 (1.17–1.23)") for line in lines)


def test_colour_only_where_there_is_a_finding() -> None:
    found = full()
    to, _ = console(160, force_terminal=True, color_system="standard", no_color=False)
    coloured: dict[str, set[str]] = {"red": set(), "green": set()}
    for part in terminal.parts(found):
        for segment in to.render(part):
            if segment.style is not None and segment.style.color is not None:
                coloured[segment.style.color.name].add(segment.text.strip())
    assert coloured["green"] == set()
    metrics = [m for row in found["cells"] for m in row["metrics"].values()]
    slower = {wording.ratio(m) for m in metrics if m["verdict"] == "slower"}
    assert coloured["red"] - {""} == slower
    faster = steps(base(), (cell("equinox"), 0.87, 0.01), (cell("haiku"), 0.7, 0.4))
    text = printed(faster, force_terminal=True, color_system="standard", no_color=False)
    assert "\x1b[32m  0.87 (0.86–0.88)" in text
    assert "? 0.7 (0.3–1.1)" in text
    assert "31m" not in text


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = cell("planted", failure="not equal")
    found = full()
    found["cells"].append(failed)
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[31m" in printed(found, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in printed(found, force_terminal=True, color_system="standard")


def test_what_comes_from_outside_is_no_markup() -> None:
    odd = cell("planted", "[bold]x[/bold]", failure="not equal: [red]loss[/red] :smile: off")
    odd["stderr"] = "first\n\n" + "\n".join(f"\x1b[31mline {n}[/]" for n in range(8))
    found = full()
    found["cells"].append(odd)
    found["cells"].append(cell("[link=x]y"))
    found["warnings"] = ["the load is [blink]3.2[/blink]"]
    text = printed(found, 160, force_terminal=True, color_system="standard", no_color=False)
    assert "FAILED planted [bold]x[/bold] (seed on cpu): not equal: [red]loss[/red] :smile:" in text
    assert "    line 7[/]" in text
    assert "line 2" not in text
    assert "warning: the load is [blink]3.2[/blink]" in text
    assert "[link=x]y" in text


def test_a_long_failure_stays_inside() -> None:
    failed = cell("planted", failure="x" * 300 + " and more", stderr="y" * 200)
    text = printed(section([base()[0], failed]))
    assert max(map(len, text.splitlines())) <= 80


def test_who_failed_has_a_row_once() -> None:
    found = full()
    found["cells"].append(cell("planted", failure="not equal"))
    rows = [line.split() for line in printed(found).splitlines() if line.startswith("planted")]
    assert rows == [["planted", "failed"]]


def test_the_same_failure_is_said_once() -> None:
    failed = [cell("crashing", workload=w, failure="import failed") for w in ("toy", "seed")]
    text = printed(section([base()[0], *failed]))
    assert "FAILED crashing pure (toy on cpu, seed on cpu): import failed" in text


def test_a_terminal_without_utf8() -> None:
    raw = io.BytesIO()
    found = full()
    found["cells"].append(cell("planted", failure="naïve → no"))
    with io.TextIOWrapper(raw, encoding="ascii") as file:
        to = Console(width=80, file=file, highlight=False)
        for part in terminal.parts(found):
            to.print(part)
        file.flush()
        text = raw.getvalue().decode("ascii")
    assert "na?ve > no" in text
    assert "1.23 (1.20-1.26)" in text
    assert max(map(len, text.splitlines())) <= 80


def test_missing_metrics_are_grouped_by_reason() -> None:
    found = full()
    for row in found["cells"]:
        if row["workload"] == "seed":
            row["metrics"]["import"] = {"missing": "not measured within the budget"}
        if row["workload"] == "seed" and row["entrant"] == "haiku":
            for name in ("lower", "compile"):
                row["metrics"][name] = {"missing": "not measured within the budget"}
    text = one_line(printed(found, 160))
    assert "not measured within the budget: import of any style" in text
    assert "not measured within the budget: lower, compile of haiku, haiku transform" in text
    seed = text[text.index("seed on cpu") :]
    assert "import init" not in seed
    assert "–" in seed


def test_compilations_only_where_they_are_unusual() -> None:
    found = full()
    assert "compiled" not in printed(found)
    found["cells"][-1]["exact"]["compilations_warm"] = 1
    assert "compiled" in printed(found)
    assert "1/1" in printed(found)


def test_ties() -> None:
    text = one_line(printed(full()))
    assert "toy on cpu: tied: pure_jax, flax_linen, haiku, haiku transform (1.00–1.01)" in text
    assert "then tied: equinox filter_jit, flax_nnx cached_partial (1.05–1.06) then" in text
    near = steps(base(), (cell("haiku"), 1.001, 0.003))
    assert "seed on cpu: tied: pure_jax, haiku (within ±2 %)" in printed(near)


def test_the_closing_line() -> None:
    text = one_line(printed(full()))
    assert text.endswith(
        "detectable difference: 0.8 % (step, toy), 0.8 % (step, seed); "
        "291 s, 65 % of it taking samples, 31 processes"
    )
    assert "detectable difference: not known; 291 s" in printed(section([base()[0]], control=[]))


# --- sentences


def test_the_same_program_is_tied() -> None:
    found = steps(base(), (cell("flax_linen"), 0.999, 0.008), (cell("haiku"), 1.001, 0.01))
    assert sentences(found) == [
        "At seed (width 128), flax_linen and haiku are within ±2 % of pure_jax; all compile to the "
        "very same program as pure_jax.",
        "Their steps are equally fast: choose by API.",
    ]


def test_tied_without_the_same_program() -> None:
    equinox = cell("equinox", differs={"transpose": 4})
    found = steps(base(), (equinox, 1.0, 0.01), (cell("haiku"), 1.0, 0.01))
    assert "; haiku compiles to the very same program as pure_jax." in sentences(found)[0]


def test_inconclusive_is_no_tie() -> None:
    found = steps(base(), (cell("haiku"), 1.01, 0.03), (cell("equinox"), 1.0, 0.05))
    [said] = sentences(found)
    assert "inconclusive: haiku and equinox (differences under 0.8 % may be missed)" in said
    assert "within" not in said
    assert "choose by API" not in said


def test_dispatch_is_a_fixed_cost_at_two_sizes() -> None:
    change = {"add": 1}
    found = steps(
        base("toy"),
        (cell("flax_nnx", "jit", "toy", differs=change, calls=7060), 9.0, 0.4),
        base("seed"),
        (cell("flax_nnx", "jit", "seed", differs=change, calls=7060), 1.23, 0.03),
    )
    assert (
        "Slower at seed (width 128) and at every larger size measured: flax_nnx jit "
        "1.23 (1.20–1.26), all of it Python dispatch (848 µs a step, alike at toy and seed; "
        "7060 Python calls, not 4)." in sentences(found)
    )
    # As much slower at both sizes: the cost grows with the model, so it is the program's as well.
    for row in found["cells"]:
        if row["entrant"] == "flax_nnx":
            row["metrics"]["step"] |= {"ratio": 1.23, "low": 1.2, "high": 1.26}
    said = " ".join(sentences(found))
    assert "all of it" not in said
    assert "by the program (+1 add), Python dispatch (7060 Python calls, not 4) or both." in said


def test_without_more_python_calls_it_is_not_dispatch() -> None:
    found = steps(
        base("toy"),
        (cell("equinox", workload="toy", differs={"transpose": 4}), 9.0, 0.4),
        base("seed"),
        (cell("equinox", workload="seed", differs={"transpose": 4}), 1.23, 0.03),
    )
    said = " ".join(sentences(found))
    assert "its program differs (+4 transpose)" in said
    assert "dispatch" not in said


def test_the_same_program_with_more_calls_is_said_and_no_more() -> None:
    """That its cost is alike at two sizes would show that it is all dispatch; one size does not."""
    found = steps(base(), (cell("flax_nnx", calls=343), 1.2, 0.03))
    assert sentences(found)[-1] == (
        "Slower at seed (width 128): flax_nnx 1.20 (1.17–1.23), the very same program, but 343 "
        "Python calls, not 4."
    )
    found = steps(base(), (cell("flax_nnx"), 1.2, 0.03))
    assert sentences(found)[-1].endswith("flax_nnx 1.20 (1.17–1.23), this run does not say why.")


def test_faster_and_several_programs() -> None:
    blog = cell("flax_linen", "blog", differs={"add": -49}, calls=9000)
    blog["proof"]["whole_step"] = False
    equinox = cell("equinox", differs={"transpose": 4}, calls=442)
    slower, faster = sentences(steps(base(), (blog, 1.9, 0.07), (equinox, 0.87, 0.01)))[-2:]
    assert slower.endswith(
        "flax_linen blog 1.90 (1.83–1.97), its step is several programs, not one."
    )
    assert faster == (
        "Faster at seed (width 128): equinox 0.87 (0.86–0.88), its program differs (+4 transpose)."
    )


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        (
            {"toy": (1.6, 0.07), "seed": (1.0, 0.01), "wide": (1.0, 0.01)},
            "Slower at toy (width 8) (within the margin from seed (width 128) on): flax_nnx",
        ),
        (
            {"toy": (1.6, 0.07), "seed": (1.2, 0.01), "wide": (1.0, 0.01)},
            "Slower at seed (width 128) (within the margin from wide (width 512) on): flax_nnx",
        ),
        # Slower for certain, but by less than the margin.
        (
            {"toy": (1.6, 0.07), "seed": (1.01, 0.005)},
            "Slower at toy (width 8) (within the margin from seed (width 128) on): flax_nnx",
        ),
        (
            {"toy": (1.6, 0.07), "seed": (1.2, 0.01)},
            "Slower at seed (width 128) and at every larger size measured: flax_nnx",
        ),
        (
            {"toy": (1.6, 0.07), "seed": (1.01, 0.05)},
            "Slower at toy (width 8) (inconclusive at seed (width 128)): flax_nnx",
        ),
        (
            {"toy": (1.6, 0.07), "seed": (1.0, 0.01), "wide": (1.3, 0.01)},
            "Slower at wide (width 512), though not at seed (width 128): flax_nnx",
        ),
        (
            {"toy": (1.6, 0.07), "seed": (0.9, 0.01)},
            "Slower at toy (width 8) (not from seed (width 128) on): flax_nnx",
        ),
        ({"toy": (1.6, 0.07)}, "Slower at toy (width 8): flax_nnx"),
    ],
)
def test_from_which_size_on_it_stops_mattering(
    ratios: dict[str, tuple[float, float]], said: str
) -> None:
    # The wider ones first: their order in the file says nothing about their sizes.
    found = steps(
        *[base(workload) for workload in reversed(ratios)],
        *[(cell("flax_nnx", workload=w, calls=343), *ratios[w]) for w in reversed(ratios)],
    )
    assert any(text.startswith(said) for text in sentences(found)), sentences(found)


def test_initialisers() -> None:
    found = full()
    said = (
        "Where training gets to depends on the initialiser, not on the library: after 200 steps "
        "at seed (width 128) the loss is 2.269 from the same weights, and from their own between "
        "2.353 (pure_jax) and 2.997 (equinox)."
    )
    assert said in sentences(found)
    for row in found["cells"]:  # all within the spread of the seeds
        row["final_loss"] = final([2.3, 2.5] if row["final_loss"]["own_initialiser"] else [])
    assert "initialiser" not in " ".join(sentences(found))
    found = full()
    found["cells"][-1]["final_loss"] = final(same=2.4)  # from the same weights to another place
    assert "initialiser" not in " ".join(sentences(found))


def test_before_training() -> None:
    found = full()
    said = sentences(found)
    assert (
        "Before training, what differs most is import: at seed (width 128), flax_linen blog takes "
        "1.24 (1.19–1.29) times pure_jax's 610 ms." in said
    )
    for row in found["cells"]:
        for name in COLD:
            row["metrics"][name]["verdict"] = "inconclusive"
    assert "Before training" not in " ".join(sentences(found))


def test_a_run_without_steps() -> None:
    rows = [cell("pure_jax"), cell("haiku")]
    rows[0]["metrics"] = {"compile": metric(0.4)}
    rows[1]["metrics"] = {"compile": metric(0.4, 1.3, 0.1)}
    assert sentences(section(rows)) == [
        "Steps were not timed in this run.",
        "haiku compiles to the very same program as pure_jax.",
        "Before training, what differs most is compile: at seed (width 128), haiku takes "
        "1.3 (1.2–1.4) times pure_jax's 400 ms.",
    ]


def test_a_baseline_that_failed() -> None:
    haiku = cell("haiku")
    haiku["metrics"] = {"step": metric(3.5e-3)}
    found = section([cell("pure_jax", failure="worker failed"), haiku])
    assert sentences(found) == [
        "Steps are not compared: pure_jax, which ratios refer to, has no step time in this run.",
        "haiku compiles to the very same program as pure_jax.",
        "Failed, and so without a number: pure_jax at seed.",
    ]
    text = printed(found)
    assert "haiku       3.50 ms" in text
    assert "within" not in text


def test_nothing_was_measured() -> None:
    assert sentences(section([])) == ["Nothing was measured."]
    failed = [cell(name, failure="no", proof=None) for name in ("pure_jax", "haiku")]
    assert sentences(section(failed)) == ["Nothing was measured: all of its 2 cells failed."]
    text = printed(section(failed))
    assert "FAILED pure_jax pure (seed on cpu): no" in text
    assert "FAILED haiku pure (seed on cpu): no" in text
    assert printed(section([]))


def test_a_control_that_differs_is_a_warning() -> None:
    found = steps(base(), (cell("haiku"), 1.03, 0.005))
    found["control"][0] |= {"verdict": "slower", "ratio": 1.02, "low": 1.015, "high": 1.025}
    assert sentences(found)[-1] == (
        "The control, a second copy of pure_jax, differs from it (step at seed, "
        "1.020 (1.015–1.025)): do not trust differences of this size."
    )
    found["control"] = []
    assert sentences(found)[-1].startswith("There is no control")


def test_a_verdict_for_ten_seconds() -> None:
    tied, slow = (cell("haiku"), 1.001, 0.003), (cell("flax_nnx", "jit"), 1.25, 0.03)
    assert brief(steps(base(), tied, slow)) == [
        "At seed (width 128), haiku is within ±2 % of pure_jax.",
        "Slower at seed (width 128): flax_nnx jit 1.25 (1.22–1.28).",
        "The steps of the libraries are equally fast: choose by API, and mind how the step is "
        "written.",
    ]
    assert brief(steps(base(), (cell("equinox"), 0.87, 0.01), tied))[-1] == (
        "At seed (width 128), equinox 0.87 (0.86–0.88) is faster; else the steps of pure_jax and "
        "haiku are equally fast: choose by API."
    )
    assert brief(steps(base(), (cell("haiku"), 1.01, 0.03)))[0] == (
        "Inconclusive at seed (width 128): haiku."
    )
    assert brief(section([])) == []


def test_no_number_is_invented() -> None:
    """Every number of a sentence is in the section, as it stands or as it is worded."""
    found = full()
    known = set(json.dumps(found).replace('"', " ").replace(",", " ").split())
    numbers = [m for row in found["cells"] for m in row["metrics"].values()]
    words = " ".join(wording.ratio(m) for m in numbers if m["ratio"] is not None)
    words += " " + " ".join(wording.amount(m["median"], m["unit"]) for m in numbers)
    words += " 2 % 0.8 % 8 128 2.353 2.997 163 850 µs"  # margin, control, widths, means, fixed cost
    pattern = re.compile(r"\d+(?:\.\d+)?")
    allowed = {number for text in (*known, words) for number in pattern.findall(text)}
    said = set(pattern.findall(" ".join(sentences(found))))
    assert said <= allowed, said - allowed


# --- Markdown


def test_markdown_table() -> None:
    head, rule, *rows, _, legend = markdown.table(full()).splitlines()
    assert head == (
        "| entrant, style | step at `toy` | step at `seed` | import to first step, at `seed` | "
        "Python calls | program | final loss: same weights, own |"
    )
    assert rule.count("|") == head.count("|")
    assert len(rows) == len(STYLES) + 1
    assert rows[0] == (
        "| [pure_jax](impls/pure_jax.py) `pure` | 1, 106 µs | 1, 3.54 ms | 1291 ms | 4 |  | "
        "2.269, 2.353 |"
    )
    assert rows[1].startswith(
        "| [equinox](impls/equinox.py) `pure` | **1.24 (1.21–1.27)**, 131 µs | "
        "= 1.007 (0.998–1.016), 3.56 ms | 1291 ms | 442 | +4 transpose | 2.269, 2.997 |"
    )
    assert all(row.count("|") == head.count("|") for row in rows)
    assert "within ±2 %" in legend


def test_markdown_of_failures_and_gaps() -> None:
    failed = cell("planted", failure="not equal:\n a|b [x](y) <z>")
    gone = cell("haiku")
    gone["metrics"] = {"step": {"missing": "not measured within the budget"}}
    rows = markdown.table(section([base()[0], failed, gone])).splitlines()[2:5]
    assert r"failed: not equal: a\|b \[x\](y) \<z\> |" in rows[1]
    assert "| not measured within the budget |" in rows[2]
    assert markdown.table(section([])) == "Nothing was measured."


def test_reports_need_no_library_under_test_and_nothing_slow() -> None:
    code = (
        "import sys, bench.report.terminal, bench.report.page, bench.cli; "
        "print({'jax', 'flax', 'haiku', 'equinox', 'scipy.stats'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
