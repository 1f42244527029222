"""The choice of the next job: the largest gain per second, of what can be settled."""

from typing import Any

from bench.engine.agenda import ColdSweeps
from bench.engine.doubts import Job, Question, choose_job
from bench.estimates import MIN_WORKERS


def job(name: str, gain: float, excess: float, weight: float = 1.0, workers: int = 4) -> Job:
    """Return ten seconds that give a number with four workers as many again."""
    question = Question(weight, gain / (1 - 0.5**0.5) / weight, excess, workers, MIN_WORKERS)
    return Job(ColdSweeps(name, [], 1), [question], 4, 10, 10)


def chosen(*jobs: Job, left: float = 30.0) -> str:
    """Return the name of what comes next; empty for nothing."""
    best = choose_job(jobs, left)
    work: Any = best and best.work
    return work.workload if work else ""


def test_the_largest_gain_for_each_second_comes_next() -> None:
    assert chosen(job("small", 1, 1.5), job("large", 2, 1.5)) == "large"
    assert chosen(job("small", 1, 1.5), job("large", 2, 1.5)._replace(seconds=30)) == "small"
    assert chosen() == chosen(job("settled, without doubt", 0, 0.0)) == ""


def test_what_cannot_be_settled_waits_while_something_that_matters_more_can() -> None:
    """Thirty seconds halve an interval, so an excess of three leaves 1.5."""
    hopeless = job("wide", 5, excess=3.1, weight=0.75)
    assert chosen(job("seed", 1, excess=2.9, weight=3), hopeless) == "seed"
    assert chosen(job("seed", 1, excess=2.9, weight=3), hopeless, left=60) == "wide", "it can, now"
    assert chosen(job("seed", 1, excess=3.1, weight=3), hopeless) == "wide", "none can: all count"
    assert chosen(job("seed", 1, excess=0.9, weight=3), hopeless) == "wide", "nothing else is open"
    assert chosen(job("cold", 1, excess=2.9, weight=0.3), hopeless) == "wide", "it matters less"


def test_an_answer_that_was_begun_is_brought_to_its_end() -> None:
    begun = job("wide", 5, excess=0.0, weight=0.75, workers=2)
    assert chosen(job("seed", 1, excess=2.9, weight=3), begun) == "wide"
