"""Which function runs which check, in the judge's process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.check import again, contexts, contract, exchange, forms, inputs, numbers, times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bench.check.finding import Finding
    from bench.check.subject import Subject

    type Examine = Callable[[Subject], Iterable[Finding]]

FILE_CHECKS: dict[str, Examine] = {
    "contract": contract.of_file,
    "shapes": forms.shapes_of_model,
    "dtypes": forms.dtypes_of_model,
    "weights": exchange.of_model,
}
STYLE_CHECKS: dict[str, Examine] = {
    "contract": contract.of_style,
    "shapes": forms.shapes_of_step,
    "dtypes": forms.dtypes_of_step,
    "weights": exchange.of_step,
    "equality": numbers.equality,
    "gradient": numbers.gradient,
    "ten-steps": numbers.ten_steps,
    "optimiser": numbers.optimiser,
    "inputs": inputs.inputs,
    "state": inputs.state,
    "fresh": again.fresh,
    "retrace": times.retrace,
    "timed-region": times.timed_region,
    "watched": contexts.watched,
}
