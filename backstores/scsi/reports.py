"""What a unit says of itself beside INQUIRY and mode pages: capacity, opcodes, task management, pending sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backstores.scsi import cdb as formats
from backstores.scsi import lun
from backstores.scsi.model import Response
from backstores.scsi.sense import CheckCondition, Condition, FieldPointer, Sense, encode
from backstores.scsi.unit import Attachment, Call
from backstores.wire import Bits, Wire


class Capacity10(Wire, size=8):
    """READ CAPACITY (10) parameter data."""

    last_lba = Bits(byte=0, width=32)
    block_bytes = Bits(byte=4, width=32)


class Capacity16(Wire, size=32):
    """READ CAPACITY (16) parameter data (SBC-3 clause 5.16.2)."""

    last_lba = Bits(byte=0, width=64)
    block_bytes = Bits(byte=8, width=32)
    physical_exponent = Bits(byte=13, msb=3, width=4, doc="logical blocks per physical block, as a power of two")
    provisioned = Bits(byte=14, msb=7, width=1, doc="LBPME")
    reads_zeros = Bits(byte=14, msb=6, width=1, doc="LBPRZ")
    lowest_aligned = Bits(byte=14, msb=5, width=14)


class SupportedFunctions(Wire, size=4):
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS parameter data (SPC-4 clause 6.36)."""

    abort_task = Bits(byte=0, msb=7, width=1, value=1)
    abort_task_set = Bits(byte=0, msb=6, width=1, value=1)
    clear_task_set = Bits(byte=0, msb=4, width=1, value=1)
    unit_reset = Bits(byte=0, msb=3, width=1, value=1)
    target_reset = Bits(byte=0, msb=1, width=1, value=1)


class SupportedFunctionsExtended(Wire, size=16):
    """The same with REPD; the timeouts are zero: not known."""

    functions = Bits(byte=0, width=8)
    additional_length = Bits(byte=3, width=8, value=12)


class LunListHeader(Wire, size=8):
    """REPORT LUNS parameter data begins so; a list of 8-byte LUN fields follows."""

    length = Bits(byte=0, width=32)


SELECTS_ALL: Final = (0x00, 0x02)
SELECTS_WELL_KNOWN: Final = 0x01
MIN_LUNS_ALLOCATION: Final = 16
"""REPORT LUNS, select report (SPC-4 table 240). There are no well-known logical units here."""


def report_luns(call: Call, cdb: formats.ReportLuns) -> Response:
    """REPORT LUNS."""
    return luns_of(call.at.siblings, cdb)


def luns_of(attachments: Mapping[int, Attachment], cdb: formats.ReportLuns) -> Response:
    """List what one nexus sees, and nothing else; it has learned of all changes then (R15)."""
    if cdb.select_report not in (*SELECTS_ALL, SELECTS_WELL_KNOWN):
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(2, 7))
    if cdb.allocation_bytes < MIN_LUNS_ALLOCATION:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(6, 7))
    fields = [lun.encode(number) for number in sorted(attachments)] if cdb.select_report in SELECTS_ALL else []
    for at in attachments.values():
        at.attentions.clear(Condition.LUNS_CHANGED)
        at.refresh()
    body = b"".join(field.to_bytes(lun.LunField.SIZE) for field in fields)
    return Response(data_in=(LunListHeader.build(length=len(body)) + body)[: cdb.allocation_bytes])


def test_unit_ready(call: Call, cdb: formats.TestUnitReady) -> Response:
    """TEST UNIT READY: all that there is to check has been checked on the way here."""
    return Response()


def request_sense(call: Call, cdb: formats.RequestSense) -> Response:
    """REQUEST SENSE: a unit attention is told, and thereby cleared, as parameter data (SPC-4 clause 6.39)."""
    pending = call.at.attentions.take()
    call.at.refresh()
    sense = encode(Sense(pending or Condition.NO_ADDITIONAL_SENSE), descriptor=bool(cdb.descriptor))
    return Response(data_in=sense[: cdb.allocation_bytes])


def read_capacity10(call: Call, cdb: formats.ReadCapacity10) -> Response:
    """READ CAPACITY (10): all ones where the address does not fit."""
    device = call.unit.device
    last = min(device.blocks - 1, Capacity10.last_lba.mask)
    return Response(data_in=Capacity10.build(last_lba=last, block_bytes=device.block_bytes))


def read_capacity16(call: Call, cdb: formats.ReadCapacity16) -> Response:
    """READ CAPACITY (16)."""
    device = call.unit.device
    thin = call.unit.offers(formats.Unmap)
    data = Capacity16.build(
        last_lba=device.blocks - 1,
        block_bytes=device.block_bytes,
        provisioned=thin,
        reads_zeros=thin,
        physical_exponent=(device.physical_block_bytes // device.block_bytes).bit_length() - 1,
    )
    return Response(data_in=data[: cdb.allocation_bytes])


def supported_functions(call: Call, cdb: formats.ReportSupportedFunctions) -> Response:
    """REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS."""
    data = SupportedFunctions.build()
    if cdb.extended:
        data = SupportedFunctionsExtended.build(functions=data[0])
    return Response(data_in=data[: cdb.allocation_bytes])


def start_stop(call: Call, cdb: formats.StartStopUnit) -> Response:
    """START STOP UNIT (SBC-3 clause 5.25): LOEJ moves a removable medium; nothing else has an effect.

    A volume has no motor, and one host that stops its disks (Linux does at suspend) must not take them from others.
    """
    unit = call.unit
    if cdb.power_condition or not cdb.load_eject:
        return Response()
    if not unit.removable:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(4, 1))
    if any(at.prevents_removal for at in unit.attachments):
        raise CheckCondition(Condition.REMOVAL_PREVENTED)
    if unit.ejected and cdb.start:
        unit.tell_others(call.at, Condition.MEDIUM_MAY_HAVE_CHANGED)
    unit.ejected = not cdb.start
    unit.refresh()
    return Response()


def prevent_allow(call: Call, cdb: formats.PreventAllow) -> Response:
    """PREVENT ALLOW MEDIUM REMOVAL: each nexus may prevent it for itself (SPC-4 clause 6.13)."""
    call.at.prevents_removal = bool(cdb.prevent & 1)
    return Response()
