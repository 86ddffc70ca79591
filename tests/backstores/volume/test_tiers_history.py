"""A volume by three storage processors through thousands of random events: what hosts see can have been (D1-4, D7).

Hosts read, write, compare and write, and abort, by the lead and by two followers. Ways to legs and to the lead take
their time, legs hang and fail, sessions end, followers die and come again, another lead takes over, the volume is held,
power fails. What the system would do about it a few lines here do. ``tests.support.history`` judges every read; nothing
depends on time, so a seed that fails fails again.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial

import pytest

from backstores.alu.base import AluOp
from backstores.alu.memory import Fault, MemoryDriver
from backstores.block import BlockError, Op, Request
from backstores.device import BlockDevice, Submit
from backstores.engine.engine import Engine
from backstores.errors import TiergateError
from tests.support.history import content, numbers
from tests.support.tiersystem import FOLLOWERS, WINDOWS, Site, System, Tasks, TurnsLoop, drop
from tests.support.volumes import BLOCK_BYTES, DATA

SEEDS = range(10 * int(os.environ.get("TIERGATE_FUZZ", "1")))
LIVES = 4
EVENTS = 150
AT_ONCE = 10
LENGTHS = (1, 3, 8, 20)


class Simulation:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.site = Site(seed=seed, immediate=False)
        self.chance = self.site.chance
        self.history = self.site.history
        self.number = 0
        self.clock = itertools.count()
        self.written: list[tuple[int, range]] = []  # when it was begun; each was acknowledged
        self.troubles: list[Callable[[], None]] = []

    async def run(self) -> None:
        for life in range(LIVES):
            async with self.site.engine() as t1, Engine() as t2:
                self.site.nodes.clear()
                self.site.graves.clear()
                self.site.lost.clear()
                self.told = 0
                self.system = System(self.site, t1, t2)
                was_whole = self.site.whole
                self.site.rebuild()
                await self.system.start(fresh=not life)
                if was_whole:
                    self.site.require_marks()
                try:
                    for _ in range(EVENTS):
                        self._event()
                        for _ in range(self.chance.choice((0, 1, 3, 10, 40))):
                            await asyncio.sleep(0)
                        self._reap()
                    if self.chance.randrange(3):
                        await self._settle()
                    images = self._lose_power()
                finally:
                    await self._end()
            for alu, image in images:
                alu.content[:] = image
                alu.crash(lambda sector: True)

    async def _settle(self) -> None:
        """Let everything end that is under way: the legs are equal then, and everybody reads the same."""
        system = self.system
        self._end_troubles()
        while self._reap():
            for name in FOLLOWERS:
                system.join(name)
            await asyncio.sleep(0)
        for device, _ in system.devices:
            for window in WINDOWS:
                await self._read(device, window)
        if system.resync is not None:
            await system.resync
        await system.change()
        for node in self.site.nodes.values():
            await node.follower.close()
            node.dead.set()  # its session may have been lost before it could say that all is settled
        await system.volume.clean()  # what was aborted is in doubt until then
        async with system.volume.hold(0, system.volume.blocks):
            assert not self.site.whole or self.site.data(0) == self.site.data(1)
        self.site.nodes.clear()

    def _lose_power(self) -> list[tuple[MemoryDriver, bytes]]:
        for alu in self.site.alus.values():
            share = self.chance.choice((0.0, 1.0, 0.5))
            alu.crash(lambda sector, share=share: self.chance.random() < share)  # type: ignore[misc]
        self.history.crash()
        return [(alu, bytes(alu.content)) for alu in self.site.alus.values()]

    async def _end(self) -> None:
        system = self.system
        for name in FOLLOWERS:
            system.kill(name)
        self._end_troubles()
        system.volume.abandon()
        await system.lead.close()
        tasks = [*system.tasks, *(task for node in self.site.graves for task in node.tasks)]
        await drop([*tasks, *([system.resync] if system.resync else [])])
        await self.site.buried()

    def _reap(self) -> bool:
        """Look at what has ended; say whether there is more."""
        some: list[Tasks] = [tasks for _, tasks in self.system.devices]
        for tasks in some:
            for task in [task for task in tasks if task.done()]:
                del tasks[task]
                if not task.cancelled():
                    task.result()
        self._hear_of_losses()
        return any(some)

    def _hear_of_losses(self) -> None:
        while self.told < len(self.site.lost):
            self.told += 1
            self._start(self.system.change(self.site.lost[self.told - 1]), self.system.tasks)

    def _start(self, work: Coroutine[object, object, None], tasks: Tasks) -> None:
        tasks[asyncio.create_task(work)] = None

    # Events

    def _event(self) -> None:
        events: dict[Callable[[], None], int] = {
            self._ask: 40,
            self._abort: 2,
            self._trouble: 4,
            self._mend: 4,
            self._clean: 2,
            self._hold: 1,
            self._lose_session: 1,
            self._kill: 1,
            self._join: 4,
            self._move_lead: 1,
        }
        self.chance.choices(list(events), list(events.values()))[0]()

    def _ask(self) -> None:
        device, tasks = self.chance.choice(self.system.devices)
        if len(tasks) < AT_ONCE:
            window = self.chance.choice(WINDOWS)
            lba = self.chance.choice(window)
            blocks = range(lba, min(window.stop, lba + self.chance.choice(LENGTHS)))
            ask = self.chance.choice((self._read, self._read, self._write, self._write, self._write, self._swap))
            self._start(ask(device, blocks), tasks)

    def _abort(self) -> None:
        _, tasks = self.chance.choice(self.system.devices)
        hosts = sorted((t for t in tasks if _of_a_host(t)), key=lambda task: int(task.get_name().rpartition("-")[2]))
        if hosts:
            self.chance.choice(hosts).cancel()

    def _trouble(self) -> None:
        if self.system.calm:
            return
        alu = self.chance.choice(list(self.site.alus.values()))
        op = self.chance.choice((AluOp.READ, AluOp.WRITE, AluOp.WRITE))
        if self.chance.randrange(6):
            self.troubles.append(alu.hold(op).open)
        else:
            fault = alu.fail(op, offset=self.chance.choice((0, DATA)), times=1)
            self.troubles.append(partial(_mend, alu, fault))

    def _mend(self) -> None:
        if self.troubles:
            self.troubles.pop(self.chance.randrange(len(self.troubles)))()

    def _end_troubles(self) -> None:
        for end in self.troubles:
            end()
        self.troubles.clear()

    def _clean(self) -> None:
        self._start(_or_not(self.system.volume.clean()), self.system.tasks)

    def _hold(self) -> None:
        self._start(self.system.change(), self.system.tasks)

    def _lose_session(self) -> None:
        for node in list(self.site.nodes.values())[:1]:
            node.port.lose()

    def _kill(self) -> None:
        self.system.kill(self.chance.choice(FOLLOWERS))

    def _join(self) -> None:
        self.system.join(self.chance.choice(FOLLOWERS))

    def _move_lead(self) -> None:
        self._start(self.system.move_lead(), self.system.tasks)

    # What hosts ask for

    async def _read(self, device: Submit, blocks: range) -> None:
        look = self.history.begin_read(blocks)
        into = memoryview(bytearray(len(blocks) * BLOCK_BYTES))
        try:
            await device.submit(Request(Op.READ, blocks.start, len(blocks), into))
        except BlockError:
            self.history.forget(look)
        except BaseException:
            self.history.forget(look)
            raise
        else:
            self.history.end_read(look, numbers(bytes(into), BLOCK_BYTES))

    async def _write(self, device: Submit, blocks: range) -> None:
        begun = next(self.clock)
        if await self._written(device, blocks):
            self.written.append((begun, blocks))

    async def _written(self, device: Submit, blocks: range) -> bool:
        self.number += 1
        change = self.history.begin_change(self.number, blocks)
        data = memoryview(content(self.number, len(blocks), BLOCK_BYTES))
        acknowledged, fua = False, not self.chance.randrange(3)
        with suppress(BlockError):
            try:
                await device.submit(Request(Op.WRITE, blocks.start, len(blocks), data, fua))
                acknowledged = True
            finally:
                self.history.end_change(change, acknowledged, durable=fua)
        return acknowledged

    async def _swap(self, device: BlockDevice, blocks: range) -> None:
        """COMPARE AND WRITE: if it ends well, nobody has written since the comparison."""
        with suppress(BlockError):
            async with device.hold(blocks.start, len(blocks)) as held:
                since, before = next(self.clock), len(self.written)
                await self._read(held, blocks)
                if await self._written(held, blocks):
                    for begun, others in self.written[before:]:
                        apart = others.stop <= blocks.start or blocks.stop <= others.start
                        assert apart or begun < since, f"{others} was written while somebody held {blocks}"


def _mend(alu: MemoryDriver, fault: Fault) -> None:
    with suppress(ValueError):  # all faults were mended meanwhile
        alu.mend(fault)


def _of_a_host(task: asyncio.Task[None]) -> bool:
    return any(name in repr(task.get_coro()) for name in ("_read", "_write", "_swap"))


async def _or_not(work: Awaitable[None]) -> None:
    with suppress(TiergateError):
        await work


@pytest.mark.parametrize("seed", SEEDS)
def test_what_hosts_see_of_three_storage_processors_can_have_been(seed: int) -> None:
    """D1 to D4, D7: no acknowledged write is lost, two reads never go back, legs differ only where that is marked."""
    with asyncio.Runner(loop_factory=TurnsLoop) as runner:
        runner.run(Simulation(seed).run())
