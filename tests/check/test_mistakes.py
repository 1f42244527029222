"""`bakeoff check`: each mistake is named by its check, with a place; correct entrants pass."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import psutil
import pytest

import impls
from bench.check import numbers
from bench.check.checks import CHECKS, findings_of
from bench.check.findings import DONATES, ERROR, FILE, NOTE, CheckFinding, Judgement
from bench.check.runner import CheckOptions, judge, place_of
from bench.check.subject import SMALL, Subject

ROOT = Path(__file__).parents[2]
MISTAKES = ROOT / "tests" / "mistakes"
PLAIN = 'from impls.pure_jax import STYLES, build\nDISTRIBUTION = "jax"\n'
"""A correct file: plain JAX under another name."""


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards which files took part."""
    monkeypatch.setattr(impls, "OUTSIDE", dict(impls.OUTSIDE))


def line_of(where: str) -> str:
    """Return the line of code that a finding points at."""
    place = re.match(r"(.*):(\d+), ", where)
    assert place, where
    return Path(place[1]).read_text().splitlines()[int(place[2]) - 1]


subject_of = cache(Subject)
"""By entrant and style: each is compiled once."""


# Mistakes that numbers, programs and times show.

STEPS = [
    ("by_all", "timed-region", r"results were computed ahead, or kept"),
    ("by_chunk", "fresh", r"call 2 .*; this is the loss that call 1 returned"),
    ("shares_state", "fresh", r"call 2 returned \d\.\d+, plain JAX"),
    ("never_updates", "gradient", r"no update was made"),
    ("never_updates", "ten-steps", r"no weight changed"),
    ("sometimes_updates", "ten-steps", r"loss \d+ is \d\.\d+ instead of \d\.\d+$"),
    ("later", "timed-region", r"work is put off until then"),
    ("in_a_thread", "timed-region", r"something goes on in the background"),
    ("retraces", "retrace", r"6 further calls compiled 6 programs"),
    ("numpy_arrays", "shapes", r"hidden\.0 is a <class 'numpy\.ndarray'> instead of float32"),
    ("other_shape", "shapes", r"float32\[1\] instead of float32\[\]$"),
    ("nan", "equality", r"it is nan"),
]
MODELS = [
    ("in_bfloat16", "dtypes", r"\d+ of its operations use bf16; the first one is convert"),
    ("in_bfloat16", "equality", r"it is 1\.5445"),
    ("detached", "gradient", r"6 of 8 .* cells\.0\..* detached, as by stop_gradient"),
    ("ignores_input", "equality", r"inputs are not used"),
    ("input_first", "equality", r"cells read concatenate\(\[x, hidden\]\) instead of"),
]
LATER = {"by_all", "in_a_thread", "never_updates", "shares_state", "ignores_input", "in_bfloat16"}
"""Styles that are left to the slow tests: others show that their checks work."""


@pytest.mark.parametrize(
    ("name", "style", "check", "seen"),
    [
        pytest.param(name, *row, marks=pytest.mark.slow if row[0] in LATER else ())
        for name, rows in {"steps": STEPS, "models": MODELS}.items()
        for row in rows
    ],
)
def test_a_mistake_is_named(name: str, style: str, check: str, seen: str) -> None:
    path = MISTAKES / f"{name}.py"
    findings = findings_of(subject_of(impls.add(path), style), check)
    assert any(re.search(seen, f.seen) for f in findings if f.severity == ERROR), findings
    for finding in findings:
        assert finding.where.startswith(str(path))
        assert re.search(r"def |STYLES", line_of(finding.where))


@pytest.mark.slow
def test_what_load_builds_anew_is_a_note() -> None:
    """It is not timed, so the style may be measured."""
    subject = subject_of(impls.add(MISTAKES / "steps.py"), "rebuilds")
    [note] = findings_of(subject, "timed-region")
    assert (note.severity, "outside of load()" in note.expected) == (NOTE, True)


DONATING = """
import jax
from common.steps import functional, pure_update, stages_of
from impls.pure_jax import build as build

DISTRIBUTION = "jax"

def donating(*numbers):
    def style(config, optimiser):
        model = build(config)
        update = jax.jit(pure_update(model, optimiser), donate_argnums=numbers)
        return functional(update, model, optimiser, stages_of(update))
    return style

def both(config, optimiser, *, donate=False):
    return donating(*([0, 1] if donate else []))(config, optimiser)

def neither(config, optimiser, *, donate=False):
    return donating()(config, optimiser)

STYLES = {"state": donating(0), "hidden": donating(0, 1), "both": both, "neither": neither}
"""


@pytest.mark.parametrize(
    ("style", "expected", "seen"),
    [
        ("hidden", "can be used again after a call$", "donates `hidden`; donate only your state"),
        ("both", "with donate=True too$", "donates `hidden`; donate only your state"),
        ("neither", "with donate=True, a step donates its state", "its program donates nothing"),
        ("state", re.escape(DONATES), "it does so always"),
    ],
)
def test_donation(style: str, expected: str, seen: str, tmp_path: Path) -> None:
    (tmp_path / "donating.py").write_text(DONATING)
    [finding] = findings_of(Subject(impls.add(tmp_path / "donating.py"), style), "contract")
    assert re.search(expected, finding.expected)
    assert seen in finding.seen
    assert (finding.severity == NOTE) == (style == "state")


def test_a_usual_mistake_is_recognised() -> None:
    _, padded = subject_of("pure_jax", "pure").calls(SMALL)
    right = padded.answer.loss
    mistakes = numbers.losses_of_mistakes(padded)
    assert len(mistakes) == 10
    for words, loss in mistakes.items():
        assert abs(loss / right - 1) > 10 * numbers.EXPLAINED, words
        assert numbers.usual_mistake(padded._replace(loss=loss)) == words
    assert numbers.usual_mistake(padded._replace(loss=right * 1.01)) == ""


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
    "no_package": (PLAIN + "import nowhere_to_be_had\n", r"'nowhere_to_be_had'", "import nowhere"),
    "not_installed": (PLAIN + 'DISTRIBUTION = "no-such"\n', "'no-such', which is not", "DISTRI"),
    "hidden": (PLAIN + "if True:\n    NOTE = 'a'\n", "the imported file has 'a', the text", "NOTE"),
    "unknown_style": (PLAIN + 'ALONE = ("pure", "fast")\n', "it names fast$", "ALONE"),
    "in_float64": (
        PLAIN + "import jax\njax.config.update('jax_enable_x64', True)\n",
        "changed jax_enable_x64 from False to True",
        "",
    ),
    "slower": (PLAIN + "import os\nos.nice(1)\n", r"changed the priority from \d+ to \d+", ""),
    "never_imported": (PLAIN + "import time\ntime.sleep(60)\n", "not return within 10 s", "sleep"),
    "one_way": (ONE_WAY, r"cells\.0\.bias differs in 8 of 8 numbers", "def from_weights"),
}


def finding_of(judgement: Judgement, style: str | None, seen: str) -> CheckFinding:
    findings = [f for f in judgement.findings if f.style == style and re.search(seen, f.seen)]
    assert findings, judgement.findings
    return findings[0]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "one_way" else pytest.mark.slow) for n in FILES]
)
def test_a_mistake_of_a_file_is_named(name: str, tmp_path: Path) -> None:
    text, seen, line = FILES[name]
    (tmp_path / f"{name}.py").write_text(text)
    options = CheckOptions(checks=("shapes", "weights"), seconds=10)
    judgement = judge(str(tmp_path / f"{name}.py"), options, lambda *_: None)
    finding = finding_of(judgement, FILE, seen)
    assert line in (line_of(finding.where) if line else "")
    assert {result.outcome for result in judgement.results if result.style} <= {"not run"}


# Mistakes that end or block a process, or leave something behind, with the line that did it, and
# the severity.

OWN = [
    ("leaves", r"raised SystemExit: 3", "sys.exit(3)", ERROR),
    ("ends_at_once", r"it ended or blocked its process: .*exit status 0", "def ends", ERROR),
    ("waits", r"it did not return within 10 s", "time.sleep(1)", ERROR),
    ("takes_all_memory", r"raised .*MemoryError.*--memory", "np.ones(", ERROR),
    ("leaves_a_child", r"left behind: sleep \(\d+\); ended now", "def leaves_a_child", ERROR),
    ("leaves_orphans", r"left behind: .*\(\d+\), .*\(\d+\); ended", "def leaves_orphans", ERROR),
    ("leaves_a_thread", r"threads: a pool", "def leaves_a_thread", NOTE),
    ("changes_a_setting", r"changed XLA_FLAGS from None", "def changes_a_setting", ERROR),
]
QUICK = ("ends_at_once", "leaves_orphans")


@pytest.mark.parametrize(
    "styles",
    [QUICK, pytest.param(tuple(row[0] for row in OWN), marks=pytest.mark.slow)],
    ids=["quick", "all"],
)
def test_what_a_style_does_to_its_process(styles: tuple[str, ...]) -> None:
    """It costs the other styles nothing, and nothing lives on."""
    options = CheckOptions((*styles, "pure"), checks=("shapes",), seconds=10, memory=2 << 30)
    judgement = judge(str(MISTAKES / "processes.py"), options, lambda *_: None)
    for style, seen, line, severity in OWN:
        if style in styles:
            finding = finding_of(judgement, style, seen)
            assert line in line_of(finding.where)
            assert finding.severity == severity
    pids = re.findall(r"\((\d+)\)", " ".join(finding.seen for finding in judgement.findings))
    assert len(pids) >= 2
    alive = [psutil.Process(int(pid)) for pid in pids if psutil.pid_exists(int(pid))]
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)
    results = {(r.style, r.check): (r.outcome, r.not_run) for r in judgement.results}
    assert results["ends_at_once", "shapes"] == ("not run", "its process ended in contract")
    assert results["pure", "shapes"] == results[FILE, "contract"] == ("ok", "")


# Correct entrants.

CORRECT = [
    *(("pure_jax", "tuned"), ("equinox", "filter_jit"), ("flax_linen", "blog")),
    *(("flax_nnx", "jit"), ("haiku", "transform"), ("numpy", "loop")),
]
SOON = {("pure_jax", FILE)}


@pytest.mark.parametrize(
    ("entrant", "style"),
    [
        pytest.param(*row, marks=() if row in SOON else pytest.mark.slow)
        for name, style in CORRECT
        for row in [(name, style), (name, FILE)]
    ],
)
def test_a_correct_entrant_has_no_finding(entrant: str, style: str | None) -> None:
    subject = subject_of(entrant, style)
    for name, check in CHECKS.items():
        if (style or check.of_file) and (subject.jax or not check.of_jax):
            assert findings_of(subject, name) == [], name


def test_an_entrant_is_judged_where_it_runs() -> None:
    for backend, platforms in {"cpu": "cpu", "gpu:1": "gpu,cpu"}.items():
        assert place_of("pure_jax", backend).variables["JAX_PLATFORMS"] == platforms
    code = "import sys, bench.check.judge; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert {"msgspec", "psutil", "rich", "typer"}.isdisjoint(modules), "own environments lack them"
