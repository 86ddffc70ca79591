"""Commands that read, write and compare blocks (SBC-3 clause 5)."""

from __future__ import annotations

from collections.abc import Iterator

from backstores.block import Op, Request
from backstores.scsi import transfers
from backstores.scsi.limits import MAX_COMPARE_BLOCKS, Limits
from backstores.scsi.model import Response, Status
from backstores.scsi.sense import CheckCondition, Condition, FieldPointer
from backstores.scsi.steps import Exclusive, Steps
from backstores.scsi.unit import Call


def check_range(call: Call, lba: int, blocks: int) -> None:
    """Refuse a range that does not lie on the unit.

    Raises:
        CheckCondition: it does not.
    """
    if lba + blocks > call.unit.device.blocks:
        raise CheckCondition(Condition.LBA_OUT_OF_RANGE)


def _check_transfer(call: Call, lba: int, blocks: int) -> None:
    check_range(call, lba, blocks)
    if blocks > Limits.of(call.unit.device).transfer:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB)


def exact_data(call: Call, length: int) -> memoryview:
    """Give the data of a command that makes no sense with less of it, or with more.

    Raises:
        CheckCondition: the host sent, or announced, another length.
    """
    announced = len(call.data) if call.announced_bytes is None else call.announced_bytes
    if len(call.data) != length or announced != length:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB)
    return call.data


def _write_data(call: Call, blocks: int) -> tuple[int, memoryview]:
    """Give how many blocks to write, and their data: fewer than asked for where the host sent fewer.

    The transport reports the rest as a residual overflow. Part of a block is not written: there is no telling
    what the rest of it should be.
    """
    size = call.unit.device.block_bytes
    sent, part = divmod(min(len(call.data), blocks * size), size)
    if part:
        raise CheckCondition(Condition.INVALID_INFORMATION_UNIT)
    return sent, call.data[: sent * size]


def _chunks(call: Call, lba: int, blocks: int) -> Iterator[tuple[int, int]]:
    step = Limits.of(call.unit.device).chunk
    for start in range(lba, lba + blocks, step):
        yield start, min(step, lba + blocks - start)


def read(call: Call, cdb: transfers.AnyRead) -> Steps:
    """READ (10), (12), (16)."""
    return _read(call, cdb.lba, cdb.blocks, fua=bool(cdb.fua))


def read6(call: Call, cdb: transfers.Read6) -> Steps:
    """READ (6)."""
    return _read(call, cdb.lba, cdb.blocks or 256, fua=False)


def _read(call: Call, lba: int, blocks: int, fua: bool) -> Steps:
    _check_transfer(call, lba, blocks)
    data = memoryview(bytearray(blocks * call.unit.device.block_bytes))
    if blocks:
        yield Request(Op.READ, lba, blocks, data, fua)
    return Response(data_in=data)


def write(call: Call, cdb: transfers.AnyWrite) -> Steps:
    """WRITE (10), (12), (16)."""
    return _write(call, cdb.lba, cdb.blocks, fua=bool(cdb.fua))


def write6(call: Call, cdb: transfers.Write6) -> Steps:
    """WRITE (6)."""
    return _write(call, cdb.lba, cdb.blocks or 256, fua=False)


def _write(call: Call, lba: int, blocks: int, fua: bool) -> Steps:
    _check_transfer(call, lba, blocks)
    sent, data = _write_data(call, blocks)
    if sent:
        yield Request(Op.WRITE, lba, sent, data, fua or not call.unit.modes.write_cache)
    return Response()


def write_verify(call: Call, cdb: transfers.AnyWriteVerify) -> Steps:
    """WRITE AND VERIFY (10), (12), (16): durable first, then read back, and compared if BYTCHK is 1."""
    _check_byte_check(cdb.byte_check, allowed=(0, 1))
    _check_transfer(call, cdb.lba, cdb.blocks)
    sent, data = _write_data(call, cdb.blocks)
    if sent:
        yield Request(Op.WRITE, cdb.lba, sent, data, fua=True)
        stored = memoryview(bytearray(len(data)))
        yield Request(Op.READ, cdb.lba, sent, stored)
        if cdb.byte_check:
            _compare(stored, data)
    return Response()


def verify(call: Call, cdb: transfers.AnyVerify) -> Steps:
    """VERIFY (10), (12), (16): readable (BYTCHK 0), equal to the data (1), each block equal to the one sent (3)."""
    _check_byte_check(cdb.byte_check, allowed=(0, 1, 3))
    check_range(call, cdb.lba, cdb.blocks)
    size = call.unit.device.block_bytes
    if cdb.byte_check == 1:
        _check_transfer(call, cdb.lba, cdb.blocks)
        exact_data(call, cdb.blocks * size)
    elif cdb.byte_check == 3 and cdb.blocks:
        exact_data(call, size)
    for lba, blocks in _chunks(call, cdb.lba, cdb.blocks):
        stored = memoryview(bytearray(blocks * size))
        yield Request(Op.READ, lba, blocks, stored)
        first = (lba - cdb.lba) * size
        if cdb.byte_check == 1:
            _compare(stored, call.data[first : first + blocks * size], first)
        elif cdb.byte_check == 3:
            _compare(stored, memoryview(bytes(call.data) * blocks), first)
    return Response()


def _check_byte_check(value: int, allowed: tuple[int, ...]) -> None:
    if value not in allowed:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(1, 2))


def _compare(stored: memoryview, wanted: memoryview, first: int = 0) -> None:
    """Raise a miscompare whose information is the offset of the first byte that differs (SBC-3 clause 5.2)."""
    if stored != wanted:
        offset = _first_difference(stored, wanted)
        raise CheckCondition(Condition.MISCOMPARE_DURING_VERIFY, information=first + offset)


def _first_difference(one: memoryview, other: memoryview) -> int:
    """Find where two texts of one length that differ begin to: by halves, for bytes one by one would take long."""
    start, end = 0, len(one)
    while end - start > 1:
        middle = (start + end) // 2
        if one[start:middle] == other[start:middle]:
            start = middle
        else:
            end = middle
    return start


def synchronize_cache(call: Call, cdb: transfers.AnySynchronizeCache) -> Steps:
    """SYNCHRONIZE CACHE (10), (16). With IMMED it may end sooner, but there is no gain in an early promise."""
    check_range(call, cdb.lba, cdb.blocks)
    yield Request(Op.FLUSH, 0, 0)
    return Response()


def prefetch(call: Call, cdb: transfers.AnyPrefetch) -> Response:
    """PRE-FETCH (10), (16): the page cache below decides for itself; GOOD says that not all may be cached."""
    check_range(call, cdb.lba, cdb.blocks)
    return Response(Status.GOOD)


def compare_and_write(call: Call, cdb: transfers.CompareAndWrite) -> Steps:
    """COMPARE AND WRITE (SBC-3 clause 5.2): the first half of the data must be there before the second is."""
    check_range(call, cdb.lba, cdb.blocks)
    if cdb.blocks > MAX_COMPARE_BLOCKS:
        raise CheckCondition(Condition.INVALID_FIELD_IN_CDB, pointer=FieldPointer(13, 7))
    half = cdb.blocks * call.unit.device.block_bytes
    data = exact_data(call, 2 * half)
    if cdb.blocks:
        yield Exclusive(cdb.lba, cdb.blocks)
        stored = memoryview(bytearray(half))
        yield Request(Op.READ, cdb.lba, cdb.blocks, stored)
        _compare(stored, data[:half])
        fua = bool(cdb.fua) or not call.unit.modes.write_cache
        yield Request(Op.WRITE, cdb.lba, cdb.blocks, data[half:], fua)
    return Response()


def orwrite(call: Call, cdb: transfers.Orwrite) -> Steps:
    """ORWRITE (16): set the bits that are set in the data (SBC-3 clause 5.13)."""
    _check_transfer(call, cdb.lba, cdb.blocks)
    data = exact_data(call, cdb.blocks * call.unit.device.block_bytes)
    if cdb.blocks:
        yield Exclusive(cdb.lba, cdb.blocks)
        stored = memoryview(bytearray(len(data)))
        yield Request(Op.READ, cdb.lba, cdb.blocks, stored)
        merged = int.from_bytes(stored) | int.from_bytes(data)
        fua = bool(cdb.fua) or not call.unit.modes.write_cache
        yield Request(Op.WRITE, cdb.lba, cdb.blocks, memoryview(merged.to_bytes(len(data))), fua)
    return Response()
