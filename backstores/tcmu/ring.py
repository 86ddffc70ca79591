"""TCMU's ring without I/O: memory that is shared with the kernel goes in, commands come out, completions go in.

Theory of operation. The kernel puts entries in at *head*, and so does not touch what lies between *tail* and
head. We walk from where we have been (``_seen``) to head, copy what a command says, and may let the tail follow
as commands end. Commands end in any order: the kernel looks at the slots between tail and its last tail, and
finds in each *some* command's identifier and outcome. So a completion goes into the oldest slot that is still
ours, whoever's it was; what is not a command (padding, task management) is passed over.

    ... given back | slot  slot  PAD  slot | not seen yet | free ...
                   tail                    _seen          head

Everything the memory says is checked against the memory's bounds before it is used, though only the kernel
writes there: an entry that makes no sense is a ``RingError``, after which the ring has to be reset. Nothing is read
past the end of an entry either: behind the last one lies the data area, whose pages are there only while a command
uses them, and to touch one that is not ends the process (SIGBUS).

Head and tail are read and written through a view of 32-bit words, since those are single loads and stores;
``struct`` would take a number apart into bytes, and could see half of a new head. Ordering against the kernel is
that of the system calls around it: a wake-up is read before head is, and the kick is written after tail.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from backstores.errors import ProtocolError
from backstores.tcmu.formats import (
    ALIGNMENT,
    OPERATION_MASK,
    VERSION,
    Answer,
    EntryHeader,
    Flag,
    IoVector,
    Mailbox,
    Operation,
    Request,
    RequestWithVector,
    Response,
    TaskManagement,
)
from backstores.wire import Buffer, packer

GROUP_CDB_BYTES: Final = (6, 10, 10, 12, 16, 12, 10, 10)
"""By the first three bits of the operation code; the kernel copies no more (``scsi_command_size``)."""
VARIABLE_LENGTH: Final = 0x7F
VARIABLE_LENGTH_AT: Final = 7  # the byte of a variable-length CDB that says how long it is beyond 8 bytes (SPC-4 4.2.3)
VARIABLE_LENGTH_BYTES: Final = 8

_WORD: Final = 4
_HEAD: Final = Mailbox.head.byte // _WORD
_TAIL: Final = Mailbox.tail.byte // _WORD
_STATUS: Final = Response.status.byte
_UNPACK: Final = packer(RequestWithVector).unpack_from
_UNPACK_VECTOR: Final = packer(IoVector).unpack_from
_COMMAND: Final = int(Operation.COMMAND)  # an enum's member costs two look-ups more than a number


class RingError(ProtocolError):
    """The ring holds what can't be; it has to be reset."""


@dataclass(slots=True, eq=False)
class RingCommand:
    """A SCSI command. ``spans`` are pieces of the data area, in order: filled with what the host sent, or to be filled.

    Which of the two, only the CDB tells. A bidirectional command has its Data-In in ``data_in_spans``.
    """

    command_id: int
    cdb: bytes
    spans: Sequence[memoryview]
    data_in_spans: Sequence[memoryview] = ()

    @property
    def span_bytes(self) -> int:
        """How long the spans are together."""
        return sum(len(span) for span in self.spans)


@dataclass(frozen=True, slots=True)
class RingTaskManagement:
    """The kernel waits for the end of these commands. A function that we don't know comes as its number."""

    function: int
    command_ids: tuple[int, ...]


Entry = RingCommand | RingTaskManagement
Now = Callable[[int, int, Sequence[memoryview]], bool]
"""Carry a command out at once, if that needs no waiting: operation code, place of the CDB, spans."""


def never(opcode: int, cdb_at: int, spans: Sequence[memoryview]) -> bool:
    """Carry nothing out at once."""
    return False


class Ring:
    """One device's ring.

    Raises:
        RingError: the mailbox is not that of a ring we know.
    """

    def __init__(self, memory: memoryview) -> None:
        mailbox = Mailbox.parse(memory)
        if sys.byteorder != "little":
            raise RingError("the ring is in the machine's byte order, of which only little-endian is supported")
        if mailbox.version != VERSION:
            raise RingError(f"ring version {mailbox.version} is not {VERSION}")
        if not mailbox.flags & Flag.OUT_OF_ORDER:
            raise RingError(f"the kernel can't take completions out of order (flags {mailbox.flags:#x})")
        self._memory = memory
        self._words = memory.cast("I")
        self._start = mailbox.ring_at
        self._size = mailbox.ring_bytes
        self._data_at = self._start + self._size
        misaligned = (self._start | self._size) % ALIGNMENT
        if self._start < Mailbox.SIZE or not self._size or misaligned or self._data_at > len(memory):
            raise RingError(f"a ring of {self._size} bytes at {self._start} does not fit {len(memory)} bytes of memory")
        self._short_reads = bool(mailbox.flags & Flag.READ_LENGTH)
        self._seen = self._position("tail", mailbox.tail)
        self._published = self._seen
        self._slots: deque[int] = deque()  # of the command entries that are still ours, the oldest first
        self._running: set[int] = set()

    @property
    def pending(self) -> bool:
        """Whether the kernel has put in what was not taken yet."""
        return self._words[_HEAD] != self._seen

    @property
    def idle(self) -> bool:
        """Whether everything has been taken and given back."""
        return not self._slots and not self.pending

    def release(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._memory.release()

    # Commands out

    def take(self, now: Now = never, limit: int = sys.maxsize) -> list[Entry]:
        """Walk to head, over ``limit`` entries at most; give what ``now`` did not carry out at once.

        Raises:
            RingError: an entry makes no sense. What the same call had taken before is lost, as is the ring.
        """
        memory, words, start, slots = self._memory, self._words, self._start, self._slots
        head, at = self._position("head", words[_HEAD]), self._seen
        entries: list[Entry] = []
        while at != head and limit:
            limit -= 1
            entry_at = start + at
            length = words[entry_at // _WORD]
            operation = length & OPERATION_MASK
            length -= operation
            room = (head if head > at else self._size) - at
            if not 0 < length <= room:
                raise RingError(f"entry at {at} is {length} bytes long, where {room} are left")
            if operation != _COMMAND:
                entries += self._other(operation, entry_at, length)
            else:
                command_id, spans, data_in_spans, cdb_at, cdb_end = self._request(entry_at, length)
                slots.append(entry_at)
                if not data_in_spans and now(memory[cdb_at], cdb_at, spans):
                    slot = slots.popleft()
                    if slot == entry_at:
                        memory[slot + _STATUS] = 0  # the rest of the header stands there already
                    else:
                        self._write(slot, command_id=command_id)
                else:
                    self._running.add(command_id)
                    entries.append(RingCommand(command_id, bytes(memory[cdb_at:cdb_end]), spans, data_in_spans))
            at += length
            if at == self._size:
                at = 0
            self._seen = at
        return entries

    def _position(self, name: str, offset: int) -> int:
        if offset >= self._size or offset % ALIGNMENT:
            raise RingError(f"{name} {offset} is no place in a ring of {self._size} bytes")
        return offset

    def _other(self, operation: int, at: int, length: int) -> list[Entry]:
        """Look at an entry that is no command."""
        if operation == Operation.PAD:
            return []
        if operation == Operation.TASK_MANAGEMENT:
            return [self._task_management(at, length)]
        self._memory[at + EntryHeader.answer.byte] |= Answer.UNKNOWN_OPERATION
        return []

    def _task_management(self, at: int, length: int) -> RingTaskManagement:
        if length < TaskManagement.SIZE:
            raise RingError(f"task management entry of {length} bytes, less than {TaskManagement.SIZE}")
        entry = TaskManagement.parse(self._memory, at)
        ids_at = at + TaskManagement.SIZE
        ids = self._memory[ids_at : at + length].cast("H")
        if entry.commands > len(ids):
            raise RingError(f"task management entry of {length} bytes with {entry.commands} commands")
        # A command that has ended meanwhile is no longer anybody's business.
        return RingTaskManagement(entry.function, tuple(i for i in ids[: entry.commands] if i in self._running))

    def _request(self, at: int, length: int) -> tuple[int, Sequence[memoryview], Sequence[memoryview], int, int]:
        """Read a command entry: its identifier, its spans both ways, and where its CDB begins and ends."""
        memory = self._memory
        if length < Response.SIZE:
            raise RingError(f"command entry of {length} bytes, less than {Response.SIZE}")
        _, command_id, _, _, vectors, both_ways, protection, cdb_at, first_at, first_length = _UNPACK(memory, at)
        if command_id in self._running:
            raise RingError(f"command {command_id} runs already")
        end = at + length
        vectors_end = at + Request.SIZE + (vectors + both_ways + protection) * IoVector.SIZE
        if not vectors_end <= cdb_at < end:
            raise RingError(f"command {command_id}: cdb at {cdb_at} is not between {vectors_end} and {end}")
        opcode = memory[cdb_at]
        cdb_end = cdb_at + (GROUP_CDB_BYTES[opcode >> 5] if opcode != VARIABLE_LENGTH else self._variable(cdb_at, end))
        if cdb_end > end:
            raise RingError(f"command {command_id}: cdb from {cdb_at} to {cdb_end} is past the entry's end ({end})")
        spans: Sequence[memoryview] = ()
        data_in_spans: Sequence[memoryview] = ()
        if vectors == 1:
            spans = (self._span(command_id, first_at, first_length),)
        elif vectors:
            spans = self._spans(command_id, at + Request.SIZE, vectors)
        if both_ways:
            data_in_spans = self._spans(command_id, at + Request.SIZE + vectors * IoVector.SIZE, both_ways)
        return command_id, spans, data_in_spans, cdb_at, cdb_end

    def _variable(self, cdb_at: int, end: int) -> int:
        """Give the length of a variable-length CDB. One that is cut before it says so is too long in any case."""
        length_at = cdb_at + VARIABLE_LENGTH_AT
        return VARIABLE_LENGTH_BYTES + (self._memory[length_at] if length_at < end else 0)

    def _spans(self, command_id: int, at: int, count: int) -> Sequence[memoryview]:
        places = range(at, at + count * IoVector.SIZE, IoVector.SIZE)
        return tuple(self._span(command_id, *_UNPACK_VECTOR(self._memory, place)) for place in places)

    def _span(self, command_id: int, at: int, length: int) -> memoryview:
        end = at + length
        if at < self._data_at or end > len(self._memory):
            raise RingError(
                f"command {command_id}: data from {at} to {end} is outside of the data area "
                f"({self._data_at} to {len(self._memory)})"
            )
        return self._memory[at:end]

    # Completions in

    def complete(self, command: RingCommand, status: int, sense: bytes = b"", data_in: Buffer | None = None) -> None:
        """End a command. ``data_in`` is None for one whose spans came filled; the kernel hears by ``publish``."""
        self._running.remove(command.command_id)
        read_bytes = 0
        if data_in is not None:
            spans = command.data_in_spans or command.spans
            room_bytes = sum(len(span) for span in spans)
            read_bytes = _fill(spans, memoryview(data_in)[:room_bytes])
            # A length of 0 says nothing, and not every kernel knows lengths: then the host must not see old data.
            if read_bytes and self._short_reads:
                read_bytes = read_bytes if read_bytes < room_bytes else 0
            else:
                _clear(spans, read_bytes)
                read_bytes = 0
        self._write(
            self._slots.popleft(),
            command_id=command.command_id,
            answer=Answer.READ_LENGTH if read_bytes else 0,
            status=status,
            read_bytes=read_bytes,
            sense=sense[: Response.SIZE - Response.sense.byte],
        )

    def _write(self, slot: int, **fields: int | bytes) -> None:
        length_and_operation = self._words[slot // _WORD]
        self._memory[slot : slot + Response.SIZE] = Response.build(length_and_operation=length_and_operation, **fields)

    def publish(self) -> bool:
        """Let the kernel see what has ended; True: it has to be told to look."""
        tail = self._slots[0] - self._start if self._slots else self._seen
        if tail == self._published:
            return False
        self._words[_TAIL] = self._published = tail
        return True


def _fill(spans: Sequence[memoryview], data: memoryview) -> int:
    """Spread data over spans that have room for it."""
    at = 0
    for span in spans:
        piece = data[at : at + len(span)]
        span[: len(piece)] = piece
        at += len(piece)
    return at


def _clear(spans: Sequence[memoryview], from_byte: int) -> None:
    """Zero what lies behind the first bytes of spans."""
    for span in spans:
        skip = min(from_byte, len(span))
        span[skip:] = bytes(len(span) - skip)
        from_byte -= skip
