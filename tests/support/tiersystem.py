"""A system of three storage processors that serve one volume: what holds, changes and resumes its instances."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from backstores.device import BlockDevice
from backstores.engine.engine import Engine
from backstores.errors import UsageError
from backstores.objects import AnyObject, Leg, LegState, MirrorObject
from backstores.volume.follower import Follower
from backstores.volume.volume import Volume
from backstores.wwn import Wwn
from tests.support.history import History
from tests.support.tiers import LONG, DirectLead, Rrn, Tiers
from tests.support.volumes import BLOCK_BYTES, DATA

FOLLOWERS = ("sp2", "sp3")
WINDOWS = (range(24), range(500, 524))  # all read from one leg, whoever reads; a region ends within the second
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
                await drop([self.resync])
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


async def drop(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, and wait for their ends."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
