"""The volumes of a storage processor: found on the ALUs, brought on line, changed, and stopped.

What lies on the ALUs, ``appliance.vsmdb`` collects and changes; of volumes that are a legacy ALU as it is,
``appliance.legacy`` does. A volume that can serve does so at once, after an unclean stop,
too: its dirty regions are copied meanwhile (D2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.inventory import Inventory
from appliance.legacy import LegacyAlus
from appliance.messages import VolumeState, VolumeStatus
from appliance.objectstore import RolledBack
from appliance.vsmdb import Vsmdb, dirty_logs, newest
from backstores.alu.base import AluDriver
from backstores.engine.engine import Engine
from backstores.errors import TiergateError, UsageError
from backstores.metadata.legacy import DIRECT_LAYOUT, WHOLE_LAYOUTS
from backstores.objects import AnyObject, PartitionObject, VolumeObject
from backstores.scsi.direct import DEVICE_COMMANDS, PLAIN_COMMANDS
from backstores.scsi.store import UnitStore
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.volume import loss
from backstores.volume.passing import passer_of
from backstores.volume.volume import Volume
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

CLEAN_INTERVAL_S = 5.0
"""How often dirty regions grow older: an idle one is clear after two to three of these."""

AT_ONCE: Final = 32
"""Volumes that come on line side by side: each waits for its ALUs several times."""


@dataclass(slots=True)
class Served:
    """A volume that is on line. ``trouble`` says why its resynchronization ended early."""

    volume: Volume
    unit: LogicalUnit
    resync: asyncio.Task[None] | None = None
    resync_fraction: float = 0.0
    trouble: str = ""


@dataclass(slots=True)
class Known:
    """A volume that was found or made; ``served`` is None while it is off line, ``reason`` says why."""

    objects: tuple[AnyObject, ...]
    reason: str = ""
    whole: bool = True
    served: Served | None = None

    @property
    def head(self) -> VolumeObject:
        """The volume object."""
        head = self.objects[0]
        assert isinstance(head, VolumeObject)
        return head

    @property
    def is_legacy(self) -> bool:
        """Whether it is a legacy ALU as it is."""
        return self.head.layout in WHOLE_LAYOUTS


@dataclass(slots=True)
class Volumes:
    """All volumes of a storage processor, and how they come on line and go."""

    engine: Engine
    inventory: Inventory
    legacy: LegacyAlus
    unit_store: UnitStore
    known: dict[Wwn, Known] = field(default_factory=dict)
    vsmdb: Vsmdb = field(init=False)

    def __post_init__(self) -> None:
        self.vsmdb = Vsmdb(self.engine, self.inventory)

    async def assemble(self, mend: bool = True) -> None:
        """Mend what the ALUs hold, unless they may not be changed; bring on line what is complete and is not yet."""
        on_line = {wwn: known for wwn, known in self.known.items() if known.served is not None}
        found = {}
        for judged in await self.vsmdb.collect(mend):
            known = Known(judged.objects, judged.reason, judged.whole)
            found[known.head.wwn] = known
        found |= {tree[0].wwn: Known(tree) for tree in self.legacy.volumes()}
        self.known = {**found, **on_line}
        waiting = iter([known for wwn, known in found.items() if wwn not in on_line])
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._bring_each_on_line(waiting))

    async def _bring_each_on_line(self, waiting: Iterator[Known]) -> None:
        for known in waiting:
            await self._bring_on_line(known)

    async def _bring_on_line(self, known: Known) -> None:
        try:
            if known.reason:
                raise UsageError(known.reason)
            await self._serve(known)
        except TiergateError as error:
            known.reason = str(error)
            log.error("volume %s stays off line: %s", known.head.name, error)
            return
        log.info("volume %s is on line", known.head.name)

    async def _serve(self, known: Known) -> None:
        async def persist(changed: Sequence[AnyObject]) -> None:
            await self._record(known, changed)

        drivers = await self._drivers(known)
        logs = await dirty_logs(self.engine, drivers, known.objects, known.objects)
        volume = Volume(known.objects, drivers, self.engine, logs, persist)
        unit = await self._unit(known, volume, drivers)
        await volume.publish_logs()
        served = Served(volume, unit)
        known.served, known.reason = served, ""
        if volume.pin_reads():
            log.warning("volume %s was not stopped cleanly: copying its dirty regions", known.head.name)
            served.resync = asyncio.create_task(_resynchronize(known.head.name, served))

    async def _unit(self, known: Known, volume: Volume, drivers: Mapping[Wwn, AluDriver]) -> LogicalUnit:
        """Make the logical unit of a volume; that of a direct one leaves to its ALU what this understands."""
        commands, passer = None, None
        if known.head.layout == DIRECT_LAYOUT:
            [driver] = drivers.values()
            passer = await passer_of(self.engine, driver)
            commands = PLAIN_COMMANDS if passer is None else DEVICE_COMMANDS
        return LogicalUnit(volume, Identity(volume.wwn), self.unit_store, commands=commands, passer=passer)

    async def _drivers(self, known: Known) -> Mapping[Wwn, AluDriver]:
        """Give the drivers of the ALUs that a volume may lie on."""
        return await self.legacy.open(known.objects) if known.is_legacy else self.inventory.drivers

    def _store_of(self, known: Known) -> Vsmdb | LegacyAlus:
        """Say who stores a volume's objects."""
        return self.legacy if known.is_legacy else self.vsmdb

    async def _record(self, known: Known, changed: Sequence[AnyObject]) -> None:
        """Make it durable that legs have failed."""
        newer = {obj.wwn: obj for obj in changed}
        objects = tuple(newer.get(obj.wwn, obj) for obj in known.objects)
        await self.vsmdb.record(objects, changed)
        known.objects = objects

    # What the management asks for

    async def create(self, objects: tuple[AnyObject, ...]) -> Known:
        """Make a new volume: its space empty, its bitmaps clean, its objects stored, and on line. All or nothing.

        Raises:
            TiergateError: it could not be made; there is nothing of it.
        """
        known = Known(objects)
        head = known.head
        if any(other.head.name == head.name for other in self.known.values()):
            raise UsageError(f"there is a volume {head.name!r} already")
        await self._store_of(known).create(objects)
        try:
            await self._serve(known)
        except TiergateError:
            await self._store_of(known).remove(head, whole=True)
            raise
        self.known[head.wwn] = known
        return known

    async def replace(self, objects: tuple[AnyObject, ...]) -> Known:
        """Go on with a grown tree: what is new is emptied, stored, and put under the running volume.

        Raises:
            TiergateError: that could not be done; the volume goes on as it was.
        """
        known = self.by_wwn(objects[0].wwn)
        if known.served is None:
            raise UsageError(f"volume {known.head.name!r} is off line: {known.reason}")
        volume = known.served.volume
        before = {obj.wwn for obj in known.objects}
        await self.vsmdb.prepare(known.objects, objects)
        added = [obj for obj in objects if obj.wwn not in before]
        logs = await dirty_logs(self.engine, self.inventory.drivers, added, objects)
        async with volume.quiesced():
            objects = newest(objects, known.objects)
            try:
                await self.vsmdb.change(known.objects, objects)
            except RolledBack as error:
                known.objects = error.objects
                volume.install(error.objects)
                raise
            known.objects = objects
            volume.install(objects, logs)
        known.served.unit.resized()
        return known

    async def delete(self, wwn: Wwn) -> None:
        """Take a volume off line and off the ALUs; those that are away hear of it when they return.

        Raises:
            TiergateError: no ALU took note of it; the volume is off line, and still there.
        """
        known = self.by_wwn(wwn)
        await self._take_off_line(known, "it was being deleted")
        try:
            await self._store_of(known).remove(known.head, known.whole)
        except TiergateError as error:
            known.reason = f"it could not be deleted: {error}"
            raise
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
        await asyncio.gather(*(self._take_off_line(known, "the appliance stops") for known in self.known.values()))

    async def _take_off_line(self, known: Known, reason: str) -> None:
        served, known.served = known.served, None
        if served is None:
            return
        known.reason = reason
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

    def unit(self, wwn: Wwn) -> LogicalUnit | None:
        """Give the logical unit of a volume that is on line."""
        known = self.known.get(wwn)
        return None if known is None or known.served is None else known.served.unit

    def using(self, alu: Wwn) -> list[str]:
        """Name the volumes that have a partition on an ALU."""
        return [
            known.head.name
            for known in self.known.values()
            if any(isinstance(obj, PartitionObject) and obj.alu == alu for obj in known.objects)
        ]

    def status(self) -> list[VolumeStatus]:
        """Describe all volumes."""
        return [describe(known) for known in self.known.values()]


def describe(known: Known) -> VolumeStatus:
    """Describe a volume."""
    head, served = known.head, known.served
    faults = loss.degraded(known.objects)
    state, percent = VolumeState.ONLINE, None
    if served is None:
        state = VolumeState.OFFLINE
    elif served.resync is not None and not served.resync.done():
        state, percent = VolumeState.RESYNC, round(100 * served.resync_fraction, 1)
    elif faults or served.trouble:
        state = VolumeState.DEGRADED
    return VolumeStatus(
        wwn=head.wwn,
        name=head.name,
        state=state,
        blocks=head.blocks,
        block_bytes=head.block_bytes,
        layout=head.layout,
        created=head.created,
        objects=known.objects,
        detail="; ".join(filter(None, [known.reason, served.trouble if served else "", *faults])),
        resync_percent=percent,
    )


async def _resynchronize(name: str, served: Served) -> None:
    def progress(fraction: float) -> None:
        served.resync_fraction = fraction

    try:
        await served.volume.resynchronize(progress)
        log.info("volume %s: all legs are equal again", name)
    except TiergateError as error:
        served.trouble = f"resynchronization ended: {error}"
        log.error("volume %s: %s", name, served.trouble)
