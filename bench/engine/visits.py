"""Visits: one worker on each side of a group, opened together, measures blocks, and is closed.

The workers of a visit are on the same cores, and measure blocks of one kind of turns. A run has
groups of one side, an A/B and a history of two.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from bench.cells import BASELINE
from bench.engine.workers import WorkerEndedError, find_live_cells
from bench.metrics import STEP
from bench.stats.forecast import estimate_variation, forecast_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.engine.actions import Phases, Steps
    from bench.engine.costs import TurnKind
    from bench.engine.task import SideState
    from bench.engine.workers import Visit, Workers
    from bench.samples import Cores
    from bench.worker import protocol

BLOCK_SECONDS = 1.0
"""Minimum seconds of a block, as far as `MOST_ROUNDS` allow: beside that, its fresh buffers, warm
calls and proof take little."""
MOST_ROUNDS = 128
"""Maximum rounds in a block: more tell less than other buffers do."""
MEASURED_PER_MAKING = 3.0
"""Measuring time between two makings of all steps, per second of making: steps differ from making
to making as much as blocks of a second vary."""
STEPS_SHARE = 0.5
"""Fraction of a budget that goes to the steps of the first workload, with opening and proving: a
third of a default run is steps, nearly all of an A/B of steps."""
UNREQUESTED_INTERVAL = 4
"""Interval, in blocks, at which an unrequested arm joins: results of the others are compared with
its own, which needs one block of a worker."""


class Visits:
    """Measuring in the blocks of workers that are opened for it."""

    def __init__(self, workers: Workers) -> None:
        self.workers, self.agenda, self.options = workers, workers.agenda, workers.options

    def open_visits(self, visits: Sequence[Visit]) -> Phases[list[Visit]]:
        """Open the workers of visits at the same time; return those visits of which none died.

        Both sides of a pair begin together. When one was opened after the other, the first took 0.5
        % longer in each call until its end (standard error 0.1 %, 36 pairs); together, 0.1 % (0.1
        %).
        """

        def begin(visit: Visit, side: SideState, _: Cores) -> Steps[None]:
            visit.workers[side] = yield from self.workers.open_worker(side, visit)

        work = []
        for visit in visits:
            for side in self.workers.rng.sample(visit.group, len(visit.group)):
                work.append(partial(begin, visit, side))
        yield from self.workers.run_phase([()] * len(work), work)
        opened = [visit for visit in visits if len(visit.workers) == len(visit.group)]
        alone = [pair for v in visits if v not in opened for pair in v.workers.items()]
        closing = [partial(self.workers.close, *pair) for pair in alone]
        yield from self.workers.run_phase([()], closing)
        return opened

    def measure_visits(
        self, visits: Sequence[Visit], turn: TurnKind, seconds: float, rounds: int
    ) -> Phases[list[Visit]]:
        """Measure in the workers of each visit, and close them; return those that came to an end.

        They measure at the same time, so that none is timed while another one compiles; with all
        cores, one after the other, and only the first still begins after the end of the budget.
        """
        done: list[Visit] = []

        def measure(visit: Visit, _: Cores) -> Steps[None]:
            end = self.workers.spent_seconds + seconds
            late = bool(done) and self.workers.spent_seconds > self.agenda.end
            if not late and (yield from self.measure_blocks(visit, turn, end, rounds)):
                done.append(visit)
                for side in visit.group:
                    side.note_survival(visit.workload, self.common_arms(visit))
            for side in visit.group:
                yield from self.workers.close(side, visit.workers[side])

        lanes = list(dict.fromkeys(visit.cores for visit in visits))
        yield from self.workers.run_phase(lanes, [partial(measure, visit) for visit in visits])
        if turn.kind == STEP and not self.workers.spent.forecast:
            self.forecast(turn.workload)
        return done

    def forecast(self, workload: str) -> None:
        """Forecast the detectable difference, by the first blocks of a workload's steps."""
        if self.options.is_fixed:
            return
        samples, spent = self.workers.samples, self.workers.spent
        rows = [s for s in samples if (s.metric, s.cell.workload) == (STEP, workload)]
        rows = [s for s in rows if s.worker > spent.earlier_processes]
        if not self.agenda.base:  # blocks of two environments have no arms in common
            rows = [s for s in rows if s.environment == rows[0].environment]
        times = max(1.0, self.options.budget * STEPS_SHARE / self.workers.spent_seconds)
        about = forecast_difference(rows, times, base=self.agenda.base)
        if math.isfinite(about):
            spent.calls_vary, spent.forecast = estimate_variation(rows), about

    def measure_blocks(self, visit: Visit, turn: TurnKind, end: float, rounds: int) -> Steps[int]:
        """Measure blocks until a time, one at least; return how many there were."""
        number, workers = 0, self.workers
        given = rounds if visit.compiles else self.options.rounds
        while arms := self.common_arms(visit):
            if self.options.blocks is not None and number >= self.options.blocks:
                break
            if number % UNREQUESTED_INTERVAL or visit.compiles:
                arms = [arm for arm in arms if arm not in self.agenda.unrequested_arms]
            one = workers.costs.block(visit.group, turn, arms) / turn.rounds
            count = given or max(rounds, min(MOST_ROUNDS, int(BLOCK_SECONDS / one)))
            if self.options.blocks is None and number:
                count = given or max(rounds, min(count, int((end - workers.spent_seconds) / one)))
                last = workers.spent_seconds + one * count > self.options.budget
                if last or workers.spent_seconds + one * count / 2 > end:
                    break
            yield from self.measure_block(visit, turn, arms, count)
            number += 1
        return number

    def common_arms(self, visit: Visit) -> list[str]:
        """Return the living arms that all of a visit's workers hold; none without the baseline.

        Results of the arms that are timed are compared with the baseline's.
        """
        held = set.intersection(
            *(self.workers.held_arms[worker] for worker in visit.workers.values())
        )
        arms = [arm for arm in find_live_cells(visit.group, visit.workload) if arm in held]
        return arms if str(BASELINE) in arms else []

    def measure_block(
        self, visit: Visit, turn: TurnKind, arms: Sequence[str], rounds: int
    ) -> Steps[None]:
        """Measure one block; on two sides, each arm's turns alternate between them."""
        self.workers.spent.blocks += 1
        block, pair = self.workers.spent.blocks, min(visit.workers.values())
        sides = self.workers.rng.sample(visit.group, len(visit.group))
        first, *others = sides
        making = self.workers.costs.making(visit.group, turn.workload, arms)
        programs = {}
        if visit.compiles and not others:  # in a pair, each arm is compared with itself
            programs = {arm: first.cells[first.cell(arm, turn.workload)].program for arm in arms}
        anew = not visit.compiles and visit.measured_seconds >= MEASURED_PER_MAKING * making > 0
        action = first.make_action(
            "block",
            visit.workers[first],
            turn.workload,
            self.workers.rng.sample(arms, len(arms)),
            kind=turn.kind,
            rounds=rounds,
            seed=self.workers.rng.getrandbits(32),
            cores=visit.cores,
            anew=anew,
            programs=programs,
            partner=visit.workers[others[0]] if others else 0,
            partner_environment=others[0].environment if others else "",
        )
        outcome = yield from self.workers.ask_workers(action, *sides)
        answers: list[protocol.Timed] = outcome.answers
        made = sum(answer.making for answer in answers)
        if made:
            self.workers.costs.making_seconds[visit.group, turn.workload] = made
        measured = outcome.took - made
        self.workers.spent.sampling_seconds += measured / self.workers.lanes_in_use
        visit.measured_seconds = measured + visit.measured_seconds * (not anew)
        total = sum(sum(answer.seconds.values()) for answer in answers) or 1.0
        for side, answer in zip(sides, answers, strict=True):
            self.workers.keep_samples(side, answer.samples, pair, block, visit.cores)
            for arm, seconds in answer.seconds.items():
                whole = measured * seconds / total * turn.rounds / rounds
                self.workers.costs.turn_seconds[side, turn, arm] = whole
        if any(answer.spoiled for answer in answers):
            for side, worker in visit.workers.items():
                yield from self.workers.close(side, worker)
            raise WorkerEndedError
