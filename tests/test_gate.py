"""What counts as worse, and how that is written down."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bench.cells import Cell
from bench.cli.report import Format
from bench.compare import gate as gate_module
from bench.compare.comparison import ComparedRow, counts, failures, varying
from bench.compare.comparison_document import MARKER
from bench.compare.gate import Accept, Gate, GateRule, Scope, best, read_gate
from bench.stats.ratios import corrected
from common.errors import BakeoffError

TODAY = date(2026, 11, 25)
LATER = date(2027, 1, 1)
JIT = Cell("flax_nnx", "jit", "seed", "cpu")
STEP = (JIT, "step")
SLOW = varying(STEP, corrected(0.0953, 0.002, 20, 40, 5), 0.02)
"""10 % slower."""
UNSURE = varying(STEP, corrected(0.2, 0.5, 20, 40, 5), 0.02)
[FAILED] = failures({JIT: None}, {JIT: "boom"})


def calls(base: float, new: float) -> ComparedRow:
    key = (JIT, "python_calls")
    return next(counts({key: base}, {key: new}))


def rules(*rules: GateRule) -> Gate:
    return Gate(rule=rules)


def shift(**more: Any) -> Accept:
    """Return an accepted shift of a step."""
    about: dict[str, Any] = {"metric": "step", "up_to": 1.15, "reason": "known"}
    return Accept(**about | {"until": date(2026, 12, 31)} | more)


def accepts(*shifts: Accept) -> Gate:
    return Gate(accept=shifts)


ENTRANT = GateRule(entrant="flax_nnx", threshold=0.3)
TWO = GateRule(entrant="flax_nnx", metric="step", threshold=0.05)
OTHER_TWO = GateRule(style="jit", metric="step", threshold=0.2)
LEFT_OUT = GateRule(entrant="flax_nnx", ignore=True)
ROOM = rules(GateRule(metric="python_calls", threshold=0.1))
KNOWN = accepts(shift(metric="python_calls", up_to=2.0))


@pytest.mark.parametrize(
    ("gate", "row", "today", "worse", "note"),
    [
        (Gate(), SLOW, TODAY, True, "more than the 2 % allowed"),
        (Gate(threshold=0.0), SLOW, TODAY, True, ""),
        (Gate(threshold=0.12), SLOW, TODAY, False, "12 % are allowed"),
        (Gate(), UNSURE, TODAY, False, ""),
        (Gate(), FAILED, TODAY, True, ""),
        # The rule that names most decides, then the last one
        (rules(ENTRANT), SLOW, TODAY, False, "30 % are allowed"),
        (rules(TWO, ENTRANT), SLOW, TODAY, True, "more than the 5 % allowed"),
        (rules(ENTRANT, TWO, OTHER_TWO), SLOW, TODAY, False, "20 % are allowed"),
        (rules(OTHER_TWO, TWO, ENTRANT), SLOW, TODAY, True, "more than the 5 % allowed"),
        (rules(GateRule(entrant="haiku", threshold=0.9)), SLOW, TODAY, True, "more than the 2 % "),
        # What is left out is not judged
        (rules(LEFT_OUT), SLOW, TODAY, False, ""),
        (rules(LEFT_OUT, TWO), SLOW, TODAY, True, "more than the 5 % allowed"),
        (rules(LEFT_OUT), calls(1, 2), TODAY, False, ""),
        (rules(LEFT_OUT), FAILED, TODAY, False, ""),
        (rules(GateRule(metric="step", ignore=True)), FAILED, TODAY, True, ""),
        # Exact metrics have no room unless a rule names them
        (Gate(threshold=0.5), calls(1000, 1001), TODAY, True, ""),
        (rules(ENTRANT), calls(1000, 1001), TODAY, True, ""),
        (ROOM, calls(1000, 1100), TODAY, False, "10 % are allowed"),
        (ROOM, calls(1000, 1101), TODAY, True, "more than the 10 % allowed"),
        (ROOM, calls(0, 1), TODAY, True, "more than the 10 % allowed"),
        (Gate(), calls(1000, 999), TODAY, False, ""),
        (KNOWN, calls(4, 8), TODAY, False, "accepted until 2026-12-31: known"),
        (KNOWN, calls(4, 9), TODAY, True, "more than the accepted 2: known"),
        # Accepted shifts
        (accepts(shift()), SLOW, date(2026, 12, 31), False, "accepted until 2026-12-31: known"),
        (accepts(shift()), SLOW, LATER, True, "was accepted until 2026-12-31, which has passed: "),
        (accepts(shift(up_to=1.05)), SLOW, TODAY, True, "more than the accepted 1.05: known"),
        (
            accepts(shift(entrant="flax_nnx", up_to=1.01), shift()),
            *(SLOW, TODAY, True, "more than the accepted 1.01: known"),
        ),
        (accepts(shift(workload="toy")), SLOW, TODAY, True, "more than the 2 % allowed"),
    ],
)
def test_what_is_worse(gate: Gate, row: ComparedRow, today: date, worse: bool, note: str) -> None:
    found = gate.judged(row, 0.02, today)
    assert (found.worse, found.note[: len(note)], not found.note) == (worse, note, not note)
    assert (found.accepted is not None) == found.note.startswith("accepted")
    assert found.ignored == (best(gate.rule, row) == LEFT_OUT)


@pytest.mark.parametrize("kind", ["metric", "entrant", "style", "workload", "backend"])
def test_every_name_selects(kind: str) -> None:
    assert Scope(**{kind: getattr(SLOW, kind)}).holds(SLOW)
    assert best([Scope(**{kind: "another"})], SLOW) is None


def test_what_matches_no_row_is_a_warning() -> None:
    rows = [
        ComparedRow(**cell.facts, metric=metric)
        for cell, metric in (STEP, (Cell("haiku", "pure", "seed", "cpu"), "python_calls"))
    ]
    rules = [
        GateRule(entrant="flax_nnx", style="jitt", ignore=True),
        GateRule(workload="wide", threshold=0.1),
        GateRule(style="jit", ignore=True),
        GateRule(entrant="equinox", style="x", ignore=True),  # not measured today
    ]
    gate = Gate(rule=tuple(rules), accept=(shift(), shift(workload="wide")))
    assert list(gate.unmatched(rows)) == [
        "the gate names metric step, workload wide, but there is no such row",
        "the gate names entrant flax_nnx, style jitt, but there is no such style here",
    ]


# --- as it is written down


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "gate.toml"


def test_a_gate_is_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    assert read_gate(None) == Gate()
    with pytest.raises(BakeoffError, match="cannot be read"):
        read_gate(config)
    config.write_text("[tool.ruff]\nline-length = 100\n")
    with pytest.raises(BakeoffError, match=r"has no table \[tool\.bakeoff\.gate\]"):
        read_gate(config)
    config.rename("pyproject.toml")
    assert read_gate(None) == Gate()
    example = str(gate_module.__doc__)
    config.write_text(example[example.index("    [tool") :])
    rule = GateRule(metric="compile", entrant="flax_nnx", threshold=0.1)
    reason = "nnx 0.12.9 checks its graph anew"
    assert read_gate(config) == Gate(0.02, (rule,), (shift(entrant="flax_nnx", reason=reason),))
    config.write_text('[[tool.bakeoff.gate.rule]]\nentrant = "mine"\nthreshold = 0.1')
    assert read_gate(config, ["mine"]).rule[0].entrant == "mine"  # an entrant of the runs


SHIFT = '[[tool.bakeoff.gate.accept]]\nmetric = "step"\n'
RULE = "[[tool.bakeoff.gate.rule]]\n"
WRONG = {
    "[tool.bakeoff.gate\n": "is wrong: ",
    "[tool.bakeoff.gate]\ntreshold = 0.1": "unknown field `treshold`; in [tool",
    "[tool.bakeoff.gate]\nthreshold = 10": "Expected `float` <= 1.0 - at",
    f"{RULE}threshold = 0.1": "names no rows - at `$.rule[0]`",
    f'{RULE}metric = "compil"\nthreshold = 0.1': ": unknown metric 'compil'; known: step",
    f'{RULE}backend = "cuda"\nthreshold = 0.1': ": unknown backend 'cuda'; known: cpu, g",
    f'{RULE}metric = "step"': "needs either a threshold or ignore = true - at",
    f"{SHIFT}up_to = 1.1\nuntil = 2026-12-31": "missing required field `reason`",
    f'{SHIFT}up_to = 0.15\nreason = "x"\nuntil = 2026-12-31': "Expected `float` > 1.0 - at",
    f'{SHIFT}up_to = 1.1\nreason = " "\nuntil = 2026-12-31': "Expected `str` matching",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_a_gate_is_said_on_one_line(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(BakeoffError) as error:
        read_gate(config)
    assert WRONG[text] in str(error.value)
    assert "\n" not in str(error.value)


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


def test_what_the_docs_say_of_the_gate_is_a_gate(config: Path) -> None:
    text = (ROOT / "docs" / "ci.md").read_text("utf-8")
    [written] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    config.write_text(written)
    made = read_gate(config)
    assert (len(made.rule), len(made.accept)) == (2, 1)
    for form in re.findall(r"bakeoff report \S+ --format (\S+)", text):
        assert form in {str(known) for known in Format}
