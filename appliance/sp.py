"""The storage processor: ALUs, volumes, the target node, and the portal, behind the management's port."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from appliance.exposures import Exposures
from appliance.inventory import Inventory
from appliance.messages import AluStatus, Exposure, HostDefinition, SessionStatus, VolumeStatus
from appliance.mic.store import Store, StoreError
from appliance.reach import address_for_hosts
from appliance.volumes import CLEAN_INTERVAL_S, Volumes, describe
from backstores.engine.engine import Engine
from backstores.errors import CorruptError, TiergateError, UsageError
from backstores.iscsi import access
from backstores.iscsi.portal import Portal
from backstores.objects import AnyObject
from backstores.scsi.store import StoreFailed, UnitState
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

GROUP_TAG = 1  # one storage processor, one portal group


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

    def __init__(self, engine: Engine, store: Store, susid: str, target_iqn: str, address: str, port: int) -> None:
        self.susid = susid
        self.target_iqn = target_iqn
        shown = address_for_hosts(address)
        self.portal = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
        self._inventory = Inventory(engine, susid)
        self._volumes = Volumes(engine, self._inventory, StoredUnits(store))
        portals = (access.Portal(address, port, GROUP_TAG),)
        self._exposures = Exposures(target_iqn, portals, self._volumes.unit)
        self._front_end = Portal(self._exposures, group_tag=GROUP_TAG)
        self._exposures.drop_host = self._front_end.drop_host
        self._address, self._port = address, port
        self._cleaner: asyncio.Task[None] | None = None
        self._started = False

    async def open_portal(self) -> None:
        """Let hosts in.

        Raises:
            UsageError: the address is not ours, or the port is taken.
        """
        try:
            await self._front_end.start(self._address, self._port)
        except UsageError as error:
            raise UsageError(f"{error}; choose another with --portal ADDRESS:PORT") from error
        self._cleaner = asyncio.create_task(self._clean())

    async def close(self) -> None:
        """End the sessions, and stop all volumes cleanly."""
        if self._cleaner is not None:
            self._cleaner.cancel()
            await asyncio.gather(self._cleaner, return_exceptions=True)
        await self._front_end.close()
        await self._volumes.close()

    async def _clean(self) -> None:
        while True:
            await asyncio.sleep(CLEAN_INTERVAL_S)
            await self._volumes.clean()

    # The management's port

    async def attach(self, path: str, size_bytes: int | None = None) -> AluStatus:
        """Open an ALU and look at it; volumes that it completes come on line."""
        try:
            alu = await self._inventory.attach(path, size_bytes)
        except TiergateError as error:
            if not self._started:  # the settings name it, so it should be there
                self._inventory.missing[path] = str(error)
            raise
        if self._started and alu.owned:
            await self._assemble()
        return alu.status()

    async def claim(self, path: str, force: bool = False) -> AluStatus:
        """Lay an attached ALU out afresh."""
        return (await self._inventory.claim(path, force)).status()

    async def detach(self, path: str) -> None:
        """Close an ALU that no volume uses."""
        alu = self._inventory.by_path(path)
        if alu.wwn is not None and (users := self._volumes.using(alu.wwn)):
            raise UsageError(f"alu {path!r} is in use by volume {', '.join(sorted(users))}; delete it first")
        await self._inventory.detach(path)

    async def bring_on_line(self) -> None:
        """Start every volume that can serve. All ALUs in the settings have been attached, or have failed to be."""
        self._started = True
        await self._volumes.sweep()
        await self._assemble()

    def alus(self) -> list[AluStatus]:
        """List the attached ALUs."""
        return [alu.status() for alu in self._inventory]

    def volumes(self) -> list[VolumeStatus]:
        """List the volumes found on the owned ALUs."""
        return self._volumes.status()

    async def create_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        """Store a new volume's objects, and bring it on line."""
        return describe(await self._volumes.create(objects))

    async def replace_volume(self, objects: tuple[AnyObject, ...]) -> VolumeStatus:
        """Store a grown tree, and go on with it."""
        return describe(await self._volumes.replace(objects))

    async def delete_volume(self, volume: Wwn) -> None:
        """Take a volume off line and its objects off the ALUs."""
        try:
            await self._volumes.delete(volume)
        finally:
            self._exposures.refresh()

    def set_exposures(self, hosts: tuple[HostDefinition, ...], exposures: tuple[Exposure, ...]) -> None:
        """Make this the truth of who may log in and sees what."""
        self._exposures.set(hosts, exposures)

    def sessions(self, host: str | None = None) -> list[SessionStatus]:
        """List the sessions of hosts; discovery sessions are no longer than their question."""
        return [
            SessionStatus(
                host=info.host,
                initiator=info.initiator,
                address=info.address,
                luns=self._exposures.luns_of(info.host),
            )
            for info in self._front_end.sessions()
            if info.target is not None and host in (None, info.host)
        ]

    async def _assemble(self) -> None:
        await self._volumes.assemble()
        self._exposures.refresh()
