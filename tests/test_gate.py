"""What counts as worse, and how that is written down."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bench.cells import Cell
from bench.cli.report import Format
from bench.compare import gatefile
from bench.compare.comparison import (
    Comparison,
    Outcome,
    Side,
    Status,
    Values,
    exact_rows,
    failures,
    time_rows,
)
from bench.compare.gate import Accept, Gate, Rule, Where, best
from bench.compare.gatefile import gate, read
from bench.compare.markdown import MARKER
from bench.stats.ratios import Estimate, corrected
from bench.stats.verdicts import Verdict
from common.errors import BakeoffError

TODAY = date(2026, 11, 25)
JIT = Cell("flax_nnx", "jit", "seed", "cpu")
TOY = Cell("flax_nnx", "jit", "toy", "cpu")
HAIKU = Cell("haiku", "pure", "seed", "cpu")
SLOW = corrected(0.0953, 0.002, 20, 40, 5)
"""10 % slower."""
SURE = corrected(0.0, 0.002, 20, 40, 5)
COUNTED = ("step", "python_calls")


def judged(asked: Gate, today: date = TODAY, **ratios: Estimate) -> Any:
    """Return the row of JIT's step, among others that do not change."""
    found = {(JIT, "step"): SLOW, (HAIKU, "step"): SURE, **{(TOY, k): e for k, e in ratios.items()}}
    values = dict.fromkeys(found, Values(1.0, 1.0))
    return time_rows(found, values, asked, 0.02, today)[0]


def accepted(**more: Any) -> Gate:
    about: dict[str, Any] = {
        "metric": "step",
        "up_to": 1.15,
        "reason": "known",
        "until": date(2026, 12, 31),
    }
    return Gate(accept=(Accept(**about | more),))


# --- thresholds


def test_slower_is_worse_by_more_than_the_margin_unless_said_otherwise() -> None:
    assert judged(Gate()).worse
    assert judged(Gate()).threshold == 0.02
    allowed = judged(Gate(threshold=0.12))
    assert (allowed.verdict, allowed.worse) == (Verdict.SLOWER, False)
    assert allowed.note == "12 % are allowed"
    assert judged(Gate(threshold=0.0)).worse


def test_what_is_not_slower_is_not_worse() -> None:
    unsure = corrected(0.2, 0.5, 20, 40, 5)
    row = time_rows({(JIT, "step"): unsure}, {(JIT, "step"): Values(1, 1)}, Gate(), 0.02, TODAY)[0]
    assert (row.verdict, row.worse) == (Verdict.INCONCLUSIVE, False)


def test_the_rule_that_names_most_decides_then_the_last() -> None:
    entrant = Rule(entrant="flax_nnx", threshold=0.3)
    both = Rule(entrant="flax_nnx", metric="step", threshold=0.05)
    again = Rule(style="jit", metric="step", threshold=0.2)
    other = Rule(entrant="haiku", metric="step", style="pure", threshold=0.9)
    for rules, threshold in (
        ((entrant,), 0.3),
        ((both, entrant), 0.05),
        ((entrant, both, again), 0.2),
        ((again, both, entrant), 0.05),
        ((other,), 0.02),
    ):
        row = judged(Gate(rule=rules))
        assert row.threshold == threshold
        assert row.worse == (threshold < 0.1)


@pytest.mark.parametrize("field", ["metric", "entrant", "style", "workload", "backend"])
def test_every_name_selects(field: str) -> None:
    row = {**JIT._asdict(), "metric": "step"}
    assert Where(**{field: row[field]}).holds(JIT, "step")
    assert not Where(**{field: "another"}).holds(JIT, "step")
    assert best([Where(**{field: "another"})], JIT, "step") is None


def test_what_is_left_out_is_not_judged_and_costs_the_others_nothing() -> None:
    found = {(JIT, "step"): SLOW} | {
        (Cell(f"e{i}", "pure", "toy", "cpu"), "step"): corrected(0.5, 1.0, 9, 9, 3)
        for i in range(40)
    }
    values = dict.fromkeys(found, Values(1.0, 1.0))
    every = time_rows(found, values, Gate(), 0.02, TODAY)
    rule = Rule(workload="toy", ignore=True)
    few = time_rows(found, values, Gate(rule=(rule,)), 0.02, TODAY)
    assert few[0].p == pytest.approx((every[0].p or 0) / 41)
    assert {(row.ignored, row.verdict) for row in few[1:]} == {(True, None)}
    assert few[1].ratio is not None
    kept = Rule(workload="toy", entrant="e0", threshold=0.1)
    again = time_rows(found, values, Gate(rule=(rule, kept)), 0.02, TODAY)
    assert not again[1].ignored


def test_a_cell_that_is_left_out_may_fail() -> None:
    cells: dict[Cell, str | None] = {JIT: None, HAIKU: None}
    now: dict[Cell, str | None] = {JIT: "boom", HAIKU: "boom"}
    left_out = Gate(rule=(Rule(entrant="flax_nnx", ignore=True),))
    assert [f.worse for f in failures(cells, now, left_out)] == [False, True]
    of_a_metric = Gate(rule=(Rule(entrant="flax_nnx", metric="step", ignore=True),))
    assert all(f.worse for f in failures(cells, now, of_a_metric))


# --- exact metrics


def counted(asked: Gate, base: float, new: float, metric: str = "python_calls") -> Any:
    key = (JIT, metric)
    return exact_rows({key: base}, {key: new}, asked, 0.02, TODAY)[0]


def test_exact_metrics_have_no_room_unless_a_rule_names_them() -> None:
    assert counted(Gate(), 1000, 1001).worse
    assert counted(Gate(threshold=0.5), 1000, 1001).worse
    assert counted(Gate(rule=(Rule(entrant="flax_nnx", threshold=0.5),)), 1000, 1001).worse
    room = Gate(rule=(Rule(metric="python_calls", threshold=0.1),))
    assert not counted(room, 1000, 1100).worse
    assert counted(room, 1000, 1101).worse
    assert counted(room, 0, 1).worse
    assert counted(Gate(), 1000, 1000).outcome is Outcome.EQUAL
    assert counted(Gate(), 1000, 999).outcome is Outcome.BETTER
    neither = counted(Gate(), 40, 60, "code_lines")
    assert (neither.outcome, neither.worse) == (Outcome.CHANGED, False)
    left_out = Gate(rule=(Rule(entrant="flax_nnx", ignore=True),))
    assert (counted(left_out, 1, 2).ignored, counted(left_out, 1, 2).worse) == (True, False)


def test_exact_shifts_can_be_accepted_too() -> None:
    known = accepted(metric="python_calls", up_to=2.0)
    assert counted(known, 4, 8).accepted == known.accept[0]
    assert counted(known, 4, 9).worse


# --- accepted shifts


def test_an_accepted_shift_does_not_fail_and_says_why() -> None:
    row = judged(accepted())
    assert (row.verdict, row.worse) == (Verdict.SLOWER, False)
    assert row.accepted is not None
    assert row.note == "accepted until 2026-12-31: known"
    one = Comparison((Side("a"),), Side("b"), 0.02, (row,))
    assert one.status is Status.NOT_WORSE


def test_an_accepted_shift_ends() -> None:
    assert not judged(accepted(), date(2026, 12, 31)).worse
    row = judged(accepted(), date(2027, 1, 1))
    assert row.worse
    assert row.note == "was accepted until 2026-12-31, which has passed: known"


def test_more_than_was_accepted_is_worse() -> None:
    row = judged(accepted(up_to=1.05))
    assert row.worse
    assert row.note == "more than the accepted 1.05: known"


def test_of_several_shifts_the_one_that_names_most_counts() -> None:
    wide, narrow = accepted().accept[0], accepted(entrant="flax_nnx", up_to=1.01).accept[0]
    assert judged(Gate(accept=(narrow, wide))).worse
    assert judged(Gate(accept=(wide, narrow))).worse


def test_what_is_said_of_nothing_is_a_warning() -> None:
    rows = [(JIT, "step"), (HAIKU, "python_calls")]
    assert not list(accepted().unmatched(rows))
    assert list(accepted(workload="wide").unmatched(rows)) == [
        "the gate accepts a shift of metric step, workload wide, but there is no such row"
    ]
    typo = Gate(rule=(Rule(entrant="flax_nnx", style="jitt", ignore=True),))
    assert list(typo.unmatched(rows)) == [
        "the gate has a rule for entrant flax_nnx, style jitt, but there is no such style here"
    ]
    elsewhere = Gate(rule=(Rule(workload="wide", threshold=0.1), Rule(style="jit", ignore=True)))
    assert not list(elsewhere.unmatched(rows))
    assert not list(Gate(rule=(Rule(entrant="equinox", style="x", ignore=True),)).unmatched(rows))


# --- as it is written down


WRITTEN = """
[tool.bakeoff.gate]
threshold = 0.03

[[tool.bakeoff.gate.rule]]
metric = "compile"
entrant = "flax_nnx"
threshold = 0.10

[[tool.bakeoff.gate.rule]]
workload = "toy"
backend = "cpu"
ignore = true

[[tool.bakeoff.gate.accept]]
metric = "step"
style = "jit"
up_to = 1.15
reason = "nnx checks its graph anew"
until = 2026-12-31
"""


def test_a_gate_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(WRITTEN)
    assert read(path) == Gate(
        0.03,
        (
            Rule(metric="compile", entrant="flax_nnx", threshold=0.10),
            Rule(workload="toy", backend="cpu", ignore=True),
        ),
        (
            Accept(
                metric="step",
                style="jit",
                up_to=1.15,
                reason="nnx checks its graph anew",
                until=date(2026, 12, 31),
            ),
        ),
    )


def test_without_a_gate_it_is_the_usual_one(tmp_path: Path) -> None:
    assert read(tmp_path / "pyproject.toml") == Gate()
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    assert read(tmp_path / "pyproject.toml") == Gate()
    with pytest.raises(BakeoffError, match=r"has no table \[tool\.bakeoff\.gate\]"):
        read(tmp_path / "pyproject.toml", needed=True)
    with pytest.raises(BakeoffError, match="cannot be read"):
        read(tmp_path)


def test_this_projects_gate_is_one() -> None:
    read(Path(__file__).parents[1] / "pyproject.toml")


def test_entrants_of_the_runs_are_known() -> None:
    raw = {"rule": [{"entrant": "mine", "threshold": 0.1}]}
    with pytest.raises(BakeoffError, match="unknown entrant 'mine'; known: pure_jax, equinox"):
        gate(raw, "f")
    assert gate(raw, "f", ["mine"]).rule[0].entrant == "mine"


RULE, ACCEPT = "f: [[tool.bakeoff.gate.rule]] number 1", "f: [[tool.bakeoff.gate.accept]] number 1"
HINT = (
    "; thresholds are fractions (0.1 is 10 %), `up_to` is a ratio (1.1), `until` a day (2026-12-31)"
)
SHIFT = '[[accept]]\nmetric = "step"\n'
REST = 'reason = "x"\nuntil = 2026-12-31'
WRONG = {
    "treshold = 0.1": "f: [tool.bakeoff.gate]: unknown key 'treshold'; known: threshold, rule, "
    "accept; choose one of them",
    'threshold = "2 %"': "f: [tool.bakeoff.gate], threshold: Expected `float | null`, got `str`"
    + HINT,
    "threshold = 10": f"f: [tool.bakeoff.gate], threshold: Expected `float` <= 1.0{HINT}",
    "threshold = -0.1": f"f: [tool.bakeoff.gate], threshold: Expected `float` >= 0.0{HINT}",
    "threshold = nan": f"f: [tool.bakeoff.gate], threshold: Expected `float` >= 0.0{HINT}",
    "threshold = true": "f: [tool.bakeoff.gate], threshold: Expected `float | null`, got `bool`"
    + HINT,
    "rule = 3": "f: tool.bakeoff.gate.rule is no list; begin each [[tool.bakeoff.gate.rule]]",
    '[rule]\nmetric = "step"': "f: tool.bakeoff.gate.rule is no list; begin each "
    "[[tool.bakeoff.gate.rule]]",
    "[[rule]]\nthreshold = 0.1": f"{RULE} is about everything; name one or more of metric, "
    "entrant, style, workload, backend",
    '[[rule]]\nmetric = "compil"\nthreshold = 0.1': f"{RULE}: unknown metric 'compil'; known: step",
    '[[rule]]\nentrant = "flax"\nthreshold = 0.1': f"{RULE}: unknown entrant 'flax'; known: pure_j",
    '[[rule]]\nworkload = "sed"\nthreshold = 0.1': f"{RULE}: unknown workload 'sed'; known: toy, s",
    '[[rule]]\nbackend = "cuda"\nthreshold = 0.1': f"{RULE}: unknown backend 'cuda'; known: cpu, g",
    "[[rule]]\nmetric = 3\nthreshold = 0.1": f"{RULE}, metric: Expected `str | null`, got `int`"
    + HINT,
    '[[rule]]\nmetric = "step"\nup_to = 1.1': f"{RULE}: unknown key 'up_to'; known: metric,",
    '[[rule]]\nmetric = "step"': f"{RULE} must have a threshold or ignore = true; give one of the",
    '[[rule]]\nmetric = "step"\nthreshold = 0.1\nignore = true': f"{RULE} must have a threshold or "
    "ignore = true; give one of the two",
    f"{SHIFT}up_to = 1.1\nuntil = 2026-12-31": f"{ACCEPT}: Object missing required field `reason`",
    f'{SHIFT}up_to = 1.1\nreason = "x"': f"{ACCEPT}: Object missing required field `until`{HINT}",
    f"{SHIFT}{REST}": f"{ACCEPT}: Object missing required field `up_to`{HINT}",
    f"{SHIFT}up_to = 0.15\n{REST}": f"{ACCEPT}, up_to: Expected `float` > 1.0{HINT}",
    f'{SHIFT}up_to = 1.1\nreason = " "\nuntil = 2026-12-31': f"{ACCEPT}, reason: Expected `str`",
    f'{SHIFT}up_to = 1.1\nreason = "x"\nuntil = "soon"': f"{ACCEPT}, until: Invalid RFC3339",
    f"[[accept]]\nup_to = 1.1\n{REST}": f"{ACCEPT} is about everything; name one or more",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_gate_is_said_on_one_line(text: str) -> None:
    with pytest.raises(BakeoffError) as error:
        gate(tomllib.loads(text), "f")
    assert str(error.value).startswith(WRONG[text])
    assert "\n" not in str(error.value)


def test_a_table_that_is_none() -> None:
    with pytest.raises(BakeoffError, match=r"f: tool\.bakeoff\.gate is 3; make it a table"):
        gate(3, "f")


# --- in continuous integration

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "bench.yml"


@pytest.fixture(scope="module")
def workflow() -> Any:
    yaml = pytest.importorskip("yaml", reason="flax brings PyYAML; it is not here")
    return yaml.safe_load(WORKFLOW.read_text("utf-8"))


def test_who_runs_a_pull_requests_code_cannot_write(workflow: Any) -> None:
    assert workflow["permissions"] == {}
    assert set(workflow[True]) == {"push", "pull_request"}  # YAML 1.1 reads `on` as true
    jobs = workflow["jobs"]
    assert set(jobs) == {"test", "ab", "comment"}
    for job in jobs.values():
        writes = "write" in job["permissions"].values()
        runs = any("run" in step or "checkout" in step.get("uses", "") for step in job["steps"])
        assert writes != runs
        assert job["timeout-minutes"] <= 30
    assert jobs["comment"]["permissions"] == {"pull-requests": "write"}
    assert "head.repo.full_name == github.repository" in jobs["comment"]["if"]
    assert "secrets." not in WORKFLOW.read_text("utf-8")


def test_no_text_of_others_is_part_of_a_script(workflow: Any) -> None:
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in steps:
        assert "${{" not in step.get("run", "")
        assert "${{" not in str(step.get("with", {}))
        action = step.get("uses")
        assert action is None or re.fullmatch(r"actions/[a-z-]+@v\d+", action)
    said = next(step["run"] for step in steps if step.get("id") == "ab")
    assert '--base "origin/$BASE" --new current --budget 600' in said
    comment = next(step["with"]["script"] for step in steps if "script" in step.get("with", {}))
    assert MARKER in comment


@pytest.mark.parametrize(
    ("status", "table", "passes"),
    [("0", True, 0), ("1", True, 1), ("2", True, 0), ("2", False, 2), ("141", True, 141)],
)
def test_the_workflow_respects_the_exit_status(
    workflow: Any, tmp_path: Path, status: str, table: bool, passes: int
) -> None:
    """The scripts of the job run here, with a `bakeoff` that has this exit status."""
    bash = shutil.which("bash") or pytest.skip("there is no bash")
    fake = tmp_path / ".venv" / "bin" / "bakeoff"
    fake.parent.mkdir(parents=True)
    write = 'echo table > ab.md; echo "$3" > base; ' if table else ""
    fake.write_text(f"#!{bash}\n{write}exit {status}\n")
    fake.chmod(0o755)
    out, summary = tmp_path / "out", tmp_path / "summary"
    variables = {"GITHUB_OUTPUT": str(out), "GITHUB_STEP_SUMMARY": str(summary)}
    variables |= {"BASE": "main; touch pwned", "PATH": os.environ["PATH"]}
    steps = workflow["jobs"]["ab"]["steps"]
    measure, passing = (s["run"] for s in steps if "status" in s.get("run", "").lower())

    def step(script: str, **more: str) -> int:
        command = [bash, "-e", "-c", script]
        return subprocess.run(command, cwd=tmp_path, env=variables | more, check=False).returncode

    assert step(measure) == 0
    assert out.read_text() == f"status={status}\n"
    assert not (tmp_path / "pwned").exists()
    if table:
        assert (tmp_path / "base").read_text() == "origin/main; touch pwned\n"
        assert summary.read_text() == "table\n"
    assert step(passing, STATUS=status) == passes


def test_what_the_docs_say_of_the_gate_is_a_gate() -> None:
    text = (ROOT / "docs" / "ci.md").read_text("utf-8")
    [written] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    made = gate(tomllib.loads(written)["tool"]["bakeoff"]["gate"], "docs")
    assert (len(made.rule), len(made.accept)) == (2, 1)
    doc = str(gatefile.__doc__)
    gate(tomllib.loads(doc[doc.index("    [tool") :])["tool"]["bakeoff"]["gate"], "docstring")
    for form in re.findall(r"bakeoff report \S+ --format (\S+)", text):
        assert form in {str(known) for known in Format}
