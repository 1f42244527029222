"""Trials of other tools: what is left of the plan, and the table of rows."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.report.table import format_content
from results.beside.plan import PLANTS, Trial, find_pins
from results.beside.scores import DESIGNS, VARIATION, read_rows, score_trials
from results.beside.tables import describe_trials, make_scores_table
from results.beside.usage import describe_tools
from tests.commands import script

RUN = script("results/beside/run.py")


def record(
    tool: str, plant: str, rule: str, *, called: bool, ratio: float, **ends: float
) -> dict[str, object]:
    outcome = {"rule": rule, "called": called, "base": 4e-3, "ratio": ratio, **ends}
    wait = 40.0 if plant == "+1 %" else 0.0
    trial = Trial(tool, plant, "seed", 30)._asdict()
    about = {"wait": wait, "took": 30.0, "loop": 100.0, "when": "2026-11-30T10:23"}
    about |= {"machine": "a processor", "versions": {"jax": "0.12.0"}, VARIATION: 0.01}
    return trial | about | {"outcomes": [outcome]}


def test_the_plan_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUN, "ROWS", tmp_path / "rows.jsonl")
    planted = Trial("pyperf", "+1 %", "seed", 30)
    assert Counter(RUN.list_left())[planted] == 10
    assert not any(t.tool in PLANTS[t.plant].without for t in RUN.list_left())
    row = record("pyperf", "+1 %", "compare_to", called=True, ratio=1.01)
    RUN.ROWS.write_text(f"{json.dumps(row)}\n")
    assert Counter(RUN.list_left())[planted] == 9
    failed = planted._asdict() | {"failed": "it hangs"}
    RUN.ROWS.write_text(f"{json.dumps(row)}\n{json.dumps(failed)}\n")
    assert Counter(RUN.list_left())[planted] == 9


def test_trials_that_the_plan_does_not_have_are_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        RUN.main(["--tool", "arms", "--plant", "built apart"])
    text = "error: the plan has no trial with --tool arms --plant 'built apart': see results/beside"
    assert text in capsys.readouterr().err


def test_trials_of_two_machines_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RUN, "ROWS", tmp_path / "rows.jsonl")
    RUN.ROWS.write_text(json.dumps(record("asv", "nothing", "U", called=False, ratio=1)) + "\n")
    with pytest.raises(SystemExit, match="2"):
        RUN.main(["--tool", "pyperf", "--minutes", "60"])
    text = "rows.jsonl has trials of another machine (a processor): give --times"
    assert text in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        RUN.main(["--times", "0"])
    assert "--times 0: at least 1" in capsys.readouterr().err
    assert RUN.main(["--table", "--tool", "pyperf"]) == 0
    assert "asv" not in capsys.readouterr().out


def test_one_core_is_asked_for_where_a_tool_of_ours_is_named_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = []

    def run(command: list[str], _: float, folder: Path, __: object) -> str:
        given.append(json.loads(command[3]))
        numbers = {"ratio": 1.0, "low": 0.99, "high": 1.01, "base": 50.0, "processes": 8}
        Path(folder, "out.json").write_text(json.dumps({"numbers": numbers}))
        return ""

    monkeypatch.setattr(RUN, "run_command", run)
    for tool in ("runs", "runs_on_one_core"):
        RUN.run_ours(Trial(tool, "nothing", "toy", 30), 0.0, {}, ())
    default, one_core = given
    assert default["run"] == "runs"
    assert one_core == default | {"cores": "one"}


def test_a_block_has_one_trial_of_each_tool_that_is_behind() -> None:
    left = [Trial(tool, "nothing", "seed", 30) for tool in ("asv", "pyperf", "pyperf", "sides")]
    assert RUN.choose_block(left) == [left[1]]
    left.remove(left[1])
    assert sorted(RUN.choose_block(left)) == left
    plants = {t[1:] for t in RUN.choose_block([*left, Trial("asv", "+1 %", "toy", 30)])}
    assert len(plants) == 1
    assert plants < {("nothing", "seed", 30), ("+1 %", "toy", 30)}


def test_trials_beside_the_plan_stand_beside_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(RUN, "ROWS", tmp_path / "rows.jsonl")
    monkeypatch.setattr(RUN, "REPEATED", tmp_path / "repeated.jsonl")
    monkeypatch.setattr(RUN, "measure_step", lambda _: 4e-3)
    before = [record(tool, "nothing", "U", called=False, ratio=1) for tool in ("asv", "pyperf")]
    RUN.ROWS.write_text("".join(f"{json.dumps(row)}\n" for row in before))

    def make(trial: Trial, _: float) -> dict[str, object]:
        row = record(trial.tool, trial.plant, "compare_to", called=True, ratio=1.03)
        return row | trial._asdict()

    monkeypatch.setattr(RUN, "make_trial", make)
    words = "--tool pyperf --plant nothing --workload seed --times 2"
    assert RUN.main(words.split()) == 0
    assert len(RUN.REPEATED.read_text().splitlines()) == 2
    assert len(RUN.ROWS.read_text().splitlines()) == 2
    shown = capsys.readouterr().out
    assert "pyperf, nothing, seed, 30 s: compare_to: called, 1.0300 (30 s)" in shown
    repeated, published = shown.split("# published")
    assert "| pyperf: compare_to | 4.00 ms | 2 of 2 (16 to 100 %) |" in repeated
    assert "| pyperf: U | 4.00 ms | 0 of 1" in published
    assert "asv" not in published

    def fail(trial: Trial, step: float) -> dict[str, object]:
        row = make(trial, step)
        del row["outcomes"]
        return row | {"failed": "it hangs"}

    monkeypatch.setattr(RUN, "make_trial", fail)
    assert RUN.main([*words.split(), "--seconds", "120", "--tool", "arms"]) == 1


def test_the_table_counts_false_calls_and_finds() -> None:
    rows = [
        record("pyperf", "nothing", "compare_to", called=True, ratio=1.02),
        record("pyperf", "nothing", "compare_to", called=False, ratio=1.0),
        record("pyperf", "+1 %", "compare_to", called=True, ratio=1.01),
        record("pyperf", "+1 %", "compare_to", called=True, ratio=0.97),  # found is what is slower
        Trial("pyperf", "nothing", "seed", 30)._asdict() | {"failed": "it hangs"},
        record("pyperf", "slower later", "compare_to", called=True, ratio=1.05),
    ]
    [row] = make_scores_table(score_trials(rows)).rows
    texts = [format_content(cell) for cell in row.cells]
    assert texts == [
        *("pyperf: compare_to", "4.00 ms", "1 of 2 (1 to 99 %)", "1 of 2 (1 to 99 %)"),
        *("2.2 % (1 %)", "30"),
    ]
    [row] = make_scores_table(score_trials(rows * 5)).rows
    assert format_content(row.cells[2]) == "26 min (13 min to 43 min)"
    ours = record("sides", "+1 %", "interval", called=True, ratio=1.012, low=1.005, high=1.019)
    [first, second] = make_scores_table(score_trials([*rows * 5, ours])).rows
    assert first.cells[0] == "pyperf: compare_to"  # the other's time is not known
    assert [format_content(cell) for cell in second.cells[-3:-1]] == [
        *("0.2 % (0.2 %)", "1 of 1 (±0.7 %)"),
    ]
    [row] = make_scores_table(score_trials(rows), DESIGNS).rows
    assert [format_content(cell) for cell in row.cells] == [texts[0], "1 of 1 (3 to 100 %)"]


def test_times_are_multiples_of_those_of_ab() -> None:
    shift = [1 + i / 1000 for i in range(10)]
    rows = [record("pyperf", "nothing", "U", called=False, ratio=s) for s in shift]
    ends = {"low": 0.998, "high": 1.004}
    ours = record("sides", "nothing", "interval", called=False, ratio=1.001, **ends)
    rows += [ours | {VARIATION: 0.2}] * 10
    text = "\n".join(describe_trials(rows))
    assert "(median: 11 %); before 10 trials, by more than 10 %." in text
    steady = " ".join(describe_trials(rows[:10]))
    assert "iterations took 100 µs (median: 100). Before a trial, its time varied by 1 %" in steady
    assert "before none, by more than 10 %." in steady
    # 3.24 deviations of 0.53 %, and a half length of 0.3 % and 1.28 deviations of 0.1 %
    assert re.search(r"\| pyperf: U \| 16 \(\d+\.?\d* to \d+\) \| 19 \|", text)


def test_processes_are_counted_in_trials_and_lines_in_the_benchmarks() -> None:
    counts = [("seed", 30, 3), ("seed", 30, 5), ("seed", 120, 9), ("toy", 30, 1)]
    rows = [
        Trial("pyperf", "nothing", workload, seconds)._asdict() | {"processes": count}
        for workload, seconds, count in counts
    ]
    rows.append(Trial("asv", "nothing", "seed", 30)._asdict())
    cells = {row.cells[0]: row.cells[2:] for row in describe_tools(rows).rows}
    assert cells["pyperf 2.11.0"] == ("3 to 5", "9")
    assert cells["asv 0.6.6"] == ("", "28")
    assert cells["pytest-benchmark 5.3.1"] == ("", "5")
    assert cells["this project, `ab`"] == ("", "4")


def test_what_hangs_or_fails_costs_its_own_row_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import pathlib, subprocess, sys, time; print('a warning', file=sys.stderr, flush=True); "
        "child = subprocess.Popen(['sleep', '60']); "
        "pathlib.Path('child').write_text(str(child.pid)); time.sleep(60)"
    )
    with pytest.raises(subprocess.TimeoutExpired) as hung:
        RUN.run_command([sys.executable, "-c", code], 5, tmp_path, {})
    assert RUN.explain(hung.value) == "it took more than 5 s"  # not what it warned of before
    child = Path("/proc", (tmp_path / "child").read_text(), "stat")
    end = time.monotonic() + 10  # a signal takes a moment
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)

    def run(
        _: str, __: str, given: dict[str, object], ___: float, variables: dict[str, str]
    ) -> str:
        Path(variables["BESIDE_PROCESSES"]).write_text("12\n12\n13\n")
        return json.dumps([{"rule": "U", "seconds": given["seconds"]}])

    def fail(*_: object) -> str:
        raise subprocess.CalledProcessError(1, "tool", stderr="no such option")

    monkeypatch.setattr(RUN, "build_environment", lambda *_: tmp_path)
    monkeypatch.setattr(RUN, "run_tool", run)
    row = RUN.make_trial(Trial("pyperf", "+1 %", "seed", 30), 4e-3)
    assert (row["processes"], row["outcomes"]) == (2, [{"rule": "U", "seconds": 30}])
    monkeypatch.setattr(RUN, "run_tool", fail)
    row = RUN.make_trial(Trial("pyperf", "+1 %", "seed", 30), 4e-3)
    assert (row["failed"], row["wait"]) == ("no such option", 40.0)
    assert "outcomes" not in row
    assert "|" not in " ".join(describe_trials([row]))  # no table without rows
    text = " ".join(describe_trials([row, record("pyperf", "+1 %", "U", called=True, ratio=1)]))
    assert "1 trial, 20" in text
    assert "Failed: 1 of pyperf." in text
    assert "The wait for +1 % was 1 % of the base side's time, as the tools" in text


def test_a_tool_with_wide_intervals_needs_the_time_that_they_ask_for() -> None:
    def find(half: float) -> float:
        rows = []
        for i in range(-5, 6):
            ends = {"low": 1 - half * (1 + i / 100), "high": 1 + half * (1 + i / 100)}
            ratio = 1 + i / 5000
            rows.append(record("sides", "nothing", "interval", called=False, ratio=ratio, **ends))
        [score] = score_trials(rows)
        return (score.find_seconds() or [0])[0]

    deviation = 10**0.5 / 5000
    assert find(0.0005) == find(0.001) == pytest.approx(30 * (3.24 * deviation / 0.01) ** 2)
    assert find(0.01) == pytest.approx(30 * (1 + 1.28 * deviation / 0.01) ** 2)
    assert find(0.02) == pytest.approx(30 * (2 + 1.28 * deviation / 0.01) ** 2)


def test_mean_errors_say_whether_the_wait_is_what_it_should_be() -> None:
    ends = {"low": 0.9, "high": 1.1}
    rows = [
        record("arms", "nothing", "interval", called=False, ratio=0.999, **ends),
        record("arms", "+1 %", "interval", called=True, ratio=1.01 * 1.002, **ends),
        record("arms", "slower later", "interval", called=True, ratio=1.5, **ends),
        record("sides", "nothing", "interval", called=False, ratio=1.1, **ends),
    ]
    line = "Mean errors, without a wait and with one: arms of a run -0.10 and +0.20 %."
    assert f"{line}\n" in [*describe_trials(rows)]


def test_published_trials_are_of_the_versions_in_the_table_of_tools() -> None:
    rows = read_rows()
    assert len(rows) > 300
    assert all(row["versions"].items() >= find_pins(row["tool"]).items() for row in rows)


def test_rules_with_the_same_estimates_have_one_time() -> None:
    rows = []
    for i in range(10):
        row = record("pytest_benchmark", "nothing", "median:1%", called=False, ratio=1 + i / 1000)
        low = {"rule": "min:1%", "called": False, "base": 4e-3, "ratio": 1 + i / 2000}
        row["outcomes"] += [dict(row["outcomes"][0], rule="median:5%"), low]  # type: ignore[index, operator]
        rows.append(row)
    times = {row.cells[0]: row.cells[2] for row in make_scores_table(score_trials(rows)).rows}
    assert times["pytest-benchmark: median:5%"] == ""
    assert next(iter(times)) == "pytest-benchmark: min:1%"
    assert times["pytest-benchmark: median:1%"] != times["pytest-benchmark: min:1%"]


def test_a_step_that_cannot_be_measured_costs_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> float:
        raise subprocess.CalledProcessError(1, "uv", stderr="no such package")

    monkeypatch.setattr(RUN, "run_tool", fail)
    left = [Trial("pyperf", "nothing", workload, 30) for workload in ("seed", "toy")]
    assert RUN.make_block(left[:1], tmp_path / "rows.jsonl", left, time.monotonic() + 60) == 1
    assert capsys.readouterr().out == "seed: no step was measured: no such package\n"
    assert [trial.workload for trial in left] == ["toy"]
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_block_ends_at_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RUN, "measure_step", lambda _: 4e-3)
    monkeypatch.setattr(RUN, "make_trial", lambda *_: {"outcomes": [], "took": 1.0})
    left = [Trial(tool, "nothing", "seed", 30) for tool in ("asv", "pyperf")]
    RUN.make_block(left[:], tmp_path / "rows.jsonl", left, time.monotonic() - 1)
    assert len(left) == 2
    RUN.make_block(left[:], tmp_path / "rows.jsonl", left, time.monotonic() + 60)
    assert not left
