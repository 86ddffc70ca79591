"""What other storage processors see of one, and how they are shut out."""

from __future__ import annotations

import asyncio

from appliance.processor.internal import InternalTarget
from backstores.block import Request, Run
from backstores.device import MemoryDevice
from backstores.iscsi.access import Account
from backstores.scsi.model import Command
from backstores.scsi.transfers import Write16
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.wwn import new_object_wwn

WWN = new_object_wwn()
PEER = "iqn.2026-01.org.tiergate:many.sp2.t2"


class SlowDevice(MemoryDevice):
    """A device whose requests wait until they are let go."""

    def __init__(self) -> None:
        super().__init__(blocks=64)
        self.immediate = False
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def submit(self, request: Request) -> list[Run]:
        self.begun.set()
        await self.go.wait()
        return await super().submit(request)


def test_who_is_shut_out_has_no_write_under_way_any_more() -> None:
    """M5, D4: what was withdrawn is safe to be given to others only when nothing of the old ones can land there."""

    async def scenario() -> None:
        device, target = SlowDevice(), InternalTarget("iqn.2026-01.org.tiergate:many.sp1.t1", ())
        target.grant(PEER, "a secret that is long enough", {WWN: lambda: LogicalUnit(device, Identity(WWN))})
        nexus = target.open_nexus(Account(PEER), PEER, b"\x80\0\0\1\0\0", target.name, 1)
        write = Command(Write16.build(lba=0, blocks=1), data_out=memoryview(b"x" * 512))
        while (first := await nexus.execute(0, Command(bytes(6)))) is not None and first.status:
            pass  # it learns that it has just come
        writing = asyncio.create_task(nexus.execute(0, write))
        await device.begun.wait()
        shutting_out = asyncio.create_task(target.withdraw_quietly({WWN}))
        await asyncio.wait([shutting_out], timeout=0.05)
        assert not shutting_out.done()
        device.go.set()
        await shutting_out
        assert writing.done() or await writing is None
        assert await nexus.execute(0, write) is not None, "it is told that nothing is there"

    asyncio.run(scenario())
