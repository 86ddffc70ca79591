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
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import msgspec
import pytest

from backstores.alu.base import AluOp
from backstores.alu.memory import Fault, MemoryDriver
from backstores.block import BlockError, Op, Request
from backstores.device import BlockDevice, Submit
from backstores.engine.engine import Engine
from backstores.errors import TiergateError, UsageError
from backstores.objects import AnyObject, Leg, LegState, MirrorObject
from backstores.volume.follower import Follower
from backstores.volume.volume import Volume
from backstores.wwn import Wwn
from tests.support.history import History, content, numbers
from tests.support.tiers import LONG, DirectLead, Rrn, Tiers
from tests.support.volumes import BLOCK_BYTES, DATA

SEEDS = range(10 * int(os.environ.get("TIERGATE_FUZZ", "1")))
LIVES = 4
EVENTS = 150
AT_ONCE = 10
FOLLOWERS = ("sp2", "sp3")
WINDOWS = (range(24), range(500, 524))  # all read from one leg, whoever reads; a region ends within the second
LENGTHS = (1, 3, 8, 20)
LOOK_S = 0.0001

Tasks = dict[asyncio.Task[None], None]  # in order, so that a seed does the same again


class TurnsLoop(asyncio.SelectorEventLoop):
    """A loop whose clock goes on when somebody looks at it: timers come due by turns, and not by time."""

    _now_s = 0.0

    def time(self) -> float:
        self._now_s += LOOK_S
        return self._now_s


@dataclass(eq=False)
class Node:
    """A storage processor that follows."""

    name: str
    follower: Follower
    port: DirectLead
    rrns: Sequence[Rrn]
    tasks: Tasks = field(default_factory=dict)
    dead: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Site(Tiers):
    """ALUs, and what the system knows: who is dead, and which tree is committed."""

    history: History = field(default_factory=lambda: History(lba for window in WINDOWS for lba in window))
    nodes: dict[str, Node] = field(default_factory=dict)
    graves: list[Node] = field(default_factory=list)

    async def fence(self, follower: str) -> None:
        """Wait until the one of this name is dead, and what it had sent to legs has been carried out."""
        node = self.nodes.get(follower)
        if node is not None:
            await node.dead.wait()
        await self.buried()

    async def buried(self) -> None:
        """Wait for what the dead had sent to legs."""
        while waiting := [task for node in self.graves for rrn in node.rrns for task in rrn.under_way]:
            await asyncio.wait(waiting)

    def without(self, lost: Mapping[Wwn, set[Wwn]]) -> None:
        self.history.lose_leg()
        super().without(lost)

    @property
    def whole(self) -> bool:
        """Whether all legs are in sync."""
        return all(leg.state is LegState.IN_SYNC for leg in self.mirrors[0].legs)

    def rebuild(self) -> None:
        """Give the mirror its failed leg back, as a copy of the good one."""
        [mirror] = self.mirrors
        good = next(n for n, leg in enumerate(mirror.legs) if leg.state is LegState.IN_SYNC)
        alus = list(self.alus.values())
        for number, leg in enumerate(mirror.legs):
            if leg.state is not LegState.IN_SYNC:
                alus[number].content[DATA:] = alus[good].content[DATA:]
        whole = msgspec.structs.replace(mirror, legs=tuple(Leg(leg.child) for leg in mirror.legs))
        self.objects = tuple(whole if item is mirror else item for item in self.objects)

    def require_marks(self) -> None:
        """Make sure that legs differ only where a dirty bit says so (D2)."""
        [log] = self.logs.values()
        size = log.geometry.region_blocks * BLOCK_BYTES
        for region in set(range(log.geometry.regions)) - set(log.dirty_at_open):
            part = slice(region * size, (region + 1) * size)
            assert self.data(0)[part] == self.data(1)[part], f"region {region} is clean, and differs"


class System:
    """The lead, the followers, and what holds, changes and resumes them all: one life, from power to power."""

    def __init__(self, site: Site, t1: Engine, t2: Engine) -> None:
        self.site = site
        self._t1 = t1
        self._t2 = t2
        self._one_at_a_time = asyncio.Lock()
        self.calm = False  # nothing may fail now
        self.tasks: Tasks = {}
        site.persist = self._persist  # type: ignore[method-assign]

    async def start(self, fresh: bool) -> None:
        """Bring the volume on line."""
        await self._lead(fresh)
        for name in FOLLOWERS:
            self.join(name)

    async def _lead(self, fresh: bool) -> None:
        self.volume, self.lead = await self.site.lead(self._t1, fresh)
        await self.volume.publish_logs()
        self.resync = asyncio.create_task(self.volume.resynchronize()) if self.volume.pin_reads() else None

    @property
    def devices(self) -> list[tuple[BlockDevice, Tasks]]:
        """Give what hosts can speak to, and where each keeps what is under way."""
        return [(self.volume, self.tasks), *((node.follower, node.tasks) for node in self.site.nodes.values())]

    # Followers come and go

    def join(self, name: str) -> None:
        """Have a follower start, unless all are held, or find its lead again."""
        node = self.site.nodes.get(name)
        if node is None and not self._one_at_a_time.locked():
            port = self.site.port(self.lead, name)
            rrns = self.site.rrns(self._t1)
            follower = self.site.follower(self._t2, rrns, port)
            self.site.nodes[name] = Node(name, follower, port, [rrn for rrn in rrns.values() if isinstance(rrn, Rrn)])
            self._install(follower)
        elif node is not None and node.port.lost:
            node.port = self.site.port(self.lead, name)
            node.follower.follow(node.port)

    def kill(self, name: str) -> None:
        """Have a follower die: what has not arrived anywhere never will."""
        node = self.site.nodes.pop(name, None)
        if node is not None:
            for rrn in node.rrns:
                rrn.cut = True
            node.port.lose()
            for task in node.tasks:
                task.cancel()
            self.site.graves.append(node)
            node.dead.set()

    # What concerns all

    async def change(self, lost: Mapping[Wwn, set[Wwn]] | None = None) -> None:
        """Hold all, commit a tree without the legs that are lost, and go on (D3)."""
        async with self._one_at_a_time:
            await self._hold_all()
            spared = {leg.child for leg in self.site.mirrors[0].legs if leg.state is LegState.IN_SYNC}
            for legs in (lost or {}).values():
                if spared - legs:
                    self.site.without(lost or {})
            self.volume.resume(self._tree(self.volume))
            for node in self.site.nodes.values():
                node.follower.resume(self._tree(node.follower))

    async def move_lead(self) -> None:
        """Have another instance lead."""
        async with self._one_at_a_time:
            self.calm = True
            for alu in self.site.alus.values():
                alu.mend()
            await self._hold_all()
            await self.lead.close()
            self.volume.abandon()
            if self.resync is not None:
                await _drop([self.resync])
            await self.site.buried()
            await self._lead(fresh=False)
            for node in self.site.nodes.values():
                node.port = self.site.port(self.lead, node.name)
                node.follower.resume(lead=node.port)
            self.calm = False

    async def _hold_all(self) -> None:
        """Hold followers, then the lead. From then on no leg is touched, but by what the dead have sent (D7)."""
        for node in list(self.site.nodes.values()):
            hold = asyncio.create_task(node.follower.hold_all(LONG))
            node.tasks[hold] = None
            await asyncio.wait([hold])
        await self.volume.hold_all(LONG)
        await self.site.buried()
        seen = [len(alu.log) for alu in self.site.alus.values()]
        for _ in range(self.site.chance.randrange(30)):
            await asyncio.sleep(0)
        assert [len(alu.log) for alu in self.site.alus.values()] == seen, "a leg was touched while all were held"

    async def _persist(self, changed: Sequence[AnyObject]) -> None:
        """Have legs recorded as failed that the lead has lost."""
        lost = {
            mirror.wwn: {leg.child for leg in mirror.legs if leg.state is LegState.FAILED}
            for mirror in changed
            if isinstance(mirror, MirrorObject)
        }
        change = asyncio.create_task(self.change(lost))
        self.tasks[change] = None
        await asyncio.shield(change)
        failed = {leg.child for leg in self.site.mirrors[0].legs if leg.state is LegState.FAILED}
        if not all(legs <= failed for legs in lost.values()):
            raise UsageError("they can't be spared any more")

    def _install(self, follower: Follower) -> None:
        follower.install(self._tree(follower))
        follower.legs_equal()

    def _tree(self, instance: Volume | Follower) -> list[AnyObject]:
        newer = {mirror.wwn: mirror for mirror in self.site.mirrors}
        return [newer.get(item.wwn, item) for item in instance.objects]


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
        await _drop([*tasks, *([system.resync] if system.resync else [])])
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


async def _drop(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_hosts_see_of_three_storage_processors_can_have_been(seed: int) -> None:
    """D1 to D4, D7: no acknowledged write is lost, two reads never go back, legs differ only where that is marked."""
    with asyncio.Runner(loop_factory=TurnsLoop) as runner:
        runner.run(Simulation(seed).run())
