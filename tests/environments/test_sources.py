"""Libraries under development: what a checkout or a revision is now, and what uv makes of it."""

import os
import re
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from pytest_benchmark.utils import get_commit_info

from bench.environments import builder as builders
from bench.environments.builder import Builder
from bench.environments.git import describe_commit, find_commit
from bench.environments.sources import (
    PackageSource,
    freeze,
    list_commits,
    parse_source,
)
from bench.environments.spec import parse
from bench.environments.uv import WHEELS, UnsolvableError, compile_pins, run_uv
from bench.streams import read_arguments, say
from bench.worker.settings import ROOT
from common.errors import BakeoffError, mask_secrets
from common.versions import PYTHON
from tests.commands import Bakeoff, refusal
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
    with pytest.raises(BakeoffError, match="is no repository of git: it has no 'main'"):
        state(f"{folder}/plain@main", folder)
    for no_commit in ("^HEAD", "HEAD~9", "-x"):
        with pytest.raises(
            BakeoffError, match=f"there is no revision '{re.escape(no_commit)}' there"
        ):
            state(f"{folder}/optax@{no_commit}", folder)
    part = folder / "optax" / "part"
    part.mkdir()
    (part / "setup.py").write_text("")
    with pytest.raises(BakeoffError, match="'HEAD' has no folder 'part/'"):
        state(f"{part}@HEAD", folder)


def test_uv_builds_a_state_and_says_in_one_line_what_it_cannot_build(folder: Path) -> None:
    def pins(text: str, package: str = "optax") -> tuple[str, ...]:
        options = (*WHEELS, f"--no-binary={package}")
        return compile_pins([f"{package}{state(text, folder)}"], PYTHON, options=options)

    checkout = folder / "optax"
    [pin] = pins(f"{checkout}")
    assert pin == f"optax{state(str(checkout), folder)}"
    (checkout / "optax.py").write_text("VERSION = 'changed'\n")
    [changed] = pins(f"{checkout}")
    assert changed != pin
    with pytest.raises(UnsolvableError, match="Failed to build `optax @ file"):
        pins(f"{checkout}@HEAD~1")
    with pytest.raises(BakeoffError, match="`optax` does not match given name `flax`"):
        pins(f"{checkout}", "flax")
    part = checkout / "part"
    repository(part, "jmp", ["5"])
    (part / ".git").rename(folder / "not-a-repository")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "with a part")
    [pin] = pins(f"{part}", "jmp")
    assert read(state(str(part), folder), "jmp.py") == "VERSION = '5'\n"
    assert pin == f"jmp{state(str(part), folder)}"


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
        assert later.commit == git(place, "rev-parse", "HEAD")
        assert "@" not in later.label
        [pin] = compile_pins([f"optax{later}"], PYTHON, options=(*WHEELS, "--no-binary=optax"))
        assert pin == f"optax{later}"


def read(source: PackageSource, name: str = "optax.py") -> str:
    """Return a file of a frozen folder."""
    with tarfile.open(source.location) as archive:
        file = archive.extractfile(f"source/{name}")
        assert file is not None
        return file.read().decode()


def test_a_submodule_is_part_of_the_state(folder: Path) -> None:
    outer = folder / "outer"
    repository(outer, "jmp", ["1"])
    allowed = ("-c", "protocol.file.allow=always")
    git(outer, *allowed, "submodule", "add", "-q", f"file://{folder}/optax", "sub")
    git(outer, "commit", "-qam", "with a submodule")
    clean = state(str(outer), folder)
    assert read(clean, "sub/optax.py") == "VERSION = '3'\n"
    (outer / "sub" / "optax.py").write_text("VERSION = 'changed'\n")
    (outer / "sub" / "new.py").write_text("")
    changed = state(str(outer), folder)
    assert changed.label.startswith(f"{clean.label}.changed.")
    assert read(changed, "sub/optax.py") == "VERSION = 'changed'\n"
    assert read(changed, "sub/new.py") == ""
    copy = folder / "without"
    git(folder, "clone", "-q", str(outer), str(copy))
    with pytest.raises(KeyError, match=r"sub/optax\.py"):  # which is not checked out there
        read(state(f"{copy}@{clean.commit}", folder / "elsewhere"), "sub/optax.py")


def test_a_hook_can_ask_and_finds_the_repository_as_it_was(folder: Path) -> None:
    """Git tells a hook its index and repository by variables, which no other repository may get.

    Index, objects and status are as they were, and the state has what is not staged, too.
    """
    checkout, kept = folder / "optax", folder / "kept"
    kept.mkdir()
    [elsewhere] = repository(folder / "elsewhere", "optax", ["9"])
    git(checkout, "worktree", "add", "-q", "-b", "other", str(folder / "tree"))
    for place in (checkout, folder / "tree"):
        (place / "optax.py").write_text("VERSION = 'staged'\n")
        git(place, "add", "optax.py")
        (place / "backend.py").write_text("changed = 'not staged'\n")
        program = (
            "import sys; from pathlib import Path\n"
            "from bench.environments.sources import *\n"
            f"for text in ('.', '.@HEAD', '../elsewhere', 'git+file://{folder}/elsewhere'):\n"
            f"  s = freeze(parse_source('optax', text, '--new'), Path({str(kept)!r}), list)\n"
            "  print(s.label)\n"
        )
        (folder / "ask.py").write_text(program)
        objects = Path(git(place, "rev-parse", "--path-format=absolute", "--git-common-dir"))
        index = Path(git(place, "rev-parse", "--path-format=absolute", "--git-path", "index"))
        hook = objects / "hooks" / "pre-commit"
        hook.parent.mkdir(exist_ok=True)
        ask = f"PYTHONPATH={ROOT} {sys.executable} {folder}/ask.py > {folder}/labels 2>&1"
        hook.write_text(
            f"#!/bin/sh\ncp {index} {folder}/before; find {objects}/objects > {folder}/had\n"
            f"{ask}\ncmp {index} {folder}/before || exit 1\n"
            f"find {objects}/objects | cmp - {folder}/had\n"
        )
        hook.chmod(0o755)
        head = git(place, "rev-parse", "HEAD")[:10]
        git(place, "commit", "-qm", "by a hook")
        hook.unlink()
        labels = (folder / "labels").read_text().split("\n")
        assert labels[0].startswith(f"{head}.changed."), labels
        assert labels[1] == head
        assert labels[2:4] == [elsewhere[:10]] * 2
        assert git(place, "status", "--porcelain") == "M backend.py"
        assert git(place, "show", "HEAD:backend.py") != (place / "backend.py").read_text()
        assert "missing" not in git(place, "fsck")
        assert "not staged" in read(state(str(place), folder), "backend.py")
        git(place, "checkout", "-q", ".")


def amend_and_prune(checkout: Path) -> None:
    (checkout / "optax.py").write_text("VERSION = '4'\n")
    git(checkout, "commit", "-qa", "--amend", "-m", "again")
    git(checkout, "reflog", "expire", "--expire=now", "--all")
    git(checkout, "gc", "-q", "--prune=now")


def clone_anew(checkout: Path) -> None:
    shutil.rmtree(checkout)
    repository(checkout, "optax", ["7", "8"])


def unshallow(checkout: Path) -> None:
    git(checkout, "fetch", "-q", "--unshallow")


@pytest.mark.parametrize("change", [amend_and_prune, clone_anew, unshallow])
@pytest.mark.parametrize("remote", [False, True])
def test_what_is_kept_serves_when_the_repository_is_another_one(
    folder: Path, change: Callable[[Path], None], *, remote: bool
) -> None:
    checkout = folder / "place"
    depth = ("--depth", "1") if change is unshallow else ()
    git(folder, "clone", "-q", *depth, f"file://{folder}/optax", str(checkout))
    text = f"git+file://{checkout}" if remote else str(checkout)
    first = state(text, folder)
    change(checkout)
    later = state(text, folder)
    assert later.commit == git(checkout, "rev-parse", "HEAD")
    old = git(checkout, "rev-list", "--max-parents=0", "HEAD")
    oldest = state(f"{text}@{old}", folder)
    commits = git(checkout, "rev-list", "--reverse", "HEAD").split()
    assert list_commits(oldest, later) == commits[1:-1]
    for source in (first, later, oldest):
        [pin] = compile_pins([f"optax{source}"], PYTHON, options=(*WHEELS, "--no-binary=optax"))
        assert pin == f"optax{source}"


def test_a_copy_that_is_damaged_is_made_anew(folder: Path) -> None:
    text = f"git+file://{folder}/optax@main"
    first = state(text, folder)
    shutil.rmtree(Path(first.repository) / "refs")
    shutil.rmtree(Path(first.repository) / "objects")
    assert state(text, folder) == first
    assert "file:" not in (Path(first.repository) / "config").read_text()


def test_a_folder_without_git_is_taken_as_it_is(folder: Path) -> None:
    plain = folder / "plain"
    shutil.copytree(folder / "optax", plain)
    shutil.rmtree(plain / ".git")
    (plain / ".gitignore").write_text("*.py\n")
    first = state(str(plain), folder)
    assert (len(first.label), first.commit) == (10, "")
    assert read(first) == (plain / "optax.py").read_text()
    (plain / ".bakeoff").mkdir()
    (plain / ".bakeoff" / "a.journal").write_text("of a run there")
    (plain / "__pycache__").mkdir()
    (plain / "__pycache__" / "optax.pyc").write_text("made by an import")
    assert state(str(plain), folder) == first
    (plain / "optax.py").write_text("VERSION = 'changed'\n")
    changed = state(str(plain), folder)
    assert changed.label != first.label
    [pin] = compile_pins([f"optax{changed}"], PYTHON, options=(*WHEELS, "--no-binary=optax"))
    assert pin == f"optax{changed}"
    with pytest.raises(BakeoffError, match="not states of one repository"):
        list_commits(first, changed)
    inside = folder / "optax" / "vendored"  # which the repository around it does not know
    shutil.copytree(plain, inside)
    assert state(str(inside), folder).label == state(str(inside), folder).label
    assert state(str(inside), folder).commit == ""
    git(folder / "optax", "add", "-f", "vendored/optax.py")
    git(folder / "optax", "commit", "-qm", "known in part")
    assert state(str(inside), folder).commit == ""
    git(folder / "optax", "add", "-Af", "vendored")
    assert state(str(inside), folder).commit == ""
    git(folder / "optax", "commit", "-qm", "known")
    assert state(str(inside), folder).commit == git(folder / "optax", "rev-parse", "HEAD")


@pytest.mark.usefixtures("needs_network")
@pytest.mark.parametrize(("tag", "version"), [("v1.4.0", "1.4.1.dev1"), ("", "0.1.dev1")])
def test_a_version_that_a_build_reads_from_tags_is_there(
    folder: Path, tag: str, version: str
) -> None:
    checkout = folder / "tagged"
    checkout.mkdir()
    git(checkout, "init", "-q")
    (checkout / "pyproject.toml").write_text(
        "[build-system]\nrequires = ['hatchling', 'hatch-vcs']\nbuild-backend = 'hatchling.build'\n"
        "[project]\nname = 'jmp'\ndynamic = ['version']\n[tool.hatch.version]\nsource = 'vcs'\n"
    )
    (checkout / "jmp.py").write_text("")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "one")
    if tag:
        git(checkout, "tag", tag)
        git(checkout, "commit", "-qm", "two", "--allow-empty")
    options = (*WHEELS, "--no-binary=jmp", "--no-deps")
    run_uv(
        "pip",
        "install",
        "--quiet",
        *options,
        "--target",
        str(folder / "there"),
        f"jmp{state(str(checkout), folder)}",
    )
    [about] = (folder / "there").glob("jmp-*.dist-info")
    assert about.name.startswith(f"jmp-{version}+g{git(checkout, 'rev-parse', 'HEAD')[:7]}")


def test_what_git_would_change_is_as_it_is(folder: Path) -> None:
    """Neither attributes nor filters: all states have the files as they are."""
    checkout = folder / "optax"
    git(checkout, "config", "filter.loud.smudge", f"touch {folder}/smudged; cat")
    git(checkout, "config", "filter.loud.clean", f"touch {folder}/cleaned; cat")
    (checkout / "backend.py").chmod(0o755)
    (checkout / "link.py").symlink_to("optax.py")
    (checkout / ".gitattributes").write_text("optax.py export-ignore filter=loud\n")
    git(checkout, "add", "-A")
    git(checkout, "commit", "-qm", "attributes")
    for name in ("smudged", "cleaned"):
        (folder / name).unlink(missing_ok=True)
    for text in (str(checkout), f"{checkout}@HEAD"):
        clean = state(text, folder / text[-4:])
        assert (read(clean), read(clean, "link.py")) == ("VERSION = '3'\n",) * 2
        with tarfile.open(clean.location) as archive:
            assert archive.getmember("source/backend.py").mode & 0o100
            assert archive.getmember("source/link.py").issym()
        assert clean.label == clean.commit[:10]
    (checkout / "link.py").unlink()
    (checkout / "link.py").symlink_to(folder / "out.py")
    (folder / "out.py").write_text("out")
    assert read(state(str(checkout), folder), "link.py") == "out", "it leads out of the checkout"
    assert not list(folder.glob("*ed"))


def test_a_link_out_of_a_checkout_is_copied_within_a_limit_and_no_device_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = folder / "optax"
    link, gone = checkout / "link.py", checkout / "gone.py"
    gone.symlink_to("/nowhere/at-all.py")
    assert read(state(str(checkout), folder)) == "VERSION = '3'\n", "a dangling link is left out"
    for target, kind in {
        "/dev/zero": "is a character device, not a regular file",
        str(folder): "is a directory",
    }.items():
        link.symlink_to(target)
        assert refusal(state, str(checkout), folder) == (
            f"cannot copy {link} (a link to {target}): {kind}; make it a file that can be read, or "
            "remove it"
        )
        link.unlink()
    monkeypatch.setattr("bench.environments.sources.MOST_COPIED", 2 << 20)
    (checkout / "half.py").write_bytes(bytes(1 << 20))
    link.symlink_to(folder / "large.py")
    (folder / "large.py").write_bytes(bytes((1 << 20) + 1))
    assert refusal(state, str(checkout), folder) == (
        f"{checkout} has too much to copy: with {link}, it is over 2 MiB; "
        "move large files out of it"
    )


def test_worktrees_of_one_repository_have_one_history(folder: Path) -> None:
    checkout, tree = folder / "optax", folder / "tree"
    first, *between = git(checkout, "rev-list", "--reverse", "HEAD").split()
    git(checkout, "worktree", "add", "-q", str(tree), first)
    old, new = state(str(tree), folder), state(str(checkout), folder)
    assert list_commits(old, new) == between[:1]


def test_a_checkout_without_modules_and_one_without_commits(folder: Path) -> None:
    empty = folder / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    (empty / "setup.py").write_text("")
    assert len(state(str(empty), folder).label) == 10
    (empty / "setup.py").unlink()
    (empty / "pyproject.toml").write_text("")
    git(empty, "add", "pyproject.toml")
    git(empty, "commit", "-qm", "no module")
    (empty / "pyproject.toml").write_text("[project]\n")
    assert state(str(empty), folder).is_changed


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_checkout_of_another_user_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    for path in (folder / "optax", folder / "optax" / ".git"):
        os.chown(path, 12345, -1)
    with pytest.raises(BakeoffError, match=r"is another user's, .* allow that by `git config "):
        state(f"{folder}/optax", folder)


def test_places_and_revisions_may_have_an_at(folder: Path) -> None:
    checkout = folder / "a@b"
    shutil.copytree(folder / "optax", checkout)
    git(checkout, "tag", "rel@1.0", "HEAD~2")
    head, tagged = git(checkout, "rev-parse", "HEAD"), git(checkout, "rev-parse", "rel@1.0")
    for text, commit in {
        f"{checkout}": head,
        f"{checkout}@HEAD@{{0}}": head,
        f"{checkout}@rel@1.0": tagged,
        f"git+file://{checkout}@rel@1.0": tagged,
        f"git+{checkout.as_uri()}": head,
    }.items():
        assert state(text, folder).commit == commit, text
    for text in (f"{checkout}@", f"{folder}/none@x"):
        with pytest.raises(BakeoffError, match="there is no folder"):
            state(text, folder)


def test_a_damaged_copy_in_another_repository_touches_nothing_of_that(folder: Path) -> None:
    """Git would look for a repository in the folders above, and fetch into that."""
    outer = folder / "outer"
    repository(outer, "jmp", ["1"])
    git(outer, "tag", "precious")
    git(outer, "checkout", "-q", "--detach")
    text = f"git+file://{folder}/optax@main"
    first = state(text, outer)
    shutil.rmtree(Path(first.repository) / "refs")
    before = git(outer, "for-each-ref")
    assert state(text, outer) == first
    assert git(outer, "for-each-ref") == before
    assert state(f"{folder}/optax", outer).commit == first.commit


def test_what_a_file_says_of_the_commit_does_not_renew_the_index(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, index = folder / "optax", folder / "optax" / ".git" / "index"
    os.utime(checkout / "optax.py", (1, 1))
    before = index.read_bytes()
    monkeypatch.chdir(checkout)
    about, theirs = describe_commit(), get_commit_info()
    assert about == theirs
    assert (about["id"], about["dirty"]) == (git(checkout, "rev-parse", "HEAD"), False)
    assert index.read_bytes() != before, "theirs has"
    os.utime(checkout / "optax.py", (1, 1))
    before = index.read_bytes()
    (checkout / "optax.py").write_text("changed")
    assert describe_commit()["dirty"]
    assert index.read_bytes() == before
    monkeypatch.chdir(folder)
    assert describe_commit()["id"] == "unversioned"


def test_a_copy_of_this_project_in_another_repository_has_no_revisions(folder: Path) -> None:
    copy = folder / "optax" / "project"
    copy.mkdir()
    with pytest.raises(BakeoffError, match="no revision 'HEAD' of this project"):
        find_commit("HEAD", copy)
    with pytest.raises(BakeoffError, match="no revision 'HEAD' of this project"):
        find_commit("HEAD", folder)


def test_secrets_of_addresses_are_masked(folder: Path) -> None:
    for shown, text in {
        "https://***@host/a/b@main": "https://user:TOKEN@host/a/b@main",
        "https://***@host/x": "https://TOKEN@host/x",
        "ssh://git@host/x": "ssh://git@host/x",
        "ssh://git:***@host/x": "ssh://git:TOKEN@host/x",
        "`a @ git+https://***@h/x, b @ https://h/y`": "`a @ git+https://T@h/x, b @ https://h/y`",
        "https://***@h/x@main": "https://u:TO/KEN@h/x@main",
        "'https://***@h/x'": "'https://u:TO KEN@h/x'",
        "https://h:8080/x@main": "https://h:8080/x@main",
        "https://h/x?a=1&private_token=***&b=2": "https://h/x?a=1&private_token=TOKEN&b=2",
        "https://h/x?pat=***&path=a": "https://h/x?pat=TOKEN&path=a",
        "https://h/x?X-Amz-Signature=***": "https://h/x?X-Amz-Signature=TOKEN",
        "https://h/x;Password=*** 'b'": "https://h/x;Password=TO;KEN 'b'",
        "git+https://h/x#***": "git+https://h/x#TOKEN",
        "`@ git+https://…/flax@branch`": "`@ git+https://…/flax@branch`",
    }.items():
        assert mask_secrets(text) == shown
    spec = parse("optax @ git+https://user:TOKEN@localhost:1/optax.git@main")
    notes: list[str] = []
    with pytest.raises(BakeoffError) as error:
        Builder(folder / "environments", notes.append).build(spec)
    shown = " ".join([str(spec), str(spec.replace_pins({})), str(error.value), *notes])
    assert "TOKEN" not in shown
    assert "https://***@localhost:1/optax.git" in shown


def test_no_secret_of_a_command_line_is_kept_or_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bakeoff: Bakeoff
) -> None:
    base = "optax @ git+https://user:TOKEN@localhost:1/optax.git@main"
    words = ["ab", "--base", base, "--new", "current", "--budget", "20"]
    monkeypatch.setattr(sys, "argv", ["bakeoff", *words])
    assert read_arguments()[2] == base.replace("user:TOKEN", "***")
    say("https://user:TOKEN@h/x")
    assert capsys.readouterr().err == "bakeoff: https://***@h/x\n"
    done = bakeoff(*words)
    assert done.status == 2
    assert "TOKEN" not in done.out + done.err
    assert done.err.count("https://***@localhost:1/optax.git") == 2, "progress, and the error"
