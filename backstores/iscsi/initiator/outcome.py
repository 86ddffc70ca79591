"""How a command ended, in the words of the kernel: from status and sense data to an errno, by tables.

SPC-4 clause 4.5 and annex F.2 have the codes. What is named neither by its code nor by its key is an I/O error.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Mapping
from typing import Final

from backstores.errors import TiergateError
from backstores.iscsi.initiator.tasks import Task
from backstores.scsi.model import Status
from backstores.scsi.sense import Condition, Key, Sense, codes_of, encode

RECOVERED_ERROR: Final = 0x1
ABORTED_COMMAND: Final = 0xB

BY_STATUS: Final[Mapping[int | None, int]] = {
    Status.GOOD: 0,
    Status.CONDITION_MET: 0,
    Status.BUSY: errno.EBUSY,
    Status.TASK_SET_FULL: errno.EBUSY,
    Status.RESERVATION_CONFLICT: errno.EBUSY,
    None: errno.ENOTCONN,
}
BY_CODE: Final[Mapping[tuple[int, int, int], int]] = {
    Condition.SPACE_ALLOCATION_FAILED.value: errno.ENOSPC,
    Condition.INVALID_OPERATION_CODE.value: errno.EOPNOTSUPP,
    Condition.UNIT_NOT_SUPPORTED.value: errno.ENODEV,
}
BY_KEY: Final[Mapping[int, int]] = {
    RECOVERED_ERROR: 0,
    Key.NOT_READY: errno.ENODEV,
    Key.ILLEGAL_REQUEST: errno.EINVAL,
    Key.DATA_PROTECT: errno.EROFS,
    Key.MISCOMPARE: errno.EILSEQ,
}


GONE: Final = encode(Sense(Condition.UNIT_NOT_SUPPORTED))
"""What a unit says that is not there any more."""


class Verdict(enum.Enum):
    """What to do with a task that has ended."""

    OVER = "tell who asked for it"
    AGAIN = "send it again: it was not begun"
    LATER = "send it again after a while: it was not begun"
    LOST = "send it again if it may be repeated: nobody knows whether it was begun"


VERDICTS: Final[Mapping[int | None, Verdict]] = {
    Status.BUSY: Verdict.LATER,
    Status.TASK_SET_FULL: Verdict.LATER,
    Status.TASK_ABORTED: Verdict.LOST,
    None: Verdict.LOST,
}
VERDICTS_BY_KEY: Final[Mapping[int, Verdict]] = {
    Key.UNIT_ATTENTION: Verdict.AGAIN,
    ABORTED_COMMAND: Verdict.LOST,
}


class CommandFailed(TiergateError):
    """A command that did not end well."""

    def __init__(self, message: str, number: int, sense: bytes = b"") -> None:
        super().__init__(message)
        self.errno = number
        self.sense = sense

    @property
    def attention(self) -> bool:
        """Whether the unit just had something to tell."""
        return bool(self.sense) and codes_of(self.sense)[0] == Key.UNIT_ATTENTION


class ConnectionLost(CommandFailed):
    """A command without an answer: nobody knows whether it was carried out."""

    def __init__(self, message: str) -> None:
        super().__init__(message, errno.ENOTCONN)


def errno_of(task: Task) -> int:
    """Give the errno of a task that has ended; 0: it was carried out."""
    if task.status != Status.CHECK_CONDITION:
        return BY_STATUS.get(task.status, errno.EIO)
    codes = codes_of(task.sense)
    return BY_CODE.get(codes, BY_KEY.get(codes[0], errno.EIO))


def verdict_of(task: Task) -> Verdict:
    """Say what to do with a task that has ended."""
    if task.status == Status.CHECK_CONDITION:
        return VERDICTS_BY_KEY.get(codes_of(task.sense)[0], Verdict.OVER)
    return VERDICTS.get(task.status, Verdict.OVER)


def tells(task: Task, condition: Condition) -> bool:
    """Whether a task has ended with a condition."""
    return task.status == Status.CHECK_CONDITION and codes_of(task.sense) == condition.value
