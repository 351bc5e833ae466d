"""Pieces of work and who does them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .hand import Hand
from .settings import Job


@dataclass(frozen=True)
class Task:
    """A piece of work: the name under which the outcome is stored, and what to do, as `Hand.work` takes it."""

    name: str
    content: str


Work = Callable[[str, Iterator[Task]], Iterator[tuple[str, bytes]]]
"""A stage's name and its tasks to each one's name and outcome, in any order."""


def own_hand(job: Job) -> Work:
    """Work done here, one task after the other."""
    hand = Hand(job)

    def work(stage: str, tasks: Iterator[Task]) -> Iterator[tuple[str, bytes]]:
        for task in tasks:
            yield task.name, hand.work(stage, task.content)

    return work
