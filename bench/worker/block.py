"""Blocks: arms' turns over fresh buffers in random order, and a comparison of the results.

A block is some rounds, each with a turn of every arm in another order. Two workers, one of each
side of a comparison, can measure a block together: then an arm's turns on both sides follow each
other, and the holder of a token takes turns. The parent gives each worker an end of a pair of
sockets. A byte that one sends is the token, which is then the other's: on one core that costs a
change of process, and no parent is in between. A worker that has ended closes its end, so that the
other one hears of it at once.
"""

from __future__ import annotations

import gc
import math
import os
import random
import socket
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax
import numpy as np

from bench.cells import BASELINE, REFERENCE, Arm
from bench.metrics import HOST, STAGES, STEP, TINY
from bench.samples import Sample
from bench.worker.arms import catch_failure
from bench.worker.counts import disable_collector
from bench.worker.protocol import LEAST_CALL_ROUNDS, LOST_STATUS, TOKEN, Failed, Timed
from bench.worker.settings import has_one_core
from bench.worker.turns import (
    CLOCK,
    CPU_CLOCK,
    Turn,
    make_paired_samples,
    make_sample,
    make_stages_turns,
    round_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bench.worker.arms import Arms
    from bench.worker.protocol import TimeBlock
    from bench.worker.turns import Call, Calls
    from common.contract import Chunk

SCALES = 0.99, 1.01
"""Range of the factor on a block's first weights: other numbers, the same work."""
CHECKED_ROUNDS = 32
"""Rounds of single calls between two looks at what they may change: JAX's settings, variables and
threads. Looking takes as long as five calls of a small skeleton."""
MOST_PADDING = 1 << 14
"""Most numbers between the buffers of two arms, so that offsets differ from block to block."""


class TimedBlock:
    """One block of turns of one kind.

    Args:
        arms: Arms of the block's workload.
        command: Command that asks for the block; both sides of a comparison have its seed.
        mark_arm: Called with the arm that is at work next; with None while the other side is.
        count_programs: Returns the number of programs that the process has compiled so far.
        changes: Returns in words the forbidden changes that an arm has made.
        token: Token that this worker and the other side's pass on; None without another side.
    """

    def __init__(
        self,
        arms: Arms,
        command: TimeBlock,
        mark_arm: Callable[[Arm | None], None],
        count_programs: Callable[[], int],
        changes: Callable[[], str],
        token: Token | None = None,
    ) -> None:
        self.arms, self.command, self.token = arms, command, token
        self.mark_arm, self.count_programs, self.changes = mark_arm, count_programs, changes
        assert not (token and command.seconds), "both sides have as many rounds"
        self.members = [*map(Arm.parse, command.arms)]
        # A first round is slower at a tiny size, where it costs nothing; its samples are dropped
        self.untimed = int(command.workload in TINY and command.kind != STAGES)
        self.pairs_calls = arms.pairs_calls and command.kind == HOST
        self.is_sparse = self.pairs_calls
        """Whether most turns are not watched: until one of them has changed something."""
        self.shared = random.Random(command.seed)  # noqa: S311 -- an order of rounds is no secret
        side = token.side if token else 0
        self.buffers = random.Random(f"{command.seed} {side}")  # noqa: S311
        self.failures: dict[Arm, str] = {}
        self.calls: dict[Arm, dict[str, list[list[Call]]]] = defaultdict(lambda: defaultdict(list))
        """Arm → metric → calls of each turn."""
        self.cpu_seconds: dict[Arm, float] = defaultdict(float)
        self.wall_seconds: dict[Arm, float] = defaultdict(float)
        self.making_seconds = 0.0
        self.end = math.inf
        """Time after which no pair of rounds begins."""

    def run(self) -> Timed:
        """Take turns over fresh buffers in random order, then compare the arms' results."""
        chunk = jax.tree.map(jax.numpy.array, self.shared.choice(self.arms.chunks))
        scale = self.shared.uniform(*SCALES)

        def begin() -> dict[Arm, Turn]:
            if self.command.anew:
                self.renew_steps()
            return self.make_turns(chunk, scale)

        turns = self.interleave(begin)
        if self.is_sparse:
            self.look_around()
        if self.command.kind != STAGES:  # of which none runs a step
            self.compare(turns)
        good = [arm for arm in turns if arm not in self.failures]
        several_cores = self.command.kind == STEP and not has_one_core()
        samples, disturbed = [], list[Arm]()
        if self.pairs_calls and not self.token:
            cells = {self.arms.find_cell(arm): self.calls[arm][HOST] for arm in good}
            has_reference = any(arm in REFERENCE for arm in good)
            samples = make_paired_samples(cells, HOST) if has_reference else []
            timed = {sample.cell.arm for sample in samples}
            disturbed = [arm for arm in good if arm not in timed]
            self.calls.clear()
        for arm in good:
            cell = self.arms.find_cell(arm)
            made = [make_sample(cell, name, calls) for name, calls in self.calls[arm].items()]
            samples += filter(None, made)
            disturbed += [arm] * (None in made)
            if several_cores and self.cpu_seconds[arm] > 0:
                used = self.cpu_seconds[arm] / self.wall_seconds[arm]
                samples.append(Sample(cell, "cores_used", round_value(used)))
        return Timed(
            samples,
            {str(arm): why for arm, why in self.failures.items()},
            {str(arm): self.wall_seconds[arm] for arm in good},
            making=self.making_seconds,
            disturbed=[*map(str, disturbed)],
        )

    def attempt[Result](
        self, arm: Arm, when: str, action: Callable[[], Result], *, watched: bool = True
    ) -> Result | None:
        """Return what `action` returns for an arm; None if it fails, or the arm has failed before.

        `when` is "before", "while" or "after", as the failure says: "after it was timed it …".
        """
        self.mark_arm(arm)
        result = catch_failure(action, self.arms.user_file)
        if watched and (changed := self.changes()):
            self.failures[arm] = f"{when} it was timed it {changed}"
        elif isinstance(result, Failed):
            self.failures[arm] = f"{result.failure} ({when} it was timed)"
        return None if arm in self.failures or isinstance(result, Failed) else result

    def renew_steps(self) -> None:
        """Make steps anew in random order; each has to have the losses that it had before."""
        start = CLOCK()
        for arm in self.buffers.sample(self.members, len(self.members)):
            self.attempt(arm, "before", partial(self.arms.open, arm, self.arms.expected_losses))
        self.making_seconds = CLOCK() - start

    def make_turns(self, chunk: Chunk, scale: float) -> dict[Arm, Turn]:
        """Return turns over fresh buffers, at new offsets, allocated and warmed in random order."""
        kind = self.command.kind
        if kind == STAGES:
            return make_stages_turns(self.arms, self.members, self.command.programs)
        turns, padding = {}, []
        for arm in self.buffers.sample(self.members, len(self.members)):
            size = self.buffers.randrange(1, MOST_PADDING)
            padding.append(jax.device_put(np.zeros(size, np.float32)))
            fresh = partial(Turn, kind, self.arms, arm, chunk, scale, paired=bool(self.token))
            if arm not in self.failures and (turn := self.attempt(arm, "before", fresh)):
                turns[arm] = turn
        return turns

    def interleave[T: Callable[[], Calls]](self, begin: Callable[[], dict[Arm, T]]) -> dict[Arm, T]:
        """Take a turn of each arm in each round; return the turns, which `begin` makes.

        It is called when this side's time comes. An arm that fails takes no further turns.
        """
        turns: dict[Arm, T] = {}
        with disable_collector():
            for item in self.share(self.schedule()):
                if item is None:
                    turns = begin()
                    gc.collect()  # here, for the other side's turns may come next
                    self.end = CLOCK() + (self.command.seconds or math.inf)
                    continue
                number, arm = item
                if arm in turns and arm not in self.failures:
                    self.take(arm, turns[arm], number)
        return turns

    def schedule(self) -> Iterator[tuple[int, tuple[int, Arm] | None]]:
        """Yield sides, 0 or 1 of two, with what they do: first begin (None), then take turns.

        A turn is a round and an arm. Arms come in random order, an arm's turns on both sides one
        after the other. Every second round reverses the one before: so each arm, and each side, is
        as often before another one as after it.
        """
        sides, rng = range(2 if self.token else 1), self.shared
        yield from ((side, None) for side in rng.sample(sides, len(sides)))
        turns: list[tuple[int, Arm]] = []
        for i, number in enumerate(range(-self.untimed, self.command.rounds)):
            if i % 2:
                turns = turns[::-1]
            elif number >= LEAST_CALL_ROUNDS and CLOCK() > self.end:
                return
            else:
                arms = rng.sample(self.members, len(self.members))
                turns = [(side, arm) for arm in arms for side in rng.sample(sides, len(sides))]
            yield from ((side, (number, arm)) for side, arm in turns)

    def share[Item](self, order: Iterable[tuple[int, Item]]) -> Iterator[Item]:
        """Yield this side's items of an order that both follow, each at its time.

        The first one's side has the token. Without a token, all items are this side's.
        """
        holder, token = None, self.token
        for side, item in order:
            if token and holder not in (None, side):
                if holder == token.side:
                    token.send()
                else:
                    self.mark_arm(None)
                    token.wait()
            holder = side
            if not token or side == token.side:
                yield item

    def take(self, arm: Arm, turn: Callable[[], Calls], number: int) -> None:
        """Take one turn of an arm, and keep its calls unless the round is untimed or spoiled."""
        if self.is_sparse and number % CHECKED_ROUNDS == 0:
            self.look_around()
        programs, cpu, wall = self.count_programs(), CPU_CLOCK(), CLOCK()
        calls = self.attempt(arm, "while", turn, watched=not self.is_sparse)
        wall, cpu = CLOCK() - wall, CPU_CLOCK() - cpu
        if number >= 0 and calls:
            if self.count_programs() > programs:
                self.failures[arm] = "compiled again while it was timed"
                return
            self.wall_seconds[arm] += wall
            self.cpu_seconds[arm] += cpu
            for metric, taken in calls.items():
                self.calls[arm][metric].append(taken)

    def look_around(self) -> None:
        """Watch each turn from now on, if one since the last look has changed something.

        What was changed is as before again. Whoever did it is found when it does it once more.
        """
        self.is_sparse = not self.changes()

    def compare(self, turns: Mapping[Arm, Turn]) -> None:
        """Compare the results of each arm with the baseline's after as many calls.

        Without the baseline, only updates are counted: other blocks of this worker compare with it.
        """
        left = [arm for arm in turns if arm not in self.failures]
        ends = {arm: end for arm in left if (end := self.attempt(arm, "after", turns[arm].end))}
        baseline = ends.get(BASELINE)
        if baseline is None and BASELINE in self.members:
            why = f"the baseline failed, so nothing could be compared: {self.failures[BASELINE]}"
            self.failures |= dict.fromkeys(ends, why)
            return
        for arm, end in ends.items():
            compare = partial(self.arms.describe_difference, end, baseline)
            if wrong := self.attempt(arm, "after", compare):
                self.failures[arm] = f"its timed training gave a wrong result: {wrong}"


@dataclass
class Token:
    """One worker's end of the pair of sockets that the token takes."""

    side: int
    """0 or 1 of the two workers that alternate."""
    end: socket.socket

    @classmethod
    def receive(cls, channel: int, side: int, patience: float) -> Token:
        """Receive the end that the parent sends over the socket of a descriptor.

        After `patience` seconds, the other worker is taken to hang.
        """
        with socket.socket(fileno=os.dup(channel)) as parent:
            _, [descriptor], *_ = socket.recv_fds(parent, len(TOKEN), 1)
        os.set_inheritable(descriptor, False)  # what a library starts does not hold it open
        end = socket.socket(fileno=descriptor)
        end.settimeout(patience)
        return cls(side, end)

    def send(self) -> None:
        """Give the token to the other side; where that has ended, this worker ends too."""
        try:
            self.end.sendall(TOKEN)
        except OSError:
            os._exit(LOST_STATUS)

    def wait(self) -> None:
        """Wait for the token; where it does not come, this worker ends."""
        with suppress(OSError):
            if self.end.recv(len(TOKEN)):
                return
        os._exit(LOST_STATUS)
