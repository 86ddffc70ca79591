"""Several storage processors in one event loop, ordered about by a test in the VCM's place."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.control import orders
from appliance.control.reports import Committed, LegsLost, Opened, VolumeIs
from appliance.control.values import Access, AluAt, Grant, Role, Show
from appliance.decisions import RecordLegs
from appliance.messages import AluStatus, Exposure, HostDefinition
from appliance.mvsm import failed
from appliance.portals import PortalAddress
from appliance.processor.hands import AllHands, Place
from appliance.vbm import VolumeRequest, build_volume
from backstores.engine.engine import Engine
from backstores.iscsi.initiator.endpoint import Endpoint
from backstores.iscsi.initiator.login import Identity
from backstores.iscsi.initiator.questions import settle_attentions
from backstores.iscsi.initiator.session import Session, connect
from backstores.objects import MIB, AnyObject, MirrorObject, PartitionObject, VolumeObject
from backstores.wwn import Wwn

IQN = "iqn.2026-01.org.tiergate:many"
HOST = HostDefinition(name="web1", iqn="iqn.2026-01.org.host:web1")
SECRET = "between-{}-and-{}"
MEMBERS = {"linear": 1, "stripe": 2, "mirror": 2, "concat": 2, "stripe-mirror": 4}


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as found:
        port: int = found.getsockname()[1]
        return port


@dataclass
class Processors:
    """Storage processors by name, the objects of a volume, and who has which ALU open."""

    hands: dict[str, AllHands] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    reports: list[tuple[str, LegsLost | VolumeIs]] = field(default_factory=list)
    openers: dict[str, str] = field(default_factory=dict)  # path: sp
    alus: dict[str, AluStatus] = field(default_factory=dict)  # path: its status
    master: str = ""
    epoch: int = 0

    async def order(self, sp: str, order: orders.Order) -> object:
        return (await self.hands[sp].carry_out(order))[0]

    def access(self, of: str, by: str) -> Access:
        """The way that one takes to another."""
        portals = tuple(portal.numeric for portal in self.places[of].internal)
        return Access(of, portals, SECRET.format(by, of))

    async def attach(self, sp: str, path: Path, size: int = 64 * MIB) -> None:
        opened = await self.order(sp, orders.OpenAlus(paths=(str(path),), size_bytes=size))
        assert isinstance(opened, Opened)
        assert not opened.refused
        self.openers[str(path)] = sp
        self.alus[str(path)] = opened.alus[0]

    async def make_master(self, sp: str) -> None:
        """Steps 508 to 516, and claim what is blank."""
        self.master = sp
        self.epoch += 1
        for name in self.hands:
            await self.order(name, orders.Follow(epoch=self.epoch, grant=Grant(sp, SECRET.format(sp, name))))
        await self.order(sp, orders.BeMaster(epoch=self.epoch))
        ats = tuple(
            AluAt(path, self.alus[path].wwn, None if opener == sp else self.access(opener, sp))
            for path, opener in self.openers.items()
        )
        await self.order(sp, orders.Admit(epoch=self.epoch, alus=ats))
        await self.order(sp, orders.TakeUp(epoch=self.epoch))
        for path, status in self.alus.items():
            if status.wwn is None:
                claimed = await self.order(sp, orders.Claim(epoch=self.epoch, path=path))
                assert isinstance(claimed, Committed)
                self.alus[path] = claimed.alus[0]

    async def create(self, layout: str, size_bytes: int = 16 * MIB, chunk_bytes: int = 65536) -> tuple[AnyObject, ...]:
        """Steps 805 to 815: on the ALUs in the order in which they were attached."""
        return await self.create_at(self.hands[self.master], layout, self.epoch, size_bytes, chunk_bytes)

    async def create_at(
        self, hands: AllHands, layout: str, epoch: int, size_bytes: int = 16 * MIB, chunk_bytes: int = 65536
    ) -> tuple[AnyObject, ...]:
        inventory = list(self.alus.values())
        names = tuple(status.wwn for status in inventory if status.wwn is not None)[: MEMBERS[layout]]
        request = VolumeRequest(
            name="db", size_bytes=size_bytes, layout=layout, alus=names, chunk_bytes=chunk_bytes, created="now"
        )
        objects = build_volume(request, inventory).objects
        volume = objects[0].wwn
        await hands.carry_out(orders.Commit(epoch=epoch, change=orders.Change.CREATE, volume=volume, objects=objects))
        return objects

    async def fail_legs(self, objects: Sequence[AnyObject], legs: Sequence[Wwn]) -> tuple[AnyObject, ...]:
        """Give the tree in which these legs have failed, once it is durable (D3)."""
        tree, changed = failed(objects, legs)
        await self.hands[self.master].carry_out(RecordLegs(objects[0].wwn, tree, tuple(changed)))
        return tree

    async def serve(self, objects: Sequence[AnyObject], at: Sequence[str], lun: int = 0) -> None:
        """Steps 520 to 542: the first of ``at`` is alone, or leads."""
        head = objects[0]
        assert isinstance(head, VolumeObject)
        where = self.first_tier(objects)
        for sp in sorted(set(where.values())):
            mine = tuple(obj for obj in objects if isinstance(obj, PartitionObject) and where[obj.wwn] == sp)
            made = orders.MakeT1(volume=head.wwn, generation=1, block_bytes=head.block_bytes, objects=mine)
            await self.order(sp, made)
            grants = tuple(Grant(other, SECRET.format(other, sp)) for other in at if other != sp)
            await self.order(sp, orders.ExposeT1(volume=head.wwn, generation=1, grants=grants))
        show = Show((HOST,), (Exposure(host=HOST.name, volume=head.wwn, lun=lun),))
        for sp in at:
            await self.second_tier(objects, sp, at)
        for sp in at:
            await self.order(sp, orders.GoOnLine(volume=head.wwn, generation=1, show=show))

    async def second_tier(self, objects: Sequence[AnyObject], sp: str, at: Sequence[str]) -> None:
        made = self.made(objects, sp, at)
        for other in sorted({reference.sp for reference in made.references}):
            theirs = tuple(reference.object for reference in made.references if reference.sp == other)
            access = self.access(other, sp)
            await self.order(sp, orders.Discover(volume=made.volume, generation=1, access=access, objects=theirs))
        await self.order(sp, made)

    def made(self, objects: Sequence[AnyObject], sp: str, at: Sequence[str], generation: int = 1) -> orders.MakeT2:
        where = self.first_tier(objects)
        shared = len(at) > 1 and any(isinstance(obj, MirrorObject) for obj in objects)
        leads = sp == at[0]
        return orders.MakeT2(
            volume=objects[0].wwn,
            generation=generation,
            likeness="x",
            role=(Role.LEAD if leads else Role.FOLLOWER) if shared else Role.ALONE,
            objects=tuple(objects),
            references=tuple(orders.Reference(wwn, other) for wwn, other in where.items() if other != sp),
            followers=tuple(Grant(other, SECRET.format(other, sp)) for other in at[1:]) if shared and leads else (),
            lead=None if leads or not shared else self.access(at[0], sp),
        )

    def first_tier(self, objects: Sequence[AnyObject]) -> dict[Wwn, str]:
        """Say which storage processor has which partition."""
        by_wwn = {status.wwn: self.openers[path] for path, status in self.alus.items()}
        return {obj.wwn: by_wwn[obj.alu] for obj in objects if isinstance(obj, PartitionObject)}

    def legs(self, objects: Sequence[AnyObject]) -> list[list[bytes]]:
        """Give what lies on the legs of each mirror."""
        paths = {status.wwn: path for path, status in self.alus.items()}
        by_wwn = {obj.wwn: obj for obj in objects}
        found = []
        for mirror in objects:
            if isinstance(mirror, MirrorObject):
                contents = []
                for leg in mirror.legs:
                    partition = by_wwn[leg.child]
                    assert isinstance(partition, PartitionObject)
                    with open(paths[partition.alu], "rb") as file:
                        file.seek(partition.extent.start_bytes)
                        contents.append(file.read(partition.extent.length_bytes))
                found.append(contents)
        return found

    async def log_in(self, sp: str, initiator: str = HOST.iqn) -> Session:
        """Come as a host."""
        [group] = self.places[sp].hosts.values()
        portal = group[0]
        identity = Identity(initiator, IQN, isid=b"\x80\0\0\1\0\0")
        session = await connect(Endpoint(portal.address, portal.port), identity)
        await settle_attentions(session, 0)
        return session


@asynccontextmanager
async def processors(*names: str) -> AsyncIterator[Processors]:
    """Start storage processors that have nothing yet."""
    many = Processors()

    def reporter(name: str) -> Callable[[LegsLost | VolumeIs], None]:
        return lambda what: many.reports.append((name, what))

    hosts = {n: [PortalAddress("127.0.0.1", free_port("127.0.0.1"))] for n in range(1, len(names) + 1)}
    async with AsyncExitStack() as stack:
        for number, name in enumerate(names, start=1):
            engine = await stack.enter_async_context(Engine())
            internal = tuple(PortalAddress(at, free_port(at)) for at in (f"127.1.1.{number}", f"127.1.2.{number}"))
            others = {n: portals for n, portals in hosts.items() if n != number}
            place = Place(name, "many", IQN, internal, {number: hosts[number]}, others)
            hands = AllHands(engine, place, reporter(name))
            await hands.start()
            many.hands[name], many.places[name] = hands, place
        try:
            yield many
        finally:
            await asyncio.gather(*(hands.close() for hands in many.hands.values()))
