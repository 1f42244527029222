"""What a worker says of a backend, and what is set for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from bench.worker import settings
from bench.worker.offers import details, of_accelerator, platforms

if TYPE_CHECKING:
    import pytest


def test_what_is_set_for_a_cpu() -> None:
    about = details("cpu")
    assert about["count"] >= 1
    with jax.default_matmul_precision("float32"):
        assert details("cpu")["matmul_precision"] == "float32"
    assert "preallocation" not in about, "it has none"
    assert platforms() == ["cpu"]


def test_what_is_set_for_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_accelerator({}) == {
        "preallocation": "true",
        "autotuning": "XLA's own level, anew in each process",
    }
    flags = {"XLA_FLAGS": "--xla_gpu_autotune_level=0 --x", **settings.ACCELERATED}
    assert of_accelerator(flags) == {"preallocation": "false", "autotuning": "level 0"}
    plugin = [object()]
    monkeypatch.setattr(settings, "entry_points", lambda group: plugin * (group == "jax_plugins"))
    monkeypatch.setattr(settings, "accelerated", settings.accelerated.__wrapped__)
    assert settings.environment()["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    plugin.clear()
    assert settings.accelerated() == {}
