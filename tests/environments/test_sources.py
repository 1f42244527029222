"""Libraries under development: what is built of a checkout or a revision, and its name."""

from pathlib import Path

import pytest

from bench.engine.process import Place
from bench.environments.builder import Builder, Environment
from bench.environments.sources import NotBuiltError, built, commits_between, source_of
from bench.environments.spec import parse
from common.errors import BakeoffError
from tests.environments.repository import git, repository


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose `optax` is a repository of three commits, the second of which is broken."""
    repository(tmp_path / "optax", "optax", ["1", "broken", "3"])
    return tmp_path


def test_a_state_is_built_once_and_named_by_its_commit(folder: Path) -> None:
    checkout, notes = folder / "optax", list[str]()
    first, _, last = git(checkout, "rev-list", "--reverse", "HEAD").split()
    kept = folder / "sources"

    def version(text: str) -> str:
        return built(source_of("optax", text, "--new"), kept, notes.append).version

    assert version(str(checkout)) == f"3+{last[:10]}"
    assert version(f"{checkout}@{first}") == f"1+{first[:10]}"
    assert version(f"git+file://{checkout}@main") == f"3+{last[:10]}"
    assert [note.split()[0] for note in notes] == ["building", "building", "fetching"]
    (checkout / "optax.py").write_text("VERSION = 'changed'\n")
    (checkout / "table.md").write_text("")
    (checkout / "new.py").write_text("")
    changed = version(str(checkout))
    assert changed.startswith(f"3+{last[:10]}.changed.")
    builder = Builder(folder / "environments")
    spec = parse(f"optax @ {checkout}")
    measured = Environment(spec, Place(), developed={"optax": changed})
    assert [*builder.changed(measured)] == []
    (checkout / "new.py").unlink()
    [warning] = builder.changed(measured)
    assert f"{checkout} has changed since it was built: {changed} was measured" in warning
    assert version(str(checkout)) not in (changed, f"3+{last[:10]}")
    git(checkout, "checkout", "-q", ".")
    assert version(str(checkout)) == f"3+{last[:10]}"
    git(checkout, "branch", "-m", "moved")
    with pytest.raises(BakeoffError, match="there is no revision 'main' there"):
        version(f"git+file://{checkout}@main")
    assert version(f"git+file://{checkout}@{first}") == f"1+{first[:10]}"


def test_what_cannot_be_built_is_one_line(folder: Path) -> None:
    def build(text: str, package: str = "optax") -> None:
        built(source_of(package, text, "--new"), folder / "sources", lambda _: None)

    with pytest.raises(NotBuiltError, match=r"optax@HEAD~1 .* cannot be built: uv build failed"):
        build(f"{folder}/optax@HEAD~1")
    with pytest.raises(NotBuiltError, match="is the package optax, not flax"):
        build(f"{folder}/optax", "flax")
    with pytest.raises(BakeoffError, match=r"file:///nowhere cannot be fetched \("):
        build("git+file:///nowhere@main")
    (folder / "plain").mkdir()
    (folder / "plain" / "setup.py").write_text("")
    with pytest.raises(BakeoffError, match="is no repository of git"):
        build(f"{folder}/plain@main")


def test_the_commits_between_two_states_are_in_their_order(folder: Path) -> None:
    commits = git(folder / "optax", "rev-list", "--reverse", "HEAD").split()
    first, last = (source_of("optax", f"{folder}/optax@{commit}", "") for commit in commits[::2])
    assert commits_between(first, last, folder) == commits[1:2]
    assert commits_between(last, first, folder) == commits[1:2]
    assert commits_between(first, first, folder) == []
    with pytest.raises(BakeoffError, match="not states of one repo"):
        commits_between(first, source_of("optax", f"git+file://{folder}/optax", ""), folder)
