"""READ and WRITE on the spot: done only where nothing but the range has to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

import pytest

from backstores.device import MemoryDevice
from backstores.scsi import lun
from backstores.tcmu.hotpath import bind
from tests.support.scsi import BLOCK, Host, memory_unit

LUN = lun.encode(0)
LBA = 7
PATTERN = bytes(range(256)) * 8  # four blocks

READS = {
    "read-10": pack(">BBIBHB", 0x28, 0, LBA, 0, 4, 0),
    "read-16": pack(">BBQIBB", 0x88, 0, LBA, 4, 0, 0),
    "grouped": pack(">BBIBHB", 0x28, 0, LBA, 3, 4, 0),
}
WRITES = {
    "write-10": pack(">BBIBHB", 0x2A, 0, LBA, 0, 4, 0),
    "write-16": pack(">BBQIBB", 0x8A, 0, LBA, 4, 0, 0),
}
SPLITS = {"one-span": [2048], "two-spans": [512, 1536], "four-spans": [512, 512, 512, 512]}
OTHERS = {
    "read-6": bytes([0x08, 0, 0, LBA, 4, 0]),
    "inquiry": bytes([0x12, 0, 0, 0, 255, 0]),
    "fua": pack(">BBIBHB", 0x28, 8, LBA, 0, 4, 0),
    "naca": pack(">BBIBHB", 0x28, 0, LBA, 0, 4, 4),
    "no-blocks": pack(">BBIBHB", 0x28, 0, LBA, 0, 0, 0),
    "past-the-end": pack(">BBIBHB", 0x28, 0, 253, 0, 4, 0),
    "lba-overflow": pack(">BBQIBB", 0x88, 0, (1 << 64) - 2, 4, 0, 0),
    "fewer-blocks-than-spans": pack(">BBIBHB", 0x28, 0, LBA, 0, 3, 0),
    "more-blocks-than-spans": pack(">BBIBHB", 0x28, 0, LBA, 0, 5, 0),
}


class Area:
    """A CDB at a place of some memory, and spans behind it."""

    def __init__(self, cdb: bytes, lengths: Sequence[int], data: bytes = b"") -> None:
        self.memory = bytearray(64 + sum(lengths))
        self.memory[8 : 8 + len(cdb)] = cdb
        self.memory[64 : 64 + len(data)] = data
        view, self.spans, at = memoryview(self.memory), [], 64
        for length in lengths:
            self.spans.append(view[at : at + length])
            at += length

    def try_at(self, host: Host) -> bool:
        """Try it with a host's licence."""
        return bind(memoryview(self.memory), host.nexus, LUN)(self.memory[8], 8, self.spans)

    @property
    def data(self) -> bytes:
        return b"".join(self.spans)


def device_of(host: Host) -> MemoryDevice:
    device = host.nexus.fast_read[LUN]
    assert isinstance(device, MemoryDevice)
    return device


@pytest.mark.parametrize("lengths", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("cdb", READS.values(), ids=READS)
def test_a_plain_read_fills_its_spans(cdb: bytes, lengths: list[int]) -> None:
    host = Host.at(memory_unit())
    device_of(host).content[LBA * BLOCK : LBA * BLOCK + 2048] = PATTERN
    area = Area(cdb, lengths)
    assert area.try_at(host)
    assert area.data == PATTERN


@pytest.mark.parametrize("lengths", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("cdb", WRITES.values(), ids=WRITES)
def test_a_plain_write_empties_its_spans(cdb: bytes, lengths: list[int]) -> None:
    host = Host.at(memory_unit())
    assert Area(cdb, lengths, PATTERN).try_at(host)
    device = device_of(host)
    assert device.content[LBA * BLOCK : LBA * BLOCK + 2048] == PATTERN
    assert not any(device.content[: LBA * BLOCK])
    assert not any(device.content[LBA * BLOCK + 2048 :])


@pytest.mark.parametrize("lengths", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("cdb", OTHERS.values(), ids=OTHERS)
def test_what_is_not_plain_goes_the_general_way(cdb: bytes, lengths: list[int]) -> None:
    assert not Area(cdb, lengths).try_at(Host.at(memory_unit()))


@pytest.mark.parametrize(
    "lengths",
    [[100, 1948], [700, 1348], [2048, 0], []],
    ids=["less-than-a-block", "more-than-a-block", "empty-span", "no-span"],
)
def test_spans_that_are_not_whole_blocks_go_the_general_way(lengths: list[int]) -> None:
    assert not Area(READS["read-10"], lengths).try_at(Host.at(memory_unit()))


@pytest.mark.parametrize("lengths", SPLITS.values(), ids=SPLITS)
def test_nothing_is_written_past_the_range(lengths: list[int]) -> None:
    """A host may send more than its command takes."""
    host = Host.at(memory_unit())
    assert not Area(pack(">BBIBHB", 0x2A, 0, LBA, 0, 3, 0), lengths, PATTERN).try_at(host)
    assert not any(device_of(host).content[(LBA + 3) * BLOCK :])


def test_a_read_of_nothing_goes_the_general_way() -> None:
    """There the range is checked, which counts even then (SBC-3 clause 5.7)."""
    assert not Area(OTHERS["no-blocks"], []).try_at(Host.at(memory_unit()))


def test_a_unit_attention_takes_the_licence_away() -> None:
    """The same licence as the portal's."""
    unit = memory_unit()
    host = Host.at(unit)
    unit.resized()
    assert not Area(READS["read-10"], [2048]).try_at(host)
    host.hear()
    assert Area(READS["read-10"], [2048]).try_at(host)


def test_a_read_only_exposure_is_read_and_not_written() -> None:
    host = Host.at(memory_unit(), read_only=True)
    assert Area(READS["read-10"], [2048]).try_at(host)
    assert not Area(WRITES["write-10"], [2048]).try_at(host)


def test_a_device_that_would_wait_goes_the_general_way() -> None:
    host = Host.at(memory_unit())
    device_of(host).immediate = False
    assert not Area(READS["read-10"], [2048]).try_at(host)
