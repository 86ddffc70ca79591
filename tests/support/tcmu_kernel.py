"""The kernel's side of a TCMU ring, in memory: it lays out entries and takes completions as Linux does.

Written after ``drivers/target/target_core_user.c``: entries are whole, so that one that would cross the ring's end
is put behind padding to the end; head never meets tail; what a command transfers lies in blocks of the data area,
where neighbours become one vector. Freed blocks keep what they held: nobody may ever see that.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from backstores.tcmu.formats import (
    ALIGNMENT,
    VERSION,
    Answer,
    EntryHeader,
    Flag,
    IoVector,
    Mailbox,
    Operation,
    Request,
    Response,
    TaskManagement,
)
from backstores.wire import Bits

ALL_FLAGS = Flag.OUT_OF_ORDER | Flag.READ_LENGTH | Flag.TASK_MANAGEMENT
STALE = 0xEE
GOOD = 0


@dataclass
class Outcome:
    """How a command ended, as a fabric would hear of it."""

    status: int
    sense: bytes
    data_in: bytes


@dataclass
class Issued:
    """A command under way: where its data lies."""

    spans: Sequence[tuple[int, int]]
    data_in_spans: Sequence[tuple[int, int]]
    blocks: Sequence[int]
    reads: bool


@dataclass
class SimulatedKernel:
    """One device. ``ring_bytes`` is any multiple of 8; ``random`` scatters data over the data area."""

    ring_bytes: int = 4096
    data_blocks: int = 64
    block_bytes: int = 512
    flags: int = ALL_FLAGS
    random: Random = field(default_factory=lambda: Random(0))
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    issued: dict[int, Issued] = field(default_factory=dict)
    unknown_operations: int = 0
    pads: int = 0
    kicks: int = 0

    def __post_init__(self) -> None:
        self.data_at = Mailbox.SIZE + self.ring_bytes
        self.memory = bytearray(self.data_at + self.data_blocks * self.block_bytes)
        self.memory[self.data_at :] = bytes([STALE]) * (self.data_blocks * self.block_bytes)
        self.memory[: Mailbox.SIZE] = Mailbox.build(
            version=VERSION, flags=self.flags, ring_at=Mailbox.SIZE, ring_bytes=self.ring_bytes
        )
        self._free = list(range(self.data_blocks))
        self._cleaned = 0
        self._next_id = 0

    # Numbers in the memory

    def peek(self, field: Bits, at: int = 0) -> int:
        """Read a field of the structure at a place."""
        return int.from_bytes(self.memory[at + field.byte : at + field.end], "little")

    def poke(self, field: Bits, value: int, at: int = 0) -> None:
        """Write a field of the structure at a place."""
        self.memory[at + field.byte : at + field.end] = value.to_bytes(field.end - field.byte, "little")

    @property
    def head(self) -> int:
        """Where the next entry goes."""
        return self.peek(Mailbox.head)

    @property
    def drained(self) -> bool:
        """Whether we have been given everything back."""
        return self.head == self.peek(Mailbox.tail) and not self.issued

    def entry_at(self, position: int) -> int:
        """Give the place of a position in the ring."""
        return Mailbox.SIZE + position

    # Entries out

    def command(
        self, cdb: bytes, data_out: bytes = b"", data_in_bytes: int = 0, *, bidirectional: bool = False
    ) -> int | None:
        """Queue a command and give its identifier; None where ring or data area have no room for it."""
        free, first_bytes = list(self._free), len(data_out) if data_out or bidirectional else data_in_bytes
        self.random.shuffle(free)
        needed = [-(-length // self.block_bytes) for length in (first_bytes, data_in_bytes if bidirectional else 0)]
        if sum(needed) > len(free):
            return None
        taken = free[: sum(needed)]
        spans = self._spans(taken[: needed[0]], first_bytes)
        data_in_spans = self._spans(taken[needed[0] :], data_in_bytes if bidirectional else 0)
        vectors = b"".join(IoVector.build(at=at, length=length) for at, length in (*spans, *data_in_spans))
        base_bytes = max(Request.SIZE + len(vectors), Response.SIZE)
        padded_cdb = cdb.ljust(-(-len(cdb) // ALIGNMENT) * ALIGNMENT, b"\0")
        at = self._room(base_bytes + len(padded_cdb))
        if at is None:
            return None
        command_id = self._new_id()
        request = Request.build(
            length_and_operation=base_bytes + len(padded_cdb) | Operation.COMMAND,
            command_id=command_id,
            vectors=len(spans),
            bidirectional_vectors=len(data_in_spans),
            cdb_at=at + base_bytes,
        )
        self._put(at, (request + vectors).ljust(base_bytes, b"\0") + padded_cdb)
        self._free = [block for block in self._free if block not in taken]
        for place, piece in zip(spans, _pieces(data_out, spans), strict=True):
            self.memory[place[0] : place[0] + len(piece)] = piece
        self.issued[command_id] = Issued(spans, data_in_spans, taken, reads=not data_out)
        return command_id

    def task_management(self, function: int, command_ids: Sequence[int]) -> bool:
        """Tell of aborted commands; False where the ring has no room."""
        ids = b"".join(number.to_bytes(2, "little") for number in command_ids)
        length = -(-(TaskManagement.SIZE + len(ids)) // ALIGNMENT) * ALIGNMENT
        at = self._room(length)
        if at is not None:
            header = TaskManagement.build(
                length_and_operation=length | Operation.TASK_MANAGEMENT, function=function, commands=len(command_ids)
            )
            self._put(at, (header + ids).ljust(length, b"\0"))
        return at is not None

    def unknown(self, operation: int = 7) -> None:
        """Queue an entry of a sort that no handler knows."""
        at = self._room(EntryHeader.SIZE)
        assert at is not None
        self._put(at, EntryHeader.build(length_and_operation=EntryHeader.SIZE | operation))

    def _new_id(self) -> int:
        while True:
            self._next_id = (self._next_id + 1) % (1 << 16)
            if self._next_id not in self.issued:
                return self._next_id

    def _spans(self, blocks: Sequence[int], length: int) -> list[tuple[int, int]]:
        """Give the vectors of blocks, neighbours joined; the last one is cut to the length."""
        spans: list[tuple[int, int]] = []
        for block in blocks:
            at, size = self.data_at + block * self.block_bytes, min(self.block_bytes, length)
            length -= size
            if spans and sum(spans[-1]) == at:
                spans[-1] = (spans[-1][0], spans[-1][1] + size)
            else:
                spans.append((at, size))
        return spans

    def _room(self, length: int) -> int | None:
        """Find a place for an entry, behind padding where it would cross the end (``is_ring_space_avail``)."""
        head, to_end = self.head, self.ring_bytes - self.head
        needed = length if to_end >= length else length + to_end
        if (self._cleaned - head - 1) % self.ring_bytes < needed:
            return None
        if to_end < length:
            self._put(self.entry_at(head), EntryHeader.build(length_and_operation=to_end | Operation.PAD))
            self.pads += 1
        return self.entry_at(self.head)

    def _put(self, at: int, entry: bytes) -> None:
        length = int.from_bytes(entry[:4], "little") & ~(ALIGNMENT - 1)
        self.memory[at : at + len(entry)] = entry
        self.poke(Mailbox.head, (self.head + length) % self.ring_bytes)

    # Completions in

    def kick(self) -> None:
        """Take what was given back (``tcmu_handle_completions``)."""
        self.kicks += 1
        while self._cleaned != self.peek(Mailbox.tail):
            at = self.entry_at(self._cleaned)
            length = self.peek(EntryHeader.length_and_operation, at)
            operation = length & (ALIGNMENT - 1)
            if operation == Operation.COMMAND:
                self._complete(at)
            elif operation not in (Operation.PAD, Operation.TASK_MANAGEMENT):
                self.unknown_operations += bool(self.peek(EntryHeader.answer, at) & Answer.UNKNOWN_OPERATION)
            self._cleaned = (self._cleaned + length - operation) % self.ring_bytes

    def _complete(self, at: int) -> None:
        response = Response.parse(self.memory, at)
        issued = self.issued.pop(response.command_id)  # an unknown one breaks the ring: here it is a KeyError
        spans = issued.data_in_spans or (issued.spans if issued.reads else ())
        data = b"".join(bytes(self.memory[at : at + length]) for at, length in spans)
        if response.answer & Answer.READ_LENGTH and response.read_bytes:
            data = data[: response.read_bytes]
        self.outcomes[response.command_id] = Outcome(response.status, response.sense.rstrip(b"\0"), data)
        self._free += issued.blocks


def _pieces(data: bytes, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    pieces, at = [], 0
    for _, length in spans:
        pieces.append(data[at : at + length])
        at += length
    return pieces


class SimulatedDevice:
    """An open device of a simulated kernel: ``backstores.tcmu.handler.Shared``."""

    def __init__(self, kernel: SimulatedKernel) -> None:
        self.kernel = kernel
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.failure: Exception | None = None
        self.acknowledged = 0
        self.closed = False

    def wake(self) -> None:
        """Tell the handler that something is in the ring."""
        os.eventfd_write(self.fd, 1)

    def view(self) -> memoryview:
        return memoryview(self.kernel.memory)

    def acknowledge(self) -> None:
        self.acknowledged += 1
        os.eventfd_read(self.fd)
        if self.failure is not None:
            raise self.failure

    def kick(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.kernel.kick()

    def close(self) -> None:
        os.close(self.fd)
        self.closed = True
