"""The PDUs of RFC 7143 clause 11: every format once, for target, initiator and tests alike.

A PDU is a basic header segment (BHS, 48 bytes), perhaps additional header segments (AHS), perhaps a
header digest, the data segment padded to four bytes, perhaps a data digest. The classes declare the
BHS; ``Layout`` says how long the rest is.

Everybody but the hot path reads a PDU with ``Class.parse``; the hot path takes what ``wire.packer`` derives
from the same kind of declaration.
"""

from __future__ import annotations

import enum
from typing import Final

from backstores.wire import Bits, Buffer, Bytes, Wire

BHS_BYTES: Final = 48
DIGEST_BYTES: Final = 4
NO_TAG: Final = 0xFFFFFFFF  # the reserved value of initiator and target task tags


class Opcode(enum.IntEnum):
    """Clause 11.2.1.2."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_MANAGEMENT_REQUEST = 0x02
    LOGIN_REQUEST = 0x03
    TEXT_REQUEST = 0x04
    DATA_OUT = 0x05
    LOGOUT_REQUEST = 0x06
    SNACK_REQUEST = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC_MESSAGE = 0x32
    REJECT = 0x3F


class RejectReason(enum.IntEnum):
    """Clause 11.17.1."""

    DATA_DIGEST_ERROR = 0x02
    SNACK_REJECT = 0x03
    PROTOCOL_ERROR = 0x04
    COMMAND_NOT_SUPPORTED = 0x05
    TOO_MANY_IMMEDIATE_COMMANDS = 0x06
    TASK_IN_PROGRESS = 0x07
    INVALID_PDU_FIELD = 0x09


class AsyncEvent(enum.IntEnum):
    """Clause 11.9.1."""

    LOGOUT_REQUESTED = 1
    CONNECTION_WILL_DROP = 2
    SESSION_WILL_DROP = 3


class LogoutReason(enum.IntEnum):
    """Clause 11.14.1."""

    CLOSE_SESSION = 0
    CLOSE_CONNECTION = 1
    REMOVE_FOR_RECOVERY = 2


class LogoutAnswer(enum.IntEnum):
    """Clause 11.15.1."""

    CLOSED = 0
    CID_NOT_FOUND = 1
    RECOVERY_NOT_SUPPORTED = 2


class AhsType(enum.IntEnum):
    """Clause 11.2.2.1."""

    EXTENDED_CDB = 1
    BIDIRECTIONAL_READ_LENGTH = 2


class BasicHeader(Wire, size=BHS_BYTES):
    """What all PDUs have in common (11.2.1)."""

    immediate = Bits(byte=0, msb=6, width=1)
    opcode = Bits(byte=0, msb=5, width=6)
    final = Bits(byte=1, msb=7, width=1)
    ahs_words = Bits(byte=4, width=8, doc="TotalAHSLength, in words of four bytes")
    data_bytes = Bits(byte=5, width=24, doc="DataSegmentLength, without padding")
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32, doc="Initiator Task Tag")


class AhsHeader(Wire, size=4):
    """The beginning of an additional header segment (11.2.2); the length counts from byte 3."""

    length = Bits(byte=0, width=16)
    type = Bits(byte=2, msb=5, width=6)


class ScsiCommand(Wire, size=BHS_BYTES):
    """11.3. ``expected_bytes`` is what the initiator will send or take, ``data_bytes`` the immediate data."""

    immediate = Bits(byte=0, msb=6, width=1)
    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.SCSI_COMMAND)
    final = Bits(byte=1, msb=7, width=1, doc="no unsolicited Data-Out follows")
    read = Bits(byte=1, msb=6, width=1)
    write = Bits(byte=1, msb=5, width=1)
    attribute = Bits(byte=1, msb=2, width=3)
    ahs_words = Bits(byte=4, width=8)
    data_bytes = Bits(byte=5, width=24)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    expected_bytes = Bits(byte=20, width=32, doc="Expected Data Transfer Length")
    cmd_sn = Bits(byte=24, width=32)
    exp_stat_sn = Bits(byte=28, width=32)
    cdb = Bytes(byte=32, length=16)


class ScsiResponse(Wire, size=BHS_BYTES):
    """11.4. Sense data follows as the data segment, behind its length in two bytes."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.SCSI_RESPONSE)
    final = Bits(byte=1, msb=7, width=1, value=1)
    overflow = Bits(byte=1, msb=2, width=1)
    underflow = Bits(byte=1, msb=1, width=1)
    response = Bits(byte=2, width=8, doc="0: the command was completed at the target")
    status = Bits(byte=3, width=8)
    data_bytes = Bits(byte=5, width=24)
    itt = Bits(byte=16, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)
    exp_data_sn = Bits(byte=36, width=32, doc="how many Data-In and R2T PDUs the command had")
    residual_bytes = Bits(byte=44, width=32)


class SenseHeader(Wire, size=2):
    """The beginning of a SCSI Response's data segment (11.4.7.2)."""

    length = Bits(byte=0, width=16)


class TaskManagementRequest(Wire, size=BHS_BYTES):
    """11.5."""

    immediate = Bits(byte=0, msb=6, width=1)
    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.TASK_MANAGEMENT_REQUEST)
    final = Bits(byte=1, msb=7, width=1)
    function = Bits(byte=1, msb=6, width=7)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    referenced_itt = Bits(byte=20, width=32)
    cmd_sn = Bits(byte=24, width=32)
    exp_stat_sn = Bits(byte=28, width=32)
    ref_cmd_sn = Bits(byte=32, width=32)
    exp_data_sn = Bits(byte=36, width=32)


class TaskManagementResponse(Wire, size=BHS_BYTES):
    """11.6."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.TASK_MANAGEMENT_RESPONSE)
    final = Bits(byte=1, msb=7, width=1, value=1)
    response = Bits(byte=2, width=8)
    data_bytes = Bits(byte=5, width=24)
    itt = Bits(byte=16, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)


class DataOut(Wire, size=BHS_BYTES):
    """11.7. ``ttt`` is the reserved tag for unsolicited data."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.DATA_OUT)
    final = Bits(byte=1, msb=7, width=1, doc="the last PDU of a sequence")
    data_bytes = Bits(byte=5, width=24)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    ttt = Bits(byte=20, width=32)
    exp_stat_sn = Bits(byte=28, width=32)
    data_sn = Bits(byte=36, width=32)
    offset_bytes = Bits(byte=40, width=32)


class DataIn(Wire, size=BHS_BYTES):
    """11.7. With ``status_here`` it is also the end of the command."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.DATA_IN)
    final = Bits(byte=1, msb=7, width=1)
    acknowledge = Bits(byte=1, msb=6, width=1)
    overflow = Bits(byte=1, msb=2, width=1)
    underflow = Bits(byte=1, msb=1, width=1)
    status_here = Bits(byte=1, msb=0, width=1)
    status = Bits(byte=3, width=8)
    data_bytes = Bits(byte=5, width=24)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    ttt = Bits(byte=20, width=32, value=NO_TAG)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)
    data_sn = Bits(byte=36, width=32)
    offset_bytes = Bits(byte=40, width=32)
    residual_bytes = Bits(byte=44, width=32)


class R2t(Wire, size=BHS_BYTES):
    """11.8: ready to transfer. ``stat_sn`` is the next one, which an R2T does not use up."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.R2T)
    final = Bits(byte=1, msb=7, width=1, value=1)
    data_bytes = Bits(byte=5, width=24)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    ttt = Bits(byte=20, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)
    r2t_sn = Bits(byte=36, width=32)
    offset_bytes = Bits(byte=40, width=32)
    desired_bytes = Bits(byte=44, width=32)


class AsyncMessage(Wire, size=BHS_BYTES):
    """11.9. The parameters' meaning depends on the event; for a drop: -, Time2Wait, Time2Retain."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.ASYNC_MESSAGE)
    final = Bits(byte=1, msb=7, width=1, value=1)
    data_bytes = Bits(byte=5, width=24)
    lun = Bits(byte=8, width=64)
    reserved_tag = Bits(byte=16, width=32, value=NO_TAG)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)
    event = Bits(byte=36, width=8)
    vendor_code = Bits(byte=37, width=8)
    parameter1 = Bits(byte=38, width=16)
    parameter2 = Bits(byte=40, width=16)
    parameter3 = Bits(byte=42, width=16)


class TextRequest(Wire, size=BHS_BYTES):
    """11.10."""

    immediate = Bits(byte=0, msb=6, width=1)
    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.TEXT_REQUEST)
    final = Bits(byte=1, msb=7, width=1)
    more = Bits(byte=1, msb=6, width=1, doc="C: the text goes on in the next request")
    data_bytes = Bits(byte=5, width=24)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    ttt = Bits(byte=20, width=32)
    cmd_sn = Bits(byte=24, width=32)
    exp_stat_sn = Bits(byte=28, width=32)


class TextResponse(Wire, size=BHS_BYTES):
    """11.11."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.TEXT_RESPONSE)
    final = Bits(byte=1, msb=7, width=1)
    more = Bits(byte=1, msb=6, width=1, doc="C: ask for the rest with an empty request")
    data_bytes = Bits(byte=5, width=24)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    ttt = Bits(byte=20, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)


class LoginRequest(Wire, size=BHS_BYTES):
    """11.12."""

    immediate = Bits(byte=0, msb=6, width=1)
    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.LOGIN_REQUEST)
    transit = Bits(byte=1, msb=7, width=1, doc="T: ready for the next stage")
    more = Bits(byte=1, msb=6, width=1, doc="C: the text goes on in the next request")
    current_stage = Bits(byte=1, msb=3, width=2)
    next_stage = Bits(byte=1, msb=1, width=2)
    version_max = Bits(byte=2, width=8)
    version_min = Bits(byte=3, width=8)
    ahs_words = Bits(byte=4, width=8)
    data_bytes = Bits(byte=5, width=24)
    isid = Bytes(byte=8, length=6)
    tsih = Bits(byte=14, width=16)
    itt = Bits(byte=16, width=32)
    cid = Bits(byte=20, width=16)
    cmd_sn = Bits(byte=24, width=32)
    exp_stat_sn = Bits(byte=28, width=32)


class LoginResponse(Wire, size=BHS_BYTES):
    """11.13."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.LOGIN_RESPONSE)
    transit = Bits(byte=1, msb=7, width=1)
    more = Bits(byte=1, msb=6, width=1)
    current_stage = Bits(byte=1, msb=3, width=2)
    next_stage = Bits(byte=1, msb=1, width=2)
    version_max = Bits(byte=2, width=8)
    version_active = Bits(byte=3, width=8)
    data_bytes = Bits(byte=5, width=24)
    isid = Bytes(byte=8, length=6)
    tsih = Bits(byte=14, width=16)
    itt = Bits(byte=16, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)
    status = Bits(byte=36, width=16, doc="Status-Class and Status-Detail")


class LogoutRequest(Wire, size=BHS_BYTES):
    """11.14."""

    immediate = Bits(byte=0, msb=6, width=1)
    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.LOGOUT_REQUEST)
    final = Bits(byte=1, msb=7, width=1)
    reason = Bits(byte=1, msb=6, width=7)
    itt = Bits(byte=16, width=32)
    cid = Bits(byte=20, width=16)
    cmd_sn = Bits(byte=24, width=32)
    exp_stat_sn = Bits(byte=28, width=32)


class LogoutResponse(Wire, size=BHS_BYTES):
    """11.15."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.LOGOUT_RESPONSE)
    final = Bits(byte=1, msb=7, width=1, value=1)
    response = Bits(byte=2, width=8)
    data_bytes = Bits(byte=5, width=24)
    itt = Bits(byte=16, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)
    time2wait_s = Bits(byte=40, width=16)
    time2retain_s = Bits(byte=42, width=16)


class Reject(Wire, size=BHS_BYTES):
    """11.17. The data segment is the header of the PDU that was rejected."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.REJECT)
    final = Bits(byte=1, msb=7, width=1, value=1)
    reason = Bits(byte=2, width=8)
    data_bytes = Bits(byte=5, width=24)
    reserved_tag = Bits(byte=16, width=32, value=NO_TAG)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)
    data_sn = Bits(byte=36, width=32)


class NopOut(Wire, size=BHS_BYTES):
    """11.18. With the reserved ``itt`` it answers a NOP-In; otherwise it wants its data back."""

    immediate = Bits(byte=0, msb=6, width=1)
    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.NOP_OUT)
    final = Bits(byte=1, msb=7, width=1)
    data_bytes = Bits(byte=5, width=24)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    ttt = Bits(byte=20, width=32)
    cmd_sn = Bits(byte=24, width=32)
    exp_stat_sn = Bits(byte=28, width=32)


class NopIn(Wire, size=BHS_BYTES):
    """11.19. With a ``ttt`` of its own it asks the initiator for a sign of life."""

    opcode = Bits(byte=0, msb=5, width=6, value=Opcode.NOP_IN)
    final = Bits(byte=1, msb=7, width=1, value=1)
    data_bytes = Bits(byte=5, width=24)
    lun = Bits(byte=8, width=64)
    itt = Bits(byte=16, width=32)
    ttt = Bits(byte=20, width=32)
    stat_sn = Bits(byte=24, width=32)
    exp_cmd_sn = Bits(byte=28, width=32)
    max_cmd_sn = Bits(byte=32, width=32)


TARGET_PDUS: Final[dict[int, type[Wire]]] = {
    Opcode.NOP_IN: NopIn,
    Opcode.SCSI_RESPONSE: ScsiResponse,
    Opcode.TASK_MANAGEMENT_RESPONSE: TaskManagementResponse,
    Opcode.LOGIN_RESPONSE: LoginResponse,
    Opcode.TEXT_RESPONSE: TextResponse,
    Opcode.DATA_IN: DataIn,
    Opcode.LOGOUT_RESPONSE: LogoutResponse,
    Opcode.R2T: R2t,
    Opcode.ASYNC_MESSAGE: AsyncMessage,
    Opcode.REJECT: Reject,
}


def padded(length_bytes: int) -> int:
    """Give a segment's length on the wire: whole words."""
    return length_bytes + 3 & ~3


def data_segment(data: Buffer) -> bytes:
    """Pad a data segment with zeros to whole words (11.2.3)."""
    return bytes(data) + bytes(padded(len(data)) - len(data))
