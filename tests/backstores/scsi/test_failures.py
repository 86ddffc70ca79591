"""A device that fails, and what hosts hear of it."""

from __future__ import annotations

import pytest

from backstores.block import BlockError, Busy, NoSpace, Offline, Op, ReadFailed, Request, Run, WriteFailed
from backstores.device import MemoryDevice
from backstores.scsi import transfers as t
from backstores.scsi.model import Status
from backstores.scsi.sense import Condition, FixedSense
from backstores.scsi.unit import Identity, LogicalUnit
from tests.support.scsi import BLOCK, WWN, Host, condition


class FailingDevice(MemoryDevice):
    """Fails one kind of request."""

    def __init__(self, op: Op, failure: BlockError) -> None:
        super().__init__(64)
        self.op, self.failure = op, failure

    async def submit(self, request: Request) -> list[Run]:
        if request.op is self.op:
            raise self.failure
        return await super().submit(request)


CASES = {
    "read": (Op.READ, ReadFailed("gone", 9), t.Read10.build(lba=8, blocks=4), Condition.UNRECOVERED_READ_ERROR),
    "verify": (Op.READ, ReadFailed("gone", 9), t.Verify10.build(lba=8, blocks=4), Condition.UNRECOVERED_READ_ERROR),
    "write": (Op.WRITE, WriteFailed("gone", 9), t.Write10.build(lba=8, blocks=1), Condition.WRITE_ERROR),
    "full": (Op.WRITE, NoSpace("full", 9), t.Write10.build(lba=8, blocks=1), Condition.SPACE_ALLOCATION_FAILED),
    "zeros": (Op.ZERO, NoSpace("full", 9), t.WriteSame10.build(lba=8, blocks=1), Condition.SPACE_ALLOCATION_FAILED),
    "flush": (Op.FLUSH, WriteFailed("gone", 9), t.SynchronizeCache10.build(), Condition.WRITE_ERROR),
    "orwrite": (Op.READ, ReadFailed("gone", 9), t.Orwrite.build(lba=9, blocks=1), Condition.UNRECOVERED_READ_ERROR),
    "off line": (Op.READ, Offline("closing", 9), t.Read10.build(lba=8, blocks=1), Condition.CAUSE_NOT_REPORTABLE),
}


@pytest.mark.parametrize(("op", "failure", "cdb", "found"), CASES.values(), ids=CASES.keys())
def test_failures_name_the_block(op: Op, failure: BlockError, cdb: bytes, found: Condition) -> None:
    """A failing disk is a sense, never a crash; the information field holds the block."""
    response = Host.at(LogicalUnit(FailingDevice(op, failure), Identity(WWN))).send(cdb, bytes(BLOCK))
    assert condition(response) is found
    sense = FixedSense.parse(response.sense)
    assert (sense.valid, sense.information) == (1, 9)


@pytest.mark.parametrize("op", [Op.READ, Op.WRITE, Op.FLUSH], ids=lambda op: op.value)
def test_a_volume_that_is_held_for_too_long_is_busy(op: Op) -> None:
    """D7: hosts send a command again that ended BUSY."""
    host = Host.at(LogicalUnit(FailingDevice(op, Busy("held", 9)), Identity(WWN)))
    cdbs = {
        Op.READ: t.Read10.build(blocks=1),
        Op.WRITE: t.Write10.build(blocks=1),
        Op.FLUSH: t.SynchronizeCache10.build(),
    }
    response = host.send(cdbs[op], bytes(BLOCK) if op is Op.WRITE else b"")
    assert (response.status, response.sense) == (Status.BUSY, b"")


def test_after_a_failure_the_unit_goes_on() -> None:
    device = FailingDevice(Op.WRITE, WriteFailed("gone", 0))
    host = Host.at(LogicalUnit(device, Identity(WWN)))
    host.refused(t.Write10.build(blocks=1), bytes(BLOCK))
    assert len(host.good(t.Read10.build(blocks=1))) == BLOCK
    assert host.nexus.fast_write
