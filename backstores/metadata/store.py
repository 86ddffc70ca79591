"""The metadata of one ALU over something that reads, writes and flushes.

Everything that is decided lies in the pure modules; here it is only carried out. What this object
says about an ALU (``label``, ``objects``, ``generation``) changes after the last flush of a commit
and not before: after a failure, or a cancelled task, it tells the old state, and the next commit
first takes back what the failed one may have left.

Every change begins with a look at the fence (``backstores.metadata.mdr``), with all other writers kept out
until it is done (M5).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from backstores.alu.base import AluFull
from backstores.errors import CorruptError, TiergateError, UsageError
from backstores.metadata import inspection as inspections
from backstores.metadata import label as labels
from backstores.metadata import laying, mdr, region, witness
from backstores.metadata.copies import Choice
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.free import free_extents
from backstores.metadata.inspection import Inspection, Ownership
from backstores.metadata.label import Label
from backstores.metadata.laying import LaidOut
from backstores.metadata.layout import FORMAT_VERSION, data_area
from backstores.metadata.mdr import Directory
from backstores.metadata.region import Commit, RegionState
from backstores.metadata.steps import Reads, Step, Write
from backstores.metadata.table import Entry, Key, Table, Update
from backstores.objects import AnyObject, Extent
from backstores.wwn import Wwn

Clock = Callable[[], int]
T = TypeVar("T")


class Storage(Protocol):
    """The bytes of an ALU. Offsets and lengths are whole units of 4 KiB, those at the very end excepted.

    All raise a ``TiergateError`` where the ALU answers with an error.
    """

    async def read(self, offset: int, length: int) -> bytes:
        """Read exactly ``length`` bytes."""

    async def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data``."""

    async def flush(self) -> None:
        """Make all that was written before durable."""

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Keep all others who ask for the same out meanwhile, those in other processes, too."""


async def carry_out(storage: Storage, steps: Iterable[Step]) -> None:
    """Do one step after the other; the first error ends it."""
    for step in steps:
        if isinstance(step, Write):
            await storage.write(step.offset, step.data)
        else:
            await storage.flush()


async def answer(storage: Storage, reads: Reads[T]) -> T:
    """Read what a core asks for, until it has decided."""
    try:
        span = next(reads)
        while True:
            try:
                raw = await storage.read(span.offset, span.length)
            except TiergateError as error:
                span = reads.throw(error)
            else:
                span = reads.send(raw)
    except StopIteration as done:
        decided: T = done.value
        return decided


@dataclass(frozen=True, slots=True)
class _Held:
    """What is known of an owned ALU. ``undo`` takes a commit back of which nobody knows how it ended.

    ``agreed``: the table has just what the objects and ``kept`` want.
    """

    label: Label
    directory: Directory
    state: RegionState
    table: Table
    kept: dict[Key, Entry]
    undo: tuple[Step, ...] = ()
    agreed: bool = False


class AluMetadata:
    """The metadata of one ALU. ``inspect`` first; then ``fence`` it, and ``commit`` as often as objects change.

    Raises:
        UsageError: the ALU is too small to have metadata.
    """

    def __init__(self, storage: Storage, size_bytes: int, now_ns: Clock = time.time_ns) -> None:
        data_area(size_bytes)
        self.size_bytes: Final = size_bytes
        self._storage = storage
        self._now_ns = now_ns
        self._changing = asyncio.Lock()
        self._susid = ""
        self._own_epoch: int | None = None
        self._untaken = False  # a fence has failed: another writer may be there, of an epoch that is not refused
        self._held: _Held | None = None

    @property
    def label(self) -> Label:
        """The label of an ALU that was found to be owned, or that was formatted."""
        return self._usable().label

    @property
    def directory(self) -> Directory:
        """The MDR directory: whose the ALU is, and where its objects lie."""
        return self._usable().directory

    @property
    def epoch(self) -> int:
        """The highest epoch that the ALU has seen, as far as it was read: older writers are refused."""
        return self.directory.epoch

    @property
    def objects(self) -> tuple[AnyObject, ...]:
        """The objects on it, as last committed."""
        return self._usable().state.objects

    @property
    def generation(self) -> int:
        """The generation of the last commit."""
        return self._usable().state.generation

    @property
    def table(self) -> Table:
        """The partition table: the second witness of the objects."""
        return self._usable().table

    @property
    def free(self) -> tuple[Extent, ...]:
        """The room that is left for partitions; what partitions had that were lost is not among it."""
        held = self._usable()
        return free_extents(held.label.data, held.state.objects, (entry.extent for entry in held.kept.values()))

    async def inspect(self, susid: str) -> Inspection:
        """Look at the ALU and say what it is to the appliance ``susid``; nothing on it changes."""
        async with self._changing:
            return await self._look(susid)

    async def format(self, susid: str, alu: Wwn, epoch: int = 0) -> None:
        """Lay the ALU out afresh, without objects, whatever it held: whoever calls has asked for leave.

        Raises:
            UsageError: the SUSID or the name can't be stored, or it has this name already.
            TiergateError: a write or a flush failed; it may be either.
        """
        async with self._alone():
            found = await self._look(susid)
            laid_out = laying.claim(found, susid, alu, self.size_bytes, self._now_ns(), epoch)
            await self._lay_out(laid_out, susid)

    async def migrate(self, epoch: int = 0) -> None:
        """Bring an owned ALU of an older version to this one, in place; one of this version stays as it is.

        Raises:
            UsageError: something lies where this version has no room for it.
            TiergateError: a write or a flush failed; it may be either.
        """
        async with self._alone():
            found = await self._look(self._susid)
            if self._usable().label.version == FORMAT_VERSION:
                return
            self.directory.admit(epoch)
            now_ns = self._now_ns()
            table = await answer(self._storage, laying.table_before(found, self.size_bytes))
            await self._lay_out(laying.migrate(found, table, self.size_bytes, now_ns, epoch), self._susid)

    async def fence(self, epoch: int, own: int | None = None) -> tuple[Finding, ...]:
        """Take the ALU over, and read again what it holds: no older writer changes that any more.

        ``own``: the epoch by which it has been taken over here before; then it is refused if another has come since.

        Copies of label and MDR directory that are not as they should be are written again. What was found wrong is
        given back, those copies included.

        Raises:
            FencedError: it was taken over by a later epoch.
            TiergateError: it could not be written or read.
        """
        async with self._alone():
            self._untaken = True
            held, choice = await self._admitted(epoch if own is None else own)
            self._held = held
            if held.directory.epoch < epoch or choice.findings:
                fenced = mdr.renewed(replace(held.directory, epoch=epoch), held.directory, self._now_ns())
                await self._put(mdr.commit(fenced, (address,)) for address in choice.order)
            found = await self._look(self._susid)
            held = self._usable()
            self._own_epoch, self._untaken = epoch, False
            if found.choice.findings:
                label = labels.renewed(replace(held.label, epoch=epoch), held.label, self._now_ns())
                try:
                    await carry_out(self._storage, labels.commit(label, found.choice.order))
                except TiergateError as error:  # others of its copies are good, and it has been taken over
                    failed = Finding(Problem.UNFINISHED, "label", f"it can't be written again: {error}")
                    return (*choice.findings, *found.findings, failed)
                self._held = replace(held, label=label)
            return (*choice.findings, *found.findings)

    async def _put(self, copies: Iterable[Iterable[Step]]) -> None:
        """Write copies, each durable before the next is touched. One is enough: a bad sector must not stop a fence."""
        errors: list[TiergateError] = []
        written = 0
        for steps in copies:
            try:
                await carry_out(self._storage, steps)
                written += 1
            except TiergateError as error:
                errors.append(error)
        if not written:
            raise errors[0]

    async def commit(self, objects: Sequence[AnyObject], epoch: int | None = None) -> None:
        """Make these the objects on the ALU: all of them or, after any crash, still the old ones (M6).

        The partition table follows: it has the room of new partitions before they are committed, and of old ones
        until they are gone. So committing what is there already mends the table.

        Without an ``epoch`` it is that by which the ALU was taken over here, or that in which it was met first: who is
        refused does not become a later writer by looking again.

        Raises:
            UsageError: they don't fit, or contradict each other; nothing was written.
            FencedError: a writer of a later epoch has taken the ALU over; nothing was written.
            TiergateError: it could not be taken over; nothing was written. Or a write or a flush failed; ``objects``
                says which count here.
        """
        async with self._alone():
            epoch = self._own_epoch or 0 if epoch is None else epoch
            held = await self._taken(epoch)
            now_ns = self._now_ns()
            data = held.label.data
            change = region.commit(held.state, objects, held.directory, data, now_ns, epoch)
            if held.agreed:
                gone, come = change.difference.gone, change.difference.come
                before, behind = witness.around_change(held.table, gone, come, held.kept, held.label, now_ns, epoch)
            else:
                old, new = held.state.objects, change.after.objects
                before, behind = witness.around(held.table, old, new, held.kept, held.label, now_ns, epoch)
            try:
                await self._write(held, before, change)
            except AluFull:
                if change.after.live != held.state.live:
                    raise
                # The file can't grow for its log, but the other region has room of its own: volumes can be deleted.
                await carry_out(self._storage, change.undo)
                whole = replace(held.state, end=None)
                change = region.commit(whole, objects, held.directory, data, now_ns, epoch)
                await self._write(held, before, change)
            self._held = held = replace(held, table=behind.begun, state=change.after, agreed=False)
            await carry_out(self._storage, behind.steps)
            self._held = replace(held, table=behind.after, agreed=True)

    async def renew(self, epoch: int) -> None:
        """Write the objects again into the region that is not live: it is damaged, and nothing was lost with it.

        Raises:
            FencedError: a writer of a later epoch has taken the ALU over; nothing was written.
            TiergateError: a write or a flush failed; the objects are as they were.
        """
        async with self._alone():
            held = await self._taken(epoch)
            change = region.renewed(held.state, held.directory, self._now_ns(), epoch)
            self._held = replace(held, undo=change.undo)
            await carry_out(self._storage, change.steps)
            self._held = replace(held, state=change.after)

    async def _taken(self, epoch: int) -> _Held:
        """Let a writer of objects go on, if the ALU could be taken over."""
        held, _ = await self._admitted(epoch)
        if self._untaken:
            raise TiergateError(f"alu {held.label.alu} could not be taken over; that is tried again by and by")
        return held

    async def _write(self, held: _Held, before: Update, change: Commit) -> None:
        """Reserve room in the table, and commit. Until both are done nobody knows which of them counts."""
        self._held = replace(held, table=before.begun, undo=change.undo, agreed=False)
        await carry_out(self._storage, (*before.steps, *change.steps))

    @asynccontextmanager
    async def writing(self, epoch: int) -> AsyncIterator[None]:
        """Keep all others off while something is written that has a place of its own on the ALU (``GS_BOOT``).

        Raises:
            FencedError: it was taken over by a later epoch.
            TiergateError: it could not be read.
        """
        async with self._alone():
            self._held, _ = await self._admitted(epoch)
            yield

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with self._changing, self._storage.exclusive():
            yield

    async def _admitted(self, epoch: int) -> tuple[_Held, Choice[Directory]]:
        """Let a writer of this epoch go on, unless the ALU says that there is a later one (M5)."""
        held = self._usable()
        if held.label.version != FORMAT_VERSION:
            raise UsageError(f"alu {held.label.alu} has format version {held.label.version}: migrate it first")
        choice = await answer(self._storage, inspections.directory_of(held.label))
        if choice.winner is None:
            raise CorruptError("; ".join(map(str, choice.findings)))
        choice.winner.admit(epoch)
        if choice.winner.epoch == held.directory.epoch:  # else a later writer has gone on from what it found
            await carry_out(self._storage, held.undo)
        return replace(held, directory=choice.winner, undo=()), choice

    async def _look(self, susid: str) -> Inspection:
        found = await answer(self._storage, inspections.inspect(susid, self.size_bytes))
        self._susid = susid
        before, self._held = self._held, None
        if found.ownership is Ownership.OWNED:
            assert found.label is not None
            assert found.directory is not None
            assert found.state is not None
            if self._own_epoch is None:
                self._own_epoch = found.directory.epoch
            kept = dict(found.agreement.kept)
            agreed = found.agreement.settled
            self._held = _Held(found.label, found.directory, found.state, found.table, kept, agreed=agreed)
            if before is not None and before.undo and before.directory == found.directory:
                self._held = before  # what a failed commit left can be read, but may never have reached the disk
        return found

    async def _lay_out(self, laid_out: LaidOut, susid: str) -> None:
        self._held = None
        await carry_out(self._storage, laid_out.steps)
        self._susid = susid
        self._own_epoch = laid_out.directory.epoch
        self._held = _Held(laid_out.label, laid_out.directory, laid_out.state, laid_out.table, {})

    def _usable(self) -> _Held:
        if self._held is None:
            raise CorruptError("the alu has no metadata that could be used: inspect it, and claim it if it is yours")
        return self._held
