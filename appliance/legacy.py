"""Legacy ALUs, whose data must not be touched, and the one volume that each may be as it is (R5).

They are kept apart from the ``Inventory`` on purpose: nothing that lays out, fences, repairs or commits to ALUs ever
meets one of them. An ALU here is held by a guard that can't write. What the appliance has to remember of it is a
``Record``, kept where ``RecordStore`` says, and a driver that can write is open only while there is a volume on it:
what goes through that comes from the volume's hosts.

A volume here lies on one ALU alone, so a change of it is one change of one record: old or new after any crash (M6).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from appliance.messages import AluState, AluStatus
from backstores.alu.base import AluDriver, Kind
from backstores.alu.descriptor import DescriptorDriver
from backstores.alu.identity import identify
from backstores.engine.engine import Engine
from backstores.engine.storage import DriverStorage
from backstores.errors import CorruptError, TiergateError, UsageError
from backstores.metadata import legacy
from backstores.metadata.inspection import Ownership
from backstores.metadata.layout import LEAST_ALU_BYTES
from backstores.metadata.legacy import Mark, Record
from backstores.metadata.store import AluMetadata
from backstores.objects import AnyObject, PartitionObject, VolumeObject
from backstores.wwn import Wwn, new_device_wwn

log = logging.getLogger(__name__)

MANAGED: Final = frozenset({Ownership.OWNED, Ownership.FOREIGN, Ownership.DAMAGED, Ownership.NEWER})
"""What an appliance has written to: as a legacy ALU it would show its metadata to hosts, who could overwrite them."""


class RecordStore(Protocol):
    """Where records are kept: the reserved region of the GS set, for legacy ALUs have no room that is ours."""

    def load(self) -> Mapping[Wwn, bytes]:
        """Give the records there are, by the names of their ALUs."""

    async def save(self, alu: Wwn, record: bytes | None) -> None:
        """Keep a record, or forget it (None); durable on return.

        Raises:
            TiergateError: there is no place to keep it, or it can't be changed now; what was kept still is.
        """


@dataclass(slots=True)
class LegacyAlu:
    """One that is attached. ``driver`` is there while its volume may be written."""

    guard: DescriptorDriver
    record: Record
    driver: DescriptorDriver | None = None

    @property
    def wwn(self) -> Wwn:
        """Its name."""
        return self.record.alu

    def status(self) -> AluStatus:
        """Describe it to the management. Nothing of it is free: there is room for no part of another volume."""
        return AluStatus(
            wwn=self.record.alu,
            path=self.guard.path,
            kind="block device" if self.guard.kind is Kind.BLOCK else "file",
            state=AluState.LEGACY,
            size_bytes=self.guard.size_bytes,
            sector_bytes=self.guard.sector_bytes,
            detail=f"known by {self.record.mark.text or 'its path and size'}",
        )


class LegacyAlus:
    """All legacy ALUs that are attached, in that order."""

    def __init__(self, engine: Engine, susid: str, records: RecordStore) -> None:
        self._engine = engine
        self._susid = susid
        self._records = records
        self._alus: dict[str, LegacyAlu] = {}

    def __iter__(self) -> Iterator[LegacyAlu]:
        return iter(self._alus.values())

    def __contains__(self, path: str) -> bool:
        return path in self._alus

    def by_path(self, path: str) -> LegacyAlu:
        """Give one that is attached."""
        return self._alus[path]

    async def attach(self, path: str, force: bool = False) -> LegacyAlu:
        """Open an ALU as it is. ``force``: though it is not what was attached at this path before.

        Raises:
            UsageError: it can't be used, an appliance manages it, or it is not what stood there.
            TiergateError: there is no place for its record; nothing has changed.
        """
        if path in self._alus:
            raise UsageError(f"alu {path!r} is attached already")
        guard = await self._engine.open_guard(path)
        try:
            self._alus[path] = LegacyAlu(guard, await self._recorded(guard, force))
        except BaseException:
            await self._engine.release(guard)
            raise
        return self._alus[path]

    async def _recorded(self, guard: DescriptorDriver, force: bool) -> Record:
        """Find the record of what a guard has open, or make one."""
        mark, known = await _mark(guard), self._known()
        record = legacy.recognize(known.values(), guard.path, mark, force)
        if record is None:
            await self._require_unmanaged(guard)
            unused = (other.alu for other in known.values() if other.path == guard.path)  # else it would stay for ever
            record = Record(next(unused, None) or new_device_wwn(), guard.path, mark)
        for alu in self:
            if alu.record.alu == record.alu:
                raise UsageError(f"{guard.path} is the legacy alu {alu.guard.path!r}, by another path")
        before = known.get(record.alu)
        if record != before:
            try:
                await self._keep(record)
            except TiergateError as error:
                if before is None or msgspec.structs.replace(record, path=before.path) != before:
                    raise
                log.warning("legacy alu %s: its new path could not be kept: %s", guard.path, error)
        return record

    async def _require_unmanaged(self, guard: DescriptorDriver) -> None:
        if guard.size_bytes < LEAST_ALU_BYTES:
            return  # no appliance lays metadata on one so small
        storage = DriverStorage(self._engine, guard)
        found = await AluMetadata(storage, guard.size_bytes).inspect(self._susid)
        if found.ownership is Ownership.OWNED:
            raise UsageError(f"{guard.path} belongs to this appliance already: attach it without legacy=yes")
        if found.ownership in MANAGED:
            raise UsageError(
                f"{guard.path} holds an appliance's metadata, which hosts could overwrite: {found.detail};"
                " legacy=yes is for what no appliance manages"
            )

    async def detach(self, path: str) -> None:
        """Let an ALU go that no volume uses, and forget it.

        Raises:
            TiergateError: it can't be forgotten now; it stays.
        """
        alu = self._alus[path]
        await self._records.save(alu.record.alu, None)
        del self._alus[path]
        await self._close(alu)
        await self._engine.release(alu.guard)

    def status(self) -> list[AluStatus]:
        """Describe all."""
        return [alu.status() for alu in self]

    async def require_unknown(self, driver: AluDriver) -> None:
        """Keep what is about to be claimed from being a legacy ALU with a volume that is attached as an ordinary one.

        Raises:
            UsageError: it is one.
        """
        if isinstance(driver, DescriptorDriver):
            mark = await _mark(driver)
            for record in self._known().values():
                same = record.mark.text == mark.text and (mark.anywhere or record.path == driver.path)
                if record.volume is not None and mark.text and same:
                    raise UsageError(
                        f"{driver.path} is a legacy alu, with the data of volume {record.volume.name}:"
                        " detach it, and attach it with legacy=yes"
                    )

    def require_no_records(self, path: str) -> None:
        """Keep the last ALU from going that records can lie on.

        Raises:
            UsageError: there are some; ``path`` is that ALU's.
        """
        if known := sorted(record.path for record in self._known().values()):
            raise UsageError(
                f"alu {path!r} is the last to keep the metadata of legacy alu {known[0]!r}: detach that first"
            )

    async def close(self) -> None:
        """Let nothing be written any more, while the guards hold their locks still; the engine releases these."""
        for alu in self:
            await self._close(alu)

    # Volumes

    def volumes(self) -> list[tuple[AnyObject, ...]]:
        """Give the objects of each volume, the volume object first."""
        return [alu.record.objects for alu in self if alu.record.objects]

    async def open(self, tree: Sequence[AnyObject]) -> Mapping[Wwn, AluDriver]:
        """Let the ALU of a volume be written to, and give its driver.

        Raises:
            UsageError: the ALU is not attached, or may not be written.
        """
        alu = self._below(tree)
        if alu.driver is None:
            alu.driver = await self._engine.open_writable(alu.guard)
        return {alu.record.alu: alu.driver}

    async def create(self, tree: Sequence[AnyObject]) -> None:
        """Record a new volume.

        Raises:
            UsageError: there is one on its ALU already.
            TiergateError: it can't be recorded; there is nothing of it.
        """
        alu = self._below(tree)
        if (there := alu.record.volume) is not None:
            raise UsageError(f"alu {alu.guard.path!r} is in use by volume {there.name}, as a whole")
        await self._replace(alu, tuple(tree))

    async def remove(self, head: VolumeObject, whole: bool) -> None:
        """Forget a volume; its data stay. A legacy volume is always ``whole``.

        Raises:
            TiergateError: that can't be recorded; the volume is still there.
        """
        for alu in self:
            if alu.record.volume == head:
                await self._replace(alu, ())
                await self._close(alu)

    async def _replace(self, alu: LegacyAlu, objects: tuple[AnyObject, ...]) -> None:
        record = msgspec.structs.replace(alu.record, objects=objects)
        await self._keep(record)
        alu.record = record

    def _below(self, tree: Sequence[AnyObject]) -> LegacyAlu:
        """Give the ALU that a volume is."""
        name = next(item.alu for item in tree if isinstance(item, PartitionObject))
        for alu in self:
            if alu.record.alu == name:
                return alu
        raise UsageError(f"legacy alu {name} is not attached")

    async def _close(self, alu: LegacyAlu) -> None:
        if alu.driver is not None:
            driver, alu.driver = alu.driver, None
            await self._engine.release(driver)

    # Records

    def _known(self) -> dict[Wwn, Record]:
        """Read all records; one that can't be read holds up no other (C3)."""
        known = {}
        for alu, raw in self._records.load().items():
            try:
                known[alu] = legacy.decode(raw)
            except CorruptError as error:
                log.error("legacy alu %s is forgotten: %s", alu, error)
        return known

    async def _keep(self, record: Record) -> None:
        await self._records.save(record.alu, legacy.encode(record))


async def _mark(driver: DescriptorDriver) -> Mark:
    """Look at what a driver has open.

    Raises:
        UsageError: it can't be looked at.
    """
    try:
        return await asyncio.to_thread(identify, driver)
    except OSError as error:
        raise UsageError(f"{driver.path} can't be told from others ({error.strerror})") from error
