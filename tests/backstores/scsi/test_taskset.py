"""Task attributes: which commands may run (SAM-5 clause 8)."""

from __future__ import annotations

import pytest

from backstores.scsi.model import Attribute
from backstores.scsi.store import NexusName
from backstores.scsi.taskset import Task, TaskSet, TaskState
from backstores.scsi.unit import Attachment, TargetPort
from tests.support.scsi import memory_unit

LETTERS = {"S": Attribute.SIMPLE, "O": Attribute.ORDERED, "H": Attribute.HEAD_OF_QUEUE}


def filled(attributes: str) -> tuple[TaskSet, list[Task]]:
    """Make a task set out of letters, the oldest task first."""
    owner = Attachment(memory_unit(), NexusName("a", 1), TargetPort("iqn.x"))
    tasks = [Task(owner, tag, LETTERS[letter]) for tag, letter in enumerate(attributes)]
    tasksset = TaskSet()
    for task in tasks:
        tasksset.add(task)
    return tasksset, tasks


def running(tasks: list[Task]) -> str:
    """Show which tasks are enabled."""
    return "".join("x" if task.state is TaskState.ENABLED else "." for task in tasks)


@pytest.mark.parametrize(
    ("attributes", "enabled"),
    [
        ("SSS", "xxx"),
        ("OSS", "x.."),
        ("SOS", "x.."),
        ("SSO", "xx."),
        ("OO", "x."),
        ("HS", "x."),
        ("SHS", "xx."),
        ("HH", "xx"),
        ("OH", "xx"),
        ("HO", "x."),
        ("SOSH", "x..x"),
    ],
)
def test_what_is_enabled_on_arrival(attributes: str, enabled: str) -> None:
    assert running(filled(attributes)[1]) == enabled


def test_each_end_enables_those_that_waited() -> None:
    tasks_set, tasks = filled("SOSSOS")
    seen = [running(tasks)]
    for done in range(6):
        tasks_set.remove(tasks[done])
        seen.append(running(tasks[done + 1 :]))
    assert seen == ["x.....", "x....", "xx..", "x..", "x.", "x", ""]


def test_an_aborted_task_stands_in_the_way_until_it_has_ended() -> None:
    tasks_set, tasks = filled("OS")
    assert tasks_set.abort(lambda task: task is tasks[0]) == (tasks[0],)
    assert running(tasks) == ".."
    assert not tasks_set.unordered
    tasks_set.remove(tasks[0])
    assert running(tasks) == ".x"
    assert tasks_set.unordered


def test_an_aborted_dormant_task_does_not_wake_up() -> None:
    tasks_set, tasks = filled("OSS")
    tasks_set.abort(lambda task: task is tasks[1])
    tasks_set.remove(tasks[0])
    assert [task.state for task in tasks] == [TaskState.ENDED, TaskState.ABORTED, TaskState.ENABLED]


def test_watchers_hear_once() -> None:
    tasks_set, tasks = filled("OS")
    heard: list[TaskState] = []
    tasks[1].watch(lambda: heard.append(tasks[1].state))
    tasks_set.remove(tasks[0])
    tasks_set.remove(tasks[1])
    assert heard == [TaskState.ENABLED]


def test_looks_at_each_command_no_more_than_once() -> None:
    """C3: thousands of commands behind one that takes long don't hold up the loop whenever one of them ends."""
    tasks_set, [head] = filled("H")
    looks = 0

    class Watched(Task):
        """Counts how often its attribute is asked for."""

        @property
        def attribute(self) -> Attribute:
            nonlocal looks
            looks += 1
            return Attribute.SIMPLE

        @attribute.setter
        def attribute(self, _: Attribute) -> None: ...

    waiting = [Watched(head.owner, number, Attribute.SIMPLE) for number in range(300)]
    for task in waiting:
        tasks_set.add(task)
    assert looks <= 3 * 300
    looks = 0
    tasks_set.remove(waiting[-1])
    assert looks <= 3 * 300
    assert len(tasks_set) == 300
