"""What passes between a transport (iSCSI, TCMU) and the SCSI device server (SAM-5 clause 5.1)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

from backstores.device import BlockDevice


class Status(enum.IntEnum):
    """SAM-5 table 32."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


class Attribute(enum.IntEnum):
    """Task attributes with the numbers of RFC 7143, 11.3.1."""

    UNTAGGED = 0
    SIMPLE = 1
    ORDERED = 2
    HEAD_OF_QUEUE = 3
    ACA = 4


class Function(enum.IntEnum):
    """Task management functions with the numbers of RFC 7143, 11.5.1."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8


class FunctionResponse(enum.IntEnum):
    """Answers to a task management function (RFC 7143, 11.6.1)."""

    COMPLETE = 0
    TASK_DOES_NOT_EXIST = 1
    LUN_DOES_NOT_EXIST = 2
    TASK_STILL_ALLEGIANT = 3
    REASSIGN_NOT_SUPPORTED = 4
    NOT_SUPPORTED = 5
    AUTHORIZATION_FAILED = 6
    REJECTED = 255


@dataclass(slots=True)
class Command:
    """A SCSI command with all the data that came with it. ``tag`` is unique among a nexus's running commands.

    ``announced_bytes`` is how much the host meant to send (the Expected Data Transfer Length of a write): where it is
    known, a command that takes an exact length can refuse a longer one, of which the transport fetches a part only.
    """

    cdb: bytes
    data_out: memoryview = field(default_factory=lambda: memoryview(b""))
    attribute: Attribute = Attribute.SIMPLE
    tag: int = 0
    announced_bytes: int | None = None


@dataclass(slots=True)
class Response:
    """The end of a command. ``data_in`` is as long as the CDB allows; the transport cuts it to what was expected."""

    status: Status = Status.GOOD
    sense: bytes = b""
    data_in: bytes | memoryview = b""


class Nexus(Protocol):
    """One initiator port at one target port (an I_T nexus), with the logical units that this initiator may see.

    ``fast_read`` and ``fast_write`` are the hot path's licence: they hold a LUN (the 8-byte field of the
    PDU as a number) only while a READ or WRITE with task attribute SIMPLE needs no other look than at its
    range: no unit attention pending, no reservation, write protection or ordered task in the way. The
    device server keeps them so; the transport only looks a LUN up, checks the range, and calls ``read_now``
    or ``write_now``.
    """

    fast_read: dict[int, BlockDevice]
    fast_write: dict[int, BlockDevice]

    def data_out_bytes(self, lun: int, cdb: bytes) -> int:
        """How much data the host must send for a command, by its CDB alone; 0 for one that takes none."""

    async def execute(self, lun: int, command: Command) -> Response | None:
        """Carry a command out. None: it was aborted, and the transport answers nothing.

        Never raises for what a host sent or a disk did: both end in a status and sense data.
        """

    async def manage(self, function: Function, lun: int, tag: int) -> FunctionResponse:
        """Carry a task management function out; ``tag`` is the referenced task's."""

    def close(self) -> None:
        """End the nexus (I_T nexus loss): its commands are aborted, what it reserved by RESERVE is released."""
