"""The partition table, read from its copies and held against the objects (R1, R3)."""

from __future__ import annotations

import pytest

from backstores.metadata import witness
from backstores.metadata.findings import Finding, Problem
from backstores.metadata.table import Entry, EntryKind, EntryState, Key, Table, update, witnesses
from backstores.metadata.witness import compare, recover
from backstores.objects import MIB, AnyObject, Extent
from tests.support.metadata import LABEL, answered, flipped, name, partition, wrote
from tests.support.recording import Image, put, read

SECTOR = 512
OBJECTS: tuple[AnyObject, ...] = (partition(1, 8, bitmap=9), partition(2, 10))


def written(*steps: dict[Key, Entry]) -> tuple[Image, Table]:
    """Write a table, a change after the other."""
    image: Image = {}
    table = Table()
    for wanted in steps:
        made = update(table, wanted, LABEL, 10, 0)
        image, table = wrote(image, made.steps), made.after
    return image, table


def in_use(*objects: AnyObject) -> dict[Key, Entry]:
    return witnesses(objects, EntryState.IN_USE, LABEL.data)


def many(count: int) -> dict[Key, Entry]:
    made = (Entry(name(n), EntryKind.DATA, EntryState.IN_USE, Extent(8 * MIB, MIB)) for n in range(1, count + 1))
    return {entry.key: entry for entry in made}


def recovered(image: Image, unreadable: tuple[int, ...] = ()) -> tuple[Table, tuple[Finding, ...]]:
    return answered(recover(LABEL), image, unreadable)


def test_what_was_written_is_found_again() -> None:
    image, table = written(in_use(OBJECTS[0]), in_use(*OBJECTS), many(100))
    assert recovered(image) == (table, ())


def test_a_table_that_was_never_written_is_free() -> None:
    assert recovered({}) == (Table(), ())


def test_what_others_left_in_its_place_is_free() -> None:
    """An ALU is claimed without its tables being written."""
    image: Image = {}
    for start in LABEL.tables:
        put(image, start, b"\x77" * 8192)
    assert recovered(image) == (Table(), ())


@pytest.mark.parametrize("copy", range(4), ids="ABCD")
def test_every_flipped_byte_costs_one_copy_and_is_told(copy: int) -> None:
    """M1: no exception, no silent acceptance."""
    image, table = written(in_use(*OBJECTS))
    start = LABEL.tables[copy]
    for at in range(start, start + SECTOR):
        found, findings = recovered(flipped(image, at))
        assert found.slots == table.slots
        assert found.uneven == {0}
        assert [finding.where for finding in findings] == [f"partition table at byte {start}"], at


def test_entries_that_no_copy_has_any_more_are_told() -> None:
    image, _ = written(many(8))
    for start in LABEL.tables:
        image = flipped(image, start + 100)
    found, findings = recovered(image)
    assert [entry.name for entry in found.entries] == [name(8)]
    assert [finding.problem for finding in findings] == [Problem.DAMAGED] * 4
    assert found.uneven == {0}


@pytest.mark.parametrize("copy", range(4), ids="ABCD")
def test_a_bad_sector_costs_one_copy_of_its_unit(copy: int) -> None:
    image, table = written(many(100))
    found, findings = recovered(image, (LABEL.tables[copy] + 4096,))
    assert found.slots == table.slots
    assert Problem.UNREADABLE in {finding.problem for finding in findings}
    assert found.uneven == set(range(8, 15))


def test_a_copy_that_is_wiped_is_told_once() -> None:
    image, table = written(many(100))
    for at in range(0, LABEL.table_bytes, SECTOR):
        image.pop((LABEL.tables[1] + at) // SECTOR, None)
    found, [finding] = recovered(image)
    assert found.slots == table.slots
    assert "and 14 more" in finding.detail
    assert found.uneven == set(range(15))


def test_a_copy_that_the_last_change_has_not_reached_is_no_damage() -> None:
    old, _ = written(in_use(OBJECTS[0]))
    new, table = written(in_use(OBJECTS[0]), in_use(*OBJECTS))
    put(new, LABEL.tables[3], read(old, LABEL.tables[3], SECTOR))
    found, [finding] = recovered(new)
    assert (found.slots, finding.problem) == (table.slots, Problem.UNFINISHED)


def test_a_copy_that_missed_an_earlier_change_is_damaged() -> None:
    """A disk that acknowledged a write and did not do it."""
    old, _ = written(many(8))
    new, table = written(many(8), many(7), many(21))
    at = LABEL.tables[3] + SECTOR
    put(new, at, read(old, at, SECTOR))
    later, table = written(many(8), many(7), many(21), many(22))
    put(later, at, read(old, at, SECTOR))
    found, [finding] = recovered(later)
    assert (found.slots, finding.problem) == (table.slots, Problem.DAMAGED)


def test_copies_of_one_generation_that_differ_contradict() -> None:
    image, _ = written(in_use(OBJECTS[0]))
    other, _ = written(in_use(OBJECTS[1]))
    put(image, LABEL.tables[2], read(other, LABEL.tables[2], SECTOR))
    _, findings = recovered(image)
    assert [finding.problem for finding in findings] == [Problem.CONTRADICTION]


ENTRIES = in_use(*OBJECTS)
LOST = Entry(name(9), EntryKind.DATA, EntryState.LOST, Extent(12 * MIB, MIB))
EXTRA = Entry(name(9), EntryKind.DATA, EntryState.IN_USE, Extent(12 * MIB, MIB))
WIDE = Entry(name(2), EntryKind.DATA, EntryState.IN_USE, Extent(10 * MIB, 2 * MIB))
GROWING = Entry(name(2), EntryKind.DATA, EntryState.RESERVED, Extent(10 * MIB, 2 * MIB))
CROSSING = Entry(name(9), EntryKind.DATA, EntryState.IN_USE, Extent(8 * MIB, MIB))


@pytest.mark.parametrize(
    ("entries", "lost", "kept", "problems"),
    [
        (ENTRIES, False, [], []),
        ({**ENTRIES, EXTRA.key: EXTRA}, False, [], [Problem.UNFINISHED]),
        ({**ENTRIES, EXTRA.key: EXTRA}, True, [LOST], [Problem.LOST]),
        ({**ENTRIES, LOST.key: LOST}, False, [LOST], [Problem.LOST]),
        ({**ENTRIES, CROSSING.key: CROSSING}, True, [CROSSING.key], [Problem.LOST, Problem.OVERLAP]),
        ({**ENTRIES, WIDE.key: WIDE}, False, [], [Problem.CONTRADICTION]),
        ({**ENTRIES, GROWING.key: GROWING}, False, [], [Problem.UNFINISHED]),
        (in_use(OBJECTS[0]), False, [], [Problem.MISSING]),
        ({}, True, [], [Problem.MISSING] * 3),
    ],
    ids=[
        "alike",
        "entry-without-object",
        "entry-of-a-lost-object",
        "entry-known-as-lost",
        "entry-of-a-lost-object-that-overlaps",
        "other-extent",
        "growth-cut-short",
        "object-without-entry",
        "no-entries",
    ],
)
def test_what_differs_is_named(
    entries: dict[Key, Entry], lost: bool, kept: list[Entry | Key], problems: list[Problem]
) -> None:
    """R1: the objects count, unless they are known to be incomplete."""
    _, table = written(entries)
    agreement = compare(table, OBJECTS, LABEL.data, lost)
    assert [finding.problem for finding in agreement.findings] == problems
    assert list(agreement.kept) == [one if isinstance(one, tuple) else one.key for one in kept]
    assert {entry.state for entry in agreement.kept.values()} <= {EntryState.LOST}


def test_no_finding_of_the_table_speaks_against_an_object() -> None:
    """Who merges what the ALUs hold leaves objects out of which a finding names the name."""
    _, table = written({**in_use(OBJECTS[0]), WIDE.key: WIDE, EXTRA.key: EXTRA})
    named = {finding.wwn for finding in compare(table, OBJECTS, LABEL.data, True).findings} - {None}
    assert named == {EXTRA.name}


def test_two_entries_of_one_partition_are_named() -> None:
    _, table = written(ENTRIES)
    double = Table({**table.slots, 30: table.slots[0]}, table.stamps, table.uneven, table.generation)
    assert [finding.problem for finding in compare(double, OBJECTS, LABEL.data, False).findings] == [Problem.DUPLICATE]
    assert len(update(double, ENTRIES, LABEL, 10, 0).after.slots) == 3


def test_a_commit_reserves_what_is_new_and_keeps_what_goes() -> None:
    """Until it is certain which objects count, both have their room."""
    old, new = (partition(1, 8), partition(2, 10)), (partition(2, 10, 2), partition(3, 12))
    entries = witness.reserving(old, new, {LOST.key: LOST}, LABEL.data)
    assert [(entry.name, entry.state, entry.extent.length_bytes // MIB) for entry in entries.values()] == [
        (name(9), EntryState.LOST, 1),
        (name(1), EntryState.IN_USE, 1),
        (name(2), EntryState.RESERVED, 2),
        (name(3), EntryState.RESERVED, 1),
    ]
    assert witness.settled(new, {LOST.key: LOST}, LABEL.data) == {LOST.key: LOST, **in_use(*new)}
