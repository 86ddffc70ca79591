"""All that lies on an ALU is told, with whether it counts (R1-R4)."""

from __future__ import annotations

import msgspec
import pytest

from backstores.metadata import dump
from backstores.metadata.dump import Standing, Structure
from backstores.metadata.inspection import inspect
from backstores.metadata.layout import FRONT_LABELS, GS_POINTER_ADDRESSES, MDR_ADDRESSES, SMALL, label_addresses
from backstores.objects import Leg, LegState, MirrorObject
from tests.support import format_1
from tests.support.metadata import SIZE, SUSID, answered, flipped
from tests.support.recording import SECTOR, Image, put, read
from tests.support.small_alu import FIRST, SECOND, small_alu

BITMAP = 9 << 20
CHANGES = (SMALL.regions[1] + 8192, SMALL.regions[1] + 16384)


def told(image: Image, unreadable: tuple[int, ...] = ()) -> dict[int, Structure]:
    found = answered(inspect(SUSID, SIZE), image, unreadable)
    return {one.address: one for one in answered(dump.describe(found, SIZE), image, unreadable)}


def test_every_structure_is_told() -> None:
    """R1, R2, R3, R4: labels, directories, GS boot region, object regions with their log, tables, bitmaps."""
    found = [(one.name, one.standing.value) for one in told(small_alu()).values()]
    assert found == [
        ("label A", "live"),
        ("label B", "live"),
        ("MDR directory A", "live"),
        ("MDR directory B", "live"),
        ("GS pointer A", "older"),
        ("GS pointer B", "live"),
        ("GS active list", "older"),
        ("GS active list", "live"),
        ("GS reserved region", "live"),
        ("object region A", "older"),
        ("object region B", "live"),
        ("object region B, change", "live"),
        ("object region B, change", "live"),
        ("partition table A, sector 0", "live"),
        ("partition table B, sector 0", "live"),
        ("bitmap of 60254470000000000000000000000004, sector 0", "live"),
        ("bitmap of 60254470000000000000000000000005, sector 0", "live"),
        ("partition table C, sector 0", "live"),
        ("partition table D, sector 0", "live"),
        ("label C", "live"),
        ("label D", "live"),
    ]


@pytest.mark.parametrize("address", [*label_addresses(SIZE), *MDR_ADDRESSES, *GS_POINTER_ADDRESSES, *SMALL.regions])
def test_a_damaged_sector_is_told_as_such(address: int) -> None:
    one = told(flipped(small_alu(), address + 100))[address]
    assert one.standing is Standing.DAMAGED
    assert "checksum" in one.detail
    assert one.fields["address"] == address


@pytest.mark.parametrize("address", [*label_addresses(SIZE), *MDR_ADDRESSES, *SMALL.regions])
def test_an_unreadable_sector_is_told_with_the_error(address: int) -> None:
    one = told(small_alu(), (address,))[address]
    assert (one.standing, one.detail) == (Standing.DAMAGED, "unreadable: input/output error")


@pytest.mark.parametrize("offset", [0, 4096], ids=["header", "body"])
def test_a_log_is_told_up_to_what_is_damaged(offset: int) -> None:
    first, second = CHANGES
    found = told(flipped(small_alu(), first + offset + 30))
    assert found[first].standing is Standing.DAMAGED
    assert second not in found


def test_of_a_copy_that_has_lost_a_sector_this_is_told() -> None:
    image = small_alu()
    table = next(one for one in told(image).values() if one.name.startswith("partition table B"))
    put(image, table.address, bytes(SECTOR))
    assert told(image)[table.address].standing is Standing.DAMAGED


def test_a_bitmap_is_told_by_what_its_mirror_makes_of_it() -> None:
    """D2: a damaged one counts as dirty; one that no mirror has, or whose leg has failed, does not count."""
    damaged = told(flipped(small_alu(), BITMAP + 200))[BITMAP]
    assert damaged.standing is Standing.DAMAGED
    assert damaged.content is not None
    assert told(small_alu(FIRST))[BITMAP].standing is Standing.EMPTY
    mirror = SECOND[1]
    assert isinstance(mirror, MirrorObject)
    failed = msgspec.structs.replace(mirror, legs=(Leg(mirror.legs[0].child, LegState.FAILED), mirror.legs[1]))
    assert told(small_alu((SECOND[0], failed, *SECOND[2:])))[BITMAP].standing is Standing.OLDER


def test_bodies_are_told_in_plain_values() -> None:
    body = told(small_alu())[CHANGES[0]].content
    assert isinstance(body, dict)
    assert [item["type"] for item in body["put"]] == ["volume", "partition"]


def test_version_1_is_told_as_what_it_is() -> None:
    """An older version is honoured: its label has other fields, and there is no MDR directory."""
    image = format_1.fixture().image
    found = told(image)
    bitmap = format_1.LEG.bitmap
    assert bitmap is not None
    assert list(found) == [*FRONT_LABELS, *SMALL.regions, bitmap.start_bytes]
    assert found[bitmap.start_bytes].content == {"dirty": 2, "which": "0, 3071"}
    assert found[FRONT_LABELS[0]].fields["susid"] == SUSID
    assert found[SMALL.regions[1]].standing is Standing.LIVE


def test_nothing_is_made_of_a_blank_alu() -> None:
    assert {one.standing for one in told({}).values()} == {Standing.EMPTY}


def test_fields_are_those_of_the_declaration() -> None:
    image = small_alu()
    kind = dump.LabelSector
    fields = dump.fields_of(kind(read(image, FRONT_LABELS[0], SECTOR)))
    assert fields.keys() == kind.FIELDS.keys()
