"""The hands of the MVSP: the VSMDB on all ALUs of the system, its own and those that pass through others (R9).

Whatever SP has an ALU open, it is read and written here alone. What to do in which epoch, and what has changed in the
system image since somebody asked, the MVSM decides (``appliance.mvsm``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import msgspec

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
from appliance.control.reports import Committed, Opened, Result, Taken
from appliance.control.values import AluAt, Found, VolumeImage
from appliance.decisions import RecordLegs
from appliance.globalset import GlobalSet
from appliance.inventory import Inventory, OpenAlu, Opener
from appliance.messages import AluStatus, GsState
from appliance.objectstore import RolledBack, placement
from appliance.recognition import Recognize, recognize_nothing
from appliance.vsmdb import Vsmdb, newest
from backstores.engine.engine import Engine
from backstores.errors import TiergateError, UsageError
from backstores.objects import AnyObject, VolumeObject
from backstores.wwn import Wwn

log = logging.getLogger(__name__)


MasterAction = MasterOrder | RecordLegs


class AluOpener(Opener, Protocol):
    """Opens ALUs where they are: here, or by way of another storage processor."""

    async def admit(self, alu: AluAt) -> bool:
        """Learn the way to an ALU; True: it is another one than before.

        Raises:
            TiergateError: there is none.
        """


class Master:
    """An MVSP at work, in one epoch."""

    def __init__(
        self, epoch: int, engine: Engine, susid: str, opener: AluOpener, recognize: Recognize = recognize_nothing
    ) -> None:
        self._epoch = epoch
        self._opener = opener
        self._inventory = Inventory(engine, susid, recognize, opener)
        self._gs = GlobalSet(engine, self._inventory)
        self._vsmdb = Vsmdb(engine, self._inventory)
        self._trees: dict[Wwn, VolumeImage] = {}
        self._taken_up = False

    async def carry_out(self, action: MasterAction) -> tuple[Result | None, Sequence[VolumeImage] | None]:
        """Do what is ordered, one order at a time; give the whole system image, too, if all of it may have changed.

        Raises:
            TiergateError: it can't be done, or failed.
        """
        match action:
            case BeMaster() | Collect() | FailLegs():
                raise AssertionError(f"{type(action).__name__} is no work for hands")
            case Admit():
                read_only = self._taken_up and self._gs.status().state is not GsState.READY
                refused, images = await self._admit(action.alus)
                if refused:
                    return Opened(alus=(), refused=tuple(refused)), images  # the VCM asks again
                late = read_only and self._gs.status().state is GsState.READY
                return self._taken_in() if late else None, images
            case TakeUp():
                await self._gs.start(self._epoch)
                self._taken_up = True
                return await self._taken()
            case Reform():
                await self._gs.reform()
                return await self._taken()
            case Claim():
                return await self._claim(action), None
            case Dismiss():
                return await self._dismiss(action.path), None
            case Commit():
                await self._gs.ready()
                return await self._commit(action), None
            case RecordLegs():
                await self._vsmdb.record(action.objects, action.changed)
                return self._stored(action.volume, action.objects), None

    async def close(self) -> None:
        """Let go of all ALUs, cleanly: the system stops."""
        if self._taken_up:
            await self._gs.seal()
        await self.abandon()

    async def abandon(self) -> None:
        """Let go of all ALUs and write nothing: another is the MVSP."""
        for alu in list(self._inventory):
            await self._inventory.detach(alu.driver.path)

    async def watch(self) -> None:
        """Look after the GS set while nobody asks for anything."""
        if self._taken_up:
            await self._gs.watch()

    # ALUs

    async def _admit(self, alus: Sequence[AluAt]) -> tuple[list[Found], Sequence[VolumeImage] | None]:
        """Take ALUs in. One that can't be reached is missing, and holds up no other (C3)."""
        there = {alu.driver.path for alu in self._inventory}
        came: list[OpenAlu] = []
        refused: list[Found] = []
        for at in alus:
            try:
                if await self._opener.admit(at) and at.path in there:
                    await self._inventory.detach(at.path)
                    there.discard(at.path)
                if at.path not in there:
                    came.append(await self._inventory.attach(at.path))
            except TiergateError as error:
                log.error("alu %s can't be reached: %s", at.path, error)
                self._inventory.missing[at.path] = str(error)
                refused.append(Found(at.path, 0, str(error)[:4096]))
        if not self._taken_up or not came:
            return refused, None
        for alu in filter(lambda one: one.owned, came):
            await self._gs.admit(alu)
        return refused, await self._collected()

    async def _taken(self) -> tuple[Taken, Sequence[VolumeImage]]:
        return self._taken_in(), await self._collected()

    def _taken_in(self) -> Taken:
        gs = self._gs.status()
        return Taken(epoch=max(self._epoch, gs.epoch), gs=gs)

    async def _collected(self) -> Sequence[VolumeImage]:
        """Mend, where that is allowed, and give all volumes."""
        found = await self._vsmdb.collect(mend=self._gs.status().state is not GsState.READ_ONLY)
        images = [VolumeImage(judged.objects, judged.reason, judged.whole) for judged in found]
        self._trees = {image.objects[0].wwn: image for image in images}
        return images

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

    async def _commit(self, order: Commit) -> Committed:
        match order.change:
            case Change.CREATE:
                await self._vsmdb.create(order.objects)
                return self._stored(order.volume, order.objects)
            case Change.REPLACE:
                return await self._replace(order)
            case Change.DELETE:
                return await self._delete(order)

    async def _replace(self, order: Commit) -> Committed:
        current = self._known(order.volume)
        objects = newest(order.objects, current.objects)
        await self._vsmdb.prepare(current.objects, objects)
        try:
            await self._vsmdb.change(current.objects, objects)
        except RolledBack as error:
            self._trees[order.volume] = msgspec.structs.replace(current, objects=error.objects)
            raise
        return self._stored(order.volume, objects)

    async def _delete(self, order: Commit) -> Committed:
        """Put a tombstone in the place of a volume, though it was not seen: its ALUs may be away, or it gone before."""
        current = self._trees.get(order.volume) or VolumeImage(order.objects, whole=False)
        head = current.objects[0]
        assert isinstance(head, VolumeObject)
        await self._vsmdb.remove(head, current.whole)
        self._trees.pop(order.volume, None)
        return self._committed(None, self._below(current.objects))

    def _stored(self, volume: Wwn, objects: Sequence[AnyObject]) -> Committed:
        self._trees[volume] = VolumeImage(tuple(objects))
        return self._committed(self._trees[volume], self._below(objects))

    def _below(self, objects: Sequence[AnyObject]) -> list[OpenAlu]:
        found = (self._inventory.by_wwn(wwn) for wwn in placement(objects))
        return [alu for alu in found if alu is not None]

    def _committed(self, image: VolumeImage | None, alus: Sequence[OpenAlu] = ()) -> Committed:
        return Committed(volume=image, alus=tuple(map(self._status, alus)), gs=self._gs.status())

    def _status(self, alu: OpenAlu) -> AluStatus:
        return msgspec.structs.replace(alu.status(), gs_member=self._gs.is_member(alu))

    def _known(self, volume: Wwn) -> VolumeImage:
        image = self._trees.get(volume)
        if image is None:
            raise UsageError(f"there is no volume {volume}")
        return image

    @property
    def images(self) -> Sequence[VolumeImage]:
        """All volumes as they are known now: what a change that failed may have left."""
        return list(self._trees.values())
