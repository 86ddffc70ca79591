"""The hands of the MVSP: the VSMDB on all ALUs of the system, its own and those that pass through others (R9).

Whatever SP has an ALU open, it is read and written here alone. What the MVSP makes of it, the *system image*, is
given out in parts: each volume carries the serial number of its last change, and whoever has seen a number asks for
what came after it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from appliance.assembly import Judged
from appliance.control.orders import (
    Admit,
    BeMaster,
    Change,
    Claim,
    Collect,
    Commit,
    Dismiss,
    FailLegs,
    MasterOrder,
    Reform,
    TakeUp,
)
from appliance.control.reports import Committed, ImagePart, Result, Taken
from appliance.control.values import PART_VOLUMES, AluAt, VolumeImage
from appliance.globalset import GlobalSet
from appliance.inventory import Inventory, OpenAlu, Opener
from appliance.messages import AluStatus, GsState
from appliance.objectstore import RolledBack, placement
from appliance.recognition import Recognize, recognize_nothing
from appliance.vsmdb import Vsmdb, newest
from backstores.engine.engine import Engine
from backstores.errors import TiergateError, UsageError
from backstores.objects import AnyObject, LegState, MirrorObject, VolumeObject
from backstores.volume.loss import without_legs
from backstores.wwn import Wwn

log = logging.getLogger(__name__)


class AluOpener(Opener, Protocol):
    """Opens ALUs where they are: here, or by way of another storage processor."""

    async def admit(self, alu: AluAt) -> None:
        """Learn the way to an ALU, or the new way to one that is open.

        Raises:
            TiergateError: there is none.
        """


@dataclass(frozen=True, slots=True)
class Entry:
    """A volume of the system image; None once it is gone."""

    serial: int
    image: VolumeImage | None


class Master:
    """An MVSP at work, for one epoch."""

    def __init__(
        self, epoch: int, engine: Engine, susid: str, opener: AluOpener, recognize: Recognize = recognize_nothing
    ) -> None:
        self.epoch = epoch
        self._opener = opener
        self._inventory = Inventory(engine, susid, recognize, opener)
        self._gs = GlobalSet(engine, self._inventory)
        self._vsmdb = Vsmdb(engine, self._inventory)
        self._image: dict[Wwn, Entry] = {}
        self._serial = 0
        self._taken_up = False

    async def carry_out(self, order: MasterOrder) -> Result | None:
        """Do what is ordered; the caller has compared the epochs, and gives one order at a time.

        Raises:
            TiergateError: it can't be done, or failed.
        """
        match order:
            case BeMaster():
                pass  # this MVSP was made by that order
            case Admit():
                await self._admit(order)
            case TakeUp():
                return await self._take_up()
            case Reform():
                return await self._reform()
            case Collect():
                return self._collect(order.cursor)
            case Claim():
                return await self._claim(order)
            case Dismiss():
                return await self._dismiss(order.path)
            case Commit():
                await self._gs.ready()
                return await self._commit(order)
            case FailLegs():
                return await self._fail_legs(order)
        return None

    async def close(self) -> None:
        """Let go of all ALUs: another is the MVSP, or the system stops."""
        if self._taken_up:
            await self._gs.seal()
        for alu in list(self._inventory):
            await self._inventory.detach(alu.driver.path)

    async def watch(self) -> None:
        """Look after the GS set while nobody asks for anything."""
        if self._taken_up:
            await self._gs.watch()

    # ALUs

    async def _admit(self, order: Admit) -> None:
        """Take ALUs in. One that can't be reached is missing, and holds the others up by nothing (C3)."""
        there = {alu.driver.path for alu in self._inventory}
        came = []
        for at in order.alus:
            try:
                await self._opener.admit(at)
                if at.path not in there:
                    came.append(await self._inventory.attach(at.path))
            except TiergateError as error:
                log.error("alu %s can't be reached: %s", at.path, error)
                self._inventory.missing[at.path] = str(error)
        if self._taken_up and came:
            for alu in filter(lambda one: one.owned, came):
                await self._gs.admit(alu)
            await self._collect_anew()

    async def _take_up(self) -> Taken:
        await self._gs.start()
        self._taken_up = True
        await self._collect_anew()
        return Taken(epoch=self.epoch, gs=self._gs.status())

    async def _reform(self) -> Taken:
        await self._gs.reform()
        await self._collect_anew()
        return Taken(epoch=self.epoch, gs=self._gs.status())

    async def _claim(self, order: Claim) -> Committed:
        await self._gs.ready()
        alu = await self._inventory.claim(order.path, order.force)
        await self._gs.admit(alu)
        return self._committed(None, [alu])

    async def _dismiss(self, path: str) -> Committed:
        await self._gs.ready()
        there = [alu for alu in self._inventory if alu.driver.path == path]
        for alu in there:
            await self._gs.release(alu)
            await self._inventory.detach(path)
        if not there:
            await self._gs.forget(path)
            self._inventory.missing.pop(path, None)
        return self._committed(None)

    # Volumes

    async def _collect_anew(self) -> None:
        """Mend, where that is allowed, and note what has changed since the last time."""
        found = await self._vsmdb.collect(mend=self._gs.status().state is not GsState.READ_ONLY)
        there = {judged.objects[0].wwn: _image(judged) for judged in found}
        for wwn in [*there, *(wwn for wwn, entry in self._image.items() if entry.image and wwn not in there)]:
            self._note(wwn, there.get(wwn))

    def _note(self, volume: Wwn, image: VolumeImage | None) -> None:
        before = self._image.get(volume)
        if before is None or before.image != image:
            self._serial += 1
            self._image[volume] = Entry(self._serial, image)

    def _collect(self, cursor: int) -> ImagePart:
        later = sorted(
            ((entry.serial, wwn, entry.image) for wwn, entry in self._image.items() if entry.serial > cursor),
            key=lambda row: row[0],
        )
        part = later[:PART_VOLUMES]
        return ImagePart(
            volumes=tuple(image for _, _, image in part if image is not None),
            gone=tuple(wwn for _, wwn, image in part if image is None),
            cursor=part[-1][0] if part else max(cursor, self._serial),
            more=len(later) > len(part),
        )

    async def _commit(self, order: Commit) -> Committed:
        match order.change:
            case Change.CREATE:
                await self._vsmdb.create(order.objects)
                return self._stored(order.volume, order.objects)
            case Change.REPLACE:
                return await self._replace(order)
            case Change.DELETE:
                return await self._delete(order.volume)

    async def _replace(self, order: Commit) -> Committed:
        current = self._known(order.volume)
        objects = newest(order.objects, current.objects)
        await self._vsmdb.prepare(current.objects, objects)
        try:
            await self._vsmdb.change(current.objects, objects)
        except RolledBack as error:
            self._note(order.volume, msgspec.structs.replace(current, objects=error.objects))
            raise
        return self._stored(order.volume, objects)

    async def _delete(self, volume: Wwn) -> Committed:
        current = self._known(volume)
        await self._vsmdb.remove(_head(current.objects), current.whole)
        self._note(volume, None)
        return self._committed(None, self._below(current.objects))

    async def _fail_legs(self, order: FailLegs) -> Committed:
        """Record that legs have failed. Those that the tree says so of already are no news, and cost no write."""
        current = self._known(order.volume)
        lost = set(order.legs)
        changed = [
            without_legs(obj, lost & _in_sync(obj))
            for obj in current.objects
            if isinstance(obj, MirrorObject) and lost & _in_sync(obj)
        ]
        for mirror in changed:
            if not _in_sync(mirror):
                raise UsageError(f"mirror {mirror.wwn[-8:]} has no leg in sync but those that are to be given up")
        newer = {obj.wwn: obj for obj in changed}
        objects = tuple(newer.get(obj.wwn, obj) for obj in current.objects)
        if changed:
            await self._vsmdb.record(objects, changed)
        return self._stored(order.volume, objects)

    def _stored(self, volume: Wwn, objects: Sequence[AnyObject]) -> Committed:
        image = VolumeImage(tuple(objects))
        self._note(volume, image)
        return self._committed(image, self._below(objects))

    def _below(self, objects: Sequence[AnyObject]) -> list[OpenAlu]:
        found = (self._inventory.by_wwn(wwn) for wwn in placement(objects))
        return [alu for alu in found if alu is not None]

    def _committed(self, image: VolumeImage | None, alus: Sequence[OpenAlu] = ()) -> Committed:
        return Committed(volume=image, alus=tuple(map(self._status, alus)), gs=self._gs.status())

    def _status(self, alu: OpenAlu) -> AluStatus:
        return msgspec.structs.replace(alu.status(), gs_member=self._gs.is_member(alu))

    def _known(self, volume: Wwn) -> VolumeImage:
        entry = self._image.get(volume)
        if entry is None or entry.image is None:
            raise UsageError(f"there is no volume {volume}")
        return entry.image


def _head(objects: Sequence[AnyObject]) -> VolumeObject:
    head = objects[0] if objects else None
    if not isinstance(head, VolumeObject):
        raise UsageError("the definition of a volume does not begin with a volume object")
    return head


def _image(judged: Judged) -> VolumeImage:
    return VolumeImage(judged.objects, judged.reason, judged.whole)


def _in_sync(mirror: MirrorObject) -> set[Wwn]:
    return {leg.child for leg in mirror.legs if leg.state is LegState.IN_SYNC}
