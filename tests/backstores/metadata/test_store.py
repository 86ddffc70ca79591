"""The metadata of one ALU, end to end over a disk in memory."""

from __future__ import annotations

import asyncio

import pytest

from backstores.errors import CorruptError, TiergateError, UsageError
from backstores.metadata.inspection import Ownership
from backstores.metadata.label import build, new_label, renewed
from backstores.metadata.layout import FRONT_LABELS, MDR_ADDRESSES, SMALL, label_addresses
from backstores.metadata.store import AluMetadata
from backstores.metadata.table import EntryState
from backstores.objects import MIB, Extent
from backstores.wwn import new_device_wwn
from tests.support.metadata import ALU, OTHER_ALU, SIZE, SUSID, clock, partition, volume
from tests.support.one_alu import claimed, opened
from tests.support.recording import SECTOR, RecordingStorage, StorageFailed, put


def test_objects_survive_a_restart() -> None:
    """R3: what was committed is found again from the ALU alone."""
    storage, metadata = claimed()
    objects = (partition(1, 8), volume(2, 1))
    asyncio.run(metadata.commit(objects))
    again, ownership = opened(storage)
    assert ownership is Ownership.OWNED
    assert again.objects == objects
    assert again.generation == metadata.generation
    assert again.label == metadata.label


def test_free_room_is_what_partitions_leave() -> None:
    """R8: free extents of an owned ALU."""
    _, metadata = claimed()
    assert metadata.free == (Extent(8 * MIB, SIZE - 9 * MIB),)
    asyncio.run(metadata.commit((partition(1, 9, units=2),)))
    assert metadata.free == (Extent(8 * MIB, MIB), Extent(11 * MIB, SIZE - 12 * MIB))


@pytest.mark.parametrize("boot", [b"", b"\xebboot"], ids=["blank", "boot-sector"])
def test_the_first_4_kib_are_never_written(boot: bytes) -> None:
    storage = RecordingStorage(SIZE)
    put(storage.image, 0, boot.ljust(SECTOR, b"\0"))
    metadata = AluMetadata(storage, SIZE, clock())
    asyncio.run(metadata.format(SUSID, ALU))
    asyncio.run(metadata.commit((partition(1, 8),)))
    assert all(event.offset is None or event.offset >= 4096 for event in storage.events)


def test_inspect_writes_nothing() -> None:
    """R2: attaching an ALU changes nothing on it."""
    storage = RecordingStorage(SIZE)
    assert opened(storage)[1] is Ownership.BLANK
    storage, _ = claimed()
    storage.events.clear()
    opened(storage)
    opened(storage, "another appliance")
    assert not storage.events


@pytest.mark.parametrize("susid", ["another", SUSID + "0"])
def test_alu_of_another_appliance_is_foreign(susid: str) -> None:
    """R2: without a valid SUSID the ALU is not used."""
    storage, _ = claimed()
    metadata, ownership = opened(storage, susid)
    assert ownership is Ownership.FOREIGN
    with pytest.raises(CorruptError):
        asyncio.run(metadata.commit(()))


def test_claim_of_a_foreign_alu_makes_it_ours_and_empty() -> None:
    storage, metadata = claimed()
    asyncio.run(metadata.commit((partition(1, 8),)))
    taken = AluMetadata(storage, SIZE, clock())
    asyncio.run(taken.format("another", OTHER_ALU))
    again, ownership = opened(storage, "another")
    assert ownership is Ownership.OWNED
    assert (again.label.alu, again.objects) == (OTHER_ALU, ())
    assert opened(storage)[1] is Ownership.FOREIGN


@pytest.mark.parametrize("address", [*FRONT_LABELS, *MDR_ADDRESSES])
@pytest.mark.parametrize("unreadable", [False, True], ids=["zeroed", "unreadable"])
def test_one_copy_is_enough(address: int, unreadable: bool) -> None:
    """R1, R2: label and MDR directory are duplicated."""
    storage, _ = claimed()
    if unreadable:
        storage.unreadable.add(address // SECTOR)
    else:
        put(storage.image, address, bytes(SECTOR))
    assert opened(storage)[1] is Ownership.OWNED


def test_a_damaged_log_is_told_and_the_next_commit_starts_anew() -> None:
    """What was committed before the damage counts; the next commit goes into the other region."""
    storage, metadata = claimed()
    asyncio.run(metadata.commit((partition(1, 8),)))
    live = SMALL.regions[1]
    assert metadata.generation == 3  # two of the format; the live region is B, its first change behind a small base
    put(storage.image, live + 8192, b"\xff" * SECTOR)
    again, ownership = opened(storage)
    assert ownership is Ownership.OWNED
    assert again.objects == ()
    assert [entry.state for entry in again.table.entries] == [EntryState.IN_USE]
    storage.events.clear()
    asyncio.run(again.commit((volume(2, 1),)))
    assert SMALL.regions[0] in {event.offset for event in storage.events}
    assert opened(storage)[0].objects == (volume(2, 1),)


def test_the_room_of_partitions_that_were_lost_is_given_to_nobody() -> None:
    """R8: the partition table is the second witness: what it alone knows of stays taken, after a restart, too."""
    storage, metadata = claimed()
    asyncio.run(metadata.commit((partition(1, 8),)))
    put(storage.image, SMALL.regions[1] + 8192, b"\xff" * SECTOR)
    for _ in range(2):
        again, _ = opened(storage)
        assert again.free == (Extent(9 * MIB, SIZE - 10 * MIB),)
        asyncio.run(again.commit((volume(2, again.generation),)))
        assert [entry.state for entry in again.table.entries] == [EntryState.LOST]


STEPS = ["table-a", "table-c", "table-flush", "table-b", "table-d", "body", "first-flush", "header", "last-flush"]


@pytest.mark.parametrize("steps", range(len(STEPS)), ids=STEPS)
def test_a_failed_commit_leaves_the_old_objects_and_the_next_one_works(steps: int) -> None:
    storage, metadata = claimed()
    old = (partition(1, 8),)
    asyncio.run(metadata.commit(old))
    storage.fail_after = steps
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.commit((partition(2, 9),)))
    assert metadata.objects == old
    storage.fail_after = None
    new = (*old, partition(3, 10))
    asyncio.run(metadata.commit(new))
    assert metadata.objects == new
    again, _ = opened(storage)
    assert again.objects == new
    assert again.table == metadata.table
    assert {entry.state for entry in again.table.entries} == {EntryState.IN_USE}


@pytest.mark.parametrize("steps", range(4), ids=["a", "c", "flush", "b"])
def test_a_failure_behind_the_commit_point_leaves_the_new_objects(steps: int) -> None:
    """The table lags behind then, and the next commit mends it, though nothing else changes."""
    storage, metadata = claimed()
    storage.fail_after = len(STEPS) + steps
    new = (partition(1, 8),)
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.commit(new))
    assert metadata.objects == new
    storage.fail_after = None
    asyncio.run(metadata.commit(new))
    again, _ = opened(storage)
    assert (again.objects, again.table) == (new, metadata.table)
    assert [entry.state for entry in again.table.entries] == [EntryState.IN_USE]


def test_what_a_failed_commit_left_is_taken_back_before_anything_else() -> None:
    """Its header may be on the disk: going on over its body would look like damage after the next crash."""
    storage, metadata = claimed()
    storage.fail_after = 3
    with pytest.raises(StorageFailed):
        asyncio.run(metadata.commit((volume(2, 1),)))
    assert opened(storage)[0].objects == (volume(2, 1),)
    storage.fail_after = None
    storage.events.clear()
    asyncio.run(metadata.commit(()))
    assert [event.offset for event in storage.events] == [SMALL.regions[1] + 8192, None]
    assert opened(storage)[0].objects == ()


class SlowStorage(RecordingStorage):
    """A disk that lets others run before it answers."""

    async def write(self, offset: int, data: bytes) -> None:
        await asyncio.sleep(0)
        await super().write(offset, data)

    async def flush(self) -> None:
        await asyncio.sleep(0)
        await super().flush()


def test_commits_at_once_come_one_after_the_other() -> None:
    storage = SlowStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())

    async def go() -> None:
        await metadata.format(SUSID, ALU)
        await asyncio.gather(*(metadata.commit((partition(number, 8),)) for number in range(1, 6)))

    asyncio.run(go())
    assert metadata.objects == (partition(5, 8),)
    assert metadata.generation == 7
    assert opened(storage)[0].objects == metadata.objects


def test_a_cancelled_commit_leaves_the_old_objects() -> None:
    """What a cancelled task had begun is begun again by the next commit."""
    storage = SlowStorage(SIZE)
    metadata = AluMetadata(storage, SIZE, clock())

    async def go() -> None:
        await metadata.format(SUSID, ALU)
        task = asyncio.ensure_future(metadata.commit((partition(1, 8),)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert metadata.objects == ()
        await metadata.commit((partition(2, 9),))

    asyncio.run(go())
    assert opened(storage)[0].objects == metadata.objects == (partition(2, 9),)


def test_an_alu_that_has_shrunk_is_damaged() -> None:
    storage, _ = claimed(32 * MIB)
    storage.size_bytes -= 4096
    assert opened(storage)[1] is Ownership.DAMAGED


def test_an_alu_that_has_grown_keeps_its_data_area() -> None:
    storage, metadata = claimed()
    storage.size_bytes += 64 * MIB
    again, ownership = opened(storage)
    assert ownership is Ownership.OWNED
    assert again.label.data == metadata.label.data


@pytest.mark.parametrize("size", [0, 4096, 16 * MIB - 1, 1 << 63], ids=["empty", "page", "just-below", "past-8-eib"])
def test_sizes_out_of_bounds_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=str(size)):
        AluMetadata(RecordingStorage(size), size)


def test_both_region_copies_gone_is_damaged_and_nothing_can_be_committed() -> None:
    storage, _ = claimed()
    for address in SMALL.regions:
        put(storage.image, address, b"\xff" * SECTOR)
    metadata, ownership = opened(storage)
    assert ownership is Ownership.DAMAGED
    with pytest.raises(TiergateError):
        asyncio.run(metadata.commit(()))


def test_labels_gone_but_a_region_there_is_damaged_not_blank() -> None:
    """R2: a claim without force must not take it for blank."""
    storage, metadata = claimed()
    asyncio.run(metadata.commit((partition(1, 8),)))
    for address in label_addresses(SIZE):
        put(storage.image, address, bytes(SECTOR))
    assert opened(storage)[1] is Ownership.DAMAGED


def test_time_stamps_never_run_backwards() -> None:
    """M2: a clock that jumps back changes nothing in the order."""
    storage, metadata = claimed()
    earlier = AluMetadata(storage, SIZE, lambda: 5)
    asyncio.run(earlier.inspect(SUSID))
    asyncio.run(earlier.commit((partition(1, 8),)))
    asyncio.run(earlier.format(SUSID, OTHER_ALU))
    assert earlier.label.time_ns == metadata.label.time_ns + 1


def test_claim_after_contradicting_labels_wins_over_both() -> None:
    storage, metadata = claimed()
    other = renewed(new_label(OTHER_ALU, SIZE), None, 7)
    put(storage.image, FRONT_LABELS[1], build(other, FRONT_LABELS[1]))
    assert opened(storage)[1] is Ownership.DAMAGED
    asyncio.run(metadata.format(SUSID, new_device_wwn(lambda bits: 3)))
    assert metadata.label.generation == 2
    assert opened(storage)[1] is Ownership.OWNED


def test_an_alu_keeps_no_name_over_a_claim() -> None:
    """The name tells the MDR directory of the new ALU from that of the old one."""
    _, metadata = claimed()
    with pytest.raises(UsageError, match="named"):
        asyncio.run(metadata.format("another", ALU))


def test_without_a_readable_mdr_directory_nothing_is_committed() -> None:
    """M5: nobody can say which epoch the ALU has seen."""
    storage, metadata = claimed()
    for address in MDR_ADDRESSES:
        put(storage.image, address, bytes(SECTOR))
    storage.events.clear()
    with pytest.raises(CorruptError, match="MDR directory"):
        asyncio.run(metadata.commit((partition(1, 8),)))
    assert storage.events == []


def test_the_header_of_each_commit_carries_its_epoch() -> None:
    """M5."""
    storage, metadata = claimed()
    asyncio.run(metadata.commit((partition(1, 8),), 7))
    inspected = asyncio.run(AluMetadata(storage, SIZE).inspect(SUSID))
    assert inspected.state is not None
    assert inspected.state.epoch == 7
    assert {stamp.epoch for stamp in inspected.table.stamps.values()} == {7}
