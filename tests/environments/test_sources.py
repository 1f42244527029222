"""Libraries under development: what a checkout or a revision is now, and what uv makes of it."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from bench.environments import builder as builders
from bench.environments.builder import Builder
from bench.environments.sources import PackageSource, freeze, list_commits, parse_source
from bench.environments.spec import parse
from bench.environments.uv import WHEELS, UnsolvableError, compile_pins
from common.errors import BakeoffError
from common.versions import PYTHON
from tests.environments.repository import git, repository


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose `optax` is a repository of three commits, the second of which is broken."""
    repository(tmp_path / "optax", "optax", ["1", "broken", "3"])
    return tmp_path


def state(text: str, kept: Path, notes: list[str] | None = None) -> PackageSource:
    notify = [] if notes is None else notes
    return freeze(parse_source("optax", text, "--new"), kept / "sources", notify.append)


def test_a_state_is_named_by_its_commit_and_what_changed_since(folder: Path) -> None:
    checkout, notes = folder / "optax", list[str]()
    first, _, last = git(checkout, "rev-list", "--reverse", "HEAD").split()

    def name(text: str) -> str:
        return state(text, folder, notes).label

    assert name(str(checkout)) == last[:10]
    assert name(f"{checkout}@{first}") == first[:10]
    assert name(f"git+file://{checkout}@main") == last[:10]
    assert [note.split()[0] for note in notes] == ["fetching"]
    before = git(checkout, "status", "--porcelain")
    (checkout / "table.md").write_text("")
    assert name(str(checkout)) == last[:10], "no part of the package"
    (checkout / "optax.py").write_text("VERSION = 'changed'\n")
    (checkout / "new.py").write_text("")
    changed = name(str(checkout))
    assert changed.startswith(f"{last[:10]}.changed.")
    assert state(str(checkout), folder) == state(str(checkout), folder)
    (checkout / "new.py").unlink()
    assert name(str(checkout)) not in (changed, last[:10])
    git(checkout, "checkout", "-q", ".")
    (checkout / "table.md").unlink()
    assert git(checkout, "status", "--porcelain") == before
    assert name(str(checkout)) == last[:10]
    git(checkout, "branch", "-m", "moved")
    with pytest.raises(BakeoffError, match="there is no revision 'main' there"):
        name(f"git+file://{checkout}@main")
    assert name(f"git+file://{checkout}@{first}") == first[:10]


def test_what_is_not_there_is_one_line(folder: Path) -> None:
    with pytest.raises(BakeoffError, match=r"file:///nowhere cannot be fetched \("):
        state("git+file:///nowhere@main", folder)
    (folder / "plain").mkdir()
    (folder / "plain" / "setup.py").write_text("")
    with pytest.raises(BakeoffError, match="is no repository of git"):
        state(f"{folder}/plain@main", folder)


def test_uv_builds_a_state_and_says_in_one_line_what_it_cannot_build(folder: Path) -> None:
    def pins(text: str, package: str = "optax") -> tuple[str, ...]:
        options = (*WHEELS, f"--no-binary={package}")
        return compile_pins([f"{package}{state(text, folder)}"], PYTHON, options=options)

    checkout = folder / "optax"
    [pin] = pins(f"{checkout}")
    assert pin.endswith(f"@{git(checkout, 'rev-parse', 'HEAD')}")
    (checkout / "optax.py").write_text("VERSION = 'changed'\n")
    [changed] = pins(f"{checkout}")
    assert changed != pin
    with pytest.raises(UnsolvableError, match="Failed to build `optax @ git"):
        pins(f"{checkout}@HEAD~1")
    with pytest.raises(BakeoffError, match="`optax` does not match given name `flax`"):
        pins(f"{checkout}", "flax")
    part = checkout / "part"
    repository(part, "jmp", ["5"])
    (part / ".git").rename(folder / "not-a-repository")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "with a part")
    [pin] = pins(f"{part}", "jmp")
    assert pin.endswith("#subdirectory=part")


@pytest.mark.slow
@pytest.mark.usefixtures("needs_network")
def test_an_environment_has_what_was_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builders, "ask_once", Mock())  # this optax does nothing
    builder, checkout = Builder(folder / "environments"), folder / "optax"
    made = builder.build(parse(f"optax @ {checkout}"), [PYTHON])
    version = f"3+{git(checkout, 'rev-parse', 'HEAD')[:10]}"
    assert made.info.versions == {"optax": version}
    assert made.info.pins["optax"] == version
    assert "jax" in made.info.pins
    with pytest.raises(UnsolvableError, match=r"optax@HEAD~1 cannot be built with Python "):
        builder.build(parse(f"optax @ {checkout}@HEAD~1"), [PYTHON])


def test_the_commits_between_two_states_are_in_their_order(folder: Path) -> None:
    checkout = folder / "optax"
    commits = git(checkout, "rev-list", "--reverse", "HEAD").split()
    first, last = (state(f"{checkout}@{commit}", folder) for commit in commits[::2])
    assert list_commits(first, last) == commits[1:2]
    assert list_commits(last, first) == commits[1:2]
    assert list_commits(first, first) == []
    (checkout / "optax.py").write_text("VERSION = 'changed'\n")
    now = state(f"{checkout}", folder)
    assert list_commits(first, now) == commits[1:]
    assert list_commits(now, first) == commits[:0:-1]
    with pytest.raises(BakeoffError, match="not states of one repo"):
        list_commits(first, state(f"git+file://{checkout}", folder))


def test_shallow_checkouts_worktrees_and_submodules_are_sources_too(folder: Path) -> None:
    url, shallow, tree = f"file://{folder}/optax", folder / "shallow", folder / "tree"
    git(folder, "clone", "-q", "--depth", "1", url, str(shallow))
    git(folder / "optax", "worktree", "add", "-q", str(tree), "HEAD")
    outer = folder / "outer"
    repository(outer, "jmp", ["1"])
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", url, "sub")
    for place in (shallow, tree, outer / "sub"):
        first = state(str(place), folder).label
        (place / "optax.py").write_text(f"VERSION = '{place.name}'\n")
        assert state(str(place), folder).label.startswith(f"{first}.changed.")
        git(place, "commit", "-qam", "changed")
        later = state(str(place), folder)
        assert later.revision == git(place, "rev-parse", "HEAD")
        [pin] = compile_pins([f"optax{later}"], PYTHON, options=(*WHEELS, "--no-binary=optax"))
        assert pin.endswith(later.revision)
