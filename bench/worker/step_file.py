"""A user's own training step: a Python file with a model, a batch and a loss.

The file is a workload of its name. Its model is one library's, each style of which trains it. A
file may have a whole `make_step()` as well, or in place of a model.
"""

from __future__ import annotations

import gc
import inspect
import math
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import impls
from bench import own_steps
from bench.cells import BASELINE, FLAT, WHOLE, Arm
from common.config import Device
from common.errors import BakeoffError
from common.library import is_pair
from impls.libraries import list_libraries, load_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from common.contract import Hidden, TrainStep
    from common.library import AtRest, Library
    from common.steps import Use

TAKES = ("state", "key")
"""Arguments that a file's loss may have beside the model and the batch: the state that its last
call returned, and a new key."""
KEPT_PAIRS = 20
"""Pairs of calls before a step counts as memoised: the chance of a false alarm is one in a
million."""
COPIES = 3
"""Copies of a model and its optimiser's state while a step runs: the first, given, and returned."""
MEMORY, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
"""Linux's table of the memory, in KiB, and the bytes that a container may have."""
UNTRACEABLE = set[tuple[Path, str]]()
"""Files, and their functions whose results have to be made really."""
STATE_FORM = "`loss(model, batch, *, state)`, which returns `(loss, state)`"
"""Form of a loss with a state, as messages recommend it."""


class StepFile:
    """The imported file; each mistake in it is a BakeoffError that names the file."""

    is_real = True
    """Whether steps get the model's own arrays, and have to fit into memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self.read_module()
        self.whole = hasattr(self.module, "make_step")
        self.has_model = hasattr(self.module, "make_model")
        model, whole = ("make_model", "loss"), ("make_step",)
        for name in ("make_batch", *model * self.has_model, *whole * self.whole):
            if not callable(getattr(self.module, name, None)):
                raise BakeoffError(f"{self.path.name} has no function {name}; write one")
        self.entrant = BASELINE.entrant
        """Name of the model's library; plain JAX for a file without a model."""
        self.takes: list[str] = []
        if not all(callable(getattr(self.optimiser, n, None)) for n in ("init", "update")):
            raise self.problem(
                "optimiser",
                f"optimiser is {describe_type(self.optimiser)}; give what a function of optax "
                "returns: optimiser = optax.adam(1e-3)",
            )
        if not self.is_real:
            self.batch_outline = self.trace("make_batch", self.read_batch)
            """Types and shapes of the batch."""
        if self.has_model:
            arguments = inspect.signature(self.module.loss).parameters
            self.takes = [name for name in TAKES if name in arguments]
            self.entrant, self.library = self.find_library()

    def read_module(self) -> None:
        """Import the file, unless it is, and read its optimiser."""
        self.module = own_steps.import_step(self.path)
        given = [getattr(self.module, n, None) for n in ("optimiser", "optimizer")]
        self.optimiser = next((made for made in given if made is not None), optax.adamw(1e-3))

    def problem(self, function: str, text: str) -> BakeoffError:
        """Return an error that names the file, and the line where one of its functions begins.

        A function that another file defines has no line here.
        """
        defined: Any = getattr(self.module, function, None)
        code = getattr(inspect.unwrap(defined), "__code__", None)
        line = f":{code.co_firstlineno}" if code and code.co_filename == str(self.path) else ""
        return BakeoffError(f"{self.path.name}{line}: {text}")

    def split_state(self, library: Library, made: Any) -> tuple[Any, Any]:
        """Split a result of `make_model` into the model and its state, empty if it has none."""
        may_be_state = isinstance(made, tuple) and len(made) == 2 and not is_pair(made)
        if may_be_state and ("state" in self.takes or not library.is_model(made)):
            return made
        return library.split_state(made) if library.is_model(made) else (made, ())

    def find_library(self) -> tuple[str, Library]:
        """Return the name of the model's library, and its functions; take the model apart."""
        known: list[tuple[str, Library]] = []

        def take_apart() -> list[Any]:
            made = self.module.make_model()
            known[:] = [self.recognise(made)]
            library = known[0][1]
            model, state = self.split_state(library, made)
            *arrays, static = library.split(model)
            arrays = jax.tree.map(jnp.asarray, (*arrays, state))
            leaves, self.structure = jax.tree.flatten((*arrays, static))
            self.others = [None if is_array(leaf) else leaf for leaf in leaves]
            """None for each array, and all other leaves of the model."""
            return [jnp.asarray(leaf) for leaf in leaves if is_array(leaf)]

        self.outlines = self.trace("make_model", take_apart)
        return known[0]

    def trace(self, function: str, make: Callable[[], Any]) -> Any:
        """Return outlines of the arrays that `make` makes by one of the file's functions.

        They are made while tracing, in no memory; or really, if the function reads numbers, shards
        arrays, or keeps a trace's arrays where JAX does not find them: then the file and those
        beside it are imported again.
        """

        def make_and_collect() -> Any:
            made = make()
            gc.collect()  # a cycle of objects would count as a leak
            return made

        if (self.path, function) not in UNTRACEABLE:
            try:
                with jax.checking_leaks():
                    program, outlines = jax.make_jaxpr(make_and_collect, return_shape=True)()
                if not is_sharded(program.jaxpr):
                    return outlines
            except BakeoffError:
                raise
            except Exception as error:
                if type(error) is Exception:  # a leak has no class of its own
                    self.import_again()
            UNTRACEABLE.add((self.path, function))
        try:
            made = make()
        except jax.errors.UnexpectedTracerError:
            self.import_again()
            made = make()
        return jax.tree.map(make_outline, made)

    def import_again(self) -> None:
        """Import the file and those beside it anew: they keep arrays of a trace."""
        for name in own_steps.list_modules_beside(self.path) | {self.module.__name__}:
            del sys.modules[name]
        self.read_module()

    def put_together(self, arrays: Iterable[Any]) -> tuple[Any, Any, Any, Any]:
        """Return parameters, other arrays, state and static part of a model with these arrays."""
        rest = iter(arrays)
        leaves = [next(rest) if other is None else other for other in self.others]
        return jax.tree.unflatten(self.structure, leaves)

    def describe_shortage(self, backend: str) -> str:
        """Return in words how the real step does not fit into a backend's memory; or empty.

        The first arrays stay, a step is given a copy, and returns others.
        """
        if not self.has_model:
            return ""
        opt_state = jax.eval_shape(self.optimiser.init, self.put_together(self.outlines)[0])
        arrays = [*self.outlines, *jax.tree.leaves(opt_state)]
        needed = COPIES * sum(array.size * array.dtype.itemsize for array in arrays)
        devices = max(count_devices(array) for array in self.outlines or [None])
        if needed <= (memory := measure_memory(backend, devices)):
            return ""
        return (
            f"the real step of {self.path.name} does not fit into memory: the model and its "
            f"optimiser's state, {COPIES} times, have {needed / 1e9:.0f} GB, and {backend} has "
            f"{memory / 1e9:.0f} GB"
        )

    def recognise(self, made: Any) -> tuple[str, Library]:
        """Return the name and the functions of the library that a result of `make_model` is of."""
        names = []
        for name in list_libraries():
            if impls.find_declaration(name).models not in sys.modules:
                continue
            library = load_library(name)
            names.append(name)
            model, state = self.split_state(library, made)
            if library.is_model(model):
                self.require_state(bool(jax.tree.leaves(state)))
                self.require_arrays(library.split(model)[0])
                return name, library
        raise self.problem(
            "make_model",
            f"make_model returns {type(made).__name__!r}, which no library knows as its model: "
            f"give one of {', '.join(names)}; for Linen, Haiku and plain JAX, the parameters and "
            "a function that applies them",
        )

    def require_arrays(self, params: Any) -> None:
        """Raise BakeoffError unless parameters are arrays that have gradients."""
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact):
                continue
            what = f"an array of type {leaf.dtype}" if is_array(leaf) else describe_type(leaf)
            to_do = "leave it out of the parameters: it cannot be trained"
            if isinstance(leaf, float | complex):
                to_do = f"give an array: jnp.asarray({leaf!r})"
            why = f"the parameter {jax.tree_util.keystr(path)} is {what}; {to_do}"
            raise self.problem("make_model", why)

    def require_state(self, has_state: bool) -> None:
        """Raise BakeoffError unless the loss takes a state where `make_model` returns one."""
        if has_state and "state" not in self.takes:
            raise self.problem(
                "loss",
                "make_model returns a model and its state, and loss does not take that: "
                f"write {STATE_FORM}; or return only the trained part",
            )
        if "state" in self.takes and not has_state:
            raise self.problem(
                "make_model",
                "loss takes `state`, and make_model returns none: return `(model, state)`, "
                "or for Linen all variables and the function that applies them",
            )

    def make_start(self) -> tuple[Any, dict[str, Any]]:
        """Return a new model, and the carried values for its first step."""
        model, state = self.split_state(self.library, self.module.make_model())
        return model, self.carry(jax.tree.map(jnp.asarray, state))  # a Python number has no dtype

    def carry(self, state: Any) -> dict[str, Any]:
        """Return the values that the loss is first given, by name: its state, a key."""
        carried = dict.fromkeys(self.takes, state)
        if "key" in carried:
            carried["key"] = jax.random.key(0)
        return carried

    @cached_property
    def unsuited(self) -> Mapping[str, str]:
        """Style of the library that cannot train the model → why."""
        return self.library.find_unsuited(self.make_start()[0]) if self.has_model else {}

    @cached_property
    def missing(self) -> dict[str, str]:
        """Style of the library that cannot be measured here → why."""
        return {**impls.load(self.entrant).missing, **self.unsuited}

    @cached_property
    def styles(self) -> Mapping[str, Use]:
        """Ways to write the step in the model's library; over its arrays alone is the baseline."""
        styles: Any = impls.load(self.entrant).styles
        left_out = {FLAT, *self.missing}
        return {n: s for n, s in styles.items() if n not in left_out and s.rnn.serves_others}

    @property
    def arms(self) -> list[Arm]:
        """Arms that the file can be measured as."""
        arms = [Arm(self.entrant, style) for style in self.styles] if self.has_model else []
        return [*arms, *([Arm(self.name, WHOLE)] if self.whole else [])]

    def compute_loss(self, model: Any, carried: Any, batch: Any) -> tuple[Any, Any]:
        """Return the mean loss, and the carried values after it: its state, and another key."""
        if not self.takes:
            return self.module.loss(model, batch), carried
        after, given = dict(carried), dict(carried)
        if "key" in given:
            after["key"], given["key"] = jax.random.split(given["key"])
        value = self.module.loss(model, batch, **given)
        if "state" in given:
            if not isinstance(value, tuple) or len(value) != 2:
                why = f"loss takes `state` and does not return it: write {STATE_FORM}"
                raise self.problem("loss", why)
            value, after["state"] = value
        return value, after

    def make_batch(self) -> Any:
        """Return the batch on the device; raise BakeoffError where each call has another one."""
        first, second = self.read_batch(), self.read_batch()
        self.require_same("make_batch", "data", first, second)
        return jax.device_put(first)

    def read_batch(self) -> Any:
        """Return what `make_batch` makes, as arrays; raise BakeoffError for a row of batches."""
        made = self.module.make_batch()
        if isinstance(made, Iterator):
            why = f"make_batch returns {describe_type(made)}; it has to return one batch, a tree of"
            raise self.problem("make_batch", f"{why} arrays, such as next(...) of these batches")
        return jax.tree.map(jnp.asarray, made)

    def require_same(self, function: str, what: str, first: Any, second: Any) -> None:
        """Raise BakeoffError unless a function's two calls returned the same arrays, bit by bit."""
        if read_bits(first) != read_bits(second):
            why = f"returns other {what} in its second call; draw them with a fixed seed"
            raise self.problem(function, f"{function} {why}")

    def read_loss(self, function: str, loss: Any) -> float:
        """Return what a call of a step has returned as a number.

        Raises:
            BakeoffError: it is none, or something that would be computed only when it is read.
        """
        if isinstance(loss, jax.Array | np.ndarray | np.generic | int | float):
            with suppress(TypeError):
                return float(loss)
        why = f"the step returns {describe_other_loss(loss) or describe_type(loss)}"
        raise self.problem(
            function, f"{why}; it has to return the loss, one number of JAX, NumPy or Python"
        )


class CarryingStep:
    """A step whose loss takes a state or a key: each call gets those that the last one returned."""

    def __init__(self, step: TrainStep, *, flat: bool) -> None:
        """Keep carried values in the file's structure, or as a list of arrays if `flat`."""
        self.step, self.flat = step, flat
        self.carried: Any = ()

    def load(self, rest: AtRest) -> None:
        """Go on from a training at rest, with its carried values."""
        self.step.load(rest)  # type: ignore[arg-type]
        self.structure = jax.tree.structure(rest.carried)
        self.carried = jax.tree.leaves(rest.carried) if self.flat else rest.carried

    def save(self) -> AtRest:
        """Return the training at rest, with its carried values."""
        rest: Any = self.step.save()
        carried = jax.tree.unflatten(self.structure, jax.tree.leaves(self.carried))
        return rest._replace(carried=carried)

    def __call__(self, hidden: Hidden, batch: Any) -> tuple[Hidden, Any]:
        """Make one update."""
        self.carried, loss = self.step(self.carried, batch)
        return hidden, loss

    def program(self, _: Hidden, batch: Any) -> Any:
        """Return the stages of the step's program."""
        return self.step.program(self.carried, batch)


class WholeStep:
    """A step that a user's file returns: a function from a batch to its loss."""

    is_in_flight = False
    """Whether updates are still made when a call has returned."""
    losses = np.zeros(0)
    """Its first losses, as `StepArms.compute_losses` has seen them."""

    def __init__(self, file: StepFile) -> None:
        self.file = file
        self.call: Any = None

    def load(self, _: Any) -> None:
        """Make the function anew: it keeps its own state, and begins from the file's start."""
        self.call = None
        gc.collect()  # its arrays go before new ones come
        self.call = self.file.module.make_step()
        if not callable(self.call):
            why = f"make_step returns {describe_type(self.call)}; it has to return a function"
            raise self.file.problem("make_step", f"{why}, which takes a batch and returns the loss")

    def save(self) -> None:
        """Return None: its state is not known."""

    def __call__(self, hidden: Hidden, batch: Any) -> tuple[Hidden, Any]:
        """Make one update."""
        return hidden, self.call(batch)

    def program(self, hidden: Hidden, batch: Any) -> None:
        """Return None: its program is not known."""

    def require_new_losses(self, batch: Any) -> None:
        """Raise BakeoffError if the step keeps results by object, and does nothing in a block.

        Two calls with one object then have the same loss, and two with copies of it have not. A
        training that stands still has the same loss in both. Pairs come in an irregular order,
        since some steps alternate between several losses.
        """
        order = random.Random(0)  # noqa: S311 -- no secret
        for number in range(KEPT_PAIRS):
            is_again = not number or order.random() < 0.5
            pair = [batch if is_again else jax.tree.map(jnp.copy, batch) for _ in range(2)]
            first, second = (self.file.read_loss("make_step", self.call(given)) for given in pair)
            if (first == second) != is_again:
                return
        raise self.file.problem(
            "make_step",
            "the step returns a kept result when it gets the same batch object again; compute "
            "each call anew",
        )


def describe_other_loss(loss: Any) -> str:
    """Return in words what a loss returns that is not one floating-point number; or empty."""
    dtype, shape = (getattr(loss, name, None) for name in ("dtype", "shape"))
    if isinstance(loss, int | float):  # of Python's
        dtype, shape = np.result_type(loss), ()
    if shape is None or dtype is None:
        return describe_type(loss)
    if shape != ():
        return f"an array of shape {shape}"
    return "" if jnp.issubdtype(dtype, jnp.floating) else f"a number of type {dtype}"


def describe_type(value: Any) -> str:
    """Return the type of a value in words: `a tuple`."""
    name = "" if value is None else type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}" if name else "None"


def read_bits(tree: Any) -> list[tuple[Any, ...]]:
    """Return type, shape and bytes of each array of a tree; of keys of random numbers, too."""
    leaves = jax.tree.leaves(tree)
    arrays = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in leaves]
    return [(array.dtype, array.shape, np.asarray(array).tobytes()) for array in arrays]


def is_array(leaf: Any) -> bool:
    """Tell whether a leaf of a model is an array."""
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def make_outline(array: Any) -> jax.ShapeDtypeStruct:
    """Return shape and type of an array; the sharding, too, if it is on several devices."""
    outline = jax.eval_shape(lambda array: array, array)
    if len(array.sharding.device_set) == 1:
        return outline
    return jax.ShapeDtypeStruct(outline.shape, outline.dtype, sharding=array.sharding)


def is_sharded(jaxpr: Any) -> bool:
    """Tell whether a program gives an array a sharding over several devices."""
    leaves = jax.tree.leaves([[*equation.params.values()] for equation in jaxpr.eqns])
    shardings = [leaf for leaf in leaves if isinstance(leaf, jax.sharding.Sharding)]
    if any(len(sharding.device_set) > 1 for sharding in shardings):
        return True
    return any(is_sharded(leaf) for leaf in leaves if hasattr(leaf, "eqns"))


def count_devices(outline: Any) -> int:
    """Return the number of devices that an array is on."""
    sharding = getattr(outline, "sharding", None)
    return len(sharding.device_set) if sharding else 1


def measure_memory(backend: str, devices: int) -> float:
    """Return the bytes that arrays can have: on so many devices of an accelerator, or on the host.

    All of it counts, not what is left: other processes of the same measurement have some.
    """
    device = Device.parse(backend)
    stats = jax.devices(device.backend)[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] * devices
    memory = [math.inf]
    with suppress(OSError):  # workers have no package that tells it on other systems
        fields = dict(line.split(":") for line in MEMORY.read_text().splitlines())
        memory.append(1024 * float(fields["MemTotal"].split()[0]))
    with suppress(OSError, ValueError):  # without a limit, there is a word
        memory.append(int(CONTAINER.read_text()))
    return min(memory)


def is_key(array: Any) -> bool:
    """Tell whether an array has keys of random numbers."""
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
