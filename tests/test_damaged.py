"""Damaged files of all kinds, as anybody may send them: one line says what is wrong, or they work.

Of each kind a valid file is changed: values of its tree are replaced or left out, or its bytes are.
Whatever is shown of it has no character that a terminal would obey.
"""

import copy
import json
import math
import time
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import weights
from bench.cli import main
from bench.engine.journal import Journal
from bench.engine.measurement import make_estimates
from bench.environments.spec import parse
from bench.estimates import group_by_key
from bench.fleet import read_plan
from bench.options import Options
from bench.runfile.reader import read
from bench.streams import one_line
from common.errors import BakeoffError
from tests.commands import NIGHTLY, saved
from tests.engine.test_driver import Lab, begun, run
from tests.fleet.test_matrix import PLAN
from tests.runfile.test_runfile import FILES

pytestmark = pytest.mark.slow
CASES = int(NIGHTLY or 100)
"""Examples of each test, 1,300 together; `BAKEOFF_CASES=1600` makes 20,800 others every night."""
HOSTILE: list[Any] = [
    *(None, True, -1, 0, 2**63, 10**30, 1e308, -1e308, 1e-320, math.nan, math.inf, "", " "),
    *("\x1b[31mred\x07", "\u202eabc", "a\nb", "x" * 10_000, "0" * 400, "cpu:99", "toyx9999999999"),
    *([], {}, [[[[[[]]]]]], {"a": {"b": {}}}, ["a"] * 50, "2026-99-99", "[bold]", "=1+1"),
]
TREES = st.recursive(
    st.sampled_from(HOSTILE) | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
SPOTS = st.integers(0, 1 << 20)
"""Stand for a place in a tree or in bytes, whatever its size."""
MOST_ALIKE = 30
"""Elements of a list that are changed: the others are like them."""
GONE, ALIKE = "<gone>", "<alike>"
"""Changes: a value is left out, or becomes another one of its type."""
CHANGES = st.lists(
    st.tuples(SPOTS, st.sampled_from([GONE, ALIKE, ALIKE]) | TREES), min_size=1, max_size=3
)
BYTES = st.lists(st.tuples(SPOTS, st.integers(0, 9), st.binary(max_size=9)), max_size=4)
many = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=not NIGHTLY,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def list_places(
    tree: Any, field: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield the places of a tree: the field, what it is in, and its key there."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys[:MOST_ALIKE] if isinstance(tree, list) else keys:
        inner = (*field, str(key) if isinstance(tree, dict) else "*")
        yield inner, tree, key
        if isinstance(tree[key], dict | list):
            yield from list_places(tree[key], inner)


def make_alike(value: Any, spot: int) -> Any:
    """Return another value of the same type."""
    if isinstance(value, list):
        others: list[Any] = [[], value[:-1], value * 2, value[::-1]]
    elif isinstance(value, dict):
        first = next(iter(value), "")
        rest = {key: inner for key, inner in value.items() if key != first}
        others = [{}, rest, rest | {"other": value.get(first)}]
    elif isinstance(value, str):
        others = ["", "other", f"{value}x", "pure_jax", "pure", "toy", "cpu", "gpu", "base", "new"]
        others += ["step", "host_cost", "host_cost_per_array", "ratio", "added", "amount", "count"]
    else:
        others = [0, -1, 1, 0.5, 1e-300, 1e300, 1 << 53, True, None]
    return others[spot % len(others)]


def changed(tree: Any, changes: list[tuple[int, Any]]) -> Any:
    """Return a copy of a tree with other values at some places; each field is as likely."""
    tree = copy.deepcopy(tree)
    for spot, value in changes:
        fields = group_by_key((field, (inside, key)) for field, inside, key in list_places(tree))
        if not fields:
            continue
        places = [*fields.values()][spot % len(fields)]
        inside, key = places[spot % len(places)]
        if value == GONE:
            del inside[key]
        else:
            alike = value == ALIKE
            inside[key] = make_alike(inside[key], spot) if alike else copy.deepcopy(value)
    return tree


def spoiled(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """Return bytes of which some are replaced by others."""
    for spot, length, other in changes:
        start = spot % (len(data) + 1)
        data = data[:start] + other + data[start + length :]
    return data


def works_or_is_refused(call: Callable[[], Any]) -> None:
    """Assert that what a call shows, or how it is refused, is printable."""
    try:
        text = str(call() or "")
    except BakeoffError as error:
        text = one_line(error)
    assert_printable(text)


def assert_printable(text: str) -> None:
    """Assert that a terminal obeys no character of a text."""
    obeyed = [c for c in text if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Co")]
    assert not set(obeyed) - set("\u200b\xad"), ascii(text)[:2000]


def toml(name: str, value: Any) -> str:
    """Return a tree's table or tables, or something that is no TOML."""
    if isinstance(value, dict):
        lines = (f"{key} = {json.dumps(inner)}\n" for key, inner in value.items())
        return f"[{name}]\n{''.join(lines)}"
    if isinstance(value, list):
        return "".join(toml(f"[{name}]", inner) for inner in value)
    return f"{name} = {json.dumps(value)}\n"


def as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


COMMANDS = (
    *(("report", "FILE", "--format", form) for form in ("text", "md", "csv", "html")),
    *(("compare", "GOOD", "FILE"), ("compare", "FILE", "GOOD")),
    ("history", "GOOD", "FILE"),
    ("report", "FILE", "--format", "text", "--details"),
    ("matrix", "FILE"),
)
"""Ways to read a file."""
MOST_SECONDS = 2.0
"""Processor seconds that reading a file of 1 MB or less may take, with a page of it."""
MOST_KILOBYTES = 300_000
"""Memory by which the largest use of the process may grow meanwhile."""


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.usefixtures("own_folder")
@given(CHANGES, BYTES, st.sampled_from(COMMANDS))
@many
def test_files_of_all_commands(
    kind: str,
    capsys: pytest.CaptureFixture[str],
    changes: list[tuple[int, Any]],
    flips: list[tuple[int, int, bytes]],
    words: tuple[str, ...],
) -> None:
    """Each way to read a file ends with a result, or with one line and exit status 2."""
    for path in Path().glob("*"):
        path.unlink()
    Path("GOOD").write_bytes(msgspec.json.encode(FILES["run"]))
    tree = changed(json.loads(msgspec.json.encode(FILES[kind])), changes)
    Path("FILE").write_bytes(spoiled(as_json(tree), flips[:1] if len(flips) > 3 else []))
    start, size = time.process_time(), getrusage(RUSAGE_SELF).ru_maxrss
    status = main([*words])
    assert time.process_time() - start < MOST_SECONDS
    assert getrusage(RUSAGE_SELF).ru_maxrss - size < MOST_KILOBYTES
    out, error = capsys.readouterr()
    assert status in (0, 1, 2)
    assert_printable(out)
    assert_printable(page.read_text("utf-8") if (page := Path("FILE.html")).exists() else "")
    assert_printable(error)
    if status == 2 and not out:
        assert error.startswith("bakeoff: ")
        assert error.count("\n") == 1


@pytest.mark.parametrize("kind", ["run", "ab", "history"])
@given(CHANGES)
@many
def test_samples_to_go_on_with(kind: str, tmp_path: Path, changes: list[tuple[int, Any]]) -> None:
    """Samples that `--resume` goes on with make estimates, or are refused."""
    tree = json.loads(msgspec.json.encode(FILES[kind]))
    tree["bakeoff"]["samples"] = changed(tree["bakeoff"]["samples"], changes)
    path = tmp_path / "run.json"
    path.write_bytes(as_json(tree))

    def make() -> None:
        run = read(path)
        make_estimates(run.samples, run.results.cells, Options(), run.results.base)

    works_or_is_refused(make)


@given(CHANGES, BYTES)
@many
def test_weights(
    tmp_path: Path, changes: list[tuple[int, Any]], flips: list[tuple[int, int, bytes]]
) -> None:
    path = tmp_path / "model.safetensors"
    if not (tmp_path / "good").exists():
        weights.save(tmp_path / "good", saved())
    data = (tmp_path / "good").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    about = header["__metadata__"]
    if len(flips) % 2:
        about["about"] = json.dumps(changed(json.loads(about["about"]), changes))
    elif not flips:
        header = changed(header, changes)
    text = as_json(header)
    whole = len(text).to_bytes(8, "little") + text + data[8 + size :]
    path.write_bytes(spoiled(whole, flips if len(flips) in (2, 4) else []))
    works_or_is_refused(lambda: weights.load(path) and "")


@given(CHANGES, BYTES)
@many
def test_plans(
    tmp_path: Path, changes: list[tuple[int, Any]], flips: list[tuple[int, int, bytes]]
) -> None:
    path = tmp_path / "plan.toml"
    tree = changed(tomllib.loads(PLAN), [] if flips else changes)
    text = "".join(toml(key, value) for key, value in tree.items())
    path.write_bytes(spoiled(text.encode("utf-8", "surrogatepass"), flips))
    works_or_is_refused(lambda: " ".join(run.title for run in read_plan(path)))


@given(CHANGES, BYTES)
@many
def test_journals(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: list[tuple[int, Any]],
    flips: list[tuple[int, int, bytes]],
) -> None:
    """A line of what was not asked for is refused; one that could be is taken."""
    path, whole = tmp_path / "run.journal", tmp_path / "whole"
    if not whole.exists():
        monkeypatch.setattr("bench.engine.driver.Worker", Lab().make_worker)
        monkeypatch.setattr("os.fsync", lambda _: None)
        run(begun(whole))
    records = list(map(json.loads, whole.read_bytes().splitlines()))
    lines = b"".join(as_json(line) + b"\n" for line in changed(records, [] if flips else changes))
    path.write_bytes(spoiled(lines, flips))
    works_or_is_refused(lambda: run(Journal.open(path)) and "")


WORDS = st.text(max_size=40) | st.sampled_from(
    [
        *("~nosuchuser/flax", "flax @ ~nosuchuser", "flax @ git+https://[", "flax @ git+x://y"),
        *("@9999-99-99", "@-99999d", "@-1d,@-2d", "flax==", "flax==1,flax==2", "jax>=0,<=1,!=2"),
        *("uv.lock", "/dev/zero.txt", "a.toml", "-rm", "--upload-pack=x", "flax @ .@HEAD"),
        *("nan", "inf", "-1", "0", "1e400", "9" * 5000, "1_0", "٣", "x" * 9999),
        *("", " ", "\x00", "a\nb", "\udc80"),
    ]
)
"""Values of an option."""


@given(WORDS)
@many
def test_specs(text: str) -> None:
    works_or_is_refused(lambda: parse(text, "--base"))


OPTIONS = (
    *(("report", "GOOD", "--format"), ("compare", "GOOD", "GOOD", "--margin")),
    *(("cost", "--resume", "--arrays"), ("cost", "--arrays", "3", "--model")),
    *(("cost", "--arrays", "3", "--style"), ("history", "GOOD", "--since"), ("report",)),
    *(("check",), ("train", "--epochs"), ("sample",), ("new",), ("cost",), ("matrix",)),
)
"""Beginnings of commands whose last option is given anything."""


@pytest.mark.usefixtures("own_folder")
@given(st.sampled_from(OPTIONS), WORDS)
@many
def test_options(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str) -> None:
    Path("GOOD").write_bytes(msgspec.json.encode(FILES["run"]))
    status = main([*words, text])
    out, error = capsys.readouterr()
    assert status in (0, 1, 2)
    assert_printable(out + error)
    if status == 2:
        assert error.count("\n") == 1, error
