"""ALUs written by the first release stay readable, and are brought to this version in place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from backstores.errors import UsageError
from backstores.metadata import records
from backstores.metadata.bitmap import Place, Stamp, decode
from backstores.metadata.findings import Problem
from backstores.metadata.inspection import Inspection, Ownership
from backstores.metadata.layout import MOST_TABLE_BYTES, SMALL
from backstores.metadata.sector import version_of
from backstores.metadata.store import AluMetadata
from backstores.metadata.table import EntryState, entries_of, witnesses
from backstores.objects import MIB, AnyObject
from tests.support.format_1 import DIRTY, GEOMETRY, LEG, OBJECTS, fixture, holding
from tests.support.metadata import ALU, SIZE, SUSID, clock, flipped, partition, volume
from tests.support.params import cases
from tests.support.recording import RecordingStorage, StorageFailed, crash_states, possible_states, read

LATER = 1_800_000_000_000_000_000


def opened(storage: RecordingStorage) -> tuple[AluMetadata, Inspection]:
    metadata = AluMetadata(storage, storage.size_bytes, clock(LATER))
    return metadata, asyncio.run(metadata.inspect(SUSID))


def migrated(storage: RecordingStorage, epoch: int = 0) -> AluMetadata:
    metadata, _ = opened(storage)
    asyncio.run(metadata.migrate(epoch))
    return metadata


def assert_bitmap_is_as_it_was(storage: RecordingStorage) -> None:
    place = Place.of(LEG)
    loaded = decode(asyncio.run(storage.read(place.start_bytes, GEOMETRY.length_bytes)), GEOMETRY, place)
    assert (loaded.dirty, loaded.findings) == (DIRTY, ())
    assert loaded.stamp == Stamp(7, 1_700_000_000_000_000_001)


def test_the_fixture_is_read() -> None:
    """R1, R3: label, objects and bitmap of format version 1; looking changes nothing."""
    storage = fixture()
    metadata, inspection = opened(storage)
    assert (inspection.ownership, inspection.findings, inspection.version) == (Ownership.OWNED, (), 1)
    assert (metadata.label.alu, metadata.generation, metadata.objects) == (ALU, 4, OBJECTS)
    assert_bitmap_is_as_it_was(storage)
    assert storage.events == []


def test_it_is_brought_to_this_version_in_place() -> None:
    """R1, R3: nothing is lost, nothing moves."""
    storage = fixture()
    before = dict(storage.image)
    metadata = migrated(storage, epoch=3)
    again, inspection = opened(storage)
    assert (inspection.ownership, inspection.findings, inspection.version) == (Ownership.OWNED, (), 2)
    assert (again.label, again.directory, again.objects) == (metadata.label, metadata.directory, OBJECTS)
    assert (again.epoch, again.generation, again.label.data.start_bytes) == (3, 6, 8 * MIB)
    assert again.table.entries == tuple(witnesses(OBJECTS, EntryState.IN_USE, again.label.data).values())
    assert_bitmap_is_as_it_was(storage)
    data = range(again.label.data.start_bytes, again.label.data.end_bytes)
    assert all(read(before, at, 4096) == read(storage.image, at, 4096) for at in data[::4096])


def test_a_second_time_changes_nothing() -> None:
    storage = fixture()
    migrated(storage)
    storage.events.clear()
    migrated(storage)
    assert storage.events == []


def test_what_is_migrated_goes_on() -> None:
    storage = fixture()
    metadata = migrated(storage)
    asyncio.run(metadata.fence(5))
    asyncio.run(metadata.commit((*OBJECTS, partition(20, 14)), 5))
    again, _ = opened(storage)
    assert again.objects == (*OBJECTS, partition(20, 14))


def test_version_1_is_not_written_to() -> None:
    """Its one label knows no fence that a later writer could raise."""
    metadata, _ = opened(fixture())
    for change in (metadata.commit(()), metadata.fence(1)):
        with pytest.raises(UsageError, match="migrate"):
            asyncio.run(change)


def test_an_alu_that_has_grown_has_its_tail_at_its_new_end() -> None:
    storage = fixture()
    storage.size_bytes += 4 * MIB
    metadata = migrated(storage)
    assert metadata.label.size_bytes == SIZE + 4 * MIB
    assert opened(storage)[1].findings == ()


def test_every_crash_leaves_one_version_or_the_other() -> None:
    """M6: with all objects; an older release that meets a half-done migration still finds its own labels."""
    storage = fixture()
    before = dict(storage.image)
    migrated(storage)
    versions = []
    for number, image in crash_states(before, storage.events):
        metadata, inspection = opened(RecordingStorage(SIZE, image))
        assert inspection.ownership is Ownership.OWNED, number
        assert metadata.objects == OBJECTS, number
        assert {finding.problem for finding in inspection.findings} <= {Problem.UNFINISHED, Problem.ABSENT}, number
        if inspection.version == 1:
            assert [version_of(read(image, address, 512)) for address in (4096, 8192)] == [1, 1]
        versions.append(inspection.version)
    assert (versions[0], versions[-1]) == (1, 2)
    assert versions == sorted(versions), "it makes its difference once"


def test_a_second_crash_while_it_is_done_again() -> None:
    """M6: from states that the first crash can leave, spread evenly."""
    storage = fixture()
    before = dict(storage.image)
    migrated(storage)
    states = [image for _, image in possible_states(before, storage.events)]
    for image in states[:: max(1, len(states) // 12)]:
        again = RecordingStorage(SIZE, dict(image))
        assert migrated(again).objects == OBJECTS
        for number, twice in crash_states(image, again.events):
            metadata, inspection = opened(RecordingStorage(SIZE, twice))
            assert inspection.ownership is Ownership.OWNED, number
            assert metadata.objects == OBJECTS, number


@pytest.mark.parametrize("steps", [0, 5, 9, 12, 14])
def test_a_migration_that_failed_can_be_done_again(steps: int) -> None:
    storage = fixture()
    metadata, _ = opened(storage)
    storage.fail_after = steps
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.migrate())
    storage.fail_after = None
    metadata, inspection = opened(storage)
    assert inspection.ownership is Ownership.OWNED
    asyncio.run(metadata.migrate())
    asyncio.run(metadata.fence(1))
    asyncio.run(metadata.commit((*OBJECTS, partition(20, 14)), 1))
    _, inspection = opened(storage)
    assert (inspection.version, inspection.findings) == (2, ())


def filling() -> tuple[AnyObject, ...]:
    """Make objects that fill a region of version 1 to its last unit but one."""
    some = [volume(number, 1) for number in range(1, 11_900)]
    while len(records.encode(some)) > SMALL.region_bytes - 2 * 4096:
        some.pop()
    return tuple(some)


def partitions(count: int) -> tuple[AnyObject, ...]:
    return tuple(partition(number, 7 + number) for number in range(1, 1 + count))


LARGEST = {"region-filled": filling, "many-partitions": lambda: partitions(entries_of(MOST_TABLE_BYTES))}
LARGE_SIZE = 8 << 30


@pytest.mark.parametrize("objects", LARGEST.values(), ids=LARGEST)
def test_what_filled_version_1_is_migrated_too(objects: Callable[[], tuple[AnyObject, ...]]) -> None:
    """R1, R3: and can be changed; with fewer objects there is a log again."""
    storage = holding(held := objects(), LARGE_SIZE)
    migrated(storage)
    metadata, inspection = opened(storage)
    assert (inspection.version, inspection.findings, metadata.objects) == (2, (), held)
    asyncio.run(metadata.commit(held[1:]))
    asyncio.run(metadata.commit(held[1:1000]))
    metadata, inspection = opened(storage)
    assert (inspection.findings, metadata.objects) == ((), held[1:1000])
    assert inspection.state is not None
    assert inspection.state.end is not None


@pytest.mark.parametrize("objects", cases(LARGEST, slow=["many-partitions"]))
def test_wherever_it_fails_what_filled_version_1_is_whole(objects: Callable[[], tuple[AnyObject, ...]]) -> None:
    """M6: among the first writes, among those of the partition table, and at each of the last ones."""
    held = objects()
    whole = holding(held, LARGE_SIZE)
    before = dict(whole.image)
    migrated(whole)
    steps = len(whole.events)
    for failing in (0, 1, 5, steps // 2, *range(steps - 14, steps)):
        storage = RecordingStorage(LARGE_SIZE, dict(before), fail_after=failing)
        metadata, _ = opened(storage)
        with pytest.raises(StorageFailed):
            asyncio.run(metadata.migrate())
        storage.fail_after = None
        metadata, inspection = opened(storage)
        assert (inspection.ownership, metadata.objects) == (Ownership.OWNED, held), failing
        asyncio.run(metadata.migrate())
        assert opened(storage)[0].objects == held, failing


def test_more_than_this_version_has_room_for_is_refused_with_what_to_do() -> None:
    """Nothing is written: the release that wrote it can go on."""
    storage = holding(partitions(entries_of(MOST_TABLE_BYTES) + 1), LARGE_SIZE)
    with pytest.raises(UsageError, match=r"7113 partitions .* room for 7112: delete volumes with the release that"):
        migrated(storage)
    assert storage.events == []


@pytest.mark.parametrize("part", [(4096, 512), (8192, 512)], ids=["label-a", "label-b"])
def test_every_flipped_byte_of_a_label_of_version_1_is_told(part: tuple[int, int]) -> None:
    """M1: a release that reads two versions still takes neither for the other."""
    start, length = part
    image = fixture().image
    for at in range(start, start + length):
        storage = RecordingStorage(SIZE, flipped(image, at))
        metadata, inspection = opened(storage)
        assert inspection.ownership is Ownership.OWNED, at
        assert metadata.objects == OBJECTS, at
        if at - start >= 8:  # without its magic number it is no label at all
            assert Problem.DAMAGED in {finding.problem for finding in inspection.findings}, at
