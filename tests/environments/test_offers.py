"""What environments offer, as their workers say, and entrants that have environments of their own.

What needs a package index skips where uv reaches none.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bench.environments.builder import Builder, python_of
from bench.environments.offers import Offer, offer, offers
from bench.environments.uv import minor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OFFER = Offer({"pure_jax": ["pure"]}, {}, ["cpu", "gpu"], {"python": "3.13.5", "jax": "0.12"}, {})
KILLER = """
import os
os._exit(3)
DISTRIBUTION = "jax"
"""


def test_the_offer_of_two_environments() -> None:
    there = {"python": "3.12.1", "jax": "0.12", "mine": "1"}
    styles = {"pure_jax": ["b"], "mine": ["a", "b"]}
    other = Offer(styles, {"another": "no"}, ["cpu"], there, {}, uncached=2, foreign=["mine"])
    found = OFFER.joined("mine", other, apart=True)
    assert found.problems == {}
    assert found.styles == {"pure_jax": ["pure"], "mine": ["a", "b"]}
    assert found.versions == {"python": "3.13.5", "jax": "0.12", "mine": "1"}
    assert (found.apart, found.lacking) == ({"mine": there}, {"mine": ["gpu"]})
    assert (found.uncached, found.foreign) == (2, ["mine"])
    assert OFFER.joined("mine", other).apart == {}
    failed = Offer({}, {"mine": "no"}, ["cpu"], there, {})
    found = OFFER.joined("mine", failed, apart=True)
    assert (found.problems, found.apart) == ({"mine": "no"}, {})


def test_styles_that_cannot_donate() -> None:
    styles, keeping = {"haiku": ["pure", "own"]}, {"haiku": {"own": "so it is"}}
    found = Offer(styles, {}, ["cpu"], {}, {}, keeping=keeping)
    assert found.kept_styles == {"haiku/own": "so it is"}
    assert found.donating.styles == {"haiku": ["pure"]}


def test_an_entrant_that_kills_its_worker_costs_itself_only(
    twin: Callable[..., str], tmp_path: Path
) -> None:
    name = twin()
    (tmp_path / "mine.py").write_text(KILLER)
    found = offer((name, "stax"), {name: str(tmp_path / "mine.py")})
    assert found.styles.keys() == {"pure_jax", "stax"}
    assert found.problems == {"mine": "import failed: worker failed (exit status 3)"}


@pytest.mark.usefixtures("needs_network")
@pytest.mark.parametrize("requirement", ["jmp==99", "a b"])
def test_an_entrant_whose_packages_cannot_be_had_costs_itself_only(
    twin: Callable[..., str], builder: Builder, requirement: str
) -> None:
    found, places = offers((twin(requirement, f"=={minor()}.*"),), {}, 120.0, builder)
    assert list(found.problems) == ["mine"]
    assert requirement in found.problems["mine"]
    assert "\n" not in found.problems["mine"]
    assert list(places) == [""]


@pytest.mark.slow
@pytest.mark.usefixtures("needs_network")
def test_a_library_is_built_and_asked_in_its_own_environment(builder: Builder) -> None:
    """The whole way with a real one: uv builds it from its lock, and a worker says what it has.

    That its styles are equal and timed there is tests/test_stacks.py's.
    """
    found, places = offers(("penzai",), {}, 120.0, builder)
    assert found.problems == {}
    assert found.styles["penzai"] == ["pure", "stateful_trainer"]
    assert found.apart["penzai"]["penzai"] == found.versions["penzai"] == "0.2.5"
    assert found.apart["penzai"]["jax"] == found.versions["jax"]
    assert found.uncached == 0
    assert places[""].command[0] == sys.executable
    path = builder.folder_of("penzai")
    assert path is not None
    assert places["penzai"].command[0] == str(python_of(path))
    assert builder.place_of("penzai") == places["penzai"], "it is not built twice"
