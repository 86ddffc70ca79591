"""The formats of the hot path are those of the PDUs, and every PDU of ours is what the standard says, byte by byte."""

from __future__ import annotations

import pytest

from backstores.iscsi.initiator.cdbs import READ_16, WRITE_16, Transfer16, transfer
from backstores.iscsi.initiator.formats import (
    NO_DATA,
    PACK_COMMAND,
    READ,
    STATUS_HERE,
    WRITE,
    WRITE_GOES_ON,
    Answer,
    CommandStart,
)
from backstores.iscsi.initiator.tasks import Task
from backstores.iscsi.pdu import DataIn, NopIn, R2t, ScsiCommand, ScsiResponse
from backstores.scsi.transfers import Read16, Write16
from backstores.wire import Wire
from tests.support.iscsi_pair import Puppet, read_task, sent, write_task

ALIKE = {
    "stat_sn": ("stat_sn", "stat_sn", "stat_sn"),
    "exp_cmd_sn": ("exp_cmd_sn", "exp_cmd_sn", "exp_cmd_sn"),
    "max_cmd_sn": ("max_cmd_sn", "max_cmd_sn", "max_cmd_sn"),
    "itt": ("itt", "itt", "itt"),
    "number": ("data_sn", "exp_data_sn", "r2t_sn"),
    "offset_bytes": ("offset_bytes", None, "offset_bytes"),
    "length_bytes": ("residual_bytes", "residual_bytes", "desired_bytes"),
    "status": ("status", "status", None),
    "ttt": ("ttt", None, "ttt"),
}


def place(pdu: type[Wire], name: str) -> tuple[int, int]:
    """Say where a field lies."""
    field = pdu.FIELDS[name]
    return field.first_bit, field.width


@pytest.mark.parametrize("name", ALIKE)
def test_what_a_target_says_of_a_command_lies_in_the_same_places(name: str) -> None:
    for pdu, theirs in zip((DataIn, ScsiResponse, R2t), ALIKE[name], strict=True):
        if theirs is not None:
            assert place(Answer, name) == place(pdu, theirs)


@pytest.mark.parametrize("flags", [NO_DATA, READ, WRITE, WRITE_GOES_ON])
def test_a_command_is_packed_as_it_is_built(flags: int) -> None:
    built = ScsiCommand.build(
        final=flags >> 7,
        read=flags >> 6 & 1,
        write=flags >> 5 & 1,
        attribute=1,
        data_bytes=0x1234,
        lun=1 << 48,
        itt=7,
        expected_bytes=0x5678,
        cmd_sn=9,
        exp_stat_sn=11,
        cdb=b"\x88cdb",
    )
    packed = PACK_COMMAND(1, flags, 0x1234, 1 << 48, 7, 0x5678, 9, 11)
    assert packed + b"\x88cdb".ljust(16, b"\0") == built
    assert CommandStart.parse(built).raw == packed


def test_the_flag_that_tells_a_status_is_that_of_a_data_in() -> None:
    assert DataIn.build(status_here=1)[1] == STATUS_HERE


@pytest.mark.parametrize(("opcode", "pdu"), [(READ_16, Read16), (WRITE_16, Write16)])
@pytest.mark.parametrize("fua", [False, True])
def test_a_transfer_is_packed_as_it_is_built(opcode: int, pdu: type[Wire], fua: bool) -> None:
    assert transfer(opcode, 1 << 40, 77, fua) == pdu.build(lba=1 << 40, blocks=77, fua=int(fua))
    assert Transfer16.SIZE == pdu.SIZE


GOLDEN = [
    pytest.param(
        read_task(transfer(READ_16, 1, 8), 4096),
        "01c1000000000000 0000000000000000 00000001 00001000 00000001 00000066 88000000000000000001000000080000",
        id="a read",
    ),
    pytest.param(
        write_task(transfer(WRITE_16, 1, 1), b"\xaa" * 512, lun=0x0001 << 48),
        "01a1000000000200 0001000000000000 00000001 00000200 00000001 00000066 8a000000000000000001000000010000"
        + "aa" * 512,
        id="a write with immediate data",
    ),
    pytest.param(
        read_task(b"", 0),
        "0181000000000000 0000000000000000 00000001 00000000 00000001 00000066 00000000000000000000000000000000",
        id="no data",
    ),
]


@pytest.mark.parametrize(("task", "wanted"), GOLDEN)
def test_golden_commands(task: Task, wanted: str) -> None:
    """RFC 7143, 11.3: StatSN 101 was the login's last, so 102 comes next."""
    puppet = Puppet()
    core = puppet.login()
    core.submit(task)
    assert sent(core).hex() == wanted.replace(" ", "")


def test_golden_answer_to_a_ping() -> None:
    """RFC 7143, 11.18: immediate, final, the target's tag and LUN back, no tag of ours."""
    puppet = Puppet()
    core = puppet.login()
    puppet.say(NopIn, counts=False, itt=0xFFFFFFFF, ttt=0x1234, lun=5)
    wanted = "4080000000000000 0000000000000005 ffffffff 00001234 00000001 00000066".replace(" ", "") + "00" * 16
    assert sent(core).hex() == wanted
