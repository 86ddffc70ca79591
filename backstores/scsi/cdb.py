"""Command descriptor blocks, declared once (SPC-4 clause 6, SBC-3 clause 5).

A field with a fixed value of 0 is one that we look at and don't support: protection information, anchors,
NACA. ``decode`` says which field of a CDB is wrong; ``usage`` derives from the same declaration what REPORT
SUPPORTED OPERATION CODES tells. Group numbers and the control byte's vendor bits are not looked at.
"""

from __future__ import annotations

from typing import TypeVar

from backstores.scsi.sense import CheckCondition, Condition, FieldPointer
from backstores.wire import Bits, Bytes, Wire

AnyCdb = TypeVar("AnyCdb", bound=Wire)


class ServiceAction(Wire, size=2):
    """The service action of those operation codes that have one."""

    opcode = Bits(byte=0, width=8)
    service_action = Bits(byte=1, msb=4, width=5)


class Control(Wire, size=1):
    """The last byte of a CDB (SAM-5 clause 5.2)."""

    naca = Bits(byte=0, msb=2, width=1, value=0)


def decode(wire: type[AnyCdb], cdb: bytes) -> AnyCdb:
    """Read a CDB, with a transport's padding behind it or without.

    Raises:
        CheckCondition: it is cut short, or a field holds what we don't support.
    """
    if len(cdb) < wire.SIZE:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(len(cdb)))
    raw = bytes(cdb[: wire.SIZE])
    for field in _fixed_fields(wire):
        if field.read(raw) != field.value:
            raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=_pointer(field))
    if Control.naca.read(raw[-Control.SIZE :]) != Control.naca.value:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(wire.SIZE - 1, 2))
    return wire(raw)


_FIXED_FIELDS: dict[type[Wire], tuple[Bits | Bytes, ...]] = {}


def _fixed_fields(wire: type[Wire]) -> tuple[Bits | Bytes, ...]:
    """Give the fields to check, found once for each format: this is on the way of every command."""
    if wire not in _FIXED_FIELDS:
        _FIXED_FIELDS[wire] = tuple(field for field in wire.FIELDS.values() if field.value is not None)
    return _FIXED_FIELDS[wire]


def _pointer(field: Bits | Bytes) -> FieldPointer:
    return FieldPointer(field.byte, 7 - field.first_bit % 8)


def usage(wire: type[Wire], service_action: int | None = None) -> bytes:
    """Give the CDB usage data: opcode and service action as they are, then a mask of the bits looked at."""
    mask = {
        name: field.mask if isinstance(field, Bits) and field.value is None else field.value
        for name, field in wire.FIELDS.items()
    }
    if service_action is not None:
        mask["service_action"] = service_action
    return wire.build(**mask)


class TestUnitReady(Wire, size=6):
    opcode = Bits(byte=0, width=8, value=0x00)


class RequestSense(Wire, size=6):
    opcode = Bits(byte=0, width=8, value=0x03)
    descriptor = Bits(byte=1, msb=0, width=1)
    allocation_bytes = Bits(byte=4, width=8)


class Inquiry(Wire, size=6):
    opcode = Bits(byte=0, width=8, value=0x12)
    obsolete_cmddt = Bits(byte=1, msb=1, width=1, value=0)
    vital_product_data = Bits(byte=1, msb=0, width=1)
    page = Bits(byte=2, width=8)
    allocation_bytes = Bits(byte=3, width=16)


class ReportLuns(Wire, size=12):
    opcode = Bits(byte=0, width=8, value=0xA0)
    select_report = Bits(byte=2, width=8)
    allocation_bytes = Bits(byte=6, width=32)


class ReportSupportedOpcodes(Wire, size=12):
    opcode = Bits(byte=0, width=8, value=0xA3)
    service_action = Bits(byte=1, msb=4, width=5, value=0x0C)
    timeouts = Bits(byte=2, msb=7, width=1, doc="RCTD")
    reporting_options = Bits(byte=2, msb=2, width=3)
    requested_opcode = Bits(byte=3, width=8)
    requested_service_action = Bits(byte=4, width=16)
    allocation_bytes = Bits(byte=6, width=32)


class ReportSupportedFunctions(Wire, size=12):
    opcode = Bits(byte=0, width=8, value=0xA3)
    service_action = Bits(byte=1, msb=4, width=5, value=0x0D)
    extended = Bits(byte=2, msb=7, width=1, doc="REPD")
    allocation_bytes = Bits(byte=6, width=32)


class ModeSense6(Wire, size=6):
    opcode = Bits(byte=0, width=8, value=0x1A)
    no_block_descriptor = Bits(byte=1, msb=3, width=1)
    page_control = Bits(byte=2, msb=7, width=2)
    page = Bits(byte=2, msb=5, width=6)
    subpage = Bits(byte=3, width=8)
    allocation_bytes = Bits(byte=4, width=8)


class ModeSense10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x5A)
    long_lba = Bits(byte=1, msb=4, width=1)
    no_block_descriptor = Bits(byte=1, msb=3, width=1)
    page_control = Bits(byte=2, msb=7, width=2)
    page = Bits(byte=2, msb=5, width=6)
    subpage = Bits(byte=3, width=8)
    allocation_bytes = Bits(byte=7, width=16)


class LogSense(Wire, size=10):
    """Without SP, which would have the device save something."""

    opcode = Bits(byte=0, width=8, value=0x4D)
    save = Bits(byte=1, msb=0, width=1, value=0)
    page_control = Bits(byte=2, msb=7, width=2)
    page = Bits(byte=2, msb=5, width=6)
    subpage = Bits(byte=3, width=8)
    parameter = Bits(byte=5, width=16)
    allocation_bytes = Bits(byte=7, width=16)


class ModeSelect6(Wire, size=6):
    opcode = Bits(byte=0, width=8, value=0x15)
    page_format = Bits(byte=1, msb=4, width=1)
    save = Bits(byte=1, msb=0, width=1)
    parameter_bytes = Bits(byte=4, width=8)


class ModeSelect10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x55)
    page_format = Bits(byte=1, msb=4, width=1)
    save = Bits(byte=1, msb=0, width=1)
    parameter_bytes = Bits(byte=7, width=16)


class Reserve6(Wire, size=6):
    """SPC-2: of the whole unit, for the sender; extents and third parties are obsolete."""

    opcode = Bits(byte=0, width=8, value=0x16)
    third_party = Bits(byte=1, msb=4, width=1, value=0)
    extent = Bits(byte=1, msb=0, width=1, value=0)


class Release6(Wire, size=6):
    opcode = Bits(byte=0, width=8, value=0x17)
    third_party = Bits(byte=1, msb=4, width=1, value=0)
    extent = Bits(byte=1, msb=0, width=1, value=0)


class Reserve10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x56)
    third_party = Bits(byte=1, msb=4, width=1, value=0)
    long_id = Bits(byte=1, msb=1, width=1, value=0)
    extent = Bits(byte=1, msb=0, width=1, value=0)


class Release10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x57)
    third_party = Bits(byte=1, msb=4, width=1, value=0)
    long_id = Bits(byte=1, msb=1, width=1, value=0)
    extent = Bits(byte=1, msb=0, width=1, value=0)


class StartStopUnit(Wire, size=6):
    opcode = Bits(byte=0, width=8, value=0x1B)
    immediate = Bits(byte=1, msb=0, width=1)
    power_condition = Bits(byte=4, msb=7, width=4)
    no_flush = Bits(byte=4, msb=2, width=1)
    load_eject = Bits(byte=4, msb=1, width=1)
    start = Bits(byte=4, msb=0, width=1)


class PreventAllow(Wire, size=6):
    opcode = Bits(byte=0, width=8, value=0x1E)
    prevent = Bits(byte=4, msb=1, width=2)


class PersistentReserveIn(Wire, size=10):
    """The service action is looked at by the handler's table."""

    opcode = Bits(byte=0, width=8, value=0x5E)
    service_action = Bits(byte=1, msb=4, width=5)
    allocation_bytes = Bits(byte=7, width=16)


class PersistentReserveOut(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x5F)
    service_action = Bits(byte=1, msb=4, width=5)
    scope = Bits(byte=2, msb=7, width=4)
    reservation_type = Bits(byte=2, msb=3, width=4)
    parameter_bytes = Bits(byte=5, width=32)


class ReadCapacity10(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x25)
    obsolete_lba = Bits(byte=2, width=32, value=0)
    partial_medium = Bits(byte=8, msb=0, width=1, value=0)


class ReadCapacity16(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x9E)
    service_action = Bits(byte=1, msb=4, width=5, value=0x10)
    allocation_bytes = Bits(byte=10, width=32)


class GetLbaStatus(Wire, size=16):
    opcode = Bits(byte=0, width=8, value=0x9E)
    service_action = Bits(byte=1, msb=4, width=5, value=0x12)
    lba = Bits(byte=2, width=64)
    allocation_bytes = Bits(byte=10, width=32)


class Unmap(Wire, size=10):
    opcode = Bits(byte=0, width=8, value=0x42)
    anchor = Bits(byte=1, msb=0, width=1, value=0)
    parameter_bytes = Bits(byte=7, width=16)
