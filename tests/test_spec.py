"""SPEC: what is understood, and what is refused before anything is looked up."""

from __future__ import annotations

import datetime
import time

import pytest

from bench.compare.spec import Spec, day, of_day, parse, today
from common.errors import BakeoffError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("current", Spec("current")),
        (" current ", Spec("current")),
        ("@2025-12-01", Spec("@2025-12-01", date=datetime.date(2025, 12, 1))),
        ("flax==0.12.8", Spec("flax==0.12.8", pins=(("flax", "==0.12.8"),))),
        (
            "jax==0.10.2,jaxlib==0.10.2",
            Spec("jax==0.10.2,jaxlib==0.10.2", pins=(("jax", "==0.10.2"), ("jaxlib", "==0.10.2"))),
        ),
        ("jax>=0.6,<0.7", Spec("jax>=0.6,<0.7", pins=(("jax", "<0.7,>=0.6"),))),
        ("DM_Haiku==0.0.14", Spec("DM_Haiku==0.0.14", pins=(("dm-haiku", "==0.0.14"),))),
        (
            "@2025-12-01,flax==0.12.0",
            Spec(
                "@2025-12-01,flax==0.12.0",
                date=datetime.date(2025, 12, 1),
                pins=(("flax", "==0.12.0"),),
            ),
        ),
        ("main", Spec("main", revision="main")),
        ("HEAD~3", Spec("HEAD~3", revision="HEAD~3")),
        ("v0.1.0^{}", Spec("v0.1.0^{}", revision="v0.1.0^{}")),
        ("origin/feature-2", Spec("origin/feature-2", revision="origin/feature-2")),
    ],
)
def test_specs_are_understood(text: str, expected: Spec) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--base is empty; give `current`"),
        ("--upload-pack=evil", "--base '--upload-pack=evil' looks like an option"),
        ("-r", "--base '-r' looks like an option"),
        ("main; rm -rf ~", "--base 'main; rm -rf ~' is no SPEC"),
        ("$(id)", "--base '$(id)' is no SPEC"),
        ("a..b", "--base 'a..b' is no SPEC"),
        ("main\nflax", "is no SPEC"),
        ("flaxx==0.12.8", "unknown package 'flaxx'; known: jax, jaxlib, flax"),
        ("flax==latest", "'==latest' is no version"),
        ("flax==0.12.8 --index-url=x", "is no version"),
        ("flax==0.12.8,flax==0.12.9", "pins flax twice"),
        ("flax==0.12.8,evil", "'evil' is no pin"),
        ("@yesterday", "'yesterday' is no day"),
        ("@2025-12-01,@2025-12-02", "has two days"),
        ("@2015-01-01", "2015-01-01 is not between 2018-12-01 and today"),
        ("@2999-01-01", "2999-01-01 is not between"),
        ("python==2.7", "give Python as in `python==3.12`"),
    ],
)
def test_what_is_no_spec_is_refused(text: str, message: str) -> None:
    with pytest.raises(BakeoffError) as error:
        parse(text, "--base")
    assert message in str(error.value)
    assert "\n" not in str(error.value).replace(text, "")


@pytest.mark.parametrize("name", ["origin/main", "HEAD~3", "feature+x", "fix#12", "v1.0^{}"])
def test_names_of_branches_and_tags_are_revisions(name: str) -> None:
    assert parse(name).revision == name


def test_a_spec_says_what_to_install() -> None:
    spec = parse("jax>=0.6,<0.7,python==3.12,flax==0.10.6")
    assert spec.requirements == ("jax<0.7,>=0.6", "flax==0.10.6")
    assert spec.python == "3.12"
    assert not spec.current
    assert parse("current").current


def test_a_month_is_its_first_day_or_its_last() -> None:
    assert day("2024-06", "--since") == datetime.date(2024, 6, 1)
    assert day("2024-02", "--until", last=True) == datetime.date(2024, 2, 29)
    assert day("2024-02-10", "--until", last=True) == datetime.date(2024, 2, 10)
    assert str(of_day(datetime.date(2024, 6, 1))) == "@2024-06-01"


def test_a_day_is_one_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-14")
    time.tzset()
    try:
        now = datetime.datetime.now(datetime.UTC).date()
        assert today() == now
        assert day(str(now), "--until") == now
        with pytest.raises(BakeoffError, match="is not between"):
            day(str(now + datetime.timedelta(1)), "--until")
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
