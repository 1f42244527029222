"""Character RNN in PyTorch: an outside reference, not a JAX library, on the CPU.

`nn.RNN` adds two biases in each layer. Here the second is zero and is not trained, and weights that
come out have their sum; with both trained, each step would move the sum twice as far. Weights are
stored out by in, so kernels are transposed, and the rows for the hidden state are kept apart.

The number of threads is one setting for the whole process, and costs time where it changes: all
styles use one.
"""

# /// script
# requires-python = ">=3.12"
# dependencies = ["torch==2.15.0", "jax", "numpy", "optax"]
# tool.bakeoff.installed = "6.0 GB"
# ///

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 -- its usual name

from common.contract import Checkpoint, Dense, Model, Weights

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from common.config import ModelConfig
    from common.contract import Chunk, Hidden, State, TrainStep
    from common.steps import Configured


type Params = dict[str, torch.Tensor]


class CharRNN(nn.Module):
    """Cells bottom up, and a readout; takes one stream or a batch of them, time first."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.rnn = nn.RNN(config.vocab_size, config.width, config.layers, nonlinearity="tanh")
        self.readout = nn.Linear(config.width, config.vocab_size)
        for i in range(config.layers):
            trained, fixed = (getattr(self.rnn, f"bias_{of}_l{i}") for of in ("ih", "hh"))
            fixed.requires_grad_(False)
            with torch.no_grad():
                trained += fixed
                fixed.zero_()

    def forward(
        self, tokens: Int[Any, " time *batch"], hidden: Float[Any, " layers *batch width"]
    ) -> tuple[Float[Any, " time *batch vocab"], Float[Any, " layers *batch width"]]:
        """Return the logits of each next character, and the state after the last."""
        x = F.one_hot(tokens, self.readout.out_features).float()
        output, hidden = self.rnn(x, hidden)
        return self.readout(output), hidden


def tensor(array: Any) -> torch.Tensor:
    """Return an array as a tensor over the same memory; a tensor as it is."""
    return array if isinstance(array, torch.Tensor) else torch.from_dlpack(array)


def build(config: ModelConfig) -> Model:
    """Return the model as pure functions over its state dict."""
    with torch.device("meta"):
        rnn = CharRNN(config)

    def init(key: PRNGKeyArray) -> Params:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(np.asarray(jax.random.key_data(key)).tobytes()[-8:]))
            return dict(CharRNN(config).state_dict())

    def step(params: Params, state: State, token: Int[Array, ""]) -> Any:
        inputs = torch.tensor([int(token)]), torch.stack([tensor(row) for row in state])
        with torch.no_grad():
            logits, hidden = torch.func.functional_call(rnn, params, inputs)
        return tuple(hidden), logits[0]

    def to_weights(params: Params) -> Weights:
        def dense(kernel: torch.Tensor, bias: torch.Tensor) -> Dense:
            return Dense(np.array(kernel.numpy()), np.array(bias.numpy()))

        cells = []
        for i in range(config.layers):
            of_x, of_hidden, bias, fixed = (
                params[f"rnn.{name}_l{i}"]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            cells.append(dense(torch.cat([of_hidden, of_x], dim=1).T, bias + fixed))
        return Weights(tuple(cells), dense(params["readout.weight"].T, params["readout.bias"]))

    def from_weights(weights: Weights) -> Params:
        params: dict[str, Any] = {}
        for i, (kernel, bias) in enumerate(weights.cells):
            params |= {
                f"rnn.weight_ih_l{i}": kernel[config.width :].T,
                f"rnn.weight_hh_l{i}": kernel[: config.width].T,
                f"rnn.bias_ih_l{i}": bias,
                f"rnn.bias_hh_l{i}": np.zeros_like(bias),
            }
        params |= {"readout.weight": weights.readout.kernel.T, "readout.bias": weights.readout.bias}
        return {name: torch.tensor(np.asarray(array)) for name, array in params.items()}

    return Model(init, step, to_weights, from_weights)


def loss_fn(rnn: CharRNN, hidden: torch.Tensor, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean loss in nats per character, and the hidden state after the chunk."""
    logits, hidden = rnn(chunk.inputs, hidden)
    losses = F.cross_entropy(logits.flatten(0, 1), chunk.targets.flatten(), reduction="none")
    return (losses * chunk.mask.flatten()).sum() / chunk.mask.sum(), hidden


class InPlaceStep:
    """A training step around one module and one optimiser, which updates it in place."""

    def __init__(
        self, config: ModelConfig, optimiser: Configured, threads: int, loss: Any = loss_fn
    ) -> None:
        self.pure, self.loss = build(config), loss
        self.settings = {"threads": threads}
        self.rnn = CharRNN(config)
        self.optimizer = torch.optim.AdamW(
            self.rnn.parameters(),
            lr=optimiser.config.learning_rate,
            weight_decay=optimiser.config.weight_decay,
        )

    def load(self, checkpoint: Checkpoint) -> None:  # noqa: D102 -- TrainStep says it
        params, mu, nu = (self.pure.from_weights(tree) for tree in checkpoint[:3])
        for name, parameter in self.rnn.named_parameters():
            parameter.data = params[name]
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(checkpoint.updates)),
                "exp_avg": mu[name],
                "exp_avg_sq": nu[name],
            }

    def save(self) -> Checkpoint:  # noqa: D102
        states = {name: self.optimizer.state[p] for name, p in self.rnn.named_parameters()}
        weights, mu, nu = (
            self.pure.to_weights(params)
            for params in (
                self.rnn.state_dict(),
                {name: state["exp_avg"] for name, state in states.items()},
                {name: state["exp_avg_sq"] for name, state in states.items()},
            )
        )
        return Checkpoint(weights, mu, nu, int(states["readout.bias"]["step"]))

    def __call__(self, hidden: Hidden, chunk: Chunk) -> Any:  # noqa: D102
        torch.set_num_threads(self.settings["threads"])  # free if it is set already
        inputs, targets, mask = map(tensor, chunk)
        chunk = chunk._replace(inputs=inputs.long(), targets=targets.long(), mask=mask)
        loss, after = self.loss(self.rnn, torch.stack([tensor(row) for row in hidden]), chunk)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return tuple(after.detach()), loss.detach()

    def program(self, hidden: Hidden, chunk: Chunk) -> None:  # noqa: ARG002, D102
        return None


def eager(config: ModelConfig, optimiser: Configured) -> TrainStep:
    """One operation after another, on one thread, as most people write it."""
    return InPlaceStep(config, optimiser, threads=1)


def compile_step(config: ModelConfig, optimiser: Configured) -> TrainStep:
    """`torch.compile` over model and loss, on one thread; it leaves `nn.RNN` and AdamW as they are.

    It takes an RNN only when told to, and then unrolls it, which compiles far too long.
    """
    return InPlaceStep(config, optimiser, threads=1, loss=torch.compile(loss_fn))


STYLES = {"eager": eager}
MISSING = {}
if not any(map(shutil.which, ("c++", "g++", "clang++"))):
    MISSING["compile"] = "torch.compile needs a C++ compiler, and there is none on the PATH"
elif not Path(sysconfig.get_path("include"), "Python.h").exists():
    MISSING["compile"] = "torch.compile needs Python's C headers, and they are not installed"
else:
    STYLES["compile"] = compile_step
