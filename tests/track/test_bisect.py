"""Bisect finds day, package and release in simulated worlds, and says when it cannot."""

import datetime
import math
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from bench.cells import Cell, Selection
from bench.cli.output import SAFE_TEXT
from bench.engine.measurement import SETUP_PARTS
from bench.engine.process import Interpreter
from bench.engine.task import Environment
from bench.environments.builder import Builder
from bench.environments.spec import Spec, parse
from bench.environments.uv import UnsolvableError
from bench.estimates import Estimate
from bench.numbers import words
from bench.offer import Offer
from bench.prepare.stacks import Stacks
from bench.report.documents.bisect import describe_search
from bench.report.page import page
from bench.runfile import (
    DIFFERS,
    LIKE_BAD,
    UNDECIDED,
    CellResult,
    EnvironmentInfo,
    Results,
    ResultsWithSamples,
    SearchStep,
    TimeSpent,
)
from bench.runfile.reader import read
from bench.runfile.writer import write
from bench.samples import Sample
from bench.track.bisect import CUT_OFF, read_search
from bench.track.search import Search
from bench.track.steps import LOOKS, Looks, Steps, StoppedError, UnmeasurableError
from common.errors import BakeoffError
from tests import estimates
from tests.commands import Bakeoff, Done, refusal
from tests.environments.repository import repository

CELL = Cell("pure_jax", "pure", "toy", "cpu")
JAXLIB = {"0.5.0": "2025-01-10", "0.6.0": "2025-04-02", "0.7.0": "2025-07-20"}
RELEASES = {
    "jaxlib": JAXLIB,
    "jax": JAXLIB | {"0.7.1": "2025-08-20"},
    "flax": {"0.10.0": "2025-01-05", "0.11.0": "2025-07-20", "0.12.0": "2025-09-01"},
}


def ratio(log: float, error: float, pairs: int) -> Any:
    about: dict[str, Any] = {"cell": CELL, "metric": "compile", "against": "base"}
    if math.isfinite(error):
        about |= {"standard_error": error, "df": pairs - 1.0}
    return estimates.ratio(math.exp(log), workers=pairs, **about)


class World(Steps):
    """A search among stacks that take more or less time; nothing is built or measured.

    Args:
        seconds: Of something, by the releases of a stack.
        sd: Of a pair's log-ratio.
        impossible: Stacks and commits that cannot be built.
        cut: Step at which Ctrl-C comes.
        broken: Stacks that are built, but cannot be measured.
        most: Steps after which the budget is spent.
    """

    search: Search

    def __init__(
        self,
        seconds: Callable[[dict[str, str]], float],
        sd: float = 0.02,
        impossible: Sequence[str] = (),
        cut: int = 99,
        broken: Collection[str] = (),
        most: int = 99,
    ) -> None:
        self.builder = Mock(build=self.build)
        stacks = Stacks(Selection(("pure_jax",), ("pure",), ("toy",)), self.builder)
        super().__init__(stacks, "compile", 1200.0, Mock())
        self.seconds, self.sd, self.impossible, self.cut = seconds, sd, impossible, cut
        self.broken, self.most = broken, most
        self.rng = np.random.default_rng(0)
        self.measured_sides: list[str] = []
        self.halves: set[float] = set()
        """Boundaries of steps, as far as they were known."""
        self.versions: dict[str, str] = {}
        """Of commits of a library under development."""

    def build(self, spec: Spec, _: Sequence[str]) -> Environment:
        if spec.text in self.impossible:
            raise UnsolvableError("they do not go together")
        date = spec.date or datetime.date(2025, 12, 31)
        pins = {
            name: max((r for r, day in releases.items() if day <= str(date)), default="0")
            for name, releases in RELEASES.items()
        }
        pins |= {name: str(wanted).lstrip("=") for name, wanted in spec.pins}
        for package, source in spec.sources.items():
            commit = self.builder.freeze(source).commit
            if commit in self.impossible:
                raise UnsolvableError("no compiler")
            pins[package] = self.versions[commit]
        offer = Offer({"pure_jax": ["pure"]}, {}, ["cpu"])
        return Environment(Interpreter(), EnvironmentInfo(spec=str(spec), pins=pins), offer=offer)

    def find_or_measure(self, phase: Any, base: Spec, new: Spec, boundary: float) -> SearchStep:
        self.boundary = boundary
        self.halves |= {boundary} - {0.0}
        return super().find_or_measure(phase, base, new, boundary)

    def measure_stacks(
        self, base: Spec, new: Spec, is_decided: Callable[[Estimate], bool]
    ) -> tuple[Estimate, list[Sample]]:
        if str(new) in self.broken:
            raise UnmeasurableError(f"{new} cannot be measured: it does not import")
        if len(self.measured_sides) == self.most:
            raise StoppedError(f"{new} cannot be measured beside {base}: there was no time")
        if len(self.measured_sides) == self.cut:
            raise KeyboardInterrupt
        self.measured_sides.append(str(new))
        self.stacks.side(new)
        base_seconds, new_seconds = (self.seconds(self.stacks.releases(s)) for s in (base, new))
        truth, data = math.log(new_seconds / base_seconds), list[float]()
        while len(data) < LOOKS[-1]:
            data.append(truth + self.rng.normal(0, self.sd))
            n = len(data)
            error = float(np.std(data, ddof=1)) / math.sqrt(n) if n > 1 else math.inf
            estimate = ratio(float(np.mean(data)), error, n)
            if is_decided(estimate):
                break
        self.spent_seconds += 0.1 * n
        self.measured.append(Results(kind="bisect"))
        return estimate, [Sample(CELL, "compile", 1.0, environment=str(new), worker=1)]

    def run(self, good: str, bad: str) -> ResultsWithSamples:
        ends = parse(good), parse(bad)
        self.search = Search(*ends, self, lambda _: None, Path("steps.json"))
        results = self.search.run()
        results.arguments = ["bisect", "--good", "a b"]
        return results

    @property
    def table(self) -> list[tuple[str, str, str]]:
        """Phase, stack and conclusion of each step."""
        return [(step.phase, step.row.environment, step.conclusion) for step in self.taken]

    @property
    def estimates(self) -> list[Estimate]:
        """Ratio of each step."""
        return [step.row for step in self.taken]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search in an empty folder, without a network."""

    def list_releases(package: str, low: str, high: str, python: str) -> list[str]:
        assert python.startswith("3.")  # a version, and no path
        return [release for release in RELEASES[package] if low < release < high]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.prepare.stacks.ask_side", lambda environment, _: environment)
    monkeypatch.setattr("bench.track.search.list_releases", list_releases)
    monkeypatch.setattr(
        "bench.track.steps.digest_setup", lambda _: dict.fromkeys(SETUP_PARTS, "as it was")
    )


def jumps(name: str, release: str, factor: float = 2.0) -> Callable[[dict[str, str]], float]:
    """Return what takes another time from a release of a package on."""
    return lambda pins: factor if pins[name] >= release else 1.0


JAX_6, JAX_7, LIB_6 = jumps("jax", "0.6.0"), jumps("jax", "0.7.0", 0.5), jumps("jaxlib", "0.6.0")
FLAX = jumps("flax", "0.11.0", 1.5)


@pytest.mark.parametrize(
    ("seconds", "good", "bad", "result", "impossible"),
    [
        (JAX_6, "@2025-01-15", "@2025-07-01", "jax 0.5.0 0.6.0", ()),
        # two packages of one day: the one that does it
        (FLAX, "@2025-05-01", "@2025-12-01", "flax 0.10.0 0.11.0", ()),
        # it became faster
        (JAX_7, "jax==0.5.0,flax==0.10.0", "jax==0.7.1,flax==0.12.0", "jax 0.6.0 0.7.0", ()),
        # what is released together is pinned together, or the last jax would be blamed
        (LIB_6, "jax==0.5.0,jaxlib==0.5.0", "jax==0.7.0,jaxlib==0.7.0", "jax 0.5.0 0.6.0", ()),
        # unless its leader has not moved
        (LIB_6, "jax==0.7.0,jaxlib==0.5.0", "jax==0.7.0,jaxlib==0.7.0", "jaxlib 0.5.0 0.6.0", ()),
        # backwards
        (JAX_6, "@2025-07-01", "@2025-01-15", "jax 0.6.0 0.5.0", ()),
        # what cannot be built is passed over
        (
            *(JAX_6, "@2025-01-15", "@2025-07-01", "jax 0.5.0 0.6.0"),
            tuple(f"@2025-04-{day:02d}" for day in range(7, 12)),
        ),
        (
            *(jumps("jax", "0.7.1", 3.0), "jax==0.5.0", "jax==0.7.1", "jax 0.7.0 0.7.1"),
            ("jax==0.6.0", "jax==0.6.0,jaxlib==0.6.0"),
        ),
    ],
)
def test_package_and_release_are_found(
    seconds: Any, good: str, bad: str, result: str, impossible: tuple[str, ...]
) -> None:
    world = World(seconds, impossible=impossible)
    found = world.run(good, bad).search
    assert (found.stopped, found.moved_along) == (None, {})
    assert " ".join(map(str, (found.package, *found.releases))) == result


def halfway(pins: dict[str, str]) -> float:
    return {"0.5.0": 1.0, "0.6.0": math.sqrt(1.2)}.get(pins["jax"], 1.2)


def both(pins: dict[str, str]) -> float:
    return 2.0 if pins["jax"] >= "0.7.0" and pins["flax"] >= "0.11.0" else 1.0


ENDS = "@2025-01-15", "@2025-07-01"
DAYS = "@2025-05-01", "@2025-12-01"


@pytest.mark.parametrize(
    ("world", "good", "bad", "why"),
    [
        (World(lambda _: 1.0, sd=0.5), *ENDS, "cannot tell whether @2025-01-15 and @2025-07-01"),
        (World(lambda _: 1.0, sd=0.01), *ENDS, "differ by less than 2 % (-0."),
        (
            World(halfway, sd=0.05),
            *("jax==0.5.0", "jax==0.7.0", "jax==0.6.0,jaxlib==0.6.0 cannot be decided: +"),
        ),
        (World(both), "@2025-07-19", "@2025-07-20", "none of jax, flax does it alone"),
    ],
)
def test_what_cannot_be_decided_stops_it(world: World, good: str, bad: str, why: str) -> None:
    """Where more time would help, it says how much, and how to go on."""
    made = describe_search(world.run(good, bad))
    stopped = world.search.stopped
    assert stopped is not None
    assert why in stopped
    assert made.headline.endswith(f"Stopped: {stopped}.")
    assert "e+" not in stopped
    about = f"about {world.missing_seconds:.0f} s"
    assert (f"it needs {about}" in stopped) is ("cannot" in stopped) is (len(made.fine_print) == 2)
    if "cannot" in stopped:
        assert f"a `--budget` of {about}" in made.fine_print[1]
        assert "If this search wrote a JSON file, `--resume FILE`" in made.fine_print[1]


@pytest.mark.parametrize(
    ("most", "known"),
    [
        (1, "between @2025-05-01 and @2025-12-01"),
        (2, "most of it between @2025-07-19 and @2025-07-20"),
        (4, "most of it from flax 0.10.0 to 0.11.0"),
    ],
)
def test_what_was_decided_is_the_headline_wherever_it_stopped(most: int, known: str) -> None:
    """The steps are of both ends, a day, two packages, and one that confirms the release."""
    made = describe_search(World(FLAX, most=most).run(*DAYS))
    words = made.headline.partition(". Stopped: ")
    assert re.fullmatch(rf"Compile of pure_jax/pure at width 8: \+5\d % \(.*\),? {known}", words[0])
    assert words[2].endswith("there was no time.")
    assert made.status == "open"


def test_a_stack_that_cannot_be_measured_is_passed_over() -> None:
    """So are further days with the same releases, and a package's stack."""
    middle = {f"@2025-04-{day:02}" for day in range(7, 12)}
    world = World(JAX_6, broken=middle)
    found = world.run("@2025-01-15", "@2025-07-01").search
    assert (found.stopped, found.package, found.releases) == (None, "jax", ("0.5.0", "0.6.0"))
    assert not middle & {*world.measured_sides}
    alone = "@2025-07-19,jax==0.7.0,jaxlib==0.7.0"
    assert World(FLAX, broken=[alone]).run("@2025-07-19", "@2025-07-20").search.package == "flax"
    stopped = World(both, broken=[alone]).run("@2025-07-19", "@2025-07-20").search.stopped
    assert str(stopped).endswith("; alone, jax cannot be measured")


def test_a_certain_change_elsewhere_is_told() -> None:
    def earlier(pins: dict[str, str]) -> float:
        return (1.1 if pins["jax"] >= "0.6.0" else 1.0) * FLAX(pins)

    world = World(earlier, sd=0.005)
    made = describe_search(world.run("@2025-01-15", "@2025-12-01"))
    assert "from flax 0.10.0 to 0.11.0" in made.headline
    [text] = [line for line in made.sections[0].lines if "Not all of the difference" in line]
    assert re.search(r"change: @2025-06-2\d relative to @2025-01-15: \+10\.\d % \(", text)
    third = jumps("flax", "0.12.0", 1.5)
    later = World(lambda pins: third(pins) * JAX_6(pins), sd=0.005)
    made = describe_search(later.run("@2025-01-15", "@2025-12-01"))
    [text] = [line for line in made.sections[0].lines if "Not all of the difference" in line]
    assert re.search(
        r"@2025-06-2\d \+100 % .*, @2025-12-01 3\.\d+ times .*, both relative to", text
    )
    quiet = describe_search(World(FLAX, sd=0.005).run(*DAYS))
    assert not any("Not all" in line for line in quiet.sections[0].lines)


def test_two_names_of_one_stack_are_refused() -> None:
    problem = refusal(World(JAX_6).run, "@2025-02-01", "@2025-02-02")
    assert problem.startswith("@2025-02-01 and @2025-02-02 are the same stack, release by release")


def test_what_fails_on_the_way_keeps_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(JAX_6)
    first = world.measure_stacks(parse(ENDS[0]), parse(ENDS[1]), Looks(0.0))
    measured = Mock(side_effect=[first, BakeoffError("another run is measuring")])
    monkeypatch.setattr(World, "measure_stacks", measured)
    world.run("jax==0.5.0", "jax==0.7.1")
    assert world.search.stopped == "another run is measuring"
    assert [step.phase for step in world.taken] == ["whole"]
    measured.side_effect = BakeoffError("another run")
    with pytest.raises(BakeoffError, match="another run"):  # nothing is known yet
        World(JAX_6).run("jax==0.5.0", "jax==0.7.1")


def test_the_commits_of_a_library_are_searched(tmp_path: Path) -> None:
    """The change may go either way, and a commit that does not build is passed over."""
    commits = repository(tmp_path / "optax", "optax", ["1", "2", "broken", "4", "5"])
    versions = {commit: f"{n}+{commit[:10]}" for n, commit in enumerate(commits, 1)}
    old, new = (f"jax==0.7.0,optax @ {tmp_path}/optax@{commit}" for commit in commits[::4])
    for good, bad, factor in ((old, new, 2.0), (new, old, 0.5)):
        world = World(jumps("optax", "4", factor), impossible=commits[2:3])
        world.versions, world.builder.freeze = versions, Builder(tmp_path / "environments").freeze
        found = world.run(good, bad).search
        assert found.stopped is None
        releases = [f"2+{commits[1][:10]}", f"4+{commits[3][:10]}"]
        assert list(found.releases) == (releases if good == old else releases[::-1])


def test_the_document_says_what_was_found_and_shows_every_step() -> None:
    world = World(FLAX)
    results = world.run(*DAYS)
    assert results.estimates[-1].value == pytest.approx(1.5, rel=0.1)
    results.search = replace(results.search, moved_along={"chex": ("0.1", None)})
    kept = msgspec.json.decode(msgspec.json.encode(results), type=ResultsWithSamples)
    made = describe_search(kept)
    assert re.fullmatch(
        r"Compile of pure_jax/pure at width 8: \+\d+ % \(\d+ to \d+\) "
        r"from flax 0\.10\.0 to 0\.11\.0\.",
        made.headline,
    )
    assert made.status == "bad"
    faster = msgspec.structs.replace(results.search, releases=("0.11.0", "0.10.0"))
    made = describe_search(replace(kept, search=faster))
    assert re.search(r"width 8: -3\d % \(-\d+ to -\d+\) from flax 0\.10\.0 to 0\.11", made.headline)
    assert made.status == "good", "the good end is the newer one"
    made = describe_search(kept)
    assert len(made.fine_print) == 1, "more time would not help"
    result, steps = made.sections
    assert result.lines[0].startswith("@2025-07-19,flax==0.11.0 relative to @2025-07-19: +")
    assert result.lines[1] == "These packages had to change with it: chex 0.1 → none."
    [table] = steps.tables
    assert [row.cells[0] for row in table.rows] == [step.phase for step in world.taken]
    assert table.rows[-1].cells[0] == "confirm"
    assert [row.cells[3] for row in table.rows] == kept.estimates
    assert "bakeoff bisect --good &#39;a b&#39;" in page(made)


@pytest.mark.parametrize("at_once", [1, 5])
def test_a_step_is_decided_wrongly_as_seldom_as_is_said(at_once: int) -> None:
    """The truth lies on the boundary: whatever is decided is wrong."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(2000):
        data = rng.normal(0.3, 0.02, LOOKS[-1])
        looks = Looks(0.3)
        for n in range(2, data.size + 1, at_once):
            error = float(np.std(data[:n], ddof=1)) / math.sqrt(n)
            if looks(ratio(float(data[:n].mean()), error, n)):
                wrong += 1
                break
    assert wrong / 2000 < 0.017  # 1 %, and three standard errors


type Run = Callable[..., Done]


@pytest.fixture
def search(bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a call that runs `bakeoff bisect` in a world, between two ends."""

    def run(world: World, good: str, bad: str, *more: str) -> Done:
        def make_steps(stacks: Stacks, metric: str, *given: Any, wait: bool) -> World:
            stacks.builder = world.builder
            world.stacks, world.metric = stacks, metric
            world.earlier, world.earlier_path = given[-2:]
            world.wait = wait
            return world

        arguments = ["bisect", "--metric", "compile", "--good", good, "--bad", bad, *more]
        monkeypatch.setattr("bench.track.steps.Steps", make_steps)
        monkeypatch.setattr("sys.argv", ["bakeoff", *arguments])
        return bakeoff(*arguments)

    return run


HALF = "jax==0.5.0", "jax==0.7.0"
"""Ends of which the stack in between is half as slow as the bad one."""


def test_more_repeats_the_undecided_step_alone(search: Run) -> None:
    world, again = World(halfway, sd=0.05), World(halfway)
    more = World(lambda pins: 1.2 if pins["jax"] >= "0.6.0" else 1.0)
    assert search(world, *HALF, "-o", "why.json").status == 1
    assert [conclusion for *_, conclusion in world.table] == [DIFFERS, UNDECIDED]
    middle = world.measured_sides[-1]
    assert search(more, *HALF, "--resume", "why.json", "-o", "more.json").status == 0
    assert more.measured_sides == [middle, middle]  # that step, and what confirms it
    assert [step[::2] for step in more.table] == [
        ("whole", DIFFERS),
        ("release", UNDECIDED),
        ("release", LIKE_BAD),
        ("confirm", DIFFERS),
    ]
    assert more.estimates[:2] == world.estimates
    run = read(Path("more.json"))
    assert run.results.search.releases == ("0.5.0", "0.6.0")
    assert len(run.samples) == 4
    assert {*run.results.environments} == {*HALF, middle}
    sentence = describe_search(run.results).sections[0].lines[1]
    assert sentence.startswith("4 steps in ")
    assert sentence.endswith("the probability that all are right is at least 96 %.")
    search(again, *HALF, "--resume", "more.json")
    assert (again.measured_sides, again.estimates) == ([], more.estimates)


@pytest.mark.parametrize(
    ("seconds", "ends", "phases"),
    [
        (FLAX, DAYS, ["whole", "whole", "day", "package", "confirm"]),
        (JAX_6, ENDS, ["whole", "whole"]),  # there is no stack in between
    ],
)
def test_more_time_decides_whether_the_ends_differ(
    search: Run, seconds: Any, ends: tuple[str, str], phases: list[str]
) -> None:
    """The difference that the steps halve, and the result shows, is the one that was decided."""
    unclear, more = World(seconds, sd=2.0), World(seconds)
    assert search(unclear, *ends, "-o", "why.json").status == 1
    assert unclear.table == [("whole", ends[1], UNDECIDED)]
    assert search(more, *ends, "--resume", "why.json", "-o", "more.json").status == 0
    assert list(dict.fromkeys(phase for phase, *_ in more.table)) == list(dict.fromkeys(phases))
    assert [phase for phase, *_ in more.table][:2] == phases[:2]
    half = math.log(more.estimates[1].value) / 2
    assert more.halves == ({half} if "confirm" in phases else set())
    lines = describe_search(read(Path("more.json")).results).sections[0].lines
    assert words(more.estimates[1]) in lines[0]
    assert words(more.estimates[0]) not in lines[0]


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_search_that_was_cut_off_goes_on_with_the_step_in_progress(search: Run, cut: int) -> None:
    whole, killed, resumed = World(FLAX), World(FLAX, cut=cut), World(FLAX)
    whole.run(*DAYS)
    done = search(killed, *DAYS, "--budget", "5")
    assert done.status == 130
    assert "go on between what is known by now" in done.err
    known = re.search(r"the same command with --good (\S+) --bad (\S+)", " ".join(done.err.split()))
    assert known
    assert (known.groups() == DAYS) is (cut == 1), "the whole difference moves no end"
    assert SAFE_TEXT in done.err
    [file] = Path(".bakeoff").glob("*-bisect.json")
    assert (file.parent / ".gitignore").read_text() == "*\n"
    kept = file.stat().st_ino
    assert search(World(FLAX, cut=0), *DAYS, "--resume").status == 130
    assert file.stat().st_ino == kept, "a file with fewer steps has not taken its place"
    done = search(resumed, *DAYS, "--resume", "-o", "why.json")
    assert done.status == 0, done.err
    assert not file.exists()
    assert resumed.table == whole.table
    assert resumed.measured_sides == whole.measured_sides[cut:]
    assert resumed.estimates[:cut] == killed.estimates
    results = read(Path("why.json")).results
    assert results.estimates == resumed.estimates
    assert results.arguments[-4:] == ["--bad", DAYS[1], "-o", "why.json"]


def test_without_a_step_there_is_nothing_to_resume(search: Run) -> None:
    done = search(World(FLAX, cut=0), *DAYS)
    assert done.status == 130
    assert SAFE_TEXT not in done.err  # nothing was measured
    done = search(World(FLAX), *DAYS, "--resume")
    assert "there is nothing to resume: .bakeoff/ has no step of it" in done.err


def test_a_new_search_says_that_one_was_begun(search: Run) -> None:
    search(World(FLAX, cut=1), *DAYS)
    assert "the same search was begun: --resume goes on" in search(World(FLAX), *DAYS).err
    assert "begun" not in search(World(FLAX), *DAYS).err


def test_a_search_that_has_stopped_goes_on_without_a_file_too(search: Run) -> None:
    world, more = World(halfway, sd=0.05), World(halfway)
    assert "--resume goes on with that file" in search(world, *HALF).err
    middle = world.measured_sides[-1]
    assert search(more, *HALF, "--resume", "-o", "why.json").status == 1
    assert more.measured_sides == [middle], "it is tried once more"


def test_a_search_that_measures_nothing_leaves_what_another_one_kept(search: Run) -> None:
    search(World(FLAX, cut=3), *DAYS)
    [kept] = Path(".bakeoff").glob("*-bisect.json")
    before = kept.read_bytes()
    done = search(World(FLAX, most=0), *DAYS, "-o", "why.json")
    assert (done.status, kept.read_bytes()) == (1, before)
    assert "--resume goes on with that file" not in done.err
    assert search(World(FLAX), *DAYS, "--resume").status == 0


def test_what_a_search_has_not_confirmed_is_measured_once_more(search: Run) -> None:
    search(World(FLAX), *DAYS, "-o", "why.json")
    results, more = read(Path("why.json")).results, World(FLAX)
    *steps, last = results.search.steps
    assert last.phase == "confirm"
    last = replace(last, conclusion=UNDECIDED)
    results.search = replace(results.search, steps=[*steps, last])
    write(Path("open.json"), {"bakeoff": results})
    search(more, *DAYS, "--resume", "open.json")
    assert [phase for phase, *_ in more.table][-2:] == ["confirm", "confirm"]
    assert len(more.measured_sides) == 1


def test_an_undecided_step_of_a_search_that_was_cut_off_is_not_tried_again(search: Run) -> None:
    world, resumed = World(halfway, sd=0.05), World(halfway)
    search(world, *HALF, "-o", "why.json")
    results = read(Path("why.json")).results
    results.search = replace(results.search, stopped=CUT_OFF)
    write(Path("cut.json"), {"bakeoff": results})
    assert search(resumed, *HALF, "--resume", "cut.json", "-o", "more.json").status == 1
    assert resumed.measured_sides == []
    stopped = read(Path("more.json")).results.search.stopped
    assert str(stopped).endswith(f"cannot be decided: {world.explain_doubt(world.boundary)}")


def test_a_stack_that_is_another_one_now_is_measured_anew(search: Run) -> None:
    world, more = World(FLAX), World(FLAX)
    search(world, *DAYS, "-o", "why.json")
    results, middle = read(Path("why.json")).results, world.measured_sides[1]
    results.environments[middle].pins["chex"] = "9"
    write(Path("other.json"), {"bakeoff": results})
    search(more, *DAYS, "--resume", "other.json")
    assert more.measured_sides == [middle]


@pytest.mark.parametrize(("stopped", "spent", "earlier"), [(CUT_OFF, 300, 200), ("late", 0, 500)])
def test_only_a_search_that_was_cut_off_has_spent_part_of_its_budget(
    stopped: str | None, spent: int, earlier: int
) -> None:
    results = World(FLAX).run(*DAYS)
    results.search = replace(results.search, stopped=stopped)
    results.spent = TimeSpent(wall_seconds=500.0, earlier_seconds=200.0, processes=7)
    write(path := Path("why.json"), {"bakeoff": results})
    world = World(FLAX)
    world.earlier = read_search(path)
    after = world.run(*DAYS).spent
    assert world.spent_seconds == pytest.approx(spent, abs=30)
    assert (after.earlier_seconds, after.processes) == (earlier, 7)
    assert after.wall_seconds == pytest.approx(500, abs=30)


def test_samples_of_a_step_are_of_its_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse("jax==0.5.0")
    row = Sample(CELL, "compile", 1.0, environment="base", worker=2, block=5)
    made = Mock(samples=[row])
    made.results.spent.wall_seconds = 2.0
    monkeypatch.setattr("bench.track.steps.measure", Mock(return_value=made))
    steps = Steps(World(FLAX).stacks, "compile", 9.0, Mock())
    steps.cell = CELL
    _, samples = steps.measure_stacks(spec, spec, lambda _: True)
    assert samples == [row._replace(environment=str(spec))]
    assert steps.spent_seconds == 2.0, "building, asking and waiting are no budget"


@pytest.mark.parametrize("failure", ["not equal", None])
def test_only_a_failure_is_no_question_of_time(
    monkeypatch: pytest.MonkeyPatch, failure: str | None
) -> None:
    results = ResultsWithSamples(kind="bisect", cells=[CellResult(cell=CELL, failure=failure)])
    made = Mock(samples=[], results=results)
    monkeypatch.setattr("bench.track.steps.measure", Mock(return_value=made))
    steps = Steps(World(FLAX).stacks, "compile", 9.0, Mock())
    steps.cell = CELL
    with pytest.raises(StoppedError, match=failure or "no time for a pair of workers") as error:
        steps.measure_stacks(parse(ENDS[0]), parse(ENDS[1]), lambda _: True)
    assert isinstance(error.value, UnmeasurableError) is (failure is not None)
    assert steps.missing_seconds == (0 if failure else 18)
    monkeypatch.setattr(Stacks, "side", Mock(side_effect=BakeoffError("it does not import")))
    with pytest.raises(UnmeasurableError, match="cannot be measured: it does not import") as error:
        steps.measure_stacks(parse(ENDS[0]), parse(ENDS[1]), lambda _: True)
    assert str(error.value).startswith(str(parse(ENDS[0]))), "the one that fails"


def test_a_spent_budget_is_given_once_more() -> None:
    steps = Steps(World(FLAX).stacks, "compile", 60.0, Mock(), spent_seconds=61.0)
    assert refusal(steps.measure_stacks, *map(parse, ENDS), Looks(0.0)) == "the budget is spent"
    assert steps.missing_seconds == 61


OTHER = "give one of the same, or leave --resume out"


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (
            {"kind": "history"},
            "",
            "why.json is of kind 'history'; give what `bakeoff bisect -o FILE.json`",
        ),
        ({"search": {}}, "", "why.json is damaged: it has no search"),
        ({"setup": {}}, "", f"why.json is of another search (an older version); {OTHER}"),
        (
            *({"setup": dict.fromkeys(SETUP_PARTS, "as it was")}, ""),
            "is of another search (its good is None, its bad is None, its cell is None",
        ),
        ({}, "--good @2025-04-01", f"(its good is @2025-05-01); {OTHER}"),
        ({}, "--bad flax==0.12.0", f"(its bad is @2025-12-01); {OTHER}"),
        ({}, "--metric trace", f"(its metric is compile); {OTHER}"),
        ({}, "--workload seed", f"(its cell is {CELL}); {OTHER}"),
    ],
)
def test_a_file_of_anything_else_is_refused(
    search: Run, change: dict[str, Any], given: str, message: str
) -> None:
    write(Path("why.json"), {"bakeoff": msgspec.to_builtins(World(FLAX).run(*DAYS)) | change})
    done = search(world := World(FLAX), *DAYS, *given.split(), "--resume", "why.json")
    assert (done.status, done.out, world.measured_sides) == (2, "", [])
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not Path(".bakeoff").exists()
