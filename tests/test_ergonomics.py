"""Counts of ergonomics: on tiny sources by hand, on the entrants, and as the command shows them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import impls
from bench.cli import ergonomics as command
from bench.cli import main
from bench.ergonomics import releases, rows, tables
from bench.ergonomics.candidates import PROGRAMS, candidate, candidates, last_line
from bench.ergonomics.concepts import Concepts, concepts
from bench.ergonomics.install import bound, closure, install, installed
from bench.ergonomics.names import uses
from bench.ergonomics.parts import parts, style_values
from bench.report.choose import LIBRARIES
from bench.report.runs import read
from bench.report.wording import amount
from bench.worker.source import Counts, code_lines, source
from common.errors import BakeoffError

ENTRANTS = impls.names()
RUN = Path(__file__).parents[1] / "results/xeon-2-cores/2026-11-25-budget-1800.json"
SMALL = '''"""Doc
string."""

import lib as l  # a comment
import jax.numpy as jnp

# another
DISTRIBUTION = "lib"


def shared(x):
    """Doc."""
    return l.nn.helper(x)


def core(x):
    return l.Linear(x)


@l.decorated
def build(config):
    return core(config)


def a(config, optimiser):
    return l.jit(shared)(build(config))


def b(config, optimiser):
    core = jnp.tanh(1.0)
    return shared(only_b(core))


@jnp.vectorize
def only_b(x):
    return x


def unused():
    return 1


STYLES = {"pure": pure_style(build), "a": a, "b": b}
'''


class Done(NamedTuple):
    status: int
    out: str
    err: str


type Bakeoff = Callable[..., Done]


@pytest.fixture
def bakeoff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bakeoff:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(impls, "OUTSIDE", {})

    def run(*arguments: str) -> Done:
        capsys.readouterr()
        return Done(main(["ergonomics", *arguments]), *capsys.readouterr())

    return run


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return path


def chains(text: str) -> set[str]:
    return {".".join(chain) for chain in uses(ast.parse(text))}


def text_of(path: Path, lines: frozenset[int]) -> list[str]:
    return [x for i, x in enumerate(path.read_text().splitlines(), 1) if i in lines and x]


# Lines and tokens


def test_code_docstrings_and_comments_are_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        '"""Doc\nstring."""\n\n# comment\nx = (1 +  # why\n     2)\n\n\ndef f():\n    "d"\n'
    )
    # x = ( 1 + 2 ) and def f ( ) :
    assert source(path).counts() == Counts(lines=3, tokens=12, docstring_lines=3, comment_lines=2)
    assert source(path).counts({5, 6}) == Counts(2, 7, 0, 1)
    assert code_lines(path) == 3


def test_a_string_that_is_no_docstring_is_code(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text('x = """a\nb"""\n"about x"\n')
    assert source(path).counts() == Counts(lines=3, tokens=4, docstring_lines=0, comment_lines=0)


# Names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nnx.jit(f)(x.T)", {"nnx.jit", "f", "x.T"}),
        ("def f(a, *b, c=d, **e): return a, b, c, e, g", {"d", "g"}),
        ("def f(a: T) -> R: pass", {"T", "R"}),
        ("def f():\n  cell = 1\n  return cell", set()),
        ("def f():\n  def g():\n    cell = 1\n  return cell", {"cell"}),
        ("def f():\n  def g():\n    return cell\n  cell = 1\n  return g", set()),
        ("def f():\n  global cell\n  cell = 1\n  return cell", {"cell"}),
        ("lambda x: x + y", {"y"}),
        ("[x for x in xs if x.a]", {"xs"}),
        ("class A(B):\n  cell: C\n  def f(self): return cell", {"B", "C", "cell"}),
        ("@eqx.filter_jit\ndef f(): pass", {"eqx.filter_jit"}),
        ("def f(x):\n  match x:\n    case {'a': y, **z}: return y, z", set()),
        ("def f(a):\n  import lib\n  return lib.b(a)", {"lib.b"}),
        ("f().attribute.other", {"f"}),
        ("type A = list[B.C]", {"list", "B.C"}),
    ],
)
def test_free_names_are_found_with_what_follows(text: str, expected: set[str]) -> None:
    assert chains(text) == expected


def test_names_are_spelled_in_full_and_grouped_by_whose_they_are() -> None:
    text = """
from __future__ import annotations
import os, lib.sub, lib as l, jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax.example_libraries import stax
from lib.deep import Thing as T
from optax import adam
from jaxtyping import Array
from common.contract import Dense
os.fork, lib.sub.f, l.g, l.g, T.create, stax.Dense, jnp.tanh, jax.nn.relu, adam, np.eye
partial, Array, Dense, unknown.thing
"""
    tree = ast.parse(text)
    assert concepts([tree], tree) == Concepts(
        library=("jax.example_libraries.stax.Dense", "lib.deep.Thing.create", "lib.g", "lib.sub.f"),
        jax=("jax.nn.relu", "jax.numpy.tanh"),
        optax=("optax.adam",),
        numpy=("numpy.eye",),
    )
    assert concepts([tree], tree, "numpy").library[-1] == "numpy.eye"
    assert concepts([tree], tree, "numpy").numpy == ()


# Parts


def test_a_style_adds_what_it_reaches_and_the_core_does_not(small: Path) -> None:
    found = parts(source(small).tree)
    assert list(found.styles) == ["a", "b"]
    shared = ["def shared(x):", '    """Doc."""', "    return l.nn.helper(x)"]
    a = ["def a(config, optimiser):", "    return l.jit(shared)(build(config))"]
    b = text_of(small, found.styles["b"].alone)
    assert text_of(small, found.styles["a"].adds) == [*shared, *a]
    assert text_of(small, found.styles["a"].alone) == a
    assert [x for x in b if x.startswith(("def", "@"))] == [
        "def b(config, optimiser):",
        "@jnp.vectorize",
        "def only_b(x):",
    ]
    core = text_of(small, found.core)
    assert {"@l.decorated", "def core(x):", "def unused():"} <= set(core)
    assert not {"def shared(x):", "def only_b(x):"} & set(core)
    assert found.pure


def test_names_of_a_style_are_those_that_the_core_does_not_use(small: Path) -> None:
    impls.add(small)
    try:
        found = rows.written("small", "lib")
    finally:
        del impls.OUTSIDE["small"]
    pure, a, b = found["styles"]
    assert (pure["style"], pure["names"]["library"]) == ("pure", ("lib.Linear", "lib.decorated"))
    assert a["names"]["library"] == ("lib.jit", "lib.nn.helper")
    assert (a["lines"], a["alone"]["lines"]) == (4, 2)
    assert b["names"]["jax"] == ("jax.numpy.tanh", "jax.numpy.vectorize")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('STYLES = {"pure": f(build), "jit": jit}', ["pure", "jit"]),
        ('STYLES: Mapping[str, Style] = {"jit": jit}', ["jit"]),
        ('STYLES = {"a": a}\nif x:\n    STYLES["b"] = b', ["a", "b"]),
        ('STYLES = {"a": a}\nSTYLES |= {"b": b}', ["a", "b"]),
        ("STYLES = made()", []),
    ],
)
def test_styles_are_read_however_they_are_written_out(text: str, expected: list[str]) -> None:
    assert list(style_values(ast.parse(text))) == expected


def test_styles_that_are_not_written_out_cannot_be_counted() -> None:
    with pytest.raises(BakeoffError, match=r"mine: its styles cannot be counted.*written out"):
        parts(ast.parse("STYLES = made()"), "mine")


@pytest.mark.parametrize("entrant", ENTRANTS)
def test_the_core_and_what_styles_add_are_the_file(entrant: str) -> None:
    taken = source(impls.source(entrant))
    found = parts(taken.tree)
    added = frozenset[int]().union(*(part.adds for part in found.styles.values()))
    whole, core, styles = taken.counts(), taken.counts(found.core), taken.counts(added)
    assert core.lines + styles.lines == whole.lines
    assert core.tokens + styles.tokens == whole.tokens
    assert whole.lines == code_lines(impls.source(entrant))
    [build] = [n for n in taken.tree.body if isinstance(n, ast.FunctionDef) and n.name == "build"]
    assert build.lineno in found.core
    for style, part in found.styles.items():
        assert part.adds, style
        assert part.alone <= part.adds


@pytest.mark.parametrize("entrant", ["pure_jax", "equinox", "flax_linen", "flax_nnx", "haiku"])
def test_styles_are_those_that_the_entrant_offers(entrant: str) -> None:
    found = rows.written(entrant, "")
    assert [style["style"] for style in found["styles"]] == list(impls.load(entrant).styles)


@pytest.mark.parametrize(
    ("entrant", "style", "name"),
    [
        ("flax_nnx", "jit", "flax.nnx.jit"),
        ("flax_nnx", "jit_partial", "flax.nnx.jit_partial"),
        ("flax_nnx", "pure", "flax.nnx.merge"),
        ("equinox", "filter_jit", "equinox.filter_jit"),
        ("flax_linen", "train_state", "flax.training.train_state.TrainState.create"),
        ("haiku", "pure", "haiku.transform"),
    ],
)
def test_entrants_touch_the_names_that_they_are_known_for(
    entrant: str, style: str, name: str
) -> None:
    found = rows.written(entrant, impls.declared(entrant).distribution)
    assert name in found["file"]["names"]["library"]
    by_style = {one["style"]: one["names"]["library"] for one in found["styles"]}
    assert name in by_style[style]


def test_plain_jax_touches_no_library() -> None:
    names = rows.written("pure_jax", "jax")["file"]["names"]
    assert names["library"] == ()
    assert "jax.nn.one_hot" in names["jax"]


# What is installed


def put(folder: Path, name: str, *requires: str, size: int = 0, about: str = "") -> None:
    """Write a distribution as an installer would."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{about}{needs}"
    )
    (folder / f"{name}.py").write_bytes(b"#" * size)
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / f"{name}.pyc").write_bytes(b"#" * 1000)
    recorded = [f"{name}.py,,", f"__pycache__/{name}.pyc,,", f"{name}-gone.py,,"]
    (info / "RECORD").write_text("\n".join(recorded) + "\n")


def test_an_installation_is_what_a_library_pulls_in_beyond_jax(tmp_path: Path) -> None:
    put(tmp_path, "jax", "shared", size=7)
    put(tmp_path, "shared", size=7)
    put(
        tmp_path,
        "lib",
        *("jax>=0.5,<1", "shared", "Small_Part[more]", "absent", 'elsewhere; python_version<"3"'),
        size=100,
        about="Requires-Python: >=3.10\n",
    )
    put(tmp_path, "small.part", "lib", 'extra-part; extra=="more"', 'other; extra=="else"', size=10)
    put(tmp_path, "extra-part", size=5)
    found = install("lib", tmp_path)
    assert (found.size, found.version) == (115, "1.0")
    assert found.packages == (
        ("lib", "1.0", 100),
        ("small-part", "1.0", 10),
        ("extra-part", "1.0", 5),
    )
    assert found.missing == ("absent",)
    assert (found.requires_python, found.requires_jax) == (">=3.10", "<1,>=0.5")


def test_what_is_not_installed_is_said(tmp_path: Path) -> None:
    with pytest.raises(BakeoffError, match="lib is not installed here"):
        install("lib", tmp_path)


def test_the_environment_at_hand_is_the_default() -> None:
    assert install("jax").packages == ()
    names = [name for name, *_ in install("dm-haiku").packages]
    assert "dm-haiku" in names
    assert not {"jax", "jaxlib", "numpy", "optax"} & set(names)
    assert "chex" not in closure(["numpy"], installed(None))[0]


def test_bounds_leave_out_what_only_an_extra_wants() -> None:
    assert bound("jax", ["jax>=0.4; extra == 'cpu'"]) == ""
    assert bound("jax", ["jax", "jaxlib>=1"]) == "any"


# Releases


def test_age_and_cadence_are_counted_from_the_day_of_the_file() -> None:
    found = {
        "as_of": "2026-11-25",
        "libraries": {
            "lib": {
                "requires_python": ">=3.10",
                "requires_jax": "",
                "releases": {"1": "2025-11-25", "2": "2025-11-26", "3": "2026-11-15"},
            }
        },
    }
    aged = releases.age("lib", found)
    assert aged is not None
    assert (aged.latest, aged.latest_on, aged.days) == ("3", "2026-11-15", 10)
    assert (aged.in_a_year, aged.days_between) == (2, 177.5)
    assert releases.age("other", found) is None
    assert releases.year_before(date(2028, 2, 29)) == date(2027, 2, 28)


def test_the_dated_file_knows_every_library_and_is_sorted() -> None:
    found = releases.known()
    assert {impls.declared(name).distribution for name in ENTRANTS} <= found["libraries"].keys()
    for one in found["libraries"].values():
        days = list(one["releases"].values())
        assert days[-1] <= found["as_of"]
        assert all(date.fromisoformat(day) for day in days)


def test_what_the_page_says_of_releases_is_counted_from_the_same_file() -> None:
    before = json.loads(LIBRARIES.read_text("utf-8"))
    assert releases.libraries(releases.known(), before) == before


# Candidates


def test_each_candidate_says_what_was_seen_and_can_be_tried_again() -> None:
    found = candidates()
    assert {"objax", "haliax", "treex", "elegy"} <= {one.name for one in found}
    for one in found:
        assert one.name in PROGRAMS
        compile(PROGRAMS[one.name], one.name, "exec")
        assert one.reason.endswith(".")
        assert "Error: " in one.today.said
        assert one.last.said == ""
        assert date.fromisoformat(one.last.day) < date.fromisoformat(one.seen_on)
        for stack in (one.today, one.last):
            assert f"jax=={stack.jax}" in stack.install


def test_an_unknown_field_of_a_candidate_is_a_mistake() -> None:
    one = json.loads((Path(rows.__file__).parent / "candidates.json").read_text())["candidates"][0]
    with pytest.raises(TypeError, match="mood"):
        candidate({**one, "mood": "good"})


def test_the_last_line_of_an_error_is_without_paths_and_epilogue() -> None:
    said = "Traceback\n  x\nImportError: no 'a' (/b/site-packages/c.py)\n"
    epilogue = "-" * 20 + "\nFor simplicity, JAX has removed its internal frames"
    assert last_line(said + epilogue) == "ImportError: no 'a'"
    assert last_line("") == "nothing was said"


# The command


@pytest.mark.parametrize("columns", [80, 160])
def test_the_tables_fit_the_terminal(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = bakeoff("--run", str(RUN))
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= columns
    assert "…" not in done.out
    for name in [*ENTRANTS, "objax", "jit_partial"]:
        assert re.search(rf"\b{name}\b", done.out)
    took = amount(rows.import_seconds(read(RUN, samples=False))["flax_nnx"], "s")
    assert re.search(rf"^ *flax_nnx .* {took} *$", done.out, re.MULTILINE)
    assert f"before {releases.known()['as_of']}" in " ".join(done.out.split())
    assert re.search(r"does not say how hard", " ".join(done.out.split()))


def test_for_machines_there_is_everything(bakeoff: Bakeoff) -> None:
    found = json.loads(bakeoff("--json", "--entrant", "flax_nnx,pure_jax").out)
    assert [row["entrant"] for row in found["entrants"]] == ["flax_nnx", "pure_jax"]
    nnx, plain = found["entrants"]
    assert "flax.nnx.jit" in nnx["file"]["names"]["library"]
    assert nnx["install"]["size"] > plain["install"]["size"] == 0
    assert nnx["releases"]["latest"] in releases.known()["libraries"]["flax"]["releases"]
    assert "import_seconds" not in nnx
    assert {one["name"] for one in found["candidates"]} == set(PROGRAMS)


def test_import_times_come_from_a_run(bakeoff: Bakeoff) -> None:
    arguments = ("--json", "--run", str(RUN), "--entrant", "haiku", "--entrant", "stax")
    haiku, stax = json.loads(bakeoff(*arguments).out)["entrants"]
    cells = json.loads(RUN.read_text())["bakeoff"]["cells"]
    [expected] = [
        cell["metrics"]["import"]["median"]
        for cell in cells
        if (cell["entrant"], cell["style"], cell["workload"]) == ("haiku", "pure", "seed")
    ]
    assert haiku["import_seconds"] == expected
    assert stax["import_seconds"] is None


def test_markdown_has_a_row_for_each_style_and_is_a_table(bakeoff: Bakeoff) -> None:
    out = bakeoff("--format", "markdown", "--entrant", "equinox").out
    assert re.search(r"^\| equinox \| file \| \d+ \| \d+ \| \d+ \| \d+ \| \d+ \|$", out, re.M)
    assert re.search(r"^\|  \| filter\\?_jit \| \d+ \|", out, re.M)
    for block in out.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def test_verbose_lists_the_names(bakeoff: Bakeoff) -> None:
    out = " ".join(bakeoff("-v", "--entrant", "equinox").out.split())
    assert re.search(r"equinox, \d+ of its library: equinox\.Module, ", out)
    assert re.search(r"equinox, \d+ of jax: jax\.", out)


def test_an_own_environment_that_is_not_built_is_said(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "site_packages", lambda name: None)
    done = bakeoff("--entrant", "keras")
    assert re.search(r"keras +keras +- +-", done.out)
    words = " ".join(done.out.split())
    assert "has not been built: `bakeoff entrants --build keras` does." in words


def test_an_own_environment_is_read_where_it_is(
    bakeoff: Bakeoff, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(tmp_path / "there", "keras", size=12)
    monkeypatch.setattr(command, "site_packages", lambda name: tmp_path / "there")
    [row] = json.loads(bakeoff("--json", "--entrant", "keras").out)["entrants"]
    assert (row["install"]["size"], row["install"]["version"]) == (12, "1.0")


def test_a_file_is_counted_and_not_run(bakeoff: Bakeoff, small: Path) -> None:
    small.write_text(f"{SMALL}\nraise SystemExit('it was run')\n")
    [row] = json.loads(bakeoff("--json", "--entrant", str(small)).out)["entrants"]
    assert [style["style"] for style in row["styles"]] == ["pure", "a", "b"]
    assert row["releases"] is None
    assert row["install_missing"] == "lib is not installed here"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def (", "has a syntax error in line 1"),
        ("x = 1", "its styles cannot be counted"),
        ("DISTRIBUTION = f()", "DISTRIBUTION in line 1 has to be a string"),
    ],
)
def test_a_file_that_cannot_be_counted_costs_its_own_row(
    bakeoff: Bakeoff, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "bad.py").write_text(text)
    done = bakeoff("--entrant", "bad.py,haiku")
    assert done.status == 0
    assert problem in " ".join(done.out.split())
    assert "transform" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--entrant", "flex"), "unknown entrant 'flex'; known: pure_jax, "),
        (("--entrant", ","), "--entrant is empty; give names"),
        (("--entrant", "no.py"), "no such entrant 'no.py'"),
        (("--run", "no.json"), "no.json cannot be read (No such file or directory)"),
        (("--json", "--format", "markdown"), "are two forms; give one of them"),
        (("--format", "html"), "html"),
    ],
)
def test_bad_input_is_one_line(bakeoff: Bakeoff, arguments: tuple[str, ...], message: str) -> None:
    done = bakeoff(*arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_run_without_import_times_leaves_them_out(bakeoff: Bakeoff, tmp_path: Path) -> None:
    data: dict[str, Any] = json.loads(RUN.read_text())
    for cell in data["bakeoff"]["cells"]:
        cell["metrics"].pop("import", None)
    data["benchmarks"] = []
    (tmp_path / "run.json").write_text(json.dumps(data))
    [row] = json.loads(bakeoff("--json", "--run", "run.json", "--entrant", "haiku").out)["entrants"]
    assert row["import_seconds"] is None


def test_grids_have_a_cell_for_each_header() -> None:
    found = rows.ergonomics(ENTRANTS[:2], lambda name: None)
    for grid in tables.grids(found):
        assert {len(row) for row in grid.rows} == {len(grid.header)}


@pytest.mark.parametrize("name", impls.names())
def test_the_readme_says_how_many_lines(name: str) -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text()
    [lines] = re.findall(rf"^\| \[{name}\]\(impls/{name}\.py\) \|.*\| (\d+) \|$", text, re.M)
    assert int(lines) == code_lines(impls.source(name))
