"""READ, WRITE, VERIFY and their like, against a device in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backstores.block import Op, Request, Run
from backstores.device import MemoryDevice
from backstores.scsi import transfers as t
from backstores.scsi.cdb import ModeSelect6
from backstores.scsi.mode_commands import Header6
from backstores.scsi.model import Status
from backstores.scsi.modes import CachingPage
from backstores.scsi.sense import Condition, FixedSense
from backstores.scsi.unit import Identity, LogicalUnit
from backstores.wire import Wire
from tests.support.scsi import BLOCK, WWN, Host, condition, memory_unit

READS = [t.Read6, t.Read10, t.Read12, t.Read16]
WRITES = [t.Write6, t.Write10, t.Write12, t.Write16, t.WriteVerify10, t.WriteVerify12, t.WriteVerify16]
VERIFIES = [t.Verify10, t.Verify12, t.Verify16]
NO_DATA = [t.SynchronizeCache10, t.SynchronizeCache16, t.Prefetch10, t.Prefetch16, *VERIFIES]


class WatchedDevice(MemoryDevice):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(256, BLOCK)
        self.requests: list[Request] = []

    async def submit(self, request: Request) -> list[Run]:
        self.requests.append(request)
        return await super().submit(request)


def pattern(blocks: int, seed: int = 1) -> bytes:
    """Make blocks that all differ."""
    return b"".join((seed * 1000 + block).to_bytes(4) * (BLOCK // 4) for block in range(blocks))


@pytest.fixture
def device() -> WatchedDevice:
    """A device that remembers."""
    return WatchedDevice()


@pytest.fixture
def host(device: WatchedDevice) -> Host:
    """A host at a unit over it."""
    return Host.at(LogicalUnit(device, Identity(WWN)))


def content(host: Host, lba: int, blocks: int) -> bytes:
    """Read by the plainest command."""
    return host.good(t.Read16.build(lba=lba, blocks=blocks))


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("read", READS)
def test_what_is_written_is_read(host: Host, write: type[Wire], read: type[Wire]) -> None:
    host.good(write.build(lba=3, blocks=5), pattern(5))
    assert host.good(read.build(lba=3, blocks=5)) == pattern(5)
    assert content(host, 2, 1) == content(host, 8, 1) == bytes(BLOCK)


def test_six_byte_commands_take_zero_for_256(host: Host) -> None:
    host.good(t.Write6.build(lba=0, blocks=0), pattern(256))
    assert host.good(t.Read6.build(lba=0, blocks=0)) == pattern(256)


@pytest.mark.parametrize("cdb", [*READS[1:], *WRITES[1:], *NO_DATA])
def test_zero_blocks_are_good_and_do_nothing(host: Host, device: WatchedDevice, cdb: type[Wire]) -> None:
    """SBC-3: a transfer length of zero is no error."""
    assert host.good(cdb.build(lba=256, blocks=0)) == b""
    assert [request.op for request in device.requests if request.op is not Op.FLUSH] == []


@pytest.mark.parametrize("cdb", [*READS, *WRITES, *NO_DATA, t.Orwrite, t.CompareAndWrite, t.WriteSame10, t.WriteSame16])
@pytest.mark.parametrize(("lba", "blocks"), [(255, 2), (257, 1), (1 << 20, 1)], ids=["across", "behind", "far behind"])
def test_past_the_end(host: Host, device: WatchedDevice, cdb: type[Wire], lba: int, blocks: int) -> None:
    assert host.refused(cdb.build(lba=lba, blocks=blocks), pattern(4)[: BLOCK * blocks]) in (
        Condition.LBA_OUT_OF_RANGE,
        Condition.INVALID_FIELD_IN_CDB,  # WRITE SAME looks at its data first
    )
    assert device.requests == []


@pytest.mark.parametrize("cdb", [t.Read12, t.Write12, t.WriteVerify12])
def test_longer_than_the_maximum(cdb: type[Wire]) -> None:
    """SBC-3 clause 6.6.4: MAXIMUM TRANSFER LENGTH."""
    host = Host.at(LogicalUnit(MemoryDevice(1 << 15), Identity(WWN)))
    assert host.refused(cdb.build(lba=0, blocks=16385)) is Condition.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("cdb", [*READS[1:], *WRITES[1:], *VERIFIES, t.Orwrite, t.CompareAndWrite])
def test_no_protection_information(host: Host, cdb: type[Wire]) -> None:
    """RDPROTECT and its like must be zero where the unit has no protection information."""
    raw = bytearray(cdb.build(lba=0, blocks=1))
    raw[1] |= 0x20
    response = host.send(bytes(raw), pattern(2))
    assert condition(response) is Condition.INVALID_FIELD_IN_CDB
    sense = FixedSense.parse(response.sense)
    assert (sense.in_cdb, sense.pointer, sense.bit) == (1, 1, 7)


@pytest.mark.parametrize("cdb", [t.Read10, t.Write10, t.Orwrite, t.CompareAndWrite])
def test_fua_reaches_the_device(host: Host, device: WatchedDevice, cdb: type[Wire]) -> None:
    """D1: what FUA asks for, every leg below must do."""
    data = bytes(2 * BLOCK) if cdb is t.CompareAndWrite else pattern(1)
    host.good(cdb.build(lba=0, blocks=1, fua=1, dpo=1), data)
    assert device.requests[-1].fua
    host.good(cdb.build(lba=9, blocks=1), data)
    assert not device.requests[-1].fua


@pytest.mark.parametrize("cdb", [t.Write6, t.Write10, t.WriteSame16, t.Orwrite, t.CompareAndWrite])
def test_without_write_cache_all_writes_are_durable(host: Host, device: WatchedDevice, cdb: type[Wire]) -> None:
    """SBC-3 clause 6.5.5: WCE of zero."""
    page = Header6.build() + CachingPage.build(write_cache=0)
    host.good(ModeSelect6.build(page_format=1, parameter_bytes=len(page)), page)
    host.good(cdb.build(lba=0, blocks=1), bytes(2 * BLOCK) if cdb is t.CompareAndWrite else pattern(1))
    assert device.requests[-1].fua


def test_write_and_verify_is_durable_before_it_reads(host: Host, device: WatchedDevice) -> None:
    host.good(t.WriteVerify10.build(lba=0, blocks=2, byte_check=1), pattern(2))
    assert [(request.op, request.fua) for request in device.requests] == [(Op.WRITE, True), (Op.READ, False)]


@pytest.mark.parametrize("immediate", [0, 1])
def test_synchronize_cache_flushes(host: Host, device: WatchedDevice, immediate: int) -> None:
    """D1: also with IMMED, so that a host never hears too much."""
    host.good(t.SynchronizeCache10.build(immediate=immediate))
    assert device.flushes == 1


def test_fewer_data_than_blocks_writes_what_came(host: Host) -> None:
    """RFC 7143 clause 11.4.5: the rest is a residual, which the transport reports."""
    host.good(t.Write10.build(lba=0, blocks=2), pattern(1))
    assert content(host, 0, 2) == pattern(1) + bytes(BLOCK)


def test_part_of_a_block_is_not_written(host: Host, device: WatchedDevice) -> None:
    assert host.refused(t.Write10.build(lba=0, blocks=1), b"abc") is Condition.INVALID_INFORMATION_UNIT
    assert device.requests == []


def test_more_data_than_blocks_is_left(host: Host) -> None:
    host.good(t.Write10.build(lba=0, blocks=1), pattern(2))
    assert content(host, 0, 2) == pattern(1) + bytes(BLOCK)


@pytest.mark.parametrize("verify", VERIFIES)
class TestVerify:
    """VERIFY with each value of BYTCHK."""

    def test_of_the_medium(self, host: Host, device: WatchedDevice, verify: type[Wire]) -> None:
        assert host.good(verify.build(lba=1, blocks=4)) == b""
        assert [(request.op, request.lba, request.blocks) for request in device.requests] == [(Op.READ, 1, 4)]

    def test_of_equal_data(self, host: Host, verify: type[Wire]) -> None:
        host.good(t.Write10.build(lba=1, blocks=4), pattern(4))
        host.good(verify.build(lba=1, blocks=4, byte_check=1), pattern(4))

    def test_of_other_data(self, host: Host, verify: type[Wire]) -> None:
        wrong = bytearray(pattern(4))
        host.good(t.Write10.build(lba=1, blocks=4), bytes(wrong))
        wrong[700] ^= 1
        response = host.send(verify.build(lba=1, blocks=4, byte_check=1), bytes(wrong))
        assert condition(response) is Condition.MISCOMPARE_DURING_VERIFY
        assert FixedSense.parse(response.sense).information == 700

    @pytest.mark.parametrize("offset", [0, 1, 2, BLOCK - 1, BLOCK, 3 * BLOCK + 7, 4 * BLOCK - 1])
    def test_the_first_byte_that_differs_is_told(self, host: Host, verify: type[Wire], offset: int) -> None:
        """SBC-3 clause 5.2: whatever else differs behind it."""
        wrong = bytearray(4 * BLOCK)
        wrong[offset:] = b"\1" * (4 * BLOCK - offset)
        response = host.send(verify.build(lba=1, blocks=4, byte_check=1), bytes(wrong))
        assert FixedSense.parse(response.sense).information == offset

    def test_of_one_block_over_all(self, host: Host, verify: type[Wire]) -> None:
        host.good(t.Write10.build(lba=0, blocks=2), pattern(1) * 2)
        host.good(verify.build(lba=0, blocks=2, byte_check=3), pattern(1))
        mismatch = host.refused(verify.build(lba=0, blocks=3, byte_check=3), pattern(1))
        assert mismatch is Condition.MISCOMPARE_DURING_VERIFY

    @pytest.mark.parametrize(("byte_check", "length"), [(1, BLOCK), (1, 3 * BLOCK), (3, 2 * BLOCK)])
    def test_of_another_length(self, host: Host, verify: type[Wire], byte_check: int, length: int) -> None:
        cdb = verify.build(lba=0, blocks=2, byte_check=byte_check)
        assert host.refused(cdb, bytes(length)) is Condition.INVALID_FIELD_IN_CDB

    def test_in_a_reserved_way(self, host: Host, verify: type[Wire]) -> None:
        assert host.refused(verify.build(lba=0, blocks=1, byte_check=2)) is Condition.INVALID_FIELD_IN_CDB


def test_verify_reads_a_large_range_in_chunks() -> None:
    device = WatchedDevice()
    device.content = bytearray(8192 * BLOCK)
    device.mapped, device.blocks = bytearray(8192), 8192
    host = Host.at(LogicalUnit(device, Identity(WWN)))
    host.good(t.Verify16.build(lba=1, blocks=8191))
    assert [request.blocks for request in device.requests] == [2048, 2048, 2048, 2047]
    host.good(t.Write16.build(lba=5000, blocks=1), b"x" * BLOCK)
    response = host.send(t.Verify16.build(lba=1, blocks=8191, byte_check=1), bytes(8191 * BLOCK))
    assert FixedSense.parse(response.sense).information == 4999 * BLOCK


class TestCompareAndWrite:
    """COMPARE AND WRITE."""

    def test_writes_where_the_data_matches(self, host: Host) -> None:
        host.good(t.Write10.build(lba=4, blocks=2), pattern(2))
        host.good(t.CompareAndWrite.build(lba=4, blocks=2), pattern(2) + pattern(2, seed=7))
        assert content(host, 4, 2) == pattern(2, seed=7)

    def test_leaves_what_differs_and_says_where(self, host: Host) -> None:
        """SBC-3 clause 5.2: the information field is the offset of the first byte that differs."""
        wanted = bytearray(BLOCK)
        wanted[99] = 1
        response = host.send(t.CompareAndWrite.build(lba=4, blocks=1), bytes(wanted) + pattern(1))
        assert condition(response) is Condition.MISCOMPARE_DURING_VERIFY
        assert FixedSense.parse(response.sense).information == 99
        assert content(host, 4, 1) == bytes(BLOCK)

    def test_of_no_blocks_is_good(self, host: Host, device: WatchedDevice) -> None:
        host.good(t.CompareAndWrite.build(lba=4, blocks=0))
        assert device.requests == []

    @pytest.mark.parametrize("length", [BLOCK, 2 * BLOCK - 1, 4 * BLOCK])
    def test_takes_just_two_halves(self, host: Host, length: int) -> None:
        cdb = t.CompareAndWrite.build(lba=0, blocks=1)
        assert host.refused(cdb, bytes(length)) is Condition.INVALID_FIELD_IN_CDB

    def test_takes_no_more_than_told(self, host: Host) -> None:
        cdb = t.CompareAndWrite.build(lba=0, blocks=129)
        assert host.refused(cdb, bytes(258 * BLOCK)) is Condition.INVALID_FIELD_IN_CDB

    def test_sees_that_more_was_announced(self, host: Host) -> None:
        cdb = t.CompareAndWrite.build(lba=0, blocks=1)
        found = host.refused(cdb, bytes(2 * BLOCK), announced=4 * BLOCK)
        assert found is Condition.INVALID_FIELD_IN_CDB


def test_orwrite_sets_bits(host: Host) -> None:
    host.good(t.Write10.build(lba=0, blocks=1), b"\x0f" * BLOCK)
    host.good(t.Orwrite.build(lba=0, blocks=2), b"\x33" * 2 * BLOCK)
    assert content(host, 0, 2) == b"\x3f" * BLOCK + b"\x33" * BLOCK


@pytest.mark.parametrize("cdb", [t.CompareAndWrite, t.Orwrite])
def test_read_and_write_are_one_piece(cdb: type[Wire]) -> None:
    """Both go through what ``hold`` yields, and hold just their range."""

    class Held(MemoryDevice):
        ranges: list[tuple[int, int]]

        def hold(self, lba: int, blocks: int) -> Any:
            self.ranges.append((lba, blocks))
            return super().hold(lba, blocks)

    device = Held(256)
    device.ranges = []
    data = bytes(2 * BLOCK * (2 if cdb is t.CompareAndWrite else 1))
    Host.at(LogicalUnit(device, Identity(WWN))).good(cdb.build(lba=6, blocks=2), data)
    assert device.ranges == [(6, 2)]


@pytest.mark.parametrize(
    "build",
    [
        lambda: t.Write10.build(lba=0, blocks=1),
        lambda: t.WriteSame16.build(lba=0, blocks=1),
        lambda: t.Orwrite.build(lba=0, blocks=1),
    ],
    ids=["write", "write same", "orwrite"],
)
def test_a_read_only_exposure(build: Callable[[], bytes]) -> None:
    unit = memory_unit()
    assert Host.at(unit, read_only=True).refused(build(), pattern(1)) is Condition.WRITE_PROTECTED
    assert Host.at(unit, "b").status(build(), pattern(1)) is Status.GOOD


def test_naca_is_refused(host: Host) -> None:
    """SAM-5 clause 5.2: the unit has no ACA (NORMACA is zero)."""
    assert host.refused(bytes.fromhex("00 00 00 00 00 04")) is Condition.INVALID_FIELD_IN_CDB
