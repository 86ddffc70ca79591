"""READ and WRITE straight between the ring's data area and a device: the hot path of a TCMU handler.

The same licence as the portal's counts: ``fast_read`` and ``fast_write`` of the nexus hold the device while nothing
but the range has to be looked at. Whatever is not plain goes the general way, also after a part of it was done
here: that is done again, which is harmless (same blocks, same data).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from backstores.scsi.model import Nexus
from backstores.tcmu.ring import Now
from backstores.wire import Bits, Wire, packer

READ_10: Final = 0x28
WRITE_10: Final = 0x2A
READ_16: Final = 0x88
WRITE_16: Final = 0x8A


class Transfer10(Wire, size=10):
    """READ(10) and WRITE(10) (SBC-3 clauses 5.7 and 5.25), the flags as one byte; the group number is ignored."""

    opcode = Bits(byte=0, width=8)
    flags = Bits(byte=1, width=8)
    lba = Bits(byte=2, width=32)
    blocks = Bits(byte=7, width=16)
    control = Bits(byte=9, width=8)


class Transfer16(Wire, size=16):
    """READ(16) and WRITE(16) (SBC-3 clauses 5.9 and 5.27)."""

    opcode = Bits(byte=0, width=8)
    flags = Bits(byte=1, width=8)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)
    control = Bits(byte=15, width=8)


_TEN: Final = packer(Transfer10).unpack_from
_SIXTEEN: Final = packer(Transfer16).unpack_from
_UNPACK: Final = {READ_10: _TEN, WRITE_10: _TEN, READ_16: _SIXTEEN, WRITE_16: _SIXTEEN}
_READS: Final = frozenset({READ_10, READ_16})


def bind(memory: memoryview, nexus: Nexus, lun: int) -> Now:
    """Make the function that a ring tries each command with."""
    fast_read, fast_write = nexus.fast_read, nexus.fast_write

    def now(opcode: int, cdb_at: int, spans: Sequence[memoryview]) -> bool:
        unpack = _UNPACK.get(opcode)
        if unpack is None:
            return False
        reads = opcode in _READS
        device = (fast_read if reads else fast_write).get(lun)
        _, flags, lba, blocks, control = unpack(memory, cdb_at)
        if device is None or flags or control or not blocks or lba + blocks > device.blocks:
            return False
        block_bytes = device.block_bytes
        transfer = device.read_now if reads else device.write_now
        if len(spans) == 1:
            (span,) = spans
            return len(span) == blocks * block_bytes and bool(transfer(lba, blocks, span))
        end: int = lba + blocks
        for span in spans:
            run, rest = divmod(len(span), block_bytes)
            if rest or not run or run > end - lba or not transfer(lba, run, span):
                return False
            lba += run
        return bool(lba == end)

    return now
