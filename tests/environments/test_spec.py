"""SPEC: what is accepted, and what is refused before anything is looked up."""

from __future__ import annotations

import datetime
import time

import pytest

from bench.environments.spec import Spec, day, of_day, parse, today
from common.errors import BakeoffError

DAY = datetime.date(2025, 12, 1)
REVISIONS = ("main", "HEAD~3", "origin/feature-2", "feature+x", "fix#12", "v1.0^{}")
FLAX = ("flax", "==0.12.0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" current ", Spec("current")),
        ("python==3.12", Spec("python==3.12", pins=(("python", "==3.12"),))),
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
    assert spec.python == ("3.12" if spec.text.startswith("python") else None)
    assert "python" not in str(spec.requirements)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("--upload-pack=evil", "looks like an option"),
        ("main; rm -rf ~", "not a SPEC"),
        ("a..b", "not a SPEC"),
        ("flaxx==0.12.8", "unknown package 'flaxx'; known: jax, jaxlib, equinox, flax"),
        ("keras==3.15.1", "unknown package 'keras'"),
        ("flax==latest now", "not a pin"),
        ("flax==0.12.8; python_version>'3'", "not a pin"),
        ("flax[all]==0.12.8", "not a pin"),
        ("flax @ https://x.org/flax.whl", "not a SPEC"),
        ("flax==0.12.8,flax @ file:///tmp/flax", "not a pin"),
        ("flax==0.12.8,evil", "'evil' is not a pin"),
        ("flax==0.12.8,flax==0.12.9", "pins flax twice"),
        ("@yesterday", "'yesterday' is not a day"),
        ("@2025-12-01,@2025-12-02", "two days"),
        ("@2015-01-01", "2015-01-01 is not between 2018-12-01 and today"),
        ("python==2.7", "give Python as in `python==3.12`"),
    ],
)
def test_specs_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(BakeoffError) as error:
        parse(text, "--base")
    assert words in str(error.value)
    assert str(error.value).startswith("--base")
    assert "\n" not in str(error.value)


def test_releases_in_place_of_pins() -> None:
    spec = parse("@2025-12-01,flax==0.12.0,python==3.12")
    changed = spec.with_releases({"flax": "0.12.1", "jax": "0.8"})
    assert changed == parse("@2025-12-01,flax==0.12.1,python==3.12,jax==0.8")
    assert parse("flax>=0.12").with_releases({"flax": "0.12.1"}) == parse("flax==0.12.1")


def test_a_month_is_its_first_day_or_its_last() -> None:
    assert day("2024-06", "--since") == datetime.date(2024, 6, 1)
    assert day("2024-02", "--until", last=True) == datetime.date(2024, 2, 29)
    assert day("2024-12", "--until", last=True) == datetime.date(2024, 12, 31)
    assert day("2024-02-10", "--until", last=True) == datetime.date(2024, 2, 10)


def test_a_day_is_one_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-14")
    time.tzset()
    try:
        now = datetime.datetime.now(datetime.UTC).date()
        assert today() == day(f"{now:%Y-%m}", "--until", last=True) == now
        tomorrow = now + datetime.timedelta(1)
        assert day(str(tomorrow), "--until", released=False) == tomorrow
        with pytest.raises(BakeoffError, match="is not between"):
            day(str(tomorrow), "--until")
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
