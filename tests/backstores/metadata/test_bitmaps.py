"""Bitmaps of a stopped appliance are held against their mirrors, and made alike as a start would (D2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from backstores.metadata.bitmap import BitmapSector, Geometry, Loaded, Place, Stamp, decode, encode
from backstores.metadata.bitmaps import Examined, Raw, examine, legs, look, told
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.merge import AluRecord, system_image
from backstores.objects import ConcatObject, Leg, LegState, MirrorObject, PartitionObject
from tests.support.metadata import ALU, OTHER_ALU, answered, mirror, name, partition, volume
from tests.support.recording import SECTOR, Image, put

BLOCKS = 8192 * 4000  # two sectors of bits
LEGS = (partition(4, 8, bitmap=9), partition(5, 8, alu=OTHER_ALU, bitmap=9))
MIRROR = MirrorObject(wwn=name(3), volume=name(2), legs=(Leg(name(4)), Leg(name(5))), region_blocks=8192, blocks=BLOCKS)
GEOMETRY = Geometry.of(MIRROR)
PLACES = tuple(map(Place.of, LEGS))


def bitmap(leg: int, dirty: Sequence[int] = (), generation: int = 5) -> bytes:
    bits = bytearray(-(-GEOMETRY.regions // 8))
    for region in dirty:
        bits[region // 8] |= 1 << region % 8
    [write] = encode(bytes(bits), GEOMETRY, PLACES[leg], Stamp(generation, generation))
    return write.data


def examined(first: bytes, second: bytes, above: MirrorObject = MIRROR) -> Examined:
    shared = (volume(2, 3), above)
    records = [AluRecord(ALU, (*shared, LEGS[0])), AluRecord(OTHER_ALU, (*shared, LEGS[1]))]
    raw: Raw = {name(4): first, name(5): second}
    return examine(system_image(records), raw)


def renewed(found: Examined) -> Mapping[str, Loaded]:
    """Give what the bitmaps say after a repair."""
    images: Mapping[str, Image] = {ALU: {}, OTHER_ALU: {}}
    after = {}
    for one in found.renewals:
        for write in one.writes(100):
            put(images[one.place.alu], write.offset, write.data)
            after[one.place.leg] = decode(write.data, one.geometry, one.place)
    return after


def test_bitmaps_that_are_alike_are_left() -> None:
    assert examined(bitmap(0), bitmap(1)) == Examined()


def test_what_an_unclean_stop_leaves_dirty_is_told() -> None:
    """It is no trouble: the next start copies it. Nothing has to be written."""
    found = examined(bitmap(0, [0, 3999]), bitmap(1, [0, 3999]))
    [(alu, finding)] = found.findings
    assert (alu, finding.problem) == (ALU, Problem.UNFINISHED)
    assert "2 of 4000 regions are dirty" in finding.detail
    assert found.renewals == ()


@pytest.mark.parametrize(
    ("behind", "problem"), [(1, Problem.UNFINISHED), (2, Problem.STALE)], ids=["one-write", "more-than-one"]
)
def test_a_leg_that_is_behind_is_named(behind: int, problem: Problem) -> None:
    """By one write power may have failed; by more, something has brought an older leg back."""
    found = examined(bitmap(0, [1], 5 - behind), bitmap(1, [2]))
    told = [(alu, finding.problem, finding.where) for alu, finding in found.findings if "leg" in finding.detail]
    assert told == [(ALU, problem, f"bitmap at byte {PLACES[0].start_bytes + at}") for at in (0, SECTOR)]
    assert {one.dirty for one in renewed(found).values()} == {frozenset({1, 2})}
    assert {one.stamp.generation for one in renewed(found).values()} == {6}


def test_one_generation_that_says_two_things_is_named() -> None:
    found = examined(bitmap(0, [1]), bitmap(1, [2]))
    assert [(alu, finding.problem) for alu, finding in found.findings[:1]] == [(OTHER_ALU, Problem.CONTRADICTION)]
    assert {one.dirty for one in renewed(found).values()} == {frozenset({1, 2})}


def test_sectors_of_a_write_that_was_torn_are_compared_each_by_itself() -> None:
    torn = bitmap(0, [1])[:SECTOR] + bitmap(0, generation=4)[SECTOR:]
    found = examined(torn, bitmap(1, [1]))
    assert {finding.problem for _, finding in found.findings} == {Problem.UNFINISHED}


@pytest.mark.parametrize("leg", [0, 1])
@pytest.mark.parametrize("sector", [0, 1])
def test_a_damaged_sector_counts_as_dirty_and_is_written_again(leg: int, sector: int) -> None:
    """D2: what can't be read could have said anything."""
    good = [bytearray(bitmap(0)), bytearray(bitmap(1))]
    good[leg][sector * SECTOR + 140] ^= 1
    found = examined(*map(bytes, good))
    alu, finding = found.findings[0]
    assert (alu, finding.problem) == (LEGS[leg].alu, Problem.DAMAGED)
    assert finding.where == f"bitmap at byte {PLACES[leg].start_bytes + sector * SECTOR}"
    lost = range(3072) if sector == 0 else range(3072, 4000)
    assert {one.dirty for one in renewed(found).values()} == {frozenset(lost)}


def test_a_bitmap_that_can_t_be_read_counts_as_all_dirty() -> None:
    found = examined(b"", bitmap(1))
    assert "4000 of 4000 regions are dirty" in found.findings[-1][1].detail
    assert len(found.renewals) == 2


def test_a_leg_that_has_failed_says_nothing() -> None:
    """D3: it is not read, so its bitmap is not, either."""
    failed = MirrorObject(
        wwn=name(3),
        volume=name(2),
        legs=(Leg(name(4)), Leg(name(5), LegState.FAILED)),
        region_blocks=8192,
        blocks=BLOCKS,
    )
    assert examined(bitmap(0), b"", failed) == Examined()


def test_nothing_is_written_while_a_leg_in_sync_is_missing() -> None:
    """It could be the one that knows of a dirty region."""
    records = [AluRecord(ALU, (volume(2, 3), MIRROR, LEGS[0]))]
    found = examine(system_image(records), {name(4): bitmap(0, generation=1)[:SECTOR]})
    assert found.findings
    assert found.renewals == ()


def test_a_bitmap_that_no_mirror_has_is_named() -> None:
    alone = (volume(2, 4), LEGS[0])
    found = examine(system_image([AluRecord(ALU, alone)]), {name(4): bitmap(0)})
    [(alu, finding)] = found.findings
    assert (alu, finding.problem, finding.where) == (ALU, Problem.ORPHAN, f"bitmap at byte {PLACES[0].start_bytes}")


def test_a_leg_without_room_for_a_bitmap_is_named() -> None:
    """A start keeps such a volume off line."""
    bare = partition(4, 8)
    found = examine(system_image([AluRecord(ALU, (volume(2, 3), mirror(3, [4]), bare))]), {})
    [(_, finding)] = found.findings
    assert finding.problem is Problem.INVALID
    assert "has no room for a dirty-region bitmap" in finding.detail


def test_the_bitmap_of_a_leg_lies_in_its_first_partition() -> None:
    concat = ConcatObject(wwn=name(8), volume=name(2), children=(name(4), name(6)), blocks=2048)
    objects = (mirror(3, [8]), concat, LEGS[0], partition(6, 12))
    assert [leg.partition for leg in legs(objects)] == [LEGS[0]]


def test_a_loop_below_a_leg_has_no_first_partition() -> None:
    loop = ConcatObject(wwn=name(8), volume=name(2), children=(name(8),), blocks=2048)
    assert list(legs([mirror(3, [8]), loop])) == []


def test_only_room_that_can_be_trusted_is_read() -> None:
    """S3: where an object is known to be wrong, its addresses are not used."""
    far = partition(6, 100_000, bitmap=100_001)
    wrong = Finding(Problem.OUTSIDE, "partition", "it leaves the data area", far.wwn)
    objects: Sequence[PartitionObject] = (LEGS[0], far)
    image: Image = {}
    put(image, PLACES[0].start_bytes, bitmap(0))
    assert answered(look(objects, [wrong]), image) == {name(4): bitmap(0)}
    assert answered(look(objects, [wrong]), image, [PLACES[0].start_bytes]) == {name(4): b""}


def test_dirty_regions_are_told_in_runs() -> None:
    second = BitmapSector(bitmap(0, [7, 3072, 3073, 3999])[SECTOR : 2 * SECTOR])
    assert told(second) == {"dirty": 3, "which": "3072-3073, 3999"}
    assert told(BitmapSector(bitmap(0)[:SECTOR])) == {"dirty": 0, "which": "none"}
