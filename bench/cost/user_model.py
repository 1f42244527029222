"""A model of a user's: what a function of a Python file returns."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import BakeoffError, words_of

if TYPE_CHECKING:
    from bench.cost.models import ModelSteps


TREE = "flax_linen"
"""Whose styles a tree of arrays is measured in: they know nothing of what it is a tree of."""


def is_function(given: str) -> bool:
    """Tell whether a text is `FILE.py:FUNCTION`."""
    return given.rpartition(":")[0].endswith(".py")


def model(given: str) -> Any:
    """Return what a function returns that is given as `FILE.py:FUNCTION`.

    Its file can import its neighbours, as a script can. What it prints goes to standard error.

    Raises:
        BakeoffError: the file is none, or the function raises.
    """
    file, _, function = given.rpartition(":")
    path = Path(file)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
            return getattr(module, function)()
    except (Exception, SystemExit) as error:
        raise BakeoffError(
            f"--model {given} raised {type(error).__name__}: {words_of(error)}; give a function "
            "that takes nothing and returns a model or its parameters"
        ) from error


def steps_of(given: str) -> tuple[str, ModelSteps]:
    """Return whose styles a user's model is for, and steps of a model with its structure.

    Raises:
        BakeoffError: the file is none, or the function raises or returns no arrays.
    """
    import jax

    from bench.cost.models import is_parameter

    found = model(given)
    if isinstance(found, tuple) and found and library_of(found[0]) != TREE:
        found = found[0]  # a model with its state or optimiser
    if not any(map(is_parameter, jax.tree.leaves(found))):
        raise BakeoffError(f"--model {given} has no arrays; give what holds parameters")
    library = library_of(found)
    return library, importlib.import_module(f"bench.cost.models.{library}").like(found)


def library_of(model: Any) -> str:
    """Return whose styles a model is for; a tree of arrays is for Linen's."""
    for package, library in (("equinox", "equinox"), ("flax.nnx", "flax_nnx")):
        found = sys.modules.get(package)
        if found is not None and isinstance(model, found.Module):
            return library
    return TREE
