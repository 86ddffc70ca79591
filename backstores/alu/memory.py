"""The twin of a driver in memory, for tests: it fails, waits and forgets on command.

    alu = MemoryDriver(1 << 20)
    alu.fail(AluOp.READ, errno.EIO, offset=8192, length=512)   # a bad sector
    alu.fail(AluOp.FLUSH, errno.EIO, times=1)                   # one flush that loses data
    gate = alu.hold(AluOp.WRITE)                                # writes wait ...
    await gate.reached.wait()                                   # ... until one has arrived
    gate.open()
    alu.room_bytes = 65536                                      # then ENOSPC
    alu.short_bytes = 4096                                      # no transfer moves more at once
    alu.crash()                                                 # what was not flushed is gone

Everything that reached it is in ``log``, the hot path included.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from backstores.alu.base import PAGE_BYTES, AluDriver, AluError, AluOp, Backend, ByteRun, Kind, Transfers, never_beside

SECTOR_BYTES: Final = 512  # power fails between sectors (M1)
MOVING: Final = frozenset({AluOp.READ, AluOp.WRITE})


class Seen(NamedTuple):
    """An operation that arrived. ``now``: by the hot path."""

    op: AluOp
    offset: int
    length: int
    durable: bool = False
    now: bool = False


@dataclass(slots=True)
class Fault:
    """An error that meets operations of one kind on a range."""

    op: AluOp
    errno: int
    offset: int
    end: int
    times: int | None  # None: until it is mended


@dataclass(slots=True)
class Gate:
    """Keeps operations of one kind waiting. ``reached`` is set when the first has arrived."""

    op: AluOp
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    _opened: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> None:
        """Let all go on, those to come included."""
        self._opened.set()

    @property
    def is_open(self) -> bool:
        """Whether it lets everything pass."""
        return self._opened.is_set()

    async def passed(self) -> None:
        """Arrive, and wait until it is open."""
        self.reached.set()
        await self._opened.wait()


class MemoryDriver(AluDriver, Transfers):
    """An ALU on a byte array. ``immediate`` False sends everything the waiting way."""

    def __init__(
        self, size_bytes: int, *, path: str = "memory", sector_bytes: int = 512, immediate: bool = True
    ) -> None:
        self.path = path
        self.kind = Kind.MEMORY
        self.size_bytes = size_bytes
        self.sector_bytes = sector_bytes
        self.physical_bytes = PAGE_BYTES
        self.direct = False
        self.immediate = immediate
        self.read_now = self._read_now
        self.write_now = self._write_now
        self.readv_now = self._readv_now
        self.writev_now = self._writev_now
        self.write_beside = never_beside
        self.content = bytearray(size_bytes)
        self.mapped: set[int] = set()  # pages that were written
        self.room_bytes: int | None = None  # what may still be mapped; None: no limit
        self.short_bytes: int | None = None  # the most that one transfer moves
        self.log: list[Seen] = []
        self.closed = False
        self._alone = asyncio.Lock()
        self._faults: list[Fault] = []
        self._gates: list[Gate] = []
        self._stable: dict[int, bytes] = {}  # what sectors held when last flushed, if they changed since

    # What tests do to it

    def fail(
        self,
        op: AluOp,
        number: int = errno.EIO,
        *,
        offset: int = 0,
        length: int | None = None,
        times: int | None = None,
    ) -> Fault:
        """Let operations that touch a range fail, ``times`` of them or all; bytes before the range still move."""
        end = self.size_bytes if length is None else offset + length
        fault = Fault(op, number, offset, end, times)
        self._faults.append(fault)
        return fault

    def mend(self, fault: Fault | None = None) -> None:
        """Take one fault back, or all."""
        if fault is None:
            self._faults.clear()
        else:
            self._faults.remove(fault)

    def hold(self, op: AluOp) -> Gate:
        """Keep operations waiting at a gate. The hot path answers False meanwhile."""
        gate = Gate(op)
        self._gates.append(gate)
        return gate

    def crash(self, survives: Callable[[int], bool] = lambda sector: False) -> None:
        """Lose what no flush has covered, as a disk's cache does when power fails; some sectors may survive."""
        for sector, old in self._stable.items():
            if survives(sector):
                continue
            self.content[sector * SECTOR_BYTES : sector * SECTOR_BYTES + len(old)] = old
        self._stable.clear()

    def seen(self, op: AluOp) -> list[Seen]:
        """Give the operations of one kind, in the order in which they arrived."""
        return [entry for entry in self.log if entry.op is op]

    # What a driver does

    def transfers(self, backend: Backend) -> Transfers:
        return self

    def close(self) -> None:
        self.closed = True

    def exclusive(self, offset: int, length: int) -> AbstractAsyncContextManager[None]:
        return self._alone

    async def settle(self) -> None:
        """Nothing goes on in the background."""

    def _read_now(self, offset: int, into: memoryview) -> bool:
        if not self._serves_now(AluOp.READ, offset, len(into)):
            return False
        self.log.append(Seen(AluOp.READ, offset, len(into), now=True))
        into[:] = self.content[offset : offset + len(into)]
        return True

    def _write_now(self, offset: int, data: memoryview) -> bool:
        length = len(data)
        if not self._serves_now(AluOp.WRITE, offset, length) or self._missing_room(offset, length) is not None:
            return False
        self.log.append(Seen(AluOp.WRITE, offset, length, now=True))
        self._store(offset, data)
        return True

    def _readv_now(self, offset: int, parts: Sequence[memoryview]) -> bool:
        joined = bytearray(sum(map(len, parts)))
        if not self._read_now(offset, memoryview(joined)):
            return False
        at = 0
        for part in parts:
            part[:] = joined[at : at + len(part)]
            at += len(part)
        return True

    def _writev_now(self, offset: int, parts: Sequence[memoryview]) -> bool:
        return self._write_now(offset, memoryview(b"".join(parts)))

    async def readv(self, views: Sequence[memoryview], offset: int) -> int:
        answer = await self._begun(Seen(AluOp.READ, offset, sum(map(len, views))))
        if answer > 0:
            at = offset
            for view, part in _parts(views, answer):
                view[:part] = self.content[at : at + part]
                at += part
        return answer

    async def writev(self, views: Sequence[memoryview], offset: int, durable: bool) -> int:
        answer = await self._begun(Seen(AluOp.WRITE, offset, sum(map(len, views)), durable))
        if answer > 0:
            at = offset
            for view, part in _parts(views, answer):
                self._store(at, view[:part])
                at += part
            if durable:
                for sector in _units(offset, answer, SECTOR_BYTES):
                    self._stable.pop(sector, None)
        return answer

    async def sync(self) -> int:
        answer = await self._begun(Seen(AluOp.FLUSH, 0, self.size_bytes))
        if answer < 0:
            return answer
        self._stable.clear()
        return 0

    async def discard(self, offset: int, length: int) -> None:
        await self._clear(AluOp.DISCARD, offset, length)
        self.mapped.difference_update(range(-(-offset // PAGE_BYTES), (offset + length) // PAGE_BYTES))

    async def zero(self, offset: int, length: int) -> None:
        await self._clear(AluOp.ZERO, offset, length)

    async def status(self, offset: int, length: int) -> list[ByteRun]:
        self._raise_failed(AluOp.STATUS, offset, await self._begun(Seen(AluOp.STATUS, offset, length)))
        runs: list[ByteRun] = []
        for page in _units(offset, length, PAGE_BYTES):
            start = max(offset, page * PAGE_BYTES)
            end = min(offset + length, (page + 1) * PAGE_BYTES)
            mapped = page in self.mapped
            if runs and runs[-1].mapped == mapped:
                runs[-1] = runs[-1]._replace(length=end - runs[-1].offset)
            else:
                runs.append(ByteRun(start, end - start, mapped))
        return runs

    async def _clear(self, op: AluOp, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            answer = await self._begun(Seen(op, offset, end - offset))
            self._raise_failed(op, offset, answer)
            self._store(offset, memoryview(bytes(answer)))
            offset += answer

    async def _begun(self, seen: Seen) -> int:
        """Note an arrival, wait where tests want it, and say how far it gets: bytes, or minus an errno."""
        self.log.append(seen)
        for gate in [gate for gate in self._gates if gate.op is seen.op]:
            await gate.passed()
        if self.closed:
            return -errno.EBADF
        fault = self._next_fault(seen)
        length = seen.length
        if fault is not None and fault.offset <= seen.offset:
            if fault.times is not None:
                fault.times -= 1
            return -fault.errno
        if fault is not None:
            length = fault.offset - seen.offset
        if seen.op in MOVING and self.short_bytes is not None:
            length = min(length, self.short_bytes)
        if seen.op in (AluOp.WRITE, AluOp.ZERO):
            missing = self._missing_room(seen.offset, length)
            if missing is not None:
                return missing - seen.offset or -errno.ENOSPC
        return length

    def _next_fault(self, seen: Seen) -> Fault | None:
        """Find the first place of a range that fails."""
        touched = (
            fault
            for fault in self._faults
            if fault.op is seen.op
            and fault.times != 0
            and fault.offset < seen.offset + seen.length
            and seen.offset < fault.end
        )
        return min(touched, key=lambda fault: fault.offset, default=None)

    def _serves_now(self, op: AluOp, offset: int, length: int) -> bool:
        return (
            self.immediate
            and not self.closed
            and all(gate.is_open or gate.op is not op for gate in self._gates)
            and self._next_fault(Seen(op, offset, length)) is None
        )

    def _missing_room(self, offset: int, length: int) -> int | None:
        """Give the first byte of a range for which there is no room; None: there is room for all of it."""
        if self.room_bytes is None:
            return None
        left = self.room_bytes // PAGE_BYTES - len(self.mapped)
        for page in _units(offset, length, PAGE_BYTES):
            if page not in self.mapped:
                if left <= 0:
                    return max(offset, page * PAGE_BYTES)
                left -= 1
        return None

    def _store(self, offset: int, data: memoryview) -> None:
        for sector in _units(offset, len(data), SECTOR_BYTES):
            start = sector * SECTOR_BYTES
            self._stable.setdefault(sector, bytes(self.content[start : start + SECTOR_BYTES]))
        self.mapped.update(_units(offset, len(data), PAGE_BYTES))
        self.content[offset : offset + len(data)] = data

    def _raise_failed(self, op: AluOp, offset: int, answer: int) -> None:
        if answer < 0:
            raise AluError.of(self.path, op, offset, -answer)


def _units(offset: int, length: int, unit_bytes: int) -> range:
    """Number the pages or sectors that a range touches."""
    return range(offset // unit_bytes, -(-(offset + length) // unit_bytes))


def _parts(views: Sequence[memoryview], count: int) -> Iterator[tuple[memoryview, int]]:
    """Say how much of each view the first ``count`` bytes take."""
    for view in views:
        part = min(count, len(view))
        if part:
            yield view, part
        count -= part
