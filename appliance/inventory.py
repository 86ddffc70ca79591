"""The ALUs that a storage processor has open, and the objects on them.

Objects are stored where R3 wants them: each second-tier object on every ALU below it, each partition
on its own ALU alone. A change of several ALUs has one commit point: partitions are stored before the
first second-tier object that needs them and removed after the last one, so that a crash in between
leaves the old state or the new one, and at worst partitions that belong to nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from appliance.messages import AluState, AluStatus
from backstores.alu.base import AluDriver, AluError
from backstores.engine.engine import Engine
from backstores.engine.storage import DriverStorage
from backstores.errors import TiergateError, UsageError
from backstores.metadata.inspection import Inspection, Ownership
from backstores.metadata.merge import AluRecord
from backstores.metadata.store import AluMetadata
from backstores.objects import AnyObject, PartitionObject, VolumeObject
from backstores.wwn import Wwn, new_device_wwn

log = logging.getLogger(__name__)

STATE_OF = {
    Ownership.OWNED: AluState.OWNED,
    Ownership.FOREIGN: AluState.FOREIGN,
    Ownership.BLANK: AluState.BLANK,
    Ownership.DATA: AluState.BLANK,
    Ownership.DAMAGED: AluState.DAMAGED,
    Ownership.NEWER: AluState.DAMAGED,
}
HARMLESS_TO_CLAIM = frozenset({Ownership.BLANK})


@dataclass(slots=True)
class OpenAlu:
    """An ALU that is open and locked."""

    driver: AluDriver
    storage: DriverStorage
    metadata: AluMetadata
    inspection: Inspection
    failure: str = ""

    @property
    def wwn(self) -> Wwn | None:
        """Its name, if it is ours."""
        return self.metadata.label.alu if self.owned else None

    @property
    def owned(self) -> bool:
        """Whether it may be used."""
        return self.inspection.ownership is Ownership.OWNED

    def status(self) -> AluStatus:
        """Describe it to the management."""
        label = self.inspection.label
        return AluStatus(
            wwn=self.wwn,
            path=self.driver.path,
            kind="block device" if self.driver.kind == "block" else str(self.driver.kind),
            state=AluState.FAILED if self.failure else STATE_OF[self.inspection.ownership],
            size_bytes=self.driver.size_bytes,
            free=self.metadata.free if self.owned else (),
            sector_bytes=self.driver.sector_bytes,
            susid=label.susid if label is not None else "",
            detail=self.failure or self.inspection.detail,
        )


class Inventory:
    """All open ALUs by path, in the order in which they were attached."""

    def __init__(self, engine: Engine, susid: str) -> None:
        self._engine = engine
        self._susid = susid
        self._alus: dict[str, OpenAlu] = {}
        self._changing = asyncio.Lock()
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
        return next((alu for alu in self._alus.values() if alu.wwn == wwn), None)

    async def attach(self, path: str, size_bytes: int | None = None) -> OpenAlu:
        """Open and inspect an ALU; nothing on it changes, but a missing file is made when a size is given.

        Raises:
            UsageError: it can't be opened as asked, or an ALU of the same name is attached already.
        """
        if path in self._alus:
            raise UsageError(f"alu {path!r} is attached already")
        driver = await self._engine.open(path, size_bytes=size_bytes)
        storage = DriverStorage(self._engine, driver)
        metadata = AluMetadata(storage, driver.size_bytes)
        try:
            alu = OpenAlu(driver, storage, metadata, await metadata.inspect(self._susid))
            if alu.wwn is not None and (twin := self.by_wwn(alu.wwn)) is not None:
                raise UsageError(f"alu {path!r} is a copy of {twin.driver.path!r}: both say they are {alu.wwn}")
        except TiergateError:
            await self._engine.release(driver)
            raise
        self._alus[path] = alu
        self._note_driver(alu)
        for finding in alu.inspection.findings:
            log.warning("alu %s: %s", path, finding)
        return alu

    async def claim(self, path: str, force: bool) -> OpenAlu:
        """Lay an attached ALU out for this appliance.

        Raises:
            UsageError: it is owned already, or it holds something and ``force`` is not set.
        """
        alu = self.by_path(path)
        found = alu.inspection
        if alu.owned:
            raise UsageError(f"alu {path!r} belongs to this appliance already")
        if found.ownership not in HARMLESS_TO_CLAIM and not force:
            raise UsageError(f"alu {path!r} {found.detail}; claim it with force=yes if that may be lost")
        await alu.metadata.format(self._susid, new_device_wwn())
        alu.inspection = await alu.metadata.inspect(self._susid)
        self._note_driver(alu)
        return alu

    async def detach(self, path: str) -> None:
        """Close an ALU. The caller has made sure that nothing uses it."""
        alu = self.by_path(path)
        await self._engine.release(alu.driver)
        del self._alus[path]
        if alu.wwn is not None:
            del self.drivers[alu.wwn]

    def records(self) -> list[AluRecord]:
        """Give what is stored on each owned ALU."""
        return [
            AluRecord(alu.wwn, alu.metadata.objects, alu.inspection.findings)
            for alu in self._alus.values()
            if alu.wwn is not None
        ]

    # Changes

    async def store(self, tree: Sequence[AnyObject], spared: frozenset[Wwn] = frozenset()) -> None:
        """Store a volume's tree in place of what is stored of it, in two rounds: partitions first.

        ALUs in ``spared`` are left out: they have failed, or can't be reached.

        Raises:
            UsageError: an ALU is not attached, or has no room for the objects.
            AluError: an ALU failed. What was stored in the first round is gone again.
        """
        async with self._changing:
            wanted = {wwn: objs for wwn, objs in placement(tree).items() if wwn not in spared}
            alus = {wwn: self._owned(wwn) for wwn in wanted}
            before = {wwn: alu.metadata.objects for wwn, alu in alus.items()}
            volume = tree[0].wwn
            partitions = {
                wwn: _with(before[wwn], [obj for obj in objs if isinstance(obj, PartitionObject)])
                for wwn, objs in wanted.items()
            }
            try:
                await self._commit(alus, partitions)
            except TiergateError:
                await self._commit(alus, before)
                raise
            await self._commit(alus, {wwn: _with(_without(before[wwn], volume), objs) for wwn, objs in wanted.items()})

    async def remove(self, volume: Wwn) -> None:
        """Remove all objects of a volume: those of the second tier first.

        Raises:
            AluError: an ALU failed; the volume may still be there.
        """
        async with self._changing:
            alus = {alu.wwn: alu for alu in self._alus.values() if alu.wwn is not None}
            holding = {w: a for w, a in alus.items() if any(belongs(obj, volume) for obj in a.metadata.objects)}
            await self._commit(
                holding,
                {
                    wwn: tuple(
                        obj
                        for obj in alu.metadata.objects
                        if isinstance(obj, PartitionObject) or not belongs(obj, volume)
                    )
                    for wwn, alu in holding.items()
                },
            )
            await self._commit(holding, {w: _without(a.metadata.objects, volume) for w, a in holding.items()})

    async def _commit(self, alus: Mapping[Wwn, OpenAlu], objects: Mapping[Wwn, Sequence[AnyObject]]) -> None:
        """Commit on all ALUs at once; the first error is raised when all have ended."""
        outcomes = await asyncio.gather(
            *(
                alus[wwn].metadata.commit(wanted)
                for wwn, wanted in objects.items()
                if tuple(wanted) != alus[wwn].metadata.objects
            ),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def failed(self, error: AluError) -> None:
        """Note that an ALU answered with an error."""
        if error.path in self._alus:
            self._alus[error.path].failure = str(error)

    def _owned(self, wwn: Wwn) -> OpenAlu:
        alu = self.by_wwn(wwn)
        if alu is None:
            raise UsageError(f"alu {wwn} is not attached")
        return alu

    def _note_driver(self, alu: OpenAlu) -> None:
        if alu.wwn is not None:
            self.drivers[alu.wwn] = alu.driver


def belongs(obj: AnyObject, volume: Wwn) -> bool:
    """Say whether an object is part of a volume."""
    return obj.wwn == volume if isinstance(obj, VolumeObject) else obj.volume == volume


def placement(tree: Sequence[AnyObject]) -> dict[Wwn, list[AnyObject]]:
    """Say which objects of a tree are stored on which ALU (R3)."""
    by_wwn = {obj.wwn: obj for obj in tree}
    below: dict[Wwn, set[Wwn]] = {}

    def alus_below(obj: AnyObject) -> set[Wwn]:
        if isinstance(obj, PartitionObject):
            found = {obj.alu}
        else:
            found = set().union(*(alus_below(by_wwn[child]) for child in obj.children))
        below[obj.wwn] = found
        return found

    alus_below(tree[0])
    stored: dict[Wwn, list[AnyObject]] = {}
    for obj in tree:
        for alu in sorted(below[obj.wwn]):
            stored.setdefault(alu, []).append(obj)
    return stored


def _with(objects: Sequence[AnyObject], more: Sequence[AnyObject]) -> tuple[AnyObject, ...]:
    replaced = {obj.wwn for obj in more}
    return (*(obj for obj in objects if obj.wwn not in replaced), *more)


def _without(objects: Sequence[AnyObject], volume: Wwn) -> tuple[AnyObject, ...]:
    return tuple(obj for obj in objects if not belongs(obj, volume))
