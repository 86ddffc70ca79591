"""The partition table: what a change of it writes, and what is read back (R1)."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from backstores.errors import UsageError
from backstores.metadata.sector import SectorError
from backstores.metadata.steps import Flush, Step, Write
from backstores.metadata.table import (
    ENTRIES_OF_A_SECTOR,
    MOST_ENTRIES,
    Entry,
    EntryFormat,
    EntryKind,
    EntryState,
    Key,
    Table,
    TableSector,
    overlaps,
    parse_sector,
    update,
    witnesses,
)
from backstores.objects import MIB, AnyObject, Extent
from tests.support.metadata import LABEL, name, partition, resealed, volume, wrote
from tests.support.recording import read

A, B, C, D = LABEL.tables
SECTOR = 512


def entries(count: int, state: EntryState = EntryState.IN_USE, first: int = 1) -> dict[Key, Entry]:
    made = (Entry(name(n), EntryKind.DATA, state, Extent(8 * MIB, MIB)) for n in range(first, first + count))
    return {entry.key: entry for entry in made}


def written(table: Table, wanted: dict[Key, Entry]) -> tuple[tuple[Step, ...], Table]:
    made = update(table, wanted, LABEL, 10, 3)
    return made.steps, made.after


def offsets(steps: tuple[Step, ...]) -> list[int | None]:
    return [step.offset if isinstance(step, Write) else None for step in steps]


def test_partitions_and_bitmaps_have_an_entry_each() -> None:
    objects = (volume(2, 1), partition(1, 8, 2, bitmap=10))
    assert list(witnesses(objects, EntryState.RESERVED, LABEL.data).values()) == [
        Entry(name(1), EntryKind.DATA, EntryState.RESERVED, Extent(8 * MIB, 2 * MIB)),
        Entry(name(1), EntryKind.BITMAP, EntryState.RESERVED, Extent(10 * MIB, MIB)),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        msgspec.structs.replace(partition(1, 8), extent=Extent(8 * MIB, -1)),
        msgspec.structs.replace(partition(1, 8), extent=Extent(-MIB, MIB)),
        msgspec.structs.replace(partition(1, 8), extent=Extent(8 * MIB, 1 << 70)),
        msgspec.structs.replace(partition(1, 8), wwn="x"),
    ],
    ids=["negative-length", "negative-start", "beyond-the-end", "no-name"],
)
def test_what_a_damaged_object_claims_gets_no_entry(wrong: AnyObject) -> None:
    """It could not be stored; what is wrong with the object is told elsewhere."""
    assert witnesses([wrong], EntryState.IN_USE, LABEL.data) == {}


def test_there_is_room_for_4096_entries_and_more() -> None:
    """R1."""
    assert MOST_ENTRIES >= 4096
    steps, after = written(Table(), entries(MOST_ENTRIES))
    assert len(after.entries) == MOST_ENTRIES
    written_to = [step for step in steps if isinstance(step, Write)]
    for start in LABEL.tables:
        assert sum(len(step.data) for step in written_to if start <= step.offset < start + LABEL.table_bytes) == (
            LABEL.table_bytes
        )
    with pytest.raises(UsageError, match=str(MOST_ENTRIES)):
        update(Table(), entries(MOST_ENTRIES + 1), LABEL, 10, 3)


def test_a_change_writes_its_unit_in_two_turns() -> None:
    """M3: one copy in front and one at the end, then the others."""
    steps, _ = written(Table(), entries(1))
    assert offsets(steps) == [A, C, None, B, D]
    assert Flush() in steps


def test_a_change_does_not_grow_with_the_number_of_entries() -> None:
    _, full = written(Table(), entries(1000))
    steps, _ = written(full, entries(1001))
    unit = 1000 // ENTRIES_OF_A_SECTOR // 8 * 4096
    assert offsets(steps) == [A + unit, C + unit, None, B + unit, D + unit]


def test_what_does_not_change_is_not_written() -> None:
    _, table = written(Table(), entries(9))
    assert update(table, entries(9), LABEL, 20, 4).steps == ()


def test_sectors_that_share_a_unit_stay_byte_for_byte() -> None:
    """A torn write of the unit leaves them as they were."""
    steps, table = written(Table(), entries(9))
    image = wrote({}, steps)
    more, _ = written(table, entries(10))
    after = wrote(image, more)
    assert read(after, A, SECTOR) == read(image, A, SECTOR)
    assert read(after, A + SECTOR, SECTOR) != read(image, A + SECTOR, SECTOR)
    assert read(after, A + 2 * SECTOR, SECTOR) == bytes(SECTOR)


def test_entries_keep_their_places_and_free_ones_are_taken_again() -> None:
    _, table = written(Table(), entries(9))
    kept = {key: entry for key, entry in entries(9).items() if key[0] not in (name(2), name(8))}
    _, smaller = written(table, kept)
    _, again = written(smaller, kept | entries(3, first=20))
    assert [table.slots[slot].name for slot in (0, 8)] == [again.slots[slot].name for slot in (0, 8)]
    assert [again.slots[slot].name for slot in (1, 7, 9)] == [name(20), name(21), name(22)]


def test_all_that_one_change_writes_is_newer_than_anything_before() -> None:
    """M2: also than a change that failed half-way, and whose sectors are written again."""
    first = update(Table(), entries(1), LABEL, 10, 3)
    assert (first.begun.generation, first.begun.uneven, first.begun.entries) == (1, {0}, ())
    second = update(first.begun, entries(1, first=5), LABEL, 5, 4)
    assert second.after.stamps[0].generation == second.after.generation == 2
    assert second.after.uneven == frozenset()


def test_what_is_uneven_is_written_though_nothing_changes() -> None:
    _, table = written(Table(), entries(20))
    steps, after = written(replace(table, uneven=frozenset({1})), entries(20))
    assert offsets(steps) == [A, C, None, B, D]
    assert {sector: stamp.generation for sector, stamp in after.stamps.items()} == {0: 1, 1: 2, 2: 1}


def test_what_is_built_is_parsed() -> None:
    steps, table = written(Table(), entries(9))
    raw = read(wrote({}, steps), D + SECTOR, SECTOR)
    stamp, found = parse_sector(raw, D + SECTOR, 1, LABEL)
    assert stamp == table.stamps[1]
    assert found == (table.slots[7], table.slots[8], *[None] * 5)


@pytest.mark.parametrize(
    "entry",
    [
        {"state": 9},
        {"kind": 0},
        {"name": b"\x50" * 16},
        {"start": 7 * MIB},
        {"length": 0},
        {"length": 1 << 62},
        {"start": (1 << 64) - 1},
    ],
    ids=str,
)
def test_a_forged_entry_is_refused(entry: dict[str, object]) -> None:
    """S3."""
    good = {"state": 2, "kind": 1, "name": b"\x60" * 16, "start": 8 * MIB, "length": MIB}
    raw = bytearray(read(wrote({}, written(Table(), entries(1))[0]), A, SECTOR))
    raw[64:128] = EntryFormat.build(**{**good, **entry})
    with pytest.raises(SectorError):
        parse_sector(resealed(bytes(raw), TableSector), A, 0, LABEL)


def test_a_sector_of_another_place_in_the_table_is_refused() -> None:
    raw = read(wrote({}, written(Table(), entries(1))[0]), A, SECTOR)
    with pytest.raises(SectorError, match="sector 3"):
        parse_sector(resealed(raw, TableSector, index=3), A, 0, LABEL)


def test_entries_that_overlap_are_found() -> None:
    def entry(number: int, start: int, length: int) -> Entry:
        return Entry(name(number), EntryKind.DATA, EntryState.IN_USE, Extent(start * MIB, length * MIB))

    wide, inside, beside, apart = entry(1, 8, 4), entry(2, 9, 1), entry(3, 10, 1), entry(4, 12, 1)
    assert list(overlaps([apart, beside, inside, wide])) == [(wide, inside), (wide, beside)]
    assert list(overlaps([])) == []
