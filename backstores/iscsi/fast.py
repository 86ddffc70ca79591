"""The formats of the hot path: the PDUs of ``pdu`` once more, cut into fields that a ``Struct`` can take whole.

A flag byte is one field here, and so are TotalAHSLength and DataSegmentLength together: a command without AHS
has its data's length in it. The tests hold these declarations against those of ``pdu``.
"""

from __future__ import annotations

from typing import Final

from backstores.iscsi.pdu import BHS_BYTES, Opcode
from backstores.wire import Bits, Wire, packer

READ_10: Final = 0x28
WRITE_10: Final = 0x2A
READ_16: Final = 0x88
WRITE_16: Final = 0x8A

FINAL_READ: Final = 0xC0  # F and R; attribute UNTAGGED, or SIMPLE with one bit more
FINAL_WRITE: Final = 0xA0  # F and W
ANY_BUT_SIMPLE: Final = 0xFE  # masks the bit that tells SIMPLE from UNTAGGED
LAST_WITH_STATUS: Final = 0x81  # F and S of a Data-In
LAST_OF_BURST: Final = 0x80


class Command10(Wire, size=BHS_BYTES):
    """A SCSI Command with READ(10) or WRITE(10)."""

    opcode = Bits(byte=0, width=8)
    flags = Bits(byte=1, width=8)
    lengths = Bits(byte=4, width=32)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    expected_bytes = Bits(byte=20, width=32)
    cmd_sn = Bits(byte=24, width=32)
    cdb_opcode = Bits(byte=32, width=8)
    cdb_flags = Bits(byte=33, width=8)
    lba = Bits(byte=34, width=32)
    blocks = Bits(byte=39, width=16)
    control = Bits(byte=41, width=8)


class Command16(Wire, size=BHS_BYTES):
    """A SCSI Command with READ(16) or WRITE(16)."""

    opcode = Bits(byte=0, width=8)
    flags = Bits(byte=1, width=8)
    lengths = Bits(byte=4, width=32)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    expected_bytes = Bits(byte=20, width=32)
    cmd_sn = Bits(byte=24, width=32)
    cdb_opcode = Bits(byte=32, width=8)
    cdb_flags = Bits(byte=33, width=8)
    lba = Bits(byte=34, width=64)
    blocks = Bits(byte=42, width=32)
    control = Bits(byte=47, width=8)


class FastDataIn(Wire, size=BHS_BYTES):
    """A Data-In without residual."""

    opcode = Bits(byte=0, width=8)
    flags = Bits(byte=1, width=8)
    lengths = Bits(byte=4, width=32)
    itt = Bits(byte=16, width=32)
    ttt = Bits(byte=20, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)
    data_sn = Bits(byte=36, width=32)
    offset_bytes = Bits(byte=40, width=32)


class FastScsiResponse(Wire, size=BHS_BYTES):
    """A SCSI Response with status GOOD and without residual."""

    opcode = Bits(byte=0, width=8)
    flags = Bits(byte=1, width=8)
    itt = Bits(byte=16, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)


_TEN: Final = packer(Command10).unpack_from
_SIXTEEN: Final = packer(Command16).unpack_from
UNPACK: Final = {READ_10: _TEN, WRITE_10: _TEN, READ_16: _SIXTEEN, WRITE_16: _SIXTEEN}
READS: Final = frozenset({READ_10, READ_16})
PACK_DATA_IN: Final = packer(FastDataIn).pack_into
PACK_SCSI_RESPONSE: Final = packer(FastScsiResponse).pack_into
CDB_AT: Final = Command10.cdb_opcode.byte

# An enum's member costs two look-ups more than a number.
SCSI_COMMAND: Final = int(Opcode.SCSI_COMMAND)
DATA_IN: Final = int(Opcode.DATA_IN)
SCSI_RESPONSE: Final = int(Opcode.SCSI_RESPONSE)
