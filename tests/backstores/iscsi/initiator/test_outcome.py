"""From status and sense data to an errno, and to what is done about it."""

from __future__ import annotations

import errno

import pytest

from backstores.iscsi.initiator.outcome import Verdict, errno_of, tells, verdict_of
from backstores.iscsi.initiator.tasks import Task
from backstores.scsi.model import Status
from backstores.scsi.sense import Condition, Sense, encode


def ended(status: int | None, sense: bytes = b"") -> Task:
    """Make a task that has ended."""
    task = Task(0, bytes(16), lambda task: None)
    task.status, task.sense = status, sense
    return task


def told(condition: Condition, descriptor: bool = False) -> Task:
    """Make a task that has ended with a condition."""
    return ended(Status.CHECK_CONDITION, encode(Sense(condition), descriptor))


@pytest.mark.parametrize(
    ("status", "number", "verdict"),
    [
        (Status.GOOD, 0, Verdict.OVER),
        (Status.CONDITION_MET, 0, Verdict.OVER),
        (Status.BUSY, errno.EBUSY, Verdict.LATER),
        (Status.TASK_SET_FULL, errno.EBUSY, Verdict.LATER),
        (Status.RESERVATION_CONFLICT, errno.EBUSY, Verdict.OVER),
        (Status.TASK_ABORTED, errno.EIO, Verdict.LOST),
        (Status.ACA_ACTIVE, errno.EIO, Verdict.OVER),
        (0x77, errno.EIO, Verdict.OVER),
        (None, errno.ENOTCONN, Verdict.LOST),
    ],
)
def test_statuses(status: int | None, number: int, verdict: Verdict) -> None:
    assert errno_of(ended(status)) == number
    assert verdict_of(ended(status)) is verdict


@pytest.mark.parametrize("descriptor", [False, True], ids=["fixed", "descriptor"])
@pytest.mark.parametrize(
    ("condition", "number", "verdict"),
    [
        (Condition.UNRECOVERED_READ_ERROR, errno.EIO, Verdict.OVER),
        (Condition.WRITE_ERROR, errno.EIO, Verdict.OVER),
        (Condition.INTERNAL_TARGET_FAILURE, errno.EIO, Verdict.OVER),
        (Condition.WRITE_PROTECTED, errno.EROFS, Verdict.OVER),
        (Condition.SPACE_ALLOCATION_FAILED, errno.ENOSPC, Verdict.OVER),
        (Condition.INVALID_OPERATION_CODE, errno.EOPNOTSUPP, Verdict.OVER),
        (Condition.INVALID_FIELD_IN_CDB, errno.EINVAL, Verdict.OVER),
        (Condition.UNIT_NOT_SUPPORTED, errno.ENODEV, Verdict.OVER),
        (Condition.CAUSE_NOT_REPORTABLE, errno.ENODEV, Verdict.OVER),
        (Condition.MISCOMPARE_DURING_VERIFY, errno.EILSEQ, Verdict.OVER),
        (Condition.LUNS_CHANGED, errno.EIO, Verdict.AGAIN),
        (Condition.POWER_ON_OCCURRED, errno.EIO, Verdict.AGAIN),
    ],
)
def test_conditions(condition: Condition, number: int, verdict: Verdict, descriptor: bool) -> None:
    task = told(condition, descriptor)
    assert errno_of(task) == number
    assert verdict_of(task) is verdict
    assert tells(task, condition)


@pytest.mark.parametrize(
    ("key", "number", "verdict"),
    [(0x1, 0, Verdict.OVER), (0xB, errno.EIO, Verdict.LOST), (0x9, errno.EIO, Verdict.OVER)],
    ids=["recovered", "aborted command", "vendor specific"],
)
def test_keys_that_we_never_send_ourselves(key: int, number: int, verdict: Verdict) -> None:
    task = ended(Status.CHECK_CONDITION, bytes([0x70, 0, key]))
    assert errno_of(task) == number
    assert verdict_of(task) is verdict


@pytest.mark.parametrize("sense", [b"", b"\x70", b"\x72\x06", bytes(252)], ids=["none", "1", "2", "zeros"])
def test_sense_data_may_be_cut_short(sense: bytes) -> None:
    """S3: whatever length they have."""
    assert errno_of(ended(Status.CHECK_CONDITION, sense)) == errno.EIO
