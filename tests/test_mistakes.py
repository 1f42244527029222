"""Mistakes of all kinds in a `pytest bench`: each is refused by name, and harms nobody else."""

import re
from pathlib import Path

import pytest

from bench.runfile.reader import read
from tests.commands import TWIN
from tests.test_bench import Lab
from tests.worker.test_worker import MISTAKES, WHILE_TIMED

NOT_EQUAL = "not equal"
LIVING = {arm: re.escape(words[0]) for arm, words in WHILE_TIMED.items()} | {
    # what a step computes, or does not
    "steps/by_chunk": NOT_EQUAL,
    "steps/never_updates": NOT_EQUAL,
    "steps/sometimes_updates": NOT_EQUAL,
    "steps/nan": NOT_EQUAL,
    "steps/detached": NOT_EQUAL,
    "steps/input_first": NOT_EQUAL,
    "steps/in_bfloat16": NOT_EQUAL,
    # what it does besides
    "steps/retraces": "compiled again while it was timed",
    "steps/donates_state": "its program donates its state",
    "steps/donates_hidden": "your step donates hidden|your step donates `hidden`",
    # what a file does when it is imported
    "low_precision/pure": "importing it changed jax_default_matmul_precision",
    "own_cores/pure": "importing it changed .*XLA_FLAGS",
    "other_baseline/pure": "importing it changed the program of pure_jax/pure",
}
IMPORTS = {
    "low_precision": f"import jax\n{TWIN}"
    "jax.config.update('jax_default_matmul_precision', 'bfloat16')",
    "own_cores": f"import os\n{TWIN}os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})\n"
    "os.nice(1)\nos.environ['XLA_FLAGS'] = '--xla_cpu_enable_fast_math=true'",
    "other_baseline": "from common import steps\nfrom impls import pure_jax\n"
    "DISTRIBUTION, build = 'jax', pure_jax.build\n"
    "STYLES = {'pure': steps.pure_style(build)}\n"
    "def slower(config):\n"
    "    model = build(config)\n"
    "    def step(params, state, token):\n"
    "        state, logits = model.step(params, state, token)\n"
    "        return state, logits + 0 * logits.sort().sum()\n"
    "    return model._replace(step=step)\n"
    "pure_jax.STYLES['pure'] = steps.pure_style(slower)",
}
"""Files that change something when they are imported."""
ENDING = {
    "steps/leaves": r"exit status 3\), twice in a row",
    "steps/ends_at_once": r"exit status 0\), twice in a row",
    "steps/leaves_a_child": r"making or running its step left running: sleep \(\d+\)",
    "steps/leaves_orphans": r"left running|exit status 3\), twice in a row",
}
"""Styles that end their process, or leave another one; apart, since few others begin anew then."""


@pytest.mark.slow
@pytest.mark.parametrize("mistakes", [LIVING, ENDING], ids=["living", "ending"])
def test_each_mistake_is_refused_by_name_and_harms_nobody_else(
    mistakes: dict[str, str], tmp_path: Path
) -> None:
    lab = Lab(tmp_path)
    for name, text in {**IMPORTS, "twin": TWIN}.items():
        (tmp_path / f"{name}.py").write_text(text)
    names = dict.fromkeys(arm.partition("/")[0] for arm in mistakes)
    files = [str(MISTAKES / f"{n}.py") if n not in IMPORTS else f"{n}.py" for n in names]
    styles = {"pure", *(arm.partition("/")[2] for arm in mistakes)}
    options = [f"--entrant=pure_jax,haiku,twin.py,{','.join(files)}", f"--style={','.join(styles)}"]
    options += ["--metric=step", "--rounds=12", "--benchmark-json=run.json"]
    process = lab.run(*lab.command(*options))
    run = read(tmp_path / "run.json")
    failures = {str(row.cell.arm): row.failure or "" for row in run.results.cells if row.failure}
    assert failures.keys() == mistakes.keys(), process.stdout
    wrong = {arm: why for arm, why in failures.items() if not re.search(mistakes[arm], why)}
    assert wrong == {}
    honest = {"pure_jax", "control", "haiku", "twin"}
    measured = {s.cell.entrant for s in run.samples if s.metric == "step"}
    rows = [row for row in run.results.cells if "not known" in row.missing.get("step", "")]
    assert measured | {row.cell.entrant for row in rows} >= honest  # not known: in a busy minute
    assert "pure_jax" in measured
    assert "measures another program" not in process.stdout
