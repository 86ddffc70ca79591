"""REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS, and the table behind them."""

from __future__ import annotations

import pytest

from backstores.scsi.cdb import ReportSupportedFunctions, ReportSupportedOpcodes
from backstores.scsi.commands import BLOCK_COMMANDS, TABLE
from backstores.scsi.opcodes import AllHeader, CommandDescriptor, OneHeader, TimeoutsDescriptor
from backstores.scsi.sense import Condition
from backstores.scsi.transfers import CompareAndWrite, Read10, Verify10, Write6, Write10, WriteSame16
from tests.support.scsi import Host, memory_unit


@pytest.fixture
def host() -> Host:
    """A host at a unit."""
    return Host.at(memory_unit())


def one(host: Host, options: int, opcode: int, action: int = 0, timeouts: int = 0) -> bytes:
    """Ask about one command."""
    return host.good(
        ReportSupportedOpcodes.build(
            reporting_options=options,
            requested_opcode=opcode,
            requested_service_action=action,
            timeouts=timeouts,
            allocation_bytes=1024,
        )
    )


@pytest.mark.parametrize("timeouts", [0, 1])
def test_all_commands(host: Host, timeouts: int) -> None:
    """SPC-4 clause 6.35.2: each row of the table is told."""
    data = host.good(ReportSupportedOpcodes.build(timeouts=timeouts, allocation_bytes=1 << 16))
    assert AllHeader.parse(data).length == len(data) - AllHeader.SIZE
    size = CommandDescriptor.SIZE + (TimeoutsDescriptor.SIZE if timeouts else 0)
    told = [CommandDescriptor.parse(data, at) for at in range(AllHeader.SIZE, len(data), size)]
    found = {(row.opcode, row.service_action if row.has_service_action else None): row for row in told}
    assert found.keys() == TABLE.keys()
    assert {key: row.cdb_length for key, row in found.items()} == {key: row.wire.SIZE for key, row in TABLE.items()}
    assert all(row.has_timeouts == timeouts for row in told)


def test_the_length_of_a_cdb_is_that_of_its_group() -> None:
    """SPC-4 table 19: the upper 3 bits of the operation code say it."""
    lengths = (6, 10, 10, None, 16, 12)
    for (opcode, _), row in TABLE.items():
        assert lengths[opcode >> 5] == row.wire.SIZE


@pytest.mark.parametrize(
    ("options", "opcode", "action", "usage_data"),
    [
        (1, 0x28, 0, "28 18 ff ff ff ff 00 ff ff 00"),
        (2, 0x9E, 0x10, "9e 10 0000000000000000 ffffffff 00 00"),
        (3, 0x28, 0, "28 18 ff ff ff ff 00 ff ff 00"),
        (3, 0x5F, 0x06, "5f 06 ff 00 00 ff ff ff ff 00"),
    ],
    ids=["plain", "with service action", "either: plain", "either: with service action"],
)
def test_one_command(host: Host, options: int, opcode: int, action: int, usage_data: str) -> None:
    """SPC-4 clause 6.35.3: the usage data says which bits are looked at."""
    data = one(host, options, opcode, action)
    assert data == bytes.fromhex("0003") + len(bytes.fromhex(usage_data)).to_bytes(2) + bytes.fromhex(usage_data)


def test_timeouts(host: Host) -> None:
    data = one(host, 1, 0x35, timeouts=1)
    header = OneHeader.parse(data)
    assert header.has_timeouts
    assert TimeoutsDescriptor.parse(data, OneHeader.SIZE + header.cdb_length).recommended_s == 120


@pytest.mark.parametrize(("options", "opcode", "action"), [(1, 0xFF, 0), (2, 0x9E, 0x1F), (3, 0x28, 1), (3, 0xFF, 0)])
def test_what_is_not_supported(host: Host, options: int, opcode: int, action: int) -> None:
    assert one(host, options, opcode, action) == bytes.fromhex("0001 0000")


@pytest.mark.parametrize(("options", "opcode"), [(1, 0x9E), (2, 0x28), (4, 0x28), (7, 0x28)])
def test_questions_that_make_no_sense(host: Host, options: int, opcode: int) -> None:
    cdb = ReportSupportedOpcodes.build(reporting_options=options, requested_opcode=opcode, allocation_bytes=64)
    assert host.refused(cdb) is Condition.INVALID_FIELD_IN_CDB


def test_task_management_functions(host: Host) -> None:
    assert host.good(ReportSupportedFunctions.build(allocation_bytes=4)) == bytes.fromhex("da000000")
    assert host.good(ReportSupportedFunctions.build(extended=1, allocation_bytes=16))[:4] == bytes.fromhex("da00000c")


@pytest.mark.parametrize(
    ("cdb", "length"),
    [
        (Read10.build(blocks=8), 0),
        (Write10.build(blocks=8), 4096),
        (Write6.build(), 256 * 512),
        (Verify10.build(blocks=8), 0),
        (Verify10.build(blocks=8, byte_check=1), 4096),
        (Verify10.build(blocks=8, byte_check=3), 512),
        (CompareAndWrite.build(blocks=2), 2048),
        (WriteSame16.build(blocks=9), 512),
        (WriteSame16.build(blocks=9, no_data=1), 0),
        (Write10.build(blocks=0xFFFF), 0),
        (b"\xff" * 10, 0),
        (b"", 0),
    ],
    ids=["read", "write", "write 6", "verify", "verify 1", "verify 3", "caw", "same", "ndob", "too long", "?", "empty"],
)
def test_how_much_data_a_command_takes(host: Host, cdb: bytes, length: int) -> None:
    """S3: nothing is asked for on behalf of a command that will be refused."""
    assert BLOCK_COMMANDS.data_out_bytes(cdb, 512) == host.nexus.data_out_bytes(0, cdb) == length
