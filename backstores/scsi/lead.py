"""The lead unit: how storage processors that serve one volume agree who writes where (D4).

It is a logical unit without blocks on the internal target of the storage processor that leads the volume. Followers
send it two commands with vendor specific operation codes (SPC-4 clause 4.3.3, group 6):

- HOLD names a range, and a serial number for the holding. It ends GOOD once the range is the follower's: no other
  writer is there, and its dirty bits are durable on every leg (D2).
- FREE gives holdings back, by their numbers. HOLD may do so, too, in the same command.

The follower is known by its initiator name, whatever the session. When a session ends, its nexus is lost, and the lead
is told. Reservations and unit attentions don't concern these commands: no host sees the unit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final, NamedTuple, Protocol

from backstores.block import Offline, Request, Run
from backstores.device import Submit
from backstores.scsi import cdb as formats
from backstores.scsi.blocks import exact_data
from backstores.scsi.commands import TABLE
from backstores.scsi.model import Response
from backstores.scsi.opcodes import CommandSet, Definition
from backstores.scsi.reservations import Access
from backstores.scsi.sense import CheckCondition, Condition
from backstores.scsi.steps import Attend, Steps
from backstores.scsi.unit import Attachment, Call, Identity, LogicalUnit
from backstores.wire import Bits, Wire
from backstores.wwn import Wwn

MOST_RETURNS: Final = 512
"""Holdings that one command gives back."""
HOLD_TIMEOUT_S: Final = 120
"""A range may have to wait for all writers before."""
LEAD: Final = 0x4C454144
"""What a lead unit's name differs in from its volume's."""


class Hold(Wire, size=16):
    """HOLD: the parameter list is a HoldHeader, and descriptors of what is given back."""

    opcode = Bits(byte=0, width=8, value=0xC0)
    parameter_bytes = Bits(byte=10, width=32)


class Free(Wire, size=16):
    """FREE: the parameter list is descriptors of what is given back."""

    opcode = Bits(byte=0, width=8, value=0xC1)
    parameter_bytes = Bits(byte=10, width=32)


class HoldHeader(Wire, size=24):
    """Which range is asked for."""

    serial = Bits(byte=0, width=64, doc="a number that this follower has never used before")
    lba = Bits(byte=8, width=64)
    blocks = Bits(byte=16, width=32)


class FreeDescriptor(Wire, size=16):
    """A holding that is given back."""

    serial = Bits(byte=0, width=64)
    settled = Bits(byte=8, msb=0, width=1, doc="1: all legs have the same there; 0: nobody knows")


class Wanted(NamedTuple):
    """A range that a follower asks for, under a number of its own."""

    serial: int
    lba: int
    blocks: int


class Return(NamedTuple):
    """A holding that a follower gives back."""

    serial: int
    settled: bool


class LeadDoor(Protocol):
    """What stands behind a lead unit."""

    def hold(self, follower: str, nexus: Hashable, wanted: Wanted, returns: Sequence[Return]) -> Awaitable[None]:
        """Take back what is returned, and give a range; raises BlockError."""

    def free(self, follower: str, returns: Sequence[Return]) -> None:
        """Take back what is returned; what is unknown is passed over."""

    def lose(self, nexus: Hashable) -> None:
        """Hear that a nexus has ended."""


def lead_wwn(volume: Wwn) -> Wwn:
    """Name the lead unit of a volume."""
    return Wwn(f"{int(volume, 16) ^ LEAD:032x}")


class LeadUnit(LogicalUnit):
    """A logical unit that is nothing but the door to a volume's lead."""

    def __init__(self, volume: Wwn, lead: LeadDoor) -> None:
        super().__init__(NoBlocks(), Identity(lead_wwn(volume), product="VOLUME LEAD"), commands=COMMANDS)
        self.lead = lead

    def detach(self, at: Attachment) -> None:
        """Let a nexus go, and tell the lead."""
        super().detach(at)
        self.lead.lose(at)


class NoBlocks:
    """A ``backstores.device.BlockDevice`` that has none."""

    block_bytes = 512
    blocks = 0
    physical_block_bytes = 512
    granularity_blocks = 1
    optimal_blocks = 1

    def read_now(self, lba: int, blocks: int, into: memoryview) -> bool:
        return False

    def write_now(self, lba: int, blocks: int, data: memoryview) -> bool:
        return False

    async def submit(self, request: Request) -> list[Run]:
        raise Offline("a lead unit has no blocks", request.lba)

    def hold(self, lba: int, blocks: int) -> AbstractAsyncContextManager[Submit]:
        raise Offline("a lead unit has no blocks", lba)


def hold_parameters(wanted: Wanted, returns: Sequence[Return]) -> bytes:
    """Make the parameter list of HOLD."""
    return HoldHeader.build(**wanted._asdict()) + free_parameters(returns)


def free_parameters(returns: Sequence[Return]) -> bytes:
    """Make the parameter list of FREE."""
    return b"".join(FreeDescriptor.build(**one._asdict()) for one in returns)


def _hold(call: Call, cdb: Hold) -> Steps:
    data = bytes(exact_data(call, cdb.parameter_bytes))
    if len(data) < HoldHeader.SIZE:
        raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
    header, returns = HoldHeader.parse(data), _returns(data[HoldHeader.SIZE :])
    wanted = Wanted(header.serial, header.lba, header.blocks)
    yield Attend(partial(_lead(call).hold, _follower(call), call.at, wanted, returns))
    return Response()


def _free(call: Call, cdb: Free) -> Response:
    _lead(call).free(_follower(call), _returns(bytes(exact_data(call, cdb.parameter_bytes))))
    return Response()


def _returns(data: bytes) -> list[Return]:
    count, rest = divmod(len(data), FreeDescriptor.SIZE)
    if rest or count > MOST_RETURNS:
        raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
    found = (FreeDescriptor.parse(data, number * FreeDescriptor.SIZE) for number in range(count))
    return [Return(one.serial, bool(one.settled)) for one in found]


def _follower(call: Call) -> str:
    """Name the follower: the initiator's name without its session (RFC 7143 clause 4.4.1)."""
    return call.at.nexus.initiator_port.partition(",i,")[0]


def _lead(call: Call) -> LeadDoor:
    assert isinstance(call.unit, LeadUnit)
    return call.unit.lead


def _parameters(cdb: Hold | Free, block_bytes: int) -> int:
    return cdb.parameter_bytes


ANSWERED: Final = frozenset(
    {formats.TestUnitReady, formats.RequestSense, formats.Inquiry, formats.ReportLuns, formats.ReportSupportedOpcodes}
)
COMMANDS: Final = CommandSet(
    (
        *(known for known in TABLE.values() if known.wire in ANSWERED),
        Definition(Hold, _hold, Access.ALWAYS, attention=False, data_out=_parameters, timeout_s=HOLD_TIMEOUT_S),
        Definition(Free, _free, Access.ALWAYS, attention=False, data_out=_parameters),
    )
)
"""All that a lead unit carries out."""
