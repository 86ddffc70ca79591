"""A volume through thousands of random events: what hosts see of it is a history that can have been (D1-3, D7).

Hosts read, write, discard, flush, compare and write, and abort, by the hot path and by the general one; legs hang,
fail and fill up; the volume is held, and goes on; power fails, and some sectors survive. ``tests.support.history``
judges every read. A seed that fails fails again in the same way: nothing here depends on time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import msgspec
import pytest

from backstores.alu.base import AluOp
from backstores.alu.memory import Fault, Gate, MemoryDriver
from backstores.block import BlockError, Op, Request
from backstores.device import Submit
from backstores.errors import TiergateError, UsageError
from backstores.objects import AnyObject, Leg, LegState, MirrorObject
from backstores.volume.gate import HoldLimits
from backstores.volume.volume import Volume
from tests.support.history import Change, History, content, numbers
from tests.support.volumes import BLOCK_BYTES, DATA, Machine, stripe_over_mirrors

SEEDS = range(12 * int(os.environ.get("TIERGATE_FUZZ", "1")))
STEPS = 1200
LIFE_STEPS = (60, 260)  # from one start of the volume to the next
AT_ONCE = 8
# In each mirror, blocks around: the first chunks, the end of a region, of a step of reads, and of the mirror.
EDGES = (0, 512, 2048, DATA // BLOCK_BYTES)
REACH = 24
LENGTHS = (1, 1, 3, 8, 16, 20, 40)


@dataclass
class Site(Machine):
    """ALUs, and a memory of which legs have failed that sometimes can't be written."""

    history: History = field(default_factory=lambda: History(()))
    forgetful: bool = False

    async def persist(self, changed: Sequence[AnyObject]) -> None:
        await asyncio.sleep(0)
        if self.forgetful:
            raise UsageError("nothing can be recorded")
        self.history.lose_leg()
        await super().persist(changed)

    @property
    def mirrors(self) -> list[MirrorObject]:
        return [obj for obj in self.objects if isinstance(obj, MirrorObject)]

    def rebuild(self) -> None:
        """Give every mirror its failed legs back, as copies of one that is good."""
        for number, mirror in enumerate(self.mirrors):
            good = next(n for n, leg in enumerate(mirror.legs) if leg.state is LegState.IN_SYNC)
            for n, leg in enumerate(mirror.legs):
                if leg.state is not LegState.IN_SYNC:
                    self.leg(number, n).content[DATA:] = self.leg(number, good).content[DATA:]
            legs = tuple(Leg(leg.child) for leg in mirror.legs)
            self.objects = tuple(
                msgspec.structs.replace(mirror, legs=legs) if obj is mirror else obj for obj in self.objects
            )

    def require_marks(self) -> None:
        """Make sure that legs differ only where a dirty bit says so (D2)."""
        for number, mirror in enumerate(self.mirrors):
            if all(leg.state is LegState.IN_SYNC for leg in mirror.legs):
                one, other = self.data(number, 0), self.data(number, 1)
                size = mirror.region_blocks * BLOCK_BYTES
                for region, state in enumerate(self.logs[mirror.wwn].hot.states):
                    part = slice(region * size, (region + 1) * size)
                    assert state or one[part] == other[part], f"mirror {number}: region {region} is clean and differs"


class Simulation:
    """One seed."""

    def __init__(self, seed: int, width: int) -> None:
        self.chance = random.Random(seed)
        self.width = width
        end = width * EDGES[-1]
        self.windows = [range(max(0, width * e - REACH), min(end, width * e + REACH)) for e in EDGES]
        self.history = History(lba for window in self.windows for lba in window)
        self.site = Site(stripe_over_mirrors(width), history=self.history)
        self.number = 0
        self.running: set[asyncio.Task[None]] = set()
        self.troubles: list[Callable[[], None]] = []  # each call ends one
        self.cleaning: asyncio.Task[None] | None = None
        self.holding: asyncio.Task[None] | None = None

    async def run(self) -> None:
        fresh, left, resync = True, STEPS, None
        while left > 0:
            life = self.chance.randrange(*LIFE_STEPS)
            async with self.site.volume(fresh) as volume:
                try:
                    resync = await self._start(volume)
                    for _ in range(life):
                        self._event(volume)
                        for _ in range(self.chance.choice((0, 0, 1, 3, 10))):
                            await asyncio.sleep(0)
                        self._reap()
                    images = self._lose_power() if self.chance.randrange(3) else await self._stop(volume, resync)
                finally:
                    await self._drop([*self.running, *([resync] if resync else [])])
            for alu, image in images:
                alu.content[:] = image
                alu.crash(lambda sector: True)
            self.site.rebuild()
            fresh, left = False, left - life
        async with self.site.volume(fresh=False) as volume:
            resync = await self._start(volume)
            if resync is not None:
                await resync
            await self._read_all(volume)
            for mirror in range(self.width):
                assert self.site.data(mirror, 0) == self.site.data(mirror, 1)

    # Lives

    async def _start(self, volume: Volume) -> asyncio.Task[None] | None:
        for log in self.site.logs.values():
            log.hot.states[:] = bytes(len(log.hot.states))
            for region in log.dirty_at_open:
                log.hot.states[region] = 1
        self.site.require_marks()
        await volume.publish_logs()
        return asyncio.create_task(volume.resynchronize()) if volume.pin_reads() else None

    def _lose_power(self) -> list[tuple[MemoryDriver, bytes]]:
        """Let each leg keep none, all or some of what it has not flushed."""
        for alu in self.site.alus.values():
            share = self.chance.choice((0.0, 1.0, 0.5))
            alu.crash(lambda sector, share=share: self.chance.random() < share)  # type: ignore[misc]
        self.history.crash()
        return [(alu, bytes(alu.content)) for alu in self.site.alus.values()]

    async def _stop(self, volume: Volume, resync: asyncio.Task[None] | None) -> list[tuple[MemoryDriver, bytes]]:
        """Stop cleanly: what runs may end; then all is durable, whatever happens next."""
        while self.running:
            self._end_troubles()
            await asyncio.sleep(0)
            self._reap()
        await self._read_all(volume)
        await volume.clean()
        self.site.require_marks()
        if resync is not None:
            await self._drop([resync])
        flush = self.history.begin_flush()
        await volume.close()
        self.history.end_flush(flush)
        self.site.require_marks()
        return self._lose_power()

    async def _drop(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.running.clear()
        self._end_troubles()

    def _reap(self) -> None:
        for task in [task for task in self.running if task.done()]:
            self.running.remove(task)
            if not task.cancelled():
                task.result()

    # Events

    def _event(self, volume: Volume) -> None:
        events = (self._ask, self._abort, self._trouble, self._mend, self._clean, self._hold)
        self.chance.choices(events, (30, 2, 4, 4, 3, 1))[0](volume)

    def _ask(self, volume: Volume) -> None:
        if len(self.running) >= AT_ONCE:
            return
        window = self.chance.choice(self.windows)
        length = min(self.chance.choice(LENGTHS), len(window))
        lba = self.chance.randrange(window.start, window.stop - length + 1)
        blocks = range(lba, lba + length)
        asks: tuple[Callable[[Volume, range], Awaitable[None] | None], ...]
        asks = (self._read_now, self._read, self._write_now, self._write, self._clear, self._flush, self._swap)
        work = self.chance.choices(asks, (6, 3, 8, 4, 2, 1, 2))[0](volume, blocks)
        if work is not None:
            self.running.add(asyncio.ensure_future(work))  # type: ignore[arg-type]

    def _abort(self, volume: Volume) -> None:
        if self.running:
            tasks = sorted(self.running, key=lambda task: int(task.get_name().rpartition("-")[2]))
            self.chance.choice(tasks).cancel()

    def _clean(self, volume: Volume) -> None:
        if self.cleaning is None or self.cleaning.done():
            self.cleaning = asyncio.create_task(self._cleaned(volume))
            self.running.add(self.cleaning)

    async def _cleaned(self, volume: Volume) -> None:
        try:
            await volume.clean()
        except TiergateError:
            return

    def _trouble(self, volume: Volume) -> None:
        """Let a leg hang, fail or fill up, for a while."""
        alu = self.site.leg(self.chance.randrange(self.width), self.chance.randrange(2))
        op = self.chance.choice((AluOp.READ, AluOp.WRITE, AluOp.WRITE, AluOp.WRITE, AluOp.FLUSH, AluOp.DISCARD))
        match self.chance.randrange(20):
            case 0 | 1:
                fault = alu.fail(op, errno.EIO, offset=self.chance.choice((0, DATA)), times=self.chance.choice((1, 3)))
                self.troubles.append(partial(_mend, alu, fault))
            case 2 | 3:
                alu.room_bytes = (len(alu.mapped) + self.chance.randrange(4)) * 4096
                self.troubles.append(partial(setattr, alu, "room_bytes", None))
            case 4:
                self.site.forgetful = True
                self.troubles.append(partial(setattr, self.site, "forgetful", False))
            case 5 | 6:
                alu.short_bytes = 1024
                self.troubles.append(partial(setattr, alu, "short_bytes", None))
            case _:
                gate: Gate = alu.hold(op)
                self.troubles.append(gate.open)

    def _hold(self, volume: Volume) -> None:
        """Hold the volume for a while. Once it is held, no leg is touched (D7)."""
        if self.holding is None or self.holding.done():
            self.holding = asyncio.create_task(self._held(volume))
            self.running.add(self.holding)

    async def _held(self, volume: Volume) -> None:
        self.troubles.append(volume.resume)
        try:
            await volume.hold_all(HoldLimits(most_waiting=AT_ONCE // 2, longest_s=3600))
        except UsageError:
            return  # it was resumed before all had ended
        seen = [len(alu.log) for alu in self.site.alus.values()]
        while volume.held_for_s:
            assert [len(alu.log) for alu in self.site.alus.values()] == seen, "a leg was touched while it was held"
            await asyncio.sleep(0)

    def _mend(self, volume: Volume) -> None:
        if self.troubles:
            self.troubles.pop(self.chance.randrange(len(self.troubles)))()

    def _end_troubles(self) -> None:
        for end in self.troubles:
            end()
        self.troubles.clear()

    # What hosts ask for

    def _read_now(self, volume: Volume, blocks: range) -> None:
        into = memoryview(bytearray(len(blocks) * BLOCK_BYTES))
        look = self.history.begin_read(blocks)
        if volume.read_now(blocks.start, len(blocks), into):
            self.history.end_read(look, numbers(bytes(into), BLOCK_BYTES))
        else:
            self.history.forget(look)

    async def _read(self, volume: Volume, blocks: range) -> None:
        look = self.history.begin_read(blocks)
        found = None
        try:
            found = await _read_by(volume, blocks)
        except BlockError:
            return
        finally:
            if found is None:
                self.history.forget(look)
        self.history.end_read(look, found)

    def _write_now(self, volume: Volume, blocks: range) -> Awaitable[None] | None:
        """Write as a front end does: on the hot path, else the general way; some are aborted in between."""
        change = self._begin(blocks)
        done = volume.write_now(blocks.start, len(blocks), memoryview(content(change.number, len(blocks), BLOCK_BYTES)))
        if done or not self.chance.randrange(6):
            self.history.end_change(change, acknowledged=done)
            return None
        return self._carry_out(volume, change, Op.WRITE, fua=False)

    def _write(self, volume: Volume, blocks: range) -> Awaitable[None]:
        return self._carry_out(volume, self._begin(blocks), Op.WRITE, fua=not self.chance.randrange(3))

    def _clear(self, volume: Volume, blocks: range) -> Awaitable[None]:
        op = self.chance.choice((Op.DISCARD, Op.ZERO))
        return self._carry_out(volume, self._begin(blocks, 0), op, fua=not self.chance.randrange(3))

    async def _carry_out(self, volume: Volume, change: Change, op: Op, fua: bool) -> None:
        blocks = change.blocks
        data = memoryview(content(change.number, len(blocks), BLOCK_BYTES)) if op is Op.WRITE else None
        acknowledged = False
        try:
            await volume.submit(Request(op, blocks.start, len(blocks), data, fua))
            acknowledged = True
        except BlockError:
            return
        finally:
            self.history.end_change(change, acknowledged, durable=fua)

    async def _flush(self, volume: Volume, blocks: range) -> None:
        look = self.history.begin_flush()
        try:
            await volume.submit(Request(Op.FLUSH, 0, 0))
        except BaseException as error:
            self.history.forget(look)
            if not isinstance(error, BlockError):
                raise
        else:
            self.history.end_flush(look)

    async def _swap(self, volume: Volume, blocks: range) -> None:
        """COMPARE AND WRITE: nobody writes between the comparison and the end."""
        with suppress(BlockError):
            async with volume.hold(blocks.start, len(blocks)) as held:
                hold = self.history.begin_hold(blocks)
                try:
                    await self._swap_held(held, blocks)
                finally:
                    self.history.end_hold(hold)

    async def _swap_held(self, held: Submit, blocks: range) -> None:
        look = self.history.begin_read(blocks)
        try:
            found = await _read_by(held, blocks)
        except BaseException:
            self.history.forget(look)
            raise
        self.history.end_read(look, found)
        if self.chance.randrange(2):
            await self._write_held(held, blocks)

    async def _write_held(self, held: Submit, blocks: range) -> None:
        change = self._begin(blocks)
        acknowledged = False
        try:
            data = memoryview(content(change.number, len(blocks), BLOCK_BYTES))
            await held.submit(Request(Op.WRITE, blocks.start, len(blocks), data))
            acknowledged = True
        finally:
            self.history.end_change(change, acknowledged, holder=True)

    def _begin(self, blocks: range, number: int | None = None) -> Change:
        if number is None:
            self.number += 1
            number = self.number
        return self.history.begin_change(number, blocks)

    async def _read_all(self, volume: Volume) -> None:
        for window in self.windows:
            await self._read(volume, window)


async def _read_by(volume: Submit, blocks: range) -> list[int]:
    into = memoryview(bytearray(len(blocks) * BLOCK_BYTES))
    await volume.submit(Request(Op.READ, blocks.start, len(blocks), into))
    return numbers(bytes(into), BLOCK_BYTES)


def _mend(alu: MemoryDriver, fault: Fault) -> None:
    alu.mend(fault)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("width", [1, 2], ids=["mirror", "stripe over mirrors"])
def test_what_hosts_see_can_have_been(width: int, seed: int) -> None:
    """D1, D2, D3: no acknowledged write is lost, two reads never go back, and legs differ only where that is marked."""
    asyncio.run(Simulation(seed, width).run())
