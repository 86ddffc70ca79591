"""Thin provisioning: UNMAP, WRITE SAME and GET LBA STATUS (SBC-3 clauses 4.7, 5.4, 5.26, 5.42)."""

from __future__ import annotations

from collections.abc import Iterable

from backstores.block import Op, Request
from backstores.scsi import transfers
from backstores.scsi.blocks import check_range, exact_data
from backstores.scsi.cdb import GetLbaStatus, Unmap
from backstores.scsi.limits import MAX_STATUS_BLOCKS, MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS, Limits
from backstores.scsi.model import Response
from backstores.scsi.sense import CheckCondition, Condition, FieldPointer
from backstores.scsi.steps import Steps
from backstores.scsi.unit import Call
from backstores.wire import Bits, Wire


class UnmapHeader(Wire, size=8):
    """The parameter list of UNMAP begins so."""

    data_length = Bits(byte=0, width=16)
    descriptors_length = Bits(byte=2, width=16)


class UnmapDescriptor(Wire, size=16):
    """One range to give back."""

    lba = Bits(byte=0, width=64)
    blocks = Bits(byte=8, width=32)


class LbaStatusHeader(Wire, size=8):
    """The answer to GET LBA STATUS begins so; the length counts from the byte behind it."""

    length = Bits(byte=0, width=32)


class LbaStatusDescriptor(Wire, size=16):
    """One run of blocks that are alike."""

    lba = Bits(byte=0, width=64)
    blocks = Bits(byte=8, width=32)
    deallocated = Bits(byte=12, msb=3, width=4, doc="0: mapped, 1: deallocated")


def unmap(call: Call, cdb: Unmap) -> Steps:
    """UNMAP: all ranges are checked before the first is given back."""
    if not cdb.parameter_bytes:
        return Response()
    ranges = _ranges(call)
    for lba, blocks in ranges:
        check_range(call, lba, blocks)
    if sum(blocks for _, blocks in ranges) > MAX_UNMAP_BLOCKS:
        raise CheckCondition(Condition.INVALID_FIELD_IN_PARAMETERS)
    for lba, blocks in _joined(ranges):
        if blocks:
            yield Request(Op.DISCARD, lba, blocks, fua=not call.unit.modes.write_cache)
    return Response()


def _joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Make one of neighbours: a range below the granularity of what lies under us may give nothing back alone."""
    found: list[tuple[int, int]] = []
    for lba, blocks in ranges:
        if found and sum(found[-1]) == lba:
            lba, blocks = found[-1][0], found.pop()[1] + blocks
        found.append((lba, blocks))
    return found


def _ranges(call: Call) -> list[tuple[int, int]]:
    if len(call.data) < UnmapHeader.SIZE:
        raise CheckCondition(Condition.PARAMETER_LIST_LENGTH_ERROR)
    header = UnmapHeader.parse(call.data)
    # A descriptor that is not there as a whole is not looked at (SBC-3 clause 5.28.2).
    count = min(header.descriptors_length, len(call.data) - UnmapHeader.SIZE) // UnmapDescriptor.SIZE
    if count > MAX_UNMAP_DESCRIPTORS:
        raise CheckCondition(Condition.INVALID_FIELD_IN_PARAMETERS, pointer=FieldPointer(2, 7, in_cdb=False))
    first = UnmapHeader.SIZE
    parsed = [UnmapDescriptor.parse(call.data, first + index * UnmapDescriptor.SIZE) for index in range(count)]
    return [(descriptor.lba, descriptor.blocks) for descriptor in parsed]


def write_same10(call: Call, cdb: transfers.WriteSame10) -> Steps:
    """WRITE SAME (10)."""
    pattern = exact_data(call, call.unit.device.block_bytes)
    return _write_same(call, cdb.lba, cdb.blocks, bytes(pattern), unmap=bool(cdb.unmap))


def write_same16(call: Call, cdb: transfers.WriteSame16) -> Steps:
    """WRITE SAME (16): NDOB stands for a block of zeros that was not sent."""
    size = call.unit.device.block_bytes
    pattern = bytes(size) if cdb.no_data else bytes(exact_data(call, size))
    return _write_same(call, cdb.lba, cdb.blocks, pattern, unmap=bool(cdb.unmap))


def _write_same(call: Call, lba: int, blocks: int, pattern: bytes, unmap: bool) -> Steps:
    """Write one block many times. Zeros need no data: given back with UNMAP, else zeroed in place.

    A length of 0 would mean "to the end"; the block limits page says that we don't take it (WSNZ).
    """
    limits = Limits.of(call.unit.device)
    if not 0 < blocks <= limits.write_same:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB)
    check_range(call, lba, blocks)
    fua = not call.unit.modes.write_cache
    if not any(pattern):
        yield Request(Op.DISCARD if unmap else Op.ZERO, lba, blocks, fua=fua)
        return Response()
    data = memoryview(pattern * min(blocks, limits.chunk))
    for start in range(lba, lba + blocks, limits.chunk):
        count = min(limits.chunk, lba + blocks - start)
        yield Request(Op.WRITE, start, count, data[: count * len(pattern)], fua)
    return Response()


def get_lba_status(call: Call, cdb: GetLbaStatus) -> Steps:
    """GET LBA STATUS: runs from the address on, as many as were asked for, at least one."""
    if cdb.lba >= call.unit.device.blocks:
        raise CheckCondition(Condition.LBA_OUT_OF_RANGE)
    blocks = min(call.unit.device.blocks - cdb.lba, MAX_STATUS_BLOCKS)
    runs = yield Request(Op.STATUS, cdb.lba, blocks)
    room = max(1, (cdb.allocation_bytes - LbaStatusHeader.SIZE) // LbaStatusDescriptor.SIZE)
    descriptors = b"".join(
        LbaStatusDescriptor.build(lba=run.lba, blocks=run.blocks, deallocated=not run.mapped) for run in runs[:room]
    )
    rest_of_length_field = LbaStatusHeader.SIZE - 4
    header = LbaStatusHeader.build(length=rest_of_length_field + len(descriptors))
    return Response(data_in=(header + descriptors)[: cdb.allocation_bytes])
