"""MODE SENSE and MODE SELECT (SPC-4 clauses 6.9 to 6.12): headers and block descriptors round the mode pages."""

from __future__ import annotations

from typing import Final

from backstores.scsi import cdb as formats
from backstores.scsi.model import Response
from backstores.scsi.modes import ALL_SUBPAGES, PageControl
from backstores.scsi.sense import CheckCondition, Condition, FieldPointer
from backstores.scsi.steps import Steps, Turn
from backstores.scsi.unit import Call
from backstores.wire import Bits, Wire


class Header6(Wire, size=4):
    """Mode parameter header of the 6-byte commands; lengths count from the byte behind their field."""

    data_length = Bits(byte=0, width=8)
    medium_type = Bits(byte=1, width=8)
    write_protect = Bits(byte=2, msb=7, width=1)
    dpo_fua = Bits(byte=2, msb=4, width=1)
    descriptors_length = Bits(byte=3, width=8)


class Header10(Wire, size=8):
    """Mode parameter header of the 10-byte commands."""

    data_length = Bits(byte=0, width=16)
    medium_type = Bits(byte=2, width=8)
    write_protect = Bits(byte=3, msb=7, width=1)
    dpo_fua = Bits(byte=3, msb=4, width=1)
    long_lba = Bits(byte=4, msb=0, width=1)
    descriptors_length = Bits(byte=6, width=16)


class ShortDescriptor(Wire, size=8):
    """Short LBA block descriptor (SBC-3 clause 6.5.2.2): all ones where the capacity does not fit."""

    blocks = Bits(byte=0, width=32)
    block_bytes = Bits(byte=5, width=24)


class LongDescriptor(Wire, size=16):
    """Long LBA block descriptor (SBC-3 clause 6.5.2.3)."""

    blocks = Bits(byte=0, width=64)
    block_bytes = Bits(byte=12, width=32)


Header = type[Header6] | type[Header10]
Descriptor = type[ShortDescriptor] | type[LongDescriptor]

LENGTH_FIELD_BYTES: Final = {Header6: 1, Header10: 2}


def mode_sense6(call: Call, cdb: formats.ModeSense6) -> Response:
    """MODE SENSE (6)."""
    return _sense(call, cdb, Header6, ShortDescriptor)


def mode_sense10(call: Call, cdb: formats.ModeSense10) -> Response:
    """MODE SENSE (10)."""
    return _sense(call, cdb, Header10, LongDescriptor if cdb.long_lba else ShortDescriptor)


def _sense(
    call: Call, cdb: formats.ModeSense6 | formats.ModeSense10, header: Header, descriptor: Descriptor
) -> Response:
    if cdb.subpage not in (0, ALL_SUBPAGES):
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(3, 7))
    pages = call.unit.modes.sense(PageControl(cdb.page_control), cdb.page)
    descriptors = b"" if cdb.no_block_descriptor else _descriptor(call, descriptor)
    length = header.SIZE - LENGTH_FIELD_BYTES[header] + len(descriptors) + len(pages)
    fields = {"long_lba": 1} if descriptors and descriptor is LongDescriptor else {}
    start = header.build(
        data_length=length,
        write_protect=call.unit.write_protected(call.at),
        dpo_fua=1,
        descriptors_length=len(descriptors),
        **fields,
    )
    return Response(data_in=(start + descriptors + pages)[: cdb.allocation_bytes])


def _descriptor(call: Call, descriptor: Descriptor) -> bytes:
    device = call.unit.device
    blocks = min(device.blocks, descriptor.blocks.mask)
    return descriptor.build(blocks=blocks, block_bytes=device.block_bytes)


def mode_select6(call: Call, cdb: formats.ModeSelect6) -> Steps:
    """MODE SELECT (6)."""
    return _select(call, cdb, Header6)


def mode_select10(call: Call, cdb: formats.ModeSelect10) -> Steps:
    """MODE SELECT (10)."""
    return _select(call, cdb, Header10)


def _select(call: Call, cdb: formats.ModeSelect6 | formats.ModeSelect10, header: Header) -> Steps:
    if not cdb.page_format:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(1, 4))
    if not cdb.parameter_bytes:
        return Response()
    if len(call.data) < max(cdb.parameter_bytes, header.SIZE):
        raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
    start = _check_header(call, header)
    yield Turn()
    modes = call.unit.modes.copy()
    modes.select(call.data[start:], save=bool(cdb.save), offset=start)
    yield from call.unit.adopt_modes(modes, call.at)
    return Response()


def _check_header(call: Call, header: Header) -> int:
    """Check header and block descriptor, which may repeat what we report but change nothing; give the pages' start."""
    parsed = header.parse(call.data)
    descriptor: Descriptor = LongDescriptor if isinstance(parsed, Header10) and parsed.long_lba else ShortDescriptor
    if parsed.medium_type or parsed.descriptors_length not in (0, descriptor.SIZE):
        raise CheckCondition(Condition.INVALID_FIELD_IN_PARAMETERS, pointer=FieldPointer(1, 7, in_cdb=False))
    start = header.SIZE + parsed.descriptors_length
    if len(call.data) < start:
        raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
    if parsed.descriptors_length:
        told = descriptor.parse(call.data, header.SIZE)
        known = descriptor.parse(_descriptor(call, descriptor))
        if told.block_bytes != known.block_bytes or told.blocks not in (0, known.blocks):
            raise CheckCondition(
                Condition.INVALID_FIELD_IN_PARAMETERS, pointer=FieldPointer(header.SIZE, 7, in_cdb=False)
            )
    return start
