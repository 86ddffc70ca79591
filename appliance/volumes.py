"""The volumes of a storage processor: found on the ALUs, brought on line, changed, and stopped.

A volume comes on line when all of it is there: every partition of every leg in sync. One whose newest
leg may be missing stays off line and says which ALU it waits for, because what is left could be old
(D3). After an unclean stop it comes on line at once, and dirty regions are copied meanwhile (D2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from appliance.inventory import Inventory
from appliance.messages import VolumeState, VolumeStatus
from backstores.engine.engine import Engine
from backstores.errors import TiergateError, UsageError
from backstores.metadata.bitmap import Geometry, Place
from backstores.metadata.merge import VolumeTree, system_image
from backstores.objects import AnyObject, Extent, LegState, MirrorObject, PartitionObject, VolumeObject
from backstores.scsi.store import UnitStore
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.volume import loss
from backstores.volume.dirty import DirtyLog, LegLog
from backstores.volume.volume import Volume
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

CLEAN_INTERVAL_S = 5.0
"""How often dirty regions grow older: an idle one is clear after two to three of these."""


@dataclass(slots=True)
class Served:
    """A volume that is on line."""

    volume: Volume
    unit: LogicalUnit
    resync: asyncio.Task[None] | None = None
    resync_fraction: float = 0.0


@dataclass(slots=True)
class Known:
    """A volume that was found on the ALUs; ``served`` is None while it is off line."""

    objects: tuple[AnyObject, ...]
    reason: str = ""
    served: Served | None = None

    @property
    def head(self) -> VolumeObject:
        """The volume object."""
        head = self.objects[0]
        assert isinstance(head, VolumeObject)
        return head


@dataclass(slots=True)
class Volumes:
    """All volumes of a storage processor, and how they come on line and go."""

    engine: Engine
    inventory: Inventory
    unit_store: UnitStore
    known: dict[Wwn, Known] = field(default_factory=dict)

    async def assemble(self) -> None:
        """Look at what the ALUs hold, and bring on line what is complete and is not yet."""
        image = system_image(self.inventory.records())
        for finding in image.findings:
            log.warning("%s", finding)
        on_line = {wwn: known for wwn, known in self.known.items() if known.served is not None}
        found = {tree.volume.wwn: _known(tree) for tree in image.volumes}
        self.known = {**found, **on_line}
        for wwn, known in found.items():
            if wwn not in on_line and not known.reason:
                await self._bring_on_line(known)

    async def _bring_on_line(self, known: Known) -> None:
        try:
            volume = await self._open(known.objects, fresh=False)
        except TiergateError as error:
            known.reason = str(error)
            log.error("volume %s stays off line: %s", known.head.name, error)
            return
        self._serve(known, volume)
        log.info("volume %s is on line", known.head.name)

    def _serve(self, known: Known, volume: Volume) -> None:
        served = Served(volume, LogicalUnit(volume, Identity(volume.wwn), self.unit_store))
        known.served, known.reason = served, ""
        if volume.pin_reads():
            log.warning("volume %s was not stopped cleanly: copying its dirty regions", known.head.name)
            served.resync = asyncio.create_task(self._resynchronize(known, served))

    async def _resynchronize(self, known: Known, served: Served) -> None:
        def progress(fraction: float) -> None:
            served.resync_fraction = fraction

        try:
            await served.volume.resynchronize(progress)
            log.info("volume %s: all legs are equal again", known.head.name)
        except TiergateError as error:
            log.error("volume %s: resynchronization ended: %s", known.head.name, error)

    async def _open(self, objects: Sequence[AnyObject], fresh: bool) -> Volume:
        by_wwn = {obj.wwn: obj for obj in objects}
        logs = {obj.wwn: await self._dirty_log(obj, by_wwn, fresh) for obj in objects if isinstance(obj, MirrorObject)}
        volume = objects[0].wwn

        async def persist(changed: Sequence[AnyObject]) -> None:
            await self._persist(self.known[volume], changed)

        return Volume(objects, self.inventory.drivers, self.engine, logs, persist)

    async def _dirty_log(self, mirror: MirrorObject, by_wwn: dict[Wwn, AnyObject], fresh: bool) -> DirtyLog:
        legs = []
        for leg in mirror.legs:
            if leg.state is LegState.IN_SYNC:
                partition = _first_partition(leg.child, by_wwn)
                driver = self.inventory.drivers.get(partition.alu)
                if driver is None:
                    raise UsageError(f"alu {partition.alu} is not attached")
                legs.append(LegLog(leg.child, driver, Place.of(partition)))
        make = DirtyLog.create if fresh else DirtyLog.load
        return await make(self.engine, Geometry.of(mirror), legs)

    async def _persist(self, known: Known, changed: Sequence[AnyObject]) -> None:
        """Store changed objects on every ALU but those that only failed legs stand on."""
        newer = {obj.wwn: obj for obj in changed}
        objects = tuple(newer.get(obj.wwn, obj) for obj in known.objects)
        needed = {leaf.alu for leaf in _live_partitions(objects)}
        everywhere = {obj.alu for obj in objects if isinstance(obj, PartitionObject)}
        await self.inventory.store(objects, spared=frozenset(everywhere - needed))
        known.objects = objects

    # What the management asks for

    async def create(self, objects: tuple[AnyObject, ...]) -> Known:
        """Make a new volume: its space empty, its bitmaps clean, its objects stored, and on line."""
        head = objects[0]
        assert isinstance(head, VolumeObject)
        if any(known.head.name == head.name for known in self.known.values()):
            raise UsageError(f"there is a volume {head.name!r} already")
        known = Known(objects)
        volume = await self._empty(objects)
        await self.inventory.store(objects)
        self.known[head.wwn] = known
        self._serve(known, volume)
        return known

    async def _empty(self, objects: tuple[AnyObject, ...]) -> Volume:
        """Give all space back first: hosts must find zeros, and legs must be equal, whatever lay there before."""
        for obj in objects:
            if isinstance(obj, PartitionObject):
                driver = self.inventory.drivers.get(obj.alu)
                if driver is None:
                    raise UsageError(f"alu {obj.alu} is not attached")
                await self.engine.discard(driver, obj.extent.start_bytes, obj.extent.length_bytes)
        return await self._open(objects, fresh=True)

    async def replace(self, objects: tuple[AnyObject, ...]) -> Known:
        """Go on with a grown tree: what is new is emptied, stored, and put under the running volume."""
        known = self.by_wwn(objects[0].wwn)
        served = self._served(known)
        before = {obj.wwn for obj in known.objects}
        for obj in objects:
            if isinstance(obj, PartitionObject) and obj.wwn not in before:
                driver = self.inventory.drivers[obj.alu]
                await self.engine.discard(driver, obj.extent.start_bytes, obj.extent.length_bytes)
        by_wwn = {obj.wwn: obj for obj in objects}
        for obj in objects:
            if isinstance(obj, MirrorObject) and obj.wwn not in before:
                served.volume.add_log(obj.wwn, await self._dirty_log(obj, by_wwn, fresh=True))
        async with served.volume.hold(0, served.volume.blocks):
            await self.inventory.store(objects)
            known.objects = objects
            served.volume.install(objects)
        served.unit.resized()
        return known

    async def delete(self, wwn: Wwn) -> None:
        """Take a volume off line and off the ALUs."""
        known = self.by_wwn(wwn)
        await self._take_off_line(known)
        await self.inventory.remove(wwn)
        del self.known[wwn]

    async def clean(self) -> None:
        """Clear the dirty bits of regions that are idle."""
        for known in list(self.known.values()):
            if known.served is not None:
                try:
                    await known.served.volume.clean()
                except TiergateError as error:
                    log.error("volume %s: %s", known.head.name, error)

    async def close(self) -> None:
        """Stop all volumes cleanly."""
        for known in self.known.values():
            await self._take_off_line(known)

    async def _take_off_line(self, known: Known) -> None:
        served, known.served = known.served, None
        if served is None:
            return
        if served.resync is not None:
            served.resync.cancel()
            await asyncio.gather(served.resync, return_exceptions=True)
        served.unit.close()
        try:
            await served.volume.close()
        except TiergateError as error:
            log.error("volume %s was not stopped cleanly: %s", known.head.name, error)

    def by_wwn(self, wwn: Wwn) -> Known:
        """Give a volume.

        Raises:
            UsageError: there is no such volume.
        """
        known = self.known.get(wwn)
        if known is None:
            raise UsageError(f"there is no volume {wwn}")
        return known

    def _served(self, known: Known) -> Served:
        if known.served is None:
            raise UsageError(f"volume {known.head.name!r} is off line: {known.reason}")
        return known.served

    def using(self, alu: Wwn) -> list[str]:
        """Name the volumes that have a partition on an ALU."""
        return [
            known.head.name
            for known in self.known.values()
            if any(isinstance(obj, PartitionObject) and obj.alu == alu for obj in known.objects)
        ]

    def status(self, known: Known) -> VolumeStatus:
        """Describe a volume."""
        head, served = known.head, known.served
        objects = known.objects if served is None else served.volume.objects
        faults = loss.degraded(objects)
        state, percent = VolumeState.ONLINE, None
        if served is None:
            state = VolumeState.OFFLINE
        elif served.resync is not None and not served.resync.done():
            state, percent = VolumeState.RESYNC, round(100 * served.resync_fraction, 1)
        elif faults:
            state = VolumeState.DEGRADED
        return VolumeStatus(
            wwn=head.wwn,
            name=head.name,
            state=state,
            blocks=head.blocks,
            block_bytes=head.block_bytes,
            layout=head.layout,
            created=head.created,
            objects=objects,
            detail="; ".join(filter(None, [known.reason, *faults])),
            resync_percent=percent,
        )


def _known(tree: VolumeTree) -> Known:
    """Judge a tree that was found: what is missing below a failed leg keeps nothing off line."""
    missing = {finding.wwn for finding in tree.problems if finding.wwn is not None}
    by_wwn = {obj.wwn: obj for obj in tree.objects}

    def broken(wwn: Wwn) -> bool:
        return wwn in missing or wwn not in by_wwn or any(broken(child) for child in by_wwn[wwn].children)

    spared: set[Wwn] = set()
    objects: list[AnyObject] = []
    for obj in tree.objects:
        if obj.wwn in spared:
            spared |= set(obj.children)
            continue
        objects.append(obj)
        if isinstance(obj, MirrorObject):
            gone = [leg.child for leg in obj.legs if leg.state is not LegState.IN_SYNC and broken(leg.child)]
            spared |= set(gone)
            objects += [_stand_in(child, obj, tree.volume.block_bytes) for child in gone]
    problems = [str(finding) for finding in tree.problems if finding.wwn not in spared]
    return Known(tuple(objects), "; ".join(problems))


def _stand_in(child: Wwn, mirror: MirrorObject, block_bytes: int) -> PartitionObject:
    """Stand for a failed leg that is not there, on an ALU that is not there: it is never read or written."""
    absent = Wwn(f"5{child[-15:]}")
    return PartitionObject(
        wwn=child, volume=mirror.volume, alu=absent, extent=Extent(0, mirror.blocks * block_bytes), generation=0
    )


def _first_partition(wwn: Wwn, by_wwn: dict[Wwn, AnyObject]) -> PartitionObject:
    """Give the first partition of a leg: the one with its bitmap."""
    obj = by_wwn[wwn]
    while not isinstance(obj, PartitionObject):
        obj = by_wwn[obj.children[0]]
    return obj


def _live_partitions(objects: Sequence[AnyObject]) -> Iterable[PartitionObject]:
    """Yield the partitions that are below no failed leg."""
    by_wwn = {obj.wwn: obj for obj in objects}
    pending = [objects[0]]
    while pending:
        obj = pending.pop()
        if isinstance(obj, PartitionObject):
            yield obj
        elif isinstance(obj, MirrorObject):
            pending += [by_wwn[leg.child] for leg in obj.legs if leg.state is LegState.IN_SYNC]
        else:
            pending += [by_wwn[child] for child in obj.children]
