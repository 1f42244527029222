import math
from typing import Any

import pytest

from common.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    check_rate,
    check_size,
)
from common.contract import flat
from common.equality import random_weights
from common.errors import BakeoffError, unknown


@pytest.mark.parametrize("value", [0, -1, 11, True, 2.0, math.nan, "3", None])
def test_a_size_that_is_refused(value: Any) -> None:
    with pytest.raises(BakeoffError) as caught:
        check_size("chunk", value, most=10)
    assert str(caught.value) == (
        f"chunk is {value!r}; it must be a whole number from 1 to 10: give another one"
    )
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("value", [1, 10])
def test_a_size_at_its_limits_is_accepted(value: int) -> None:
    check_size("chunk", value, most=10)


def test_zero_is_a_size_only_where_it_means_something() -> None:
    check_size("epochs", 0, least=0)


@pytest.mark.parametrize("value", [0.0, -0.001, math.nan, math.inf, -math.inf])
def test_a_rate_that_is_refused(value: float) -> None:
    with pytest.raises(BakeoffError) as caught:
        check_rate("learning rate", value)
    assert str(caught.value) == (
        f"learning rate is {value!r}; it must be a positive number: give another one"
    )


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_a_rate_that_may_be_zero_but_not_this(value: float) -> None:
    check_rate("weight decay", 0.0, zero=True)
    with pytest.raises(BakeoffError) as caught:
        check_rate("weight decay", value, zero=True)
    assert str(caught.value) == (
        f"weight decay is {value!r}; it must be zero or a positive number: give another one"
    )


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ModelConfig(0), "vocabulary size is 0"),
        (lambda: ModelConfig(5, width=0), "width is 0"),
        (lambda: ModelConfig(5, width=(1 << 14) + 1), "width is 16385"),
        (lambda: ModelConfig(5, layers=0), "layers is 0"),
        (lambda: ModelConfig(5, layers=257), "layers is 257"),
        (lambda: DataConfig(chunk=0), "chunk is 0"),
        (lambda: DataConfig(batch=-1), "batch is -1"),
        (lambda: DataConfig(epoch_chars=1), "epoch characters is 1"),
        (lambda: OptimiserConfig(learning_rate=0), "learning rate is 0"),
        (lambda: OptimiserConfig(weight_decay=-1), "weight decay is -1"),
    ],
)
def test_a_configuration_checks_itself(make: Any, named: str) -> None:
    with pytest.raises(BakeoffError, match=f"^{named}; it must be "):
        make()


def test_in_features_are_the_hidden_state_and_the_layer_below() -> None:
    assert ModelConfig(5, width=8, layers=3).in_features == (13, 16, 16)
    assert ModelConfig(5, width=8, layers=1).in_features == (13,)


def test_an_unknown_name_is_told_the_known_ones() -> None:
    error = unknown("entrant", "flex_linen", ["haiku", "equinox"])
    assert str(error) == ("unknown entrant 'flex_linen'; known: haiku, equinox; choose one of them")


def test_a_model_that_is_too_large_is_refused() -> None:
    with pytest.raises(BakeoffError) as caught:
        ModelConfig(5, width=1 << 14, layers=2)
    assert str(caught.value) == (
        "width 16384 and layers 2 make 805502981 parameters; at most 268435456 are allowed: "
        "give a smaller width or fewer layers"
    )


def test_parameters_are_those_of_the_weights() -> None:
    config = ModelConfig(5, width=8, layers=3)
    arrays = [array for dense in flat(random_weights(config)) for array in dense]
    assert config.parameters == sum(array.size for array in arrays)
