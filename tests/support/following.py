"""A lead and a follower at work over a mirror of two legs, and what tests do with them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from backstores.block import Op, Request
from backstores.device import Submit
from backstores.engine.engine import Engine
from backstores.volume.follower import Follower
from backstores.volume.gate import HoldLimits
from backstores.volume.lead import Lead
from backstores.volume.volume import Volume
from backstores.wwn import Wwn
from tests.support.tiers import LONG, DirectLead, Rrn, Tiers
from tests.support.volumes import BLOCK_BYTES

BLOCKS = 8
SECOND_STEP = 2048  # blocks from here on are read from the second leg
AT_ONCE = HoldLimits(longest_s=0)


@dataclass
class Site:
    """A lead and a follower at work."""

    tiers: Tiers
    t1: Engine
    volume: Volume
    lead: Lead
    port: DirectLead
    rrns: dict[Wwn, Rrn]
    follower: Follower

    def rrn(self, leg: int) -> Rrn:
        """Give the follower's way to a leg."""
        return self.rrns[self.tiers.partitions[leg].wwn]

    def kill(self) -> None:
        """Have the follower's process die: nothing of it gets anywhere any more."""
        for rrn in self.rrns.values():
            rrn.cut = True
        self.port.lose()


@asynccontextmanager
async def site(limits: HoldLimits = LONG, seed: int = 0) -> AsyncIterator[Site]:
    tiers = Tiers(seed=seed, immediate=False)
    async with tiers.engine() as t1, Engine() as t2:
        volume, lead = await tiers.lead(t1)
        port = tiers.port(lead)
        rrns = {wwn: driver for wwn, driver in tiers.rrns(t1).items() if isinstance(driver, Rrn)}
        follower = tiers.follower(t2, rrns, port, limits)
        await write(follower, 1)
        yield Site(tiers, t1, volume, lead, port, rrns, follower)
        for rrn in rrns.values():
            rrn.cut = False


def run(scenario: Callable[[Site], Awaitable[None]], limits: HoldLimits = LONG) -> None:
    async def within() -> None:
        async with site(limits) as here:
            await asyncio.wait_for(scenario(here), 20)

    asyncio.run(within())


def pattern(seed: int) -> memoryview:
    return memoryview(random.Random(seed).randbytes(BLOCKS * BLOCK_BYTES))


async def write(device: Submit, seed: int, lba: int = 0) -> None:
    await device.submit(Request(Op.WRITE, lba, BLOCKS, pattern(seed)))


async def read(device: Submit, lba: int = 0) -> bytes:
    data = bytearray(BLOCKS * BLOCK_BYTES)
    await device.submit(Request(Op.READ, lba, BLOCKS, memoryview(data)))
    return bytes(data)


async def turns(count: int = 100) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
