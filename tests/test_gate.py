"""What counts as worse, and how that is written down."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.cells import Cell
from bench.cli.report import Format
from bench.compare import gate as gate_module
from bench.compare.comparison import ComparedRow, CountOutcome, counts, failures, varying
from bench.compare.comparison_document import MARKER
from bench.compare.gate import Accept, Gate, GateRule, Scope, best, gate_of, read_gate
from bench.stats.ratios import Estimate, corrected
from bench.stats.verdicts import Verdict
from common.errors import BakeoffError

if TYPE_CHECKING:
    from collections.abc import Mapping

TODAY = date(2026, 11, 25)
JIT = Cell("flax_nnx", "jit", "seed", "cpu")
HAIKU = Cell("haiku", "pure", "seed", "cpu")
SLOW = corrected(0.0953, 0.002, 20, 40, 5)
"""10 % slower."""


def times(gate: Gate, estimates: Mapping[Cell, Estimate], today: date = TODAY) -> list[ComparedRow]:
    rows = [varying((cell, "step"), estimate, 0.02) for cell, estimate in estimates.items()]
    return [gate.judged(row, 0.02, today) for row in rows]


def judged(gate: Gate, today: date = TODAY) -> ComparedRow:
    """Return the row of JIT's step, which is 10 % slower."""
    return times(gate, {JIT: SLOW}, today)[0]


def counted(gate: Gate, base: float, new: float, metric: str = "python_calls") -> ComparedRow:
    key = (JIT, metric)
    [row] = counts({key: base}, {key: new})
    return gate.judged(row, 0.02, TODAY)


def shift(**more: Any) -> Accept:
    """Return an accepted shift of a step."""
    about: dict[str, Any] = {"metric": "step", "up_to": 1.15, "reason": "known"}
    return Accept(**about | {"until": date(2026, 12, 31)} | more)


def test_slower_is_worse_by_more_than_the_margin_unless_said_otherwise() -> None:
    assert judged(Gate()).worse
    assert judged(Gate()).threshold == 0.02
    assert judged(Gate(threshold=0.0)).worse
    allowed = judged(Gate(threshold=0.12))
    assert (allowed.verdict, allowed.worse) == (Verdict.SLOWER, False)
    assert allowed.note == "12 % are allowed"
    [unsure] = times(Gate(), {JIT: corrected(0.2, 0.5, 20, 40, 5)})
    assert (unsure.verdict, unsure.worse) == (Verdict.INCONCLUSIVE, False)


ENTRANT = GateRule(entrant="flax_nnx", threshold=0.3)
TWO = GateRule(entrant="flax_nnx", metric="step", threshold=0.05)
OTHER_TWO = GateRule(style="jit", metric="step", threshold=0.2)
ELSEWHERE = GateRule(entrant="haiku", metric="step", style="pure", threshold=0.9)


@pytest.mark.parametrize(
    ("rules", "threshold"),
    [
        ((ENTRANT,), 0.3),
        ((TWO, ENTRANT), 0.05),
        ((ENTRANT, TWO, OTHER_TWO), 0.2),
        ((OTHER_TWO, TWO, ENTRANT), 0.05),
        ((ELSEWHERE,), 0.02),
    ],
)
def test_the_rule_that_names_most_decides_then_the_last(
    rules: tuple[GateRule, ...], threshold: float
) -> None:
    row = judged(Gate(rule=rules))
    assert row.threshold == threshold
    assert row.worse == (threshold < 0.1)


@pytest.mark.parametrize("kind", ["metric", "entrant", "style", "workload", "backend"])
def test_every_name_selects(kind: str) -> None:
    row = ComparedRow(**JIT.facts, metric="step")
    assert Scope(**{kind: getattr(row, kind)}).holds(row)
    assert best([Scope(**{kind: "another"})], row) is None


def test_what_is_left_out_is_not_judged() -> None:
    found = {JIT: SLOW, Cell("e0", "pure", "toy", "cpu"): corrected(0.5, 0.01, 9, 9, 3)}
    rule = GateRule(workload="toy", ignore=True)
    seed, toy = times(Gate(rule=(rule,)), found)
    assert (seed.ignored, seed.worse) == (False, True)
    assert (toy.ignored, toy.verdict, toy.worse) == (True, None, False)
    assert toy.ratio is not None
    kept = GateRule(workload="toy", entrant="e0", threshold=0.1)
    assert not times(Gate(rule=(rule, kept)), found)[1].ignored
    works: dict[Cell, str | None] = {JIT: None, HAIKU: None}
    fails: dict[Cell, str | None] = {JIT: "boom", HAIKU: "boom"}
    for metric, worse in ((None, [False, True]), ("step", [True, True])):
        gate = Gate(rule=(GateRule(entrant="flax_nnx", metric=metric, ignore=True),))
        found_failures = [gate.judged(row, 0.02, TODAY) for row in failures(works, fails)]
        assert [row.worse for row in found_failures] == worse


def test_exact_metrics_have_no_room_unless_a_rule_names_them() -> None:
    entrant = Gate(rule=(GateRule(entrant="flax_nnx", threshold=0.5),))
    room = Gate(rule=(GateRule(metric="python_calls", threshold=0.1),))
    left_out = Gate(rule=(GateRule(entrant="flax_nnx", ignore=True),))
    known = Gate(accept=(shift(metric="python_calls", up_to=2.0),))
    for gate, base, new, outcome, worse in (
        (Gate(), 1000, 1001, CountOutcome.WORSE, True),
        (Gate(threshold=0.5), 1000, 1001, CountOutcome.WORSE, True),
        (entrant, 1000, 1001, CountOutcome.WORSE, True),
        (room, 1000, 1100, CountOutcome.WORSE, False),
        (room, 1000, 1101, CountOutcome.WORSE, True),
        (room, 0, 1, CountOutcome.WORSE, True),
        (Gate(), 1000, 1000, CountOutcome.EQUAL, False),
        (Gate(), 1000, 999, CountOutcome.BETTER, False),
        (left_out, 1, 2, CountOutcome.WORSE, False),
        (known, 4, 8, CountOutcome.WORSE, False),
        (known, 4, 9, CountOutcome.WORSE, True),
    ):
        row = counted(gate, base, new)
        assert (row.outcome, row.worse) == (outcome, worse), (gate, base, new)
    assert counted(Gate(), 40, 60, "code_lines").outcome is CountOutcome.CHANGED
    assert counted(known, 4, 8).accepted == known.accept[0]


@pytest.mark.parametrize(
    ("shifts", "today", "worse", "note"),
    [
        ([shift()], TODAY, False, "accepted until 2026-12-31: known"),
        ([shift()], date(2026, 12, 31), False, "accepted until 2026-12-31: known"),
        (
            [shift()],
            date(2027, 1, 1),
            True,
            "was accepted until 2026-12-31, which has passed: known",
        ),
        ([shift(up_to=1.05)], TODAY, True, "more than the accepted 1.05: known"),
        (  # the one that names most counts
            [shift(entrant="flax_nnx", up_to=1.01), shift()],
            TODAY,
            True,
            "more than the accepted 1.01: known",
        ),
        ([shift(workload="toy")], TODAY, True, "more than the 2 % allowed"),
    ],
)
def test_accepted_shifts(shifts: list[Accept], today: date, worse: bool, note: str) -> None:
    row = judged(Gate(accept=tuple(shifts)), today)
    assert (row.verdict, row.worse, row.note) == (Verdict.SLOWER, worse, note)
    assert (row.accepted is None) == worse


def test_what_matches_no_row_is_a_warning() -> None:
    rows = [
        ComparedRow(**cell.facts, metric=metric)
        for cell, metric in ((JIT, "step"), (HAIKU, "python_calls"))
    ]
    rules = [
        GateRule(entrant="flax_nnx", style="jitt", ignore=True),
        GateRule(workload="wide", threshold=0.1),
        GateRule(style="jit", ignore=True),
        GateRule(entrant="equinox", style="x", ignore=True),
    ]
    gate = Gate(rule=tuple(rules), accept=(shift(), shift(workload="wide")))
    assert list(gate.unmatched(rows)) == [
        "the gate accepts a shift of metric step, workload wide, but there is no such row",
        "the gate has a rule for entrant flax_nnx, style jitt, but there is no such style here",
    ]


# --- as it is written down


def test_a_gate_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    assert read_gate(path) == Gate()
    path.write_text("[tool.ruff]\nline-length = 100\n")
    assert read_gate(path) == Gate()
    with pytest.raises(BakeoffError, match=r"has no table \[tool\.bakeoff\.gate\]"):
        read_gate(path, needed=True)
    with pytest.raises(BakeoffError, match="there is no such file"):
        read_gate(tmp_path / "none.toml", needed=True)
    with pytest.raises(BakeoffError, match="cannot be read"):
        read_gate(tmp_path)
    example = str(gate_module.__doc__)
    path.write_text(example[example.index("    [tool") :])
    rule = GateRule(metric="compile", entrant="flax_nnx", threshold=0.1)
    reason = "nnx 0.12.9 checks its graph anew"
    assert read_gate(path, needed=True) == Gate(
        0.02, (rule,), (shift(entrant="flax_nnx", reason=reason),)
    )
    read_gate(ROOT / "pyproject.toml")


SHIFT = '[[accept]]\nmetric = "step"\n'
REST = 'reason = "x"\nuntil = 2026-12-31'
RULE = '[[rule]]\nmetric = "step"\n'
WRONG = {
    "treshold = 0.1": "is wrong: Object contains unknown field `treshold`; a rule has",
    'threshold = "2 %"': "is wrong: Expected `float | null`, got `str` - at `$.threshold`; a rule",
    "threshold = 10": "is wrong: Expected `float` <= 1.0 - at `$.threshold`",
    "rule = 3": "is wrong: Expected `array`, got `int` - at `$.rule`",
    "[[rule]]\nthreshold = 0.1": "is wrong: names none of metric, entrant, style, workload, "
    "backend - at `$.rule[0]`",
    '[[rule]]\nmetric = "compil"\nthreshold = 0.1': ": unknown metric 'compil'; known: step",
    '[[rule]]\nentrant = "flax"\nthreshold = 0.1': ": unknown entrant 'flax'; known: pure_jax",
    '[[rule]]\nbackend = "cuda"\nthreshold = 0.1': ": unknown backend 'cuda'; known: cpu, g",
    f"{RULE}up_to = 1.1": "is wrong: Object contains unknown field `up_to` - at `$.rule[0]`",
    RULE: "is wrong: needs either a threshold or ignore = true - at `$.rule[0]`",
    f"{SHIFT}up_to = 1.1\nuntil = 2026-12-31": "is wrong: Object missing required field `reason`",
    f"{SHIFT}up_to = 0.15\n{REST}": "is wrong: Expected `float` > 1.0 - at `$.accept[0].up_to`",
    f'{SHIFT}up_to = 1.1\nreason = " "\nuntil = 2026-12-31': "is wrong: Expected `str` matching",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_a_gate_is_said_on_one_line(text: str) -> None:
    with pytest.raises(BakeoffError) as error:
        gate_of(tomllib.loads(text), "f")
    message = str(error.value)
    assert message.removeprefix("f: [tool.bakeoff.gate]").strip().startswith(WRONG[text])
    assert "\n" not in message
    table = {"rule": [{"entrant": "mine", "threshold": 0.1}]}  # an entrant of the runs is known
    assert gate_of(table, "f", ["mine"]).rule[0].entrant == "mine"


# --- in continuous integration

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "bench.yml"


@pytest.fixture(scope="module")
def workflow() -> Any:
    yaml = pytest.importorskip("yaml", reason="flax brings PyYAML; it is not here")
    return yaml.safe_load(WORKFLOW.read_text("utf-8"))


def test_a_pull_requests_code_cannot_write_or_reach_a_script(workflow: Any) -> None:
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
    steps = [step for job in jobs.values() for step in job["steps"]]
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
    made = gate_of(tomllib.loads(written)["tool"]["bakeoff"]["gate"], "docs")
    assert (len(made.rule), len(made.accept)) == (2, 1)
    for form in re.findall(r"bakeoff report \S+ --format (\S+)", text):
        assert form in {str(known) for known in Format}
