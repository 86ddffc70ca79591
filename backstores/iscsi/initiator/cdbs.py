"""The CDBs of transfers, built in one go: the initiator's side of ``backstores.scsi.transfers``."""

from __future__ import annotations

from typing import Final

from backstores.iscsi.initiator.tasks import CDB_BYTES
from backstores.wire import Bits, Wire, packer

READ_16: Final = 0x88
WRITE_16: Final = 0x8A
FUA: Final = 0x08


class Transfer16(Wire, size=CDB_BYTES):
    """READ(16), WRITE(16) and their like, their flags as one byte."""

    opcode = Bits(byte=0, width=8)
    flags = Bits(byte=1, width=8)
    lba = Bits(byte=2, width=64)
    blocks = Bits(byte=10, width=32)


_PACK: Final = packer(Transfer16).pack


def transfer(opcode: int, lba: int, blocks: int, fua: bool = False) -> bytes:
    """Make a CDB that moves blocks."""
    return _PACK(opcode, FUA if fua else 0, lba, blocks)


def pad(cdb: bytes) -> bytes:
    """Give a CDB the length that it has in a PDU."""
    return cdb.ljust(CDB_BYTES, b"\0")
