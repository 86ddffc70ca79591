"""The task set of a unit: which commands may run now (SAM-5 clause 8).

A command is *dormant* until those it must wait for have ended, then *enabled*. Tiergate has one task set for
all nexuses of a unit. The rules:

    HEAD OF QUEUE   waits for nothing
    ORDERED         waits for everything older
    SIMPLE          waits for every HEAD OF QUEUE, and for older ORDERED commands

An aborted command stays in the set until it has really ended: what its disk is doing can't be called back,
and nobody may believe it is over before it is.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from backstores.scsi.model import Attribute
from backstores.scsi.sense import Condition
from backstores.scsi.store import NexusName


class TaskState(enum.Enum):
    """Where a command is in its life."""

    DORMANT = enum.auto()
    ENABLED = enum.auto()
    ABORTED = enum.auto()  # no answer any more, but it may still be at work
    ENDED = enum.auto()


class Owner(Protocol):
    """What a task set needs to know of the attachment through which a command came."""

    nexus: NexusName

    def tell(self, condition: Condition) -> None:
        """Establish a unit attention."""


class Task:
    """One command in the set. ``owner`` is the attachment it came through."""

    __slots__ = ("_watchers", "attribute", "owner", "state", "tag")

    def __init__(self, owner: Owner, tag: int, attribute: Attribute) -> None:
        self.owner = owner
        self.tag = tag
        self.attribute = attribute
        self.state = TaskState.DORMANT
        self._watchers: list[Callable[[], None]] = []

    @property
    def aborted(self) -> bool:
        """Whether nobody waits for its answer any more."""
        return self.state is TaskState.ABORTED

    def watch(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, when the state changes next."""
        self._watchers.append(callback)

    def enter(self, state: TaskState) -> None:
        """Take on a state, and tell those who watch."""
        if self.state is state:
            return
        self.state = state
        watchers, self._watchers = self._watchers, []
        for callback in watchers:
            callback()


class TaskSet:
    """The commands of one unit in the order in which they came.

    Nothing here takes more than one look at each command: hosts choose how many there are.
    """

    def __init__(self) -> None:
        self._tasks: dict[Task, None] = {}
        self._of: Counter[Attribute] = Counter()

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def unordered(self) -> bool:
        """Whether a new SIMPLE command would be enabled at once: the licence of the hot path."""
        return not (self._of[Attribute.ORDERED] or self._of[Attribute.HEAD_OF_QUEUE])

    def add(self, task: Task) -> None:
        """Take a new command in, and enable it if nothing stands in its way."""
        if not self._must_wait(task, older=len(self._tasks), older_ordered=self._of[Attribute.ORDERED]):
            task.enter(TaskState.ENABLED)
        self._tasks[task] = None
        self._of[task.attribute] += 1

    def remove(self, task: Task) -> None:
        """Let go of a command that has ended, and enable those that waited for it."""
        del self._tasks[task]
        self._of[task.attribute] -= 1
        task.enter(TaskState.ENDED)
        self._enable_ready()

    def abort(self, chosen: Callable[[Task], bool]) -> tuple[Task, ...]:
        """Mark commands as aborted and give them; each leaves the set by ``remove`` when it has ended."""
        aborted = tuple(task for task in self._tasks if chosen(task))
        for task in aborted:
            task.enter(TaskState.ABORTED)
        return aborted

    def _enable_ready(self) -> None:
        older_ordered = 0
        for older, task in enumerate(tuple(self._tasks)):
            if task.state is TaskState.DORMANT and not self._must_wait(task, older, older_ordered):
                task.enter(TaskState.ENABLED)
            older_ordered += task.attribute is Attribute.ORDERED

    def _must_wait(self, task: Task, older: int, older_ordered: int) -> bool:
        match task.attribute:
            case Attribute.HEAD_OF_QUEUE:
                return False
            case Attribute.ORDERED:
                return bool(older or self._of[Attribute.HEAD_OF_QUEUE])
            case _:
                return bool(older_ordered or self._of[Attribute.HEAD_OF_QUEUE])
