"""The formats of the initiator's hot path: the PDUs of ``pdu`` once more, cut into fields that a ``Struct`` can take.

All that a target says about a command has its fields in the same places, so one format serves Data-In, SCSI
Response and R2T. The tests hold these declarations against those of ``pdu``.
"""

from __future__ import annotations

from typing import Final

from backstores.iscsi.pdu import BHS_BYTES, Opcode
from backstores.wire import Bits, Wire, packer


class CommandStart(Wire, size=32):
    """A SCSI Command up to its CDB."""

    opcode = Bits(byte=0, width=8)
    flags = Bits(byte=1, width=8)
    lengths = Bits(byte=4, width=32)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    expected_bytes = Bits(byte=20, width=32)
    cmd_sn = Bits(byte=24, width=32)
    exp_stat_sn = Bits(byte=28, width=32)


class Answer(Wire, size=BHS_BYTES):
    """Data-In, SCSI Response or R2T. ``number`` is DataSN, ExpDataSN or R2TSN."""

    opcode = Bits(byte=0, width=8)
    flags = Bits(byte=1, width=8)
    response = Bits(byte=2, width=8)
    status = Bits(byte=3, width=8)
    lengths = Bits(byte=4, width=32, doc="TotalAHSLength and DataSegmentLength: a target sends no AHS")
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    ttt = Bits(byte=20, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)
    number = Bits(byte=36, width=32)
    offset_bytes = Bits(byte=40, width=32)
    length_bytes = Bits(byte=44, width=32, doc="a residual, or what an R2T asks for")


PACK_COMMAND: Final = packer(CommandStart).pack
UNPACK_ANSWER: Final = packer(Answer).unpack_from

SCSI_COMMAND: Final = int(Opcode.SCSI_COMMAND)
DATA_IN: Final = int(Opcode.DATA_IN)
SCSI_RESPONSE: Final = int(Opcode.SCSI_RESPONSE)
R2T: Final = int(Opcode.R2T)

# Flags of a command: F, R or W, and the attribute SIMPLE.
NO_DATA: Final = 0x81
READ: Final = 0xC1
WRITE: Final = 0xA1
WRITE_GOES_ON: Final = 0x21  # unsolicited Data-Out follows

STATUS_HERE: Final = 0x01  # S of a Data-In
