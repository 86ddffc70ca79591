"""The storage processor: ALUs, volumes and their way to hosts, behind the management's port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from appliance.control.values import SpState, SpStatus
from appliance.front_end import Embedded, FrontEnd
from appliance.globalset import GlobalSet
from appliance.inventory import Inventory, OpenAlu
from appliance.legacy import LegacyAlus, RecordStore
from appliance.messages import (
    AluStatus,
    Exposure,
    GsState,
    GsStatus,
    HostDefinition,
    SessionStatus,
    VolumeState,
    VolumeStatus,
)
from appliance.mic.store import Store, StoreError
from appliance.portals import PortalAddress, groups
from appliance.recognition import ask_blkid
from appliance.volumes import CLEAN_INTERVAL_S, Volumes, describe
from backstores.engine.engine import Engine
from backstores.errors import CorruptError, TiergateError, UsageError
from backstores.objects import AnyObject
from backstores.scsi.store import StoreFailed, UnitState
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

SP_NAME: Final = "sp1"


class StoredUnits:
    """``backstores.scsi.store.UnitStore`` on the management's database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self, wwn: Wwn) -> UnitState | None:
        """Give what was saved last.

        Raises:
            CorruptError: it can't be understood.
        """
        raw = self._store.load_unit(wwn)
        try:
            return None if raw is None else msgspec.msgpack.decode(raw, type=UnitState)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptError(f"the saved reservations and mode pages of volume {wwn} do not decode") from error

    async def save(self, wwn: Wwn, state: UnitState) -> None:
        """Make the state durable, in a thread: databases wait for disks.

        Raises:
            StoreFailed: it could not be written.
        """
        try:
            await asyncio.to_thread(self._store.save_unit, wwn, msgspec.msgpack.encode(state))
        except StoreError as error:
            raise StoreFailed(str(error)) from error


class StorageProcessor:
    """Implements ``appliance.messages.StorageProcessorPort``."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        susid: str,
        target_iqn: str,
        portals: Sequence[PortalAddress],
        *,
        lio: bool = False,
        records: RecordStore | None = None,
    ) -> None:
        self.susid = susid
        self.target_iqn = target_iqn
        self.portals = tuple(portal.for_hosts for portal in portals)
        self.portal = self.portals[0]
        self._inventory = Inventory(engine, susid, ask_blkid)
        self._gs = GlobalSet(engine, self._inventory)
        self._legacy = LegacyAlus(engine, susid, records or self._gs)
        self._volumes = Volumes(engine, self._inventory, self._legacy, StoredUnits(store))
        self._front_end: FrontEnd
        if lio:
            from appliance.lio.make import make_lio  # not needed where the kernel has no LIO

            self._front_end = make_lio(susid, target_iqn, groups(portals), self._volumes.unit)
        else:
            self._front_end = Embedded(target_iqn, groups(portals), self._volumes.unit)
        self._cleaner: asyncio.Task[None] | None = None
        self._started = False

    async def open_portal(self) -> None:
        """Let hosts in.

        Raises:
            TiergateError: the address is not ours, the port is taken, or the kernel refuses.
        """
        await self._front_end.start()
        self._cleaner = asyncio.create_task(self._clean())

    async def close(self) -> None:
        """End the sessions, and stop all volumes cleanly."""
        if self._cleaner is not None:
            self._cleaner.cancel()
            await asyncio.gather(self._cleaner, return_exceptions=True)
        try:
            await self._front_end.close()
        finally:
            await self._volumes.close()
            await self._legacy.close()
            await self._gs.renew()

    async def _clean(self) -> None:
        while True:
            await asyncio.sleep(CLEAN_INTERVAL_S)
            await self._volumes.clean()
            await self._gs.watch()

    # The management's port

    async def attach(self, path: str, size_bytes: int | None = None) -> AluStatus:
        """Open an ALU and look at it; volumes that it completes come on line."""
        if path in self._legacy:
            raise UsageError(f"alu {path!r} is attached already, as a legacy alu")
        try:
            alu = await self._inventory.attach(path, size_bytes)
        except TiergateError as error:
            if not self._started:  # the settings name it, so it should be there
                self._inventory.missing[path] = str(error)
            raise
        if self._started and alu.owned:
            await self._gs.admit(alu)
            await self._assemble()
        return self._status(alu)

    async def attach_legacy(self, path: str, force: bool = False) -> AluStatus:
        """Open an ALU whose data must not be touched; its volume comes on line."""
        alu = await self._legacy.attach(path, force)
        if self._started and alu.record.objects:
            await self._assemble()
        return alu.status()

    async def claim(self, path: str, force: bool = False) -> AluStatus:
        """Lay an attached ALU out afresh."""
        if path in self._legacy:
            raise UsageError(f"alu {path!r} is a legacy alu, whose data must not be touched: detach it first")
        await self._legacy.require_unknown(self._inventory.by_path(path).driver)
        await self._gs.ready()
        alu = await self._inventory.claim(path, force)
        await self._gs.admit(alu)
        return self._status(alu)

    async def detach(self, path: str) -> None:
        """Close an ALU that no volume uses."""
        home = self._legacy if path in self._legacy else self._inventory
        name = home.by_path(path).wwn
        if name is not None and (users := self._volumes.using(name)):
            raise UsageError(f"alu {path!r} is in use by volume {', '.join(sorted(users))}; delete it first")
        if home is self._inventory and {alu.wwn for alu in self._inventory if alu.owned} == {name}:
            self._legacy.require_no_records(path)
        if home is self._inventory:
            await self._let_go(self._inventory.by_path(path))
        await home.detach(path)

    async def _let_go(self, alu: OpenAlu) -> None:
        """Have the GS set go on without an ALU."""
        if alu.owned:
            await self._gs.ready()
        await self._gs.release(alu)

    async def forget(self, path: str) -> None:
        """Have the GS set go on without an ALU that is missing."""
        await self._gs.ready()
        await self._gs.forget(path)

    async def bring_on_line(self) -> None:
        """Start every volume that can serve. All ALUs in the settings have been attached, or have failed to be."""
        self._started = True
        await self._gs.start()
        await self._assemble()

    def alus(self) -> list[AluStatus]:
        """List the attached ALUs."""
        return [*(self._status(alu) for alu in self._inventory), *self._legacy.status()]

    def global_set(self) -> GsStatus:
        """Describe the GS set."""
        return self._gs.status()

    async def reform_global_set(self) -> None:
        """Form the GS set anew; what had to wait for one is mended."""
        await self._gs.reform()
        await self._assemble()

    def volumes(self) -> list[VolumeStatus]:
        """List the volumes found on the owned ALUs."""
        return self._volumes.status()

    async def create_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        """Store a new volume's objects, and bring it on line."""
        await self._gs.ready()
        return describe(await self._volumes.create(objects))

    async def replace_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        """Store a grown tree, and go on with it."""
        await self._gs.ready()
        grown = await self._volumes.replace(objects)
        await self._front_end.refresh()
        return describe(grown)

    async def delete_volume(self, volume: Wwn) -> None:
        """Take a volume off line and its objects off the ALUs."""
        await self._gs.ready()
        await self._front_end.release(volume)
        try:
            await self._volumes.delete(volume)
        finally:
            await self._front_end.refresh()

    async def set_exposures(self, hosts: tuple[HostDefinition, ...], exposures: tuple[Exposure, ...]) -> None:
        """Make this the truth of who may log in and sees what."""
        await self._front_end.set(hosts, exposures)

    def sessions(self, host: str | None = None, sp: str | None = None) -> list[SessionStatus]:
        """List the sessions of hosts; discovery sessions are no longer than their question."""
        here = sp in (None, SP_NAME)
        return [session for session in self._front_end.sessions() if here and host in (None, session.host)]

    def sps(self) -> list[SpStatus]:
        """Describe the one that there is."""
        volumes = sum(volume.state is not VolumeState.OFFLINE for volume in self.volumes())
        alone = SpStatus(
            SP_NAME,
            blade="",
            state=SpState.AT_WORK,
            master=True,
            epoch=self._gs.status().epoch,
            alus=len(self.alus()),
            t1_volumes=volumes,
            t2_volumes=volumes,
            host_portals=self.portals,
        )
        return [alone]

    def portals_of(self, volume: Wwn) -> tuple[str, ...]:
        """Give the first portal: each leads to every volume, and tells hosts of the others."""
        return (self.portal,)

    async def fault(self, part: str, failed: bool) -> None:
        """Refuse: there is nothing that could take over."""
        raise UsageError(
            f"{part} can't be failed: this appliance is one storage processor; --sps or --topology starts several"
        )

    async def _assemble(self) -> None:
        await self._volumes.assemble(mend=self._gs.status().state is not GsState.READ_ONLY)
        await self._front_end.refresh()

    def _status(self, alu: OpenAlu) -> AluStatus:
        return msgspec.structs.replace(alu.status(), gs_member=self._gs.is_member(alu))
