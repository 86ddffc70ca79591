"""Direct access: CDBs go to the device as they are, and what it answers comes back (R5)."""

from __future__ import annotations

import pytest

from backstores.device import MemoryDevice
from backstores.scsi import cdb as formats
from backstores.scsi import transfers as t
from backstores.scsi.commands import TABLE
from backstores.scsi.direct import ANSWERED_BY_ALL, DEVICE_COMMANDS, NOT_PASSED, OURS, PLAIN, PLAIN_COMMANDS
from backstores.scsi.inquiry import BlockLimits, PageHeader
from backstores.scsi.limits import MAX_TRANSFER_BYTES
from backstores.scsi.model import Response, Status
from backstores.scsi.opcodes import Definition
from backstores.scsi.persistent import Out
from backstores.scsi.sense import Condition, Sense, codes_of, encode
from backstores.scsi.target import Exposed
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.wire import Wire
from tests.support.engines import noise
from tests.support.scsi import WWN, Host
from tests.support.scsi_disk import BLOCK, DISK_WWN, MemoryDisk

FORMAT_UNIT = bytes((0x04, 0, 0, 0, 0, 0))
WRITE_BUFFER = bytes((0x3B, *bytes(9)))
ATA_PASS_THROUGH = bytes((0x85, *bytes(15)))
VENDOR_SPECIFIC = bytes((0xC1, *bytes(9)))


def plain_unit(blocks: int = 256) -> LogicalUnit:
    """Make a unit for an ALU that understands no CDBs."""
    return LogicalUnit(MemoryDevice(blocks, BLOCK), Identity(WWN), commands=PLAIN_COMMANDS)


def direct(disk: MemoryDisk) -> Host:
    """Log a host in to a volume that is a disk."""
    host = Host.at(disk.behind(WWN))
    disk.seen.clear()
    return host


# What a device understands


@pytest.mark.parametrize(
    ("cdb", "data", "answer_bytes"),
    [
        pytest.param(formats.TestUnitReady.build(), b"", 0, id="test-unit-ready"),
        pytest.param(t.Write10.build(lba=3, blocks=2, fua=1), noise(1024), 0, id="write"),
        pytest.param(t.Read16.build(lba=3, blocks=2), b"", 1024, id="read"),
        pytest.param(t.Read6.build(lba=3), b"", 256 * BLOCK, id="read-6-of-256-blocks"),
        pytest.param(t.SynchronizeCache10.build(), b"", 0, id="synchronize-cache"),
        pytest.param(t.WriteSame16.build(lba=0, blocks=8, unmap=1), bytes(BLOCK), 0, id="write-same"),
        pytest.param(t.CompareAndWrite.build(lba=0, blocks=1), bytes(2 * BLOCK), 0, id="compare-and-write"),
        pytest.param(t.Verify16.build(lba=0, blocks=4), b"", 0, id="verify"),
        pytest.param(formats.ReadCapacity10.build(), b"", 8, id="read-capacity-10"),
        pytest.param(formats.ReadCapacity16.build(allocation_bytes=255), b"", 32, id="read-capacity-16"),
        pytest.param(formats.ModeSense6.build(page=0x3F, allocation_bytes=192), b"", None, id="mode-sense"),
        pytest.param(formats.GetLbaStatus.build(allocation_bytes=24), b"", 24, id="get-lba-status"),
    ],
)
def test_a_cdb_goes_to_the_device_as_it_is(cdb: bytes, data: bytes, answer_bytes: int | None) -> None:
    """R5: not a bit of it is changed, and the answer is what the device gave."""
    disk = MemoryDisk()
    answer = direct(disk).good(cdb, data)
    assert disk.seen[-1] == cdb
    assert answer == Host.at(disk.unit, "b").good(cdb, data)
    assert answer_bytes in (None, len(answer))


def test_what_is_written_is_read_and_lies_on_the_device() -> None:
    disk = MemoryDisk()
    host = direct(disk)
    host.good(t.Write10.build(lba=7, blocks=4), noise(4 * BLOCK))
    assert host.good(t.Read10.build(lba=7, blocks=4)) == noise(4 * BLOCK)
    assert disk.device.content[7 * BLOCK : 11 * BLOCK] == noise(4 * BLOCK)
    assert not host.nexus.fast_read, "the hot path would go past the device"
    assert not host.nexus.fast_write


@pytest.mark.parametrize(
    "sense",
    [
        pytest.param(bytes.fromhex("70000300000007080000000011000000 0000"), id="fixed"),
        pytest.param(bytes.fromhex("7203110400000000"), id="descriptor"),
        pytest.param(bytes.fromhex("7100030000000a"), id="deferred-and-cut-short"),
        pytest.param(bytes.fromhex("f0000b000000000aabcdef01fe030000") + b"vendor", id="vendor-specific"),
    ],
)
def test_sense_data_come_back_as_they_are(sense: bytes) -> None:
    """R5: a medium error of the device is the host's to see, with all that the device says of it."""
    disk = MemoryDisk()
    host = direct(disk)
    disk.answers[0x28] = Response(Status.CHECK_CONDITION, sense)
    response = host.send(t.Read10.build(blocks=1))
    assert (response.status, response.sense) == (Status.CHECK_CONDITION, sense)


@pytest.mark.parametrize("status", [Status.BUSY, Status.TASK_SET_FULL, Status.RESERVATION_CONFLICT], ids=str)
def test_a_status_comes_back_as_it_is(status: Status) -> None:
    disk = MemoryDisk()
    host = direct(disk)
    disk.answers[0x2A] = Response(status)
    assert host.status(t.Write10.build(blocks=1), bytes(BLOCK)) is status


@pytest.mark.parametrize(
    "cdb",
    [
        *(pytest.param(cdb, id=f"{cdb[0]:#04x}") for cdb in (FORMAT_UNIT, WRITE_BUFFER, ATA_PASS_THROUGH)),
        pytest.param(VENDOR_SPECIFIC, id="vendor-specific"),
        pytest.param(formats.ModeSelect10.build(), id="mode-select"),
        pytest.param(formats.StartStopUnit.build(), id="start-stop-unit"),
    ],
)
def test_what_would_harm_others_does_not_reach_the_device(cdb: bytes) -> None:
    """R5: neither what changes it for good nor what we don't know."""
    disk = MemoryDisk()
    assert direct(disk).refused(cdb) is Condition.INVALID_OPERATION_CODE
    assert disk.seen == []


def test_every_command_is_ours_passed_or_refused() -> None:
    """R5: a command that is added to the table must be thought about."""
    rows = {known.wire for known in TABLE.values()}
    passed = {known.wire for known in DEVICE_COMMANDS.table.values()} - OURS
    assert OURS | NOT_PASSED | passed == rows | {formats.LogSense}
    assert not OURS & NOT_PASSED
    assert {known.wire for known in PLAIN_COMMANDS.table.values()} == PLAIN | ANSWERED_BY_ALL


def test_the_device_has_its_own_product_and_the_volumes_name() -> None:
    """R5, R6: hosts must not take the volume for another path to the device."""
    disk = MemoryDisk()
    host, own = Host.at(disk.behind(WWN)), Host.at(disk.unit, "b")
    assert host.good(formats.Inquiry.build(allocation_bytes=96))[8:36] == b"ACME    BIG DISK        7   "
    serial, name = (
        host.good(formats.Inquiry.build(vital_product_data=1, page=page, allocation_bytes=255)) for page in (0x80, 0x83)
    )
    assert bytes.fromhex(WWN) in name
    assert bytes.fromhex(DISK_WWN) not in name
    assert serial != own.good(formats.Inquiry.build(vital_product_data=1, page=0x80, allocation_bytes=255))
    limits = formats.Inquiry.build(vital_product_data=1, page=0xB0, allocation_bytes=64)
    assert host.good(limits) == own.good(limits)


def page_list(host: Host) -> list[int]:
    return list(host.good(formats.Inquiry.build(vital_product_data=1, allocation_bytes=255))[PageHeader.SIZE :])


def test_the_list_of_pages_is_the_devices_and_the_volumes() -> None:
    """SPC-4 clause 7.8.15: in ascending order, and complete though the device has no such pages."""
    disk = MemoryDisk()
    host = direct(disk)
    assert page_list(host) == [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2]
    for answer in (
        Response(Status.CHECK_CONDITION, encode(Sense(Condition.INVALID_FIELD_IN_CDB))),
        Response(data_in=PageHeader.build(code=0, length=1) + b"\0"),
        Response(data_in=b"\0"),
        Response(data_in=PageHeader.build(code=0, length=1) + b"\0\xc0padding"),
    ):
        disk.answers[0x12] = answer
        assert page_list(host) == [0x00, 0x80, 0x83]
    cut = host.good(formats.Inquiry.build(vital_product_data=1, allocation_bytes=6))
    assert cut == PageHeader.build(code=0, length=6) + b"\0\x80"


# Several hosts


def test_reservations_hold_between_hosts_and_do_not_reach_the_device() -> None:
    """R5: the device sees one initiator, and could not tell them apart."""
    disk = MemoryDisk()
    unit = disk.behind(WWN)
    one, other = Host.at(unit, "one"), Host.at(unit, "other")
    register = formats.PersistentReserveOut.build(service_action=Out.REGISTER, parameter_bytes=24)
    reserve = formats.PersistentReserveOut.build(service_action=Out.RESERVE, reservation_type=1, parameter_bytes=24)
    one.good(register, bytes(8) + b"key 1   " + bytes(8))
    one.good(reserve, b"key 1   " + bytes(16))
    disk.seen.clear()
    assert other.status(t.Write10.build(blocks=1), bytes(BLOCK)) is Status.RESERVATION_CONFLICT
    assert disk.seen == []
    one.good(t.Write10.build(blocks=1), bytes(BLOCK))
    assert other.good(t.Read10.build(blocks=1)) == bytes(BLOCK)


def test_what_the_device_has_to_say_to_all_is_said_to_all() -> None:
    """SAM-5 clause 5.14: the device tells it to one initiator, us."""
    disk = MemoryDisk()
    unit = disk.behind(WWN)
    one, other = Host.at(unit, "one"), Host.at(unit, "other")
    disk.answers[0x00] = Response(Status.CHECK_CONDITION, encode(Sense(Condition.CAPACITY_CHANGED)))
    assert one.refused(formats.TestUnitReady.build()) is Condition.CAPACITY_CHANGED
    assert other.hear() == [Condition.CAPACITY_CHANGED]
    assert one.hear() == []


def test_a_host_that_may_only_read_does_not_write_to_the_device() -> None:
    disk = MemoryDisk()
    host = Host.at({0: Exposed(disk.behind(WWN), read_only=True)})
    disk.seen.clear()
    assert host.refused(t.Write10.build(blocks=1), bytes(BLOCK)) is Condition.WRITE_PROTECTED
    assert disk.seen == []


def test_a_list_of_commands_names_what_is_let_through() -> None:
    """SPC-4 clause 6.35."""
    host = direct(MemoryDisk())
    listed = host.good(formats.ReportSupportedOpcodes.build(allocation_bytes=4096))[4:]
    opcodes = {listed[at] for at in range(0, len(listed), 8)}
    assert {0x28, 0x2A, 0x4D, 0x5F} <= opcodes
    assert not {0x04, 0x15, 0x1B, 0x55} & opcodes


# Lengths


@pytest.mark.parametrize("blocks", [8, 9, 16, 65], ids=str)
def test_a_read_or_write_that_is_too_long_for_one_request_goes_in_parts(blocks: int) -> None:
    """R5: in order, and together what the host asked for."""
    disk = MemoryDisk(most_bytes=8 * BLOCK)
    host = direct(disk)
    host.good(t.Write16.build(lba=5, blocks=blocks, fua=1), noise(blocks * BLOCK))
    parts = [t.Write16.parse(cdb) for cdb in disk.seen if cdb[0] == 0x8A]
    assert [part.blocks for part in parts] == [8] * (blocks // 8) + [blocks % 8] * bool(blocks % 8)
    assert all(part.fua for part in parts)
    assert host.good(t.Read10.build(lba=5, blocks=blocks)) == noise(blocks * BLOCK)
    assert disk.device.content[5 * BLOCK :][: blocks * BLOCK] == noise(blocks * BLOCK)


def test_a_part_that_fails_ends_the_command() -> None:
    disk = MemoryDisk(blocks=20, most_bytes=8 * BLOCK)
    host = direct(disk)
    assert host.refused(t.Read10.build(lba=0, blocks=32)) is Condition.LBA_OUT_OF_RANGE
    assert [t.Read10.parse(cdb).lba for cdb in disk.seen if cdb[0] == 0x28] == [0, 8, 16]


def test_a_part_that_comes_back_short_ends_the_data() -> None:
    """SAM-5 clause 5.4.2: what is missing is the residual, at the end."""
    disk = MemoryDisk(most_bytes=8 * BLOCK)
    host = direct(disk)
    disk.answers[0x28] = Response(data_in=b"x" * 3 * BLOCK)
    assert host.good(t.Read10.build(blocks=16)) == b"x" * 3 * BLOCK


@pytest.mark.parametrize("blocks", [MAX_TRANSFER_BYTES // BLOCK + 1, (1 << 32) - 1], ids=str)
def test_a_read_takes_no_more_memory_than_one_of_any_volume(blocks: int) -> None:
    """S3: however large the disk is."""
    disk = MemoryDisk(blocks=MAX_TRANSFER_BYTES // BLOCK + 8)
    assert direct(disk).refused(t.Read16.build(blocks=blocks)) is Condition.INVALID_FIELD_IN_CDB
    assert disk.seen == []


@pytest.mark.parametrize(
    ("cdb", "data"),
    [
        pytest.param(t.WriteVerify10.build(blocks=9), bytes(9 * BLOCK), id="data-out"),
        pytest.param(formats.ReadCapacity16.build(allocation_bytes=1 << 20), b"", id="allocation"),
        pytest.param(t.Write10.build(blocks=2), bytes(BLOCK), id="less-data-than-the-cdb-says"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_device_sees_it(cdb: bytes, data: bytes) -> None:
    """S3: lengths from the wire are checked before they are used."""
    disk = MemoryDisk(most_bytes=8 * BLOCK)
    assert direct(disk).refused(cdb, data) is Condition.INVALID_FIELD_IN_CDB
    assert disk.seen == []


# What a file understands


REFUSED = sorted(
    (known for known in TABLE.values() if known.wire not in PLAIN | ANSWERED_BY_ALL), key=lambda row: row.wire.__name__
)


@pytest.mark.parametrize("known", REFUSED, ids=lambda known: f"{known.wire.__name__}-{known.action}")
def test_a_file_understands_nothing_else(known: Definition[Wire]) -> None:
    """R5: 5/20/00, or 5/24/00 where the operation code has another action that is there (SPC-4 clause 4.2.5)."""
    action = {} if known.action is None else {"service_action": known.action}
    response = Host.at(plain_unit()).send(known.wire.build(**action), announced=0)
    there = {opcode for opcode, _ in PLAIN_COMMANDS.table}
    assert codes_of(response.sense) == (5, 0x24 if known.opcode in there else 0x20, 0)


def test_a_file_is_read_written_and_flushed() -> None:
    """R5."""
    unit = plain_unit()
    host = Host.at(unit)
    host.good(t.Write16.build(lba=9, blocks=3), noise(3 * BLOCK))
    host.good(t.SynchronizeCache10.build())
    assert host.good(t.Read6.build(lba=9, blocks=3)) == noise(3 * BLOCK)
    host.good(formats.TestUnitReady.build())
    host.good(formats.ModeSense6.build(page=0x08, allocation_bytes=64))
    assert isinstance(unit.device, MemoryDevice)
    assert unit.device.flushes == 1


def test_a_file_says_of_itself_no_more_than_it_can() -> None:
    """SBC-3 clause 6.6: no host tries to give space back, or to compare and write."""
    host = Host.at(plain_unit())
    assert page_list(host) == [0x00, 0x80, 0x83, 0xB0, 0xB1]
    page = formats.Inquiry.build(vital_product_data=1, page=0xB2, allocation_bytes=64)
    assert host.refused(page) is Condition.INVALID_FIELD_IN_CDB
    data = host.good(formats.Inquiry.build(vital_product_data=1, page=0xB0, allocation_bytes=64))
    limits = BlockLimits.parse(data, PageHeader.SIZE)
    assert (limits.unmap_blocks, limits.unmap_descriptors, limits.compare_blocks, limits.write_same_blocks) == (0,) * 4
    assert host.good(formats.ReadCapacity16.build(allocation_bytes=32))[14] == 0
    assert host.nexus.fast_read, "its blocks are served by the hot path"
