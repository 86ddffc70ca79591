"""What becomes of a command that has no answer: ABORT TASK, then LOGICAL UNIT RESET, then the connection goes.

Each step ends the one before it: an abort that is not answered in time is followed by a reset, since as long as
the target may still carry the command out it must not be sent again by another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from backstores.iscsi.initiator.outbox import Outbox
from backstores.iscsi.initiator.patience import Patience
from backstores.iscsi.initiator.serials import PeerError, Serials
from backstores.iscsi.initiator.tasks import Task, TaskTable
from backstores.iscsi.pdu import NO_TAG, TaskManagementRequest
from backstores.scsi.model import Function, FunctionResponse

NEXT: Final[Mapping[Function, Function | None]] = {
    Function.ABORT_TASK: Function.LOGICAL_UNIT_RESET,
    Function.LOGICAL_UNIT_RESET: None,
}
"""What follows a function that did not help; nothing: the connection is given up."""

_HELPED: Final[Mapping[Function, frozenset[int]]] = {
    # On one connection all comes in order: what does not exist any more has been answered before.
    Function.ABORT_TASK: frozenset({FunctionResponse.COMPLETE, FunctionResponse.TASK_DOES_NOT_EXIST}),
    Function.LOGICAL_UNIT_RESET: frozenset({FunctionResponse.COMPLETE}),
}


@dataclass(frozen=True, slots=True)
class Pending:
    """A function that the target has been asked for."""

    function: Function
    task: Task
    since_s: float


class Recovery:
    """The task management functions of one connection."""

    def __init__(self, outbox: Outbox, serials: Serials, tasks: TaskTable, patience: Patience) -> None:
        self._outbox = outbox
        self._serials = serials
        self._tasks = tasks
        self._patience = patience
        self._pending: dict[int, Pending] = {}

    def tick(self, now_s: float) -> None:
        """Let time pass.

        Raises:
            PeerError: the target carries nothing out any more.
        """
        for itt, pending in tuple(self._pending.items()):
            if now_s - pending.since_s >= self._patience.function_s:
                del self._pending[itt]
                self._escalate(pending)
        busy = {pending.task.lun for pending in self._pending.values()}
        for task in tuple(self._tasks.overdue(now_s - self._patience.command_s)):
            if task.lun not in busy:  # one at a time: the next may have been held up by this one alone
                busy.add(task.lun)
                self._ask(Function.ABORT_TASK, task)

    def answered(self, itt: int, response: int) -> None:
        """Hear how a function ended.

        Raises:
            PeerError: it is none of ours, or there is nothing left to try.
        """
        pending = self._pending.pop(itt, None)
        if pending is None:
            raise PeerError("an answer to a task management function that nobody asked for")
        if response not in _HELPED[pending.function]:
            self._escalate(pending)
        elif pending.function is Function.ABORT_TASK:
            self._tasks.drop(pending.task)
        else:
            self._tasks.drop_unit(pending.task.lun)

    def _escalate(self, pending: Pending) -> None:
        following = NEXT[pending.function]
        if following is None:
            raise PeerError(f"{pending.function.name} does not help")
        self._ask(following, pending.task)

    def _ask(self, function: Function, task: Task) -> None:
        itt = self._tasks.new_itt()
        self._pending[itt] = Pending(function, task, self._tasks.now_s)
        aborts = function is Function.ABORT_TASK
        self._outbox.put(
            TaskManagementRequest.build(
                immediate=1,
                final=1,
                function=function,
                lun=task.lun,
                itt=itt,
                referenced_itt=task.itt if aborts else NO_TAG,
                cmd_sn=self._serials.cmd_sn,
                exp_stat_sn=self._serials.exp_stat_sn,
                ref_cmd_sn=task.cmd_sn if aborts else 0,
            )
        )
