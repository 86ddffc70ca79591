"""Direct access: hosts speak to the ALU itself, as far as it can be spoken to (R5).

Two sets of commands. Of an ALU that understands none (a file, a disk without SCSI) a host may read, write and flush
blocks, and ask what every unit must answer; all else ends in INVALID COMMAND OPERATION CODE. To a SCSI device its CDBs
go as they are, and status, data and sense data come back as they are, with three exceptions.

- *Who is who.* Reservations, REPORT LUNS and what concerns the task set stay here: the device sees one initiator, us,
  and could not tell two hosts apart. For the same reason its name does not get through: the unit serial number and
  device identification pages are the volume's. A host that reaches the device by another way as well must not take
  the two for paths to one disk, since reservations made on one would not hold on the other.
- *What harms others.* Let through is what reads, writes and compares blocks, manages their space, and asks. What
  changes the device itself for good, or takes it from everybody (FORMAT UNIT, MODE SELECT, START STOP UNIT, firmware,
  ATA and security commands), is not, nor is any command that we don't know: of these we could not tell which way
  data goes, and how much.
- *What does not fit.* A plain READ or WRITE that is longer than one request of the kernel can be is sent in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from backstores.scsi import cdb as formats
from backstores.scsi import inquiry
from backstores.scsi import transfers as t
from backstores.scsi.blocks import exact_data
from backstores.scsi.commands import TABLE
from backstores.scsi.limits import Limits
from backstores.scsi.model import Response, Status
from backstores.scsi.opcodes import CommandSet, Definition
from backstores.scsi.reservations import Access
from backstores.scsi.sense import CheckCondition, Condition, Key, codes_of
from backstores.scsi.steps import PassThrough, Steps
from backstores.scsi.unit import Call
from backstores.wire import Wire

W = TypeVar("W", bound=Wire)

PLAIN: Final = frozenset(
    {
        *(t.Read6, t.Read10, t.Read12, t.Read16),
        *(t.Write6, t.Write10, t.Write12, t.Write16),
        *(t.SynchronizeCache10, t.SynchronizeCache16),
    }
)
ANSWERED_BY_ALL: Final = frozenset(
    {
        *(formats.TestUnitReady, formats.RequestSense, formats.Inquiry, formats.ReportLuns),
        *(formats.ReadCapacity10, formats.ReadCapacity16, formats.ModeSense6, formats.ModeSense10),
        formats.ReportSupportedOpcodes,
    }
)
PLAIN_COMMANDS: Final = CommandSet(known for known in TABLE.values() if known.wire in PLAIN | ANSWERED_BY_ALL)
"""For an ALU that understands no CDBs."""

OURS: Final = frozenset(
    {
        *(formats.RequestSense, formats.ReportLuns, formats.ReportSupportedOpcodes, formats.ReportSupportedFunctions),
        *(formats.Reserve6, formats.Release6, formats.Reserve10, formats.Release10),
        *(formats.PersistentReserveIn, formats.PersistentReserveOut),
    }
)
NOT_PASSED: Final = frozenset({formats.ModeSelect6, formats.ModeSelect10, formats.StartStopUnit, formats.PreventAllow})

Length = Callable[[Any, int], int]  # Any: each is called with a CDB of the format that its row names


def _blocks6(cdb: t.Read6, block_bytes: int) -> int:
    return (cdb.blocks or 256) * block_bytes


def _allocation(cdb: formats.ReadCapacity16, block_bytes: int) -> int:
    return cdb.allocation_bytes


def _capacity10(cdb: formats.ReadCapacity10, block_bytes: int) -> int:
    return 8


def _nothing(cdb: Wire, block_bytes: int) -> int:
    return 0


DATA_IN: Final[Mapping[type[Wire], Length]] = {
    t.Read6: _blocks6,
    formats.ReadCapacity10: _capacity10,
    **dict.fromkeys(
        (formats.ReadCapacity16, formats.ModeSense6, formats.ModeSense10, formats.GetLbaStatus, formats.LogSense),
        _allocation,
    ),
}
"""How many bytes a device may answer; nothing where a format is not in here. Longer READs have a way of their own."""


def _send(call: Call, cdb: bytes, data_out: memoryview, data_in_bytes: int) -> Steps:
    """Send one CDB. That the device has something to say to everybody is passed on to everybody."""
    passer = call.unit.passer
    assert passer is not None
    if max(len(data_out), data_in_bytes) > passer.most_bytes:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB)
    step = PassThrough(cdb, data_out, data_in_bytes)
    yield step
    if step.answer.status is Status.CHECK_CONDITION:
        codes = codes_of(step.answer.sense)
        told = next((known for known in Condition if known.key is Key.UNIT_ATTENTION and known.value == codes), None)
        if told is not None:
            call.unit.tell_others(call.at, told)
    return step.answer


def _pass(known: Definition[Any], call: Call, cdb: Wire) -> Steps:
    """Send a command as it is."""
    data_in_bytes = DATA_IN.get(known.wire, _nothing)(cdb, call.unit.device.block_bytes)
    return _send(call, cdb.raw, _data_out(known, call, cdb), data_in_bytes)


def _data_out(known: Definition[Any], call: Call, cdb: Wire) -> memoryview:
    """Give the data that a command comes with, which must be all that its CDB says."""
    length = known.data_out(cdb, call.unit.device.block_bytes)
    return exact_data(call, length) if length else memoryview(b"")


def _pass_in_parts(known: Definition[Any], call: Call, cdb: t.AnyRead | t.AnyWrite) -> Steps:
    """Send a READ or WRITE, in parts where it is too long for one request; the first that fails ends it."""
    unit, size = call.unit, call.unit.device.block_bytes
    assert unit.passer is not None
    if cdb.blocks > Limits.of(unit.device).transfer:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB)
    data = _data_out(known, call, cdb)
    most = unit.passer.most_bytes // size
    if cdb.blocks <= most:
        return (yield from _send(call, cdb.raw, data, 0 if data else cdb.blocks * size))
    parts: list[bytes | memoryview] = []
    for at, blocks in _parts(cdb.blocks, most):
        values = {name: field.read(cdb.raw) for name, field in known.wire.FIELDS.items()}
        part = known.wire.build(**values | {"lba": cdb.lba + at, "blocks": blocks})
        wanted_bytes = 0 if data else blocks * size
        answer = yield from _send(call, part, data[at * size : (at + blocks) * size], wanted_bytes)
        if answer.status is not Status.GOOD:
            return answer
        parts.append(answer.data_in)
        if len(answer.data_in) < wanted_bytes:
            break  # what comes behind it would be taken for what is missing here
    return Response(data_in=b"".join(parts))


def _parts(blocks: int, most: int) -> Iterator[tuple[int, int]]:
    return ((at, min(most, blocks - at)) for at in range(0, blocks, most))


OWN_PAGES: Final = frozenset({0x80, 0x83})
PAGE_LIST: Final = 0x00


def _inquiry(call: Call, cdb: formats.Inquiry) -> Steps:
    """INQUIRY: the device's own data, under the volume's name."""
    if cdb.vital_product_data and cdb.page in OWN_PAGES:
        return inquiry.inquiry(call, cdb)
    if cdb.vital_product_data and cdb.page == PAGE_LIST:
        return (yield from _page_list(call, cdb))
    return (yield from _send(call, cdb.raw, memoryview(b""), cdb.allocation_bytes))


def _page_list(call: Call, cdb: formats.Inquiry) -> Steps:
    """Add the pages that are the volume's to what the device has; one that knows no pages has these alone."""
    asked = formats.Inquiry.build(vital_product_data=1, page=PAGE_LIST, allocation_bytes=255)
    answer = yield from _send(call, asked, memoryview(b""), 255)
    found = bytes(answer.data_in) if answer.status is Status.GOOD else b""
    header = inquiry.PageHeader
    end = header.SIZE + header.length.read(found.ljust(header.SIZE, b"\0"))
    pages = set(found[header.SIZE : end]) | OWN_PAGES | {PAGE_LIST}
    data = header.build(code=PAGE_LIST, length=len(pages)) + bytes(sorted(pages))
    return Response(data_in=data[: cdb.allocation_bytes])


SPECIAL: Final[Mapping[type[Wire], Callable[[Definition[Any], Call, Any], Steps]]] = {
    **dict.fromkeys((t.Read10, t.Read12, t.Read16, t.Write10, t.Write12, t.Write16), _pass_in_parts),
    formats.Inquiry: lambda known, call, cdb: _inquiry(call, cdb),
}


def _passed(known: Definition[Any]) -> Definition[Any]:
    return replace(known, run=partial(SPECIAL.get(known.wire, _pass), known))


def _log_sense(call: Call, cdb: formats.LogSense) -> Steps:
    return _pass(LOG_SENSE, call, cdb)


LOG_SENSE: Final = Definition(formats.LogSense, _log_sense, Access.ALWAYS)
DEVICE_COMMANDS: Final = CommandSet(
    (
        *(known for known in TABLE.values() if known.wire in OURS),
        *(_passed(known) for known in TABLE.values() if known.wire not in OURS | NOT_PASSED),
        LOG_SENSE,
    )
)
"""For a device that carries CDBs out itself."""
