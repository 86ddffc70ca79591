"""The GS set of this appliance: kept on its ALUs as they come and go, and asked before each change (R4, M4).

Whoever changes anything on the ALUs asks ``ready`` first. That is a look at the members, which writes nothing
while all is well: the set itself changes only when ALUs come, go or fail, when the appliance starts and stops, and
when the metadata of a legacy ALU does. Below a majority the appliance is *read only*: volumes serve, and failures
of legs are recorded on their ALUs as ever; nothing else is changed. Without any ALU there is no set, and nothing
that it could forbid.

An ALU that is an older copy of itself, by what the set remembers, is *stale*: it is listed, and never used.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.inventory import Inventory, OpenAlu
from appliance.messages import GsMember, GsState, GsStatus
from backstores.alu.location import disk_of
from backstores.engine.engine import Engine
from backstores.engine.storage import DriverStorage
from backstores.errors import TiergateError, UsageError
from backstores.metadata.findings import Problem
from backstores.metadata.gsformat import LegacyRecord, RosterEntry, Usage, path_hint
from backstores.metadata.gsstore import BelowMajorityError, GsDisk, GsStore
from backstores.wwn import Wwn

log = logging.getLogger(__name__)

LOSSES: Final = frozenset({Problem.LOST, Problem.UNREADABLE, Problem.DAMAGED})
"""Findings by which an ALU's objects may be older than they were, without it being a copy."""

EPOCH_LASTS_S: Final = 1800.0
"""How long an epoch lasts while the appliance runs. A copy of an ALU that is older than this is told from its original,
even if power fails and the copy takes the original's place; one that is younger can't be."""


class ReadOnlyError(TiergateError):
    """A change was refused, because it could not be told from one that another appliance makes elsewhere."""


@dataclass(slots=True)
class AluFence:
    """What keeps older writers off an ALU, as the set sees it."""

    inventory: Inventory
    alu: OpenAlu

    @property
    def epoch(self) -> int:
        """The highest epoch that the ALU has seen; none, once it can't be read any more."""
        return self.alu.metadata.epoch if self.alu.owned else 0

    async def fence(self, epoch: int, own: int | None = None) -> None:
        """Raise it. An ALU that can't be read again afterwards is not used any more.

        Raises:
            TiergateError: it is higher already, or the ALU does not answer.
        """
        try:
            await self.alu.metadata.fence(epoch, own)
        except TiergateError:
            await self.inventory.look_again(self.alu)
            raise

    def writing(self, epoch: int) -> AbstractAsyncContextManager[None]:
        """Keep other writers off while something is written."""
        return self.alu.metadata.writing(epoch)


class GlobalSet:
    """The set over the ALUs of an inventory. It also keeps what belongs to legacy ALUs: a ``RecordStore``."""

    def __init__(self, engine: Engine, inventory: Inventory, now_s: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._inventory = inventory
        self._now_s = now_s
        self._renewed_s = now_s()
        self._store = GsStore()
        self._told = ""

    async def start(self, least_epoch: int = 0) -> None:
        """Take the set up, or form it, with all ALUs there are; in an epoch that is not below ``least_epoch``."""
        disks = [await self._disk(alu) for alu in self._inventory if alu.owned]
        try:
            await self._store.start(disks, least_epoch)
        except BelowMajorityError as error:
            self._tell(error)
        self._set_aside()
        if self._store.held:
            log.info("GS set: epoch %d, %d members", self._store.epoch, len(self.status().members))

    async def admit(self, alu: OpenAlu) -> None:
        """Take in an ALU that was attached or claimed; below a majority it is used as it is."""
        disk = await self._disk(alu)
        try:
            await self._store.admit(disk)
            self._tell(None)
        except BelowMajorityError as error:
            self._tell(error)
        self._set_aside()

    async def release(self, alu: OpenAlu) -> None:
        """Let an ALU go that is about to be detached.

        Raises:
            ReadOnlyError: not now.
        """
        if alu.stale:
            self._store.stale.pop(alu.metadata.label.alu, None)
        elif alu.owned:
            await self._strike(self._entry(alu, Usage.DETACHED))

    async def forget(self, path: str) -> None:
        """Let an ALU go that was attached at a path, and is missing.

        Raises:
            ReadOnlyError: not now.
        """
        hint = path_hint(path)
        for entry in self._store.image.roster if self._store.image else ():
            if entry.path == hint and entry.usage is Usage.OWNED and entry.alu not in self._store.disks:
                await self._strike(msgspec.structs.replace(entry, usage=Usage.DETACHED))

    async def ready(self) -> None:
        """Make sure that a majority of the members agrees; mend the set where it can be mended.

        Raises:
            ReadOnlyError: too few members answer.
        """
        for alu in self._inventory:
            if alu.failure and alu.wwn in self._store.disks:
                self._store.disks[alu.wwn].trouble = alu.failure
        try:
            await self._store.tend()
            self._tell(None)
        except BelowMajorityError as error:
            self._tell(error)
            raise self._refusal(error) from error
        finally:
            self._set_aside()

    async def watch(self) -> None:
        """Look after the set while nobody asks for anything; what is wrong is logged once."""
        try:
            await self.ready()
            if self._now_s() - self._renewed_s >= EPOCH_LASTS_S:
                await self.renew()
        except ReadOnlyError:
            return  # told
        except TiergateError as error:  # such as a roster that has outgrown its room: the next look may find it mended
            self._note(f"the GS set could not be looked after: {error}")

    async def reform(self) -> None:
        """Form the set anew of the ALUs that are there: a person gives up the members that are missing.

        Raises:
            ReadOnlyError: none of these can be written.
            UsageError: there are none.
        """
        if not self._store.disks:
            raise UsageError("there is no alu that the GS set could be formed of: attach one")
        try:
            await self._store.reform()
            self._tell(None)
        except BelowMajorityError as error:
            raise self._refusal(error) from error

    async def seal(self) -> None:
        """Note at a clean stop how old the objects on each ALU are: what has older ones at the next start is a copy."""
        entries = [self._entry(alu) for alu in self._inventory if alu.wwn in self._store.disks]
        image = self._store.image
        if self._store.held and image is not None and not set(entries) <= set(image.roster):
            await self._try(self._store.change(entries))

    async def renew(self) -> None:
        """Take a new epoch, and note how old the objects on each ALU are: copies made before this are known as such."""
        self._renewed_s = self._now_s()
        for alu in self._inventory:
            if alu.wwn in self._store.disks:
                self._store.disks[alu.wwn].generation = alu.metadata.generation
        if self._store.held:
            await self._try(self._store.renew())

    async def _try(self, change: Awaitable[None]) -> None:
        """Make a change that is no more than a note: where it can't be made, that is told."""
        try:
            await change
        except BelowMajorityError as error:
            self._tell(error)

    # What is kept for legacy ALUs (R5)

    def load(self) -> Mapping[Wwn, bytes]:
        """Give the records there are, by the names of their ALUs."""
        image = self._store.image
        return {record.alu: record.body for record in (image.legacy if image else ())}

    async def save(self, alu: Wwn, record: bytes | None) -> None:
        """Keep a record, or forget it (None).

        Raises:
            UsageError: there is no ALU to keep it on, or no room.
            ReadOnlyError: too few members answer.
        """
        if self._store.image is None and self._store.error is None:
            raise UsageError("a legacy alu's metadata is kept on other alus, and there are none: attach one first")
        await self.ready()
        records = {**self.load(), alu: record}
        kept = tuple(LegacyRecord(name, body) for name, body in sorted(records.items()) if body is not None)
        try:
            await self._store.change(legacy=kept)
        except BelowMajorityError as error:
            self._tell(error)
            raise self._refusal(error) from error

    # What is told

    def status(self) -> GsStatus:
        """Describe the set."""
        store, image, error = self._store, self._store.image, self._store.error
        names = image.members if image is not None else ()
        return GsStatus(
            state=GsState.READ_ONLY if error else GsState.READY if store.held else GsState.NONE,
            epoch=store.epoch,
            generation=image.generation if image is not None else 0,
            members=tuple(self._member(name) for name in names),
            detail=str(self._refusal(error)) if error else "",
        )

    def is_member(self, alu: OpenAlu) -> bool:
        """Whether an ALU holds the set."""
        return self._store.image is not None and alu.wwn in self._store.image.members

    def _member(self, name: Wwn) -> GsMember:
        disk = self._store.disks.get(name)
        if disk is not None:
            return GsMember(name, disk.path, disk.why_not)
        assert self._store.image is not None
        entry = self._store.image.entry(name)
        return GsMember(name, entry.path if entry else "", self._store.stale.get(name, "not attached"))

    def _tell(self, error: BelowMajorityError | None) -> None:
        """Log that the set can't be changed, or can be again, once."""
        self._note(str(self._refusal(error)) if error else "")

    def _note(self, text: str) -> None:
        if text and text != self._told:
            log.error("%s", text)
        elif self._told and not text:
            log.info("GS set: a majority of its members agrees again")
        self._told = text

    @staticmethod
    def _refusal(error: BelowMajorityError) -> ReadOnlyError:
        return ReadOnlyError(
            f"the appliance is read only, data goes on: {error}. Bring them back; if they are lost for good,"
            " `/gs reform force=yes` goes on without them"
        )

    # How ALUs are taken in and let go

    async def _disk(self, alu: OpenAlu) -> GsDisk:
        disk = await asyncio.to_thread(disk_of, alu.driver)
        storage = DriverStorage(self._engine, alu.driver)
        fence = AluFence(self._inventory, alu)
        found = GsDisk(alu.metadata.label.alu, alu.driver.path, disk, storage, fence, alu.metadata.generation)
        found.sound = not any(finding.problem in LOSSES for finding in alu.inspection.findings)
        return found

    def _entry(self, alu: OpenAlu, usage: Usage = Usage.OWNED) -> RosterEntry:
        metadata = alu.metadata
        hint = path_hint(alu.driver.path)
        return RosterEntry(metadata.label.alu, hint, usage, metadata.epoch, metadata.generation)

    async def _strike(self, entry: RosterEntry) -> None:
        try:
            await self._store.release(entry.alu, entry)
        except BelowMajorityError as error:
            self._tell(error)
            raise self._refusal(error) from error

    def _set_aside(self) -> None:
        for alu in self._inventory:
            if alu.owned and (why := self._store.stale.get(alu.metadata.label.alu)):
                self._inventory.set_aside(alu, why)
