"""From a task to its results: real workers of two environments, their journal, and resuming it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from bench.cells import BASELINE, Cell
from bench.engine import session
from bench.engine.journal import FOLDER, SUFFIX, Journal, journals
from bench.engine.process import Place
from bench.engine.session import Side, Task, groups_of, measure
from bench.environments.offers import Offer
from bench.options import Options
from bench.runfile import EnvironmentInfo, unpacked
from common.errors import BakeoffError
from tests.engine.simulated import FEW, Machine, needed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.engine.session import Measured

OFFER = Offer(
    styles={"pure_jax": ["pure"], "haiku": ["pure"]},
    problems={},
    backends=["cpu"],
    versions={"jax": "0.1"},
    devices={"cpu": "cpu"},
)
OPTIONS = Options(60.0, processes=1, blocks=2, rounds=2, cold_samples=1)
HAIKU, PLAIN = Cell("haiku", "pure", "toy", "cpu"), BASELINE.at("toy", "cpu")
NEEDED = {HAIKU: frozenset({"step", "first_step"})}


def side_of(spec: str = "current", offer: Offer = OFFER) -> Side:
    return Side(Place(), offer, EnvironmentInfo(spec=spec, versions={"jax": spec}))


def task_of(kind: Any = "ab", **more: Any) -> Task:
    """Return a task: of two environments that are the same one, unless told otherwise."""
    names = ("base", "new") if kind == "ab" else ("",)
    usual: dict[str, Any] = {
        "arguments": (kind, "--new", "a b"),
        "needed": dict.fromkeys(names, NEEDED),
        "sides": {name: side_of(name) for name in names},
        "options": OPTIONS,
        "groups": (names,),
        "base": "base" if kind == "ab" else "",
    }
    return Task(kind=kind, **(usual | more))


# A real one.


def real_task() -> Task:
    """Return the smallest task: the step of the baseline, of an environment beside itself."""
    return task_of(needed={key: {PLAIN: frozenset({"step"})} for key in ("base", "new")})


class Run(NamedTuple):
    """A measurement, in the folder where it was made, and the lines of its journal."""

    measured: Measured
    folder: Path
    lines: list[bytes]
    told: list[str]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return an A/B of an environment with itself, measured by real workers."""
    folder, told = tmp_path_factory.mktemp("ab"), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        measured = measure(real_task(), on_progress=lambda action, _: told.append(str(action)))
        lines = measured.journal.path.read_bytes().splitlines(keepends=True)
    return Run(measured, folder, lines, told)


def test_results_of_two_environments(real: Run) -> None:
    results = real.measured.results
    assert (results.kind, results.base) == ("ab", "base")
    assert [*results.environments] == ["base", "new"]
    assert results.environments["new"].versions == {"jax": "new"}
    assert not results.warnings or "exit" not in str(results.warnings)
    for row in results.cells:
        assert (row.environment, row.failure) in {("base", None), ("new", None)}
        assert row.proof is not None
        assert row.proof.same_program
    forms = {(row.form, row.metric, row.environment, row.against) for row in results.estimates}
    both = {("amount", "base", ""), ("amount", "new", "")}
    for metric, others in (("step", {("ratio", "new", "base")}), ("flops", set())):
        shown = {(form, name, base) for form, which, name, base in forms if which == metric}
        assert shown == both | others
    for metric in ("flops", "python_calls"):
        exact = [row.value for row in results.estimates if row.metric == metric]
        assert len(exact) == 2
        assert len({*exact}) == 1, "of one environment, twice"
    assert results.spent.processes == 2 + 2, "a pair that measures, and two that count"
    assert 0 < results.spent.sampling_share < 1
    assert not list(real.folder.glob("bakeoff-compiled-*"))


def test_samples_are_those_of_the_journal(real: Run) -> None:
    samples = real.measured.samples
    rows = [s for s in samples if s.metric == "step"]
    assert len(rows) == 2 * OPTIONS.blocks  # type: ignore[operator]
    assert {row.calls for row in rows} == {8}
    assert all(0 < row.value <= (row.median or 0) <= (row.p95 or 0) for row in rows)
    records = [json.loads(line) for line in real.lines[1:]]
    assert [record["outcome"]["at"] for record in records] == sorted(
        record["outcome"]["at"] for record in records
    )
    journalled = [
        value
        for record in records
        for _, _, value, *_ in (record["outcome"].get("answer") or {}).get("samples", [])
    ]
    assert sorted(journalled) == sorted(sample.value for sample in samples)
    unrounded = [sample._replace(at=round(sample.at, 2)) for sample in samples]
    assert sorted(unpacked(real.measured.results.samples)) == sorted(unrounded)
    assert real.told[0].startswith("start (")
    assert len(real.told) == len(records)
    command = shlex.split(real.measured.resuming)
    path = next(real.folder.glob(f"{FOLDER}/*{SUFFIX}")).relative_to(real.folder)
    assert command == ["bakeoff", "ab", "--new", "a b", f"--resume={path}"]


@pytest.mark.parametrize("name", ["", "named"])
def test_a_whole_journal_gives_identical_samples_and_no_worker(
    name: str, real: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / FOLDER / "20990101-ab.journal"
    journal.parent.mkdir()
    journal.write_bytes(b"".join(real.lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.engine.driver.Worker", never)
    again = measure(real_task(), resume=str(journal) if name else "")
    assert again.samples == real.measured.samples
    assert again.results.estimates == real.measured.results.estimates
    assert again.results.options == real.measured.results.options, "its seed is kept"
    assert again.journal.path.name == journal.name


def never(*_: Any) -> Any:
    pytest.fail("all is in the journal")


def test_a_journal_that_was_cut_is_gone_on_with(
    real: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a block, whose workers are gone: others measure what is left."""
    blocks = [i for i, line in enumerate(real.lines) if b'"do":"block"' in line]
    kept = real.lines[: blocks[1]]
    journal = tmp_path / "cut.journal"
    journal.write_bytes(b"".join(kept) + real.lines[blocks[1]][:40])
    monkeypatch.chdir(tmp_path)
    again = measure(real_task(), resume=str(journal))
    known = {sample for sample in real.measured.samples if sample.at <= at_of(kept[-1])}
    assert known < {*again.samples}
    steps = [s for s in again.samples if s.metric == "step"]
    whole = sum(b'"do":"block"' in line and b'"environment":"new"' in line for line in kept)
    blocks_of_new = {s.block for s in steps if s.environment == "new"}
    assert len(blocks_of_new) - whole == OPTIONS.blocks, "its side may have gone first"
    assert not [row for row in again.results.cells if row.failure]
    assert {(row.form, row.metric) for row in again.results.estimates} >= {("ratio", "step")}
    assert journal.read_bytes().startswith(b"".join(kept))


def at_of(line: bytes) -> float:
    return float(json.loads(line)["outcome"]["at"])


# Without workers.


@pytest.fixture
def drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what sets what is done instead of measuring, given the plan; in an empty folder."""

    def set_to(drive: Callable[..., Any]) -> None:
        def driver(plan: Any, *_: object, **__: object) -> Any:
            return SimpleNamespace(run=lambda: drive(plan))

        monkeypatch.setattr(session, "Driver", driver)

    monkeypatch.chdir(tmp_path)
    set_to(lambda plan: Machine().drive(plan))
    return set_to


def test_a_journal_of_another_task_is_left_alone(
    drives: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = measure(task_of("run"), before=5.0)
    path, before = begun.journal.path, begun.journal.path.read_bytes()
    base = task_of("run")
    mine = tmp_path / "mine.py"
    mine.write_text("STYLES = {}")
    others = {
        "other options": replace(base, options=replace(OPTIONS, rounds=3)),
        "other cells or metrics": replace(base, needed={"": {HAIKU: frozenset({"step"})}}),
        "other entrants": replace(base, outside={"mine": str(mine)}),
        "other releases, devices or settings": replace(
            base, sides={"": side_of(offer=replace(OFFER, versions={"jax": "0.2"}))}
        ),
        "other options, other cells or metrics": replace(
            base,
            options=replace(OPTIONS, margin=0.1),
            needed={"": {**NEEDED, PLAIN: NEEDED[HAIKU]}},
        ),
    }
    for words, other in others.items():
        for resume in (str(path), ""):
            message = rf"{path} is of another run \({words}\): .*`pytest run --new 'a b'`, or"
            with pytest.raises(BakeoffError, match=message):
                measure(other, resume=resume)
            assert path.read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr(session, "code_digest", lambda: "of other code")
        with pytest.raises(BakeoffError, match="other code of entrants or of the engine"):
            measure(base, resume=str(path))
    with monkeypatch.context() as patch:
        patch.setattr(session, "one_core_lanes", lambda: [(7,)])
        with pytest.raises(BakeoffError, match="other cores"):
            measure(base, resume=str(path))
    again = measure(replace(base, arguments=("run", "--resume")), resume="")
    assert again.results.options.seed == begun.results.options.seed
    assert again.results.spent.wall_seconds == begun.results.spent.wall_seconds, "`before` is kept"
    assert measure(base).results.options.seed != begun.results.options.seed


def test_what_there_is_to_resume(drives: Any, tmp_path: Path) -> None:
    """The newest journal that fits; of a bisection, a step that was not begun has none."""
    with pytest.raises(BakeoffError, match=r"^there is nothing to resume: no journal in .bakeoff/"):
        measure(task_of("run"), resume="")
    with pytest.raises(BakeoffError, match="cannot read the journal none: No such file"):
        measure(task_of("run"), resume="none")
    first = measure(task_of("run"))
    measure(task_of("run", options=replace(OPTIONS, rounds=3)))
    assert measure(task_of("run"), resume="").journal.path == first.journal.path
    step = task_of("bisect")
    assert measure(step, resume="").journal.path in journals("bisect")
    assert len(journals("bisect")) == 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"options": None}, "Object missing required field `options`"),
        ({"before": "later"}, "Expected `float`, got `str` - at `$.before`"),
        ({"lanes": [["x"]]}, "Expected `int`"),
        ({"options": {"budget": "x"}}, "$.options"),
    ],
)
def test_a_journal_whose_first_line_is_damaged(
    damage: dict[str, Any], words: str, drives: Any, tmp_path: Path
) -> None:
    path = measure(task_of("run")).journal.path
    header, *rest = path.read_bytes().splitlines(keepends=True)
    fields = {**json.loads(header), **damage}
    fields = {name: value for name, value in fields.items() if value is not None}
    path.write_bytes(json.dumps(fields).encode() + b"\n" + b"".join(rest))
    with pytest.raises(BakeoffError) as caught:
        measure(task_of("run"), resume=str(path))
    text = str(caught.value)
    assert text.startswith(f"the first line of the journal {path} is damaged: ")
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["run", "ab"])
def test_ctrl_c_leaves_a_journal(kind: Any, drives: Any) -> None:
    """A run has its part of the results; a comparison has none."""

    def cut(_: Any) -> None:
        raise KeyboardInterrupt

    drives(cut)
    if kind == "ab":
        with pytest.raises(KeyboardInterrupt):
            measure(task_of(kind))
    else:
        measured = measure(task_of(kind))
        assert measured.interrupted
        [row] = [row for row in measured.results.cells if row.cell == HAIKU]
        assert {*row.missing} == {"step", "first_step"}
    assert len(journals(kind)) == 1
    assert Journal.open(journals(kind)[0]).records == []


def test_a_failed_cell_has_no_samples_and_no_estimates(drives: Any) -> None:
    def fails_late(plan: Any) -> None:
        Machine().drive(plan)
        plan.sides[0].fail(HAIKU, "not equal", "last words")

    drives(fails_late)
    measured = measure(task_of("run"))
    [row] = [row for row in measured.results.cells if row.cell == HAIKU]
    assert (row.failure, row.stderr) == ("not equal", "last words")
    assert {s.cell.entrant for s in measured.samples} == {"pure_jax", "control"}
    assert HAIKU not in {row.cell for row in measured.results.estimates}


# What takes turns.


ALONE = replace(OFFER, alone={"haiku": ["transform"]})


@pytest.mark.parametrize(
    ("names", "groups", "sides", "expected"),
    [
        pytest.param(
            ["", "keras"],
            (),
            {"": ALONE, "keras": OFFER},
            [{"": 4}, {"": 3}, {"keras": 5}],
            id="a run: a style with workers of its own, and an environment",
        ),
        pytest.param(
            ["base", "new"], [("base", "new")], {}, [{"base": 4, "new": 4}], id="no control"
        ),
        pytest.param(
            ["base", "new"],
            [("base", "new")],
            {"base": ALONE, "new": ALONE},
            [{"base": 3, "new": 3}, {"base": 2, "new": 2}],
            id="alone on both sides",
        ),
        pytest.param(
            ["a", "b", "reference"],
            [("a", "reference"), ("b", "reference")],
            {},
            [{"a": 4, "reference": 4}, {"b": 4, "reference": 4}],
            id="days",
        ),
    ],
)
def test_what_takes_turns(
    names: list[str], groups: Any, sides: dict[str, Offer], expected: list[dict[str, int]]
) -> None:
    """By group, each environment's cells, with its baseline and in a run the control."""
    wanted = needed(("seed",), ("step",), FEW | {"equinox": ["pure"]})
    task = task_of(
        "run",
        needed=dict.fromkeys(names, wanted),
        sides={name: side_of(offer=sides.get(name, OFFER)) for name in names},
        groups=groups,
    )
    made = groups_of(task)
    assert [{s.environment: len(s.cells) for s in group} for group in made] == expected
    states = {id(side): side for group in made for side in group}.values()
    assert len(states) == len({(s.environment, frozenset(s.cells)) for s in states})
    apart = [s for s in states if {c.style for c in s.needed} == {"transform"}]
    assert len(apart) == sum(bool(offer.alone) for offer in sides.values())


def test_environments_take_turns_on_the_backends_that_all_have() -> None:
    cpu, gpu = (needed(("seed",), ("step",), FEW, backend=backend) for backend in ("cpu", "gpu"))
    task = task_of(needed={"base": cpu | gpu, "new": cpu})
    [group] = groups_of(task)
    assert {cell.backend for side in group for cell in side.cells} == {"cpu"}
    both = task_of("run", needed={"": cpu | gpu})
    assert [side.backend for group in groups_of(both) for side in group] == ["cpu", "gpu"]
