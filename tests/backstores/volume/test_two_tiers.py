"""One volume by two storage processors at once: legs never differ, and nobody reads what is older (D4, D1, D2).

Hosts write overlapping ranges through the lead and through followers while every way to a leg takes its own time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from backstores.block import Op, Request
from backstores.device import BlockDevice
from backstores.engine.engine import Engine
from tests.support.history import History, content, numbers
from tests.support.tiers import NoOrder, Tiers
from tests.support.volumes import BLOCK_BYTES

SEEDS = range(8)
# Blocks round places where the legs that are read change, and regions end.
WINDOWS = (range(24), range(2040, 2060), range(500, 524))
COMMANDS = 40


class Host:
    """A host that reads and writes at random by one instance."""

    def __init__(self, name: int, device: BlockDevice, history: History, chance: random.Random) -> None:
        self.device = device
        self.history = history
        self.chance = chance
        self.number = name * 1_000_000

    async def run(self) -> None:
        for _ in range(COMMANDS):
            window = self.chance.choice(WINDOWS)
            lba = self.chance.choice(window)
            blocks = range(lba, min(window.stop, lba + self.chance.choice((1, 4, 12))))
            await self.chance.choice((self.write, self.write, self.write, self.read, self.swap))(blocks)

    async def write(self, blocks: range) -> None:
        self.number += 1
        change = self.history.begin_change(self.number, blocks)
        data = memoryview(content(self.number, len(blocks), BLOCK_BYTES))
        if not self.device.write_now(blocks.start, len(blocks), data):
            await self.device.submit(Request(Op.WRITE, blocks.start, len(blocks), data))
        self.history.end_change(change, acknowledged=True)

    async def read(self, blocks: range) -> None:
        look = self.history.begin_read(blocks)
        into = memoryview(bytearray(len(blocks) * BLOCK_BYTES))
        if not self.device.read_now(blocks.start, len(blocks), into):
            await self.device.submit(Request(Op.READ, blocks.start, len(blocks), into))
        self.history.end_read(look, numbers(bytes(into), BLOCK_BYTES))

    async def swap(self, blocks: range) -> None:
        """COMPARE AND WRITE."""
        async with self.device.hold(blocks.start, len(blocks)) as held:
            hold = self.history.begin_hold(blocks)
            look = self.history.begin_read(blocks)
            into = memoryview(bytearray(len(blocks) * BLOCK_BYTES))
            await held.submit(Request(Op.READ, blocks.start, len(blocks), into))
            self.history.end_read(look, numbers(bytes(into), BLOCK_BYTES))
            self.number += 1
            change = self.history.begin_change(self.number, blocks)
            data = memoryview(content(self.number, len(blocks), BLOCK_BYTES))
            await held.submit(Request(Op.WRITE, blocks.start, len(blocks), data))
            self.history.end_change(change, acknowledged=True, holder=True)
            self.history.end_hold(hold)


async def many_writers(tiers: Tiers, ordered: bool, followers: int) -> None:
    async with tiers.engine() as t1, Engine() as t2:
        volume, lead = await tiers.lead(t1)
        ports = [tiers.port(lead, f"sp{n}") if ordered else NoOrder() for n in range(followers)]
        others = [tiers.follower(t2, tiers.rrns(t1), port) for port in ports]
        for follower in others:
            follower.legs_equal()
        history = History(lba for window in WINDOWS for lba in window)
        devices: Sequence[BlockDevice] = [volume, volume, *others, *others]
        hosts = [Host(name, device, history, tiers.chance) for name, device in enumerate(devices, 1)]
        await asyncio.gather(*(host.run() for host in hosts))
        for follower in others:
            await follower.close()
        await volume.clean()
        assert tiers.equal
        await lead.close()
        await volume.close()
        assert not any(any(log.hot.states) for log in tiers.logs.values()), "all was given back"


@pytest.mark.parametrize("followers", [1, 3], ids=["one follower", "three followers"])
@pytest.mark.parametrize("seed", SEEDS)
def test_writers_on_several_storage_processors_leave_the_legs_alike(seed: int, followers: int) -> None:
    """D4; and D1: no read after an acknowledged write sees what was there before."""
    asyncio.run(many_writers(Tiers(seed=seed), ordered=True, followers=followers))


def test_without_the_lead_they_differ() -> None:
    """D4: what the proof above rests on. Followers that take what they want don't get through it."""

    def fails(seed: int) -> bool:
        try:
            asyncio.run(many_writers(Tiers(seed=seed), ordered=False, followers=1))
        except AssertionError:
            return True
        return False

    assert all(fails(seed) for seed in SEEDS)
