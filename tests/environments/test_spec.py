"""SPEC: what is accepted, and what is refused before anything is looked up."""

import datetime
from pathlib import Path

import pytest

from bench.cli.parameters import parse_requirements
from bench.environments.builder import Builder
from bench.environments.spec import Spec, make_day_spec, parse, today
from tests.commands import refusal

DAY = datetime.date(2025, 12, 1)
REVISIONS = ("main", "HEAD~3", "origin/feature-2", "feature+x", "fix#12", "v1.0^{}", "HEAD@{1}")
FLAX = ("flax", "==0.12.0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" current ", Spec("current")),
        ("@2025-12-01", make_day_spec(DAY)),
        ("jax>=0.6,<0.7", Spec("jax>=0.6,<0.7", pins=(("jax", "<0.7,>=0.6"),))),
        (
            "DM_Haiku==0.0.14, jax~=0.7",
            Spec("DM_Haiku==0.0.14, jax~=0.7", pins=(("dm-haiku", "==0.0.14"), ("jax", "~=0.7"))),
        ),
        ("@2025-12-01,flax==0.12.0", Spec("@2025-12-01,flax==0.12.0", DAY, (FLAX,))),
        ("orbax-checkpoint==1", Spec("orbax-checkpoint==1", pins=(("orbax-checkpoint", "==1"),))),
        *((name, Spec(name, revision=name)) for name in REVISIONS),
    ],
)
def test_specs_that_are_accepted(text: str, expected: Spec) -> None:
    spec = parse(text)
    assert spec == expected
    assert spec.is_current == (spec.text == "current")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("--upload-pack=evil", "looks like an option"),
        ("numpyro==0.1", "unknown package 'numpyro'; did you mean numpy?"),
        ("flaks==0.12", "unknown package 'flaks'; did you mean flax?"),
        ("flax_ @ ../flax", "unknown package 'flax_'; did you mean flax?"),
        ("torch==2", "unknown package 'torch'; known: jax, jaxlib, equinox, flax"),
        ("flax==latest now", "not a pin"),
        ("flax==0.12.8; python_version>'3'", "not a pin"),
        ("flax[all]==0.12.8", "not a pin"),
        ("flax==0.12.8,flax @ git+file:///tmp/flax", "pins flax twice"),
        ("flax @ /nowhere", "there is no folder '/nowhere'; give a checkout of flax"),
        ("flax @ ..", "'..' is no package: it has neither pyproject.toml nor setup.py"),
        ("flax @ git+ext::sh", "is no repository's URL; give git+https://"),
        ("flaxx @ ../flax", "unknown package 'flaxx'"),
        ("flax==0.12.8,torch", "'torch' is not a pin"),
        ("@yesterday", "'yesterday' is not a day"),
        ("@2025-12-01,@2025-12-02", "two days"),
        ("@2015-01-01", "2015-01-01 is not between 2018-12-01 and today"),
    ],
)
def test_specs_that_are_refused(text: str, words: str) -> None:
    message = refusal(parse, text, "--base")
    assert message.startswith("--base")
    assert words in message


def test_days_ago_are_days_from_today() -> None:
    week = today() - datetime.timedelta(7)
    assert parse("@-7d") == make_day_spec(week)
    assert parse("@-7d,flax==0.12.0") == Spec(f"@{week},flax==0.12.0", week, (FLAX,))
    assert "is not between" in refusal(parse, "@-9000d", "--base")


LINES = """
--index-url https://example.org/simple
jax==0.10.2 \\
    --hash=sha256:0000
Flax >= 0.12, < 0.13  # for NNX
einops==0.8.1
optax==0.2.5 ; python_version < "3"
-e .
./wheels/mine.whl
"""
"""Lines among which are other packages, one for another Python, and one that is no requirement."""
FILES = {
    "requirements.txt": (LINES, {"jax": "==0.10.2", "flax": "<0.13,>=0.12"}),
    "pyproject.toml": (
        '[project]\ndependencies = ["jax==0.9.0", "einops", "flax"]',
        {"jax": "==0.9.0"},
    ),
    "uv.lock": (
        '[[package]]\nname = "jax"\nversion = "0.9.0"\n[[package]]\nname = "mine"\n'
        '[[package]]\nname = "einops"\nversion = "0.8.1"',
        {"jax": "==0.9.0"},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_requirements_is_a_spec(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(FILES[name][0], "utf-8")
    assert parse(str(path)) == Spec(str(path), pins=tuple(FILES[name][1].items()))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("requirements.txt", "einops==0.8.1", "has no release of jax, jaxlib"),
        ("requirements.txt", "-r base.txt\njax==0.9.0", "refers to another file; give that one"),
        ("requirements.txt", "jax==0.9.0\njax==0.9.1", "has jax==0.9.0 and ==0.9.1; give one"),
        ("requirements.txt", "flax @ https://example.org/flax.whl", "has flax from a URL"),
        ("uv.lock", "[[package", "cannot be read as requirements"),
        ("pyproject.toml", "[tool]", "cannot be read as requirements: 'project'"),
    ],
)
def test_a_file_that_is_no_spec(name: str, text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    assert words in refusal(parse, str(path), "--base")


def test_packages_to_install_as_well() -> None:
    assert parse_requirements(["einops", "chex>=0.1"]) == ("einops", "chex>=0.1")
    builder = Builder(Path(), extras=("einops",))
    for spec in ("@2025-12-01", "current"):
        assert "einops" in builder.list_requirements(parse(spec))[0]
    assert "give a package" in refusal(parse_requirements, ["--evil"])
    assert "not printable" in refusal(parse_requirements, ["x @ https://a.org\n--index-url=b"])
    assert "cannot be read" in refusal(parse, "requirments.txt", "--base")
