"""The ALUs that a storage processor has open: attached, looked at, claimed and let go (R1, R2)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from appliance.messages import AluState, AluStatus
from appliance.recognition import Recognize, recognize_nothing
from backstores.alu.base import AluDriver, AluError, AluFull
from backstores.engine.engine import Engine
from backstores.engine.storage import DriverStorage
from backstores.errors import TiergateError, UsageError
from backstores.metadata.findings import Problem
from backstores.metadata.inspection import Inspection, Ownership
from backstores.metadata.layout import FORMAT_VERSION, data_area
from backstores.metadata.merge import AluRecord
from backstores.metadata.store import AluMetadata
from backstores.objects import AnyObject, Extent, PartitionObject, VolumeObject
from backstores.wwn import Wwn, new_device_wwn

log = logging.getLogger(__name__)

STATE_OF: Final = {
    Ownership.OWNED: AluState.OWNED,
    Ownership.FOREIGN: AluState.FOREIGN,
    Ownership.BLANK: AluState.BLANK,
    Ownership.DATA: AluState.BLANK,
    Ownership.DAMAGED: AluState.DAMAGED,
    Ownership.NEWER: AluState.DAMAGED,
}
UNUSED: Final = frozenset({Ownership.BLANK, Ownership.DATA, Ownership.FOREIGN, Ownership.DAMAGED})
"""What may be claimed."""

UNTOLD: Final = frozenset({Problem.ABSENT, Problem.UNFINISHED})
"""Findings that are no news of a person's: nothing was there yet, or a crash cut a change short and undid it."""


@dataclass(slots=True)
class OpenAlu:
    """An ALU that is open and locked. ``stale`` says why it is an older copy of itself, if it is one (R4)."""

    driver: AluDriver
    metadata: AluMetadata
    inspection: Inspection
    failure: str = ""
    stale: str = ""
    _free: tuple[tuple[Inspection, tuple[AnyObject, ...]], tuple[Extent, ...]] | None = None

    @property
    def wwn(self) -> Wwn | None:
        """Its name, if it is ours."""
        return self.metadata.label.alu if self.owned else None

    @property
    def owned(self) -> bool:
        """Whether it may be used."""
        return self.inspection.ownership is Ownership.OWNED and not self.stale

    @property
    def free(self) -> tuple[Extent, ...]:
        """The room that is left for partitions. It is asked for far more often than it changes, and takes long."""
        inspection, objects = self.inspection, self.metadata.objects
        if self._free is None or self._free[0][0] is not inspection or self._free[0][1] is not objects:
            self._free = (inspection, objects), self.metadata.free
        return self._free[1]

    async def commit(self, objects: Sequence[AnyObject]) -> TiergateError | None:
        """Make these the objects on it. What goes wrong is given back, for the other ALUs of a change must end, too."""
        try:
            await self.metadata.commit(objects)
        except TiergateError as error:
            log.error("alu %s: its objects could not be stored: %s", self.driver.path, error)
            if isinstance(error, AluError) and not isinstance(error, AluFull):
                self.failure = str(error)
            return error
        self.failure = ""
        return None

    def status(self) -> AluStatus:
        """Describe it to the management."""
        return AluStatus(
            wwn=self.wwn,
            path=self.driver.path,
            kind="block device" if self.driver.kind == "block" else str(self.driver.kind),
            state=self._state,
            size_bytes=self.driver.size_bytes,
            free=self.free if self.owned else (),
            sector_bytes=self.driver.sector_bytes,
            susid=self.inspection.susid,
            detail=self.failure or self.stale or self.inspection.detail,
        )

    @property
    def _state(self) -> AluState:
        if self.failure:
            return AluState.FAILED
        return AluState.STALE if self.stale else STATE_OF[self.inspection.ownership]


class Opener(Protocol):
    """What opens ALUs: the engine, or whoever knows the way to those that others have open."""

    async def open(self, path: str, *, size_bytes: int | None = None) -> AluDriver:
        """Open an ALU for the engine's use.

        Raises:
            TiergateError: it can't be opened.
        """

    async def release(self, driver: AluDriver) -> None:
        """Let go of one."""


class Inventory:
    """All open ALUs by path, in the order in which they were attached. ``missing``: those that should be there."""

    def __init__(
        self,
        engine: Engine,
        susid: str,
        recognize: Recognize = recognize_nothing,
        opener: Opener | None = None,
    ) -> None:
        self._engine = engine
        self._opener: Opener = engine if opener is None else opener
        self._susid = susid
        self._recognize = recognize
        self._alus: dict[str, OpenAlu] = {}
        self.missing: dict[str, str] = {}  # path: why it could not be opened
        self.drivers: dict[Wwn, AluDriver] = {}

    def __iter__(self) -> Iterator[OpenAlu]:
        return iter(self._alus.values())

    def by_path(self, path: str) -> OpenAlu:
        """Give an attached ALU.

        Raises:
            UsageError: it is not attached.
        """
        alu = self._alus.get(path)
        if alu is None:
            raise UsageError(f"alu {path!r} is not attached")
        return alu

    def by_wwn(self, wwn: Wwn) -> OpenAlu | None:
        """Give an owned ALU, if it is attached."""
        driver = self.drivers.get(wwn)
        return None if driver is None else self._alus[driver.path]

    def owned(self, wwn: Wwn) -> OpenAlu:
        """Give an owned ALU that must be there.

        Raises:
            UsageError: it is not attached.
        """
        alu = self.by_wwn(wwn)
        if alu is None:
            raise UsageError(f"alu {wwn} is not attached")
        return alu

    @property
    def complete(self) -> bool:
        """Whether every ALU that should be there is, and can be used."""
        return not self.missing and all(alu.owned and not alu.failure for alu in self)

    @property
    def suspects(self) -> list[str]:
        """Name the ALUs that may hold what is found nowhere else, for people."""
        absent = [f"alu {path!r} ({reason})" for path, reason in self.missing.items()]
        return absent + [f"alu {alu.driver.path!r} ({alu.status().state})" for alu in self if not alu.owned]

    async def attach(self, path: str, size_bytes: int | None = None) -> OpenAlu:
        """Open and inspect an ALU; nothing on it changes, but a missing file is made when a size is given.

        Raises:
            UsageError: it can't be opened as asked, or an ALU of the same name is attached already.
        """
        if path in self._alus:
            raise UsageError(f"alu {path!r} is attached already")
        if size_bytes is not None:
            data_area(size_bytes)  # refuses a size before a file of it is made
        driver = await self._opener.open(path, size_bytes=size_bytes)
        try:
            alu = await self._inspected(driver)
        except BaseException:
            await self._opener.release(driver)
            raise
        self._alus[path] = alu
        self.missing.pop(path, None)
        self._note_driver(alu)
        if alu.owned:
            for finding in alu.inspection.findings:
                log.log(logging.INFO if finding.problem in UNTOLD else logging.WARNING, "alu %s: %s", path, finding)
        return alu

    async def _inspected(self, driver: AluDriver) -> OpenAlu:
        metadata = AluMetadata(DriverStorage(self._engine, driver), driver.size_bytes)
        alu = OpenAlu(driver, metadata, await self._named(driver.path, await metadata.inspect(self._susid)))
        if alu.wwn is not None and (twin := self.by_wwn(alu.wwn)) is not None:
            raise UsageError(f"alu {driver.path!r} is a copy of {twin.driver.path!r}: both say they are {alu.wwn}")
        if alu.owned and alu.inspection.version < FORMAT_VERSION:
            await self._migrate(alu)
        return alu

    async def _migrate(self, alu: OpenAlu) -> None:
        """Bring an ALU that an earlier release wrote to this one's format. Failing that, it can still be read."""
        version = alu.inspection.version
        try:
            await alu.metadata.migrate()
            log.info("alu %s: brought from version %d of the format to %d", alu.driver.path, version, FORMAT_VERSION)
        except TiergateError as error:
            alu.failure = f"its metadata is still of version {version}: {error}"
            log.error("alu %s: %s", alu.driver.path, alu.failure)
        alu.inspection = await alu.metadata.inspect(self._susid)

    async def _named(self, path: str, found: Inspection) -> Inspection:
        """Add to what was found what a claim would lose, so that people know before they allow it."""
        if found.ownership not in UNUSED:
            return found
        names = await self._recognize(path)
        if found.ownership in (Ownership.BLANK, Ownership.DATA):
            if not names:
                return found
            text = f"holds data: {', '.join(names)}"
            return replace(found, ownership=Ownership.DATA, detail=text, signatures=tuple(names))
        heads = [obj for obj in found.state.objects if isinstance(obj, VolumeObject)] if found.state else []
        volumes = f"parts of {len(heads)} volume{'s' if len(heads) > 1 else ''}"
        there = ", ".join([*([volumes] if heads else []), *names])
        return replace(found, detail=f"{found.detail}; it holds {there}") if there else found

    async def claim(self, path: str, force: bool) -> OpenAlu:
        """Lay an attached ALU out for this appliance.

        Raises:
            UsageError: it is owned already; a later release wrote it; or it holds something, without ``force``.
            AluError: it could not be written.
        """
        alu = self.by_path(path)
        found = alu.inspection
        match found.ownership:
            case Ownership.OWNED if not alu.stale:
                raise UsageError(f"alu {path!r} belongs to this appliance already")
            case Ownership.NEWER:
                raise UsageError(f"alu {path!r} is never overwritten by this release: {found.detail}; wipe it yourself")
            case Ownership.OWNED | Ownership.DATA | Ownership.FOREIGN | Ownership.DAMAGED if not force:
                detail = f"is {alu.stale}" if alu.stale else found.detail
                raise UsageError(f"alu {path!r} {detail}; claim it with force=yes if that may be lost")
        try:
            await alu.metadata.format(self._susid, new_device_wwn())
        except AluError as error:
            alu.failure = str(error)
            raise
        alu.inspection = await alu.metadata.inspect(self._susid)
        alu.failure = alu.stale = ""
        self._note_driver(alu)
        return alu

    async def detach(self, path: str) -> None:
        """Close an ALU. The caller has made sure that nothing uses it."""
        alu = self.by_path(path)
        del self._alus[path]
        if alu.wwn is not None:
            del self.drivers[alu.wwn]
        await self._opener.release(alu.driver)

    async def look_again(self, alu: OpenAlu) -> None:
        """See what an ALU is by now: after something went wrong with it, or after somebody else has laid it out.

        One that can't be read any more is not used.
        """
        owned, alu.inspection = alu.owned, await alu.metadata.inspect(self._susid)
        if owned and not alu.owned:
            log.error("alu %s is not used: %s", alu.driver.path, alu.inspection.detail)
            for name in [name for name, driver in self.drivers.items() if driver is alu.driver]:
                del self.drivers[name]
        elif not owned:
            self._note_driver(alu)

    def set_aside(self, alu: OpenAlu, why: str) -> None:
        """Use an ALU no longer: it is an older copy of itself."""
        log.error("alu %s is not used: it is %s", alu.driver.path, why)
        if alu.wwn is not None:
            del self.drivers[alu.wwn]
        alu.stale = why

    def records(self) -> list[AluRecord]:
        """Give what is stored on each owned ALU."""
        return [
            AluRecord(alu.wwn, alu.metadata.objects, alu.inspection.findings) for alu in self if alu.wwn is not None
        ]

    def require_room(self, partitions: Iterable[PartitionObject]) -> None:
        """Make sure that new partitions take no room that something has already.

        Raises:
            UsageError: one does, or its ALU is not attached.
        """
        for partition in partitions:
            alu = self.owned(partition.alu)
            for extent in filter(None, (partition.extent, partition.bitmap)):
                inside = (e.start_bytes <= extent.start_bytes and extent.end_bytes <= e.end_bytes for e in alu.free)
                if not any(inside):
                    raise UsageError(
                        f"alu {alu.driver.path!r} has no {extent.length_bytes} bytes free at {extent.start_bytes}"
                    )

    def _note_driver(self, alu: OpenAlu) -> None:
        if alu.wwn is not None:
            self.drivers[alu.wwn] = alu.driver
