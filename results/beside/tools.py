"""Other tools, each as its documentation says; `run.py` calls this file in the tool's environment.

    python tools.py pyperf '{"sides": [[0, "python"], [40, "python"]], "seconds": 30}'

It prints, for each rule that the tool has, whether it calls a difference, and what it estimates.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    type Outcome = dict[str, Any]
    """Rule, `called`, seconds of the `base` side, `ratio` of new to base, and its interval where
    the tool gives one."""


class Side(NamedTuple):
    """Microseconds that a side waits before each call, and the Python that runs its processes."""

    wait: float
    python: str


HERE = Path(__file__).parent
START_SECONDS = 3.0
"""Seconds until a new process has compiled the step; they count as part of its side's time."""
SECOND_STEP_SECONDS = 2.0
"""Seconds that a process needs for the second side's step."""
PYPERF_VALUES = 3
"""Values of a process, pyperf's default: more time goes into more processes."""
REPETITION_SECONDS = 0.1
"""Length of a repetition of Google's benchmark: what its text on interleaving recommends."""
ASV_ROUNDS = 2
"""Processes of each side: asv's default."""
ASV_NUMBERS = {"seed": 1, "toy": 175}
"""Workload → calls of a sample: ten milliseconds at `toy`, asv's default without a `setup`. With a
`setup`, its default is one call, and its statistics of 100,000 samples take minutes."""
ASV_SETTINGS = {
    "version": 1,
    "project": "step",
    "repo": ".",
    "branches": ["main"],
    "environment_type": "virtualenv",
    "benchmark_dir": "benchmarks",
    "results_dir": "results",
    "build_command": [],
    "install_command": [],
    "uninstall_command": [],
}
TRIED_CALLS = 20
"""Calls from whose time the number of a repetition's calls follows."""
ALPHA = 0.05
"""Significance of the tests that a tool's documentation recommends or has as its default."""
VARIABLES = tuple(
    f"BESIDE_{name}" for name in ("WAIT", "WORKLOAD", "SLOWER", "IMPORTED", "PROCESSES")
)
"""Variables of the task: see task.py."""


def pytest_benchmark(sides: Sequence[Side], seconds: float) -> list[Outcome]:
    """Two runs, compared by medians or minima, as by `--benchmark-compare-fail=median:1%`."""
    options = f"--benchmark-max-time={max(1.0, seconds / 2 - START_SECONDS)}", "-q"
    with tempfile.TemporaryDirectory() as folder:
        for number, side in enumerate(sides):
            output = f"--benchmark-json={folder}/{number}.json"
            plain = "-c", os.devnull, "-p", "no:cacheprovider"
            run_python(["-m", "pytest", "step_benchmark.py", *plain, *options, output], side)
        reports = [json.loads(Path(folder, f"{n}.json").read_text()) for n in (0, 1)]
    both = [report["benchmarks"][0]["stats"] for report in reports]
    outcomes = []
    for field, limits in (("median", (1, 5)), ("min", (1, 5))):
        base, new = (stats[field] for stats in both)
        outcomes += [
            {
                "rule": f"{field}:{limit}%",
                "called": new / base > 1 + limit / 100,
                "base": base,
                "ratio": new / base,
            }
            for limit in limits
        ]
    return [*outcomes, compare_by_u_test("U test of rounds", *(stats["data"] for stats in both))]


def pyperf(sides: Sequence[Side], seconds: float) -> list[Outcome]:
    """Two runs of as many processes as fit the time, compared by `compare_to`, a t-test."""
    processes = max(2, round(seconds / 2 / (START_SECONDS + 0.1 * PYPERF_VALUES)))
    with tempfile.TemporaryDirectory() as folder:
        for number, side in enumerate(sides):
            size = f"--processes={processes}", f"--values={PYPERF_VALUES}"
            output = f"--output={folder}/{number}.json"
            inherited = f"--inherit-environ={','.join(VARIABLES)}"
            run_python(["step_pyperf.py", *size, inherited, output], side)
        files = [f"{folder}/{n}.json" for n in (0, 1)]
        shown = run_python(["-m", "pyperf", "compare_to", *files])
        base, new = (read_pyperf(Path(file)) for file in files)
    called = bool(re.search(r"x (slower|faster)", shown))  # it hides what is not significant
    return [{"rule": "compare_to", "called": called, "base": base, "ratio": new / base}]


def read_pyperf(path: Path) -> float:
    """Return the mean of a run's values, without the warm-ups."""
    runs = json.loads(path.read_text())["benchmarks"][0]["runs"]
    return fmean(value for run in runs for value in run.get("values", ()))


def asv(sides: Sequence[Side], seconds: float) -> list[Outcome]:
    """Two commits of a repository: `continuous --interleave-rounds`, factors of 1.01 and 1.1."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = partial(run_command, cwd=folder)
        write_asv_suite(folder, max(1.0, seconds / 2 / ASV_ROUNDS - START_SECONDS))
        git = ["git", "-c", "user.name=beside", "-c", "user.email=beside@localhost"]
        run([*git, "init", "--quiet", "--initial-branch=main"])
        run([sys.executable, "-m", "asv", "machine", "--yes"])
        commits: list[str] = []
        for side in sides:
            (folder / "side.py").write_text(f"NUMBER, WAIT = {len(commits)}, {side.wait}\n")
            run([*git, "add", "side.py"])
            run([*git, "commit", "--quiet", "--message", "a side"])
            commits.append(run([*git, "rev-parse", "HEAD"]).strip())
        words = ["continuous", "--interleave-rounds", *commits]
        is_done = partial(find_results, folder)  # its status is 1 where a step got slower, too
        run([sys.executable, "-m", "asv", *words], is_done=is_done)
        base, new = (read_asv(folder, commit) for commit in commits)
        outcomes = []
        for factor in (1.01, 1.1):
            words = ["compare", "--factor", str(factor), "--only-changed", *commits]
            shown = run([sys.executable, "-m", "asv", *words])
            row = {"called": "time_step" in shown, "base": base, "ratio": new / base}
            outcomes.append({"rule": f"continuous, factor {factor}"} | row)
        return outcomes


def write_asv_suite(folder: Path, seconds: float) -> None:
    """Write asv's settings, and the task, with the seconds of a process.

    Its environment stays for the next trial, and has a side's checkout alone: one file without a
    build, so what asv does between rounds takes little time. The rest is imported from this one.
    """
    pythons = [f"{sys.version_info.major}.{sys.version_info.minor}"]
    settings = ASV_SETTINGS | {"pythons": pythons, "env_dir": f"{sys.prefix}-sides"}
    (folder / "asv.conf.json").write_text(json.dumps(settings))
    (folder / "benchmarks").mkdir()
    number = ASV_NUMBERS[os.environ["BESIDE_WORKLOAD"]]
    text = (HERE / "step_asv.py").read_text()
    text = text.replace("NUMBER", str(number)).replace("SECONDS", f"{seconds:g}")
    places = str(HERE.parents[1]), sysconfig.get_path("purelib")
    checkout = "os.environ['ASV_ENV_DIR'] + '/project'"
    path = f"import os\nimport sys\n\nsys.path += [{checkout}, *{places!r}]\n"
    (folder / "benchmarks/__init__.py").write_text(path)
    (folder / "benchmarks/step.py").write_text(text)


def find_results(folder: Path, commit: str = "") -> list[Path]:
    """Return asv's files of results, of one commit or of all."""
    return [*folder.glob(f"results/*/{commit[:8]}*-*.json")]


def read_asv(folder: Path, commit: str) -> float:
    """Return the median of a commit's results."""
    [path] = find_results(folder, commit)
    result = json.loads(path.read_text())
    [row] = result["results"].values()
    return float(dict(zip(result["result_columns"], row, strict=False))["result"][0])


def pytest_codspeed(sides: Sequence[Side], seconds: float) -> list[Outcome]:
    """Two runs in walltime mode, with thresholds of 1 % and of 10 % (its service's default)."""
    options = "--codspeed", "--codspeed-mode=walltime", "--codspeed-warmup-time=1"
    most = f"--codspeed-max-time={max(1.0, seconds / 2 - START_SECONDS - 1)}"
    medians = []
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            plain = "-c", os.devnull, "-p", "no:cacheprovider", "-q"
            words = ["-m", "pytest", "step_benchmark.py", *plain, *options, most]
            run_python(words, side, CODSPEED_PROFILE_FOLDER=folder)
            [path] = Path(folder).glob("**/*.json")
            [row] = json.loads(path.read_text())["benchmarks"]
            medians.append(1e-9 * row["stats"]["median_ns"])
    base, ratio = medians[0], medians[1] / medians[0]
    limits = {f"{n} %": abs(ratio - 1) > n / 100 for n in (1, 10)}
    return [{"rule": n, "called": c, "base": base, "ratio": ratio} for n, c in limits.items()]


def google_benchmark(sides: Sequence[Side], seconds: float) -> list[Outcome]:
    """Many interleaved repetitions of both sides in one process; the U test of its tools."""
    with tempfile.TemporaryDirectory() as folder:
        output = f"{folder}/out.json"
        waits = [side.wait for side in sides]
        run_python(["tools.py", "run_google_benchmark", json.dumps([waits, seconds, output])])
        rows = json.loads(Path(output).read_text())["benchmarks"]
    times = [
        [1e-9 * r["real_time"] for r in rows if r["run_type"] == "iteration" and r["name"] == name]
        for name in ("base", "new")
    ]
    return [compare_by_u_test("U test", *times)]


def run_google_benchmark(waits: Sequence[float], seconds: float, output: str) -> None:
    """Run Google's benchmark of two sides in this process: as many calls as fill the time."""
    import google_benchmark as gb  # type: ignore[import-not-found]

    from results.beside.task import make_step

    took = 0.0
    for name, wait in shuffle(("base", "new"), waits):
        step = make_step(wait)
        before = time.perf_counter()
        for _ in range(TRIED_CALLS):
            step()
        took += time.perf_counter() - before

        def loop(state: Any, step: Callable[[], None] = step) -> None:
            while state:
                step()

        gb.register(loop, name=name)
    pair = took / TRIED_CALLS
    calls = max(1, round(2 * REPETITION_SECONDS / pair))
    repetitions = int((seconds - START_SECONDS - SECOND_STEP_SECONDS) / (calls * pair))
    sys.argv = [
        "step",
        f"--benchmark_repetitions={repetitions}",
        "--benchmark_enable_random_interleaving=true",
        f"--benchmark_min_time={calls}x",
        f"--benchmark_out={output}",
    ]
    gb.main()


def time_calls(wait: float, seconds: float) -> None:
    """Print the times of calls that fill the time."""
    from results.beside.task import make_step

    step, times = make_step(wait), list[float]()
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    print(json.dumps(times))


def samples_in_pairs(sides: Sequence[Side], seconds: float) -> list[Outcome]:
    """Pairs of calls in random order, in one process; tango's rule: |z| above 2.6, and 0.5 %."""
    given = json.dumps([[side.wait for side in sides], seconds - START_SECONDS])
    pairs = json.loads(run_python(["tools.py", "time_pairs", given]))
    away = [new - base for base, new in pairs]
    base = fmean(base for base, _ in pairs)
    error = stdev(away) / len(away) ** 0.5
    return [
        {
            "rule": "|z| of 2.6, and 0.5 %",
            "called": abs(fmean(away)) > max(2.6 * error, 0.005 * base),
            "base": base,
            "ratio": 1 + fmean(away) / base,
            "low": 1 + (fmean(away) - 1.96 * error) / base,
            "high": 1 + (fmean(away) + 1.96 * error) / base,
        }
    ]


def time_pairs(waits: Sequence[float], seconds: float) -> None:
    """Print the times of pairs of calls that fill the time."""
    from results.beside.task import make_step

    steps = {side: make_step(wait) for side, wait in shuffle((0, 1), waits)}
    end, pairs = time.perf_counter() + seconds, list[list[float]]()
    while not pairs or time.perf_counter() < end:
        pair = [0.0, 0.0]
        for side in random.sample((0, 1), 2):
            before = time.perf_counter()
            steps[side]()
            pair[side] = time.perf_counter() - before
        pairs.append(pair)
    print(json.dumps(pairs))


def shuffle[T](sides: Sequence[T], waits: Sequence[float]) -> list[tuple[T, float]]:
    """Return sides and their waits in random order: the first may have an advantage."""
    return random.sample(list(zip(sides, waits, strict=True)), len(sides))


def compare_by_u_test(rule: str, base: Sequence[float], new: Sequence[float]) -> Outcome:
    """Return what the Mann-Whitney test says of two samples."""
    from scipy.stats import mannwhitneyu

    p, level = float(mannwhitneyu(base, new).pvalue), median(base)
    return {"rule": rule, "called": p < ALPHA, "base": level, "ratio": median(new) / level}


def run_python(words: Sequence[str], side: Side | None = None, **variables: str) -> str:
    """Run a side's Python, or this one, in this folder, and return what it prints."""
    env = os.environ | variables | ({"BESIDE_WAIT": str(side.wait)} if side else {})
    python = side.python if side else sys.executable
    return run_command([python, *words], cwd=HERE, env=env)


def run_command(
    command: Sequence[str], *, is_done: Callable[[], object] = lambda: False, **options: Any
) -> str:
    """Return what a command prints; its status may be an error's where `is_done` says so."""
    done = subprocess.run(command, capture_output=True, text=True, **options)  # noqa: S603
    if done.returncode and not is_done():
        raise SystemExit(f"{command[1:]}: {done.stdout[-400:]} {done.stderr[-400:]}")
    return done.stdout


if __name__ == "__main__":
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        # one core steadies times, and `ab` gives each of its processes one, too
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if isinstance(arguments, list):  # one of its own processes
        globals()[name](*arguments)
    else:
        both = [Side(*side) for side in arguments["sides"]]
        print(json.dumps(globals()[name](both, arguments["seconds"])))
