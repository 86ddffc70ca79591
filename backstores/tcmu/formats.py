"""What lies in TCMU's shared memory (``linux/target_core_user.h``, version 2).

The memory begins with the mailbox. Behind it is the ring of entries, behind that the data area. All offsets
count from the start of the memory, but for head and tail, which count from the start of the ring.
"""

from __future__ import annotations

import enum
from typing import Final

from backstores.wire import Bits, Bytes, Wire

VERSION: Final = 2
ALIGNMENT: Final = 8  # of entries; the low bits of their length hold the operation
OPERATION_MASK: Final = ALIGNMENT - 1


class Flag(enum.IntFlag):
    """What the kernel can do (Mailbox.flags)."""

    OUT_OF_ORDER = 1
    READ_LENGTH = 2
    TASK_MANAGEMENT = 4
    KEEP_BUFFER = 8


class Operation(enum.IntEnum):
    """What an entry is."""

    PAD = 0
    COMMAND = 1
    TASK_MANAGEMENT = 2


class Answer(enum.IntFlag):
    """What we say in an entry's header (EntryHeader.answer)."""

    UNKNOWN_OPERATION = 1
    READ_LENGTH = 2


class Function(enum.IntEnum):
    """What a task management entry reports."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    PREEMPT_AND_ABORT = 128


FUNCTION_NAMES: Final = {int(function): function.name for function in Function}


class Mailbox(Wire, size=128, order="little"):
    """The beginning of the memory. Head and tail have a cache line each."""

    version = Bits(byte=0, width=16)
    flags = Bits(byte=2, width=16)
    ring_at = Bits(byte=4, width=32)
    ring_bytes = Bits(byte=8, width=32)
    head = Bits(byte=12, width=32, doc="where the kernel puts the next entry")
    tail = Bits(byte=64, width=32, doc="the first entry that we have not given back")


class EntryHeader(Wire, size=8, order="little"):
    """The beginning of every entry."""

    length_and_operation = Bits(byte=0, width=32)
    command_id = Bits(byte=4, width=16)
    kernel_flags = Bits(byte=6, width=8)
    answer = Bits(byte=7, width=8)


class Request(EntryHeader, size=48, order="little"):
    """A command as it comes; ``IoVector``s follow: data, then Data-In of a bidirectional command, then the rest."""

    vectors = Bits(byte=8, width=32)
    bidirectional_vectors = Bits(byte=12, width=32)
    protection_vectors = Bits(byte=16, width=32)
    cdb_at = Bits(byte=24, width=64)


class IoVector(Wire, size=16, order="little"):
    """A piece of the data area."""

    at = Bits(byte=0, width=64)
    length = Bits(byte=8, width=64)


class RequestWithVector(Request, size=64, order="little"):
    """A command with its first vector: what the ring unpacks at once. An entry is never shorter."""

    first_at = Bits(byte=48, width=64)
    first_length = Bits(byte=56, width=64)


class Response(EntryHeader, size=112, order="little"):
    """A command given back, over the bytes of any command entry: none is shorter than this."""

    status = Bits(byte=8, width=8)
    read_bytes = Bits(byte=12, width=32, doc="with READ_LENGTH: less came than was asked for")
    sense = Bytes(byte=16, length=96)


class TaskManagement(EntryHeader, size=32, order="little"):
    """The kernel has aborted commands, and waits for them; their identifiers (16 bits) follow."""

    function = Bits(byte=8, width=8)
    commands = Bits(byte=12, width=32)
