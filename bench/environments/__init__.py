"""Offers of environments, as their workers report them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

import impls
from bench import own_steps
from bench.engine.process import WorkerFailedError, ask_once
from bench.offer import Offer
from bench.worker.protocol import Describe
from bench.worker.settings import conditions, restore_user_settings
from common.errors import mask_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.engine.task import Environment


def ask_environment(
    environment: Environment,
    entrants: tuple[str, ...],
    outside: Mapping[str, str],
) -> Environment:
    """Return an environment with its offer, for which a worker of it is asked.

    An entrant whose import ends its worker is a problem of the offer. The workers of a user's own
    step run under the user's settings.

    Args:
        environment: The environment, as it was built.
        entrants: Names, beside the baseline; the usual ones if none.
        outside: Name → file of an entrant that is not in `impls/`, or of a user's own step.

    Raises:
        WorkerFailedError: not even the baseline can be loaded.
        msgspec.ValidationError: its answer is another revision's.
    """
    facts, interpreter, info = conditions(), environment.interpreter, environment.info
    names = list(dict.fromkeys([impls.BASELINE, *(entrants or impls.list_usual())]))
    asked = names if entrants else []  # another revision may have others
    if own_steps.find_step(outside):  # such a step is alone
        facts["environment"] = restore_user_settings(facts["environment"])
        interpreter, asked = interpreter.apply_step_settings(), names[:1]
    problems: dict[str, str] = {}
    while True:
        command = Describe(asked, dict(outside))
        try:
            offer = msgspec.convert(ask_once(command, interpreter), Offer)
            break
        except WorkerFailedError as error:
            if not error.arm:  # none was at work, or the baseline
                raise
            if asked:
                problems[names.pop(error.arm)] = f"import failed: {error}"
            asked = names  # by name from now on: so an index says which one has failed
    problems = {name: mask_secrets(why) for name, why in (offer.problems | problems).items()}
    offer = replace(offer, problems=problems, conditions=facts)
    gaps = info.gaps | offer.problems
    for entrant, styles in offer.missing.items():
        gaps |= {f"{entrant}/{style}": why for style, why in styles.items()}
    versions = offer.versions | info.versions
    info = msgspec.structs.replace(info, versions=versions, gaps=gaps)
    return replace(environment, interpreter=interpreter, info=info, offer=offer)
