"""Two tiers in one process: ALUs, what T1 shows of them, and a volume with several instances over that.

Everything that would go over a fabric takes its time here, a random number of turns of the loop; a seed gives the same
order again. ``Rrn`` is the twin of a remote LUN, ``DirectLead`` that of a session to a lead unit.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from backstores.alu.base import (
    AluDriver,
    AluError,
    AluOp,
    Backend,
    ByteRun,
    Kind,
    Transfers,
    never_beside,
    never_now,
)
from backstores.alu.memory import MemoryDriver
from backstores.block import BlockError, Op, Request
from backstores.engine.backend import Held
from backstores.engine.engine import Engine
from backstores.metadata.bitmap import Geometry
from backstores.objects import AnyObject, Leg, LegState, MirrorObject, PartitionObject
from backstores.scsi.lead import Return, Wanted
from backstores.volume.dirty import DirtyLog
from backstores.volume.extents import ExtentDevice
from backstores.volume.follower import Follower
from backstores.volume.gate import HoldLimits
from backstores.volume.lead import Lead
from backstores.volume.leadport import LeadLost, LeadPort
from backstores.volume.loss import without_legs
from backstores.volume.references import extents_of, leg_log, referenced
from backstores.volume.volume import Volume
from backstores.wwn import Wwn
from tests.support.volumes import BLOCK_BYTES, DATA, stripe_over_mirrors

EIO = 5
LONG = HoldLimits(longest_s=3600)
Turns = Callable[[], int]


async def pass_turns(turns: Turns) -> None:
    """Let others go first."""
    for _ in range(turns()):
        await asyncio.sleep(0)


class Rrn(AluDriver, Transfers):
    """A T1 unit as a driver. ``cut``: nothing gets through any more, in either direction.

    What has arrived at the unit is carried out, though whoever has sent it is dead; and who lives waits for that.
    """

    def __init__(self, unit: ExtentDevice, turns: Turns, path: str) -> None:
        self.path = path
        self.kind = Kind.MEMORY
        self.size_bytes = unit.blocks * BLOCK_BYTES
        self.sector_bytes = BLOCK_BYTES
        self.physical_bytes = unit.physical_block_bytes
        self.direct = False
        self.read_now = self.write_now = self.readv_now = self.writev_now = never_now
        self.write_beside = never_beside
        self.closed = self.cut = False
        self.under_way: set[asyncio.Task[int]] = set()  # at the unit
        self.turns = turns
        self._unit = unit

    def transfers(self, backend: Backend) -> Transfers:
        return self

    def close(self) -> None:
        self.closed = True

    def exclusive(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def settle(self) -> None:
        """Nothing goes on in the background."""

    async def readv(self, views: Sequence[memoryview], offset: int) -> int:
        into = memoryview(bytearray(sum(map(len, views))))
        answer = await self._sent(Op.READ, offset, len(into), into)
        for view in views:
            view[:], into = into[: len(view)], into[len(view) :]
        return answer

    async def writev(self, views: Sequence[memoryview], offset: int, durable: bool) -> int:
        data = memoryview(b"".join(views))
        return await self._sent(Op.WRITE, offset, len(data), data, durable)

    async def sync(self) -> int:
        return await self._sent(Op.FLUSH, 0, 0)

    async def discard(self, offset: int, length: int) -> None:
        self._raise_failed(AluOp.DISCARD, offset, await self._sent(Op.DISCARD, offset, length))

    async def zero(self, offset: int, length: int) -> None:
        self._raise_failed(AluOp.ZERO, offset, await self._sent(Op.ZERO, offset, length))

    async def status(self, offset: int, length: int) -> list[ByteRun]:
        return [ByteRun(offset, length, True)]

    async def _sent(self, op: Op, offset: int, length: int, data: memoryview | None = None, fua: bool = False) -> int:
        await self._over_the_fabric()
        task = asyncio.create_task(self._arrived(Request(op, offset // BLOCK_BYTES, length // BLOCK_BYTES, data, fua)))
        self.under_way.add(task)
        outcome = Held()

        def ended(task: asyncio.Task[int]) -> None:
            self.under_way.discard(task)
            outcome.set_result(-EIO if task.cancelled() else task.result())

        task.add_done_callback(ended)
        answer = await outcome
        await self._over_the_fabric()
        return answer

    async def _arrived(self, request: Request) -> int:
        try:
            await self._unit.submit(request)
        except BlockError:
            return -EIO
        return request.blocks * BLOCK_BYTES

    async def _over_the_fabric(self) -> None:
        await pass_turns(self.turns)
        if self.cut:
            await asyncio.get_running_loop().create_future()

    def _raise_failed(self, op: AluOp, offset: int, answer: int) -> None:
        if answer < 0:
            raise AluError.of(self.path, op, offset, -answer)


@dataclass(eq=False)
class DirectLead:
    """A nexus to a lead, without a wire."""

    lead: Lead
    follower: str
    turns: Turns
    lost: bool = False
    calls: int = 0

    async def hold(self, wanted: Wanted, returns: Sequence[Return]) -> None:
        await self._over_the_fabric()
        await self.lead.hold(self.follower, self, wanted, returns)
        await self._over_the_fabric()

    async def free(self, returns: Sequence[Return]) -> None:
        await self._over_the_fabric()
        self.lead.free(self.follower, returns)
        await self._over_the_fabric()

    def lose(self) -> None:
        """End the session, on both sides."""
        self.lost = True
        self.lead.lose(self)

    async def _over_the_fabric(self) -> None:
        self.calls += 1
        await pass_turns(self.turns)
        if self.lost:
            raise LeadLost("the session is gone")


class NoOrder:
    """What a follower would do without a lead: it takes what it wants."""

    async def hold(self, wanted: Wanted, returns: Sequence[Return]) -> None:
        return

    async def free(self, returns: Sequence[Return]) -> None:
        return


@dataclass
class Tiers:
    """The ALUs of a volume (a mirror, unless told otherwise), and what is made of them. Made anew after a crash."""

    objects: tuple[AnyObject, ...] = field(default_factory=lambda: stripe_over_mirrors(width=1))
    seed: int = 0
    most_turns: int = 6
    immediate: bool = True
    alus: dict[Wwn, MemoryDriver] = field(default_factory=dict)
    logs: dict[Wwn, DirtyLog] = field(default_factory=dict)
    lost: list[Mapping[Wwn, set[Wwn]]] = field(default_factory=list)  # what followers have told
    leads_lost: int = 0
    fences: list[str] = field(default_factory=list)
    fenced: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        for partition in self.partitions:
            self.alus[partition.alu] = MemoryDriver(DATA * 2, path=partition.alu, immediate=self.immediate)

    @property
    def partitions(self) -> list[PartitionObject]:
        return [item for item in self.objects if isinstance(item, PartitionObject)]

    @property
    def mirrors(self) -> list[MirrorObject]:
        return [item for item in self.objects if isinstance(item, MirrorObject)]

    def turns(self) -> int:
        """Say how long something takes on a fabric."""
        return self.chance.randrange(self.most_turns)

    def data(self, leg: int) -> bytes:
        """Give what a leg's partition holds."""
        extent = self.partitions[leg].extent
        return bytes(self.alus[self.partitions[leg].alu].content[extent.start_bytes : extent.end_bytes])

    @property
    def equal(self) -> bool:
        """Whether the legs of a volume that is one mirror hold the same."""
        return len({self.data(leg) for leg in range(len(self.partitions))}) == 1

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """Open what is on the T1 side; every instance has an engine of its own besides."""
        for alu in self.alus.values():
            alu.closed = False
        async with Engine() as engine:
            yield engine

    def rrns(self, t1: Engine, but: Sequence[int] = ()) -> dict[Wwn, AluDriver]:
        """Make remote LUNs of the partitions, except for those with these numbers."""
        return {
            partition.wwn: Rrn(
                ExtentDevice(t1, self.alus[partition.alu], extents_of(partition), BLOCK_BYTES),
                self.turns,
                f"rrn {number}",
            )
            for number, partition in enumerate(self.partitions)
            if number not in but
        }

    async def lead(self, t1: Engine, fresh: bool = True) -> tuple[Volume, Lead]:
        """Make the leading instance: the first leg is here (LRN), the others are remote."""
        drivers = self.rrns(t1, but=[0])
        remote = frozenset(drivers)
        drivers[self.partitions[0].alu] = self.alus[self.partitions[0].alu]
        tree = referenced(self.objects, remote)
        by_wwn = {item.wwn: item for item in tree if isinstance(item, PartitionObject)}
        make = DirtyLog.create if fresh else DirtyLog.load
        for mirror in self.mirrors:
            legs = [
                leg_log(leg.child, stored, drivers[by_wwn[leg.child].alu], remote)
                for leg in mirror.legs
                for stored in self.partitions
                if stored.wwn == leg.child and leg.state is LegState.IN_SYNC
            ]
            self.logs[mirror.wwn] = await make(t1, Geometry.of(mirror), legs)
        volume = Volume(tree, drivers, t1, self.logs, self.persist)
        return volume, Lead(volume, self.fence)

    def follower(
        self, engine: Engine, drivers: Mapping[Wwn, AluDriver], lead: LeadPort, limits: HoldLimits = LONG
    ) -> Follower:
        """Make a following instance, all legs remote."""
        return Follower(
            referenced(self.objects, frozenset(drivers)),
            drivers,
            engine,
            lead,
            legs_lost=self.lost.append,
            lead_lost=self._lead_lost,
            limits=limits,
        )

    def port(self, lead: Lead, follower: str = "sp2") -> DirectLead:
        """Make a session to the lead."""
        return DirectLead(lead, follower, self.turns)

    async def fence(self, follower: str) -> None:
        """Note who is to be fenced, and wait until a test says so."""
        self.fences.append(follower)
        await self.fenced.wait()

    async def persist(self, changed: Sequence[AnyObject]) -> None:
        """Record for the lead that legs have failed."""
        self.commit(changed)

    def commit(self, changed: Sequence[AnyObject]) -> None:
        """Take changed objects as durable."""
        newer = {item.wwn: item for item in changed}
        self.objects = tuple(newer.get(item.wwn, item) for item in self.objects)

    def without(self, lost: Mapping[Wwn, set[Wwn]]) -> None:
        """Commit a tree in which legs have failed, as the MVSP does."""
        self.commit([without_legs(m, lost[m.wwn]) for m in self.mirrors if m.wwn in lost])

    def _lead_lost(self) -> None:
        self.leads_lost += 1


def in_sync(objects: Sequence[AnyObject]) -> list[tuple[bool, ...]]:
    """Say which legs of each mirror are in sync."""

    def good(leg: Leg) -> bool:
        return leg.state is LegState.IN_SYNC

    return [tuple(map(good, item.legs)) for item in objects if isinstance(item, MirrorObject)]
