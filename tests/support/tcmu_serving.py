"""A TCMU handler at work on a simulated device, and commands that reach it through the ring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from struct import pack

from backstores.block import Op, Request, Run
from backstores.device import BlockDevice, MemoryDevice
from backstores.errors import TiergateError
from backstores.scsi.store import MemoryStore
from backstores.scsi.target import Exposed, TargetDevice, TargetNexus
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.tcmu.handler import Handler, hear_attentions
from tests.support.scsi import IQN, WWN
from tests.support.tcmu_kernel import Outcome, SimulatedDevice, SimulatedKernel

TEST_UNIT_READY = bytes(6)
INQUIRY = bytes([0x12, 0, 0, 0, 255, 0])
BLOCKS = 256
PATTERN = bytes(range(256)) * 8


def read_10(lba: int, blocks: int) -> bytes:
    return pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write_10(lba: int, blocks: int) -> bytes:
    return pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


async def turns() -> None:
    """Let the loop do all that it can do now: each turn looks at the device, too."""
    for _ in range(20):
        await asyncio.sleep(0)


class StuckDevice(MemoryDevice):
    """A device whose requests wait until the test lets them go."""

    def __init__(self) -> None:
        super().__init__(BLOCKS)
        self.immediate = False
        self.go = asyncio.Event()
        self.entered = asyncio.Event()
        self.requests = 0

    async def submit(self, request: Request) -> list[Run]:
        self.requests += request.op in (Op.READ, Op.WRITE)
        self.entered.set()
        await self.go.wait()
        return await super().submit(request)


@dataclass
class Served:
    """A handler at work on a simulated device."""

    kernel: SimulatedKernel
    shared: SimulatedDevice
    device: BlockDevice
    unit: LogicalUnit
    nexus: TargetNexus
    handler: Handler
    losses: list[TiergateError] = field(default_factory=list)

    def queue(self, cdb: bytes, data: bytes = b"", data_in_bytes: int = 0) -> int:
        """Put a command into the ring, without waking the handler."""
        number = self.kernel.command(cdb, data, data_in_bytes)
        assert number is not None
        return number

    async def outcome(self, number: int) -> Outcome:
        """Wait until a command has been given back."""
        while number not in self.kernel.outcomes:
            await asyncio.sleep(0)
        return self.kernel.outcomes[number]

    async def send(self, cdb: bytes, data: bytes = b"", data_in_bytes: int = 0) -> Outcome:
        """Put a command into the ring, wake the handler, and wait for its end."""
        number = self.queue(cdb, data, data_in_bytes)
        self.shared.wake()
        return await self.outcome(number)


@asynccontextmanager
async def serving(
    device: BlockDevice | None = None, queued: Sequence[tuple[bytes, bytes, int]] = (), ring_bytes: int = 16384
) -> AsyncIterator[Served]:
    """Serve a unit; ``queued`` is in the ring before the handler starts."""
    kernel = SimulatedKernel(ring_bytes=ring_bytes, random=Random(4))
    for cdb, data, data_in_bytes in queued:
        assert kernel.command(cdb, data, data_in_bytes) is not None
    shared = SimulatedDevice(kernel)
    device = device or MemoryDevice(BLOCKS)
    unit = LogicalUnit(device, Identity(WWN), MemoryStore())
    nexus = TargetDevice(IQN).open_nexus("iqn.2026-11.example:lio,i,0x0", {0: Exposed(unit)})
    await hear_attentions(nexus)
    losses: list[TiergateError] = []
    handler = Handler(shared, nexus, losses.append)
    yield Served(kernel, shared, device, unit, nexus, handler, losses)
    await handler.close()
    assert shared.closed


def with_served(
    work: Callable[[Served], Awaitable[None]], make_device: Callable[[], BlockDevice] = lambda: MemoryDevice(BLOCKS)
) -> None:
    """Run a test in a loop of its own."""

    async def main() -> None:
        async with serving(make_device()) as served:
            await work(served)

    asyncio.run(asyncio.wait_for(main(), 30))
