"""`bakeoff check`: each mistake is named by its check, with a place; correct entrants pass."""

import re
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import psutil
import pytest

from bench.check import DONATES, ERROR, FILE, NOTE, SMALL, CheckFinding, Subject, numbers, runner
from bench.check.judge import CHECKS, Examine, examine, run_check
from common.equality import FirstCall, first_calls
from tests.commands import ROOT, TWIN

MISTAKES = ROOT / "tests" / "mistakes"
subject_of = cache(Subject)
"""Entrant and style → subject: each is compiled once."""


def line_of(where: str) -> str:
    """Return the line of code that a finding points at."""
    place = re.match(r"(.*):(\d+), ", where)
    assert place, where
    return Path(place[1]).read_text().splitlines()[int(place[2]) - 1]


# Mistakes of a style.

STEPS = [
    ("by_chunk", "ten-steps", r"loss 3 is .*; this is the loss that call 1 returned"),
    ("never_updates", "equality", r"no update was made"),
    ("in_bfloat16", "equality", r"it is \d\.\d+"),
    ("sometimes_updates", "ten-steps", r"loss \d+ is \d\.\d+ instead of \d\.\d+$"),
    ("retraces", "retrace", r"10 further calls compiled 10 programs"),
    ("jits_when_loaded", "retrace", r"a load\(\) .* 1 programs.* build it once, outside of load"),
    ("numpy_arrays", "shapes", r"hidden\.0 is a <class 'numpy\.ndarray'> instead of float32"),
    ("nan", "equality", r"it is nan"),
    ("detached", "equality", r"6 of 8 .* cells\.0\..* detached, as by stop_gradient"),
    ("input_first", "equality", r"cells read concatenate\(\[x, hidden\]\) instead of"),
]


@pytest.mark.parametrize(("style", "check", "seen"), STEPS)
def test_a_mistake_is_named(style: str, check: str, seen: str) -> None:
    path = MISTAKES / "steps.py"
    findings = run_check(subject_of(path, style), check)
    level = NOTE if style == "jits_when_loaded" else ERROR
    assert any(re.search(seen, f.seen) for f in findings if f.severity == level), findings
    for finding in findings:
        assert finding.where.startswith(str(path))
        assert re.search(r"def |STYLES", line_of(finding.where))


@pytest.mark.parametrize(
    ("style", "expected", "seen", "severity"),
    [
        ("donates_hidden", "can be used again after a call", "your step donates `hidden`", ERROR),
        ("donates_if_asked", "again after a call, with donate=True too", "donates `hidden`", ERROR),
        ("donates_state", DONATES, "it does so always", NOTE),
    ],
)
def test_donation(style: str, expected: str, seen: str, severity: str) -> None:
    [finding] = run_check(Subject(MISTAKES / "steps.py", style), "contract")
    assert finding.expected.endswith(expected)
    assert seen in finding.seen
    assert finding.severity == severity


def test_a_usual_mistake_is_recognised() -> None:
    _, padded = first_calls(subject_of("pure_jax", "pure").step(SMALL), SMALL)
    right = padded.expected.loss

    def with_loss(loss: float) -> FirstCall:
        return padded._replace(loss=jnp.float32(loss))

    for words, loss in numbers.compute_mistakes(padded, SMALL).items():
        assert abs(loss / right - 1) > 10 * numbers.MISTAKE_TOLERANCE, words
        assert numbers.find_mistake(with_loss(loss), SMALL) == words
    assert numbers.find_mistake(with_loss(1.01 * right), SMALL) == ""


# Mistakes of a file, each with its contents, what is seen, and the line that it points at.

ONE_WAY = """import jax.numpy as jnp
from common.steps import pure_style
from impls import pure_jax
DISTRIBUTION = "jax"
def build(config):
    model = pure_jax.build(config)
    def from_weights(weights):
        return [l | {"bias": jnp.zeros_like(l["bias"])} for l in model.from_weights(weights)]
    return model._replace(from_weights=from_weights)
STYLES = {"pure": pure_style(build)}
"""
FILES = {
    "syntax_error": ("def build(config)\n", r"has a syntax error in line 1: expected ':'", ""),
    "no_styles": ("DISTRIBUTION = 'jax'\n", r"no attribute 'STYLES'|no attribute 'build'", ""),
    "no_package": (TWIN + "import nowhere_to_be_had\n", r"'nowhere_to_be_had'", "import nowhere"),
    "not_installed": (TWIN + 'DISTRIBUTION = "no-such"\n', "'no-such', which is not", "DISTRI"),
    "in_float64": (
        TWIN + "import jax\njax.config.update('jax_enable_x64', True)\n",
        "changed jax_enable_x64 from False to True",
        "",
    ),
    "never_imported": (TWIN + "import time\ntime.sleep(60)\n", "not return within 1 s", "sleep"),
    "one_way": (ONE_WAY, r"cells\.0\.bias differs in 8 of 8 numbers", "def from_weights"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_of_a_file_is_named(name: str, tmp_path: Path) -> None:
    text, seen, line = FILES[name]
    (tmp_path / f"{name}.py").write_text(text)
    limit = 1 if name == "never_imported" else 60
    check = "weights" if name == "one_way" else "contract"
    file = str(tmp_path / f"{name}.py")
    answer = examine(Examine(file, FILE, "cpu", check, limit))
    [finding] = [CheckFinding(**finding) for finding in answer["findings"]]
    assert re.search(seen, finding.seen)
    assert line in (line_of(finding.where) if line else "")


# Mistakes that end a process or leave something behind, with the line that did it.

OWN = [
    ("leaves", r"raised SystemExit: 3", "sys.exit(3)"),
    ("ends_at_once", r"it ended or blocked its process: .*exit status 0", "def ends"),
    ("leaves_a_child", r"it left running: sleep \(\d+\)", "def leaves_a_child"),
    ("leaves_orphans", r"left behind: .*\(\d+\), .*\(\d+\); ended", "def leaves_orphans"),
]
QUICK = ("leaves_orphans",)


@pytest.mark.parametrize(
    "styles",
    [QUICK, pytest.param(tuple(row[0] for row in OWN), marks=pytest.mark.slow)],
    ids=["quick", "all"],
)
def test_what_a_style_does_to_its_process(styles: tuple[str, ...]) -> None:
    """It costs the other styles nothing, and nothing lives on."""
    options = runner.CheckOptions((*styles, "pure"), checks=("shapes",), seconds=30)
    results = runner.Runner(str(MISTAKES / "steps.py"), options, lambda *_: None).run()
    found = [(result.style, finding) for result in results for finding in result.findings]
    for style, seen, line in OWN:
        if style in styles:
            finding = next(f for of, f in found if of == style and re.search(seen, f.seen))
            assert line in line_of(finding.where)
    pids = re.findall(r"\((\d+)\)", " ".join(finding.seen for _, finding in found))
    assert len(pids) >= 2
    alive = [psutil.Process(int(pid)) for pid in pids if psutil.pid_exists(int(pid))]
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)
    outcomes = {(r.style, r.check): (r.outcome, r.not_run) for r in results}
    assert outcomes["leaves_orphans", "shapes"] == ("not run", "its process ended in contract")
    assert outcomes["pure", "shapes"] == outcomes[FILE, "contract"] == ("ok", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entrant", "style"),
    [
        ("equinox", "filter_jit"),
        ("flax_linen", "blog"),
        ("flax_nnx", "jit"),
        ("numpy", "loop"),
    ],
)
def test_a_correct_entrant_has_no_finding(entrant: str, style: str) -> None:
    for subject in (subject_of(entrant, FILE), subject_of(entrant, style)):
        for name, check in CHECKS.items():
            if subject.style or check.check_file:
                assert run_check(subject, name) == [], name
