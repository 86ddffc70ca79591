"""UNMAP, WRITE SAME and GET LBA STATUS."""

from __future__ import annotations

import pytest

from backstores.block import Request, Run
from backstores.device import MemoryDevice
from backstores.scsi import transfers as t
from backstores.scsi.cdb import GetLbaStatus, Unmap
from backstores.scsi.provisioning import LbaStatusDescriptor, LbaStatusHeader, UnmapDescriptor, UnmapHeader
from backstores.scsi.sense import Condition
from backstores.scsi.unit import Identity, LogicalUnit
from tests.support.scsi import BLOCK, WWN, Host

ONES = b"\xff" * BLOCK


@pytest.fixture
def device() -> MemoryDevice:
    """A device full of ones."""
    device = MemoryDevice(256)
    device.content[:] = ONES * 256
    device.mapped[:] = b"\1" * 256
    return device


@pytest.fixture
def host(device: MemoryDevice) -> Host:
    """A host at a unit over it."""
    return Host.at(LogicalUnit(device, Identity(WWN)))


def unmap_list(*ranges: tuple[int, int]) -> bytes:
    """Make the parameter list of UNMAP."""
    body = b"".join(UnmapDescriptor.build(lba=lba, blocks=blocks) for lba, blocks in ranges)
    return UnmapHeader.build(data_length=6 + len(body), descriptors_length=len(body)) + body


def unmap(*ranges: tuple[int, int]) -> tuple[bytes, bytes]:
    """Make the CDB and the parameter list of UNMAP."""
    data = unmap_list(*ranges)
    return Unmap.build(parameter_bytes=len(data)), data


def zeros(device: MemoryDevice) -> list[int]:
    """Give the blocks that are zero."""
    return [lba for lba in range(256) if not any(device.content[lba * BLOCK : (lba + 1) * BLOCK])]


def mapped(device: MemoryDevice) -> list[int]:
    """Give the blocks that have no storage."""
    return [lba for lba in range(256) if not device.mapped[lba]]


def test_unmap_gives_blocks_back(host: Host, device: MemoryDevice) -> None:
    """SBC-3 LBPRZ: they read as zeros."""
    host.good(*unmap((8, 2), (100, 0), (200, 1)))
    assert zeros(device) == mapped(device) == [8, 9, 200]


def test_neighbours_are_unmapped_as_one(host: Host, device: MemoryDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range smaller than a page of the disk's file gives nothing back: together they may."""
    asked: list[tuple[int, int]] = []
    submit = device.submit

    async def recorded(request: Request) -> list[Run]:
        asked.append((request.lba, request.blocks))
        return await submit(request)

    monkeypatch.setattr(device, "submit", recorded)
    host.good(*unmap((8, 2), (10, 1), (11, 5), (0, 8), (20, 1)))
    assert asked == [(8, 8), (0, 8), (20, 1)]
    assert zeros(device) == [*range(16), 20]


def test_unmap_checks_all_ranges_first(host: Host, device: MemoryDevice) -> None:
    assert host.refused(*unmap((8, 2), (255, 2))) is Condition.LBA_OUT_OF_RANGE
    assert zeros(device) == []


@pytest.mark.parametrize("length", [1, 7])
def test_an_unmap_list_without_header(host: Host, length: int) -> None:
    cdb = Unmap.build(parameter_bytes=length)
    assert host.refused(cdb, bytes(length)) is Condition.PARAMETER_LIST_LENGTH_ERROR


@pytest.mark.parametrize("data", [b"", unmap_list()], ids=["no list", "no descriptors"])
def test_nothing_to_unmap(host: Host, device: MemoryDevice, data: bytes) -> None:
    host.good(Unmap.build(parameter_bytes=len(data)), data)
    assert zeros(device) == []


def test_half_a_descriptor_is_not_looked_at(host: Host, device: MemoryDevice) -> None:
    """SBC-3 clause 5.28.2."""
    data = unmap_list((8, 1), (9, 1))[:-8]
    host.good(Unmap.build(parameter_bytes=len(data)), data)
    assert zeros(device) == [8]


def test_a_length_field_beyond_the_data(host: Host, device: MemoryDevice) -> None:
    """S3: a length from the wire is no promise."""
    data = UnmapHeader.build(data_length=0xFFFF, descriptors_length=0xFFF0) + UnmapDescriptor.build(lba=8, blocks=1)
    host.good(Unmap.build(parameter_bytes=len(data)), data)
    assert zeros(device) == [8]


def test_more_descriptors_than_told(host: Host) -> None:
    assert host.refused(*unmap(*[(0, 1)] * 257)) is Condition.INVALID_FIELD_IN_PARAMETERS


def test_more_blocks_than_told() -> None:
    device = MemoryDevice(8, 512)
    device.blocks = 1 << 40  # refused before anything is touched
    found = Host.at(LogicalUnit(device, Identity(WWN))).refused(*unmap((0, 1 << 19), (0, 1 << 19), (0, 1)))
    assert found is Condition.INVALID_FIELD_IN_PARAMETERS


@pytest.mark.parametrize("cdb", [Unmap, t.WriteSame10, t.WriteSame16])
def test_no_anchors(host: Host, cdb: type[Unmap | t.WriteSame10 | t.WriteSame16]) -> None:
    raw = bytearray(cdb.build())
    raw[1] |= cdb.anchor.mask << cdb.anchor.shift
    assert host.refused(bytes(raw), ONES) is Condition.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("cdb", [t.WriteSame10, t.WriteSame16])
class TestWriteSame:
    """WRITE SAME (10) and (16)."""

    def test_repeats_a_block(self, host: Host, device: MemoryDevice, cdb: type[t.WriteSame10]) -> None:
        host.good(cdb.build(lba=3, blocks=200), b"ab" * (BLOCK // 2))
        assert device.content[3 * BLOCK : 203 * BLOCK] == b"ab" * (100 * BLOCK)
        assert device.content[: 3 * BLOCK] == ONES * 3

    def test_zeros_stay_mapped(self, host: Host, device: MemoryDevice, cdb: type[t.WriteSame10]) -> None:
        host.good(cdb.build(lba=3, blocks=2), bytes(BLOCK))
        assert (zeros(device), mapped(device)) == ([3, 4], [])

    def test_zeros_are_given_back_if_asked(self, host: Host, device: MemoryDevice, cdb: type[t.WriteSame10]) -> None:
        host.good(cdb.build(lba=3, blocks=2, unmap=1), bytes(BLOCK))
        assert zeros(device) == mapped(device) == [3, 4]

    def test_data_is_written_though_unmap_is_asked(
        self, host: Host, device: MemoryDevice, cdb: type[t.WriteSame10]
    ) -> None:
        """SBC-3 clause 5.42: only a block that reads as an unmapped one may be unmapped."""
        host.good(cdb.build(lba=3, blocks=2, unmap=1), b"x" * BLOCK)
        assert device.content[3 * BLOCK : 5 * BLOCK] == b"x" * 2 * BLOCK

    def test_no_length_is_refused(self, host: Host, cdb: type[t.WriteSame10]) -> None:
        """WSNZ: zero does not mean "to the end" here."""
        assert host.refused(cdb.build(lba=0, blocks=0), ONES) is Condition.INVALID_FIELD_IN_CDB

    @pytest.mark.parametrize("length", [0, BLOCK // 2, BLOCK * 2])
    def test_takes_just_one_block(self, host: Host, cdb: type[t.WriteSame10], length: int) -> None:
        found = host.refused(cdb.build(lba=0, blocks=1), bytes(length))
        assert found is Condition.INVALID_FIELD_IN_CDB


def test_write_same_without_data(host: Host, device: MemoryDevice) -> None:
    """NDOB stands for a block of zeros."""
    host.good(t.WriteSame16.build(lba=3, blocks=2, no_data=1))
    host.good(t.WriteSame16.build(lba=7, blocks=1, no_data=1, unmap=1))
    assert (zeros(device), mapped(device)) == ([3, 4, 7], [7])


def test_write_same_beyond_its_limit() -> None:
    device = MemoryDevice(8, 512)
    device.blocks = 1 << 40
    cdb = t.WriteSame16.build(lba=0, blocks=(1 << 19) + 1, no_data=1)
    assert Host.at(LogicalUnit(device, Identity(WWN))).refused(cdb) is Condition.INVALID_FIELD_IN_CDB


def status(host: Host, lba: int, allocation: int = 1024) -> list[tuple[int, int, int]]:
    """Read the runs from a block on: address, length and provisioning status."""
    data = host.good(GetLbaStatus.build(lba=lba, allocation_bytes=allocation))
    assert LbaStatusHeader.parse(data).length == len(data) - 4
    found = [LbaStatusDescriptor.parse(data, at) for at in range(8, len(data), 16)]
    return [(descriptor.lba, descriptor.blocks, descriptor.deallocated) for descriptor in found]


def test_status_tells_runs(host: Host) -> None:
    host.good(*unmap((8, 2)))
    assert status(host, 0) == [(0, 8, 0), (8, 2, 1), (10, 246, 0)]
    assert status(host, 9) == [(9, 1, 1), (10, 246, 0)]


def test_status_of_one_run(host: Host) -> None:
    host.good(*unmap((8, 2)))
    assert status(host, 0, allocation=24) == [(0, 8, 0)]


def test_status_past_the_end(host: Host) -> None:
    assert host.refused(GetLbaStatus.build(lba=256, allocation_bytes=24)) is Condition.LBA_OUT_OF_RANGE
