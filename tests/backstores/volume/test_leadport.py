"""The way to a lead by SCSI commands: what the lead unit answers becomes what a follower can act on (D4)."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable

import pytest

from backstores.block import BlockError, Busy, WriteFailed
from backstores.iscsi.initiator.outcome import CommandFailed, ConnectionLost
from backstores.scsi.lead import LeadUnit, Return, Wanted
from backstores.scsi.model import Command, Status
from backstores.scsi.target import Exposed, TargetDevice, TargetNexus
from backstores.volume.gate import HoldLimits
from backstores.volume.lead import Lead
from backstores.volume.leadport import LeadLost, LeadPort, RemoteLead
from backstores.volume.volume import Volume
from tests.support.scsi import IQN
from tests.support.tiers import Tiers

LUN = 0


class Target:
    """Carries commands to a nexus as an initiator would, without repeating any."""

    def __init__(self, nexus: TargetNexus | None = None) -> None:
        self.nexus = nexus
        self.failure: CommandFailed | None = None

    async def execute(
        self, lun: int, cdb: bytes, data_in_bytes: int = 0, data_out: bytes = b"", *, repeatable: bool = True
    ) -> object:
        assert not repeatable
        if self.failure is not None:
            raise self.failure
        assert self.nexus is not None
        answer = await self.nexus.execute(lun, Command(cdb, memoryview(data_out)))
        if answer is None:
            raise ConnectionLost("aborted")
        if answer.status is not Status.GOOD:
            raise CommandFailed("refused", errno.EBUSY if answer.status is Status.BUSY else errno.EIO, answer.sense)
        return memoryview(b"")


def by_wire(scenario: Callable[[Tiers, Volume, Lead, RemoteLead, TargetNexus], Awaitable[None]]) -> None:
    async def run() -> None:
        tiers = Tiers()
        async with tiers.engine() as t1:
            volume, lead = await tiers.lead(t1)
            unit = LeadUnit(volume.wwn, lead)
            nexus = TargetDevice(IQN).open_nexus("iqn.2026-11.example:sp2.t2,i,0x00023d000001", {LUN: Exposed(unit)})
            await scenario(tiers, volume, lead, RemoteLead(Target(nexus), LUN), nexus)
            await lead.close()

    asyncio.run(run())


def test_a_follower_by_wire_writes_in_order() -> None:
    """A range that another has is waited for, and given back with the next HOLD."""

    async def scenario(tiers: Tiers, volume: Volume, lead: Lead, port: LeadPort, nexus: TargetNexus) -> None:
        await port.hold(Wanted(1, 0, 8), [])
        second = asyncio.create_task(port.hold(Wanted(2, 4, 8), []))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not second.done()
        await port.hold(Wanted(3, 100, 8), [Return(1, True)])
        await second
        await port.free([Return(2, True), Return(3, True), Return(99, True)])

    by_wire(scenario)


def test_a_session_that_ends_leaves_its_ranges_to_nobody() -> None:
    """D2: until nothing can come of it any more."""

    async def scenario(tiers: Tiers, volume: Volume, lead: Lead, port: LeadPort, nexus: TargetNexus) -> None:
        await port.hold(Wanted(1, 0, 8), [])
        nexus.close()
        other = asyncio.create_task(lead.hold("sp3", "a nexus", Wanted(1, 0, 8)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert tiers.fences == ["iqn.2026-11.example:sp2.t2"]
        assert not other.done()
        tiers.fenced.set()
        await other

    by_wire(scenario)


def test_a_range_that_is_not_there_is_refused() -> None:
    async def scenario(tiers: Tiers, volume: Volume, lead: Lead, port: LeadPort, nexus: TargetNexus) -> None:
        for wanted in (Wanted(1, volume.blocks, 1), Wanted(2, 0, 0), Wanted(3, (1 << 64) - 1, 1)):
            with pytest.raises(WriteFailed):
                await port.hold(wanted, [])

    by_wire(scenario)


def test_a_lead_that_is_held_is_busy() -> None:
    async def scenario(tiers: Tiers, volume: Volume, lead: Lead, port: LeadPort, nexus: TargetNexus) -> None:
        await volume.hold_all(HoldLimits(longest_s=0))
        with pytest.raises(Busy):
            await port.hold(Wanted(1, 0, 8), [])
        volume.resume()
        await port.hold(Wanted(2, 0, 8), [])

    by_wire(scenario)


FAILURES = {
    "no answer": (ConnectionLost("gone"), LeadLost),
    "no unit": (CommandFailed("gone", errno.ENODEV), LeadLost),
    "busy": (CommandFailed("busy", errno.EBUSY), Busy),
    "anything else": (CommandFailed("failed", errno.EIO), WriteFailed),
}


@pytest.mark.parametrize(("failure", "raised"), FAILURES.values(), ids=FAILURES)
def test_what_a_follower_is_told(failure: CommandFailed, raised: type[BlockError | LeadLost]) -> None:
    async def scenario() -> None:
        target = Target()
        target.failure = failure
        port = RemoteLead(target, LUN)
        with pytest.raises(raised):
            await port.hold(Wanted(1, 0, 8), [])
        with pytest.raises(LeadLost):
            await port.free([Return(1, True)])

    asyncio.run(scenario())
