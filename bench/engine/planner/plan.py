"""The plan: what comes next within a budget, and how it is carried out.

All that was asked for is a table of *work*, a kind of visit at a workload, in the order in which
people ask. First, each row of the table gets its first answer: two workers, or the least number of
cold processes, of the shortest useful length. Then, again and again, the work gets a visit whose
widest interval, in units of a narrow one, weighs most. A visit begins if what it is expected to
take, by the last ones like it, fits into the time that is left; nothing else is foreseen. Before a
visit, workers that do nothing else prove its arms: it opens proven arms only.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench.cells import BASELINE, REFERENCE
from bench.engine.planner.kinds import (
    CALLS,
    COLD_KIND,
    FURTHER_COLD,
    LARGE_FOR_OPENING,
    LARGE_WEIGHT,
    PAIR_FOR_OPENING,
    TURNS,
    TurnKind,
)
from bench.engine.planner.lanes import Lanes, Visit, WorkerEndedError
from bench.engine.planner.widths import Widths
from bench.engine.task import find_live_cells
from bench.metrics import STAGES, STEP
from bench.wording import name_workload
from bench.worker import protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.cells import Cell
    from bench.engine.actions import Actions, LaneActions
    from bench.engine.planner.state import RunState, Work
    from bench.engine.task import Group, GroupCell, SideState
    from bench.samples import Cores, Sample

FIRST_WORKERS = 2
"""Workers, or pairs, of a first answer: one says nothing about how much workers differ."""
FIRST_PART = 1 / 16
"""Most of the time left that a worker of a first answer measures: there are up to a dozen of
them."""
PROVING_PART = 1 / 2
"""Part of the time left into which a proof has to fit: the other half is for measuring."""
BLOCK_SECONDS = 1.0
"""Minimum seconds of a block, as far as `MOST_ROUNDS` allow: beside that, its fresh buffers, warm
calls and proof take little."""
MOST_ROUNDS, MOST_CALL_ROUNDS = 128, 512
"""Maximum rounds in a block of steps, and of single calls: more tell less than another worker."""
UNREQUESTED_INTERVAL = 4
"""Interval, in blocks, at which an unrequested arm joins: results of the others are compared with
its own, which needs one block of a worker."""
BESIDE_OTHERS = 1 / 64
"""Factor on the weight of work that was last disturbed by other processes: what these do not spoil,
calls on one core above all, goes first, and it is tried again when little else is left."""
ONCE_COMMANDS = {"count": protocol.Count, "train": protocol.Train}
"""What is done once for a cell → its command."""
COLD_KINDS = (COLD_KIND, FURTHER_COLD)


class Plan:
    """The plan of a whole run; between visits, it asks whether there are enough samples by now."""

    def __init__(self, state: RunState, is_enough: Callable[[Sequence[Sample]], bool]) -> None:
        self.state, self.options, self.is_enough = state, state.options, is_enough
        self.durations, self.lanes, self.widths = state.durations, Lanes(state), Widths(state)
        self.notify: Callable[[str], None] = lambda _: None
        """Called with a line about what there is no time for."""
        self.late_cells: set[tuple[SideState, Cell]] = set()
        """Cells of which it was said that there is no time to prove them."""
        self.idle_work: set[Work] = set()
        """Work that took no time when it was last chosen: nothing of it can be done."""

    def actions(self) -> Actions[None]:
        """Yield the actions to begin; expects the outcome of the one that ends next."""
        while not self.is_enough(self.state.samples) and (work := self.choose()):
            self.state.spent.precision = self.widths.measure_precision()
            before = self.state.spent_seconds
            if work.kind in TURNS:
                yield from self.visit(work)
            elif work.kind in COLD_KINDS:
                yield from self.sweep(work)
            else:
                yield from self.do_once(work)
            if self.state.spent_seconds == before:
                self.idle_work.add(work)
        self.state.note_missing(self.forecast_needs())

    # what comes next

    def choose(self) -> Work | None:
        """Return the work to do next; None where nothing fits or is left to do."""
        fitting = [
            work
            for work in self.state.table
            if work not in self.idle_work
            and (seconds := self.expect(work)) is not None
            and seconds <= self.state.seconds_left
        ]
        first = next(filter(self.lacks_first_answer, fitting), None)
        again = [w for w in fitting if w.kind in TURNS or w.kind in COLD_KINDS]
        return first or max(again, key=self.weigh, default=None)

    def lacks_first_answer(self, work: Work) -> bool:
        """Tell whether some work still has to be done for its first answer."""
        if work.kind in TURNS:
            counts = self.state.visit_counts
            groups = self.state.find_open_groups(work)
            return any(counts[group, work.turn] < FIRST_WORKERS for group in groups)
        if work.kind in COLD_KINDS:
            return bool(self.find_unswept(work))
        return True  # what is done once is the first answer

    def find_unswept(self, work: Work) -> list[GroupCell]:
        """Return the cells that have fewer cold processes than it takes."""
        needed = self.state.find_visits_needed(work.kind)
        cells = self.state.find_cold_cells(work)
        return [pair for pair in cells if self.state.cold_counts[pair] < needed]

    def weigh(self, work: Work) -> float:
        """Return the largest weighted width of the rows that some work narrows."""
        weight = LARGE_WEIGHT if self.state.is_large(work.workload) else 1.0
        if (work.workload, work.kind) in self.state.disturbed:
            weight *= BESIDE_OTHERS
        return weight * max(self.widths.find_widest(work, group) for group in work.groups)

    def expect(self, work: Work) -> float | None:
        """Return the least seconds that some work is expected to take; None if none is left."""
        if work.kind in COLD_KINDS:
            pairs, sweeps = self.choose_sweeps(work)
            return self.expect_sweeps(pairs, sweeps) if pairs else None
        if work.kind in TURNS:
            groups = self.state.find_open_groups(work)
            if not groups:
                return None
            _, in_a_row = self.count_visits(work, groups)
            arms = self.state.find_arms(groups[0], work.turn)
            proven = self.find_proven(groups[0], arms)
            proofs = 0.0
            if not any(cell.arm not in REFERENCE for cell in proven.values()):
                proofs = self.expect_proofs([(groups[0], cell) for cell in [*arms.values()][:2]], 1)
            taking_part = len(proven) if proofs == 0 else len(arms)
            opening = self.expect_opening(groups[0], work.turn, taking_part)
            return (
                proofs + opening + in_a_row * self.expect_block(groups[0], work.turn, taking_part)
            )
        side, cells = self.find_once(work)
        if side is None:
            return None
        seconds = self.durations.expect(("load", side.environment)) + self.expect_once(work)
        if work.kind == "train":
            seconds += 2 * self.durations.expect(("open", work.workload))
            if not any(map(side.is_proven, cells)):
                seconds += self.expect_proofs([((side,), cell) for cell in cells[:1]], 1)
        return seconds

    def expect_opening(self, group: Group, turn: TurnKind, arms: int) -> float:
        """Return the seconds to open proven arms on all sides at once; stages open none."""
        load = max(self.durations.expect(("load", side.environment)) for side in group)
        one = 0.0 if turn.kind == STAGES else self.durations.expect(("open", turn.workload))
        return load + arms * one

    def expect_round(self, group: Group, turn: TurnKind, arms: int) -> float:
        """Return the seconds of a round of some arms, on all sides."""
        return len(group) * arms * self.durations.expect(("turn", *turn), turn.guess)

    def expect_block(self, group: Group, turn: TurnKind, arms: int) -> float:
        """Return the seconds of a block of the least rounds."""
        return turn.rounds * self.expect_round(group, turn, arms)

    def expect_proofs(self, pairs: Sequence[GroupCell], lanes: int) -> float:
        """Return the seconds of proving the cells that are not proven yet, in so many lanes."""
        unproven = {(side, c) for group, c in pairs for side in group if not side.is_proven(c)}
        seconds = sum(self.durations.expect(("prove", cell.workload)) for _, cell in unproven)
        loads = sum(
            self.durations.expect(("load", side.environment)) for side in {s for s, _ in unproven}
        )
        return (loads + seconds) / lanes

    def expect_once(self, work: Work) -> float:
        """Return the seconds of counting or training one cell."""
        guess = None
        if work.kind == "train":
            turn = TurnKind(work.workload, STEP)
            step = self.durations.expect(("turn", *turn), turn.guess) / CALLS[STEP]
            guess = protocol.FINAL_STEPS * (1 + protocol.OWN_SEEDS) * step
        return self.durations.expect((work.kind, work.workload), guess)

    def forecast_needs(self) -> dict[tuple[str, str], float]:
        """Return (workload, kind of work) → seconds that it would take, if its like was timed."""
        needs: dict[tuple[str, str], float] = {}
        for work in self.state.table:
            seconds = self.expect(work)
            kind = "prove", work.workload
            if seconds is not None and kind in self.durations.last:
                needs.setdefault((work.workload, work.kind), seconds)
        return needs

    # proofs

    def find_proven(self, group: Group, arms: Mapping[str, Cell]) -> dict[str, Cell]:
        """Return the arms that are proven on all sides of a group."""
        return {a: c for a, c in arms.items() if all(side.is_proven(c) for side in group)}

    def prove(self, pairs: Sequence[GroupCell], cores: Sequence[Cores]) -> Actions[None]:
        """Prove cells in workers that do nothing else, in all lanes.

        In a process that has compiled, a call costs the host about 8 % more until its end. A proof
        begins if it fits into half of the time left, the baseline's in any case: without it, there
        are no numbers.
        """
        queues: dict[SideState, list[Cell]] = {}
        for group, cell in pairs:
            for side in group:
                if not side.is_proven(cell) and cell not in queues.setdefault(side, []):
                    queues[side].append(cell)
        queues = {side: cells for side, cells in queues.items() if cells}
        for side, cells in queues.items():
            cells.sort(key=partial(self.lanes.rank_proof, side))

        def prove(side: SideState, lane: Cores) -> LaneActions[None]:
            queue = queues[side]
            while queue and self.is_in_time(queue[0]):
                worker = yield from self.lanes.load(side, queue, lane)
                while queue and self.is_in_time(queue[0]):
                    cell = queue.pop(0)
                    if side.cells[cell].failure is None:
                        try:
                            yield from self.lanes.ask_arm(side, worker, protocol.Prove, cell)
                        except WorkerEndedError:
                            if side.cells[cell].failure is None:
                                queue.append(cell)
                            break
                yield from self.lanes.close(side, worker)

        jobs = []
        for i, (side, queue) in enumerate(queues.items()):
            workers = max(1, len(cores) // len(queues) + (i < len(cores) % len(queues)))
            jobs += [partial(prove, side)] * min(workers, len(queue))
        yield from self.lanes.run_phase(cores, jobs)
        for side, queue in queues.items():
            self.tell_late(side, queue)

    def is_in_time(self, cell: Cell) -> bool:
        """Tell whether the proof of a cell may begin."""
        part = 1.0 if cell.is_baseline else PROVING_PART
        expected = self.durations.expect(("prove", cell.workload))
        return expected <= part * self.state.seconds_left

    def tell_late(self, side: SideState, cells: Sequence[Cell]) -> None:
        """Say once which arms there is no time to prove, and how long that takes."""
        late = [c for c in cells if c.arm not in REFERENCE and side.cells[c].failure is None]
        late = [c for c in late if (side, c) not in self.late_cells]
        if late and (key := ("prove", late[0].workload)) in self.durations.last:
            self.late_cells.update((side, cell) for cell in late)
            self.notify(
                f"skipped {', '.join(sorted(str(cell.arm) for cell in late))} at "
                f"{name_workload(late[0].workload)}: "
                f"proving one takes about {self.durations.expect(key):.0f} s"
            )

    # visits

    def count_visits(self, work: Work, groups: Sequence[Group]) -> tuple[int, int]:
        """Return the workers, or pairs, of the next visit, and how many measure in a row.

        On all cores, one measures after the other.
        """
        lanes = self.state.cores(groups[0], work.kind)
        if lanes[0]:
            return len(lanes), 1
        fewest = min(self.state.visit_counts[group, work.turn] for group in groups)
        missing = FIRST_WORKERS - fewest
        count = min(len(lanes), max(1, missing))
        return count, count

    def visit(self, work: Work) -> Actions[None]:
        """Prove arms, open workers, measure in them, and close them."""
        state, turn = self.state, work.turn
        groups, counts, failures = (
            state.find_open_groups(work),
            state.visit_counts,
            state.failed_visits,
        )
        state.rng.shuffle(groups)
        if self.lacks_first_answer(work):
            groups.sort(key=lambda group: counts[group, turn])
        else:
            groups.sort(key=lambda group: -self.widths.find_widest(work, group))
        count, _ = self.count_visits(work, groups)
        groups = [groups[i % len(groups)] for i in range(count)]
        cores = state.cores(groups[0], turn.kind)[:count]
        pairs = [(g, c) for g in dict.fromkeys(groups) for c in state.find_arms(g, turn).values()]
        yield from self.prove(pairs, state.cores(groups[0], turn.kind))
        alive = {group: find_live_cells(group, turn.workload).keys() for group in groups}
        visits = []
        for group, lane in zip(groups, cores, strict=True):
            proven = self.find_proven(group, state.find_arms(group, turn))
            if str(BASELINE) in proven:
                visits.append(Visit(group, turn.workload, lane))
        expected = self.expect(work)
        if not visits or expected is None or expected > state.seconds_left:
            return
        opened = yield from self.open_visits(visits, turn)
        is_first = any(counts[visit.group, turn] < FIRST_WORKERS for visit in opened)
        counts.update((visit.group, turn) for visit in opened)
        done = yield from self.measure_visits(opened, turn, is_first=is_first)
        for visit in opened:
            counts[visit.group, turn] -= visit not in done
        ended = {visit.group for visit in done}
        for group in {*groups}:
            fewer = len(find_live_cells(group, turn.workload)) < len(alive[group])
            failures[group, turn] = 0 if group in ended else failures[group, turn] + (not fewer)

    def open_visits(self, visits: Sequence[Visit], turn: TurnKind) -> Actions[list[Visit]]:
        """Open the workers of visits at the same time; return those visits of which none died.

        Both sides of a pair begin together. When one was opened after the other, the first took 0.5
        % longer in each call until its end (standard error 0.1 %, 36 pairs); together, 0.1 % (0.1
        %).
        """

        def begin(visit: Visit, side: SideState, _: Cores) -> LaneActions[None]:
            arms = self.find_proven(visit.group, self.state.find_arms(visit.group, turn))
            before = self.state.spent_seconds
            if turn.kind == STAGES:  # its turns make and compile the steps
                worker = yield from self.lanes.load(side, arms.values(), visit.cores)
                living = (arm for arm, cell in arms.items() if side.cells[cell].failure is None)
                self.lanes.held_arms[worker].update(living)
            else:
                worker = yield from self.lanes.open_worker(side, visit, arms.values())
            visit.workers[side] = worker
            visit.opening_seconds = max(visit.opening_seconds, self.state.spent_seconds - before)

        work = []
        for visit in visits:
            for side in self.state.rng.sample(visit.group, len(visit.group)):
                work.append(partial(begin, visit, side))
        yield from self.lanes.run_phase([()] * len(work), work)
        opened = [visit for visit in visits if len(visit.workers) == len(visit.group)]
        alone = [pair for v in visits if v not in opened for pair in v.workers.items()]
        closing = [partial(self.lanes.close, *pair) for pair in alone]
        yield from self.lanes.run_phase([()], closing)
        return opened

    def measure_visits(
        self, visits: Sequence[Visit], turn: TurnKind, *, is_first: bool
    ) -> Actions[list[Visit]]:
        """Measure in the workers of each visit, and close them; return those that came to an end.

        They measure at the same time, so that none is timed while another one compiles; with all
        cores, one after the other, and only the first still begins after the end of the budget.
        """
        done: list[Visit] = []
        lanes = list(dict.fromkeys(visit.cores for visit in visits))
        in_a_row = 1 if lanes and lanes[0] else max(1, len(visits))
        left = self.state.seconds_left

        def measure(visit: Visit, _: Cores) -> LaneActions[None]:
            blocks = 0
            if not done or self.state.spent_seconds <= self.state.end:
                seconds = self.choose_seconds(visit, turn)
                if is_first:
                    seconds = min(seconds, FIRST_PART * left)
                end = self.state.spent_seconds + min(seconds, left / in_a_row)
                blocks = yield from self.measure_blocks(visit, turn, end)
            if blocks:
                done.append(visit)
                for side in visit.group:
                    side.note_survival(visit.workload, self.common_arms(visit))
            for side in visit.group:
                yield from self.lanes.close(side, visit.workers[side])

        yield from self.lanes.run_phase(lanes, [partial(measure, visit) for visit in visits])
        return done

    def choose_seconds(self, visit: Visit, turn: TurnKind) -> float:
        """Return how long a worker measures, by what it took to open it."""
        if self.state.is_paired:
            return PAIR_FOR_OPENING * visit.opening_seconds
        factor = LARGE_FOR_OPENING if self.state.is_large(turn.workload) else 1.0
        return factor * turn.seconds_for_opening * visit.opening_seconds

    def measure_blocks(self, visit: Visit, turn: TurnKind, end: float) -> LaneActions[int]:
        """Measure blocks until a time, one at least; return how many there were."""
        blocks = 0
        while arms := self.choose_arms(visit, turn, blocks):
            left = end - self.state.spent_seconds
            rounds = self.choose_rounds(visit, turn, len(arms), left)
            seconds = rounds * self.expect_round(visit.group, turn, len(arms))
            if blocks and (seconds / 2 > left or seconds > self.state.seconds_left):
                break
            yield from self.measure_block(visit, turn, arms, rounds)
            blocks += 1
        return blocks

    def choose_arms(self, visit: Visit, turn: TurnKind, blocks: int) -> list[str]:
        """Return the arms of a visit's next block, after so many; none if only unrequested ones."""
        arms = self.common_arms(visit)
        if blocks % UNREQUESTED_INTERVAL or turn.kind == STAGES:
            arms = [arm for arm in arms if arm not in self.state.unrequested_arms]
        return arms

    def choose_rounds(self, visit: Visit, turn: TurnKind, arms: int, left: float) -> int:
        """Return the rounds of the next block: for single calls, of all that is left.

        The first block of all has the least rounds: it tells how long a round takes.
        """
        if turn.kind == STAGES or ("turn", *turn) not in self.durations.last:
            return turn.rounds
        one = self.expect_round(visit.group, turn, arms)
        if turn.pairs_calls:
            return max(turn.rounds, min(MOST_CALL_ROUNDS, int(left / one)))
        return max(turn.rounds, min(MOST_ROUNDS, int(BLOCK_SECONDS / one)))

    def common_arms(self, visit: Visit) -> list[str]:
        """Return the living arms that all of a visit's workers hold; none without the baseline.

        Results of the arms that are timed are compared with the baseline's.
        """
        workers = visit.workers.values()
        held = set.intersection(*map(self.lanes.held_arms.__getitem__, workers))
        arms = [arm for arm in find_live_cells(visit.group, visit.workload) if arm in held]
        return arms if str(BASELINE) in arms else []

    def measure_block(
        self, visit: Visit, turn: TurnKind, arms: Sequence[str], rounds: int
    ) -> LaneActions[None]:
        """Measure one block; on two sides, each arm's turns alternate between them."""
        state = self.state
        state.spent.blocks += 1
        block, pair = state.spent.blocks, min(visit.workers.values())
        sides = state.rng.sample(visit.group, len(visit.group))
        first, *others = sides
        programs = {}
        if turn.kind == STAGES and not others:  # in a pair, each arm is compared with itself
            programs = {arm: first.cells[first.cell(arm, turn.workload)].program for arm in arms}
        command = protocol.TimeBlock(
            turn.workload,
            first.backend,
            turn.kind,
            state.rng.sample(arms, len(arms)),
            rounds,
            seed=state.rng.getrandbits(32),
            programs=programs,
        )
        action = first.make_action(
            visit.workers[first],
            command,
            cores=visit.cores,
            partner=visit.workers[others[0]] if others else 0,
            partner_environment=others[0].environment if others else "",
        )
        outcome = yield from self.lanes.ask_workers(action, *sides)
        answers: list[protocol.Timed] = outcome.answers
        state.spent.sampling_seconds += outcome.took / self.lanes.lanes_in_use
        if any(answer.samples for answer in answers):  # or it is not known how many rounds fitted
            self.durations.note(("turn", *turn), outcome.took / rounds / len(arms) / len(sides))
        state.note_disturbance(turn, is_disturbed=outcome.is_disturbed)
        for side, answer in zip(sides, answers, strict=True):
            samples = [] if outcome.is_disturbed else answer.samples
            self.lanes.keep_samples(side, samples, pair, block, visit.cores)
            disturbed = answer.seconds if outcome.is_disturbed else answer.disturbed
            cells = (side.cell(arm, turn.workload) for arm in disturbed)
            side.disturbed.update((cell, turn.kind) for cell in cells)
        if any(answer.spoiled for answer in answers):
            for side, worker in visit.workers.items():
                yield from self.lanes.close(side, worker)
            raise WorkerEndedError

    # cold processes

    def choose_sweeps(self, work: Work) -> tuple[Sequence[GroupCell], int]:
        """Return the cells of the next cold processes, as many as fit, and how many each has.

        Cells without enough come first, beside the reference; then all get one more.
        """
        cells, unswept = self.state.find_cold_cells(work), self.find_unswept(work)
        sweeps = 1
        if unswept:
            needed = self.state.find_visits_needed(work.kind)
            sweeps = needed - min(self.state.cold_counts[pair] for pair in unswept)
            reference = [pair for pair in cells if pair[1].arm in REFERENCE and pair not in unswept]
            cells = unswept if self.state.is_paired else [*reference, *unswept]
        while cells and self.expect_sweeps(cells, sweeps) > self.state.seconds_left:
            cells = [pair for pair in cells if pair[1] != cells[-1][1]]
        return cells, sweeps

    def expect_cold(self, group: Group) -> float:
        """Return the seconds of a cold process on each of a group's sides, added up."""
        return sum(self.durations.expect(("cold", side.environment)) for side in group)

    def expect_sweeps(self, pairs: Sequence[GroupCell], sweeps: int) -> float:
        """Return the seconds of cold processes of some cells, and of the proofs before them."""
        lanes = len(self.state.cores(pairs[0][0]))
        costs = [self.expect_cold(group) for group, _ in pairs]
        seconds = max(sweeps * sum(costs) / lanes, *costs)  # lanes cannot share a process
        return seconds + self.expect_proofs(pairs, lanes)

    def sweep(self, work: Work) -> Actions[None]:
        """Measure cold processes of some cells, every sweep in another random order."""
        pairs, sweeps = self.choose_sweeps(work)
        for cores in dict.fromkeys(tuple(self.state.cores(group)) for group, _ in pairs):
            there = [pair for pair in pairs if tuple(self.state.cores(pair[0])) == cores]
            yield from self.prove(there, cores)
        proven = [(g, cell) for g, cell in pairs if all(side.is_proven(cell) for side in g)]

        def processes() -> Iterator[GroupCell]:
            for _ in range(sweeps):
                yield from self.state.rng.sample(proven, len(proven))

        jobs = (
            partial(self.lanes.measure_cold, *pair)
            for pair in processes()
            if self.expect_cold(pair[0]) <= self.state.seconds_left
        )
        yield from self.lanes.run_phase(self.state.cores(pairs[0][0]), jobs)

    # what is done once

    def find_once(self, work: Work) -> tuple[SideState | None, list[Cell]]:
        """Return the first side with cells that are not counted, or not trained, and these."""
        for side in dict.fromkeys(side for group in work.groups for side in group):
            if cells := self.state.find_unfinished(work.kind, side, work.workload):
                return side, cells
        return None, []

    def do_once(self, work: Work) -> Actions[None]:
        """Count or train the cells of one side, a part of them in each lane.

        Where a worker dies, the cell that it is at and those after it are still to do.
        """
        side, cells = self.find_once(work)
        assert side is not None
        lanes, do = self.state.cores((side,)), work.kind
        reference = [c for c in side.list_live_cells(work.workload) if c.is_baseline]
        if do == "train":
            yield from self.prove(
                [((side,), c) for c in dict.fromkeys([*reference, *cells])], lanes
            )
            cells = [cell for cell in cells if side.is_proven(cell)]

        def count_or_train(part: Sequence[Cell], cores: Cores) -> LaneActions[None]:
            if do == "train":
                visit = Visit((side,), work.workload, cores)
                opened = dict.fromkeys([*reference, *part])
                worker = yield from self.lanes.open_worker(side, visit, opened)
            else:
                worker = yield from self.lanes.load(side, part, cores)
            for cell in part:
                if self.expect_once(work) > self.state.seconds_left:
                    break
                if side.cells[cell].failure is None:
                    yield from self.lanes.ask_arm(side, worker, ONCE_COMMANDS[do], cell)
                self.state.finished_once.add((do, side, cell))
            yield from self.lanes.close(side, worker)

        order = self.state.rng.sample(cells, len(cells))
        parts = [order[i :: len(lanes)] for i in range(min(len(lanes), len(order)))]
        yield from self.lanes.run_phase(lanes, [partial(count_or_train, part) for part in parts])
