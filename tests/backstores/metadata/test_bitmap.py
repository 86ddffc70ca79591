"""The dirty-region bitmap as it lies on a leg."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstores.errors import UsageError
from backstores.metadata.bitmap import (
    LEAST_REGION_BYTES,
    MOST_REGIONS,
    REGIONS_OF_A_SECTOR,
    Geometry,
    Place,
    Stamp,
    bitmap_bytes,
    decode,
    encode,
    merge,
    region_blocks_for,
)
from backstores.metadata.findings import Problem
from backstores.metadata.sector import SECTOR_BYTES
from backstores.objects import MIB, MirrorObject
from tests.support.metadata import ALU, OTHER_ALU, mirror, name, partition

STAMP = Stamp(4, 5)
PLACE = Place(ALU, name(7), 9 * MIB)
FULL = Geometry(name(6), MOST_REGIONS * 8192 - 1, 8192)
SMALL = Geometry(name(6), 8192 * 3, 8192)


def bits_of(dirty: set[int], geometry: Geometry) -> bytes:
    number = sum(1 << region for region in dirty)
    return number.to_bytes(-(-geometry.regions // 8), "little")


def raw_of(dirty: set[int], geometry: Geometry, place: Place = PLACE) -> bytes:
    (write,) = encode(bits_of(dirty, geometry), geometry, place, STAMP)
    assert write.offset == place.start_bytes
    assert len(write.data) == geometry.length_bytes
    return write.data


@given(st.sets(st.integers(0, MOST_REGIONS - 1), max_size=50))
def test_what_is_encoded_is_decoded(dirty: set[int]) -> None:
    loaded = decode(raw_of(dirty, FULL), FULL, PLACE)
    assert (loaded.dirty, loaded.stamp, loaded.findings) == (dirty, STAMP, ())


@pytest.mark.parametrize("block_bytes", [512, 4096])
@pytest.mark.parametrize(
    "size", [4096, 4 * MIB, 64 << 30, (64 << 30) + 4096, 1 << 45, (1 << 63) - 4096, 1 << 63], ids=str
)
def test_regions_of_a_new_mirror(size: int, block_bytes: int) -> None:
    """D2: few enough regions, none too small, up to 8 EiB."""
    blocks = size // block_bytes
    region_blocks = region_blocks_for(blocks, block_bytes)
    geometry = Geometry.of(mirror_of(blocks, region_blocks))
    assert region_blocks * block_bytes >= LEAST_REGION_BYTES
    assert geometry.regions <= MOST_REGIONS
    assert region_blocks * block_bytes == LEAST_REGION_BYTES or -(-blocks // (region_blocks // 2)) > MOST_REGIONS
    room = bitmap_bytes(blocks, block_bytes)
    assert room % MIB == 0
    assert geometry.length_bytes <= room
    last = geometry.regions - 1
    assert sum(geometry.extent(last)) == blocks
    assert geometry.span(blocks - 1, 1) == (last, last)


def mirror_of(blocks: int, region_blocks: int) -> MirrorObject:
    return msgspec.structs.replace(mirror(6, [7]), blocks=blocks, region_blocks=region_blocks)


@pytest.mark.parametrize(
    ("blocks", "region_blocks"),
    [(2048, 0), (2048, -8192), (2048, 3), (0, 8192), (-1, 8192), (MOST_REGIONS * 8192 + 1, 8192)],
    ids=["none", "negative", "no-power-of-two", "empty", "negative-size", "too-many"],
)
def test_a_forged_definition_is_refused(blocks: int, region_blocks: int) -> None:
    """S3: nothing is allocated by what a disk says before it is checked."""
    with pytest.raises(UsageError, match=str(region_blocks)):
        Geometry.of(mirror_of(blocks, region_blocks))


def test_span_of_a_request() -> None:
    assert SMALL.span(0, 1) == (0, 0)
    assert SMALL.span(8191, 2) == (0, 1)
    assert SMALL.span(0, 3 * 8192) == (0, 2)


@pytest.mark.parametrize("sector", range(FULL.sectors))
def test_an_unreadable_sector_counts_as_dirty(sector: int) -> None:
    """D2: the safe direction, and no farther than needed."""
    raw = bytearray(raw_of({0, MOST_REGIONS - 1}, FULL))
    raw[sector * SECTOR_BYTES + 200] ^= 1
    loaded = decode(bytes(raw), FULL, PLACE)
    first = sector * REGIONS_OF_A_SECTOR
    assert loaded.dirty == {0, MOST_REGIONS - 1} | set(range(first, min(first + REGIONS_OF_A_SECTOR, MOST_REGIONS)))
    assert [finding.problem for finding in loaded.findings] == [Problem.DAMAGED]


def test_every_flipped_byte_counts_as_dirty() -> None:
    good = raw_of(set(), SMALL)
    for at in range(SECTOR_BYTES):
        raw = bytearray(good)
        raw[at] ^= 0x80
        loaded = decode(bytes(raw), SMALL, PLACE)
        assert loaded.dirty == {0, 1, 2}, at
        assert loaded.findings, at


@pytest.mark.parametrize(
    ("geometry", "place"),
    [
        (replace(SMALL, mirror=name(99)), PLACE),
        (replace(SMALL, blocks=8192 * 2), PLACE),
        (replace(SMALL, blocks=8192 * 6, region_blocks=16384), PLACE),
        (SMALL, replace(PLACE, leg=name(99))),
        (SMALL, replace(PLACE, alu=OTHER_ALU)),
        (SMALL, replace(PLACE, start_bytes=8 * MIB)),
    ],
    ids=["mirror", "size", "region-size", "leg", "alu", "address"],
)
def test_a_bitmap_of_something_else_counts_as_dirty(geometry: Geometry, place: Place) -> None:
    loaded = decode(raw_of(set(), SMALL), geometry, place)
    assert loaded.dirty == set(range(geometry.regions))
    assert loaded.findings


@pytest.mark.parametrize(
    "raw", [b"", bytes(4096), b"\xff" * 4096, raw_of(set(), SMALL)[:511]], ids=["none", "zeros", "ones", "short"]
)
def test_no_bitmap_counts_as_dirty(raw: bytes) -> None:
    assert decode(raw, SMALL, PLACE).dirty == {0, 1, 2}


def test_a_bit_past_the_last_region_is_no_region() -> None:
    (write,) = encode(b"\xff", SMALL, PLACE, STAMP)
    assert decode(write.data, SMALL, PLACE).dirty == {0, 1, 2}


def test_dirty_on_one_leg_is_dirty() -> None:
    """D2: the union; the stamps never run backwards."""
    first = decode(raw_of({0}, SMALL), SMALL, PLACE)
    second = replace(decode(raw_of({2}, SMALL), SMALL, PLACE), stamp=Stamp(9, 2))
    merged = merge([first, second], SMALL)
    assert (merged.dirty, merged.stamp) == ({0, 2}, Stamp(9, 5))


def test_without_any_leg_all_is_dirty() -> None:
    assert merge([], SMALL).dirty == {0, 1, 2}


def test_place_of_a_partition() -> None:
    assert Place.of(partition(7, 8, bitmap=9)) == PLACE
    with pytest.raises(UsageError, match="no room"):
        Place.of(partition(7, 8))
