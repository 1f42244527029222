"""Each configuration names the number that is wrong; sizes add up to those of the weights."""

import math
from dataclasses import replace
from typing import Any

import pytest

from common.config import (
    WORKLOADS,
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    check_rate,
    check_size,
)
from common.contract import flat
from common.equality import random_weights
from common.errors import BakeoffError, shortened, unknown, words_of


@pytest.mark.parametrize("value", [0, -1, 11, True, 2.0, math.nan, "3", None])
def test_a_size_that_is_refused(value: Any) -> None:
    with pytest.raises(BakeoffError) as caught:
        check_size("chunk", value, most=10)
    assert str(caught.value) == (
        f"chunk is {value!r}; it must be a whole number from 1 to 10: give another one"
    )
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("value", [0.0, -0.001, math.nan, math.inf, -math.inf])
def test_a_rate_that_is_refused(value: float) -> None:
    with pytest.raises(BakeoffError, match=rf"^rate is {value!r}; it must be a positive number: "):
        check_rate("rate", value)
    if value != 0:
        with pytest.raises(BakeoffError, match="it must be zero or a positive number"):
            check_rate("rate", value, zero=True)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (ModelConfig, {"vocab_size": 0}, "vocabulary size is 0"),
        (ModelConfig, {"vocab_size": 5, "width": (1 << 14) + 1}, "width is 16385"),
        (ModelConfig, {"vocab_size": 5, "layers": 257}, "layers is 257"),
        (
            ModelConfig,
            {"vocab_size": 5, "width": 1 << 14, "layers": 2},
            "width 16384 and layers 2 make 805502981 parameters; at most 268435456 are allowed",
        ),
        (DataConfig, {"chunk": 0}, "chunk is 0"),
        (DataConfig, {"batch": -1}, "batch is -1"),
        (DataConfig, {"epoch_chars": 1}, "epoch characters is 1"),
        (OptimiserConfig, {"learning_rate": 0}, "learning rate is 0"),
        (OptimiserConfig, {"weight_decay": -1}, "weight decay is -1"),
    ],
)
def test_a_configuration_checks_itself(kind: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(BakeoffError, match=f"^{message}"):
        kind(**given)


def test_messages_are_one_line_and_show_where_they_are_cut() -> None:
    error = unknown("entrant", "flex_linen", ["haiku", "equinox"])
    assert str(error) == "unknown entrant 'flex_linen'; known: haiku, equinox; choose one of them"
    assert words_of(ValueError("no\n luck")) == "no luck"
    assert words_of(ValueError("x" * 300)) == 200 * "x" + "…"
    assert shortened("a" * 300 + ".txt") == 60 * "a" + "…" + 16 * "a" + ".txt"


def test_sizes_are_those_of_the_weights() -> None:
    config = ModelConfig(5, width=8, layers=3)
    weights = random_weights(config)
    assert config.in_features == tuple(cell.kernel.shape[0] for cell in weights.cells)
    assert config.in_features == (13, 16, 16)
    assert config.parameters == sum(array.size for dense in flat(weights) for array in dense)


def test_any_workload_can_be_deeper() -> None:
    deeper = WORKLOADS["seedx12"]
    assert deeper == replace(WORKLOADS["seed"], name="seedx12", layers=12)
    assert "seedx12" in WORKLOADS
    assert WORKLOADS.get("seedx12") == deeper
    for name in ("seedx", "x12", "nopex12", "seedx-1", "seedx3x4"):
        assert name not in WORKLOADS
        assert WORKLOADS.get(name) is None
    for layers in (0, 257):
        with pytest.raises(BakeoffError, match=f"layers of toyx{layers} is {layers}; .* 1 to 256"):
            WORKLOADS[f"toyx{layers}"]
