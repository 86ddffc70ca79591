"""A unit of an iSCSI target as an ALU: a first-tier object of another storage processor (RRN, R12), or a disk array's.

Nothing here is done at once: whatever goes over a network waits. So the hot path's ``read_now`` and ``write_now``
always say no, and ``begin_read`` and ``begin_write`` take their place, which call back when the target has answered
and cost no task of the event loop.

Views are moved by a command each, side by side, since a Data-In is received straight into one buffer.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final

from backstores.alu.base import (
    PAGE_BYTES,
    AluDriver,
    AluError,
    AluOp,
    Backend,
    ByteRun,
    Kind,
    Transfers,
    never_beside,
    never_now,
)
from backstores.engine.backend import Held
from backstores.engine.bounce import scatter
from backstores.errors import ProtocolError, UsageError
from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, transfer
from backstores.iscsi.initiator.outcome import CommandFailed, errno_of
from backstores.iscsi.initiator.questions import UnitFacts, examine, identify
from backstores.iscsi.initiator.target import RemoteTarget
from backstores.iscsi.initiator.tasks import Task
from backstores.scsi import cdb as formats
from backstores.scsi import transfers
from backstores.scsi.lun import encode
from backstores.scsi.provisioning import LbaStatusDescriptor, LbaStatusHeader, UnmapDescriptor, UnmapHeader
from backstores.wwn import Wwn

STATUS_RUNS: Final = 256  # of one GET LBA STATUS
ZEROS_BYTES: Final = 1 << 20

Done = Callable[[int], None]
"""Hears how a transfer has ended: 0, or an errno."""


async def open_remote(
    target: RemoteTarget, lun: int, path: str, wwn: Wwn | None = None, kind: type[RemoteLun] | None = None
) -> RemoteLun:
    """Open a unit of a target; with ``wwn`` it must be the one of that name. It stays the same unit from here on.

    ``kind``: what to make of it, if it is no plain ``RemoteLun``.

    Raises:
        UsageError: it is another one, or no whole number of pages long.
        CommandFailed, ProtocolError: the target can't be asked.
    """
    facts = await examine(target, lun)
    name = await identify(target, lun)
    if wwn is not None and name != wwn:
        raise UsageError(f"{path}: lun {lun} is {name or 'a unit without a name'}, not {wwn}")
    if facts.size_bytes < PAGE_BYTES:
        raise UsageError(f"{path} has {facts.size_bytes} bytes; an ALU has {PAGE_BYTES} at least")
    if name is not None:
        target.expect(lun, name)
    return (kind or RemoteLun)(target, lun, facts, path, name)


class RemoteLun(AluDriver, Transfers):
    """A unit of a target. Its sessions are the target's, and outlive it; ``wwn`` is its name, if it has one."""

    def __init__(self, target: RemoteTarget, lun: int, facts: UnitFacts, path: str, wwn: Wwn | None = None) -> None:
        self.path = path
        self.kind = Kind.REMOTE
        self.wwn = wwn
        self.size_bytes = facts.size_bytes
        self.sector_bytes = facts.block_bytes
        self.physical_bytes = facts.physical_block_bytes
        self.direct = False
        self.read_now = self.readv_now = never_now
        self.write_now = self.writev_now = never_now
        self.write_beside = never_beside
        self.closed = False
        self._target = target
        self._lun = lun
        self._field = encode(lun)
        self._facts = facts
        self._most_bytes = facts.transfer_blocks * facts.block_bytes
        self._synchronize: type[transfers.AnySynchronizeCache] = transfers.SynchronizeCache16

    def transfers(self, backend: Backend) -> Transfers:
        return self

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._target.forget(self._lun)

    def stands_for(self, target: RemoteTarget, lun: int) -> bool:
        """Whether it is this unit, by these sessions."""
        return self._target is target and self._lun == lun and not self.closed

    def hurry(self, on: bool) -> None:
        """Fail at once while no path is up, or wait for one again: whoever holds a volume may know another way."""
        self._target.hurry(self._lun, on)

    # The hot path

    def begin_read(self, offset: int, into: memoryview, done: Done) -> bool:
        """Read without a task of the event loop; False: it takes more than one command, and nothing has happened."""
        return self._begin(READ_16, offset, into, done, False)

    def begin_write(self, offset: int, data: memoryview, done: Done, durable: bool = False) -> bool:
        """Write alike; ``data`` stays as it is until ``done`` is called."""
        return self._begin(WRITE_16, offset, data, done, durable)

    def flush_soon(self) -> None:
        """Send what was begun now, instead of at the end of this turn of the event loop."""
        self._target.flush()

    def _begin(self, opcode: int, offset: int, view: memoryview, done: Done, durable: bool) -> bool:
        block_bytes = self.sector_bytes
        length = len(view)
        lba, skip = divmod(offset, block_bytes)
        blocks, rest = divmod(length, block_bytes)
        if skip or rest or not 0 < length <= self._most_bytes or self.closed:
            return False

        def ended(task: Task) -> None:
            done(0 if task.status == 0 and task.moved_bytes == length else errno_of(task) or errno.EIO)

        cdb = transfer(opcode, lba, blocks, durable)
        if opcode == READ_16:
            self._target.submit(Task(self._field, cdb, ended, view))
        else:
            self._target.submit(Task(self._field, cdb, ended, data=view))
        return True

    # What the engine awaits

    def readv(self, views: Sequence[memoryview], offset: int) -> Held:
        if self._whole_blocks(views):
            return self._move(READ_16, views, offset, False)
        into = memoryview(bytearray(sum(map(len, views))))
        return self._move(READ_16, [into], offset, False, lambda count: scatter(into[:count], views))

    def writev(self, views: Sequence[memoryview], offset: int, durable: bool) -> Held:
        if not self._whole_blocks(views):
            views = [memoryview(b"".join(views))]
        return self._move(WRITE_16, views, offset, durable)

    def _whole_blocks(self, views: Sequence[memoryview]) -> bool:
        return not any(len(view) % self.sector_bytes for view in views)

    def _move(
        self,
        opcode: int,
        views: Sequence[memoryview],
        offset: int,
        durable: bool,
        moved: Callable[[int], None] = lambda count: None,
    ) -> Held:
        """Move the views by as many commands as it takes, all at once; the answer is the kernel's."""
        outcome = Held()
        if len(views) == 1 and self._begin_whole(opcode, views[0], offset, durable, outcome, moved):
            return outcome
        pieces = list(self._pieces(views))
        answers: dict[int, int] = {}

        def piece_ended(number: int, code: int) -> None:
            answers[number] = code
            if len(answers) == len(pieces):
                count = _answer([(len(pieces[n]), answers[n]) for n in range(len(pieces))])
                if count > 0:
                    moved(count)
                outcome.set_result(count)

        at = offset
        for number, piece in enumerate(pieces):
            if not self._begin(opcode, at, piece, partial(piece_ended, number), durable):
                piece_ended(number, errno.EBADF if self.closed else errno.EINVAL)
            at += len(piece)
        return outcome

    def _begin_whole(
        self, opcode: int, view: memoryview, offset: int, durable: bool, outcome: Held, moved: Callable[[int], None]
    ) -> bool:
        """Move one view by one command, as most transfers are; False: it takes more."""

        def ended(code: int) -> None:
            if not code:
                moved(len(view))
            outcome.set_result(-code if code else len(view))

        return self._begin(opcode, offset, view, ended, durable)

    def _pieces(self, views: Sequence[memoryview]) -> Iterator[memoryview]:
        for view in views:
            for at in range(0, len(view), self._most_bytes):
                yield view[at : at + self._most_bytes]

    async def sync(self) -> int:
        try:
            await self._target.execute(self._lun, self._synchronize.build())
        except CommandFailed as error:
            if error.errno == errno.EOPNOTSUPP and self._synchronize is transfers.SynchronizeCache16:
                self._synchronize = transfers.SynchronizeCache10  # older targets have this one alone
                return await self.sync()
            return -error.errno
        return 0

    async def discard(self, offset: int, length: int) -> None:
        if not self._facts.unmap_blocks:
            await self.zero(offset, length)
            return
        for lba, blocks in self._extents(offset, length, self._facts.unmap_blocks):
            descriptor = UnmapDescriptor.build(lba=lba, blocks=blocks)
            lengths = {"descriptors_length": len(descriptor), "data_length": UnmapHeader.SIZE - 2 + len(descriptor)}
            data = UnmapHeader.build(**lengths) + descriptor
            await self._change(AluOp.DISCARD, lba, formats.Unmap.build(parameter_bytes=len(data)), data)

    async def zero(self, offset: int, length: int) -> None:
        block = bytes(self.sector_bytes)
        for lba, blocks in self._extents(offset, length, self._facts.write_same_blocks):
            try:
                await self._change(AluOp.ZERO, lba, transfers.WriteSame16.build(lba=lba, blocks=blocks), block)
            except AluError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                await self._write_zeros(lba * self.sector_bytes, blocks * self.sector_bytes)

    async def _write_zeros(self, offset: int, length: int) -> None:
        zeros = memoryview(bytes(min(ZEROS_BYTES, length)))
        for at in range(offset, offset + length, ZEROS_BYTES):
            part = zeros[: min(ZEROS_BYTES, offset + length - at)]
            count = await self.writev([part], at, False)
            if count != len(part):
                raise AluError.of(self.path, AluOp.ZERO, at + max(0, count), -count if count < 0 else errno.EIO)

    async def status(self, offset: int, length: int) -> list[ByteRun]:
        runs: list[ByteRun] = []
        at, end = offset // self.sector_bytes, (offset + length) // self.sector_bytes
        while at < end:
            try:
                found = await self._status_from(at)
            except CommandFailed as error:
                if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                    return [ByteRun(offset, length, True)]  # it is not thin, or does not tell
                raise AluError.of(self.path, AluOp.STATUS, offset, error.errno) from error
            except ProtocolError as error:
                raise AluError(self.path, AluOp.STATUS, offset, errno.EIO, str(error)) from error
            for blocks, mapped in found:
                blocks = min(blocks, end - at)
                if blocks:
                    _append(runs, ByteRun(at * self.sector_bytes, blocks * self.sector_bytes, mapped))
                at += blocks
        return runs

    async def _status_from(self, lba: int) -> list[tuple[int, bool]]:
        """Give lengths in blocks and whether they are backed, from a block on; at least one."""
        room = LbaStatusHeader.SIZE + STATUS_RUNS * LbaStatusDescriptor.SIZE
        answer = await self._target.execute(self._lun, formats.GetLbaStatus.build(lba=lba, allocation_bytes=room), room)
        found: list[tuple[int, bool]] = []
        for at in range(LbaStatusHeader.SIZE, len(answer) - LbaStatusDescriptor.SIZE + 1, LbaStatusDescriptor.SIZE):
            run = LbaStatusDescriptor.parse(answer, at)
            skipped = lba - run.lba if not found else 0
            if (found and run.lba != lba) or not 0 <= skipped < run.blocks:
                break
            found.append((run.blocks - skipped, not run.deallocated))
            lba += run.blocks - skipped
        if not found:
            raise ProtocolError("an answer to GET LBA STATUS that tells nothing of the block it was asked for")
        return found

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        yield

    def exclusive(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        """Let everybody in: metadata are changed by the one MVSP that the unit's storage processor lets in (M5)."""
        return self._alone()

    async def settle(self) -> None:
        """Nothing goes on in the background."""

    def _extents(self, offset: int, length: int, most_blocks: int) -> Iterator[tuple[int, int]]:
        first, end = offset // self.sector_bytes, (offset + length) // self.sector_bytes
        for lba in range(first, end, most_blocks):
            yield lba, min(most_blocks, end - lba)

    async def _change(self, op: AluOp, lba: int, cdb: bytes, data: bytes) -> None:
        try:
            await self._target.execute(self._lun, cdb, data_out=data)
        except CommandFailed as error:
            raise AluError.of(self.path, op, lba * self.sector_bytes, error.errno) from error


def _answer(pieces: Sequence[tuple[int, int]]) -> int:
    """Say as the kernel does how far a transfer has come: bytes, or minus an errno where its first piece failed."""
    count = 0
    for length, code in pieces:
        if code:
            return count or -code
        count += length
    return count


def _append(runs: list[ByteRun], run: ByteRun) -> None:
    """Add a run; one that goes on as the last one did becomes part of it."""
    if runs and runs[-1].mapped == run.mapped:
        runs[-1] = runs[-1]._replace(length=runs[-1].length + run.length)
    else:
        runs.append(run)
