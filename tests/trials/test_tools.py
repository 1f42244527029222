"""Rules of other tools: whether each calls a difference where it should."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from results.beside import tools
from results.beside.plan import REQUIREMENTS


@pytest.mark.parametrize("times", [1.0, 1.03, 0.97, 1.2])
def test_a_rule_calls_what_its_tool_calls(times: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and words are written by hand, in the form of each tool's own."""
    base, new = 0.004, 0.004 * times

    def write(path: Path | str, value: object) -> None:
        Path(path).write_text(json.dumps(value))

    def run_python(words: list[str], side: tools.Side | None = None, **folder: str) -> str:
        step = new if side and side.wait else base
        paths = dict(word.split("=", 1) for word in words if "=" in word)
        if "compare_to" in words:
            if times == 1:
                return "Benchmark hidden because not significant (1): step"
            change = f"1.03x {'slower' if times > 1 else 'faster'}"
            return f"Mean +- std dev: [0] 4.00 ms +- 0.02 ms -> [1] 4.12 ms +- 0.02 ms: {change}"
        if "time_pairs" in words:
            return json.dumps([(base * (1 + i / 1e5), new + base * i / 1e4) for i in range(9)])
        if "run_google_benchmark" in words:
            rows: list[Any] = [
                {"run_type": "iteration", "name": name, "real_time": 1e9 * (step + i / 1e6)}
                for name, step in (("base", base), ("new", new))
                for i in range(100)
            ]
            write(json.loads(words[-1])[-1], {"benchmarks": rows})
        elif folder:
            stats = {"benchmarks": [{"stats": {"median_ns": 1e9 * step}}]}
            write(f"{folder['CODSPEED_PROFILE_FOLDER']}/1.json", stats)
        elif "--benchmark-json" in paths:
            data = [step + i / 1e6 for i in range(100)]
            row = {"stats": {"median": step, "min": step, "data": data}}
            write(paths["--benchmark-json"], {"benchmarks": [row]})
        else:
            values = {"benchmarks": [{"runs": [{"warmups": [9]}, {"values": [step, step]}]}]}
            write(paths["--output"], values)
        return ""

    def run_command(command: list[str], *, cwd: Path, **_: object) -> str:
        if "rev-parse" in command:
            return (
                "base-base" if "NUMBER, WAIT = 0" in (cwd / "side.py").read_text() else "new-new-"
            )
        if "continuous" in command:
            (cwd / "results/machine").mkdir(parents=True)
            for commit, step in (("base-bas", base), ("new-new-", new)):
                result = {"result_columns": ["result"], "results": {"time_step": [[step]]}}
                write(cwd / f"results/machine/{commit}-env.json", result)
        limit = float(dict(pairwise(command)).get("--factor", "inf"))
        is_shown = max(times, 1 / times) > limit
        return "| + | 4.00±0ms | 4.12±0ms | 1.03 | step.TimeStep.time_step |" if is_shown else ""

    monkeypatch.setenv("BESIDE_WORKLOAD", "seed")
    monkeypatch.setattr(tools, "run_python", run_python)
    monkeypatch.setattr(tools, "run_command", run_command)
    sides, called = [tools.Side(0.0, "python"), tools.Side(1.0, "python")], {}
    for name in REQUIREMENTS:
        for outcome in getattr(tools, name)(sides, 30.0):
            assert outcome["ratio"] == pytest.approx(times, rel=5e-3)
            called[outcome["rule"]] = outcome["called"]
    far = ("median:5%", "min:5%", "10 %", "continuous, factor 1.1")
    slower = dict.fromkeys(("median:1%", "min:1%"), times > 1)
    assert called == dict.fromkeys(called, times != 1) | slower | dict.fromkeys(far, times > 1.1)
