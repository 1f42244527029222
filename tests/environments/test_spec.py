"""SPEC: what is accepted, and what is refused before anything is looked up."""

import datetime

import pytest

from bench.environments.spec import Spec, of_day, parse
from tests.commands import refusal

DAY = datetime.date(2025, 12, 1)
REVISIONS = ("main", "HEAD~3", "origin/feature-2", "feature+x", "fix#12", "v1.0^{}", "HEAD@{1}")
FLAX = ("flax", "==0.12.0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" current ", Spec("current")),
        ("@2025-12-01", of_day(DAY)),
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
    assert spec.current == (spec.text == "current")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("--upload-pack=evil", "looks like an option"),
        ("flaxx==0.12.8", "unknown package 'flaxx'; known: jax, jaxlib, equinox, flax"),
        ("flax==latest now", "not a pin"),
        ("flax==0.12.8; python_version>'3'", "not a pin"),
        ("flax[all]==0.12.8", "not a pin"),
        ("flax==0.12.8,flax @ git+file:///tmp/flax", "pins flax twice"),
        ("flax @ /nowhere", "there is no folder '/nowhere'; give a checkout of flax"),
        ("flax @ ..", "'..' is no package: it has neither pyproject.toml nor setup.py"),
        ("flax @ git+ext::sh", "is no repository; it begins with git+https://"),
        ("flaxx @ ../flax", "unknown package 'flaxx'"),
        ("flax==0.12.8,evil", "'evil' is not a pin"),
        ("@yesterday", "'yesterday' is not a day"),
        ("@2025-12-01,@2025-12-02", "two days"),
        ("@2015-01-01", "2015-01-01 is not between 2018-12-01 and today"),
    ],
)
def test_specs_that_are_refused(text: str, words: str) -> None:
    message = refusal(parse, text, "--base")
    assert message.startswith("--base")
    assert words in message
