"""Each configuration names the number that is wrong; sizes add up to those of the weights."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.workloads import find_workload, is_user_step
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
from tests.commands import refusal

SIZE = "it must be a whole number from 1 to 10: give another one"
REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: check_size("chunk", 11, most=10), f"chunk is 11; {SIZE}"),
    (lambda: check_size("chunk", True, most=10), f"chunk is True; {SIZE}"),
    (lambda: check_size("chunk", 2.0, most=10), f"chunk is 2.0; {SIZE}"),  # type: ignore[arg-type]
    (lambda: check_rate("rate", math.nan), "rate is nan; it must be a positive number: "),
    (lambda: check_rate("rate", math.inf), "rate is inf; it must be a positive number: "),
    (lambda: ModelConfig(0), "vocabulary size is 0"),
    (lambda: ModelConfig(5, (1 << 14) + 1), "width is 16385"),
    (lambda: ModelConfig(5, layers=257), "layers is 257"),
    (
        lambda: ModelConfig(5, 1 << 14, 2),
        "width 16384 and layers 2 make 805502981 parameters; at most 268435456 are allowed",
    ),
    (lambda: DataConfig(chunk=0), "chunk is 0"),
    (lambda: DataConfig(batch=-1), "batch is -1"),
    (lambda: DataConfig(epoch_chars=1), "epoch characters is 1"),
    (lambda: OptimiserConfig(learning_rate=0), "learning rate is 0"),
    (lambda: OptimiserConfig(weight_decay=-1), "weight decay is -1; it must be zero or a positive"),
    (lambda: WORKLOADS.get("toyx257"), "the number of layers of toyx257 is"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_a_number_that_is_refused(given: Callable[[], object], message: str) -> None:
    assert refusal(given).startswith(message)


def test_sizes_are_those_of_the_weights() -> None:
    config = ModelConfig(5, width=8, layers=3)
    layers = flat(random_weights(config))
    assert config.kernels == tuple(dense.kernel.shape for dense in layers)
    assert config.kernels == ((13, 8), (16, 8), (16, 8), (8, 5))
    assert config.parameters == sum(array.size for dense in layers for array in dense)


def test_any_workload_can_be_deeper() -> None:
    assert WORKLOADS["seedx12"] == replace(WORKLOADS["seed"], name="seedx12", layers=12)
    for name in ("seedx", "x12", "nopex12", "seedx-1", "seedx3x4"):
        assert name not in WORKLOADS
        assert WORKLOADS.get(name) is None


def test_any_other_name_is_a_users_step_of_the_size_of_seed() -> None:
    assert [*map(is_user_step, ("seed", "seedx12", "mine"))] == [False, False, True]
    assert find_workload("seedx12").layers == 12
    assert find_workload("mine").work == find_workload("seed").work
